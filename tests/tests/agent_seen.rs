//! What netdiag says of what it enforces, beside what really becomes of the packets: on a real kernel with a real agent.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use netdiag_agent::netns::Namespace;
use netdiag_common::{ABI_VERSION, abi::policy::GrantKey};
use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, is_answered, names, pings, run},
};
use serde_json::Value;

/// How long is waited for a connection that must not come about.
const SOON: Duration = Duration::from_secs(2);

/// TCP 7 from everybody, TCP 9 from somebody else.
const POLICY: &str = "
security_groups:
  - id: echo
    security_group_rules:
      - {id: everybody, direction: ingress, ethertype: IPv4, protocol: tcp, port_range_min: 7, port_range_max: 7}
      - {id: partners, direction: ingress, ethertype: IPv4, protocol: tcp, port_range_min: 9, port_range_max: 9,
         remote_ip_prefix: 198.51.100.0/24}
ports:
  - {id: p1, security_groups: [echo], binding: {device: tap0}}
";

/// An answer of netdiag about the instance: its exit code and its JSON.
fn asked(host: &AgentHost, words: &[&str]) -> (Option<i32>, Value) {
    let (root, socket) = (host.root().display().to_string(), host.path("run/agent.sock").display().to_string());
    let nowhere = host.path("nowhere").display().to_string();
    let more = ["--bpffs", &root, "--agent-socket", &socket, "--docker-socket", &nowhere, "--ovsdb-socket", &nowhere];
    let output = host.netdiag(&[words, &more, &["-o", "json"]].concat());
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
}

fn explained(host: &AgentHost, port: &str) -> (Option<i32>, Value) {
    asked(host, &["sg", "explain", "instance", "--from", "192.0.2.1", "--to", "192.0.2.2", "--port", port])
}

/// Hits of the rules of the instance.
fn hits(host: &AgentHost) -> Vec<(String, u64, String)> {
    let (_, shown) = asked(host, &["sg", "show", "instance"]);
    let rules = shown["ports"][0]["rules"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let rule = |rule: &Value| (text(&rule["id"]), rule["hits"].as_u64().unwrap_or(u64::MAX), text(&rule["standing"]));
    rules.iter().map(rule).collect()
}

fn row(id: &str, hits: u64, standing: &str) -> (String, u64, String) {
    (id.to_owned(), hits, standing.to_owned())
}

/// Whether somebody who connects to a port of the instance, where a server listens, is connected. Where he is not, nothing of it has
/// come to the server: an answer that is lost does not stand for a question that is refused.
async fn connects(port: u16, patience: Duration) -> Option<TcpStream> {
    let address: SocketAddr = format!("192.0.2.2:{port}").parse().unwrap();
    let instance = Namespace::open(Path::new("/run/netns/instance")).unwrap();
    let _server = instance.run(move || TcpListener::bind(address).unwrap()).await.unwrap();
    let connection = TcpStream::connect_timeout(&address, patience).ok();
    if connection.is_none() {
        assert_eq!(run("ip netns exec instance ss -Htn state syn-recv"), "", "the server was asked at port {port}");
    }
    connection
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_of_a_packet_its_rule_its_flow_and_its_nearest_miss_is_what_becomes_of_it() {
    let test = "what_is_said_of_a_packet_its_rule_its_flow_and_its_nearest_miss_is_what_becomes_of_it";
    let Some(mut host) = AgentHost::enter(test) else { return };
    host.policy(POLICY);
    host.start();
    host.wait_for_ports(&["p1"]);
    assert_eq!(hits(&host), [row("everybody", 0, "in-force"), row("partners", 0, "in-force")]);

    let (code, allowed) = explained(&host, "7");
    assert_eq!((code, &allowed["loaded"]["verdict"]), (Some(0), &"allow".into()), "{allowed:#}");
    assert_eq!((&allowed["loaded"]["rule_id"], &allowed["agrees"]), (&"everybody".into(), &true.into()));
    let connection = connects(7, PATIENCE).await;
    assert!(connection.is_some());
    assert_eq!(hits(&host), [row("everybody", 1, "in-force"), row("partners", 0, "in-force")]);
    let (_, flows) = asked(&host, &["flows", "instance", "--port", "7"]);
    let flow = &flows["flows"][0];
    assert_eq!((&flow["rule"], &flow["direction"]), (&"everybody".into(), &"ingress".into()), "{flows:#}");

    for (port, condition) in [("8", "port"), ("9", "remote")] {
        let (code, denied) = explained(&host, port);
        let loaded = &denied["loaded"];
        assert_eq!((code, &loaded["verdict"], &loaded["reason"]), (Some(3), &"deny".into(), &"no-rule".into()));
        assert_eq!(denied["near_misses"][0]["condition"], condition, "{denied:#}");
        assert!(connects(port.parse().unwrap(), SOON).await.is_none());
    }
    assert_eq!(hits(&host), [row("everybody", 1, "in-force"), row("partners", 0, "in-force")]);
    drop(connection);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_what_is_loaded_is_not_what_is_asked_for_every_answer_says_so() {
    let Some(mut host) = AgentHost::enter("where_what_is_loaded_is_not_what_is_asked_for_every_answer_says_so") else {
        return;
    };
    host.policy(POLICY);
    host.start_with(&["--full-pass", "3600"]);
    host.wait_for_ports(&["p1"]);
    let differs = |host: &AgentHost| {
        let text = asked(host, &["trace", "instance"]).1.to_string();
        assert!(text.contains("security"), "the trace shows enforcement: {text}");
        text.contains("policy-differs")
    };
    assert!(!differs(&host));
    // Somebody takes the grants out of the map: the rules are asked for and allow nobody any more.
    let path = host.root().join(format!("v{ABI_VERSION}/GRANTS"));
    let mut grants: HashMap<_, GrantKey, u32> =
        HashMap::try_from(Map::HashMap(MapData::from_pin(path).unwrap())).unwrap();
    let keys: Vec<GrantKey> = grants.keys().map(Result::unwrap).collect();
    assert!(!keys.is_empty());
    for key in &keys {
        grants.remove(key).unwrap();
    }

    assert!(connects(7, SOON).await.is_none());
    let (code, explained) = explained(&host, "7");
    assert_eq!((code, &explained["loaded"]["verdict"]), (Some(3), &"deny".into()), "{explained:#}");
    assert_eq!((&explained["asked"]["verdict"], &explained["agrees"]), (&"allow".into(), &false.into()));
    let standings: Vec<_> = hits(&host).into_iter().map(|(id, _, standing)| (id, standing)).collect();
    assert!(standings.contains(&("everybody".to_owned(), "missing".to_owned())), "{standings:?}");
    assert!(differs(&host));
    // An agent that starts reads what is there and mends it.
    host.end(rustix::process::Signal::KILL);
    host.start();
    host.wait_for_ports(&["p1"]);
    assert!(connects(7, PATIENCE).await.is_some() && !differs(&host));
}

#[test]
fn what_nobody_announces_is_mended_by_the_periodic_pass() {
    let Some(mut host) = AgentHost::enter("what_nobody_announces_is_mended_by_the_periodic_pass") else { return };
    host.policy(POLICY);
    host.start_with(&["--full-pass", "1"]);
    host.wait_for_ports(&["p1"]);
    assert!(!pings());
    let links = host.root().join("links");
    for device in names(&links) {
        for pin in names(&links.join(&device)) {
            fs::remove_file(links.join(&device).join(pin)).unwrap();
        }
    }
    let begun = Instant::now();
    while is_answered() || names(&links).iter().any(|device| names(&links.join(device)).len() < 2) {
        assert!(begun.elapsed() < PATIENCE, "nobody attaches again");
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!pings());
}

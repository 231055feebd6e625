//! The agent's API against clients good, bad and slow.

use std::{
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::Instant,
};

use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, answer, answers, pings, until},
};
use rustix::process::Signal;
use serde_json::Value;

const GROUP: &str = r#"{"security_group": {"id": "g", "name": "pings", "security_group_rules": [
    {"direction": "ingress", "ethertype": "IPv4", "protocol": "icmp"}]}}"#;
const PORT: &str = r#"{"security_groups": ["g"], "binding": {"device": "tap0"}}"#;

const FILE: &str = "
security_groups:
  - {id: filed, security_group_rules: []}
";

fn started(test: &str) -> Option<AgentHost> {
    let mut host = AgentHost::enter(test)?;
    host.policy(FILE);
    host.start();
    Some(host)
}

#[test]
fn objects_are_put_read_and_deleted_and_outlive_a_restart() {
    let Some(mut host) = started("objects_are_put_read_and_deleted_and_outlive_a_restart") else { return };
    host.ok("PUT", "/v1/security-groups/g", GROUP);
    host.ok("PUT", "/v1/ports/p1", PORT);
    assert!(answers());
    host.ok("PUT", "/v1/security-groups/g/members", r#"["198.51.100.0/24"]"#);
    host.ok("PUT", "/v1/address-groups/a", r#"{"addresses": ["203.0.113.0/24"]}"#);
    let port = host.ok("GET", "/v1/ports/p1", "");
    assert_eq!(
        (&port["port"]["enforcement"]["state"], &port["port"]["enforcement"]["device"]),
        (&"enforced".into(), &"tap0".into())
    );
    let members = host.ok("GET", "/v1/security-groups/g/members", "");
    assert_eq!(members["members"], serde_json::json!(["192.0.2.2/32", "198.51.100.0/24"]), "found and told");
    let groups = host.ok("GET", "/v1/security-groups", "");
    let ids: Vec<_> = groups["security_groups"].as_array().unwrap().iter().map(|group| group["id"].clone()).collect();
    assert_eq!(ids, ["filed", "g"]);

    host.end(Signal::TERM);
    host.start();
    host.wait_for_ports(&["p1"]);
    assert!(answers());
    assert_eq!(host.ok("GET", "/v1/address-groups/a", "")["address_group"]["addresses"][0], "203.0.113.0/24");
    host.ok("DELETE", "/v1/ports/p1", "");
    host.ok("DELETE", "/v1/security-groups/g/members", "");
    host.ok("DELETE", "/v1/security-groups/g", "");
    assert_eq!(host.request("GET", "/v1/security-groups/g", "").0, 404);
    assert_eq!(host.request("DELETE", "/v1/security-groups/g", "").0, 404);
}

#[test]
fn a_whole_state_is_applied_or_nothing_of_it() {
    let Some(host) = started("a_whole_state_is_applied_or_nothing_of_it") else { return };
    let state = |group: &str| {
        format!(
            r#"{{"security_groups": [{{"id": "g", "security_group_rules": []}}],
                 "ports": [{{"id": "p1", "security_groups": ["{group}"], "binding": {{"device": "tap0"}}}}]}}"#
        )
    };
    let (status, answer) = host.request("PUT", "/v1/policy", &state("nobody"));
    assert_eq!(status, 400, "{answer}");
    assert_eq!(answer["error"]["field"], "security_groups", "{answer}");
    assert!(host.ok("GET", "/v1/policy", "")["ports"].as_array().unwrap().is_empty());
    assert!(answers());
    // What comes next meets nothing of what was refused.
    host.ok("PUT", "/v1/address-groups/a", r#"{"addresses": ["203.0.113.0/24"]}"#);
    host.ok("PUT", "/v1/policy", &state("g"));
    assert!(!pings(), "in force when it is answered");
    host.ok("PUT", "/v1/policy", "{}");
    assert!(answers());
}

#[test]
fn bad_requests_are_told_which_field_and_why() {
    let Some(host) = started("bad_requests_are_told_which_field_and_why") else { return };
    let refused = |method, path, body, status: u16| {
        let (is, answer) = host.request(method, path, body);
        assert_eq!(is, status, "{method} {path}: {answer}");
        assert!(answer["error"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{answer}");
        answer["error"].clone()
    };
    refused("PUT", "/v1/security-groups/g", "{", 400);
    refused("PUT", "/v1/security-groups/g", "[]", 400);
    assert_eq!(refused("PUT", "/v1/security-groups/g", r#"{"id": "h"}"#, 400)["field"], "id");
    let rule = r#"{"security_group_rules": [{"direction": "ingress", "protocol": "tcp", "port_range_min": 9, "port_range_max": 8}]}"#;
    assert!(refused("PUT", "/v1/security-groups/g", rule, 400)["field"].as_str().unwrap().starts_with("port_range"));
    let wrong = refused("PUT", "/v1/security-groups/g", r#"{"security_group_rules": [{"direction": "up"}]}"#, 400);
    assert_eq!((&wrong["field"], wrong["valid"].as_array().map(Vec::len)), (&"direction".into(), Some(2)));
    refused("PUT", "/v1/security-groups/filed", "{}", 400);
    refused("DELETE", "/v1/security-groups/filed", "", 409);
    refused("GET", "/v1/ports/none", "", 404);
    assert!(refused("GET", "/v2", "", 404)["valid"].as_array().unwrap().contains(&"/v1/status".into()));
    refused("POST", "/v1/status", "", 405);
    assert_eq!(refused("GET", "/v1/flows?remote=ten", "", 400)["field"], "remote");
    refused("GET", "/v1/flows?colour=red", "", 400);
    refused("GET", "/v1/events?since=minus", "", 400);
    assert_eq!(
        refused("PUT", "/v1/floatingips/f", r#"{"floating_ip_address": "ten"}"#, 400)["field"],
        "floating_ip_address"
    );
}

#[test]
fn a_floating_ip_that_cannot_be_served_is_kept_and_says_why() {
    let Some(host) = started("a_floating_ip_that_cannot_be_served_is_kept_and_says_why") else { return };
    let body = r#"{"floatingip": {"floating_ip_address": "203.0.113.7", "port_id": "p1"}}"#;
    let (status, answer) = host.request("PUT", "/v1/floatingips/f", body);
    assert_eq!((status, &answer["state"]), (202, &"held".into()), "{answer}");
    let kept = host.ok("GET", "/v1/floatingips/f", "");
    assert_eq!(
        (&kept["floatingip"]["floating_ip_address"], &kept["floatingip"]["state"]),
        (&"203.0.113.7".into(), &"broken".into())
    );
    assert!(kept["floatingip"]["reason"].is_string(), "{kept}");
    host.ok("DELETE", "/v1/floatingips/f", "");
    assert_eq!(host.request("GET", "/v1/floatingips/f", "").0, 404);
}

#[test]
fn a_body_too_large_is_refused_and_harms_nobody() {
    let Some(host) = started("a_body_too_large_is_refused_and_harms_nobody") else { return };
    let (status, answer) = host.request("PUT", "/v1/policy", &" ".repeat((8 << 20) + 1));
    assert_eq!(status, 413, "{answer}");
    host.ok("GET", "/v1/status", "");
}

/// Whether the agent has not ended a connection.
fn is_open(stream: &UnixStream) -> bool {
    let mut stream = stream;
    stream.set_nonblocking(true).expect("do not wait");
    let waits = stream.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("wait again");
    waits
}

#[test]
fn slow_clients_are_cut_off_and_hold_up_nobody() {
    let Some(host) = started("slow_clients_are_cut_off_and_hold_up_nobody") else { return };
    let started = Instant::now();
    let mut silent = host.connect().unwrap();
    let mut half = host.connect().unwrap();
    half.write_all(b"GET /v1/status HTTP/1.1\r\nhost:").unwrap();
    let mut body = host.connect().unwrap();
    body.write_all(b"PUT /v1/policy HTTP/1.1\r\nhost: agent\r\ncontent-length: 100\r\n\r\n{").unwrap();
    host.ok("GET", "/v1/status", "");
    // Whoever stops in the middle is cut off after ten seconds.
    assert!(is_open(&body), "others are served before that");
    let mut rest = Vec::new();
    drop(silent.read_to_end(&mut rest));
    drop(half.read_to_end(&mut rest));
    assert_eq!(answer(&mut body).map(|(status, _)| status), Some(408));
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());

    // Those who take every place are told apart from those who come too late, and are gone in seconds.
    let crowd: Vec<_> = (0..64).map(|_| host.connect().unwrap()).collect();
    until("there is no place", || host.request("GET", "/v1/status", "").0 == 503);
    host.wait("a free place", |status| status["pid"].is_u64());
    drop(crowd);
}

#[test]
fn events_can_be_waited_for_and_streamed() {
    let Some(host) = started("events_can_be_waited_for_and_streamed") else { return };
    host.ok(
        "PUT",
        "/v1/policy",
        r#"{"security_groups": [{"id": "g", "security_group_rules": []}],
        "ports": [{"id": "p1", "security_groups": ["g"], "binding": {"device": "tap0"}}]}"#,
    );
    let next = host.ok("GET", "/v1/events?since=0", "")["next"].as_u64().unwrap();
    let mut stream = host.connect().unwrap();
    stream.write_all(b"GET /v1/events?stream=true&port=p1 HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    assert!(!pings());
    // Beside the ping there may be what the host's device asks its link for, and that may come first.
    let is_ping = |event: &&Value| event["protocol"] == 1;
    let mut since = next;
    let batch = loop {
        let batch = host.ok("GET", &format!("/v1/events?since={since}&timeout=30"), "");
        let events = batch["events"].as_array().unwrap();
        assert!(!events.is_empty(), "nothing comes: {batch}");
        if events.iter().any(|event| is_ping(&event)) {
            break batch;
        }
        since = batch["next"].as_u64().unwrap();
    };
    let denied = |event: &Value| {
        assert_eq!(
            (&event["port_id"], &event["reason"], &event["verdict"]),
            (&"p1".into(), &"no-rule".into(), &"deny".into()),
            "{event}"
        );
        assert_eq!(event["destination"], "192.0.2.2", "{event}");
    };
    denied(batch["events"].as_array().unwrap().iter().find(is_ping).expect("the ping"));
    let others = host.ok("GET", &format!("/v1/events?since={next}&port=p2"), "");
    assert_eq!(others["events"].as_array().map(Vec::len), Some(0), "of another port there is none: {others}");
    let mut streamed = lines.map(|line| serde_json::from_str::<Value>(&line).unwrap());
    denied(&streamed.find(|event| is_ping(&event)).expect("the ping"));
    assert!(batch["next"].as_u64().unwrap() > next);
    assert_eq!(batch["skipped"], 0);
}

/// The metrics as they are served.
fn metrics() -> String {
    let mut stream = std::net::TcpStream::connect("127.0.0.1:9090").expect("connect");
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    text
}

#[test]
fn metrics_are_served_where_they_were_asked_for() {
    let Some(mut host) = AgentHost::enter("metrics_are_served_where_they_were_asked_for") else { return };
    host.policy("ports: [{id: p1, security_groups: [], binding: {device: tap0}}]");
    host.start_with(&["--metrics", "127.0.0.1:9090"]);
    host.wait_for_ports(&["p1"]);
    assert!(!pings());
    // It leaves when its neighbour is known.
    until("it is counted", || {
        let text = metrics();
        let denied =
            text.lines().find(|line| line.contains(r#"reason="no-rule""#) && line.starts_with("netdiag_packets_total"));
        denied.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok()) >= Some(1)
    });
    let text = metrics();
    assert!(text.contains("netdiag_ports 1\n"), "{text}");
    let open = host.netdiag(&["agent", "--metrics", "0.0.0.0:9090"]);
    assert_eq!(open.status.code(), Some(2), "not a loopback address");
}

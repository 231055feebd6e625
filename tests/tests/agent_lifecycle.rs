//! The agent killed, restarted, doubled and taken away, on a real kernel with real connections.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    time::{Duration, Instant},
};

use netdiag_agent::netns::Namespace;
use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, answers, names, pings, run},
};
use rustix::process::Signal;

/// TCP port 7 of the instance, and nothing else.
const ECHO: &str = "
security_groups:
  - id: echo
    security_group_rules:
      - {direction: ingress, ethertype: IPv4, protocol: tcp, port_range_min: 7, port_range_max: 7}
ports:
  - {id: p1, security_groups: [echo], binding: {device: tap0}}
";

/// A connection from the host to the instance, both ends.
struct Connection {
    here: TcpStream,
    there: TcpStream,
}

impl Connection {
    async fn open() -> Self {
        let address: SocketAddr = "192.0.2.2:7".parse().unwrap();
        let instance = Namespace::open(Path::new("/run/netns/instance")).unwrap();
        let listener = instance.run(move || TcpListener::bind(address).unwrap()).await.unwrap();
        let here = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
        let (there, _) = listener.accept().unwrap();
        Self { here, there }
    }

    /// Whether words arrive both ways. The instance speaks first: no rule allows that, so it takes a flow that is remembered, and
    /// what the host says afterwards cannot have begun it anew.
    fn works(&mut self, patience: Duration) -> bool {
        let mut word = [0; 4];
        self.there.set_read_timeout(Some(patience)).unwrap();
        self.here.set_read_timeout(Some(patience)).unwrap();
        self.there.write_all(b"pong").is_ok()
            && self.here.read_exact(&mut word).is_ok()
            && self.here.write_all(b"ping").is_ok()
            && self.there.read_exact(&mut word).is_ok()
    }
}

#[test]
fn groups_are_named_from_what_is_pinned_where_no_agent_answers() {
    let name = "groups_are_named_from_what_is_pinned_where_no_agent_answers";
    let Some(mut host) = AgentHost::enter(name) else { return };
    host.policy(&format!("{ECHO}  - {{id: p2, security_groups: [], binding: {{device: nothing}}}}\n"));
    host.start();
    host.wait_for_ports(&["p1"]);
    host.end(Signal::KILL);
    let root = host.root().display().to_string();
    let shown = host.netdiag(&["sg", "show", "instance", "--bpffs", &root]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.lines().any(|line| line.split_whitespace().eq(["groups", "echo"])), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_killed_leaves_everything_enforced_and_the_next_one_takes_over_without_a_lost_flow() {
    let test = "an_agent_that_is_killed_leaves_everything_enforced_and_the_next_one_takes_over_without_a_lost_flow";
    let Some(mut host) = AgentHost::enter(test) else { return };
    host.policy(ECHO);
    host.start();
    host.wait_for_ports(&["p1"]);
    let mut connection = Connection::open().await;
    assert!(connection.works(PATIENCE) && !pings());
    let before = run("ip -details link show dev tap0");
    for _ in 0..3 {
        host.end(Signal::KILL);
        assert!(connection.works(PATIENCE), "the flow goes on while nobody is there");
        assert!(!pings(), "and nothing else passes");
        host.start();
        host.wait_for_ports(&["p1"]);
        assert!(connection.works(PATIENCE) && !pings());
    }
    assert_eq!(run("ip -details link show dev tap0"), before);
    let flows = host.ok("GET", "/v1/flows?port=p1&protocol=6", "");
    assert_eq!(flows["matching"], 1, "{flows:#}");
    assert_eq!(flows["flows"][0]["state"], "established");
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_change_is_answered_the_next_packet_of_a_revoked_flow_is_dropped() {
    let test = "once_a_change_is_answered_the_next_packet_of_a_revoked_flow_is_dropped";
    let Some(mut host) = AgentHost::enter(test) else { return };
    host.policy("security_groups: []");
    host.start();
    host.wait_for_ports(&[]);
    let rule = r#"{"direction": "ingress", "ethertype": "IPv4", "protocol": "tcp"}"#;
    let group = |rules: &str| format!(r#"{{"security_group": {{"id": "g", "security_group_rules": [{rules}]}}}}"#);
    host.ok("PUT", "/v1/security-groups/g", &group(rule));
    host.ok("PUT", "/v1/ports/p1", r#"{"security_groups": ["g"], "binding": {"device": "tap0"}}"#);
    let mut connection = Connection::open().await;
    assert!(connection.works(PATIENCE));
    host.ok("PUT", "/v1/security-groups/g", &group(""));
    assert!(!connection.works(Duration::from_secs(1)));
    let flows = host.ok("GET", "/v1/flows?port=p1&protocol=6", "");
    assert_eq!(flows["flows"][0]["dead"], true, "{flows:#}");
}

#[test]
fn an_agent_that_is_told_to_stop_leaves_everything_enforced_until_it_is_detached() {
    let test = "an_agent_that_is_told_to_stop_leaves_everything_enforced_until_it_is_detached";
    let Some(mut host) = AgentHost::enter(test) else { return };
    host.policy(ECHO);
    host.start();
    host.wait_for_ports(&["p1"]);
    let root = host.root().display().to_string();
    let refused = host.netdiag(&["agent", "--detach", "--bpffs", &root]);
    assert_ne!(refused.status.code(), Some(0), "an agent is at work");
    assert!(!pings());
    assert_eq!(host.end(Signal::TERM), Some(0));
    assert!(!pings(), "what is loaded goes on");
    let (code, _) = host.agent_status();
    assert_eq!(code, Some(6), "nobody answers");
    let detached = host.netdiag(&["agent", "--detach", "--bpffs", &root]);
    assert_eq!(detached.status.code(), Some(0), "{detached:?}");
    assert!(answers());
    assert!(!names(&host.path("bpffs")).contains(&"netdiag".to_owned()));
}

#[test]
fn a_second_agent_is_refused_and_the_first_one_goes_on() {
    let Some(mut host) = AgentHost::enter("a_second_agent_is_refused_and_the_first_one_goes_on") else { return };
    host.policy(ECHO);
    host.start();
    host.wait_for_ports(&["p1"]);
    let second = host.another();
    let said = String::from_utf8_lossy(&second.stderr);
    assert_eq!(second.status.code(), Some(3), "{said}");
    let status = host.agent_status().1;
    let who = format!("another netdiag agent is at work there, process {}", status["pid"]);
    assert!(said.contains(&who), "{said}");
    let detached = host.netdiag(&["agent", "--detach", "--bpffs", &host.root().display().to_string()]);
    let said = String::from_utf8_lossy(&detached.stderr);
    assert_eq!(detached.status.code(), Some(3), "{said}");
    assert!(said.contains(&who), "{said}");
    host.wait_for_ports(&["p1"]);
    assert_eq!(host.agent_status().0, Some(0));
    assert!(!pings());
}

#[test]
fn a_signal_makes_the_agent_read_its_files_anew() {
    let Some(mut host) = AgentHost::enter("a_signal_makes_the_agent_read_its_files_anew") else { return };
    host.policy(ECHO);
    host.start_with(&["--full-pass", "3600"]);
    host.wait_for_ports(&["p1"]);
    let done = host.wait("a pass", |status| status["passes"]["done"].is_u64())["passes"]["done"].as_u64().unwrap();
    host.signal(Signal::HUP);
    host.wait("one more pass", |status| status["passes"]["done"].as_u64() > Some(done));
}

#[test]
fn a_host_without_the_privileges_is_refused_with_what_is_missing() {
    let Some(mut host) = AgentHost::enter("a_host_without_the_privileges_is_refused_with_what_is_missing") else {
        return;
    };
    run(&format!("chmod 777 {}", host.path("run").display()));
    host.wrapper = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"].map(str::to_owned).to_vec();
    let refused = host.another();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(5), "{said}");
    assert!(said.contains("CAP_NET_ADMIN") && said.contains("not held"), "{said}");
}

/// The capabilities that the service's unit names, as `setpriv` has them.
fn capabilities_of_the_unit() -> String {
    let unit = include_str!("../../packaging/netdiag-agent.service");
    let line = unit.lines().find_map(|line| line.strip_prefix("AmbientCapabilities=")).unwrap();
    let bounding = unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).unwrap();
    assert_eq!(line, bounding);
    let names = line.split(' ').map(|name| format!("+{}", name.strip_prefix("CAP_").unwrap().to_lowercase()));
    format!("-all,{}", names.collect::<Vec<_>>().join(","))
}

#[test]
fn the_agent_lives_as_a_user_with_the_capabilities_of_its_unit_and_no_others() {
    let test = "the_agent_lives_as_a_user_with_the_capabilities_of_its_unit_and_no_others";
    let Some(mut host) = AgentHost::enter(test) else { return };
    host.policy(ECHO);
    // As systemd mounts it, and as systemd makes the others for the unit.
    run(&format!("chmod 700 {}", host.path("bpffs").display()));
    for directory in ["state", "run"] {
        run(&format!("chown 65534:65534 {}", host.path(directory).display()));
    }
    run(&format!("chmod 755 {}", host.path("").display()));
    let set = capabilities_of_the_unit();
    let words = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"];
    let sets = ["inh-caps", "ambient-caps", "bounding-set"].map(|kind| format!("--{kind}={set}"));
    host.wrapper = words.map(str::to_owned).into_iter().chain(sets).chain(["--".to_owned()]).collect();
    host.start();
    host.wait_for_ports(&["p1"]);
    assert!(!pings());
    let (code, status) = host.agent_status();
    assert_eq!(code, Some(0), "{status:#}\n{}", host.log());
    assert_eq!(host.end(Signal::TERM), Some(0));
}

#[test]
fn the_service_manager_is_told_when_the_agent_enforces_reloads_lives_and_ends() {
    let test = "the_service_manager_is_told_when_the_agent_enforces_reloads_lives_and_ends";
    let Some(mut host) = AgentHost::enter(test) else { return };
    let manager = std::os::unix::net::UnixDatagram::bind(host.path("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let heard = |wanted: &str| {
        let mut buffer = [0; 512];
        // It is told other things as well, on and on.
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "never: {wanted}");
            let length = manager.recv(&mut buffer).expect(wanted);
            if String::from_utf8_lossy(&buffer[..length]).contains(wanted) {
                return;
            }
        }
    };
    host.policy(ECHO);
    let socket = format!("NOTIFY_SOCKET={}", host.path("notify").display());
    host.wrapper = ["env", &socket, "WATCHDOG_USEC=1500000"].map(str::to_owned).to_vec();
    host.start();
    heard("READY=1\nSTATUS=1 ports enforced");
    heard("WATCHDOG=1");
    host.signal(Signal::HUP);
    heard("RELOADING=1");
    heard("READY=1");
    assert_eq!(host.end(Signal::TERM), Some(0));
    heard("STOPPING=1");
}

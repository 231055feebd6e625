//! `netdiag events` against a running agent: what is shown, what is counted, and what becomes of it when the agent ends.

use std::{
    cell::OnceCell,
    fs,
    os::unix::net::UnixListener,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, command, is_answered, run, until},
};
use rustix::process::Signal;
use serde_json::Value;

/// Pings are refused, TCP to port 80 is allowed and said to be.
const POLICY: &str = "
security_groups:
  - {id: web, security_group_rules: [{direction: ingress, protocol: tcp, port_range_min: 80, port_range_max: 80}]}
ports: [{id: p1, security_groups: [web], fixed_ips: [192.0.2.2], binding: {device: tap0}, log_allowed: true}]
";

fn started(test: &str) -> Option<AgentHost> {
    let mut host = AgentHost::enter(test)?;
    host.policy(POLICY);
    host.start();
    host.wait_for_ports(&["p1"]);
    Some(host)
}

/// When nothing has come for so long, nothing is on its way.
const REST: Duration = Duration::from_secs(3);

/// Whether an event is one that was asked for.
type Fits = fn(&Value) -> bool;

/// `netdiag events` in the background.
struct Following<'h> {
    host: &'h str,
    child: Child,
}

impl<'h> Following<'h> {
    /// Begins, and waits until the agent has a reader.
    fn begin(host: &AgentHost, directory: &'h str, options: &[&str]) -> Self {
        Self::begin_as(host, directory, "json", options)
    }

    /// The same in text or JSON.
    fn begin_as(host: &AgentHost, directory: &'h str, output: &str, options: &[&str]) -> Self {
        let file = |name: &str| fs::File::create(format!("{directory}/{name}")).expect("make a file");
        let child = host
            .command(&["events", "-o", output, "--agent-socket", &host.path("run/agent.sock").display().to_string()])
            .args(options)
            .stdout(file("events"))
            .stderr(file("said"))
            .stdin(Stdio::null())
            .spawn()
            .expect("start netdiag events");
        Self { host: directory, child }
    }

    fn events(&self) -> Vec<Value> {
        self.text().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    fn text(&self) -> String {
        fs::read_to_string(format!("{}/events", self.host)).expect("read the events")
    }

    fn said(&self) -> String {
        fs::read_to_string(format!("{}/said", self.host)).expect("read standard error")
    }

    /// Makes packets until it has ended by itself; its exit code.
    fn until_it_ends(&mut self, packets: impl Fn()) -> Option<i32> {
        let started = Instant::now();
        loop {
            packets();
            if let Some(status) = self.child.try_wait().expect("wait for netdiag events") {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "it does not end: {:?}", self.events());
        }
    }
}

impl Drop for Following<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Packets refused at the port so far, as the kernel counts them.
fn refused(host: &AgentHost) -> u64 {
    let root = host.root().display().to_string();
    let shown = host.netdiag(&["sg", "show", "instance", "-o", "json", "--bpffs", &root]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    let counters = shown["ports"][0]["counters"].as_array().expect("counters").clone();
    let refused = counters.iter().filter(|counter| counter["passes"] == false);
    refused.map(|counter| counter["packets"].as_u64().unwrap_or_default()).sum()
}

/// Packets that were refused before somebody followed. What is on its way to him, on a busy machine for a while, is none of them.
fn settled(host: &AgentHost, following: &Following<'_>) -> u64 {
    let not_shown = || {
        let shown = following.events().len() as u64;
        refused(host) - shown
    };
    let begun = Instant::now();
    let (mut last, mut since) = (not_shown(), Instant::now());
    while since.elapsed() < REST {
        assert!(begun.elapsed() < PATIENCE, "it does not come to rest");
        thread::sleep(Duration::from_millis(100));
        let now = not_shown();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn events_go_on_at_the_next_agent_and_each_is_shown_or_counted() {
    let Some(mut host) = started("events_go_on_at_the_next_agent_and_each_is_shown_or_counted") else { return };
    let directory = host.path("run").display().to_string();
    let following = Following::begin(&host, &directory, &[]);
    let until = |what: &str, is: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !is() {
            assert!(begun.elapsed() < PATIENCE, "never: {what}: {} {:?}", following.said(), following.events().len());
            thread::sleep(Duration::from_millis(50));
        }
    };
    until("an event", &|| {
        _ = is_answered();
        !following.events().is_empty()
    });
    let before = settled(&host, &following);
    for (round, signal) in [Signal::KILL, Signal::TERM].into_iter().enumerate() {
        // More than its share, while an agent runs, while it ends, while there is none, and when one begins.
        for last in [false, true] {
            drop(command("ping -c 300 -l 300 -W 1 192.0.2.2"));
            if last {
                break;
            }
            host.end(signal);
        }
        until("a word", &|| following.said().matches("the agent has ended").count() > round);
        host.start();
        _ = is_answered();
    }
    until("everything", &|| {
        let number = |event: &Value, field: &str| event[field].as_u64().unwrap_or_default();
        let events = following.events();
        let missing: u64 = events
            .iter()
            .map(|event| ["suppressed", "lost", "skipped"].map(|field| number(event, field)).iter().sum::<u64>())
            .sum();
        let shown = events.iter().filter(|event| event["event"] == "verdict").count() as u64;
        before + shown + missing == refused(&host)
    });
    assert_eq!(following.said().matches("the agent is back").count(), 2, "{}", following.said());
    let lost = following.events().iter().filter(|event| event["event"] == "lost").count();
    assert!(lost > 0, "more than its share was never sent");
}

#[test]
fn a_live_event_says_whose_it_is() {
    let Some(host) = started("a_live_event_says_whose_it_is") else { return };
    let directory = host.path("run").display().to_string();
    let mut following = Following::begin(&host, &directory, &["--reason", "no-rule", "--count", "1"]);
    assert_eq!(following.until_it_ends(|| _ = is_answered()), Some(0));
    let events = following.events();
    assert_eq!((&events[0]["instance"], &events[0]["device"]), (&"instance".into(), &"tap0".into()), "{events:?}");
}

#[test]
fn what_is_refused_while_the_host_is_looked_at_is_shown() {
    let Some(host) = started("what_is_refused_while_the_host_is_looked_at_is_shown") else { return };
    let directory = host.path("run").display().to_string();
    let root = host.root().display().to_string();
    // A daemon that is asked and answers only when the packet is gone.
    let socket = host.path("run/slow.sock");
    let daemon = UnixListener::bind(&socket).expect("listen");
    let docker = socket.display().to_string();
    let options = ["--reason", "no-rule", "--count", "1", "--bpffs", &root, "--docker-socket", &docker, "instance"];
    let mut following = Following::begin(&host, &directory, &options);
    daemon.set_nonblocking(true).expect("not wait for ever");
    let asked = OnceCell::new();
    until("the daemon is asked", || daemon.accept().is_ok_and(|client| asked.set(client).is_ok()));
    drop(command("ping -c 1 -W 1 192.0.2.2"));
    drop((asked, daemon));
    assert_eq!(following.until_it_ends(|| thread::sleep(Duration::from_millis(50))), Some(0), "{}", following.said());
    let of_ping = |event: &Value| event["reason"] == "no-rule" && event["protocol"] == 1;
    assert!(following.events().iter().any(of_ping), "{}", following.text());
}

#[test]
fn only_events_of_the_reason_and_the_verdict_asked_for_are_shown_and_counted() {
    let Some(host) = started("only_events_of_the_reason_and_the_verdict_asked_for_are_shown_and_counted") else {
        return;
    };
    let directory = host.path("run").display().to_string();
    run("ip -n instance addr add 192.0.2.77/24 dev eth0");
    let packets = || {
        _ = is_answered();
        drop(command("ip netns exec instance ping -c 1 -W 1 -I 192.0.2.77 192.0.2.1"));
        drop(std::net::TcpStream::connect("192.0.2.2:80"));
    };
    let cases: [(&[&str], u64, Fits); 4] = [
        (&["--verdict", "allow"], 2, |event| event["verdict"] == "allow" && event["reason"] == "rule"),
        (&["--verdict", "deny"], 3, |event| event["verdict"] == "deny"),
        (&["--reason", "ip-spoof"], 1, |event| event["reason"] == "ip-spoof"),
        (&["--reason", "ip-spoof", "--reason", "rule", "instance"], 3, |event| {
            ["ip-spoof", "rule"].iter().any(|reason| event["reason"] == *reason)
        }),
    ];
    for (options, count, fits) in cases {
        let root = host.root().display().to_string();
        let count_text = count.to_string();
        let options = [options, &["--count", &count_text, "--bpffs", &root]].concat();
        let mut following = Following::begin(&host, &directory, &options);
        assert_eq!(following.until_it_ends(packets), Some(0), "{options:?}: {}", following.said());
        let events: Vec<_> = following.events().into_iter().filter(|event| event["event"] == "verdict").collect();
        assert_eq!(events.len() as u64, count, "{options:?}");
        assert!(events.iter().all(fits), "{options:?}: {events:?}");
    }
}

#[test]
fn multicast_of_the_link_that_is_refused_is_counted_in_text_unless_asked_for_and_marked_in_json() {
    let test = "multicast_of_the_link_that_is_refused_is_counted_in_text_unless_asked_for_and_marked_in_json";
    let Some(host) = started(test) else { return };
    let directory = host.path("run").display().to_string();
    // Both ends report the groups they are in whenever they like.
    run("sysctl -qw net.ipv6.conf.tap0.disable_ipv6=1");
    run("ip netns exec instance sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1");
    // To the group of all hosts, as a quiet bridge is full of; without the copy that the kernel gives back to who sent it.
    let noise = || drop(command("ping -L -c 3 -i 0.01 -W 1 -I tap0 224.0.0.1"));
    let packets = || {
        noise();
        _ = is_answered();
    };
    let mut shown = Following::begin_as(&host, &directory, "text", &["--count", "6"]);
    assert_eq!(shown.until_it_ends(packets), Some(0), "{}", shown.said());
    let said = shown.text();
    let of_multicast = |line: &&str| line.contains("224.0.0.1");
    let left_out = said.lines().filter(|line| line.contains("refused of the link's multicast to 1 port")).count();
    assert!(left_out > 0 && !said.lines().any(|line| of_multicast(&line)), "{said}");
    assert!(said.lines().any(|line| line.contains("> 192.0.2.2 ")), "{said}");
    drop(shown);

    let mut ended = Following::begin_as(&host, &directory, "text", &["--duration", "3"]);
    assert_eq!(ended.until_it_ends(noise), Some(0), "{}", ended.said());
    let counts =
        ended.text().lines().filter_map(|line| line.split(' ').nth(1)?.parse::<u64>().ok()).collect::<Vec<_>>();
    assert!(counts.len() == 2 && counts[0] == 1, "the first one at once, the others at the end: {}", ended.text());
    drop(ended);

    let mut asked = Following::begin_as(&host, &directory, "text", &["--multicast", "--count", "2"]);
    assert_eq!(asked.until_it_ends(noise), Some(0), "{}", asked.said());
    assert!(asked.text().lines().all(|line| of_multicast(&line) && line.ends_with("(the link's multicast)")));
    drop(asked);

    let mut json = Following::begin(&host, &directory, &["--count", "4"]);
    assert_eq!(json.until_it_ends(packets), Some(0), "{}", json.said());
    let is_marked = |event: &Value| event["refused_multicast"] == (event["destination_address"] == "224.0.0.1");
    assert!(json.events().iter().filter(|event| event["event"] == "verdict").all(is_marked), "{}", json.text());
    assert!(json.events().iter().any(|event| event["refused_multicast"] == true));
}

//! netdiag's own security groups, which deny at either end, and its fast path, which is no disagreement.

use std::{
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{Lab, Target, agent::PATIENCE, site};
use serde_json::Value;

use super::{
    OUTSIDE,
    fault::{Fault, Lane, Outcome, Traffic},
};

/// Where the agent of the test lives on its host.
const HOME: &str = "/run/agent-test";
/// Where netdiag finds it.
const OPTIONS: [&str; 4] = ["--agent-socket", "/run/agent-test/agent.sock", "--bpffs", "/run/agent-test/bpffs/netdiag"];

/// An agent on a host of a lab.
struct Agent<'l> {
    lab: &'l Lab,
    host: &'static str,
    /// The ports it holds to groups, as the API takes them.
    ports: Vec<String>,
}

impl<'l> Agent<'l> {
    /// Starts an agent that lets everything pass at the ports of some instances.
    fn start(lab: &'l Lab, host: &'static str, instances: &[&str]) -> Self {
        let all = lab.instances(host);
        let chosen = all.iter().filter(|one| instances.iter().any(|name| one["display_name"] == *name));
        let port = |port: &Value| {
            let (id, address) = (&port["id"], &port["address"]["address"]);
            format!(r#"{{"id": {id}, "security_groups": ["group"], "fixed_ips": [{address}]}}"#)
        };
        let ports = chosen.map(|one| port(&one["ports"][0])).collect();
        let agent = Self { lab, host, ports };
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let binary = lab.binary();
        agent.sh(&format!(
            "mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs && \
             (setsid {binary} agent {options} --bpffs {HOME}/bpffs/netdiag > {HOME}/log 2>&1 < /dev/null & \
             echo $! > {HOME}/pid)"
        ));
        let open = agent.put(&open());
        agent.until("the policy is taken", || agent.lab.sh(host, &open).code == Some(0));
        agent.until("its ports are held", || {
            agent.get("status")["ports"].as_array().map(Vec::len) == Some(agent.ports.len())
        });
        agent
    }

    #[track_caller]
    fn sh(&self, line: &str) -> String {
        self.lab.sh(self.host, line).ok()
    }

    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let started = Instant::now();
        while !is_so() {
            let log = || self.sh(&format!("tail -n 20 {HOME}/log"));
            assert!(started.elapsed() < PATIENCE, "never: {what}: {}", log());
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn get(&self, path: &str) -> Value {
        let said = self.lab.sh(self.host, &format!("curl -s --unix-socket {HOME}/agent.sock http://agent/v1/{path}"));
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    /// The command that puts other rules in force, and answers when they are.
    fn put(&self, rules: &str) -> String {
        let policy = site::document(&[("group", rules)], &self.ports, "");
        format!("curl -sf --unix-socket {HOME}/agent.sock -X PUT http://agent/v1/policy -d '{policy}' > /dev/null")
    }

    /// A change of the rules, and back.
    fn only(&self, rules: &str) -> (String, String) {
        (self.put(rules), self.put(&open()))
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        // The lab ends with all its processes; this only spares it the wait.
        drop(self.lab.sh(self.host, &format!("kill $(cat {HOME}/pid); umount -l {HOME}/bpffs")));
    }
}

/// Rules that let everything pass in a direction, or what is left of it.
fn way(direction: &str, rest: &str) -> String {
    format!(r#"{{"direction": "{direction}", "ethertype": "IPv4" {rest}}}"#)
}

fn open() -> String {
    site::rules(&[way("ingress", ""), way("egress", "")])
}

const TCP: &str = r#", "protocol": "tcp""#;

/// Groups of two instances of one host, which deny at either end.
pub(crate) fn groups(lab: &Lab) -> Vec<Outcome> {
    let host = "compute-2";
    let agent = Agent::start(lab, host, &["web-3", "web-4"]);
    let instances = lab.instances(host);
    let find = |name: &str| instances.iter().find(|one| one["display_name"] == name).unwrap();
    let (one, two) = (find("web-3"), find("web-4"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (name, other) = (text(&one["container_name"]), text(&two["container_name"]));
    let taps = [one, two].map(|instance| text(&instance["ports"][0]["host_devices"][0]));
    let to = text(&two["ports"][0]["address"]["address"]);
    let ping = || Traffic::Here(format!("nsenter -n -t {} ping -q -c 2 -i 0.2 -W 1 {to}", one["pid"]));
    let no_egress = site::rules(&[way("ingress", ""), way("egress", TCP)]);
    let no_ingress = site::rules(&[way("ingress", TCP), way("egress", "")]);
    let mine = format!("refused by the security groups of {name}");
    let theirs = format!("refused by the security groups of {other}");
    let here = [
        Fault::new("own groups deny what leaves", agent.only(&no_egress), ping(), ("security-group", &taps[0], &mine)),
        Fault::new(
            "the neighbour's groups deny it",
            agent.only(&no_ingress),
            ping(),
            ("security-group", &taps[1], &theirs),
        ),
    ];
    let there = Fault::new(
        "own groups deny what comes",
        agent.only(&no_ingress),
        ping(),
        ("security-group", &taps[1], &theirs),
    );
    let lane = Lane::of(lab, host, &name).with(&OPTIONS);
    let unasked = Fault::new(
        "own groups deny what leaves, and the agent is not asked",
        agent.only(&no_egress),
        ping(),
        ("kernel-drop", &taps[0], "an XDP program dropped it"),
    );
    let unasked_there = Fault::new(
        "own groups deny what comes, and the agent is not asked",
        agent.only(&no_ingress),
        ping(),
        ("kernel-drop", &taps[1], "a BPF program sent it to no device"),
    );
    let mut outcomes = vec![lane.healthy("healthy, with groups", &ping())];
    outcomes.extend(Lane::of(lab, host, &name).each(&[unasked]));
    outcomes.extend(Lane::of(lab, host, &other).each(&[unasked_there]));
    outcomes.extend(lane.each(&here));
    outcomes.extend(Lane::of(lab, host, &other).with(&OPTIONS).each(&[there]));
    outcomes.push(lane.healthy("healthy again, with groups", &ping()));
    outcomes
}

/// A floating IP that goes past its router, of an instance whose fixed address another tenant's has, too.
pub(crate) fn fast_path(lab: &Lab) -> Vec<Outcome> {
    let host = "compute-1";
    let target = Target::named(lab, host, "other-1");
    let agent = Agent::start(lab, host, &["other-1"]);
    let fast = format!("floatingips/{}", target.floating);
    agent.until("it is fast", || agent.get(&fast)["floatingip"]["state"] == "fast");
    let lane = Lane::of(lab, host, &target.container).with(&OPTIONS);
    let ping = Traffic::Here(target.inside(&format!("ping -q -c 3 -i 0.2 -W 1 {OUTSIDE}")));
    // The router asks for its gateway when somebody goes there, and until then what goes there is its own.
    let once = target.inside(&format!("ping -q -c 1 -W 1 {OUTSIDE}"));
    let gone = || agent.get(&fast)["floatingip"]["packets"]["egress"]["fast"].as_u64() > Some(0);
    agent.until("somebody has gone past the router", || lab.sh(host, &once).code.is_some() && gone());
    let mut outcomes = vec![lane.healthy("healthy, past the router", &ping)];
    let denied = Fault::new(
        "own groups deny what comes past the router",
        agent.only(&way("egress", "")),
        Traffic::From("outside", format!("ping -q -c 1 -W 1 {}", target.floating)),
        ("security-group", "", &format!("refused by the security groups of {}", target.container)),
    );
    outcomes.extend(lane.each(&[denied]));
    outcomes.push(lane.healthy("healthy again, past the router", &ping));
    outcomes
}

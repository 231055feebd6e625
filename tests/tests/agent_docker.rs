//! Containers of plain Docker, in the lab: one that names its security groups in a label, and one that a port names.

use std::{
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{Lab, agent::questions, require_ebpf};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

/// When nothing has made the agent look for so long, nothing will.
const REST: Duration = Duration::from_secs(3);

/// Where the agent of the test lives on its host.
const HOME: &str = "/run/agent-test";

/// The rule for pings.
const PING: &str = "{direction: ingress, ethertype: IPv4, protocol: icmp}";
/// A port of the container of this name.
const NAMED: &str = "{id: p1, security_groups: [web], binding: {instance: named}}";

struct Host {
    lab: Lab,
    name: String,
}

impl Host {
    #[track_caller]
    fn sh(&self, line: &str) -> String {
        self.lab.sh(&self.name, line).ok()
    }

    fn policy(&self, rules: &str, ports: &str) {
        let text = format!("{{security_groups: [{{id: web, security_group_rules: [{rules}]}}], ports: [{ports}]}}");
        self.sh(&format!("echo '{text}' > {HOME}/policy.d/.new && mv {HOME}/policy.d/.new {HOME}/policy.d/a.yaml"));
    }

    fn start(&self) {
        self.sh(&format!("mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs"));
        self.policy(PING, "");
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let agent = format!("{} agent {options} --bpffs {HOME}/bpffs/netdiag --full-pass 3600", self.lab.binary());
        self.sh(&format!("setsid {agent} > {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid"));
    }

    fn status(&self) -> Value {
        let said =
            self.lab.netdiag(&self.name, &["agent", "status", "--socket", &format!("{HOME}/agent.sock"), "-o", "json"]);
        serde_json::from_str(&said.out).unwrap_or_default()
    }

    #[track_caller]
    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) {
        let started = Instant::now();
        loop {
            let status = self.status();
            if wanted(&status) {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "never: {what}: {status:#}");
            thread::sleep(Duration::from_millis(200));
        }
    }

    fn wait_for_ports(&self, count: usize) {
        self.wait("so many ports", |status| status["ports"].as_array().map(Vec::len) == Some(count));
    }

    /// Waits until nothing of what has happened makes the agent look any more: what happens next must do so by itself.
    #[track_caller]
    fn rests(&self) {
        let started = Instant::now();
        let passes = || self.status()["passes_done"].clone();
        let (mut last, mut since) = (passes(), Instant::now());
        while since.elapsed() < REST {
            assert!(started.elapsed() < PATIENCE, "the agent looks and looks");
            thread::sleep(Duration::from_millis(200));
            let now = passes();
            if now != last {
                (last, since) = (now, Instant::now());
            }
        }
    }

    /// Runs a container of the lab's image.
    fn run(&self, name: &str, more: &str) {
        let image = self.sh("docker images --quiet | head -1");
        self.sh(&format!("docker run --detach --name {name} {more} {} sleep 10000", image.trim()));
    }

    fn address(&self, container: &str) -> String {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.sh(&format!("docker inspect --format '{format}' {container}")).trim().to_owned()
    }

    /// Whether a container answers one of many pings: a busy machine may take more than a second for the first ones.
    #[track_caller]
    fn answers(&self, container: &str) -> bool {
        let address = self.address(container);
        self.lab.sh(&self.name, &format!("for i in $(seq 30); do ping -c 1 -W 1 {address} && exit; done; false")).code
            == Some(0)
    }

    /// Whether a container answers. Where it does not, the question has not come to it: its answer would be refused as well.
    #[track_caller]
    fn pings(&self, container: &str) -> bool {
        let address = self.address(container);
        let pid = self.sh(&format!("docker inspect --format '{{{{.State.Pid}}}}' {container}"));
        let asked = || questions(&self.sh(&format!("cat /proc/{}/net/snmp", pid.trim())));
        let before = asked();
        let answers = self.lab.sh(&self.name, &format!("ping -c 1 -W 1 {address}")).code == Some(0);
        assert!(answers || asked() == before, "{container} was asked");
        answers
    }

    /// Something happens to the container of the only port, which comes back with another device.
    #[track_caller]
    fn comes_back(&self, what: &str) {
        let device = self.status()["ports"][0]["device"].clone();
        self.sh(what);
        self.wait("another device", |status| {
            status["ports"][0]["device"].is_string() && status["ports"][0]["device"] != device
        });
    }
}

impl Host {
    /// The API lists the port of the container, says where it comes from, and lets nobody delete it.
    #[track_caller]
    fn listed(&self) {
        let curl =
            |more: &str| self.sh(&format!("curl -s --unix-socket {HOME}/agent.sock http://agent/v1/ports{more}"));
        let ports: Value = serde_json::from_str(&curl("")).expect("JSON");
        let port = &ports["ports"][0];
        assert_eq!((&port["id"], &port["origin"]), (&"guarded/eth0".into(), &"label".into()), "{ports}");
        assert_eq!((&port["enforcement"]["instance"], &port["security_groups"][0]), (&"guarded".into(), &"web".into()));
        let refused = curl("/guarded%2Feth0 -X DELETE -w %{http_code}");
        assert!(refused.ends_with("409"), "{refused}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The lab ends with all its processes; this only spares it the wait.
        drop(self.lab.sh(&self.name, &format!("kill $(cat {HOME}/pid); umount -l {HOME}/bpffs")));
    }
}

#[test]
fn a_container_with_a_label_or_whose_name_a_port_has_is_enforced_through_restarts_and_as_long_as_it_is_there() {
    if !require_ebpf() {
        return;
    }
    let Some(lab) = Lab::up("docker") else { return };
    let name = lab.hosts().first().cloned().expect("a host with instances");
    let host = Host { lab, name };
    host.start();
    host.wait("the first look", |status| status["converged"].is_string());
    host.wait_for_ports(0);
    labelled(&host);
    named(&host);
}

// No full pass is due for an hour: Docker's events and the links make the agent look.

fn labelled(host: &Host) {
    host.run("guarded", "--label netdiag.security-groups=web");
    host.wait_for_ports(1);
    assert!(host.answers("guarded"));
    host.listed();
    host.policy("", "");
    host.wait("no rule", |status| status["rules"] == 0);
    assert!(!host.pings("guarded"));
    host.comes_back("docker restart --time 1 guarded");
    assert!(!host.pings("guarded"));
    host.sh("docker rm --force guarded");
    host.wait_for_ports(0);
    host.wait("nobody left to enforce", |status| status["refused"] == Value::Array(Vec::new()));
}

fn named(host: &Host) {
    // Of a new port a bridge tells once more after its delay, 15 s unless it is told otherwise, though it forwards at once.
    host.sh("ip link set docker0 type bridge forward_delay 0");
    host.policy(PING, NAMED);
    host.wait("a port nobody has found", |status| status["refused"][0]["id"] == "p1");
    host.run("named", "");
    host.run("bystander", "");
    host.wait_for_ports(1);
    let address = host.address("named");
    assert!(host.answers("named") && host.answers("bystander"));
    host.policy("", NAMED);
    host.wait("no rule", |status| status["rules"] == 0);
    assert!(!host.pings("named") && host.answers("bystander"), "it is the other container that is called so");

    host.comes_back("docker restart --time 1 named");
    assert!(!host.pings("named"));
    // The address goes to somebody else, and the name to a container with another one.
    host.sh("docker stop --time 1 named && docker stop --time 1 bystander");
    host.sh("docker start bystander && docker rm named");
    host.wait_for_ports(0);
    assert_eq!(host.address("bystander"), address, "Docker gives the first free address");
    assert!(host.answers("bystander"));
    host.run("named", "");
    host.wait_for_ports(1);
    assert!(!host.pings("named") && host.answers("bystander"));
    // And to a container that was called otherwise all the time, of which Docker alone tells.
    host.sh("docker rm --force named");
    host.wait_for_ports(0);
    host.rests();
    host.sh("docker rename bystander named");
    host.wait_for_ports(1);
    assert!(!host.pings("named"));
    host.policy(PING, NAMED);
    host.wait("a rule", |status| status["rules"] == 1);
    assert!(host.answers("named"));
}

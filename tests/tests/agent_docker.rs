//! Containers of plain Docker that name their security groups in a label, in the lab.

use std::{
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{Lab, require_ebpf};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(90);

/// Where the agent of the test lives on its host.
const HOME: &str = "/run/agent-test";

struct Host {
    lab: Lab,
    name: String,
}

impl Host {
    #[track_caller]
    fn sh(&self, line: &str) -> String {
        self.lab.sh(&self.name, line).ok()
    }

    fn policy(&self, rules: &str) {
        let text = format!("security_groups: [{{id: web, security_group_rules: [{rules}]}}]");
        self.sh(&format!("echo '{text}' > {HOME}/policy.d/.new && mv {HOME}/policy.d/.new {HOME}/policy.d/a.yaml"));
    }

    fn start(&self) {
        self.sh(&format!("mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs"));
        self.policy("{direction: ingress, ethertype: IPv4, protocol: icmp}");
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

    fn pings(&self) -> bool {
        let format = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        let address = self.sh(&format!("docker inspect --format '{format}' guarded"));
        self.lab.sh(&self.name, &format!("ping -c 1 -W 1 {}", address.trim())).code == Some(0)
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
fn a_container_with_a_label_is_enforced_through_its_restarts_and_as_long_as_it_is_there() {
    if !require_ebpf() {
        return;
    }
    let Some(lab) = Lab::up("docker") else { return };
    let name = lab.hosts().first().cloned().expect("a host with instances");
    let host = Host { lab, name };
    host.start();
    host.wait("the first look", |status| status["converged"].is_string());
    host.wait_for_ports(0);
    let image = host.sh("docker images --quiet | head -1");
    host.sh(&format!(
        "docker run --detach --name guarded --label netdiag.security-groups=web {} sleep 10000",
        image.trim()
    ));
    // No full pass is due for an hour: Docker's events and the links make the agent look.
    host.wait_for_ports(1);
    assert!(host.pings());
    host.listed();
    host.policy("");
    host.wait("no rule", |status| status["rules"] == 0);
    assert!(!host.pings());
    let device = host.status()["ports"][0]["device"].clone();
    host.sh("docker restart --time 1 guarded");
    host.wait("another device", |status| {
        status["ports"][0]["device"].is_string() && status["ports"][0]["device"] != device
    });
    assert!(!host.pings());
    host.sh("docker rm --force guarded");
    host.wait_for_ports(0);
}

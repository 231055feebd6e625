//! Ports that Open vSwitch knows by their Neutron id, with a real switch on the host of the test.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{
    AgentHost,
    agent::{PATIENCE, pings},
    require_programs,
};

const ID: &str = "5f0c2f6e-6a55-4f0a-9d1e-0a4ad0f4a001";
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A switch with user-space datapath in the network namespace of the test.
struct Switch {
    remote: String,
    directory: String,
    daemons: Vec<Child>,
}

impl Switch {
    fn start(host: &AgentHost) -> Self {
        let directory = host.path("run").display().to_string();
        let remote = format!("unix:{directory}/db.sock");
        let mut switch = Self { remote, directory, daemons: Vec::new() };
        let database = format!("{}/conf.db", switch.directory);
        assert!(switch.command("ovsdb-tool").args(["create", &database, SCHEMA]).status().unwrap().success());
        let remote = format!("--remote=p{}", switch.remote);
        let server = switch.command("ovsdb-server").args([&database, &remote]).spawn().unwrap();
        switch.daemons.push(server);
        let started = Instant::now();
        while !host.path("run/db.sock").exists() {
            assert!(started.elapsed() < PATIENCE, "ovsdb-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        switch.vsctl("--no-wait init");
        let daemon = switch.command("ovs-vswitchd").args(["--disable-system", &switch.remote]).spawn().unwrap();
        switch.daemons.push(daemon);
        switch
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, &self.directory);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn vsctl(&self, words: &str) {
        let mut command = self.command("ovs-vsctl");
        command.arg(format!("--db={}", self.remote)).arg("--timeout=60").args(words.split(' '));
        assert!(command.status().unwrap().success(), "ovs-vsctl {words}");
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for daemon in self.daemons.iter_mut().rev() {
            // What has ended already needs no end.
            drop(daemon.kill());
            drop(daemon.wait());
        }
    }
}

#[test]
fn a_port_is_enforced_once_open_vswitch_knows_its_id_and_stays_so_while_the_switch_is_away() {
    let test = "a_port_is_enforced_once_open_vswitch_knows_its_id_and_stays_so_while_the_switch_is_away";
    if !require_programs(&["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool"]) {
        return;
    }
    let Some(mut host) = AgentHost::enter(test) else { return };
    let mut switch = Switch::start(&host);
    switch.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
    switch.vsctl("add-port br-int tap0");
    host.ovsdb = host.path("run/db.sock");
    host.policy(&format!("ports: [{{id: {ID}, security_groups: []}}]"));
    host.start_with(&["--full-pass", "3600"]);
    host.wait_for_ports(&[]);
    assert!(pings(), "the host's own stack sees the frames as well, until they end at XDP");
    // Nothing changes but the database, and no full pass is due for an hour.
    thread::sleep(Duration::from_secs(1));
    switch.vsctl(&format!("set Interface tap0 external_ids:iface-id={ID}"));
    host.wait_for_ports(&[ID]);
    let port = host.ok("GET", &format!("/v1/ports/{ID}"), "");
    assert_eq!(port["port"]["enforcement"]["hooks"][0], "xdp egress", "AF_PACKET takes frames before TC: {port:#}");
    assert!(!pings());

    // The database server goes away; that the port is not found any more does not mean that it is gone.
    let mut server = switch.daemons.remove(0);
    server.kill().unwrap();
    server.wait().unwrap();
    host.signal(rustix::process::Signal::HUP);
    thread::sleep(Duration::from_secs(2));
    host.wait_for_ports(&[ID]);
    assert!(!pings());
}

//! Open vSwitch as the discovery reads it, against a real one of its own: database, daemons and network namespace end
//! with the test.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use netdiag_agent::discover::{Options, look};
use netdiag_model::{
    fact::{OvsBridgeFact, OvsPortFact, SourceKind, SwitchFact},
    snapshot::Snapshot,
};
use netdiag_tests::require_root;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For a server that answers, however busy the machine is.
const PATIENT: Duration = Duration::from_mins(1);
/// For one that never will.
const IMPATIENT: Duration = Duration::from_secs(5);

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// An Open vSwitch nobody else uses.
struct Switch {
    directory: TempDir,
    daemons: Vec<Child>,
}

impl Switch {
    fn start() -> anyhow::Result<Self> {
        let mut switch = Self { directory: tempfile::tempdir()?, daemons: Vec::new() };
        let database = switch.path("conf.db");
        run(Command::new("ovsdb-tool").arg("create").arg(&database).arg(SCHEMA))?;
        let remote = format!("--remote=p{}", switch.remote());
        let server = switch.command("ovsdb-server").arg(database).arg(remote).spawn().context("start ovsdb-server")?;
        switch.daemons.push(server);
        let started = Instant::now();
        while !switch.path("db.sock").exists() {
            ensure!(started.elapsed() < PATIENT, "ovsdb-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        switch.vsctl(&["--no-wait", "init"])?;
        // It makes devices, so it gets a network namespace for them. `unshare` becomes the daemon it starts.
        let daemon = ["--net", "ovs-vswitchd", "--disable-system"];
        let daemon =
            switch.command("unshare").args(daemon).arg(switch.remote()).spawn().context("start ovs-vswitchd")?;
        switch.daemons.push(daemon);
        Ok(switch)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.path("db.sock").display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, self.directory.path());
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn vsctl(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let database = format!("--db={}", self.remote());
        run(self.command("ovs-vsctl").args([&database, "--timeout=60"]).args(arguments))
    }

    /// Runs commands of ovs-vsctl, one in a line, each argument set apart by a space.
    fn configure(&self, commands: &str) -> anyhow::Result<()> {
        commands.lines().try_for_each(|command| self.vsctl(&command.split_whitespace().collect::<Vec<_>>()))
    }

    /// Stops or continues ovsdb-server.
    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.daemons[0]), signal)?)
    }

    async fn look(&self, timeout: Duration) -> Snapshot {
        let options = Options {
            ovsdb_socket: self.path("db.sock"),
            docker_socket: self.path("no.sock"),
            timeout,
            ..Options::default()
        };
        look(options).await
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

fn run(command: &mut Command) -> anyhow::Result<()> {
    let output = command.stderr(Stdio::piped()).output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

fn bridge<'a>(switch: &'a SwitchFact, name: &str) -> Option<&'a OvsBridgeFact> {
    switch.bridges.iter().find(|bridge| bridge.name == name)
}

fn port<'a>(bridge: &'a OvsBridgeFact, name: &str) -> Option<&'a OvsPortFact> {
    bridge.ports.iter().find(|port| port.name == name)
}

/// What Neutron's agent and Nova leave on a compute host, as far as OVSDB goes, and a text meant to harm.
const NEUTRON: &str = "\
set Open_vSwitch . ovs_version=3.1.0 external_ids:system-id=host
set-manager ptcp:6640:127.0.0.1
add-br br-int -- set Bridge br-int datapath_type=netdev fail_mode=secure -- set-controller br-int tcp:127.0.0.1:1
add-br br-tun -- set Bridge br-tun datapath_type=netdev fail_mode=secure
add-port br-int patch-tun -- set Interface patch-tun type=patch options:peer=patch-int
add-port br-tun patch-int -- set Interface patch-int type=patch options:peer=patch-tun
add-port br-tun vxlan-c0a80102 -- set Interface vxlan-c0a80102 type=vxlan options:remote_ip=192.168.1.2 options:in_key=flow
add-port br-int tap1a2b3c4d-5e tag=1 -- set Interface tap1a2b3c4d-5e type=internal
set Port tap1a2b3c4d-5e other_config:segmentation_id=101 other_config:physical_network=None
set Port tap1a2b3c4d-5e qos=@q -- --id=@q create QoS type=linux-noop
set Interface tap1a2b3c4d-5e external_ids:iface-id=1a2b3c4d-5e6f-4a1b-8c2d-000000000001
add-port br-int tpi-1 trunks=100,200 vlan_mode=trunk -- set Interface tpi-1 type=internal
set Bridge br-int mirrors=@m -- --id=@m create Mirror name=m select_all=true";
const HOSTILE: &str = "external_ids:hostile=\"\u{1b}[2J \\\"quoted\\\" \\n $(reboot)\"";

#[tokio::test]
async fn bridges_ports_tunnels_and_what_neutron_writes_on_them_are_read() {
    if !require_root() {
        return;
    }
    let switch = Switch::start().unwrap();
    switch.configure(NEUTRON).unwrap();
    switch.vsctl(&["set", "Open_vSwitch", ".", HOSTILE]).unwrap();
    let snapshot = switch.look(PATIENT).await;
    assert_eq!(snapshot.facts.gaps().filter(|gap| gap.source == SourceKind::Ovsdb).count(), 0);
    let [fact] = snapshot.facts.switches.as_slice() else { panic!("{:?}", snapshot.facts.switches) };
    assert_eq!(fact.netns, snapshot.facts.namespaces.iter().find(|netns| netns.host).map(|netns| netns.id));
    assert_eq!(fact.version.as_deref(), Some("3.1.0"));
    assert_eq!(fact.external_ids["system-id"], "host");
    assert_eq!(fact.external_ids["hostile"], "\u{1b}[2J \"quoted\" \n $(reboot)");
    assert_eq!((fact.managers[0].target.as_str(), fact.managers[0].connected), ("ptcp:6640:127.0.0.1", false));

    let br_int = bridge(fact, "br-int").unwrap();
    assert_eq!((br_int.datapath_type.as_str(), br_int.fail_mode.as_deref()), ("netdev", Some("secure")));
    assert_eq!((br_int.controllers[0].target.as_str(), br_int.mirrors), ("tcp:127.0.0.1:1", 1));
    assert_eq!(br_int.datapath_id.as_ref().map(String::len), Some(16));
    let tap = port(br_int, "tap1a2b3c4d-5e").unwrap();
    assert_eq!((tap.tag, tap.qos, tap.other_config["segmentation_id"].as_str()), (Some(1), true, "101"));
    let interface = &tap.interfaces[0];
    assert_eq!(interface.external_ids["iface-id"], "1a2b3c4d-5e6f-4a1b-8c2d-000000000001");
    assert_eq!((interface.kind.as_str(), interface.error.as_deref()), ("internal", None));
    assert!(interface.ofport.is_some_and(|ofport| ofport > 0));
    let trunk = port(br_int, "tpi-1").unwrap();
    assert_eq!(
        (trunk.trunks.as_slice(), trunk.vlan_mode.as_deref(), trunk.tag),
        (&[100, 200][..], Some("trunk"), None)
    );
    let vxlan = &port(bridge(fact, "br-tun").unwrap(), "vxlan-c0a80102").unwrap().interfaces[0];
    assert_eq!((vxlan.kind.as_str(), vxlan.options["remote_ip"].as_str()), ("vxlan", "192.168.1.2"));
    assert_eq!(port(br_int, "patch-tun").unwrap().interfaces[0].options["peer"], "patch-int");
}

#[tokio::test]
async fn a_port_whose_device_is_missing_says_why() {
    if !require_root() {
        return;
    }
    let switch = Switch::start().unwrap();
    switch.vsctl(&["add-br", "br-int", "--", "set", "Bridge", "br-int", "datapath_type=netdev"]).unwrap();
    // ovs-vsctl says itself that the device is missing, and succeeds.
    switch.vsctl(&["add-port", "br-int", "tapgone"]).unwrap();
    let snapshot = switch.look(PATIENT).await;
    let interface = &port(bridge(&snapshot.facts.switches[0], "br-int").unwrap(), "tapgone").unwrap().interfaces[0];
    assert_eq!(interface.ofport, Some(-1));
    assert!(interface.error.as_ref().is_some_and(|error| error.contains("No such device")), "{interface:?}");
}

#[tokio::test]
async fn a_server_that_is_stopped_is_a_gap_and_read_again_once_it_goes_on() {
    if !require_root() {
        return;
    }
    let switch = Switch::start().unwrap();
    switch.signal(Signal::STOP).unwrap();
    let stopped = switch.look(IMPATIENT).await;
    switch.signal(Signal::CONT).unwrap();
    assert!(stopped.facts.switches.is_empty());
    let gap = stopped.facts.gaps().find(|gap| gap.source == SourceKind::Ovsdb).unwrap();
    assert_eq!((gap.why.as_str(), gap.absent), ("get_schema: no answer within 1500 ms", false));
    assert_eq!(switch.look(PATIENT).await.facts.switches.len(), 1);
}

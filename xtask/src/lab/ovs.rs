//! Open vSwitch of a lab host: its daemons, and changes to its bridges the way Neutron's agent makes them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::lab::{command, inventory::Uuid};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";
const DATABASE: &str = "/etc/openvswitch/conf.db";
const SOCKET: &str = "/run/openvswitch/db.sock";
const COUNT_HOLDS: Duration = Duration::from_secs(11);

/// A running Open vSwitch.
pub(crate) struct Switch {
    /// Version of ovs-vswitchd.
    pub(crate) version: String,
    /// Datapath type its bridges shall have.
    pub(crate) datapath_type: &'static str,
}

impl Switch {
    /// Starts ovsdb-server and ovs-vswitchd with an empty database, and says who they are as `ovs-ctl` does it.
    pub(crate) fn start(system_id: &Uuid, hostname: &str) -> Result<Self> {
        command::run("ovsdb-tool", ["create", DATABASE, SCHEMA])?;
        let remote = format!("--remote=punix:{SOCKET}");
        let managers = "--remote=db:Open_vSwitch,Open_vSwitch,manager_options";
        let daemon = ["--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off"];
        command::run("ovsdb-server", [DATABASE, &remote, managers].iter().chain(&daemon))?;
        let version = version()?;
        let database = command::run("ovsdb-tool", ["schema-version", SCHEMA])?;
        let columns = [
            format!("db-version={}", database.trim()),
            format!("ovs-version={version}"),
            format!("external-ids:system-id={system_id}"),
            format!("external-ids:hostname={hostname}"),
            "external-ids:rundir=/run/openvswitch".to_owned(),
        ];
        command::run(
            "ovs-vsctl",
            ["--no-wait", "init", "--", "set", "Open_vSwitch", "."].map(str::to_owned).iter().chain(&columns),
        )?;
        // Before the daemon, which asks the kernel once what it has.
        let datapath_type = datapath_type();
        wait_for_processors();
        let socket = format!("unix:{SOCKET}");
        command::run("ovs-vswitchd", [socket.as_str()].iter().chain(&daemon))?;
        fs::write("/etc/openvswitch/system-id.conf", format!("{system_id}\n")).context("write system-id.conf")?;
        Ok(Self { version, datapath_type })
    }

    /// True where packets are switched in user space, by `AF_PACKET` and TAP devices.
    pub(crate) fn in_user_space(&self) -> bool {
        self.datapath_type == "netdev"
    }
}

fn version() -> Result<String> {
    let text = command::run("ovs-vswitchd", ["--version"])?;
    let version = text.lines().next().and_then(|line| line.split(' ').next_back());
    Ok(version.context("ovs-vswitchd --version says nothing")?.to_owned())
}

/// Waits until the machine has run for longer than Open vSwitch takes a count of processors to hold.
///
/// It takes the boot for the time of its first count (`count_cpu_cores` of `lib/ovs-thread.c`, 3.1). In a machine just
/// started it then knows of no processor and starts no handler, and no packet the kernel asks it about goes anywhere.
fn wait_for_processors() {
    let since_boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    thread::sleep(COUNT_HOLDS.saturating_sub(Duration::from_secs(since_boot.unsigned_abs())));
}

/// `system` where the kernel has the openvswitch module and can make a datapath with it, else `netdev`.
fn datapath_type() -> &'static str {
    let quietly = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !Path::new("/sys/module/openvswitch").exists() {
        quietly("modprobe", &["openvswitch"]);
    }
    let probe = "system@netdiag-probe";
    if quietly("ovs-dpctl", &["add-dp", probe]) && quietly("ovs-dpctl", &["del-dp", probe]) {
        "system"
    } else {
        "netdev"
    }
}

/// Commands of `ovs-vsctl` that take effect together.
#[derive(Default)]
pub(crate) struct Transaction {
    words: Vec<String>,
}

impl Transaction {
    /// Makes a bridge.
    pub(crate) fn add_bridge(&mut self, bridge: &str, columns: &[String]) {
        self.add(&["add-br", bridge]);
        self.set("Bridge", bridge, columns);
    }

    /// Makes a port of a bridge with its one interface of the same name.
    pub(crate) fn add_port(&mut self, bridge: &str, port: &str, columns: &[String]) {
        self.add(&["add-port", bridge, port]);
        self.set("Interface", port, columns);
    }

    /// Joins two bridges with a pair of patch ports, each given as bridge and port.
    pub(crate) fn add_patch(&mut self, one: (&str, &str), other: (&str, &str)) {
        for ((bridge, port), (_, peer)) in [(one, other), (other, one)] {
            self.add_port(bridge, port, &["type=patch".into(), format!("options:peer={peer}")]);
        }
    }

    /// Gives a bridge a controller that is not reached through the bridge itself.
    pub(crate) fn set_controller(&mut self, bridge: &str, target: &str) {
        self.add(&["set-controller", bridge, target]);
        self.set("Controller", bridge, &["connection_mode=out-of-band".into(), "inactivity_probe=10000".into()]);
    }

    /// Lets the database be managed at an address beside its socket.
    pub(crate) fn set_manager(&mut self, target: &str) {
        self.add(&["set-manager", target]);
    }

    /// Sets columns of a row, each written as `column=value` or `column:key=value`.
    pub(crate) fn set(&mut self, table: &str, row: &str, columns: &[String]) {
        if !columns.is_empty() {
            self.add(&["set", table, row]);
            self.words.extend(columns.iter().cloned());
        }
    }

    fn add(&mut self, words: &[&str]) {
        self.words.push("--".into());
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
    }

    /// Runs them, and waits until ovs-vswitchd has done what they say. Nothing to do is done already.
    pub(crate) fn commit(&self) -> Result<()> {
        if self.words.is_empty() {
            return Ok(());
        }
        command::run("ovs-vsctl", ["--timeout=60".to_owned()].iter().chain(&self.words)).map(drop)
    }
}

/// Waits until a column of a row has a value.
pub(crate) fn wait_until(table: &str, row: &str, condition: &str) -> Result<()> {
    command::run("ovs-vsctl", ["--timeout=30", "wait-until", table, row, condition]).map(drop)
}

/// Adds flows, one a line, all at once; ports may be named.
pub(crate) fn add_flows(bridge: &str, flows: &str) -> Result<()> {
    let words = ["--protocols=OpenFlow14", "--names", "--bundle", "add-flows", bridge, "-"];
    command::feed("ovs-ofctl", words, flows).map(drop)
}

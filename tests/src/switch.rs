//! Open vSwitch on the host of a test: its database alone, or with the switch in user space.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::{AgentHost, agent::PATIENCE, require_programs};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A switch in the network namespace of the test.
#[derive(Debug)]
pub struct Switch {
    /// Socket of its database.
    pub socket: PathBuf,
    directory: String,
    daemons: Vec<Child>,
}

impl Switch {
    /// Whether the programs are there; says so where they are not.
    #[must_use]
    pub fn is_there() -> bool {
        require_programs(&["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovsdb-tool"])
    }

    /// Starts the database, and nothing that does what it says.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn database(host: &AgentHost) -> Self {
        let (directory, socket) = (host.path("run").display().to_string(), host.path("run/db.sock"));
        let mut switch = Self { socket, directory, daemons: Vec::new() };
        let database = format!("{}/conf.db", switch.directory);
        let made = switch.command("ovsdb-tool").args(["create", &database, SCHEMA]).status();
        assert!(made.expect("start ovsdb-tool").success(), "make the database");
        let remote = format!("--remote=p{}", switch.remote());
        switch.spawn("ovsdb-server", &[&database, &remote]);
        let started = Instant::now();
        while !switch.socket.exists() {
            assert!(started.elapsed() < PATIENCE, "ovsdb-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        switch.vsctl("--no-wait init");
        switch
    }

    /// Starts the database and the switch, which has no datapath but its own.
    ///
    /// # Panics
    /// They do not start.
    #[must_use]
    pub fn start(host: &AgentHost) -> Self {
        let mut switch = Self::database(host);
        let remote = switch.remote();
        switch.spawn("ovs-vswitchd", &["--disable-system", &remote]);
        switch
    }

    fn remote(&self) -> String {
        format!("unix:{}", self.socket.display())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for variable in ["OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"] {
            command.env(variable, &self.directory);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn spawn(&mut self, program: &str, words: &[&str]) {
        let daemon = self.command(program).args(words).spawn().expect("start a daemon of Open vSwitch");
        self.daemons.push(daemon);
    }

    /// Changes the database; where the switch runs, it has done so afterwards.
    ///
    /// # Panics
    /// It fails.
    pub fn vsctl(&self, words: &str) {
        let mut command = self.command("ovs-vsctl");
        command.arg(format!("--db={}", self.remote())).arg("--timeout=60").args(words.split(' '));
        assert!(command.status().expect("start ovs-vsctl").success(), "ovs-vsctl {words}");
    }

    /// Lets the database server take connections and answer nobody.
    ///
    /// # Panics
    /// It is not there.
    pub fn hold_database(&self) {
        let server = self.daemons.first().expect("a database server");
        kill_process(Pid::from_child(server), Signal::STOP).expect("stop ovsdb-server");
    }

    /// Ends the database server.
    ///
    /// # Panics
    /// It does not end.
    pub fn end_database(&mut self) {
        let mut server = self.daemons.remove(0);
        server.kill().expect("end ovsdb-server");
        server.wait().expect("wait for ovsdb-server");
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

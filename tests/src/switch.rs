//! Open vSwitch in the network namespace of a test.

use std::{
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::{AgentHost, agent::PATIENCE};

const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

/// A switch, or its database alone.
#[derive(Debug)]
pub struct Switch {
    remote: String,
    directory: String,
    /// The database server first.
    daemons: Vec<Child>,
}

impl Switch {
    /// One with user-space datapath.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(host: &AgentHost) -> Self {
        let mut switch = Self::database(host);
        let daemon = switch.command("ovs-vswitchd").args(["--disable-system", &switch.remote]).spawn();
        switch.daemons.push(daemon.expect("start ovs-vswitchd"));
        switch
    }

    /// The database alone: it says what is to be switched, and nobody does it. Commands must not wait then (`--no-wait`).
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn database(host: &AgentHost) -> Self {
        let directory = host.path("run").display().to_string();
        let remote = format!("unix:{directory}/db.sock");
        let mut switch = Self { remote, directory, daemons: Vec::new() };
        let database = format!("{}/conf.db", switch.directory);
        let made = switch.command("ovsdb-tool").args(["create", &database, SCHEMA]).status();
        assert!(made.expect("start ovsdb-tool").success());
        let remote = format!("--remote=p{}", switch.remote);
        let server = switch.command("ovsdb-server").args([&database, &remote]).spawn().expect("start ovsdb-server");
        switch.daemons.push(server);
        let started = Instant::now();
        while !host.path("run/db.sock").exists() {
            assert!(started.elapsed() < PATIENCE, "ovsdb-server does not start");
            thread::sleep(Duration::from_millis(10));
        }
        switch.vsctl("--no-wait init");
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

    /// Runs `ovs-vsctl`.
    ///
    /// # Panics
    /// It fails.
    pub fn vsctl(&self, words: &str) {
        let mut command = self.command("ovs-vsctl");
        command.arg(format!("--db={}", self.remote)).arg("--timeout=60").args(words.split(' '));
        assert!(command.status().expect("start ovs-vsctl").success(), "ovs-vsctl {words}");
    }

    /// Ends the database server.
    ///
    /// # Panics
    /// It has ended already.
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

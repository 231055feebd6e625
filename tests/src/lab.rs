//! A lab for one test: brought up by the same `cargo xtask lab` that people use, taken down when the test ends, however
//! it ends.

use std::{
    env,
    ffi::OsString,
    io,
    path::PathBuf,
    process::{Command, Output, id},
    sync::atomic::{AtomicU32, Ordering},
};

use serde_json::Value;

use crate::{
    agent::SOURCES,
    needs::{require, require_root},
};

/// A running lab.
#[derive(Debug)]
pub struct Lab {
    name: String,
    xtask: PathBuf,
    netdiag: PathBuf,
    /// What was built, as `lab status -o json` prints it: the truth netdiag's answers are compared with.
    pub built: Value,
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Said {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
    }

    /// Standard output as JSON.
    ///
    /// # Panics
    /// It is not JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("not JSON ({error}): {self:#?}"))
    }

    /// Standard output of a command that must succeed.
    ///
    /// # Panics
    /// It failed.
    #[track_caller]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self.out
    }
}

impl Lab {
    /// Brings a lab up; none where the test must be skipped.
    ///
    /// # Panics
    /// The lab does not come up, or what it needs is missing and `NETDIAG_CI` is `1`.
    #[must_use]
    pub fn up(profile: &str) -> Option<Self> {
        Self::sized(profile, 0)
    }

    /// The same with a number of instances; 0 for those of the profile's own example.
    ///
    /// # Panics
    /// As [`Lab::up`].
    #[must_use]
    pub fn sized(profile: &str, instances: u32) -> Option<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        let program = |variable: &str| env::var_os(variable).map(PathBuf::from);
        let (xtask, netdiag) = (program("NETDIAG_XTASK"), program("NETDIAG_BIN"));
        let built = require("the programs that cargo xtask test builds", xtask.is_some() && netdiag.is_some());
        if !built || !require_root() {
            return None;
        }
        let name = format!("test-{}-{}", id(), LABS.fetch_add(1, Ordering::Relaxed));
        let mut lab = Self { name, xtask: xtask?, netdiag: netdiag?, built: Value::Null };
        let count = instances.to_string();
        let mut words = vec!["up", "--name", &lab.name, "--profile", profile];
        if instances > 0 {
            words.extend(["--instances", &count]);
        }
        lab.xtask(&words).ok();
        let status = lab.xtask(&["status", &lab.name, "-o", "json"]).json();
        let mine = |built: &&Value| built["name"] == lab.name.as_str();
        lab.built = status.as_array().and_then(|labs| labs.iter().find(mine)).cloned().expect("the lab is listed");
        Some(lab)
    }

    fn xtask(&self, words: &[&str]) -> Said {
        let output = Command::new(&self.xtask).arg("lab").args(words).env("NETDIAG_TIMEOUT", SOURCES).output();
        Said::of(&output.expect("start xtask"))
    }

    /// Tries everything that has to work in this lab: pings, TCP connections, DHCP, metadata.
    #[must_use]
    pub fn check(&self) -> Said {
        self.xtask(&["check", &self.name])
    }

    /// Runs a command inside a host of the lab.
    #[must_use]
    pub fn on(&self, host: &str, words: &[&str]) -> Said {
        let mut all = vec!["exec", &self.name, "--host", host, "--"];
        all.extend(words);
        self.xtask(&all)
    }

    /// Runs a line of shell inside a host of the lab.
    #[must_use]
    pub fn sh(&self, host: &str, line: &str) -> Said {
        self.on(host, &["sh", "-c", line])
    }

    /// A line of shell inside a host of the lab, as somebody types it at a terminal. It must hold no quotes.
    #[must_use]
    pub fn typed(&self, host: &str, line: &str) -> String {
        format!("{} lab exec {} --host {host} -- sh -c '{line}'", self.xtask.display(), self.name)
    }

    /// Runs a command in the network of an instance of Nova's, whether a container or the guest of a virtual machine.
    ///
    /// # Panics
    /// The instance has not been started.
    #[track_caller]
    #[must_use]
    pub fn inside(&self, instance: &Value, words: &[&str]) -> Said {
        if let Some(guest) = instance["machine"]["guest_pid"].as_u64() {
            let guest = guest.to_string();
            let output = Command::new("nsenter").args(["--target", &guest, "--net", "--"]).args(words).output();
            return Said::of(&output.expect("start nsenter"));
        }
        let host = instance["host"].as_str().expect("the host of an instance");
        let pid = instance["pid"].as_u64().expect("a running instance").to_string();
        self.on(host, &[&["nsenter", "--target", &pid, "--net", "--"], words].concat())
    }

    /// Runs netdiag inside a host of the lab.
    #[must_use]
    pub fn netdiag(&self, host: &str, words: &[&str]) -> Said {
        let binary = self.netdiag.to_string_lossy();
        let mut all = vec![binary.as_ref()];
        all.extend(words);
        self.on(host, &all)
    }

    /// Runs netdiag here, outside the lab, as a user without any privilege.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn netdiag_outside(&self, words: &[&str]) -> io::Result<Said> {
        let mut words: Vec<OsString> = words.iter().map(OsString::from).collect();
        let mut all = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"].map(OsString::from).to_vec();
        all.push(self.netdiag.clone().into());
        all.append(&mut words);
        Command::new("setpriv").args(all).output().map(|output| Said::of(&output))
    }

    /// Path of the netdiag that is tested.
    #[must_use]
    pub fn binary(&self) -> String {
        self.netdiag.to_string_lossy().into_owned()
    }

    /// A trace as JSON, whatever its verdict.
    #[track_caller]
    #[must_use]
    pub fn trace(&self, host: &str, instance: &str) -> Value {
        self.netdiag(host, &["trace", instance, "-o", "json"]).json()
    }

    /// Instances that run on a host.
    #[must_use]
    pub fn instances(&self, host: &str) -> Vec<Value> {
        let all = self.built["instances"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|instance| instance["host"] == host).collect()
    }

    /// Names of the hosts that run instances.
    #[must_use]
    pub fn hosts(&self) -> Vec<String> {
        let hosts = self.built["hosts"].as_array().cloned().unwrap_or_default();
        let compute = hosts.iter().filter(|host| host["role"] == "compute");
        compute.filter_map(|host| host["name"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // A test that failed already must not fail twice.
        let down = Command::new(&self.xtask).args(["lab", "down", &self.name]).output();
        if let Ok(output) = down
            && !output.status.success()
            && !std::thread::panicking()
        {
            panic!("lab down: {:#?}", Said::of(&output));
        }
    }
}

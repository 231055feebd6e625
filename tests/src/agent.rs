//! A host with an agent, for tests of the agent: private namespaces, a bpffs nobody else sees, one instance behind a veth pair.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{needs::require_ebpf, private_host, require};

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// Seconds a source may take that netdiag asks: on a busy machine one that answers would else be taken for one that does not.
pub const SOURCES: &str = "30";

/// Waits until something is so.
///
/// # Panics
/// It never is.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A host with an instance: `tap0` (192.0.2.1) leads to `eth0` (192.0.2.2) in the namespace `instance`.
#[derive(Debug)]
pub struct AgentHost {
    directory: TempDir,
    netdiag: PathBuf,
    /// Put before the program, as `setpriv` with its options.
    pub wrapper: Vec<String>,
    /// Socket of the OVSDB server; there is none unless the test makes one.
    pub ovsdb: PathBuf,
    agent: Option<Child>,
}

impl AgentHost {
    /// Runs the calling test again on a host of its own; none outside, or where it must be skipped.
    ///
    /// # Panics
    /// The host cannot be made.
    #[must_use]
    pub fn enter(test: &str) -> Option<Self> {
        let netdiag = std::env::var_os("NETDIAG_BIN").map(PathBuf::from);
        let built = require("the program that cargo xtask test builds", netdiag.is_some());
        if !(built && require_ebpf() && private_host::enter(test)) {
            return None;
        }
        let host = Self::new(netdiag?, Vec::new());
        run("ip link set lo up");
        run("ip netns add instance");
        add_tap("tap0");
        Some(host)
    }

    /// Another host, whose agent is started with something before it: what brings it into another network namespace, for one.
    ///
    /// # Panics
    /// It cannot be made.
    #[must_use]
    pub fn beside(&self, wrapper: &[&str]) -> Self {
        Self::new(self.netdiag.clone(), wrapper.iter().map(|word| (*word).to_owned()).collect())
    }

    fn new(netdiag: PathBuf, wrapper: Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("make a directory");
        let host = Self { directory, netdiag, wrapper, ovsdb: "/nowhere".into(), agent: None };
        for name in ["bpffs", "policy.d", "state", "run"] {
            fs::create_dir(host.path(name)).expect("make a directory");
        }
        run(&format!("mount -t bpf bpf {}", host.path("bpffs").display()));
        host
    }

    /// A path of the host's own.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Takes another netdiag from now on; the one before.
    pub fn take(&mut self, netdiag: PathBuf) -> PathBuf {
        std::mem::replace(&mut self.netdiag, netdiag)
    }

    fn socket(&self) -> PathBuf {
        self.path("run/agent.sock")
    }

    /// Directory everything is pinned in.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path("bpffs/netdiag")
    }

    /// Puts a policy file in the place of the one before, as an editor does.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn policy(&self, text: &str) {
        let new = self.path("policy.d/.policy.yaml.new");
        fs::write(&new, text).expect("write the policy");
        fs::rename(new, self.path("policy.d/policy.yaml")).expect("rename the policy");
    }

    /// Any other command of netdiag, to be run.
    #[must_use]
    pub fn command(&self, words: &[&str]) -> Command {
        let mut all = self.wrapper.clone();
        all.push(self.netdiag.display().to_string());
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).args(words).env_remove("NETDIAG_FROM").env("NETDIAG_TIMEOUT", SOURCES);
        command
    }

    fn agent(&self) -> Command {
        let path = |name: &str| self.path(name).display().to_string();
        let (root, socket) = (self.root().display().to_string(), self.socket().display().to_string());
        let (policy, state, nowhere) = (path("policy.d"), path("state"), path("nowhere"));
        let mut command = self.command(&["agent", "--policy-dir", &policy, "--state-dir", &state, "--socket", &socket]);
        command.args(["--bpffs", &root, "--docker-socket", &nowhere, "--ovsdb-socket"]).arg(&self.ovsdb);
        command
    }

    /// Starts the agent, and waits until it has converged or says why it cannot.
    ///
    /// # Panics
    /// It does not answer.
    pub fn start(&mut self) {
        self.start_with(&[]);
    }

    /// The same with more options.
    ///
    /// # Panics
    /// As [`AgentHost::start`].
    pub fn start_with(&mut self, options: &[&str]) {
        self.launch(options);
        self.wait("the agent answers and has looked", |status| {
            status["converged"].is_u64() || status["problems"].is_array() || status["mistakes"][0].is_object()
        });
    }

    /// Starts the agent, and does not wait for it.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn launch(&mut self, options: &[&str]) {
        let log = fs::File::create(self.path("log")).expect("make the log");
        self.agent = Some(self.agent().args(options).stderr(log).spawn().expect("start the agent"));
    }

    /// Runs another agent, which must end by itself.
    ///
    /// # Panics
    /// It cannot be started, or goes on.
    #[must_use]
    pub fn another(&self) -> Output {
        let mut agent =
            self.agent().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("start another agent");
        let started = Instant::now();
        while agent.try_wait().expect("wait for another agent").is_none() {
            if started.elapsed() > PATIENCE {
                drop(agent.kill());
                panic!("another agent goes on: {:?}", agent.wait_with_output());
            }
            thread::sleep(Duration::from_millis(10));
        }
        agent.wait_with_output().expect("what another agent said")
    }

    /// Runs any other command of netdiag.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn netdiag(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("start netdiag")
    }

    /// `netdiag agent status`: its exit code and its JSON.
    ///
    /// # Panics
    /// It cannot be started.
    #[must_use]
    pub fn agent_status(&self) -> (Option<i32>, Value) {
        let socket = self.socket().display().to_string();
        let output = self.netdiag(&["agent", "status", "--socket", &socket, "-o", "json"]);
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    /// Sends the agent a signal.
    ///
    /// # Panics
    /// There is no agent.
    pub fn signal(&self, signal: Signal) {
        let agent = self.agent.as_ref().expect("an agent runs");
        kill_process(Pid::from_child(agent), signal).expect("signal the agent");
    }

    /// Ends the agent by a signal; its exit code.
    ///
    /// # Panics
    /// There is no agent, or it does not end.
    pub fn end(&mut self, signal: Signal) -> Option<i32> {
        self.signal(signal);
        let mut agent = self.agent.take().expect("an agent runs");
        let started = Instant::now();
        loop {
            if let Some(status) = agent.try_wait().expect("wait for the agent") {
                return status.code();
            }
            assert!(started.elapsed() < PATIENCE, "the agent does not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// What the agent wrote to standard error.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    // === API ===

    /// A request of the API: status and body of the answer.
    ///
    /// # Panics
    /// There is no answer.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.try_request(method, path, body).expect("an answer of the agent")
    }

    fn try_request(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = self.connect()?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).ok()?;
        // An agent that refuses early does not read the rest.
        drop(stream.write_all(body.as_bytes()));
        answer(&mut stream)
    }

    /// A connection to the API on which nothing was sent yet.
    #[must_use]
    pub fn connect(&self) -> Option<UnixStream> {
        let stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(stream)
    }

    /// A request that must succeed; the body of the answer.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn ok(&self, method: &str, path: &str, body: &str) -> Value {
        let (status, answer) = self.request(method, path, body);
        assert!((200..300).contains(&status) && status != 202, "{method} {path}: {status} {answer}");
        answer
    }

    /// Waits until the agent's status is as wanted.
    ///
    /// # Panics
    /// It never is.
    #[track_caller]
    pub fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let status = self.try_request("GET", "/v1/status", "").map(|(_, status)| status).unwrap_or_default();
            if wanted(&status) {
                return status;
            }
            assert!(started.elapsed() < PATIENCE, "never: {what}: {status:#}\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until exactly these ports are enforced.
    ///
    /// # Panics
    /// They never are.
    #[track_caller]
    pub fn wait_for_ports(&self, ids: &[&str]) {
        self.wait(&format!("ports {ids:?}"), |status| {
            let ports = status["ports"].as_array().cloned().unwrap_or_default();
            status["converged"].is_u64()
                && ports.iter().map(|port| port["id"].as_str().unwrap_or_default()).eq(ids.iter().copied())
        });
    }
}

impl Drop for AgentHost {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            // It may have ended already.
            drop(agent.kill());
            drop(agent.wait());
        }
        drop(Command::new("umount").arg("-l").arg(self.path("bpffs")).status());
    }
}

/// Reads an answer: its status and its body as JSON, null where there is none.
#[must_use]
pub fn answer(stream: &mut UnixStream) -> Option<(u16, Value)> {
    let mut bytes = Vec::new();
    // What came before the connection broke may be an answer all the same.
    drop(stream.read_to_end(&mut bytes));
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some((status, serde_json::from_str(body).unwrap_or_default()))
}

/// A veth pair: one end is the host's device, the other is the instance's.
///
/// # Panics
/// It cannot be made.
pub fn add_tap(name: &str) {
    run(&format!("ip link add {name} type veth peer name eth0 netns instance"));
    run(&format!("ip addr add 192.0.2.1/24 dev {name}"));
    run(&format!("ip link set {name} up"));
    run("ip -n instance addr add 192.0.2.2/24 dev eth0");
    run("ip -n instance link set eth0 up");
}

/// Whether the instance answers one of many pings: a busy machine may take more than a second for the first ones.
#[must_use]
pub fn answers() -> bool {
    (0..30).any(|_| is_answered())
}

/// Whether the instance answers a ping of the host. Where it does not, the question has not come to it: an answer that is refused
/// does not stand for one.
///
/// # Panics
/// It was asked, and the answer was lost.
#[must_use]
pub fn pings() -> bool {
    let before = asked();
    let answered = is_answered();
    assert!(answered || asked() == before, "the instance was asked");
    answered
}

/// Whether the instance answers a ping of the host, whichever of both is refused.
#[must_use]
pub fn is_answered() -> bool {
    command("ping -c 1 -W 1 192.0.2.2").status.success()
}

/// How many pings the instance has seen.
fn asked() -> u64 {
    questions(&run("ip netns exec instance cat /proc/net/snmp"))
}

/// How many pings somebody has seen, by his `/proc/net/snmp`.
///
/// # Panics
/// It says nothing of that.
#[must_use]
pub fn questions(text: &str) -> u64 {
    let mut rows = text.lines().filter_map(|line| line.strip_prefix("Icmp: ")).map(|row| row.split(' '));
    let (names, values) = (rows.next().expect("names of counters"), rows.next().expect("counters"));
    let mut echoes = names.zip(values).filter(|(name, _)| *name == "InEchos");
    echoes.next().and_then(|(_, value)| value.parse().ok()).expect("a counter of pings")
}

/// Runs a command line without quotes.
///
/// # Panics
/// It cannot be started.
#[must_use]
pub fn command(line: &str) -> Output {
    let mut words = line.split(' ');
    let program = words.next().expect("a program");
    Command::new(program).args(words).stdin(Stdio::null()).output().expect("start a program")
}

/// The same for one that must succeed; what it prints.
///
/// # Panics
/// It fails.
pub fn run(line: &str) -> String {
    let output = command(line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Names in a directory, in order; none where there is no such directory.
#[must_use]
pub fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

//! The unit in `packaging/` under a systemd that has booted, on a real kernel: it is ready when it says so, has the rights it
//! names and no others, is watched, and what it enforces does not depend on whether it runs.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use netdiag_tests::{private_host, require, require_ebpf};

/// How long anything may take of what a machine that boots does, and of what follows when a watchdog has waited in vain.
const PATIENCE: Duration = Duration::from_mins(3);

/// Makes a root of this machine's files with changes in memory, where no other service is enabled, and becomes systemd in it,
/// which starts the agent and what every service waits for. Arguments: a directory, the program, the directory of the unit, the
/// group of the processes.
const BOOT: &str = r#"
set -eu
mkdir "$4"
echo $$ > "$4/cgroup.procs"
exec unshare --mount --uts --ipc --pid --cgroup --fork --kill-child sh -euc '
mkdir $1/upper $1/work $1/root
mount -t overlay -o lowerdir=/,upperdir=$1/upper,workdir=$1/work overlay $1/root
cd $1/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t bpf bpf sys/fs/bpf
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/netns
mount --rbind /run/netns run/netns
mount -t tmpfs -o mode=755 tmpfs dev
for node in "null 3" "zero 5" "full 7" "random 8" "urandom 9"; do
    mknod -m 666 dev/${node% *} c 1 ${node#* }
done
ln -s /proc/self/fd dev/fd
mkdir -p etc/systemd/system etc/netdiag/policy.d usr/local/bin usr/lib/sysusers.d
mount -t tmpfs -o mode=755 tmpfs etc/systemd/system
cp $3/netdiag-agent.service etc/systemd/system
cp $3/netdiag-agent.sysusers usr/lib/sysusers.d/netdiag-agent.conf
systemd-sysusers --root=$PWD netdiag-agent.conf
cp $2 usr/local/bin/netdiag
pivot_root . mnt
umount -l /mnt
exec env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=netdiag-agent.service --show-status=no --log-target=null
' boot "$@"
"#;

/// What a machine that has booted has beside its kernel.
struct Booted {
    systemd: Child,
    group: PathBuf,
    _directory: tempfile::TempDir,
    _listeners: [TcpListener; 2],
}

impl Booted {
    fn new(netdiag: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        for (name, kind) in [("cgroup", "cgroup2"), ("boot", "tmpfs")] {
            let path = directory.path().join(name);
            fs::create_dir(&path).unwrap();
            sh(&format!("mount -t {kind} {kind} {}", path.display()));
        }
        sh(
            "ip link set lo up && ip netns add instance && ip link add tap0 type veth peer name eth0 netns instance
            ip addr add 192.0.2.1/24 dev tap0 && ip link set tap0 up
            ip -n instance addr add 192.0.2.2/24 dev eth0 && ip -n instance link set eth0 address 02:00:00:00:00:02 up",
        );
        let listeners = [8080, 9090].map(|port| TcpListener::bind(("192.0.2.1", port)).unwrap());
        let name = directory.path().file_name().unwrap().display().to_string();
        let group = directory.path().join(format!("cgroup/netdiag-unit{name}"));
        let packaging = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging");
        let mut boot = Command::new("sh");
        boot.args(["-c", BOOT, "boot"]).arg(directory.path().join("boot")).args([netdiag, packaging]).arg(&group);
        Self { systemd: boot.spawn().unwrap(), group, _directory: directory, _listeners: listeners }
    }

    /// Runs a line of shell where systemd is; what it prints, if it succeeds.
    fn run(&self, line: &str) -> Option<String> {
        let script = "pid=$(pgrep -P $0) && exec nsenter --target $pid --mount --pid --cgroup --uts sh -c \"$1\"";
        let output = Command::new("sh").args(["-c", script, &self.systemd.id().to_string(), line]).output().unwrap();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Runs one that must succeed.
    #[track_caller]
    fn ok(&self, line: &str) -> String {
        self.run(line)
            .unwrap_or_else(|| panic!("{line}: {:?}", self.run("journalctl -b -n 30 -o cat; systemctl --failed")))
    }

    fn wait(&self, line: &str) {
        let started = Instant::now();
        while self.run(line).is_none() {
            assert!(started.elapsed() < PATIENCE, "never: {line}: {:?}", self.run("journalctl -b -n 30 -o cat"));
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// A property of the unit.
    fn property(&self, name: &str) -> String {
        self.ok(&format!("systemctl show -p {name} --value netdiag-agent"))
    }

    /// A line of the agent's own `/proc/…/status`.
    fn process(&self, field: &str) -> String {
        let pid = self.property("MainPID");
        self.ok(&format!("sed -n 's/^{field}:[[:space:]]*//p' /proc/{pid}/status"))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        // Its first process takes all others along, but not at once.
        drop(self.systemd.kill());
        drop(self.systemd.wait());
        let remove = format!("find {} -depth -type d -exec rmdir {{}} + 2> /dev/null", self.group.display());
        let is_done = || Command::new("sh").args(["-c", &remove]).status().is_ok_and(|status| status.success());
        let _in_time = (0..100).any(|_| {
            is_done() || {
                thread::sleep(Duration::from_millis(100));
                false
            }
        });
    }
}

fn sh(script: &str) {
    assert!(Command::new("sh").args(["-ec", script]).status().unwrap().success(), "{script}");
}

/// The instance can connect to port 8080, and to port 9090 or not.
#[track_caller]
fn connects(to_other: bool) {
    for (port, may) in [(8080, true), (9090, to_other)] {
        let connect = format!("exec 3<>/dev/tcp/192.0.2.1/{port}");
        let mut bash = Command::new("timeout");
        bash.args([if may { "60" } else { "3" }, "ip", "netns", "exec", "instance", "bash", "-c", &connect]);
        assert_eq!(bash.output().unwrap().status.success(), may, "whether it can connect to port {port}");
    }
}

const POLICY: &str = r#"{
    "security_groups": [{"id": "web", "security_group_rules": [{"direction": "egress", "ethertype": "IPv4",
        "protocol": "tcp", "port_range_min": 8080, "port_range_max": 8080}]}],
    "ports": [{"id": "one", "mac_address": "02:00:00:00:00:02", "fixed_ips": [{"ip_address": "192.0.2.2"}],
        "security_groups": ["web"], "binding": {"device": "tap0"}}]}"#;

/// `CAP_DAC_OVERRIDE`, `CAP_NET_ADMIN`, `CAP_NET_RAW`, `CAP_SYS_PTRACE`, `CAP_SYS_ADMIN`, `CAP_PERFMON`, `CAP_BPF` (`linux/capability.h`).
const CAPABILITIES: u64 = 1 << 1 | 1 << 12 | 1 << 13 | 1 << 19 | 1 << 21 | 1 << 38 | 1 << 39;

#[test]
fn systemd_runs_the_agent_with_the_rights_its_unit_names_and_what_it_enforces_outlives_it() {
    let test = "systemd_runs_the_agent_with_the_rights_its_unit_names_and_what_it_enforces_outlives_it";
    let netdiag = std::env::var("NETDIAG_BIN").ok();
    let there = require("the program that cargo xtask test builds", netdiag.is_some())
        && require("systemd", fs::exists("/lib/systemd/systemd").unwrap_or(false));
    if !(there && require_ebpf() && private_host::enter(test)) {
        return;
    }
    let host = Booted::new(&netdiag.unwrap());
    host.wait("systemctl is-active netdiag-agent");
    connects(true);

    // As somebody with a few rights.
    assert!(host.property("StatusText").contains("0 ports enforced"), "it has told before it was active");
    assert_eq!(host.ok("stat -c %U /proc/$(systemctl show -p MainPID --value netdiag-agent)"), "netdiag");
    for set in ["CapEff", "CapPrm", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&host.process(set), 16).unwrap(), CAPABILITIES, "{set}");
    }
    assert_eq!(host.process("NoNewPrivs"), "1");
    host.ok(&format!("echo '{POLICY}' > /etc/netdiag/policy.d/policy.json"));
    host.wait("systemctl show -p StatusText netdiag-agent | grep '1 port'");
    connects(false);

    // Stopped, and started again.
    host.ok("systemctl stop netdiag-agent");
    connects(false);
    host.ok("mkdir -p /run/systemd/system/netdiag-agent.service.d && cd /run/systemd/system/netdiag-agent.service.d \
             && printf '[Service]\\nWatchdogSec=10\\n' > watchdog.conf && systemctl daemon-reload");
    host.ok("systemctl start netdiag-agent && systemctl reload netdiag-agent");
    // Longer than the watchdog's time: it is heard.
    thread::sleep(Duration::from_secs(12));
    assert_eq!(host.property("NRestarts"), "0");

    // Hung, and killed by the watchdog.
    host.ok("systemctl kill -s STOP netdiag-agent");
    connects(false);
    host.wait("systemctl show -p NRestarts netdiag-agent | grep =1 && systemctl is-active netdiag-agent");
    connects(false);

    host.ok("systemctl stop netdiag-agent && netdiag agent --detach");
    connects(true);
    assert_eq!(host.ok("ls /sys/fs/bpf | grep netdiag || true"), "");
}

//! Docker as the discovery reads it, by its API and by `/proc`, against a real daemon of its own: its data, its
//! containers and its network namespace end with the test.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use netdiag_agent::discover::{Options, look};
use netdiag_model::{
    fact::{ContainerFact, Gap, Runtime, SourceKind},
    id::NetnsId,
    snapshot::Snapshot,
};
use netdiag_tests::require_root;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// For a daemon that answers, however busy the machine is.
const PATIENT: Duration = Duration::from_mins(1);
/// For one that never will.
const IMPATIENT: Duration = Duration::from_secs(20);

/// A daemon nobody else uses.
struct Docker {
    directory: TempDir,
    daemon: Child,
}

impl Docker {
    fn start() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = |name: &str| directory.path().join(name);
        // A network namespace of its own lets it make docker0 and publish ports without touching the host. The shell
        // becomes the daemon it starts.
        let daemon = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && exec dockerd \"$@\"", "dockerd"])
            .args(["--iptables=false", "--ip6tables=false", "--storage-driver=vfs"])
            .arg(format!("--host=unix://{}", path("docker.sock").display()))
            .arg(format!("--data-root={}", path("data").display()))
            .arg(format!("--exec-root={}", path("exec").display()))
            .arg(format!("--pidfile={}", path("pid").display()))
            // Says that it is confined already: it must load no AppArmor profile, which takes a tool not every host has
            // and would change the host.
            .env("container", "netdiag-tests")
            .stdout(Stdio::null())
            .stderr(fs::File::create(path("log"))?)
            .spawn()
            .context("start dockerd")?;
        let docker = Self { directory, daemon };
        let started = Instant::now();
        while !docker.command(&["version"]).status()?.success() {
            if started.elapsed() > PATIENT {
                bail!("dockerd does not start: {}", fs::read_to_string(docker.path("log"))?);
            }
            thread::sleep(Duration::from_millis(50));
        }
        docker.import_image()?;
        Ok(docker)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg(format!("--host=unix://{}", self.path("docker.sock").display())).args(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs Docker's own client, and gives what it prints.
    fn run(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).output()?;
        ensure!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn import_image(&self) -> anyhow::Result<()> {
        let (root, archive) = (self.path("root"), self.path("image.tar").display().to_string());
        fs::create_dir_all(root.join("bin"))?;
        fs::copy("/bin/busybox", root.join("bin/busybox"))?;
        symlink("busybox", root.join("bin/sleep"))?;
        let packed = Command::new("tar").arg("-C").arg(&root).args(["-cf", &archive, "."]).status()?;
        ensure!(packed.success(), "tar: {packed}");
        self.run(&["import", &archive, "busybox"]).map(drop)
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.daemon), signal)?)
    }

    async fn look(&self, timeout: Duration) -> Snapshot {
        let options = Options {
            docker_socket: self.path("docker.sock"),
            ovsdb_socket: self.path("no.sock"),
            timeout,
            ..Options::default()
        };
        look(options).await
    }

    /// Ends all containers and the daemon.
    fn end(&mut self) -> anyhow::Result<()> {
        let running = self.run(&["ps", "--quiet"])?;
        for id in running.lines() {
            self.run(&["rm", "--force", id])?;
        }
        self.signal(Signal::TERM)?;
        self.daemon.wait()?;
        Ok(())
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A test that fails in the middle leaves the daemon stopped; nothing here may panic, as it may unwind already.
        drop(self.signal(Signal::CONT));
        drop(self.end());
    }
}

fn container<'a>(snapshot: &'a Snapshot, id: &str, source: SourceKind) -> Option<&'a ContainerFact> {
    snapshot.facts.containers.iter().find(|container| container.id == id && container.source == source)
}

fn docker_gaps(snapshot: &Snapshot) -> Vec<&Gap> {
    snapshot.facts.gaps().filter(|gap| gap.source == SourceKind::Docker).collect()
}

/// The namespace of a process, found without the code that is tested.
fn netns_of(snapshot: &Snapshot, pid: u32) -> anyhow::Result<Option<NetnsId>> {
    let link = fs::read_link(Path::new("/proc").join(pid.to_string()).join("ns/net"))?;
    let found = snapshot.facts.namespaces.iter().find(|netns| netns.id.to_string() == link.to_string_lossy());
    Ok(found.map(|netns| netns.id))
}

#[tokio::test]
async fn a_container_of_nova_is_seen_by_its_api_and_by_its_process() {
    if !require_root() {
        return;
    }
    let docker = Docker::start().unwrap();
    let name = "nova-1a2b3c4d-5e6f-4a1b-8c2d-000000000001";
    let id = docker
        .run(&[
            "run",
            "--detach",
            "--name",
            name,
            "--hostname=instance-0000002a",
            "--net=none",
            "--label=hostile=\u{1b}[2J\"'\n$(reboot)",
            "busybox",
            "/bin/sleep",
            "1000",
        ])
        .unwrap();
    let pid: u32 = docker.run(&["inspect", "--format={{.State.Pid}}", name]).unwrap().parse().unwrap();
    let snapshot = docker.look(PATIENT).await;
    let netns = netns_of(&snapshot, pid).unwrap();
    assert!(netns.is_some());

    assert_eq!(docker_gaps(&snapshot), Vec::<&Gap>::new());
    let by_api = container(&snapshot, &id, SourceKind::Docker).unwrap();
    assert_eq!((by_api.runtime, by_api.name.as_deref()), (Runtime::Docker, Some(name)));
    assert_eq!((by_api.state.as_str(), by_api.pid, by_api.netns), ("running", Some(pid), netns));
    assert_eq!(by_api.hostname.as_deref(), Some("instance-0000002a"));
    assert_eq!((by_api.image.as_deref(), by_api.network_mode.as_deref()), (Some("busybox"), Some("none")));
    assert_eq!(by_api.labels["hostile"], "\u{1b}[2J\"'\n$(reboot)");
    assert_eq!((by_api.endpoints.len(), by_api.endpoints[0].address), (1, None));

    let by_process = container(&snapshot, &id, SourceKind::Process).unwrap();
    assert_eq!((by_process.runtime, by_process.pid, by_process.netns), (Runtime::Docker, Some(pid), netns));
    assert_eq!(by_process.hostname.as_deref(), Some("instance-0000002a"));
}

#[tokio::test]
async fn networks_addresses_and_published_ports_are_read() {
    if !require_root() {
        return;
    }
    let docker = Docker::start().unwrap();
    docker.run(&["network", "create", "--subnet=172.29.0.0/24", "--internal", "web"]).unwrap();
    let id = docker
        .run(&[
            "run",
            "--detach",
            "--name=front",
            "--publish=8080:80",
            "--publish=127.0.0.1:5353:53/udp",
            "busybox",
            "/bin/sleep",
            "1000",
        ])
        .unwrap();
    docker.run(&["network", "connect", "web", "front"]).unwrap();
    let snapshot = docker.look(PATIENT).await;
    assert_eq!(docker_gaps(&snapshot), Vec::<&Gap>::new());
    let front = container(&snapshot, &id, SourceKind::Docker).unwrap();
    for network in ["bridge", "web"] {
        let endpoint = front.endpoints.iter().find(|endpoint| endpoint.network == network).unwrap();
        let address = "{{.IPAddress}}/{{.IPPrefixLen}} {{.MacAddress}}";
        let format = format!("--format={{{{with .NetworkSettings.Networks.{network}}}}}{address}{{{{end}}}}");
        let expected = docker.run(&["inspect", &format, "front"]).unwrap();
        assert_eq!(format!("{} {}", endpoint.address.unwrap(), endpoint.mac.unwrap()), expected);
    }
    let mut published: Vec<_> = front
        .published
        .iter()
        .map(|port| format!("{}:{}->{}/{}", port.host_address, port.host_port, port.container_port, port.protocol))
        .filter(|port| !port.starts_with("::"))
        .collect();
    published.sort();
    assert_eq!(published, ["0.0.0.0:8080->80/tcp", "127.0.0.1:5353->53/udp"]);

    let network = |name: &str| snapshot.facts.docker_networks.iter().find(|network| network.name == name).unwrap();
    let web = network("web");
    assert_eq!(web.bridge.as_deref(), Some(format!("br-{}", &web.id[..12]).as_str()));
    assert_eq!((web.subnets[0].to_string().as_str(), web.internal), ("172.29.0.0/24", true));
    assert_eq!(network("bridge").bridge.as_deref(), Some("docker0"));
    assert_eq!((network("host").driver.as_str(), network("host").bridge.as_deref()), ("host", None));
}

#[tokio::test]
async fn a_container_that_does_not_run_is_read_without_a_namespace() {
    if !require_root() {
        return;
    }
    let docker = Docker::start().unwrap();
    let id = docker.run(&["create", "--name=waiting", "--net=none", "busybox", "/bin/sleep", "1000"]).unwrap();
    let snapshot = docker.look(PATIENT).await;
    let waiting = container(&snapshot, &id, SourceKind::Docker).unwrap();
    assert_eq!((waiting.state.as_str(), waiting.pid, waiting.netns), ("created", None, None));
    assert!(container(&snapshot, &id, SourceKind::Process).is_none());
}

#[tokio::test]
async fn a_daemon_that_is_stopped_is_a_gap_and_its_containers_are_still_seen_by_their_processes() {
    if !require_root() {
        return;
    }
    let docker = Docker::start().unwrap();
    let id = docker.run(&["run", "--detach", "--name=web", "--net=none", "busybox", "/bin/sleep", "1000"]).unwrap();
    docker.signal(Signal::STOP).unwrap();
    let snapshot = docker.look(IMPATIENT).await;
    docker.signal(Signal::CONT).unwrap();
    let gap = snapshot.facts.gaps().find(|gap| gap.source == SourceKind::Docker).unwrap();
    assert_eq!((gap.why.as_str(), gap.absent), ("version: no answer within 6000 ms", false));
    assert!(container(&snapshot, &id, SourceKind::Docker).is_none());
    assert!(container(&snapshot, &id, SourceKind::Process).is_some_and(|seen| seen.netns.is_some()));
}

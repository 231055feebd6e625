//! The world around the lab hosts: the cables between them, the gateway of the external network, and the internet.
//!
//! Runs as process 1 of the lab's pid namespace, in the real host's `/proc`: pids that are read from there are those of
//! the real host, which is what the inventory wants.

use std::{
    fmt::Write as _,
    io::{BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::mount::MountFlags;

use crate::lab::{
    cgroup, command, guest, image,
    inventory::{
        Host, Inventory,
        docker::{Container, DockerNetwork},
    },
    profile,
    report::{self, Built, Report},
    spec::Spec,
    state::State,
};

/// The word that lets a node begin: its cables are in place.
pub(crate) const GO: &str = "go\n";

/// Brings every host of the lab up, publishes the inventory, and stays until the end of the lab.
pub(crate) fn run(spec: &Spec) -> Result<()> {
    let mut lab = profile::plan(spec);
    let state = State::of(&spec.name)?;
    lab.supervisor = state.supervisor()?;
    lay_segments(&lab)?;
    let mut nodes = Vec::new();
    for host in &mut lab.hosts {
        let node = Node::start(spec, &host.name).with_context(|| format!("start {}", host.name))?;
        host.pid = Some(node.pid);
        nodes.push(node);
    }
    plug_uplinks(&lab)?;
    for built in build(&mut nodes)? {
        merge(&mut lab, built);
    }
    serve(&state)?;
    guest::start(&mut lab, &state)?;
    state.publish(&lab)?;
    report::send(&Report::Ready)?;
    watch(&nodes)
}

/// A lab host that is coming up.
struct Node {
    name: String,
    pid: u32,
    process: Child,
    stdin: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Node {
    fn start(spec: &Spec, host: &str) -> Result<Self> {
        let lab = &spec.name;
        cgroup::create(lab, cgroup::FABRIC)?;
        cgroup::create(lab, host)?;
        // A cgroup namespace has as its root the group its maker was in.
        cgroup::join(lab, host, 0)?;
        let spawned = spawn(spec, host);
        cgroup::join(lab, cgroup::FABRIC, 0)?;
        let mut process = spawned?;
        let stdin = process.stdin.take().context("no pipe to the node")?;
        let mut reports = BufReader::new(process.stdout.take().context("no pipe from the node")?);
        let Report::Started { pid } = report::receive(&mut reports)? else { bail!("it began with another report") };
        // The maker of the namespaces only waits; under version 2 it must not stay in a group that will have children.
        cgroup::join(lab, cgroup::FABRIC, process.id())?;
        Ok(Self { name: host.into(), pid, process, stdin, reports })
    }

    fn build(&mut self) -> Result<Built> {
        self.stdin.write_all(GO.as_bytes()).context("let it begin")?;
        let Report::Built(built) = report::receive(&mut self.reports)? else { bail!("it ended with another report") };
        Ok(*built)
    }
}

fn spawn(spec: &Spec, host: &str) -> Result<Child> {
    Command::new("unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc", "--cgroup", "--"])
        .args(spec.command_line("node", Some(host))?)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("run unshare")
}

/// Builds all hosts at the same time.
fn build(nodes: &mut [Node]) -> Result<Vec<Built>> {
    thread::scope(|scope| {
        let threads: Vec<_> = nodes
            .iter_mut()
            .map(|node| {
                scope.spawn(|| {
                    let built = node.build();
                    built.with_context(|| format!("build {}", node.name))
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a builder's thread panicked"))?).collect()
    })
}

/// Takes over what a builder has found out; its pid is known here alone.
fn merge(lab: &mut Inventory, built: Built) {
    for instance in built.instances {
        if let Some(planned) = lab.instances.iter_mut().find(|planned| planned.uuid == instance.uuid) {
            *planned = instance;
        }
    }
    for network in built.docker_networks {
        let is_same = |planned: &&mut DockerNetwork| planned.host == network.host && planned.name == network.name;
        if let Some(planned) = lab.docker_networks.iter_mut().find(is_same) {
            *planned = network;
        }
    }
    for container in built.containers {
        let is_same = |planned: &&mut Container| planned.host == container.host && planned.name == container.name;
        if let Some(planned) = lab.containers.iter_mut().find(is_same) {
            *planned = container;
        }
    }
    if let Some(planned) = lab.hosts.iter_mut().find(|planned| planned.name == built.host.name) {
        *planned = Host { pid: planned.pid, ..built.host };
    }
}

/// One bridge per segment; where a segment has a gateway, this namespace is it.
fn lay_segments(lab: &Inventory) -> Result<()> {
    rustix::system::sethostname(b"gateway").context("set the host name")?;
    let mut batch = String::from("link set lo up\n");
    for segment in &lab.segments {
        writeln!(batch, "link add {0} type bridge\nlink set {0} up", segment.name)?;
        if let Some(gateway) = segment.gateway {
            writeln!(batch, "address add {gateway} dev {}", segment.name)?;
        }
    }
    command::feed("ip", ["-batch", "-"], &batch)?;
    command::run("sysctl", ["-q", "-w", "net.ipv4.ip_forward=1"]).map(drop)
}

/// A veth per NIC of a lab host: the other end is a port of the segment's bridge.
fn plug_uplinks(lab: &Inventory) -> Result<()> {
    let mut batch = String::new();
    let mut cables = Vec::new();
    for (number, host) in lab.hosts.iter().enumerate() {
        let pid = host.pid.with_context(|| format!("{} has no process", host.name))?;
        for uplink in &host.uplinks {
            let cable = format!("{number}-{}", uplink.device);
            let inner = format!("name {} address {} netns /proc/{pid}/ns/net", uplink.device, uplink.mac);
            writeln!(batch, "link add {cable} type veth peer {inner}")?;
            writeln!(batch, "link set {cable} master {} up", uplink.segment)?;
            cables.push(cable);
        }
    }
    command::feed("ip", ["-batch", "-"], &batch)?;
    for cable in cables {
        // A real wire carries finished checksums; a veth hands over half-made ones, which a switch in user space keeps.
        command::run("ethtool", ["-K", &cable, "tx", "off"])?;
    }
    Ok(())
}

/// The web server on the gateway's addresses.
fn serve(state: &State) -> Result<()> {
    let root = state.web_root();
    // In memory of this mount namespace: `/run` of the real host may forbid programs.
    rustix::mount::mount("tmpfs", &root, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("mount tmpfs on {}", root.display()))?;
    image::write_web_root(&root)?;
    image::start_web_server(&root, 80)
}

/// Waits for the end of any host, which is the end of the lab; collects every other child on the way.
fn watch(nodes: &[Node]) -> Result<()> {
    loop {
        let ended = rustix::process::wait(rustix::process::WaitOptions::empty()).context("wait for processes")?;
        let pid = ended.map(|(pid, _)| pid.as_raw_nonzero().get().unsigned_abs());
        if let Some(node) = nodes.iter().find(|node| pid == Some(node.process.id())) {
            bail!("{} ended", node.name);
        }
    }
}

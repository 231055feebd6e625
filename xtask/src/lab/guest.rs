//! The guests of virtual machines: what is inside them, and the end of their network cards that is.
//!
//! A guest is a few namespaces of the fabric's, beside the lab hosts and not in them: a host sees of it the frames its
//! hypervisor (`hypervisor`) writes into a tap, and no process, namespace or device. It has the address its port has, runs
//! what containers run (`image`), and begins by asking its gateways, as every guest does that boots.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result};
use rustix::mount::MountFlags;

use crate::lab::{
    command, enter, hypervisor, image,
    inventory::{Instance, Inventory, Machine},
    parallel,
    state::State,
    tap,
};

/// Starts the guest of every virtual machine, and notes its process 1.
pub(crate) fn start(lab: &mut Inventory, state: &State) -> Result<()> {
    let machines: Vec<_> = lab.instances.iter().filter(|instance| instance.machine.is_some()).cloned().collect();
    if machines.is_empty() {
        return Ok(());
    }
    let root = state.guest_root();
    // In memory of this mount namespace: `/run` of the real host may forbid programs.
    rustix::mount::mount("tmpfs", &root, "tmpfs", MountFlags::empty(), None)
        .with_context(|| format!("mount tmpfs on {}", root.display()))?;
    image::write_root(&root)?;
    let pids = parallel::map(&machines, |instance| {
        let guest = boot(&root, instance)?;
        plug(lab, instance, guest).with_context(|| format!("plug the cards of {}", instance.name))?;
        Ok(guest)
    })?;
    for (machine, pid) in machines.iter().zip(pids) {
        if let Some(planned) = lab.instances.iter_mut().find(|planned| planned.uuid == machine.uuid) {
            planned.machine = Some(Machine { guest_pid: Some(pid) });
        }
    }
    Ok(())
}

/// Starts a guest without network cards, and returns its process 1 as the real host counts pids.
fn boot(root: &Path, instance: &Instance) -> Result<u32> {
    // The shell's own pid is read while `/proc` is still the one of the real host.
    let script = format!(
        "read -r pid rest < /proc/self/stat && echo $pid && exec > /dev/null 2>&1 && cd {root} && \
         mount -t proc proc proc && mount -t devtmpfs dev dev && hostname {name} && ip link set lo up && \
         exec chroot . {entry}",
        root = root.display(),
        name = instance.name,
        entry = image::ENTRY,
    );
    let mut guest = Command::new("unshare")
        .args(["--fork", "--kill-child", "--pid", "--mount", "--net", "--uts", "--ipc", "sh", "-c", &script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start the guest of {}", instance.name))?;
    let mut line = String::new();
    let stdout = guest.stdout.take().context("no pipe from the guest")?;
    BufReader::new(stdout).read_line(&mut line).context("wait for the guest")?;
    // The fabric collects it, as any other process of its own.
    line.trim().parse().with_context(|| format!("the guest of {} has no process", instance.name))
}

/// Makes a guest's network cards, and plugs each into its hypervisor.
fn plug(lab: &Inventory, instance: &Instance, guest: u32) -> Result<()> {
    let host = lab.host(&instance.host).with_context(|| format!("{} is on no host", instance.name))?;
    let pid = host.pid.with_context(|| format!("{} has no process", host.name))?;
    // Open vSwitch in user space reads the tap with AF_PACKET, and finishes no checksum and cuts no segment.
    let offloads = host.ovs.as_ref().is_none_or(|ovs| ovs.datapath_type != "netdev");
    let mut batch = String::new();
    for (number, port) in instance.ports.iter().enumerate() {
        // Unlike all others of the fabric, until it is where it belongs.
        let made = format!("{guest}-{number}");
        let card = tap::open(&made, offloads)?;
        command::run("ip", ["link", "set", &made, "netns", &format!("/proc/{guest}/ns/net"), "name", &port.device])?;
        let path = hypervisor::socket(instance, number);
        let inside = path.strip_prefix("/").context("a socket without a place")?;
        let socket = hypervisor::plug(&Path::new("/proc").join(pid.to_string()).join("root").join(inside))?;
        // They end with the guest or its hypervisor.
        drop(tap::splice(card, socket));
        let device = &port.device;
        writeln!(batch, "link set {device} address {} mtu {} up", port.mac, port.mtu)?;
        writeln!(batch, "address add {} dev {device}", port.address)?;
        writeln!(batch, "route replace default via {} dev {device}", port.gateway)?;
    }
    command::finish(enter::guest(guest).args(["ip", "-batch", "-"]), &batch)?;
    // Whether anybody answers is not for the guest to say.
    instance.ports.iter().try_for_each(|port| {
        let words = ["busybox", "ping", "-c", "1", "-W", "5", &port.gateway.to_string()];
        command::collect(enter::guest(guest).args(words), "").map(drop)
    })
}

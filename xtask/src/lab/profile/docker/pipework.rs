//! Cards plugged by hand, as the script pipework does it: device names with the container's pid, no trace in Docker.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, Result};

use crate::lab::{
    command,
    inventory::{Cidr, docker::Container},
};

/// The bridge on the host.
pub(super) const BRIDGE: &str = "br1";
/// The host's own address on it.
pub(super) const BRIDGE_ADDRESS: Cidr = Cidr { address: Ipv4Addr::new(192, 168, 77, 1), prefix: 24 };

/// Makes the bridge, and plugs every card that is on no Docker network.
pub(super) fn plug(containers: &[Container]) -> Result<()> {
    let mut batch = format!("link add {BRIDGE} type bridge\nlink set {BRIDGE} up\n");
    writeln!(batch, "address add {BRIDGE_ADDRESS} dev {BRIDGE}")?;
    command::feed("ip", ["-batch", "-"], &batch)?;
    allow_within_bridge()?;
    for container in containers {
        let pid = container.pid.with_context(|| format!("{} has not been started", container.name))?;
        for nic in container.nics.iter().filter(|nic| nic.network.is_none()) {
            let address = nic.address.context("a card plugged by hand without address")?;
            plug_one(pid, &nic.device, address)
                .with_context(|| format!("plug {} of {}", nic.device, container.name))?;
        }
    }
    Ok(())
}

fn plug_one(pid: u32, device: &str, address: Cidr) -> Result<()> {
    let (local, guest) = (format!("v{device}pl{pid}"), format!("v{device}pg{pid}"));
    let outside = format!(
        "link add name {local} mtu 1500 type veth peer name {guest} mtu 1500\n\
         link set {local} master {BRIDGE}\n\
         link set {local} up\n\
         link set {guest} netns {pid}\n"
    );
    command::feed("ip", ["-batch", "-"], &outside)?;
    let inside = format!("link set {guest} name {device}\naddress add {address} dev {device}\nlink set {device} up\n");
    let namespace = format!("--net=/proc/{pid}/ns/net");
    command::feed("nsenter", [&namespace, "ip", "-batch", "-"], &inside).map(drop)
}

/// Docker drops what is forwarded and not its own, and where `br_netfilter` is on that includes frames within a bridge.
/// `DOCKER-USER` is where its documentation wants exceptions.
fn allow_within_bridge() -> Result<()> {
    let rule = ["-w", "-I", "DOCKER-USER", "-i", BRIDGE, "-o", BRIDGE, "-j", "ACCEPT"];
    command::run("iptables", rule).map(drop)
}

//! The network: an instance and the outside, each in a namespace, and between them one bridge with everything else at it.

use std::{os::fd::OwnedFd, path::Path};

use anyhow::{Context as _, Result};
use netdiag_agent::netns::Namespace;

use super::{
    kernel::{self, packet_socket},
    small::End,
    world::{ifindex, run},
};

/// The bridge.
pub(super) const BRIDGE: &str = "bridge";
/// MAC addresses of the instance and of the machine beyond the router.
pub(super) const INSTANCE: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 3];
pub(super) const BEYOND: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 4];

pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

/// A namespace with one device, whose other end is here, at the bridge.
pub(super) struct Place {
    pub(super) name: &'static str,
    pub(super) namespace: Namespace,
    /// The device's end here.
    pub(super) device: u32,
    /// Sends frames from there.
    pub(super) socket: OwnedFd,
    end: End,
    /// Frames end there as long as this lives.
    ending: Option<OwnedFd>,
}

impl Place {
    async fn new(name: &'static str, device: &str, mac: [u8; 6]) -> Result<Self> {
        let mac = text(mac);
        run(&["ip", "netns", "add", name])?;
        run(&["ip", "link", "add", device, "type", "veth", "peer", "name", "eth0", "address", &mac, "netns", name])?;
        run(&["ip", "link", "set", device, "master", BRIDGE, "up"])?;
        run(&["bridge", "fdb", "replace", &mac, "dev", device, "master", "static"])?;
        run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        run(&["ip", "-n", name, "link", "set", "eth0", "up"])?;
        let namespace = Namespace::open(&Path::new("/run/netns").join(name))?;
        let socket = namespace.run(|| ifindex("eth0").and_then(|index| Ok(packet_socket(index)?))).await??;
        let device = ifindex(device)?;
        Ok(Self { name, namespace, device, socket, end: End::new()?, ending: None })
    }

    /// From here on frames end as soon as they are there, and are counted; or no longer.
    pub(super) async fn end(&mut self, end: bool) -> Result<()> {
        self.ending = None;
        if end {
            let program = self.end.program.try_clone()?;
            let attach = move || ifindex("eth0").and_then(|index| Ok(kernel::attach(&program, index, false)?));
            self.ending = Some(self.namespace.run(attach).await??);
        }
        Ok(())
    }

    /// Frames that have ended there.
    pub(super) fn ended(&self) -> Result<u64> {
        self.end.count().context("read the count")
    }

    /// Says which MAC address an address has.
    pub(super) fn know(&self, address: &str, mac: [u8; 6]) -> Result<()> {
        let words = ["neighbour", "replace", address, "lladdr", &text(mac), "dev", "eth0", "nud", "permanent"];
        run(&[&["ip", "-n", self.name][..], &words].concat()).map(drop)
    }

    pub(super) fn ip(&self, words: &[&str]) -> Result<()> {
        run(&[&["ip", "-n", self.name][..], words].concat()).map(drop)
    }
}

/// Both ends of all that is measured.
pub(super) struct District {
    pub(super) outside: Place,
    pub(super) instance: Place,
}

impl District {
    pub(super) async fn new() -> Result<Self> {
        for family in ["all", "default"] {
            run(&["sysctl", "-qw", &format!("net.ipv6.conf.{family}.disable_ipv6=1")])?;
        }
        run(&["ip", "link", "add", BRIDGE, "up", "type", "bridge", "mcast_snooping", "0"])?;
        if Path::new("/proc/sys/net/bridge").exists() {
            run(&["sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0"])?;
        }
        let outside = Place::new("outside", "ext0", BEYOND).await?;
        let instance = Place::new("instance", "tap0", INSTANCE).await?;
        Ok(Self { outside, instance })
    }
}

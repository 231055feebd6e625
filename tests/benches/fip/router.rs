//! Router namespaces as Neutron has them, and one that only routes: `cargo xtask bench` makes their rules with the code that makes those
//! of the lab.

use std::{
    env, fs,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    district::{BEYOND, BRIDGE, INSTANCE, text},
    world::{after, run},
};

/// The file with the rules.
const FILE: &str = "NETDIAG_BENCH_RULES";

/// Rules of routers with so many floating IPs, and what they are about.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    gateway: String,
    interface: String,
    floating: Ipv4Addr,
    fixed: Ipv4Addr,
    text: Value,
}

impl Rules {
    /// Reads what xtask has written.
    pub(super) fn read() -> Result<Self> {
        let path = env::var(FILE).with_context(|| format!("{FILE} is not set: start this by cargo xtask bench fip"))?;
        let all: Value = serde_json::from_slice(&fs::read(&path).with_context(|| format!("read {path}"))?)?;
        let word = |name: &str| all[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
        let (gateway, interface) = (word("gateway")?, word("interface")?);
        let (floating, fixed) = (word("floating")?.parse()?, word("fixed")?.parse()?);
        Ok(Self { gateway, interface, floating, fixed, text: all["rules"].clone() })
    }

    /// A floating IP.
    pub(super) fn floating(&self, place: u32) -> Ipv4Addr {
        after(self.floating, place)
    }

    /// What it stands for.
    pub(super) fn fixed(&self, place: u32) -> Ipv4Addr {
        after(self.fixed, place)
    }
}

/// Who translates in a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// Nobody.
    None,
    /// iptables of the old kind.
    Legacy,
    /// The same rules, by nft.
    Nft,
}

/// A router namespace at the bridge.
#[derive(Clone, Debug)]
pub(super) struct Router {
    pub(super) namespace: String,
    /// Its MAC addresses, outside and inside.
    pub(super) macs: [[u8; 6]; 2],
}

impl Router {
    /// The router of a place among all, with so many floating IPs.
    pub(super) fn new(place: u8, filter: Filter, size: u16, rules: &Rules) -> Result<Self> {
        let namespace = format!("router{place}");
        let macs = [10, 11].map(|side| [0xfa, 0x16, 0x3e, side, 0, place]);
        let router = Self { namespace, macs };
        router.lay(place, rules)?;
        match filter {
            Filter::None => {}
            Filter::Legacy => router.install("iptables-legacy-restore", size, rules)?,
            Filter::Nft => router.install("iptables-nft-restore", size, rules)?,
        }
        Ok(router)
    }

    /// Its cables, addresses and neighbours.
    fn lay(&self, place: u8, rules: &Rules) -> Result<()> {
        let Self { namespace, macs } = self;
        run(&["ip", "netns", "add", namespace])?;
        let sides =
            [("qg", &rules.gateway, "172.24.0.2/15", macs[0]), ("qr", &rules.interface, "10.2.0.1/24", macs[1])];
        for (kind, device, address, mac) in sides {
            let here = format!("{kind}{place}");
            let mac = text(mac);
            run(&[
                "ip", "link", "add", &here, "type", "veth", "peer", "name", device, "address", &mac, "netns", namespace,
            ])?;
            run(&["ip", "link", "set", &here, "master", BRIDGE, "up"])?;
            run(&["bridge", "fdb", "replace", &mac, "dev", &here, "master", "static"])?;
            run(&["ip", "-n", namespace, "address", "add", address, "dev", device])?;
            run(&["ip", "-n", namespace, "link", "set", device, "up"])?;
        }
        let sysctl = ["net.ipv4.ip_forward=1", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.all.send_redirects=0"];
        run(&[&["ip", "netns", "exec", namespace, "sysctl", "-qw"][..], &sysctl].concat())?;
        for (neighbour, mac, device) in
            [("172.24.0.1", BEYOND, &rules.gateway), ("10.2.0.2", INSTANCE, &rules.interface)]
        {
            let words = ["neighbour", "add", neighbour, "lladdr", &text(mac), "dev", device, "nud", "permanent"];
            run(&[&["ip", "-n", namespace][..], &words].concat())?;
        }
        run(&["ip", "-n", namespace, "route", "add", "default", "via", "172.24.0.1"])?;
        run(&["ip", "-n", namespace, "route", "add", "10.1.0.0/16", "via", "10.2.0.2"]).map(drop)
    }

    fn install(&self, program: &str, size: u16, rules: &Rules) -> Result<()> {
        let text = rules.text[size.to_string()].as_str().with_context(|| format!("no rules of {size}"))?;
        let mut restore = Command::new("ip");
        restore.args(["netns", "exec", &self.namespace, program]).stdin(Stdio::piped());
        let mut restore = restore.spawn().context(program.to_owned())?;
        restore.stdin.take().context("its input")?.write_all(text.as_bytes())?;
        ensure!(restore.wait()?.success(), "{program} refused the rules");
        // As Neutron sets it.
        let liberal = "net.netfilter.nf_conntrack_tcp_be_liberal=1";
        run(&["ip", "netns", "exec", &self.namespace, "sysctl", "-qw", liberal]).map(drop)
    }

    /// Forgets every connection.
    pub(super) fn forget(&self) -> Result<()> {
        run(&["ip", "netns", "exec", &self.namespace, "conntrack", "-F"]).map(drop)
    }
}

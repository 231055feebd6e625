//! Distributed routers (DVR) as Neutron's L3 agent leaves them on one host.
//!
//! `qrouter-` routes between a router's networks and translates the floating IPs of this host's instances; `fip-` routes
//! those to and from the external network and answers ARP for them, without having their addresses; on one host, `snat-`
//! translates whatever has no floating IP.

use std::{
    fmt::{self, Write as _},
    net::Ipv4Addr,
};

use anyhow::{Context as _, Result};

use super::{
    router::{self, Namespace, SYSCTLS},
    rules::{self, Subject},
};
use crate::lab::{
    command,
    inventory::{
        FloatingIp, Inventory, Router, RouterPort,
        distributed::{Distributed, FipNamespace, LinkEnd, LocalRouter},
    },
    netns,
};

/// Table of the router's routes for what leaves by a floating IP (`FIP_RT_TBL`).
const FIP_TABLE: u32 = 16;
/// First priority of the rules that lead there (`FIP_PR_START`), and how many there are.
const FIP_PRIORITY: u32 = 32_768;
const FIP_PRIORITIES: u32 = 40_000;

/// A distributed router's share of one host.
struct Share<'a> {
    router: &'a Router,
    distributed: &'a Distributed,
    local: &'a LocalRouter,
    /// Its floating IPs whose instances are on the host.
    floating: Vec<&'a FloatingIp>,
    /// Whether its `snat-` namespace is here.
    central: bool,
}

fn shares<'a>(lab: &'a Inventory, here: &str) -> Vec<Share<'a>> {
    let share = |router: &'a Router| {
        let distributed = router.distributed.as_ref()?;
        let local = distributed.on(here)?;
        let is_here = |floating: &&FloatingIp| {
            let mut ports = lab.instances_on(here).flat_map(|instance| &instance.ports);
            ports.any(|port| port.id == floating.port_id)
        };
        let floating = router.floating_ips.iter().filter(is_here).collect();
        Some(Share { router, distributed, local, floating, central: router.host == here })
    };
    lab.routers.iter().filter_map(share).collect()
}

fn fip_namespace<'a>(lab: &'a Inventory, here: &str) -> Option<&'a FipNamespace> {
    lab.fip_namespaces.iter().find(|namespace| namespace.host == here)
}

/// Makes the namespaces of a host; their devices are moved there next.
pub(super) fn add_namespaces<'a>(lab: &'a Inventory, here: &str) -> Result<Vec<Namespace<'a>>> {
    let mut namespaces = Vec::new();
    for share in shares(lab, here) {
        let Share { router, distributed, local, floating, central } = share;
        router::add(&router.netns, &Subject::local(router, local, floating), &["net.ipv4.conf.all.send_redirects=0"])?;
        namespaces.push(Namespace { netns: &router.netns, ports: router.interfaces.iter().collect() });
        if central {
            let snat = &distributed.snat;
            let sysctls = ["net.netfilter.nf_conntrack_tcp_loose=0", "net.ipv4.ip_nonlocal_bind=1"];
            router::add(&snat.netns, &Subject::central(router, snat), &sysctls)?;
            namespaces
                .push(Namespace { netns: &snat.netns, ports: snat.ports.iter().chain([&router.gateway]).collect() });
        }
    }
    if let Some(fip) = fip_namespace(lab, here) {
        netns::add(&fip.netns)?;
        netns::feed(&fip.netns, &["iptables-restore"], &rules::untracked()?)?;
        let words = [&["sysctl", "-q", "-w", "net.ipv4.ip_nonlocal_bind=1"], &SYSCTLS[..]].concat();
        netns::run(&fip.netns, &words)?;
        namespaces.push(Namespace { netns: &fip.netns, ports: vec![&fip.gateway] });
    }
    Ok(namespaces)
}

/// Configures the devices that were moved into the namespaces.
pub(super) fn configure(lab: &Inventory, here: &str) -> Result<()> {
    let Some(fip) = fip_namespace(lab, here) else { return Ok(()) };
    configure_fip(lab, fip)?;
    for share in shares(lab, here) {
        configure_local(lab, &share)?;
        connect(lab, &share, fip)?;
        if share.central {
            configure_central(lab, &share)?;
        }
    }
    Ok(())
}

/// The external leg, which answers ARP for whatever the namespace has a route to.
fn configure_fip(lab: &Inventory, fip: &FipNamespace) -> Result<()> {
    let mut batch = String::new();
    router::bring_up(&mut batch, lab, &fip.gateway)?;
    netns::batch(&fip.netns, &batch)?;
    let device = &fip.gateway.device;
    let proxy = format!("net.ipv4.conf.{device}.proxy_arp=1");
    // In ticks of a hundredth of a second: an answer is not held back for longer.
    let delay = format!("net.ipv4.neigh.{device}.proxy_delay=1");
    netns::run(&fip.netns, &["sysctl", "-q", "-w", &proxy, &delay]).map(drop)
}

/// Addresses and neighbours of a router, which asks nobody by ARP, and its way to where source NAT is.
fn configure_local(lab: &Inventory, share: &Share<'_>) -> Result<()> {
    let mut batch = String::new();
    let mut settings = Vec::new();
    for (port, snat) in share.router.interfaces.iter().zip(&share.distributed.snat.ports) {
        router::bring_up(&mut batch, lab, port)?;
        for (address, mac) in neighbours(lab, port).chain([(snat.address.address, snat.mac.as_str())]) {
            writeln!(batch, "neigh replace {address} lladdr {mac} dev {} nud permanent", port.device)?;
        }
        let table = u32::from(port.address.address);
        let to = snat.address.address;
        writeln!(batch, "route add default via {to} dev {} table {table} proto static", port.device)?;
        writeln!(batch, "rule add from {} lookup {table} priority {table}", port.address)?;
        settings.push(format!("net.ipv4.conf.{}.send_redirects=0", port.device));
    }
    netns::batch(&share.router.netns, &batch)?;
    let words: Vec<_> = ["sysctl", "-q", "-w"].into_iter().chain(settings.iter().map(String::as_str)).collect();
    netns::run(&share.router.netns, &words)?;
    router::start_metadata(&share.router.netns)
}

/// Everybody in a router port's network: the agent is told of them, on whichever host they are.
fn neighbours<'a>(lab: &'a Inventory, port: &'a RouterPort) -> impl Iterator<Item = (Ipv4Addr, &'a str)> {
    let instances = lab.instances.iter().flat_map(|instance| &instance.ports).filter(|one| one.network == port.network);
    let dhcp = lab.network(&port.network).and_then(|network| network.dhcp.as_ref());
    let dhcp = dhcp.map(|dhcp| (dhcp.address, dhcp.mac.as_str()));
    instances.map(|one| (one.address.address, one.mac.as_str())).chain(dhcp)
}

/// Joins a router and the `fip-` namespace of its host, and leads the host's floating IPs through both.
fn connect(lab: &Inventory, share: &Share<'_>, fip: &FipNamespace) -> Result<()> {
    let LocalRouter { router_end, fip_end, .. } = share.local;
    let external = lab.network(&fip.network).context("an external network that is not planned")?;
    let end =
        |end: &LinkEnd, netns: &str| format!("{} address {} mtu {} netns {netns}", end.device, end.mac, external.mtu);
    let (inner, outer) = (end(router_end, &share.router.netns), end(fip_end, &fip.netns));
    command::feed("ip", ["-batch", "-"], &format!("link add {inner} type veth peer name {outer}\n"))?;
    netns::batch(&share.router.netns, &router_side(share)?)?;
    netns::batch(&fip.netns, &fip_side(share, (external.gateway, &fip.gateway.device))?)
}

/// An end of the pair, which knows the other without asking.
fn join(batch: &mut String, own: &LinkEnd, other: &LinkEnd) -> fmt::Result {
    writeln!(batch, "link set {} up\naddress add {} dev {0}", own.device, own.address)?;
    writeln!(batch, "neigh replace {} lladdr {} dev {} nud permanent", other.address.address, other.mac, own.device)
}

/// What the router sends by a floating IP leaves by the pair.
fn router_side(share: &Share<'_>) -> Result<String, fmt::Error> {
    let LocalRouter { router_end, fip_end, .. } = share.local;
    let mut batch = String::new();
    join(&mut batch, router_end, fip_end)?;
    let (to, device) = (fip_end.address.address, &router_end.device);
    writeln!(batch, "route add default via {to} dev {device} table {FIP_TABLE} proto static")?;
    for floating in &share.floating {
        let priority = priority(floating.address);
        writeln!(batch, "rule add from {} lookup {FIP_TABLE} priority {priority}", floating.fixed)?;
    }
    Ok(batch)
}

/// What comes by the pair goes to the external network's gateway, and what comes for a floating IP to the pair.
fn fip_side(share: &Share<'_>, (gateway, external): (Ipv4Addr, &str)) -> Result<String, fmt::Error> {
    let LocalRouter { router_end, fip_end, .. } = share.local;
    let mut batch = String::new();
    join(&mut batch, fip_end, router_end)?;
    let table = u32::from(fip_end.address.address);
    writeln!(batch, "route add default via {gateway} dev {external} table {table} proto static")?;
    writeln!(batch, "rule add iif {} lookup {table} priority {table}", fip_end.device)?;
    let (to, device) = (router_end.address.address, &fip_end.device);
    for floating in &share.floating {
        writeln!(batch, "route add {}/32 via {to} dev {device} proto static", floating.address)?;
    }
    Ok(batch)
}

/// One for each floating IP of a host; the agent takes any that is free.
fn priority(floating: Ipv4Addr) -> u32 {
    // The network is a /24, so the last octet tells floating IPs apart; odd steps look as picked as the agent's.
    FIP_PRIORITY + u32::from(floating.octets()[3]) * 151 % FIP_PRIORITIES
}

/// The namespace of source NAT, with a side in each of the router's networks and in the external one.
fn configure_central(lab: &Inventory, share: &Share<'_>) -> Result<()> {
    let snat = &share.distributed.snat;
    let mut batch = String::new();
    for port in snat.ports.iter().chain([&share.router.gateway]) {
        router::bring_up(&mut batch, lab, port)?;
    }
    router::default_route(&mut batch, lab, &share.router.gateway)?;
    netns::batch(&snat.netns, &batch)
}

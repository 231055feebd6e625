//! DHCP and metadata of a card's network, as far as they are served on this host.

use std::net::IpAddr;

use super::{HopState, Service, Severity, command::in_netns, filter, outward::Way, path::finding};
use crate::{
    fact::{METADATA_ADDRESS, SourceKind},
    id::NetnsId,
    inventory::{Inventory, Role, neighbourhood::Member},
};

/// What Neutron runs in a router's namespace besides the metadata proxy: VRRP of highly available routers with its
/// monitor, IPv6 router advertisements, connection synchronisation. Names as `/proc/<pid>/comm` cuts them (15 characters).
const HELPERS: [&str; 4] = ["keepalived", "neutron-keepali", "radvd", "conntrackd"];

/// Finds both services.
pub(super) fn find(way: &mut Way<'_, '_>) -> (Option<Service>, Option<Service>) {
    let inventory = way.inventory;
    let ports = inventory.dhcp_ports(way.nic);
    let dhcp = ports.first().map(|member| dhcp(way, member));
    let metadata = by_router(way).or_else(|| ports.first().and_then(|member| by_dhcp(inventory, member)));
    (dhcp, metadata)
}

fn dhcp(way: &mut Way<'_, '_>, member: &Member<'_>) -> Service {
    let inventory = way.inventory;
    let service = service(inventory, member, &["dnsmasq"], "answers DHCP and DNS on this network");
    if *inventory.role(member.device.netns) == Role::Dhcp(None) {
        way.lateral.findings.push(
            finding(
                Severity::Warning,
                "dhcp-unnamed",
                &service.netns.label,
                "the namespace of DHCP has lost its name: Neutron's agent no longer reaches it and will make another",
            )
            .seen("it holds a DHCP port, and nothing under /run/netns leads to it")
            .verify("ip netns list")
            .fix("restart neutron-dhcp-agent, and end the processes that keep the old namespace alive"),
        );
    }
    if service.process.is_none() && !blind(inventory, member.device.netns) {
        let label = &service.netns.label;
        way.lateral.findings.push(
            finding(
                Severity::Warning,
                "dhcp-silent",
                label,
                format!("no dnsmasq runs in {label}: nobody answers DHCP on this host"),
            )
            .seen("no process of that name in the namespace")
            .verify(in_netns(inventory, member.device.netns, "ss -lunp"))
            .fix("restart neutron-dhcp-agent"),
        );
    }
    service
}

fn service(inventory: &Inventory<'_>, member: &Member<'_>, names: &[&str], note: &str) -> Service {
    let link = inventory.link(member.device);
    let process = process(inventory, member.device.netns, names);
    let up = link.is_some_and(|link| link.admin_up);
    Service {
        netns: inventory.netns(member.device.netns),
        device: link.map(|link| link.name.clone()),
        addresses: inventory.addresses(member.device),
        state: match (up, process.is_some()) {
            (true, true) => HopState::Ok,
            (true, false) if blind(inventory, member.device.netns) => HopState::Unknown,
            (true | false, _) => HopState::Broken,
        },
        process,
        note: note.to_owned(),
    }
}

/// Whether processes may run in a namespace that could not be seen there: `/proc/<pid>/ns/net` takes `CAP_SYS_PTRACE`.
fn blind(inventory: &Inventory<'_>, netns: NetnsId) -> bool {
    inventory.unread(SourceKind::Netns, netns)
}

fn process(inventory: &Inventory<'_>, netns: NetnsId, names: &[&str]) -> Option<String> {
    let processes = inventory.namespace(netns).map_or(&[][..], |namespace| &namespace.processes);
    let process = processes.iter().find(|process| names.contains(&process.comm.as_str()))?;
    Some(format!("{} ({})", process.comm, process.pid))
}

/// Metadata through the router: its namespace redirects the address to a proxy.
fn by_router(way: &Way<'_, '_>) -> Option<Service> {
    let inventory = way.inventory;
    let allowed = filter::lets_metadata_out(way);
    inventory.router_ports(way.nic).iter().find_map(|member| {
        let netns = member.device.netns;
        let redirect = filter::metadata_redirect(inventory, member.device)?;
        let processes = inventory.namespace(netns).map_or(&[][..], |namespace| &namespace.processes);
        let mut candidates = processes.iter().filter(|process| !HELPERS.contains(&process.comm.as_str()));
        let process = candidates.next().map(|process| format!("{} ({})", process.comm, process.pid));
        Some(Service {
            netns: inventory.netns(netns),
            device: inventory.link(member.device).map(|link| link.name.clone()),
            addresses: vec![ipnet::IpNet::from(IpAddr::from(METADATA_ADDRESS))],
            state: match (allowed, process.is_some()) {
                (Some(false), _) => HopState::Broken,
                (Some(true), true) => HopState::Ok,
                (Some(true), false) | (None, _) => HopState::Unknown,
            },
            process,
            note: if allowed == Some(false) {
                "the port's security groups do not let requests for it out".to_owned()
            } else {
                format!("{}; {} packets", redirect.meaning, redirect.counters.packets)
            },
        })
    })
}

/// Metadata without a router: the address is on the DHCP port.
fn by_dhcp(inventory: &Inventory<'_>, member: &Member<'_>) -> Option<Service> {
    let held = inventory.link(member.device)?.addresses.iter().any(|held| held.address.addr() == METADATA_ADDRESS);
    let ours = || service(inventory, member, &["haproxy"], "answers on the DHCP port");
    held.then(ours)
}

//! The example's security groups, and which ports have them.
//!
//! Between them they hold every form of rule the firewall driver writes: any packet, a port, a range of ports, an ICMP
//! type and code, an address prefix, a remote group. `web-2` has no rule that lets anything in, and may send TCP alone;
//! `other-2` has no port security.

use std::net::Ipv4Addr;

use crate::lab::{
    identity::uuid,
    inventory::{
        Cidr, Instance, Inventory, Uuid,
        security::{Direction, Ethertype, Peer, PortChains, PortSecurity, SecurityGroup, SecurityRule, Traffic},
    },
};

/// Prefix of the agent's chains: its process name, cut to 16 characters.
pub(crate) const PREFIX: &str = "neutron-openvswi";

/// First connection tracking zone of a port; those below are left to networks.
const FIRST_ZONE: u16 = 4097;

/// Prefix the `web` group lets administrators come from.
const ADMINISTRATORS: Cidr = Cidr { address: Ipv4Addr::new(203, 0, 113, 0), prefix: 24 };
/// Where `locked` may send to.
const PARTNER: Cidr = Cidr { address: Ipv4Addr::new(203, 0, 113, 10), prefix: 32 };
/// All of project `demo`.
const TENANT: Cidr = Cidr { address: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 };

/// Gives every port of a planned deployment its security groups, zone and chains.
pub(crate) fn assign(lab: &mut Inventory) {
    lab.security_groups = groups();
    let hosts: Vec<_> = lab.hosts.iter().map(|host| host.name.clone()).collect();
    for host in hosts {
        let mut zone = FIRST_ZONE;
        for instance in lab.instances.iter_mut().filter(|instance| instance.host == host) {
            let enabled = instance.display_name != "other-2";
            let groups = if enabled { groups_of(instance) } else { Vec::new() };
            for port in &mut instance.ports {
                let chains = enabled.then(|| chains(&port.id));
                let own = enabled.then_some(zone);
                zone += u16::from(enabled);
                port.security = Some(PortSecurity { enabled, groups: groups.clone(), zone: own, chains });
            }
        }
    }
}

/// The groups of an instance's ports.
fn groups_of(instance: &Instance) -> Vec<Uuid> {
    let names: &[&str] = match instance.display_name.as_str() {
        "web-2" => &["demo/locked"],
        "db-1" | "db-2" => &["demo/db"],
        "other-1" => &["other/default", "other/web"],
        _ if instance.project == uuid("project", "other") => &["other/default"],
        _ => &["demo/default", "demo/web"],
    };
    names.iter().map(|name| uuid("security-group", name)).collect()
}

fn chains(port: &Uuid) -> PortChains {
    let chain = |letter: char| format!("{PREFIX}-{letter}{}", port.0.chars().take(10).collect::<String>());
    PortChains { ingress: chain('i'), egress: chain('o'), spoof: chain('s') }
}

fn groups() -> Vec<SecurityGroup> {
    let web = |name: &str| {
        let tcp = |min, max| ingress(Traffic::Tcp { min, max }, Peer::Any);
        let echo = Traffic::Icmp { kind: Some(8), code: Some(0) };
        let ssh = ingress(Traffic::Tcp { min: 22, max: 22 }, Peer::Prefix(ADMINISTRATORS));
        group(name, vec![tcp(80, 80), tcp(8000, 8100), ingress(echo, Peer::Any), ssh], true)
    };
    let from_group =
        |name: &str, min, max| ingress(Traffic::Tcp { min, max }, Peer::Group(uuid("security-group", name)));
    let ping = ingress(Traffic::Icmp { kind: Some(8), code: None }, Peer::Prefix(TENANT));
    let db = vec![from_group("demo/web", 5432, 5432), from_group("demo/db", 80, 80), ping];
    let locked = SecurityRule {
        direction: Direction::Egress,
        ethertype: Ethertype::V4,
        traffic: Traffic::Tcp { min: 1, max: 1023 },
        peer: Peer::Prefix(PARTNER),
    };
    vec![
        default("demo/default"),
        web("demo/web"),
        group("demo/db", db, true),
        group("demo/locked", vec![locked], false),
        default("other/default"),
        web("other/web"),
    ]
}

/// The group every project has: its members may talk to each other.
fn default(name: &str) -> SecurityGroup {
    let members = ingress(Traffic::Any, Peer::Group(uuid("security-group", name)));
    let members_v6 = SecurityRule { ethertype: Ethertype::V6, ..members.clone() };
    group(name, vec![members, members_v6], true)
}

/// A group named `<project>/<name>`; `talks` gives it the rules a new group has, to send whatever it likes.
fn group(full_name: &str, rules: Vec<SecurityRule>, talks: bool) -> SecurityGroup {
    let (project, name) = full_name.split_once('/').unwrap_or(("demo", full_name));
    let outward = [Ethertype::V4, Ethertype::V6].into_iter().filter(|_| talks).map(|ethertype| SecurityRule {
        direction: Direction::Egress,
        ethertype,
        traffic: Traffic::Any,
        peer: Peer::Any,
    });
    SecurityGroup {
        id: uuid("security-group", full_name),
        name: name.into(),
        project: uuid("project", project),
        rules: outward.chain(rules).collect(),
    }
}

fn ingress(traffic: Traffic, peer: Peer) -> SecurityRule {
    SecurityRule { direction: Direction::Ingress, ethertype: Ethertype::V4, traffic, peer }
}

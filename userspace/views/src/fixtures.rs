//! Realistic answers that every view is tested with.

/// A container on Docker's own bridge.
mod docker;
/// What is said of enforcement.
pub(crate) mod enforced;
/// Names a tenant with bad intent would choose.
mod hostile;
/// A virtual machine behind a hybrid bridge, with a fault.
mod hybrid;
/// Packets seen live.
pub(crate) mod live;
/// A nova-docker instance whose network is on many hosts.
mod mesh;
/// A nova-docker instance where everything works.
mod nova_docker;
/// The pages of `netdiag list` and `netdiag doctor`.
mod pages;
/// What changes while an instance is watched.
pub(crate) mod watch;

use std::net::IpAddr;

use ipnet::IpNet;
use netdiag_model::{
    fact::{LinkStats, RuleBackend},
    id::{NetnsId, Uuid},
    netfilter::RuleCounters,
    trace::{Direction, Hop, HopKind, HopState, InterfaceTrace, NetnsRef, RuleRef, Trace},
};

pub(crate) use self::{
    docker::published,
    hostile::hostile,
    hybrid::broken,
    mesh::mesh,
    nova_docker::healthy,
    pages::{listing, report},
};

/// The moment of every look.
const TAKEN_AT: u64 = 1_793_204_439;

/// Every trace by its name.
pub(crate) fn traces() -> [(&'static str, Trace); 5] {
    [("healthy", healthy()), ("broken", broken()), ("published", published()), ("hostile", hostile()), ("mesh", mesh())]
}

fn uuid(text: &str) -> Uuid {
    text.parse().unwrap()
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn nets(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn netns(label: &str, inode: u64) -> NetnsRef {
    NetnsRef { id: NetnsId { inode, cookie: inode - 4_026_531_000 }, label: label.to_owned(), host: label == "host" }
}

fn host() -> NetnsRef {
    netns("host", 4_026_531_840)
}

fn stats(rx: (u64, u64), tx: (u64, u64)) -> LinkStats {
    let ((rx_packets, rx_bytes), (tx_packets, tx_bytes)) = (rx, tx);
    LinkStats { rx_packets, rx_bytes, tx_packets, tx_bytes, ..LinkStats::default() }
}

/// A hop that works and of which nothing more is known.
fn hop(kind: HopKind, name: &str) -> Hop {
    Hop {
        direction: Direction::Outward,
        number: 0,
        kind,
        name: name.to_owned(),
        netns: None,
        state: HopState::Ok,
        status: String::new(),
        mtu: None,
        mac: None,
        addresses: Vec::new(),
        counters: None,
        rules: Vec::new(),
        translation: None,
        note: String::new(),
        detail: Vec::new(),
        verify: Vec::new(),
    }
}

/// A device that is up.
fn device(kind: HopKind, name: &str, netns: NetnsRef, mtu: u32) -> Hop {
    Hop { netns: Some(netns), status: "UP".to_owned(), mtu: Some(mtu), ..hop(kind, name) }
}

/// Something with a status and a meaning.
fn thing(kind: HopKind, name: &str, netns: NetnsRef, (status, note): (&str, &str)) -> Hop {
    Hop { netns: Some(netns), status: status.to_owned(), note: note.to_owned(), ..hop(kind, name) }
}

/// Numbers the hops of both directions.
fn path(outward: Vec<Hop>, inward: Vec<Hop>) -> Vec<Hop> {
    let numbered = |direction, hops: Vec<Hop>| {
        hops.into_iter().enumerate().map(move |(place, hop)| Hop { direction, number: place + 1, ..hop })
    };
    numbered(Direction::Outward, outward).chain(numbered(Direction::Inward, inward)).collect()
}

/// An iptables rule of a nat table; the chain is the rule's own.
fn nat_rule(netns: &NetnsRef, number: usize, rule: &str, (packets, meaning): (u64, &str)) -> RuleRef {
    RuleRef {
        backend: RuleBackend::IptablesNft,
        netns: netns.clone(),
        table: "nat".to_owned(),
        chain: rule.split(' ').nth(1).unwrap_or_default().to_owned(),
        number,
        rule: rule.to_owned(),
        counters: RuleCounters { packets, bytes: packets * 84 },
        meaning: meaning.to_owned(),
    }
}

/// An interface of which nothing is known.
fn interface() -> InterfaceTrace {
    InterfaceTrace {
        port_id: None,
        mac: None,
        addresses: Vec::new(),
        netns: None,
        device: None,
        host_device: None,
        bridge: None,
        vlan_tag: None,
        network_id: None,
        network_name: None,
        network_type: None,
        physical_network: None,
        segmentation_id: None,
        router: None,
        dhcp: None,
        metadata: None,
        floating_ips: Vec::new(),
        published_ports: Vec::new(),
        enforcement: None,
        hops: Vec::new(),
    }
}

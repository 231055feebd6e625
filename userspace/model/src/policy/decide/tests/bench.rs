//! A port on a bench: frames in, reasons out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use netdiag_common::abi::{flow::Tick, reason::Reason};

use super::super::{
    super::types::{
        AddressGroup, AddressGroupId, Attached, Direction, Ethertype, GroupId, Hook, Mode, Policy, PortId, Remote,
        Rule, RuleId, SecurityGroup, Service,
    },
    Context, Frame, Judge, Judgement,
};
use crate::id::Mac;

pub(super) use Direction::{Egress, Ingress};
pub(super) use Ethertype::{IPv4 as V4, IPv6 as V6};

/// MAC address of the port, of its second address pair, and of somebody else.
pub(super) const OWN: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 5]);
pub(super) const PAIR: Mac = Mac([0, 0, 0x5e, 0, 1, 1]);
pub(super) const PEER: Mac = Mac([0xfa, 0x16, 0x3e, 0, 0, 9]);
pub(super) const OWN_LINK_LOCAL: &str = "fe80::f816:3eff:fe00:5";
pub(super) const PEER_LINK_LOCAL: &str = "fe80::f816:3eff:fe00:9";
pub(super) const PAIR_LINK_LOCAL: &str = "fe80::200:5eff:fe00:101";

pub(super) const SYN: u8 = 0x02;
pub(super) const SYN_ACK: u8 = 0x12;
pub(super) const ACK: u8 = 0x10;
pub(super) const FIN_ACK: u8 = 0x11;
pub(super) const RST: u8 = 0x04;

pub(super) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(super) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

/// A port in the group `web`, which has the rules given.
pub(super) struct Bench {
    pub(super) policy: Policy,
    pub(super) port: Attached,
    pub(super) judge: Judge,
    pub(super) now: Tick,
}

impl Bench {
    /// With the fixed addresses 10.0.0.5 and `fd00::5`, and two address pairs.
    pub(super) fn new(rules: impl IntoIterator<Item = Rule>) -> Self {
        let mut policy = Policy { permitted_ethertypes: BTreeSet::from([0x88cc]), ..Policy::default() };
        let id = GroupId("web".into());
        let rules = rules.into_iter().collect();
        let group = SecurityGroup { id: id.clone(), name: String::new(), stateful: true, rules };
        policy.groups.insert(id.clone(), group);
        let port = Attached {
            id: PortId("p".into()),
            ifindex: 7,
            hook: Hook::Tc,
            mac: OWN,
            fixed_ips: BTreeSet::from([ip("10.0.0.5"), ip("fd00::5")]),
            pairs: BTreeSet::from([(OWN, net("10.0.9.0/24")), (PAIR, net("10.0.0.100/32"))]),
            groups: vec![id],
            mode: Mode::Filtered,
            log_allowed: false,
        };
        Self { policy, port, judge: Judge::default(), now: u32::MAX - 5 }
    }

    /// Everything is allowed, both ways.
    pub(super) fn open() -> Self {
        let any = |name: &str, direction, family| rule(name, direction, family, Service::Any, Remote::Any);
        Self::new([
            any("egress4", Egress, V4),
            any("egress6", Egress, V6),
            any("ingress4", Ingress, V4),
            any("ingress6", Ingress, V6),
        ])
    }

    pub(super) fn stateless(mut self) -> Self {
        self.group().stateful = false;
        self
    }

    pub(super) fn group(&mut self) -> &mut SecurityGroup {
        self.policy.groups.get_mut(&GroupId("web".into())).unwrap()
    }

    pub(super) fn with_members(mut self, group: &str, members: &[&str]) -> Self {
        let id = GroupId(group.into());
        self.policy.members.insert(id.clone(), members.iter().map(|member| net(member)).collect());
        let group = SecurityGroup { id: id.clone(), name: String::new(), stateful: true, rules: Vec::new() };
        self.policy.groups.entry(id).or_insert(group);
        self
    }

    pub(super) fn with_address_group(mut self, group: &str, addresses: &[&str]) -> Self {
        let id = AddressGroupId(group.into());
        let addresses = addresses.iter().map(|address| net(address)).collect();
        self.policy.address_groups.insert(id.clone(), AddressGroup { id, name: String::new(), addresses });
        self
    }

    pub(super) fn pass_time(&mut self, ticks: Tick) {
        self.now = self.now.wrapping_add(ticks);
    }

    pub(super) fn judge(&mut self, direction: Direction, bytes: &[u8]) -> Judgement {
        self.judge_frame(direction, bytes, false)
    }

    pub(super) fn judge_frame(&mut self, direction: Direction, bytes: &[u8], vlan_beside: bool) -> Judgement {
        let found = BTreeMap::new();
        let ids = self.policy.groups.keys();
        let members = ids.map(|id| (id.clone(), self.policy.members_of(id, &found))).collect();
        let context = Context { policy: &self.policy, members: &members, port: &self.port };
        self.judge.judge(&context, &Frame { bytes, vlan_beside, direction, now: self.now })
    }

    pub(super) fn egress(&mut self, bytes: &[u8]) -> Reason {
        self.judge(Egress, bytes).reason
    }

    pub(super) fn ingress(&mut self, bytes: &[u8]) -> Reason {
        self.judge(Ingress, bytes).reason
    }

    /// Frames in turn, each with the reason it must meet.
    pub(super) fn run(&mut self, steps: &[(Direction, Vec<u8>, Reason)]) {
        for (place, (direction, bytes, reason)) in steps.iter().enumerate() {
            assert_eq!(self.judge(*direction, bytes).reason, *reason, "step {place}");
        }
    }
}

pub(super) fn rule(id: &str, direction: Direction, ethertype: Ethertype, service: Service, remote: Remote) -> Rule {
    Rule { id: RuleId(id.into()), direction, ethertype, service, remote, description: String::new() }
}

/// Lets everybody in to a TCP port.
pub(super) fn tcp_in(port: u16) -> Rule {
    rule(&format!("tcp{port}"), Ingress, V4, ports(6, port, port), Remote::Any)
}

/// Lets the instance out with everything.
pub(super) fn any_out(family: Ethertype) -> Rule {
    rule("out", Egress, family, Service::Any, Remote::Any)
}

pub(super) fn ports(protocol: u8, first: u16, last: u16) -> Service {
    Service::Ports { protocol, first, last }
}

pub(super) fn group(id: &str) -> Remote {
    Remote::Group(GroupId(id.into()))
}

pub(super) fn ethernet(source: Mac, ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xff; 6];
    bytes.extend(source.0);
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A frame with an IP packet, of the family of its source.
pub(super) fn packet(mac: Mac, source: &str, destination: &str, (protocol, payload): (u8, Vec<u8>)) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap();
    match (ip(source), ip(destination)) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let mut bytes = vec![0x45, 0, 0, 0, 0, 7, 0, 0, 64, protocol, 0, 0];
            bytes[2..4].copy_from_slice(&(length + 20).to_be_bytes());
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(payload);
            ethernet(mac, 0x0800, &bytes)
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let mut bytes = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
            bytes[4..6].copy_from_slice(&length.to_be_bytes());
            bytes.extend(source.octets());
            bytes.extend(destination.octets());
            bytes.extend(payload);
            ethernet(mac, 0x86dd, &bytes)
        }
        _ => panic!("two families"),
    }
}

/// The IP packet within a frame.
pub(super) fn inner(frame: &[u8]) -> Vec<u8> {
    frame[14..].to_vec()
}

pub(super) fn tcp(source: u16, destination: u16, flags: u8) -> (u8, Vec<u8>) {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 4, 0, 0, 0, 0, 0]);
    (6, bytes)
}

pub(super) fn udp(source: u16, destination: u16) -> (u8, Vec<u8>) {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend([0, 12, 0, 0, 1, 2, 3, 4]);
    (17, bytes)
}

/// SCTP, DCCP, UDP-Lite.
pub(super) fn with_ports(protocol: u8, source: u16, destination: u16) -> (u8, Vec<u8>) {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.resize(16, 0);
    (protocol, bytes)
}

pub(super) fn icmp(kind: u8, code: u8, identifier: u16) -> (u8, Vec<u8>) {
    let [high, low] = identifier.to_be_bytes();
    (1, vec![kind, code, 0, 0, high, low, 0, 1])
}

pub(super) fn icmpv6(kind: u8, code: u8, identifier: u16) -> (u8, Vec<u8>) {
    (58, icmp(kind, code, identifier).1)
}

/// Neighbour solicitation or advertisement.
pub(super) fn nd(kind: u8, target: &str) -> (u8, Vec<u8>) {
    let (protocol, mut bytes) = icmpv6(kind, 0, 0);
    if let IpAddr::V6(target) = ip(target) {
        bytes.extend(target.octets());
    }
    (protocol, bytes)
}

/// An ICMP error that quotes a packet.
pub(super) fn error(protocol: u8, kind: u8, quoted: &[u8]) -> (u8, Vec<u8>) {
    let mut bytes = vec![kind, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(quoted);
    (protocol, bytes)
}

pub(super) fn arp(sender: Mac, address: &str) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, 1];
    bytes.extend(sender.0);
    if let IpAddr::V4(address) = ip(address) {
        bytes.extend(address.octets());
    }
    bytes.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    bytes
}

/// From the instance to 10.0.0.9.
pub(super) fn out4(content: (u8, Vec<u8>)) -> Vec<u8> {
    packet(OWN, "10.0.0.5", "10.0.0.9", content)
}

/// From 10.0.0.9 to the instance.
pub(super) fn in4(content: (u8, Vec<u8>)) -> Vec<u8> {
    packet(PEER, "10.0.0.9", "10.0.0.5", content)
}

/// From the instance to `fd00::9`.
pub(super) fn out6(content: (u8, Vec<u8>)) -> Vec<u8> {
    packet(OWN, "fd00::5", "fd00::9", content)
}

/// From `fd00::9` to the instance.
pub(super) fn in6(content: (u8, Vec<u8>)) -> Vec<u8> {
    packet(PEER, "fd00::9", "fd00::5", content)
}

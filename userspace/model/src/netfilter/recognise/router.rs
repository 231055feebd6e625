//! Source NAT, metadata, address scopes and port forwardings of Neutron's routers. Flow: explain.

use std::net::IpAddr;

use super::{RuleAt, host, named, neutron::agent_rules, rules, whole};
use crate::netfilter::{PortRange, Rule, StateName, Table, Target, Test};

/// Source NAT to the router's own address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewaySnat {
    /// The device packets leave by.
    pub device: String,
    /// The address they leave as.
    pub address: IpAddr,
    /// The rule.
    pub rule: RuleAt,
    /// The rule that sends packets from inside to a floating IP back through the router.
    pub hairpin: Option<RuleAt>,
}

/// Source NAT to the gateway's address, one per external device; none on routers with it switched off.
pub fn gateway_snat(tables: &[Table]) -> Vec<GatewaySnat> {
    let all = agent_rules(tables, "nat", "snat");
    let to = |rule: &Rule| if let Target::Snat(to) = &rule.target { whole(rule, to) } else { None };
    all.iter()
        .filter_map(|(at, rule)| {
            let (address, device) = (to(rule)?, leaves_by(rule)?);
            let hairpin = all.iter().find(|(_, other)| to(other) == Some(address) && is_dnatted(other, false));
            Some(GatewaySnat { device, address, rule: at.clone(), hairpin: hairpin.map(|(at, _)| at.clone()) })
        })
        .collect()
}

/// The rule that keeps what does not leave by the external device from being translated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// The external device: `qg-`, `rfp-`.
    pub device: String,
    /// The rule.
    pub rule: RuleAt,
}

/// `! -o qg-X -m conntrack ! --ctstate DNAT -j ACCEPT`; before 2019 with `! -i qg-X` as well.
pub fn guard(tables: &[Table]) -> Vec<Guard> {
    agent_rules(tables, "nat", "POSTROUTING")
        .into_iter()
        .filter_map(|(at, rule)| Some(Guard { device: guarded_device(rule)?, rule: at }))
        .collect()
}

pub(super) fn guarded_device(rule: &Rule) -> Option<String> {
    match rule.out_device() {
        Some((true, pattern)) if rule.target == Target::Accept && is_dnatted(rule, true) => {
            pattern.exact().map(str::to_owned)
        }
        _ => None,
    }
}

/// Whether the rule is for translated flows (or, with `not`, for the others).
pub(super) fn is_dnatted(rule: &Rule, not: bool) -> bool {
    let states = rule.find(|test| if let Test::States(names) = test { Some(names.as_slice()) } else { None });
    states == Some((not, &[StateName::Dnat]))
}

/// The one device a rule is for packets leaving by.
pub(super) fn leaves_by(rule: &Rule) -> Option<String> {
    match rule.out_device() {
        Some((false, pattern)) => pattern.exact().map(str::to_owned),
        _ => None,
    }
}

/// Requests to the metadata address, sent to the proxy in the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRedirect {
    /// 169.254.169.254 or `fe80::a9fe:a9fe`.
    pub address: IpAddr,
    /// Devices they come by: `qr-+`.
    pub devices: Option<String>,
    /// The proxy's port.
    pub port: u16,
    /// The rule.
    pub rule: RuleAt,
}

/// `-d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9697`.
pub fn metadata_redirects(tables: &[Table]) -> Vec<MetadataRedirect> {
    agent_rules(tables, "nat", "PREROUTING")
        .into_iter()
        .filter_map(|(at, rule)| {
            let (address, port) = metadata(rule)?;
            let devices = rule.in_device().map(|(_, pattern)| pattern.to_string());
            Some(MetadataRedirect { address, devices, port, rule: at })
        })
        .collect()
}

pub(super) fn metadata(rule: &Rule) -> Option<(IpAddr, u16)> {
    let Target::Redirect(to) = &rule.target else { return None };
    let address = host(rule.destination()?)?;
    is_metadata(address).then_some((address, to.ports?.range.first))
}

/// The addresses cloud-init asks, fixed by convention.
pub(super) fn is_metadata(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.octets() == [169, 254, 169, 254],
        IpAddr::V6(six) => six.segments() == [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe],
    }
}

/// What a router does with the address scope of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressScope {
    /// The device.
    pub device: String,
    /// The scope, as it stands in the mark.
    pub value: u32,
    /// Which bits of the mark hold it.
    pub mask: u32,
    /// Drops what leaves by the device with another scope; else marks what comes by it.
    pub drops: bool,
    /// The rule.
    pub rule: RuleAt,
}

/// The rules that mark packets with the scope they come from, and those that drop at a scope's border.
pub fn address_scopes(tables: &[Table]) -> Vec<AddressScope> {
    let marks = agent_rules(tables, "mangle", "scope").into_iter().filter_map(|(at, rule)| {
        let (Target::Mark { value, mask }, Some((false, pattern))) = (&rule.target, rule.in_device()) else {
            return None;
        };
        let device = pattern.exact()?.to_owned();
        Some(AddressScope { device, value: *value, mask: *mask, drops: false, rule: at })
    });
    let borders = agent_rules(tables, "filter", "scope").into_iter().filter_map(|(at, rule)| {
        let (true, (value, mask)) = mark_of(rule)? else { return None };
        let device = leaves_by(rule).filter(|_| rule.target == Target::Drop)?;
        Some(AddressScope { device, value, mask, drops: true, rule: at })
    });
    marks.chain(borders).collect()
}

/// The mark a rule asks for, with whether that is negated.
pub(super) fn mark_of(rule: &Rule) -> Option<(bool, (u32, u32))> {
    rule.find(|test| if let Test::Mark { value, mask } = test { Some((*value, *mask)) } else { None })
}

/// One port, or range, of a floating IP that leads to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortForwarding {
    /// The address outside.
    pub floating: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The ports outside.
    pub ports: PortRange,
    /// The instance's address.
    pub fixed: IpAddr,
    /// The instance's ports; the same where none.
    pub to: Option<PortRange>,
    /// The rule.
    pub rule: RuleAt,
}

/// Port forwardings: the chains `pf-…` that `fip-pf` jumps to.
pub fn port_forwardings(tables: &[Table]) -> Vec<PortForwarding> {
    let mut found = Vec::new();
    for (_, jump) in agent_rules(tables, "nat", "fip-pf") {
        let Target::Jump(chain) = &jump.target else { continue };
        for table in named(tables, "nat") {
            let forwarded = rules(table, chain).iter().filter_map(|rule| {
                let (floating, fixed, to) = forwarding(rule)?;
                let (protocol, ports) = (rule.protocol()?, rule.destination_ports()?);
                Some(PortForwarding { floating, protocol, ports, fixed, to, rule: RuleAt::new(table, chain, rule) })
            });
            found.extend(forwarded);
        }
    }
    found
}

fn forwarding(rule: &Rule) -> Option<(IpAddr, IpAddr, Option<PortRange>)> {
    let Target::Dnat(to) = &rule.target else { return None };
    Some((host(rule.destination()?)?, to.address()?, to.ports.map(|ports| ports.range)))
}

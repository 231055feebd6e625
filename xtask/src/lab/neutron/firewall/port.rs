//! The chains of one filtered port.

use std::fmt::{self, Write as _};

use super::{Family, tables::comment};
use crate::lab::{
    inventory::{
        Inventory, Port,
        security::{Direction, Ethertype, Peer, PortChains, SecurityGroup, SecurityRule, Traffic},
    },
    neutron::security::PREFIX,
};

const DHCP_CLIENT: &str = "Allow DHCP client traffic.";
const DHCP_SERVER: &str = "Prevent DHCP Spoofing by VM.";
const PAIR: &str = "Allow traffic from defined IP/MAC pairs.";
const NO_PAIR: &str = "Drop traffic without an IP/MAC allow rule.";
const ICMP6: &str = "Allow IPv6 ICMP traffic.";
const ADVERTISEMENT: &str = "Drop IPv6 Router Advts from VM Instance.";
const KNOWN: &str = "Direct packets associated with a known session to the RETURN chain.";
const INVALID: &str = "Drop packets that appear related to an existing connection (e.g. TCP ACK/FIN) but do not have an \
                       entry in conntrack.";
const FALLBACK: &str = "Send unmatched traffic to the fallback chain.";

/// The rules of a port's chains, without `-A <chain>`.
pub(super) struct Chains<'a> {
    names: &'a PortChains,
    ingress: Vec<String>,
    egress: Vec<String>,
    /// Empty in the IPv6 tables: the example's ports have IPv4 addresses alone.
    spoof: Vec<String>,
}

impl<'a> Chains<'a> {
    /// `None` for a port that is not filtered.
    pub(super) fn of(lab: &Inventory, port: &'a Port, (family, sets): (Family, bool)) -> Option<Self> {
        let names = port.security.as_ref()?.chains.as_ref()?;
        let groups = Groups { lab, port, family, sets };
        let (mut ingress, mut egress, mut spoof) = (Vec::new(), Vec::new(), Vec::new());
        match family {
            Family::V4 => {
                spoof = pairs(port);
                egress.extend(egress_v4(&names.spoof));
            }
            Family::V6 => {
                ingress.extend([130, 135, 136].map(|kind| format!("{} -j RETURN", icmp6(kind))));
                egress.extend(egress_v6());
            }
        }
        ingress.extend(groups.tail(Direction::Ingress));
        egress.extend(groups.tail(Direction::Egress));
        Some(Self { names, ingress, egress, spoof })
    }

    fn each(&self) -> [(&str, &[String]); 3] {
        let PortChains { ingress, egress, spoof } = self.names;
        [(ingress, &self.ingress), (egress, &self.egress), (spoof, &self.spoof)]
            .map(|(name, rules)| (name.as_str(), rules.as_slice()))
    }

    /// Names of the chains that have rules.
    pub(super) fn names(&self) -> Vec<&str> {
        self.each().into_iter().filter(|(_, rules)| !rules.is_empty()).map(|(name, _)| name).collect()
    }

    pub(super) fn write(&self, text: &mut String) -> fmt::Result {
        for (name, rules) in self.each() {
            rules.iter().try_for_each(|rule| writeln!(text, "-A {name} {rule}"))?;
        }
        Ok(())
    }
}

/// The pairs of address and MAC address a port may send with.
fn pairs(port: &Port) -> Vec<String> {
    let mac = port.mac.to_uppercase();
    vec![
        format!("-s {}/32 -m mac --mac-source {mac} {} -j RETURN", port.address.address, comment(PAIR)),
        format!("{} -j DROP", comment(NO_PAIR)),
    ]
}

/// What precedes the groups' rules on the way out: a client of DHCP, from its own address, and no server of it.
fn egress_v4(spoof: &str) -> Vec<String> {
    let client = comment(DHCP_CLIENT);
    vec![
        format!("-s 0.0.0.0/32 -d 255.255.255.255/32 -p udp -m udp --sport 68 --dport 67 {client} -j RETURN"),
        format!("-j {spoof}"),
        format!("-p udp -m udp --sport 68 --dport 67 {client} -j RETURN"),
        format!("-p udp -m udp --sport 67 --dport 68 {} -j DROP", comment(DHCP_SERVER)),
    ]
}

/// The same for IPv6, where neighbours are found by ICMP; routers it may not claim to be.
fn egress_v6() -> Vec<String> {
    let unspecified = |kind| format!("-s ::/128 -d ff02::/16 {} {} -j RETURN", icmp6(kind), comment(ICMP6));
    let mut rules: Vec<_> = [131, 135, 143].map(unspecified).into();
    rules.extend([
        format!("{} {} -j DROP", icmp6(134), comment(ADVERTISEMENT)),
        format!("-p ipv6-icmp {} -j RETURN", comment(ICMP6)),
        format!("-p udp -m udp --sport 546 --dport 547 {} -j RETURN", comment(DHCP_CLIENT)),
        format!("-p udp -m udp --sport 547 --dport 546 {} -j DROP", comment(DHCP_SERVER)),
    ]);
    rules
}

fn icmp6(kind: u8) -> String {
    format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind}")
}

/// What turns a port's security groups into rules.
struct Groups<'a> {
    lab: &'a Inventory,
    port: &'a Port,
    family: Family,
    sets: bool,
}

impl Groups<'_> {
    /// Known connections, the rules of the network and of the groups, and the end of whatever none of them allowed.
    fn tail(&self, direction: Direction) -> Vec<String> {
        let mut rules = vec![format!("-m state --state RELATED,ESTABLISHED {} -j RETURN", comment(KNOWN))];
        if (direction, self.family) == (Direction::Ingress, Family::V4) {
            let address = self.port.address.address;
            let to = |address| format!("-d {address}/32 -p udp -m udp --sport 67 --dport 68 -j RETURN");
            rules.extend([to(address), to([255; 4].into())]);
        }
        for allowed in self.rules(direction).flat_map(|rule| self.matches(rule)) {
            let rule = format!("{allowed}-j RETURN");
            // Two groups of a port may allow the same.
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        rules.push(format!("-m state --state INVALID {} -j DROP", comment(INVALID)));
        rules.push(format!("{} -j {PREFIX}-sg-fallback", comment(FALLBACK)));
        rules
    }

    fn rules(&self, direction: Direction) -> impl Iterator<Item = &SecurityRule> {
        let ethertype = match self.family {
            Family::V4 => Ethertype::V4,
            Family::V6 => Ethertype::V6,
        };
        let groups = self.port.security.iter().flat_map(|security| &security.groups);
        let rules = groups.filter_map(|id| self.lab.security_group(id)).flat_map(|group| &group.rules);
        rules.filter(move |rule| rule.direction == direction && rule.ethertype == ethertype)
    }

    /// The conditions of a rule, each ending in a blank if it is not empty; several for a remote group without a set.
    fn matches(&self, rule: &SecurityRule) -> Vec<String> {
        let traffic = traffic(rule.traffic);
        let (side, place) = match rule.direction {
            Direction::Ingress => ("-s", "src"),
            Direction::Egress => ("-d", "dst"),
        };
        match &rule.peer {
            Peer::Any => vec![traffic],
            Peer::Prefix(prefix) => vec![format!("{side} {prefix} {traffic}")],
            // The members of the example have no IPv6 addresses, and a rule about a set that is not there is left out.
            Peer::Group(_) if self.family == Family::V6 => Vec::new(),
            Peer::Group(id) if self.sets => {
                let set = self.lab.security_group(id).map(SecurityGroup::set);
                set.map(|set| format!("{traffic}-m set --match-set {set} {place} ")).into_iter().collect()
            }
            Peer::Group(id) => {
                let others = self.lab.group_members(id).into_iter().filter(|ip| *ip != self.port.address.address);
                others.map(|member| format!("{side} {member}/32 {traffic}")).collect()
            }
        }
    }
}

fn traffic(traffic: Traffic) -> String {
    match traffic {
        Traffic::Any => String::new(),
        Traffic::Tcp { min, max } if min == max => format!("-p tcp -m tcp --dport {min} "),
        Traffic::Tcp { min, max } => format!("-p tcp -m tcp -m multiport --dports {min}:{max} "),
        Traffic::Icmp { kind: None, .. } => "-p icmp ".into(),
        Traffic::Icmp { kind: Some(kind), code: None } => format!("-p icmp -m icmp --icmp-type {kind} "),
        Traffic::Icmp { kind: Some(kind), code: Some(code) } => format!("-p icmp -m icmp --icmp-type {kind}/{code} "),
    }
}

#[cfg(test)]
mod tests {
    use super::{Chains, Family};
    use crate::lab::{
        inventory::{Inventory, Profile},
        profile,
        spec::Spec,
    };

    fn ingress(name: &str, sets: bool) -> Vec<String> {
        let spec = Spec { name: "lab".into(), profile: Profile::Hybrid, instances: 0, no_docker: false };
        let lab: Inventory = profile::plan(&spec);
        let instance = lab.instances.iter().find(|instance| instance.display_name == name).unwrap();
        Chains::of(&lab, &instance.ports[0], (Family::V4, sets)).unwrap().ingress
    }

    #[test]
    fn remote_group_is_one_set_or_one_rule_for_each_other_member() {
        let with_sets = ingress("web-1", true);
        assert_eq!(with_sets.iter().filter(|rule| rule.contains("-m set --match-set NIPv4")).count(), 1);
        let without: Vec<_> =
            ingress("web-1", false).into_iter().filter(|rule| rule.starts_with("-s 10.0.0.")).collect();
        assert_eq!(without, ["-s 10.0.0.5/32 -j RETURN", "-s 10.0.0.6/32 -j RETURN"]);
    }

    #[test]
    fn port_without_rules_lets_nothing_in_but_answers_and_dhcp() {
        let rules = ingress("web-2", true);
        let allowed: Vec<_> = rules.iter().filter(|rule| rule.ends_with("-j RETURN")).collect();
        assert_eq!(allowed.len(), 3);
        assert!(allowed[0].contains("RELATED,ESTABLISHED"));
        assert!(allowed[1..].iter().all(|rule| rule.contains("--sport 67 --dport 68")));
        assert!(rules.last().unwrap().ends_with("-j neutron-openvswi-sg-fallback"));
    }
}

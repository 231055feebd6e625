//! Address translation of a card: its floating IPs, in whichever namespace translates for its network.

use std::net::IpAddr;

use super::{Inventory, Nic, Role};
use crate::{
    fact::PublishedPort,
    id::NetnsId,
    netfilter::{
        Ruleset, Table,
        recognise::{self, RuleAt},
    },
    trace::RuleRef,
};

/// A floating IP as the rules of one namespace make it. Each half may be missing.
#[derive(Clone, Debug)]
pub struct Floating {
    /// Namespace whose rules make it.
    pub netns: NetnsId,
    /// The address the outside knows.
    pub address: IpAddr,
    /// The address it stands for.
    pub fixed: IpAddr,
    /// The rule for what comes in.
    pub dnat: Option<RuleRef>,
    /// The rule for what the router itself sends.
    pub output: Option<RuleRef>,
    /// The rule for what goes out.
    pub snat: Option<RuleRef>,
}

impl<'a> Inventory<'a> {
    /// Packet filter rules of a namespace.
    pub fn rulesets(&self, netns: NetnsId) -> &[Ruleset] {
        self.rulesets.get(&netns).map_or(&[][..], Vec::as_slice)
    }

    /// Floating IPs of a card: those its own network's routers translate to one of its addresses. A fixed address alone
    /// would not do, as tenants use the same ones.
    pub fn floating_ips(&self, nic: &Nic<'a>) -> Vec<Floating> {
        let mut found: Vec<Floating> = Vec::new();
        // The host's own, where netdiag has made it a router.
        let host = self.host.filter(|_| nic.port.is_none());
        for netns in self.translators(nic).into_iter().chain(host) {
            for ruleset in self.rulesets(netns) {
                for rules in recognise::floating_ips(&ruleset.tables) {
                    if nic.addresses.iter().any(|net| net.addr() == rules.fixed) {
                        let at =
                            |at: &Option<RuleAt>, meaning: String| self.rule_at(netns, ruleset, at.as_ref()?, meaning);
                        found.push(Floating {
                            netns,
                            address: rules.floating,
                            fixed: rules.fixed,
                            dnat: at(&rules.dnat, format!("what comes for {} goes to {}", rules.floating, rules.fixed)),
                            output: at(&rules.output, format!("the router itself reaches {} too", rules.floating)),
                            snat: at(&rules.snat, format!("what {} sends leaves as {}", rules.fixed, rules.floating)),
                        });
                    }
                }
            }
        }
        found
    }

    /// Ports of floating IPs that a card's routers lead to it (the `port_forwarding` extension of Neutron's L3 agent). Of a
    /// range the first port is given; the rule says the whole.
    pub fn port_forwardings(&self, nic: &Nic<'a>) -> Vec<(NetnsId, PublishedPort, RuleRef)> {
        let mut found = Vec::new();
        for netns in self.translators(nic) {
            for ruleset in self.rulesets(netns) {
                for forwarding in recognise::port_forwardings(&ruleset.tables) {
                    if !nic.addresses.iter().any(|net| net.addr() == forwarding.fixed) {
                        continue;
                    }
                    let protocol = match forwarding.protocol {
                        17 => "udp",
                        132 => "sctp",
                        _ => "tcp",
                    };
                    let port = PublishedPort {
                        protocol: protocol.to_owned(),
                        host_address: forwarding.floating,
                        host_port: forwarding.ports.first,
                        container_port: forwarding.to.unwrap_or(forwarding.ports).first,
                    };
                    let meaning = format!("port forwarding of {} to {}", forwarding.floating, forwarding.fixed);
                    found.extend(
                        self.rule_at(netns, ruleset, &forwarding.rule, meaning).map(|rule| (netns, port, rule)),
                    );
                }
            }
        }
        found
    }

    /// Fixed addresses that a floating IP stands for by the rules of any router of this host, whichever instance's.
    pub fn behind_floating_ip(&self, address: IpAddr) -> Vec<IpAddr> {
        let neutron = self.roles().filter(|(_, role)| role.is_neutron() || **role == Role::Host);
        let rulesets = neutron.flat_map(|(netns, _)| self.rulesets(netns));
        let mut fixed: Vec<IpAddr> = rulesets
            .flat_map(|ruleset| recognise::floating_ips(&ruleset.tables))
            .filter(|rules| rules.floating == address)
            .map(|rules| rules.fixed)
            .collect();
        fixed.sort();
        fixed.dedup();
        fixed
    }

    fn rule_at(&self, netns: NetnsId, ruleset: &Ruleset, at: &RuleAt, meaning: String) -> Option<RuleRef> {
        let tables: &[Table] = &ruleset.tables;
        let rule = at.rule(tables)?;
        Some(RuleRef {
            backend: ruleset.backend,
            netns: self.netns(netns),
            table: at.table.clone(),
            chain: at.chain.clone(),
            number: at.number as usize,
            rule: rule.raw.clone(),
            counters: rule.counters,
            meaning,
        })
    }
}

//! Who made a chain, what a rule is for, and the NAT facts the tables hold. Flow: explain.
//!
//! Neutron's agents put the start of their process name before every chain (`neutron-l3-agent-PREROUTING`, cut to 16
//! characters); that prefix is found from the jumps of the built-in chains and never assumed.
//! Everything found carries the place of its rule, so that an answer can name it with its counters.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{NatTo, Rule, Table};

/// Docker: published ports, masquerading, closed direct access.
pub mod docker;
/// What a rule is for, in a few words.
mod meaning;
/// Neutron's agents and floating IPs.
pub mod neutron;
/// Who made a chain.
mod owner;
/// The other rules of Neutron's routers.
pub mod router;
/// Neutron's security groups on hybrid ports.
pub mod security_group;

pub use docker::{DirectAccessDrop, Masquerade, Publication, direct_access_drops, masquerades, publications};
pub use meaning::meaning;
pub use neutron::{FloatingIpRules, floating_ips, prefixes};
pub use owner::{Owner, owner};
pub use router::{
    AddressScope, GatewaySnat, Guard, MetadataRedirect, PortForwarding, address_scopes, gateway_snat, guard,
    metadata_redirects, port_forwardings,
};
pub use security_group::{HybridPort, PortClass, hybrid_ports};

/// The place of a rule in the tables of one rule set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleAt {
    /// Table.
    pub table: String,
    /// Chain.
    pub chain: String,
    /// Number in the chain, from 1.
    pub number: u32,
}

impl RuleAt {
    fn new(table: &Table, chain: &str, rule: &Rule) -> Self {
        Self { table: table.name.clone(), chain: chain.to_owned(), number: rule.number }
    }

    /// The rule, in the tables it was found in.
    pub fn rule<'a>(&self, tables: &'a [Table]) -> Option<&'a Rule> {
        let place = usize::try_from(self.number).ok()?.checked_sub(1)?;
        tables
            .iter()
            .filter(|table| table.name == self.table)
            .find_map(|table| table.chain(&self.chain)?.rules.get(place))
    }
}

/// The rules of a chain, none where there is no such chain.
fn rules<'a>(table: &'a Table, chain: &str) -> &'a [Rule] {
    table.chain(chain).map_or(&[], |chain| &chain.rules)
}

/// The tables of a name.
fn named<'a>(tables: &'a [Table], name: &str) -> impl Iterator<Item = &'a Table> {
    tables.iter().filter(move |table| table.name == name)
}

/// The address of a /32 or /128.
fn host(net: IpNet) -> Option<IpAddr> {
    (net.prefix_len() == net.max_prefix_len()).then(|| net.addr())
}

/// The address a rule translates to, where it translates the whole address: all protocols, all ports.
fn whole(rule: &Rule, to: &NatTo) -> Option<IpAddr> {
    to.address().filter(|_| to.ports.is_none() && rule.protocol().is_none())
}

#[cfg(test)]
mod tests;

//! iptables and nftables rules: parsed, recognised and walked. Flow: explain.
//!
//! Three steps, each of its own: `Ruleset::read` turns what `iptables-save -c` or `nft -j list ruleset` printed into
//! `Table`s and keeps what it does not know as raw text; `recognise` names the chains Neutron, Docker and others
//! made; `walk` follows one packet through one hook in the kernel's order. Matching is three-valued: a match that is
//! not understood, or a field of the packet that is not known, makes the answer "unknown", never "no".
//!
//! Nothing here reads a file or starts a tool, and nothing panics, whatever the text.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fact::RuleBackend;

/// One rule against one packet: yes, no or unknown.
mod matching;
/// `nft -j list ruleset`.
pub mod nft;
/// The packet that is walked, field by field known or not.
pub mod packet;
/// `iptables-save -c`.
pub mod parse;
/// Who made a chain, what a rule is for, and the NAT facts in the tables.
pub mod recognise;
/// Tables, chains, rules.
pub mod rule;
/// ipsets.
pub mod sets;
/// One packet through one hook.
pub mod walk;

pub use packet::{Address, Bits, CtState, Icmp, Known, Packet};
pub use parse::{ParseProblem, parse};
pub use rule::{
    AddressKind, AddressRange, BaseChain, Chain, ChainKind, ChainPolicy, ConnmarkOp, DevicePattern, Family, Hook,
    Match, NatPorts, NatTo, PortRange, PortSide, Rule, StateName, Table, Target, Test,
};
pub use sets::Sets;
pub use walk::{Effect, Layer, Outcome, Step, Walk, walk, walk_layer};

/// Packets and bytes a rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The rules of one namespace in one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Who holds them.
    pub backend: RuleBackend,
    /// IPv6 rules; has no meaning for [`RuleBackend::Nft`], whose tables carry their own family.
    pub ipv6: bool,
    /// The tables, in the order they were printed.
    pub tables: Vec<Table>,
}

impl Ruleset {
    /// Parses what the backend's own tool printed. What could not be read is in the second half, never lost silently.
    pub fn read(backend: RuleBackend, ipv6: bool, text: &str) -> (Self, Vec<ParseProblem>) {
        let (tables, problems) = match backend {
            RuleBackend::IptablesLegacy | RuleBackend::IptablesNft => parse(text),
            RuleBackend::Nft => nft::parse(text),
        };
        (Self { backend, ipv6, tables }, problems)
    }

    /// Gives the rules that ask for sets the members of those that are known.
    pub fn fill(&mut self, sets: &Sets) {
        let rules = self.tables.iter_mut().flat_map(Table::rules_mut);
        for test in rules.flat_map(|rule| &mut rule.matches).map(|one| &mut one.test) {
            if let Test::Set { name, members, .. } = test {
                *members = sets.get(name).cloned().map(Arc::new);
            }
        }
    }

    /// Whether no rule and no policy of it does anything.
    pub fn is_empty(&self) -> bool {
        let mut chains = self.tables.iter().flat_map(Table::chains);
        chains.all(|chain| chain.rules.is_empty() && chain.policy != Some(ChainPolicy::Drop))
    }

    /// A table by name; of nftables tables of one name in several families, the first.
    pub fn table(&self, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.name == name)
    }
}

//! Which network card netdiag's own security groups hold at. Flow: explain.

use super::{Inventory, Nic};
use crate::{
    fact::{
        ProgramFact, SourceKind,
        enforcement::{EnforcedPort, RefusedPort},
    },
    id::{IfIndex, LinkKey},
    live,
};

/// netdiag's own programs.
const OWN: [&str; 6] =
    ["from_instance", "to_instance", "from_instance_xdp", "from_external", "from_host", "from_external_xdp"];

/// Longest name of a program that the kernel keeps (`BPF_OBJ_NAME_LEN` less the end).
const NAME: usize = 15;

/// What netdiag enforces at a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement<'a> {
    /// Nothing of netdiag is loaded on this host.
    Absent,
    /// Whether something is loaded could not be read.
    Unknown,
    /// Nothing: other ports of this host are enforced.
    Unmanaged,
    /// Nothing, although it is asked for: no hook can hold here.
    Refused(&'a RefusedPort),
    /// The port it is.
    Port(&'a EnforcedPort),
}

impl<'a> Inventory<'a> {
    /// Programs and filters at a device that are none of netdiag's: neither enforce nor watch for a while.
    pub fn foreign_programs(&self, device: LinkKey) -> impl Iterator<Item = &'a ProgramFact> {
        let own =
            |name: &str| OWN.iter().chain(&live::PROGRAMS).any(|own| *own == name || own.get(..NAME) == Some(name));
        self.programs(device).filter(move |program| !own(&program.name))
    }

    /// What netdiag enforces at a card: by the host's device, or by the port's id where that is not known.
    pub fn enforcement(&self, nic: &Nic<'_>) -> Enforcement<'a> {
        let facts = &self.snapshot.facts;
        let Some(loaded) = &facts.enforcement else {
            let mut gaps = facts.gaps();
            let unread = gaps.any(|gap| gap.source == SourceKind::Enforcement && !gap.absent);
            return if unread { Enforcement::Unknown } else { Enforcement::Absent };
        };
        let ifindex = nic.outer.filter(|outer| Some(outer.netns) == self.host).map(|outer| outer.ifindex);
        let is_it = |found: Option<IfIndex>, port_id: &str| match (ifindex, found) {
            (Some(own), Some(found)) => own == found,
            (None, _) | (_, None) => nic.port_id.as_ref().is_some_and(|id| id.as_str() == port_id),
        };
        let port = loaded.ports.iter().find(|port| is_it(Some(port.ifindex), &port.port_id));
        let refused = || loaded.refused.iter().find(|port| is_it(port.ifindex, &port.port_id));
        port.map(Enforcement::Port).or_else(|| refused().map(Enforcement::Refused)).unwrap_or(Enforcement::Unmanaged)
    }
}

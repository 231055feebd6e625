//! Random policies, and random frames aimed at them, so that evaluators can be held against each other. Flow: policy.
//!
//! A `Scenario` is a world and the steps that happen to it, all of it decided by a seed. Frames are not noise: most of
//! them belong to conversations that the policy allows, and what is wrong with the others is one thing at a time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use ipnet::IpNet;
use netdiag_common::abi::flow::Tick;
use netdiag_model::policy::types::{Attached, Direction, GroupId, Policy, PortId};

/// Headers to bytes.
pub(crate) mod bytes;
/// What goes wrong with a frame on its way.
mod damage;
/// Random numbers.
pub(crate) mod dice;
/// The steps of a scenario.
mod script;
/// A scenario cut down to what matters.
mod shrink;
/// ARP, DHCP, neighbour discovery, and what is not IP at all.
mod system;
/// Conversations.
mod talk;
/// Frames in words.
mod words;
/// Policies and the ports they are enforced at.
mod world;

#[cfg(test)]
mod tests;

/// A world, and what happens to it.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What it was made from.
    pub seed: u64,
    /// The policy, and the ports it is enforced at.
    pub world: World,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// A policy, and the ports of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// What is asked for.
    pub policy: Policy,
    /// Ports of this host. They keep their place, their addresses and their groups for all of a scenario.
    pub ports: Vec<Attached>,
    /// Members of each group.
    pub members: BTreeMap<GroupId, BTreeSet<IpNet>>,
}

/// What happens.
#[derive(Clone, Debug)]
pub enum Step {
    /// A frame at a port.
    Packet(Packet),
    /// Time passes.
    Advance(Tick),
    /// Another policy is in force from here on.
    Change(Arc<World>),
}

/// A frame at a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The port; one of [`World::ports`].
    pub port: PortId,
    /// From the instance or to it.
    pub direction: Direction,
    /// The kernel holds a VLAN tag of it beside the bytes.
    pub vlan_beside: bool,
    /// From the destination MAC address on.
    pub bytes: Vec<u8>,
}

impl Scenario {
    /// The scenario of a seed, of at least that many frames.
    pub fn new(seed: u64, packets: usize) -> Self {
        script::write(seed, packets)
    }

    /// The same failure in fewer steps: leaves out whatever `fails` does not need to go on answering true.
    #[must_use]
    pub fn shrink(&self, fails: impl FnMut(&Self) -> bool) -> Self {
        shrink::shrink(self, fails)
    }
}

impl World {
    /// The port of an id.
    pub fn port(&self, id: &PortId) -> Option<&Attached> {
        self.ports.iter().find(|port| port.id == *id)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Packet(packet) => packet.fmt(f),
            Self::Advance(ticks) => write!(f, "{ticks} ticks pass"),
            Self::Change(world) => write!(f, "another policy: {:#?}", world.policy),
        }
    }
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let way = match self.direction {
            Direction::Egress => "from",
            Direction::Ingress => "to",
        };
        let tag = if self.vlan_beside { ", VLAN tag beside it" } else { "" };
        write!(f, "{way} {}: {}{tag}\n    {}", self.port, words::of(&self.bytes), words::hex(&self.bytes))
    }
}

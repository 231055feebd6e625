//! What a decision looks up and remembers: maps in the kernel, memory in tests. Flow: policy.

use crate::abi::{
    flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Tick},
    policy::{GrantKey, MAX_ETHERTYPES, MacKey, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, View},
};

/// What user space compiles a policy to; the decision only reads it.
pub trait PolicyTables {
    /// The port at a place.
    fn port(&self, slot: u32) -> Option<&Port>;
    /// True if the port at a place may send with a MAC address other than its own.
    fn mac(&self, key: &MacKey) -> bool;
    /// True if an address pair of the port covers the key.
    fn pair(&self, key: &PairKey) -> bool;
    /// The word of `ACTIVE`.
    fn active(&self, policy: u32) -> Option<u64>;
    /// A view of a policy.
    fn view(&self, view: u32) -> Option<&View>;
    /// A protocol of a service table, by `table * 256 + protocol`.
    fn protocol(&self, index: u32) -> Option<Protocol>;
    /// One entry of a page.
    fn page(&self, page: u32, entry: u8) -> Option<u32>;
    /// The rule of a pair of classes.
    fn grant(&self, key: &GrantKey) -> Option<u32>;
    /// Class of a host address.
    fn remote4(&self, key: &RemoteKey4) -> Option<u32>;
    /// Class of a host address.
    fn remote6(&self, key: &RemoteKey6) -> Option<u32>;
    /// Class of the longest prefix that covers an address.
    fn prefix4(&self, key: &RemoteKey4) -> Option<u32>;
    /// Class of the longest prefix that covers an address.
    fn prefix6(&self, key: &RemoteKey6) -> Option<u32>;
    /// Permitted ethertypes; 0 is none.
    fn ethertypes(&self) -> Option<&[u16; MAX_ETHERTYPES]>;
    /// True if a flow that begins with the packet at hand begins on the fast way of a floating IP.
    fn begins_fast(&self, _slot: u32, _key: &FlowKey4) -> bool {
        false
    }
}

/// Under what a flow was found settled: when one of these changes, it has to be looked up again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// Generation of the policy in force.
    pub generation: u32,
    /// The port's epoch.
    pub epoch: u32,
    /// The tick.
    pub now: Tick,
}

/// What is noted of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// It is settled; its `FLOW_*` bits, as far as they are of consequence to a plain packet.
    Settled(u8),
    /// Nothing, and there is room for a note.
    None,
    /// Nothing, and nothing can be.
    Full,
}

/// What the decision remembers.
///
/// Beside the flows there may be notes: of flows that a packet in this very tick has found settled, which is to say that no
/// plain packet of either direction changes anything about them. Notes may get lost at any time.
pub trait FlowTables {
    /// A tracked flow, to read and to change in place.
    fn flow4(&mut self, key: &FlowKey4) -> Option<&mut Flow>;
    /// A tracked flow.
    fn flow6(&mut self, key: &FlowKey6) -> Option<&mut Flow>;
    /// Tracks a new flow; false where there is no room for it.
    fn track4(&mut self, key: &FlowKey4, flow: &Flow) -> bool;
    /// Tracks a new flow; false where there is no room for it.
    fn track6(&mut self, key: &FlowKey6, flow: &Flow) -> bool;
    /// What is noted of a flow at this moment.
    fn noted4(&self, _key: &FlowKey4, _at: Moment) -> Note {
        Note::Full
    }
    /// What is noted of a flow at this moment.
    fn noted6(&self, _key: &FlowKey6, _at: Moment) -> Note {
        Note::Full
    }
    /// Notes that the flow looked up last is settled, and its `FLOW_*` bits.
    fn settle4(&mut self, _key: &FlowKey4, _at: Moment, _flags: u8) {}
    /// Notes that the flow looked up last is settled, and its `FLOW_*` bits.
    fn settle6(&mut self, _key: &FlowKey6, _at: Moment, _flags: u8) {}
    /// Drops what is noted of a flow.
    fn unsettle4(&mut self, _key: &FlowKey4) {}
    /// Drops what is noted of a flow.
    fn unsettle6(&mut self, _key: &FlowKey6) {}
    /// What the first fragment of a datagram said.
    fn fragment(&mut self, key: &FragmentKey) -> Option<&Fragment>;
    /// Remembers what the first fragment of a datagram said.
    fn remember(&mut self, key: &FragmentKey, fragment: &Fragment);
}

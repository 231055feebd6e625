//! What the datapath remembers, in memory instead of maps: the state of the second evaluator. Flow: policy.

use std::collections::BTreeMap;

use netdiag_common::{
    abi::flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey},
    logic::tables::FlowTables,
};

/// Flows and fragments, without bound.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// IPv4 flows.
    pub flows4: BTreeMap<FlowKey4, Flow>,
    /// IPv6 flows.
    pub flows6: BTreeMap<FlowKey6, Flow>,
    /// First fragments.
    pub fragments: BTreeMap<FragmentKey, Fragment>,
}

impl FlowTables for Memory {
    fn flow4(&mut self, key: &FlowKey4) -> Option<&mut Flow> {
        self.flows4.get_mut(key)
    }

    fn flow6(&mut self, key: &FlowKey6) -> Option<&mut Flow> {
        self.flows6.get_mut(key)
    }

    fn track4(&mut self, key: &FlowKey4, flow: &Flow) -> bool {
        self.flows4.insert(*key, *flow);
        true
    }

    fn track6(&mut self, key: &FlowKey6, flow: &Flow) -> bool {
        self.flows6.insert(*key, *flow);
        true
    }

    fn fragment(&mut self, key: &FragmentKey) -> Option<&Fragment> {
        self.fragments.get(key)
    }

    fn remember(&mut self, key: &FragmentKey, fragment: &Fragment) {
        self.fragments.insert(*key, *fragment);
    }
}

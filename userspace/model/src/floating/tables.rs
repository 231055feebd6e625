//! What the programs need of a plan: the elements of their maps. Flow: policy.

use std::collections::{BTreeMap, btree_map::Entry};

use netdiag_common::abi::floating::{
    FLOATING_BEGINS, FLOATING_PEER, FLOATING_RECEIVED, Floating, FloatingKey, HOP_KNOWN, HOP_ON_LINK, HOP_SLOW,
    HOP_UNRESOLVED, Hop, HopKey, Leaving, LeavingKey,
};

use super::{ExternalHook, FastPath, FloatingIp, NextHop, Plan};
use crate::{compile::Trie, id::Mac};

/// Bits of a key of `HOPS` before the address.
const ROUTER_BITS: u32 = 32;

/// The maps of floating IPs in memory: what they hold, or shall hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FloatingTables {
    /// Inward.
    pub floating: BTreeMap<FloatingKey, Floating>,
    /// Outward: the first fixed address of each port, by place.
    pub leaving: BTreeMap<u32, Leaving>,
    /// Outward: the other fixed addresses.
    pub more_leaving: BTreeMap<LeavingKey, Leaving>,
    /// Prefixes and neighbours of routers.
    pub hops: BTreeMap<Trie<HopKey>, Hop>,
}

/// A port as the maps have it: its place and its epoch, by index of the host's device.
pub type Places = BTreeMap<u32, (u32, u32)>;

/// The elements of a plan. What is not fast has none, nor what is at a device without a place.
pub fn lower(plan: &Plan, places: &Places) -> FloatingTables {
    let mut tables = FloatingTables::default();
    for address in &plan.floating_ips {
        let Some((path, fixed)) = address.fast().zip(address.fixed_ip_address) else { continue };
        let Some(&(slot, epoch)) = places.get(&path.port_ifindex) else { continue };
        let (key, inward) = inward(address, path, u32::from_ne_bytes(fixed.octets()), (slot, epoch));
        tables.floating.insert(key, inward);
        let leaving = outward(&key, path, &inward);
        match tables.leaving.entry(slot) {
            Entry::Vacant(first) => drop(first.insert(leaving)),
            Entry::Occupied(_) => drop(tables.more_leaving.insert(LeavingKey { slot, fixed: inward.fixed }, leaving)),
        }
    }
    for (number, router) in &plan.routers {
        for (prefix, hop) in &router.hops {
            let address = u32::from_ne_bytes(prefix.network().octets());
            let bits = ROUTER_BITS + u32::from(prefix.prefix_len());
            tables.hops.insert(Trie { data: HopKey { router: *number, address }, bits }, lower_hop(*hop));
        }
    }
    tables
}

fn inward(address: &FloatingIp, path: &FastPath, fixed: u32, (slot, epoch): (u32, u32)) -> (FloatingKey, Floating) {
    let key = FloatingKey {
        device: path.ifindex,
        vlan: path.vlan.into(),
        address: u32::from_ne_bytes(address.floating_ip_address.octets()),
    };
    let floating = Floating {
        flags: flags(path),
        fixed,
        slot,
        epoch,
        device: path.port_ifindex,
        mtu: path.inner_mtu,
        outer_mac: octets(path.outer_mac),
        destination_mac: octets(path.mac),
        source_mac: octets(path.inner_mac),
        hops: path.hops,
    };
    (key, floating)
}

fn outward(key: &FloatingKey, path: &FastPath, inward: &Floating) -> Leaving {
    Leaving {
        flags: inward.flags,
        fixed: inward.fixed,
        floating: key.address,
        epoch: inward.epoch,
        router: path.router,
        device: path.ifindex,
        mtu: path.outer_mtu,
        vlan: path.vlan,
        hops: path.hops,
        inner_mac: inward.source_mac,
        outer_mac: inward.outer_mac,
    }
}

fn flags(path: &FastPath) -> u32 {
    let received = path.hook == ExternalHook::Internal;
    let flag = |set: bool, flag: u32| if set { flag } else { 0 };
    // Nothing can be put into the peer from TC egress, nor from XDP.
    let peer = path.peer && path.hook == ExternalHook::Tc;
    flag(path.begins, FLOATING_BEGINS) | flag(peer, FLOATING_PEER) | flag(received, FLOATING_RECEIVED)
}

const fn octets(mac: Mac) -> [u8; 6] {
    mac.0
}

fn lower_hop(hop: NextHop) -> Hop {
    let (kind, mac) = match hop {
        NextHop::Slow => (HOP_SLOW, [0; 6]),
        NextHop::Via(mac) => (HOP_KNOWN, mac.0),
        NextHop::OnLink(mac) => (HOP_ON_LINK, mac.0),
        NextHop::Unresolved => (HOP_UNRESOLVED, [0; 6]),
    };
    Hop { kind, mac, pad: [0; 2] }
}

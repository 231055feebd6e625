//! Where a router sends what is translated. Flow: policy.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;
use netdiag_common::abi::floating::MAX_HOPS;

use super::{
    State, broken,
    fib::{self, Asked, Leads, Prefixes, covering},
    obstacle, slow,
    world::World,
};
use crate::{
    fact::{NeighbourFact, NetworkFact},
    floating::{NextHop, Router},
    id::{IfIndex, LinkKey, Mac, NetnsId},
};

/// Where no router sends what it translates: this network, loopback, link-local, multicast, reserved and broadcast.
const NOT_OUTSIDE: [([u8; 4], u8); 5] =
    [([0, 0, 0, 0], 8), ([127, 0, 0, 0], 8), ([169, 254, 0, 0], 16), ([224, 0, 0, 0], 4), ([240, 0, 0, 0], 4)];

/// A namespace that packets go through on their way out.
#[derive(Clone, Debug)]
pub(super) struct Step {
    /// The namespace.
    pub(super) netns: NetnsId,
    /// Name of the device they come in by.
    pub(super) by: String,
    /// The device they leave by.
    pub(super) out: LinkKey,
    /// Addresses of the next namespace there; empty in the last one.
    pub(super) next: Vec<Ipv4Addr>,
    /// Their source address here.
    pub(super) source: Ipv4Addr,
}

/// What distinguishes a way out from others: namespaces with their tables and devices, and the external device.
type Key = (Vec<(NetnsId, Vec<u32>, IfIndex)>, External);

/// The external device, and whether the host itself is all that is beyond it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct External {
    /// The device.
    pub(super) device: LinkKey,
    /// It is the device of a bridge without a NIC.
    pub(super) internal: bool,
}

/// The ways out of all routers.
#[derive(Debug, Default)]
pub(super) struct Routers {
    numbers: BTreeMap<Key, u32>,
    /// By number.
    pub(super) made: BTreeMap<u32, Router>,
    prefixes: usize,
}

impl Routers {
    /// The number of the router with a way out, which is added if it is not there yet.
    pub(super) fn number(
        &mut self,
        world: &World<'_, '_>,
        name: &str,
        external: External,
        steps: &[Step],
    ) -> Result<u32, State> {
        let mut key: Key = (Vec::new(), external);
        let mut networks = Vec::new();
        for step in steps {
            let label = || world.inventory.netns(step.netns).label;
            let Some(network) = world.network(step.netns) else {
                return slow(format!("the routes of {} could not be read", label()));
            };
            let asked = Asked { source: Some(step.source), by: &step.by };
            let tables = fib::tables(network, asked)
                .or_else(|what| slow(format!("{what} of {} is not one that netdiag understands", label())))?;
            networks.push(network);
            key.0.push((step.netns, tables, step.out.ifindex));
        }
        if let Some(number) = self.numbers.get(&key) {
            return Ok(*number);
        }
        let prefixes = combined(&networks, steps, &key.0);
        let hops = Hops { world, external, step: steps.last(), network: networks.last().copied() }.resolve(prefixes);
        if hops.values().all(|hop| *hop == NextHop::Slow) {
            let out = steps.last().map_or_else(String::new, |step| obstacle::place(world, step.out));
            let source = steps.first().map_or(Ipv4Addr::UNSPECIFIED, |step| step.source);
            return broken(format!("nothing that {source} sends outside leaves by {out}"));
        }
        self.prefixes += hops.len();
        if self.prefixes > MAX_HOPS as usize {
            self.prefixes -= hops.len();
            return slow(format!("{name} and the others have more than {MAX_HOPS} prefixes and neighbours"));
        }
        let number = self.free(&key);
        self.numbers.insert(key, number);
        self.made.insert(number, Router { name: name.to_owned(), hops });
        Ok(number)
    }

    /// A number made of the key alone, unless another router has it: so numbers stay as they are when others come and go.
    fn free(&self, key: &Key) -> u32 {
        let mut hash = format!("{key:?}")
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        while self.made.contains_key(&hash) {
            hash = hash.wrapping_add(1);
        }
        hash
    }
}

/// The prefixes of all namespaces together: what the first sends on to the second goes where that sends it.
fn combined(networks: &[&NetworkFact], steps: &[Step], key: &[(NetnsId, Vec<u32>, IfIndex)]) -> Prefixes<Leads> {
    let mut each = networks.iter().zip(key).map(|(network, (_, tables, _))| fib::prefixes(network, tables));
    let mut all = each.next().unwrap_or_default();
    for (next, step) in each.zip(steps) {
        let both: Vec<Ipv4Net> = all.keys().chain(next.keys()).copied().collect();
        let leads = |prefix: Ipv4Net| match covering(&all, prefix) {
            Some((_, Leads::By(device, Some(gateway))))
                if *device == step.out.ifindex && step.next.contains(gateway) =>
            {
                covering(&next, prefix).map_or(Leads::Nowhere, |(_, leads)| *leads)
            }
            Some(_) | None => Leads::Nowhere,
        };
        all = both.into_iter().map(|prefix| (prefix, leads(prefix))).collect();
    }
    all
}

/// Next hops out of the last namespace.
struct Hops<'h, 'w, 'a> {
    world: &'h World<'w, 'a>,
    external: External,
    step: Option<&'h Step>,
    network: Option<&'h NetworkFact>,
}

impl Hops<'_, '_, '_> {
    fn resolve(&self, prefixes: Prefixes<Leads>) -> Prefixes<NextHop> {
        let neighbours: BTreeMap<Ipv4Addr, Mac> = self.neighbours().collect();
        let out = self.step.map(|step| step.out.ifindex);
        let mut hops: Prefixes<NextHop> = Prefixes::new();
        let mut connected = Vec::new();
        for (prefix, leads) in prefixes {
            let hop = match leads {
                Leads::By(device, None) if Some(device) == out => {
                    connected.push(prefix);
                    NextHop::Unresolved
                }
                Leads::By(device, Some(gateway)) if Some(device) == out => match neighbours.get(&gateway) {
                    None => NextHop::Unresolved,
                    Some(mac) if self.is_here(*mac) => NextHop::Slow,
                    Some(mac) => NextHop::Via(*mac),
                },
                Leads::By(..) | Leads::Nowhere => NextHop::Slow,
            };
            hops.insert(prefix, hop);
        }
        self.on_link(&mut hops, &connected, &neighbours);
        self.not_outside(&mut hops);
        hops
    }

    /// The neighbours themselves, and what of their network nobody can be.
    fn on_link(&self, hops: &mut Prefixes<NextHop>, connected: &[Ipv4Net], neighbours: &BTreeMap<Ipv4Addr, Mac>) {
        let is_connected = |hops: &Prefixes<NextHop>, address: Ipv4Addr| {
            covering(hops, Ipv4Net::from(address)).is_some_and(|(prefix, _)| connected.contains(&prefix))
        };
        for (address, mac) in neighbours {
            if is_connected(hops, *address) {
                let hop = if self.is_here(*mac) { NextHop::Slow } else { NextHop::OnLink(*mac) };
                hops.insert(Ipv4Net::from(*address), hop);
            }
        }
        let beyond: Vec<Ipv4Addr> = match self.external {
            External { device, internal: true } => self.world.held_by(device).map(|net| net.addr()).collect(),
            External { internal: false, .. } => vec![],
        };
        for address in self.world.addresses().iter().filter(|address| !beyond.contains(address)) {
            if is_connected(hops, *address) || hops.contains_key(&Ipv4Net::from(*address)) {
                hops.insert(Ipv4Net::from(*address), NextHop::Slow);
            }
        }
        for prefix in connected.iter().filter(|prefix| (1..=30).contains(&prefix.prefix_len())) {
            hops.insert(Ipv4Net::from(prefix.network()), NextHop::Slow);
            hops.insert(Ipv4Net::from(prefix.broadcast()), NextHop::Slow);
        }
    }

    /// The namespaces' own addresses, and where nothing is sent that is translated.
    fn not_outside(&self, hops: &mut Prefixes<NextHop>) {
        for address in self.step.into_iter().flat_map(|step| self.world.own_addresses(step.netns)) {
            hops.insert(Ipv4Net::from(address), NextHop::Slow);
        }
        for (address, length) in NOT_OUTSIDE {
            let Ok(prefix) = Ipv4Net::new(address.into(), length) else { continue };
            hops.retain(|other, _| !prefix.contains(other));
            hops.insert(prefix, NextHop::Slow);
        }
    }

    /// Whether a MAC address is on this host, and so not beyond the external device.
    fn is_here(&self, mac: Mac) -> bool {
        let External { device, internal } = self.external;
        let own = || self.world.inventory.link(device).and_then(|link| link.mac) == Some(mac);
        if internal { !own() } else { self.world.is_local(mac, device) }
    }

    /// Neighbours whose MAC address is known.
    fn neighbours(&self) -> impl Iterator<Item = (Ipv4Addr, Mac)> {
        let usable = |entry: &&NeighbourFact| NeighbourFact::is_usable_state(&entry.state);
        let out = self.step.map(|step| step.out.ifindex);
        let all = self.network.into_iter().flat_map(|network| &network.neighbours);
        let known = all.filter(move |entry| Some(entry.ifindex) == out && !entry.proxy).filter(usable);
        known.filter_map(|entry| match entry.address {
            IpAddr::V4(address) => Some((address, entry.mac?)),
            IpAddr::V6(_) => None,
        })
    }
}

//! Flows that stay on the slow way: those a router knew before their floating IP became fast. Flow: policy.
//!
//! A TCP connection is told by its packets: one that does not begin with a SYN is not new. Of all other protocols the first packet that
//! is seen may be the thousandth, so the router is asked what it tracks.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use netdiag_common::{
    abi::{floating::FLOATING_BEGINS, flow::FlowKey4},
    logic::{
        flow::protocol::{TCP, has_ports},
        track::{self, Icmp},
    },
};
use netdiag_model::floating::{
    FloatingIp, Plan,
    tables::{FloatingTables, Places, lower},
};
use tokio::runtime::Handle;

use crate::{
    conntrack::{self, Entry, Tuple},
    discover::{chain, routers},
    enforce::Enforcer,
    netns::Namespace,
};

/// `IPPROTO_ICMP`.
const ICMP: u8 = 1;

/// A floating IP whose flows are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sought {
    router: String,
    fixed: Ipv4Addr,
    floating: Ipv4Addr,
    slot: u32,
}

impl Sought {
    /// True where it is that one.
    pub(super) fn is(&self, address: &FloatingIp) -> bool {
        self.floating == address.floating_ip_address && self.router == address.router
    }

    /// What the programs call the flow of an entry: as it leaves the instance, and as it comes from outside.
    fn keys(&self, entry: &Entry) -> impl Iterator<Item = FlowKey4> {
        let keys = [entry.original, entry.reply].map(|tuple| [self.leaving(&tuple), self.coming(&tuple)]);
        keys.into_iter().flatten().flatten()
    }

    fn leaving(&self, tuple: &Tuple) -> Option<FlowKey4> {
        let Tuple { source, destination, source_port, destination_port, .. } = *tuple;
        (source == self.fixed)
            .then(|| self.key(tuple, (source, destination), (source_port, destination_port), false))?
    }

    fn coming(&self, tuple: &Tuple) -> Option<FlowKey4> {
        let Tuple { source, destination, source_port, destination_port, .. } = *tuple;
        (destination == self.floating)
            .then(|| self.key(tuple, (destination, source), (destination_port, source_port), true))?
    }

    fn key(
        &self,
        tuple: &Tuple,
        (local, remote): (Ipv4Addr, Ipv4Addr),
        (local_port, remote_port): (u16, u16),
        ingress: bool,
    ) -> Option<FlowKey4> {
        let query = |request: u8, by_remote: bool| u16::from(by_remote) << 8 | u16::from(request);
        let (local_port, remote_port) = match tuple.protocol {
            TCP => return None,
            ICMP => match track::icmp(false, tuple.icmp_type) {
                Icmp::Request(request) => (tuple.source_port, query(request, ingress)),
                Icmp::Reply(request) => (tuple.source_port, query(request, !ingress)),
                Icmp::Error | Icmp::Other => return None,
            },
            protocol if has_ports(protocol) => (local_port, remote_port),
            _ => (0, 0),
        };
        Some(FlowKey4 {
            local: u32::from_ne_bytes(local.octets()),
            remote: u32::from_ne_bytes(remote.octets()),
            local_port: local_port.to_be(),
            remote_port: remote_port.to_be(),
            slot: u16::try_from(self.slot).ok()?,
            protocol: tuple.protocol,
            pad: 0,
        })
    }
}

/// Floating IPs that may begin flows the fast way and could not before.
pub(super) fn new(plan: &Plan, places: &Places, before: &FloatingTables) -> Vec<Sought> {
    let after = lower(plan, places);
    let begins = |tables: &FloatingTables, address: Ipv4Addr, slot: u32, epoch: u32| {
        let address = u32::from_ne_bytes(address.octets());
        tables.floating.iter().any(|(key, floating)| {
            key.address == address
                && (floating.slot, floating.epoch) == (slot, epoch)
                && floating.flags & FLOATING_BEGINS != 0
        })
    };
    let sought = plan.floating_ips.iter().filter_map(|address| {
        let (slot, epoch) = *places.get(&address.fast()?.port_ifindex)?;
        let (floating, fixed) = (address.floating_ip_address, address.fixed_ip_address?);
        let comes = begins(&after, floating, slot, epoch) && !begins(before, floating, slot, epoch);
        comes.then(|| Sought { router: address.router.clone(), fixed, floating, slot })
    });
    sought.collect()
}

/// Places and addresses of everything that is in the maps.
pub(super) fn all(tables: &FloatingTables) -> BTreeMap<(Ipv4Addr, Ipv4Addr), u32> {
    let address = |word: u32| Ipv4Addr::from(word.to_ne_bytes());
    let entries = tables.floating.iter();
    entries.map(|(key, floating)| ((address(key.address), address(floating.fixed)), floating.slot)).collect()
}

/// Asks routers, and holds flows.
#[derive(Debug)]
pub(super) struct Holder {
    netns: Vec<PathBuf>,
}

impl Holder {
    /// Looks for the namespaces of routers in these directories.
    pub(super) const fn new(netns: Vec<PathBuf>) -> Self {
        Self { netns }
    }

    /// Holds all flows of these floating IPs that their routers know; routers that could not be asked, and why not.
    pub(super) fn hold(&self, enforcer: &Enforcer, sought: &[Sought]) -> Vec<(String, String)> {
        let mut refused = Vec::new();
        for (router, result) in self.known(sought) {
            let held = result.and_then(|keys| {
                let keys: Vec<_> = keys.into_iter().collect();
                enforcer.hold(&keys).map_err(|error| chain(&error))
            });
            refused.extend(held.err().map(|why| (router, why)));
        }
        refused
    }

    /// Lets go what no router of a fast floating IP knows any more. Where one could not be asked all stays held.
    pub(super) fn release(&self, enforcer: &Enforcer, plan: &Plan, fast: &BTreeMap<(Ipv4Addr, Ipv4Addr), u32>) {
        let Ok(held) = enforcer.held() else { return };
        if held.is_empty() {
            return;
        }
        let sought = plan.floating_ips.iter().filter_map(|address| {
            let (floating, fixed) = (address.floating_ip_address, address.fixed_ip_address?);
            let slot = *fast.get(&(floating, fixed))?;
            Some(Sought { router: address.router.clone(), fixed, floating, slot })
        });
        let mut known = BTreeSet::new();
        for (_, keys) in self.known(&sought.collect::<Vec<_>>()) {
            let Ok(keys) = keys else { return };
            known.extend(keys);
        }
        let over: Vec<_> = held.into_iter().filter(|key| !known.contains(key)).collect();
        // What stays held too long is slow for longer than it need be.
        drop(enforcer.release(&over));
    }

    /// Keys of all flows of these floating IPs, by router.
    fn known(&self, sought: &[Sought]) -> BTreeMap<String, Result<BTreeSet<FlowKey4>, String>> {
        let routers: BTreeSet<&String> = sought.iter().map(|sought| &sought.router).collect();
        let ask = |router: &String| {
            let entries = self.entries(router)?;
            let of_it = by_address(sought.iter().filter(|sought| sought.router == *router));
            Ok(entries.iter().flat_map(|entry| keys(entry, &of_it)).collect())
        };
        routers.into_iter().map(|router| (router.clone(), ask(router))).collect()
    }

    fn entries(&self, router: &str) -> Result<Vec<Entry>, String> {
        let listed = match routers::path(&self.netns, router) {
            Some(path) => {
                let namespace = Namespace::open(&path).map_err(|error| chain(&error))?;
                Handle::current().block_on(namespace.run(conntrack::list)).map_err(|error| chain(&error))?
            }
            None if router == HOST => conntrack::list(),
            None => return Err(format!("there is no namespace {router}")),
        };
        listed.map_err(|error| format!("its connections cannot be listed: {error}"))
    }
}

/// Name of the router that is the host itself.
pub(super) const HOST: &str = "host";

fn by_address<'a>(sought: impl Iterator<Item = &'a Sought>) -> BTreeMap<Ipv4Addr, Vec<&'a Sought>> {
    let mut by_address: BTreeMap<Ipv4Addr, Vec<&Sought>> = BTreeMap::new();
    for one in sought {
        by_address.entry(one.fixed).or_default().push(one);
        by_address.entry(one.floating).or_default().push(one);
    }
    by_address
}

fn keys(entry: &Entry, sought: &BTreeMap<Ipv4Addr, Vec<&Sought>>) -> Vec<FlowKey4> {
    let ends = [entry.original, entry.reply].into_iter().flat_map(|tuple| [tuple.source, tuple.destination]);
    let of_it = ends.filter_map(|end| sought.get(&end)).flatten();
    of_it.flat_map(|sought| sought.keys(entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::{Entry, FlowKey4, Sought, Tuple};

    fn sought() -> Sought {
        let address = |text: &str| text.parse().unwrap();
        Sought { router: "r".to_owned(), fixed: address("10.0.0.5"), floating: address("172.24.4.6"), slot: 3 }
    }

    fn tuple(source: &str, destination: &str, protocol: u8, ports: (u16, u16), icmp_type: u8) -> Tuple {
        let (source_port, destination_port) = ports;
        let [source, destination] = [source, destination].map(|text| text.parse().unwrap());
        Tuple { source, destination, protocol, source_port, destination_port, icmp_type }
    }

    fn keys(original: Tuple, reply: Tuple) -> Vec<FlowKey4> {
        sought().keys(&Entry::between(original, reply)).collect()
    }

    fn key(local: [u8; 4], ports: (u16, u16), protocol: u8) -> FlowKey4 {
        FlowKey4 {
            local: u32::from_ne_bytes(local),
            remote: u32::from_ne_bytes([192, 0, 2, 9]),
            local_port: ports.0.to_be(),
            remote_port: ports.1.to_be(),
            slot: 3,
            protocol,
            pad: 0,
        }
    }

    #[test]
    fn a_flow_is_held_by_its_inner_port_and_by_the_one_the_outside_knows() {
        // The router has chosen another port.
        let original = tuple("10.0.0.5", "192.0.2.9", 17, (5000, 53), 0);
        let reply = tuple("192.0.2.9", "172.24.4.6", 17, (53, 1024), 0);
        let expected = [key([10, 0, 0, 5], (5000, 53), 17), key([172, 24, 4, 6], (1024, 53), 17)];
        assert_eq!(keys(original, reply), expected);
        let original = tuple("192.0.2.9", "172.24.4.6", 17, (53, 5000), 0);
        let reply = tuple("10.0.0.5", "192.0.2.9", 17, (5000, 53), 0);
        let expected = [key([172, 24, 4, 6], (5000, 53), 17), key([10, 0, 0, 5], (5000, 53), 17)];
        assert_eq!(keys(original, reply), expected);
    }

    #[test]
    fn a_ping_is_held_by_its_identifier_and_by_who_asked() {
        let original = tuple("192.0.2.9", "172.24.4.6", 1, (77, 0), 8);
        let reply = tuple("10.0.0.5", "192.0.2.9", 1, (77, 0), 0);
        let asked_by_remote = 1 << 8 | 8;
        let expected = [key([172, 24, 4, 6], (77, asked_by_remote), 1), key([10, 0, 0, 5], (77, asked_by_remote), 1)];
        assert_eq!(keys(original, reply), expected);
    }

    #[test]
    fn a_protocol_without_ports_is_held_as_one_flow_and_tcp_is_not_held() {
        let original = tuple("10.0.0.5", "192.0.2.9", 47, (7, 8), 0);
        let reply = tuple("192.0.2.9", "172.24.4.6", 47, (8, 7), 0);
        assert_eq!(keys(original, reply), [key([10, 0, 0, 5], (0, 0), 47), key([172, 24, 4, 6], (0, 0), 47)]);
        let (original, reply) = (Tuple { protocol: 6, ..original }, Tuple { protocol: 6, ..reply });
        assert_eq!(keys(original, reply), []);
    }

    #[test]
    fn what_is_routed_inside_is_held_as_it_leaves_and_never_comes() {
        let original = tuple("10.0.0.5", "192.0.2.9", 17, (5, 6), 0);
        let reply = tuple("192.0.2.9", "10.0.0.5", 17, (6, 5), 0);
        assert_eq!(keys(original, reply), [key([10, 0, 0, 5], (5, 6), 17)]);
    }
}

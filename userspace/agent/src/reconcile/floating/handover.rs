//! Flows that began past a router and whose packets come to it from now on: it is told of them first. Flow: policy.
//!
//! A router that has not seen a flow translates its packets as those of a new one, and that is not always the same: a rule with
//! `--random-fully` gives it another port, for which the other end knows no connection, and neither an answer to a ping nor the end of a
//! connection begins anything. So the router's connection tracking gets every such flow as it always was, before the
//! maps let its packets come: where a floating IP is taken off the fast way, where a next hop is lost, and where a router is made
//! anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    path::PathBuf,
};

use netdiag_common::{
    abi::{
        floating::{FLOATING_BEGINS, Floating, HOP_KNOWN, HOP_ON_LINK, Hop, HopKey, Leaving, LeavingKey},
        flow::{FLOW_DEAD, FLOW_FAST, FLOW_INGRESS, Flow, FlowKey4},
    },
    logic::flow::{
        State,
        protocol::{ICMP, TCP, UDP},
        timeout_seconds,
    },
};
use netdiag_model::{
    compile::Trie,
    floating::{Plan, tables::FloatingTables},
    id::NetnsId,
};
use tokio::runtime::Handle;

use super::{
    anew::{Ends, Inner, inner},
    held::HOST,
};
use crate::{
    conntrack::{self, Connection, Entry, Translated, Tuple},
    discover::{chain, routers},
    enforce::{Enforcer, Tracked},
    netns::Namespace,
};

/// `ICMP_ECHO`.
const ECHO: u16 = 8;

/// What the maps hold, without leave to begin flows for those floating IPs that are about to go; none where none is.
pub(super) fn draining(before: &FloatingTables, after: &FloatingTables) -> Option<FloatingTables> {
    let stays = |floating: &Floating| (floating.fixed, floating.slot, floating.epoch);
    let mut draining = before.clone();
    let mut gone = BTreeSet::new();
    for (key, floating) in &mut draining.floating {
        if after.floating.get(key).map(stays) != Some(stays(floating)) {
            floating.flags &= !FLOATING_BEGINS;
            gone.insert((floating.slot, floating.fixed));
        }
    }
    for (slot, leaving) in &mut draining.leaving {
        if gone.contains(&(*slot, leaving.fixed)) {
            leaving.flags &= !FLOATING_BEGINS;
        }
    }
    for (key, leaving) in &mut draining.more_leaving {
        if gone.contains(&(key.slot, key.fixed)) {
            leaving.flags &= !FLOATING_BEGINS;
        }
    }
    (!gone.is_empty()).then_some(draining)
}

/// Names of routers by the floating IPs they have: address, and fixed address.
pub(super) type Owners = BTreeMap<(Ipv4Addr, Ipv4Addr), String>;

/// The routers of a plan, and those that are to have floating IPs and do not have their rules yet.
pub(super) fn owners<'a>(plan: &'a Plan, awaited: impl Iterator<Item = ((Ipv4Addr, Ipv4Addr), &'a str)>) -> Owners {
    let planned = plan.floating_ips.iter().filter_map(|one| {
        let fixed = one.fixed_ip_address?;
        Some(((one.floating_ip_address, fixed), one.router.as_str()))
    });
    awaited.chain(planned).map(|(addresses, router)| (addresses, router.to_owned())).collect()
}

/// Tells routers of the flows that will come to them once the maps hold `after`; those that could not be told, and why.
pub(super) fn give(
    enforcer: &Enforcer,
    owners: &Owners,
    (before, after): (&FloatingTables, &FloatingTables),
    netns: &[PathBuf],
) -> Vec<(String, String)> {
    let leads = |(key, hop): (&Trie<HopKey>, &Hop)| is_resolved(hop) && !after.hops.get(key).is_some_and(is_resolved);
    if draining(before, after).is_none() && !before.hops.iter().any(leads) {
        return Vec::new();
    }
    let flows = match enforcer.flows() {
        Ok(flows) => flows.ipv4,
        Err(error) => return vec![("flows".to_owned(), chain(&error))],
    };
    let mut refused = Vec::new();
    for (router, connections) in connections(owners, (before, after), &flows) {
        if let Err(why) = tell(&router, connections, netns) {
            refused.push((router, why));
        }
    }
    refused
}

/// The flows that will come to each router.
fn connections(
    owners: &Owners,
    (before, after): (&FloatingTables, &FloatingTables),
    flows: &[Tracked<FlowKey4>],
) -> BTreeMap<String, Vec<Connection>> {
    let address = |word: u32| Ipv4Addr::from(word.to_ne_bytes());
    let mut connections: BTreeMap<String, Vec<Connection>> = BTreeMap::new();
    for Tracked { key, flow, .. } in flows.iter().filter(|tracked| is_past_a_router(&tracked.flow)) {
        let Some(old) = leaving(before, key).filter(|old| old.epoch == flow.epoch) else { continue };
        let comes = match leaving(after, key) {
            Some(new) if (new.floating, new.epoch) == (old.floating, old.epoch) => {
                resolves(before, old.router, key.remote) && !resolves(after, new.router, key.remote)
            }
            _ => true,
        };
        let router = owners.get(&(address(old.floating), address(old.fixed))).filter(|_| comes);
        if let Some((router, connection)) = router.zip(connection(key, flow, address(old.floating))) {
            connections.entry(router.clone()).or_default().push(connection);
        }
    }
    connections
}

/// True for one that a router may have to take over.
pub(super) const fn is_past_a_router(flow: &Flow) -> bool {
    flow.flags & (FLOW_FAST | FLOW_DEAD) == FLOW_FAST && !State::of(flow.state).is_over()
}

/// What the local end of a flow leaves as.
fn leaving<'t>(tables: &'t FloatingTables, key: &FlowKey4) -> Option<&'t Leaving> {
    let (slot, fixed) = (key.slot.into(), key.local);
    let first = tables.leaving.get(&slot).filter(|leaving| leaving.fixed == fixed);
    first.or_else(|| tables.more_leaving.get(&LeavingKey { slot, fixed }))
}

const fn is_resolved(hop: &Hop) -> bool {
    matches!(hop.kind, HOP_KNOWN | HOP_ON_LINK)
}

/// Whether a router's next hop to an address is known: the longest prefix says so.
fn resolves(tables: &FloatingTables, router: u32, remote: u32) -> bool {
    let remote = u32::from_be(remote);
    let hop = (0..=32_u32).rev().find_map(|length| {
        let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
        let address = (remote & mask).to_be();
        tables.hops.get(&Trie { data: HopKey { router, address }, bits: 32 + length })
    });
    hop.is_some_and(is_resolved)
}

/// A flow as its router would have seen it begin; none of what a router needs not be told of, or cannot.
fn connection(key: &FlowKey4, flow: &Flow, floating: Ipv4Addr) -> Option<Connection> {
    let address = |word: u32| Ipv4Addr::from(word.to_ne_bytes());
    let (fixed, remote) = (address(key.local), address(key.remote));
    let (local_port, remote_port) = (u16::from_be(key.local_port), u16::from_be(key.remote_port));
    let inward = flow.flags & FLOW_INGRESS != 0;
    let (source_port, destination_port, icmp_type) = match key.protocol {
        TCP | UDP if inward => (remote_port, local_port, 0),
        TCP | UDP => (local_port, remote_port, 0),
        ICMP if remote_port & 0xff == ECHO => (local_port, 0, 8),
        _ => return None,
    };
    let (source, destination, translated) = if inward {
        (remote, floating, Translated::Destination(fixed))
    } else {
        (fixed, remote, Translated::Source(floating))
    };
    let original = Tuple { source, destination, protocol: key.protocol, source_port, destination_port, icmp_type };
    Some(Connection { original, translated, timeout: timeout_seconds(key.protocol, State::of(flow.state)) })
}

/// Tells one router.
fn tell(router: &str, connections: Vec<Connection>, netns: &[PathBuf]) -> Result<(), String> {
    let add = move || conntrack::add(&connections);
    let added = match routers::path(netns, router) {
        Some(path) => within(&Namespace::open(&path).map_err(|error| chain(&error))?, add)?,
        None if router == HOST => add(),
        // Whose packets nobody takes has nobody to be told.
        None => return Ok(()),
    };
    added.map_err(|error| refused(&error))
}

/// Tells a router that is made anew of all flows between these ends.
pub(super) fn recall(enforcer: &Enforcer, router: &Namespace, ends: &BTreeSet<Ends>) -> Result<(), String> {
    let flows = enforcer.flows().map_err(|error| chain(&error))?.ipv4;
    let connections = recalled(ends, &flows);
    within(router, move || conntrack::add(&connections))?.map_err(|error| refused(&error))
}

fn recalled(ends: &BTreeSet<Ends>, flows: &[Tracked<FlowKey4>]) -> Vec<Connection> {
    let floating: BTreeMap<Inner, Ipv4Addr> = ends.iter().map(|ends| (ends.inner(), ends.floating)).collect();
    let past = flows.iter().filter(|tracked| is_past_a_router(&tracked.flow));
    past.filter_map(|tracked| connection(&tracked.key, &tracked.flow, *floating.get(&inner(tracked))?)).collect()
}

/// Takes connections back that a router was told of, if it still is that one.
pub(super) fn take_back(
    router: &str,
    id: NetnsId,
    is_wrong: impl Fn(&Entry) -> bool + Send + 'static,
    netns: &[PathBuf],
) -> Result<(), String> {
    let Some(path) = routers::path(netns, router) else { return Ok(()) };
    let namespace = Namespace::open(&path).map_err(|error| chain(&error))?;
    if namespace.id != id {
        return Ok(());
    }
    let removed = within(&namespace, move || {
        let wrong: Vec<_> = conntrack::list()?.into_iter().filter(|entry| is_wrong(entry)).collect();
        conntrack::remove(&wrong)
    })?;
    removed.map_err(|error| format!("connections that are not its own cannot be removed: {error}"))
}

fn within<T: Send + 'static>(namespace: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    Handle::current().block_on(namespace.run(work)).map_err(|error| chain(&error))
}

fn refused(error: &std::io::Error) -> String {
    format!("its connection tracking takes no flows: {error}")
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::flow::{FLOW_DEAD, FLOW_FAST, FLOW_INGRESS, Flow, FlowKey4};

    use netdiag_model::floating::{FloatingIp, Owner, State};

    use super::{
        Ends, FloatingTables, ICMP, Ipv4Addr, Leaving, Plan, TCP, Tracked, Translated, UDP, connections, owners,
        recalled,
    };

    const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const FLOATING: Ipv4Addr = Ipv4Addr::new(172, 24, 4, 6);
    const REMOTE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);

    fn flow(protocol: u8, ports: (u16, u16), flags: u8) -> Tracked<FlowKey4> {
        let key = FlowKey4 {
            local: u32::from_ne_bytes(FIXED.octets()),
            remote: u32::from_ne_bytes(REMOTE.octets()),
            local_port: ports.0.to_be(),
            remote_port: ports.1.to_be(),
            slot: 3,
            protocol,
            pad: 0,
        };
        Tracked { key, flow: Flow { epoch: 9, flags, ..Flow::default() }, overflow: false }
    }

    fn told(flows: &[Tracked<FlowKey4>]) -> Vec<(Ipv4Addr, u16, Ipv4Addr, u16, Translated)> {
        let ends = Ends { floating: FLOATING, fixed: FIXED, slot: 3, epoch: 9 };
        let connections = recalled(&[ends].into(), flows).into_iter();
        let shown = |tuple: super::Tuple, translated| {
            (tuple.source, tuple.source_port, tuple.destination, tuple.destination_port, translated)
        };
        connections.map(|connection| shown(connection.original, connection.translated)).collect()
    }

    #[test]
    fn a_router_is_told_of_a_flow_as_it_would_have_seen_it_begin() {
        let leaves = flow(TCP, (5000, 80), FLOW_FAST);
        let comes = flow(UDP, (53, 6000), FLOW_FAST | FLOW_INGRESS);
        let ping = flow(ICMP, (77, 8), FLOW_FAST);
        assert_eq!(
            told(&[leaves, comes, ping]),
            [
                (FIXED, 5000, REMOTE, 80, Translated::Source(FLOATING)),
                (REMOTE, 6000, FLOATING, 53, Translated::Destination(FIXED)),
                (FIXED, 77, REMOTE, 0, Translated::Source(FLOATING)),
            ]
        );
    }

    #[test]
    fn a_router_is_not_told_of_what_was_slow_is_over_or_is_another_ports() {
        let slow = flow(UDP, (1, 2), 0);
        let dead = flow(UDP, (1, 2), FLOW_FAST | FLOW_DEAD);
        let mut before = flow(UDP, (1, 2), FLOW_FAST);
        before.flow.epoch = 8;
        let mut elsewhere = flow(UDP, (1, 2), FLOW_FAST);
        elsewhere.key.slot = 4;
        assert_eq!(told(&[slow, dead, before, elsewhere]), []);
    }

    #[test]
    fn what_goes_off_the_fast_way_is_told_to_its_router_also_where_that_has_no_rules_yet() {
        let word = |address: Ipv4Addr| u32::from_ne_bytes(address.octets());
        let leaving = Leaving { fixed: word(FIXED), floating: word(FLOATING), epoch: 9, ..Leaving::default() };
        let before = FloatingTables { leaving: [(3, leaving)].into(), ..FloatingTables::default() };
        let flows = [flow(TCP, (5000, 80), FLOW_FAST)];
        let told = |plan: &Plan, awaited: &[((Ipv4Addr, Ipv4Addr), &str)]| {
            let owners = owners(plan, awaited.iter().copied());
            let told = connections(&owners, (&before, &FloatingTables::default()), &flows);
            told.into_iter().map(|(router, connections)| (router, connections.len())).collect::<Vec<_>>()
        };
        let awaited = [((FLOATING, FIXED), "anew")];
        let planned = FloatingIp {
            floating_ip_address: FLOATING,
            fixed_ip_address: Some(FIXED),
            port_id: None,
            router: "planned".to_owned(),
            owner: Owner::Found,
            way: State::Slow { why: "a mirror".to_owned() },
        };
        let planned = Plan { floating_ips: vec![planned], ..Plan::default() };
        assert_eq!(told(&Plan::default(), &[]), [], "whose router is gone");
        assert_eq!(told(&Plan::default(), &awaited), [("anew".to_owned(), 1)]);
        assert_eq!(told(&planned, &awaited), [("planned".to_owned(), 1)], "who has the rules has the flows");
    }
}

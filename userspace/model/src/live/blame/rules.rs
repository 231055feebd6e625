//! Rules of the packet filter that would drop a packet of a journey: by where it was last seen it is known how it came to them.

use super::{Case, last_stop, netns_of};
use crate::{
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    live::{
        journey::{Drop, Journey},
        points::Side,
        rules::{self, Way},
    },
    trace::RuleRef,
};

/// The rules that would drop a packet: one, where it is that one whatever the state of its flow.
pub(super) fn dropping(case: &Case<'_, '_>, journey: &Journey, drop: &Drop) -> Vec<RuleRef> {
    let Some(netns) = netns_of(case, journey, drop) else { return Vec::new() };
    let way = way(case, journey, (drop, netns));
    counting(case, rules::dropping(case.inventory, (netns, way), (drop.headers.innermost(), drop.mark)))
}

/// Of several rules those that have counted since an earlier look, where there was one.
fn counting(case: &Case<'_, '_>, found: Vec<RuleRef>) -> Vec<RuleRef> {
    let Some(earlier) = case.earlier.filter(|_| found.len() > 1) else { return found };
    let has_counted = |rule: &&RuleRef| rule.counters.packets > then(earlier, rule).unwrap_or(0);
    let counted: Vec<RuleRef> = found.iter().filter(has_counted).cloned().collect();
    if counted.is_empty() { found } else { counted }
}

/// What a rule had counted by an earlier look, if it was there.
fn then(earlier: &Inventory<'_>, rule: &RuleRef) -> Option<u64> {
    let rulesets = earlier.rulesets(rule.netns.id).iter().filter(|ruleset| ruleset.backend == rule.backend);
    let mut tables = rulesets.flat_map(|ruleset| &ruleset.tables).filter(|table| table.name == rule.table);
    let place = rule.number.checked_sub(1)?;
    tables.find_map(|table| {
        let found = table.chain(&rule.chain)?.rules.get(place)?;
        (found.raw == rule.rule).then_some(found.counters.packets)
    })
}

/// How the packet came to the rules.
fn way(case: &Case<'_, '_>, journey: &Journey, (drop, netns): (&Drop, NetnsId)) -> Way {
    let inventory = case.inventory;
    if let Some((port, bridge)) = drop.link.and_then(|link| towards_another(case, link)) {
        return Way::Bridged { port, bridge };
    }
    let came_in = last_stop(case, journey).filter(|stop| stop.link.netns == netns);
    let received = came_in.filter(|stop| stop.direction(Side::Received) == journey.direction);
    let entrance =
        received.map(|stop| stop.link).or(drop.link.filter(|_| came_in.is_none() && !begins(case, drop, netns)));
    if let Some(port) = entrance
        && let Some(bridge) = inventory.linux_bridge(port).filter(|bridge| !rules::routes(inventory, *bridge))
    {
        return Way::Bridged { port, bridge };
    }
    match entrance {
        Some(by) => Way::Routed { by, out: exit(case, journey, inventory.linux_bridge(by).unwrap_or(by)) },
        None => Way::Local { out: drop.link },
    }
}

/// By which port packets to another instance come into the bridge that is its alone, if a device is of that.
fn towards_another(case: &Case<'_, '_>, device: LinkKey) -> Option<(LinkKey, LinkKey)> {
    let inventory = case.inventory;
    case.points.others.get(&device)?;
    let bridge = inventory.linux_bridge(device).or_else(|| inventory.bridge_ports(device).next().map(|_| device))?;
    let nics = || inventory.instances.iter().flat_map(|instance| &instance.nics);
    let mut ports = inventory.bridge_ports(bridge).map(|(port, _)| port);
    ports.find(|port| nics().all(|nic| nic.outer != Some(*port))).map(|port| (port, bridge))
}

/// Whether the packet begins in a namespace, whose address it is from: the instance's, or that of a router which complains.
fn begins(case: &Case<'_, '_>, drop: &Drop, netns: NetnsId) -> bool {
    let source = drop.headers.innermost().addresses().map(|(source, _)| source);
    source.is_some_and(|source| case.inventory.holder(netns, source).is_some())
}

/// The device of the same namespace that the packet was to leave by.
fn exit(case: &Case<'_, '_>, journey: &Journey, link: LinkKey) -> Option<LinkKey> {
    let track = case.points.tracks.get(journey.track)?;
    let here = track.stops.iter().position(|stop| stop.link == link)?;
    let next = track.at(track.position(here, journey.direction) + 1, journey.direction)?;
    (next.link.netns == link.netns).then_some(next.link)
}

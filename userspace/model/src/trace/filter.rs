//! Packet filter rules on a path: which one filters, which one translates, which one kills.
//!
//! Nothing here knows a product's chains: a packet such as the path carries is walked through the rules
//! (`netfilter::walk`), and what it meets is what is shown.

use std::net::IpAddr;

use super::{
    Hop, HopKind, HopState, NetnsRef, RuleRef, Severity,
    command::in_netns,
    outward::Way,
    path::{Path, finding},
};
use crate::{
    fact::METADATA_ADDRESS,
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    netfilter::{Address, Effect, Hook, Known, Outcome, Packet, Step, Walk, recognise::meaning, walk},
};

/// What follows the first packet of a flow.
mod answers;
/// Bridged traffic: security groups of the hybrid plug.
mod bridged;
/// Floating IPs and published ports.
mod entrance;
/// Rules about frames: of bridges and of devices.
mod frames;
/// What security groups mean for the services around a port.
mod groups;
/// Rules inside the instance itself.
mod own;
/// Routed traffic: forward filters and address translation.
mod routed;

pub(super) use bridged::{at_host_device, inward_at_host_device};
pub(crate) use bridged::{between_any, cross};
pub(super) use entrance::{Targets, floating_ips, once, port_words, publications};
pub(super) use frames::{at_bridge, at_devices};
pub(super) use groups::{lets_metadata_out, lets_nobody_in};
pub(super) use own::{lets_in, lets_out};
pub(super) use routed::{routed, routed_inward};

/// The rule that sends metadata requests that come in by a device to a proxy.
pub(super) fn metadata_redirect(inventory: &Inventory<'_>, inside: LinkKey) -> Option<RuleRef> {
    let device = inventory.link(inside)?.name.clone();
    let destination = Address::Is(IpAddr::from(METADATA_ADDRESS));
    let packet = Packet { in_device: Known::Is(device), ..Packet::between(Address::Unknown, destination).tcp(80) };
    let walked = ask(inventory, inside.netns, Hook::Prerouting, packet);
    let step = walked.steps.iter().find(|step| matches!(step.effect, Effect::Dnat(Address::Local, _)))?;
    Some(rule_ref(inventory, inside.netns, step))
}

/// Walks a packet through one hook of a namespace.
pub(crate) fn ask(inventory: &Inventory<'_>, netns: NetnsId, hook: Hook, packet: Packet) -> Walk {
    let rulesets: Vec<_> = inventory.rulesets(netns).iter().collect();
    walk(&rulesets, hook, packet)
}

/// A rule the packet met, as a reader wants to see it.
pub(crate) fn rule_ref(inventory: &Inventory<'_>, netns: NetnsId, step: &Step) -> RuleRef {
    RuleRef {
        backend: step.backend,
        netns: inventory.netns(netns),
        table: step.table.clone(),
        chain: step.chain.clone(),
        number: step.number.unwrap_or(0) as usize,
        rule: step.raw.clone(),
        counters: step.counters,
        meaning: recognised(inventory, netns, step).unwrap_or_else(|| effect(step)),
    }
}

/// What the rule is for, where its maker is known.
fn recognised(inventory: &Inventory<'_>, netns: NetnsId, step: &Step) -> Option<String> {
    let place = usize::try_from(step.number?).ok()?.checked_sub(1)?;
    let rulesets = inventory.rulesets(netns).iter().filter(|ruleset| ruleset.backend == step.backend);
    let mut tables = rulesets.flat_map(|ruleset| &ruleset.tables).filter(|table| table.name == step.table);
    let rule = tables.find_map(|table| {
        let rule = table.chain(&step.chain)?.rules.get(place)?;
        (rule.raw == step.raw).then_some(rule)
    })?;
    meaning(rule, &step.chain)
}

/// What a rule does to the packet, in words.
fn effect(step: &Step) -> String {
    let what = match &step.effect {
        Effect::Accept => "lets it through".to_owned(),
        Effect::Drop => "drops it".to_owned(),
        Effect::Reject(None) => "rejects it".to_owned(),
        Effect::Reject(Some(with)) => format!("rejects it with {with}"),
        Effect::Return => "goes back to the chain before".to_owned(),
        Effect::Jump(chain) | Effect::Goto(chain) => format!("goes on in {chain}"),
        Effect::Dnat(to, port) => format!("destination becomes {}", translated(*to, *port)),
        Effect::Snat(to, port) => format!("source becomes {}", translated(*to, *port)),
        Effect::Mark => "marks it".to_owned(),
        Effect::Zone(zone) => format!("tracks it in zone {zone}"),
        Effect::NoTrack => "is not tracked".to_owned(),
        Effect::Pass => "counts it".to_owned(),
        Effect::Queue => "hands it to a process".to_owned(),
        Effect::Unknown => "is not understood".to_owned(),
    };
    if step.certain { what } else { format!("{what}, if it matches") }
}

fn translated(to: Address, port: Known<u16>) -> String {
    let address = match to {
        Address::Is(address) => address.to_string(),
        Address::Local => "the device's own address".to_owned(),
        Address::Unknown | Address::Outside => "an unknown address".to_owned(),
    };
    port.value().map_or(address.clone(), |port| format!("{address} port {port}"))
}

/// Where rules were asked.
struct Place<'p> {
    netns: NetnsId,
    label: &'p NetnsRef,
    name: String,
    /// What is filtered, for the sentence: `packets from 10.0.0.2 to the outside`.
    what: &'p str,
}

/// Adds a filter as a hop, if any rule there has a say, and reports a rule that kills.
fn push_filter(path: &mut Path, inventory: &Inventory<'_>, place: &Place<'_>, walked: &Walk) {
    let deciding = walked.deciding();
    let rules: Vec<_> = walked
        .steps
        .iter()
        .filter(|step| deciding == Some(*step) || has_a_say(inventory, place.netns, step))
        .map(|step| rule_ref(inventory, place.netns, step))
        .collect();
    if rules.is_empty() && walked.outcome == Outcome::Accept {
        return;
    }
    let (state, status) = match &walked.outcome {
        Outcome::Accept => (HopState::Ok, "lets through".to_owned()),
        Outcome::Drop { reject, .. } => (HopState::Broken, if *reject { "rejects" } else { "drops" }.to_owned()),
        Outcome::Unknown { .. } => (HopState::Unknown, "depends on the packet".to_owned()),
    };
    let detail = match &walked.outcome {
        Outcome::Unknown { why, .. } => vec![("depends on".to_owned(), why.clone())],
        Outcome::Accept | Outcome::Drop { .. } => Vec::new(),
    };
    let save = walked.deciding().or(walked.steps.first()).map_or("iptables-save", save_command);
    path.push(Hop {
        kind: HopKind::Filter,
        name: place.name.clone(),
        netns: Some(place.label.clone()),
        state,
        status,
        rules,
        detail,
        verify: vec![in_netns(inventory, place.netns, save)],
        ..Hop::default()
    });
    let (Outcome::Drop { .. }, Some(step)) = (&walked.outcome, walked.deciding()) else { return };
    let rule = step.number.map_or_else(
        || format!("the policy of {} {}", step.table, step.chain),
        |number| format!("rule {number} of {} {}", step.table, step.chain),
    );
    path.report(
        finding(
            Severity::Error,
            "filter-drop",
            &place.label.label,
            format!("{} die in {}: {rule}", place.what, place.label.label),
        )
        .seen(step.raw.clone())
        .verify(in_netns(inventory, place.netns, save_command(step))),
    );
}

/// Whether a reader wants to see a rule: it decides, or its maker's words say what it is for. Chains are full of others,
/// which only lead on or come back.
fn has_a_say(inventory: &Inventory<'_>, netns: NetnsId, step: &Step) -> bool {
    match step.effect {
        _ if step.number.is_none() => false,
        Effect::Drop | Effect::Reject(_) | Effect::Queue | Effect::Unknown => true,
        Effect::Accept => step.certain || recognised(inventory, netns, step).is_some(),
        Effect::Return => recognised(inventory, netns, step).is_some(),
        Effect::Jump(_)
        | Effect::Goto(_)
        | Effect::Dnat(..)
        | Effect::Snat(..)
        | Effect::Mark
        | Effect::Zone(_)
        | Effect::NoTrack
        | Effect::Pass => false,
    }
}

/// The command that shows a rule by hand.
fn save_command(step: &Step) -> &'static str {
    match step.backend {
        crate::fact::RuleBackend::IptablesLegacy => "iptables-legacy-save -c",
        crate::fact::RuleBackend::IptablesNft => "iptables-nft-save -c",
        crate::fact::RuleBackend::Nft => "nft list ruleset",
    }
}

/// The instance's own address, which rules near it are asked about.
fn source(way: &Way<'_, '_>) -> Address {
    way.source.map_or(Address::Unknown, Address::Is)
}

/// Name of a link, as a field of a packet.
fn device(inventory: &Inventory<'_>, key: LinkKey) -> Known<String> {
    inventory.link(key).map_or(Known::Unknown, |link| Known::Is(link.name.clone()))
}

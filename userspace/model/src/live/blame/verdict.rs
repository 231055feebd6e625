//! netdiag's own verdicts, the strongest witness there is: the packet is the same by its addresses and its time.

use std::net::IpAddr;

use ipnet::IpNet;
use netdiag_common::abi::reason::Reason;

use super::{Blame, Case, Code, Journey, last_headers, last_hop, lower};
use crate::{
    event::{Decision, VerdictEvent},
    groups::{self, Asking},
    id::LinkKey,
    inventory::{Instance, Nic},
    live::{
        packet::{Headers, Ip},
        words,
    },
    trace::{Hop, HopKind},
};

/// A packet of netdiag's own verdicts is taken for one that was seen if no more lies between them.
const NEAR_NS: u64 = 1_000_000_000;

/// What netdiag itself says of a packet that it refused.
pub(super) fn blame(case: &Case<'_, '_>, journey: &Journey) -> Option<Blame> {
    let headers = last_headers(journey)?;
    let event = event(case, journey, headers)?;
    let meaning = Reason::ALL.iter().find(|reason| reason.name() == event.reason).map(|reason| reason.meaning());
    let near = nearest(case, headers.ip()?, event);
    let whose = event.instance.clone().unwrap_or_else(|| event.port_id.clone());
    let what = words::packet(headers);
    let guilty = match &near {
        Some(near) => format!("security groups of {whose}: {near}"),
        None => format!("security groups of {whose}"),
    };
    let why = near.map_or_else(String::new, |near| format!("; {near}"));
    let meaning =
        meaning.map_or_else(|| event.reason.clone(), |meaning| meaning.trim().trim_end_matches('.').to_owned());
    Some(Blame {
        direction: journey.direction,
        hop: group_hop(case, journey, event).or_else(|| last_hop(case, journey)),
        place: event.device.clone().unwrap_or_else(|| event.port_id.clone()),
        code: Code::SecurityGroup,
        reason: Some(event.reason.clone()),
        guilty: Some(guilty),
        rules: Vec::new(),
        sentence: format!("{what} is refused by the security groups of {whose}: {}{why}", lower(&meaning)),
        evidence: format!("netdiag's own verdict on this packet: {} ({})", event.reason, event.direction.name()),
        verify: Some(format!("netdiag sg show {}", crate::trace::quote(&whose))),
        fix: Some("add a rule that allows it, if it is meant to pass".to_owned()),
    })
}

/// The refusal that is about this packet.
fn event<'c>(case: &Case<'c, '_>, journey: &Journey, headers: &Headers) -> Option<&'c VerdictEvent> {
    let died = journey.drop().map(|drop| drop.time_ns);
    let died = died.or_else(|| journey.steps.last().map(|step| step.time_ns))?;
    let is_it = |event: &&VerdictEvent| {
        event.verdict == Decision::Deny
            && event.time_ns.abs_diff(died) <= NEAR_NS
            && is_about(case, journey, event, headers)
            && is_on_its_way(case, journey, event)
    };
    case.verdicts.iter().filter(is_it).min_by_key(|event| event.time_ns.abs_diff(died))
}

fn is_about(case: &Case<'_, '_>, journey: &Journey, event: &VerdictEvent, headers: &Headers) -> bool {
    let Some(ip) = headers.ip() else { return false };
    let ports = headers.ports().filter(|_| ip.transport.ports().is_some());
    // A floating IP is translated where its packets are judged: either address may be the one that was seen.
    let own = case.points.tracks.get(journey.track).map_or(&[][..], |track| &track.own);
    let same = |seen: IpAddr, judged: Option<IpAddr>| {
        judged.is_some_and(|judged| judged == seen || (own.contains(&judged) && own.contains(&seen)))
    };
    event.protocol == Some(ip.protocol)
        && same(ip.source, event.source)
        && same(ip.destination, event.destination)
        && ports.is_none_or(|ports| ports == (event.source_port, event.destination_port))
}

/// Whether the port that judged is one the packet can have come to. Another tenant's instances may have the same addresses, and
/// send the same.
fn is_on_its_way(case: &Case<'_, '_>, journey: &Journey, event: &VerdictEvent) -> bool {
    let inventory = case.inventory;
    let nics = || inventory.instances.iter().flat_map(|instance| &instance.nics);
    let behind = |device: &str| {
        nics().find(|nic| nic.outer.and_then(|outer| inventory.link(outer)).is_some_and(|link| link.name == device))
    };
    let own = case.trace.interfaces.get(journey.track).and_then(|interface| behind(interface.host_device.as_deref()?));
    let Some((own, judged)) = own.zip(event.device.as_deref().and_then(behind)) else { return true };
    let is_alike = |nic: &&Nic<'_>| {
        let mut addresses = nic.addresses.iter().map(IpNet::addr);
        addresses.any(|address| judged.addresses.iter().any(|other| other.addr() == address))
    };
    nics().filter(is_alike).count() < 2 || network(own) == network(judged)
}

/// What a card is plugged into: a VLAN of a switch, or a Linux bridge.
fn network<'n>(nic: &Nic<'n>) -> (Option<(&'n str, Option<u16>)>, Option<LinkKey>) {
    let port = nic.port.map(|port| (port.bridge.name.as_str(), port.port.tag));
    (port, nic.bridge.filter(|_| port.is_none()))
}

/// The rule that nearly allows a packet, in words.
fn nearest(case: &Case<'_, '_>, ip: &Ip, event: &VerdictEvent) -> Option<String> {
    let (from, to) = (ip.source.to_string(), ip.destination.to_string());
    let service = (event.destination_port > 0).then_some(event.destination_port);
    let asking = Asking { from: &from, to: &to, protocol: ip.protocol, service };
    let explained = groups::explain(case.inventory, judged(case, event), &asking).ok()?;
    let near = explained.near.first()?;
    Some(format!("rule {} nearly allows it: it {}", near.rule.id, near.why))
}

/// The instance whose groups have judged: the one that is followed, or one it talks to.
fn judged<'c, 'a>(case: &Case<'c, 'a>, event: &VerdictEvent) -> &'c Instance<'a> {
    let is_it = |one: &&Instance<'_>| event.instance.as_ref() == Some(&one.identity.name);
    case.inventory.instances.iter().find(is_it).unwrap_or(case.instance)
}

/// The hop of the security groups in the packet's direction, where they are those of the instance.
fn group_hop(case: &Case<'_, '_>, journey: &Journey, event: &VerdictEvent) -> Option<usize> {
    let interface = case.trace.interfaces.get(journey.track)?;
    if event.device.is_some() && event.device != interface.host_device {
        return None;
    }
    let is_it = |hop: &&Hop| hop.kind == HopKind::SecurityGroup && hop.direction == journey.direction;
    interface.hops.iter().find(is_it).map(|hop| hop.number)
}

//! Security groups as netdiag enforces them: its own pinned maps, read without the agent. Flow: discover.
//!
//! The agent knows more: what is asked, why a port is refused. It is asked where it answers.

use std::{collections::BTreeMap, path::Path};

use netdiag_common::{
    ABI_VERSION,
    abi::{
        floating::{FLOATING_BEGINS, Floating, FloatingKey, Way},
        flow::{FLOW_DEAD, FLOW_INGRESS, Flow, Tick},
        policy::{
            Label, PORT_CLOSED, PORT_MANAGED, PORT_TRUSTED, Port, VIEW_STATELESS, active_generation, active_view,
        },
        reason::Reason,
    },
    logic::flow::{State, expired, protocol},
};
use netdiag_model::{
    compile::Tables,
    compile::groups,
    fact::{
        Facts, Gap, SourceKind,
        enforcement::{EnforcedPort, EnforcementFact, FlowFact, LoadedFloating, LoadedRule, ReasonCount, WayCount},
    },
    id::{IfIndex, Mac},
    policy::types::{Direction, Mode},
};

use super::{Scope, chain, report};
use crate::enforce::{
    PortCounters, Tracked, Ways, label_text,
    look::{Loaded, LookError, look},
};

/// What the agent adds.
mod agent;
/// Compiled tables as facts.
mod tables;

/// Reads the pinned maps, and asks the agent what it adds.
pub(super) async fn read(scope: &Scope) -> Facts {
    let directory = scope.options.pin_dir.clone();
    let how = format!("maps pinned at {}", directory.display());
    let Some(host) = scope.namespaces.iter().find(|namespace| namespace.host).cloned() else {
        let why = "the host's network namespace was not found".to_owned();
        return report(SourceKind::Enforcement, how, vec![gap(&directory.display().to_string(), why, false)]);
    };
    let (pinned, flows) = (directory.clone(), scope.options.flows);
    let object = directory.display().to_string();
    match host.run(move || look(&pinned)).await {
        Ok(Ok(loaded)) => {
            let (fact, mut gaps) = fact(&loaded, flows);
            let (fact, gap) = agent::ask(fact, &scope.options).await;
            gaps.extend(gap);
            Facts { enforcement: Some(fact), ..report(SourceKind::Enforcement, how, gaps) }
        }
        Ok(Err(error)) => {
            let absent = matches!(error, LookError::Nothing { .. });
            report(SourceKind::Enforcement, how, vec![gap(&object, chain(&error), absent)])
        }
        Err(error) => report(SourceKind::Enforcement, how, vec![gap(&object, chain(&error), false)]),
    }
}

/// What is loaded now, for the agent that loaded it: it is in the namespace whose devices are enforced.
///
/// # Errors
/// Why it could not be read, in words.
pub(crate) fn now(root: &Path, list_flows: bool) -> Result<EnforcementFact, String> {
    look(root).map(|loaded| fact(&loaded, list_flows).0).map_err(|error| chain(&error))
}

fn gap(object: &str, why: String, absent: bool) -> Gap {
    let fix = if absent {
        "nothing for tracing; `netdiag agent` enforces security groups"
    } else {
        "run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN, with the netdiag that enforces"
    };
    Gap { source: SourceKind::Enforcement, netns: None, object: object.to_owned(), why, fix: fix.to_owned(), absent }
}

/// What was read as facts, and what could not be told.
fn fact(loaded: &Loaded, list_flows: bool) -> (EnforcementFact, Vec<Gap>) {
    let flows = flows_by_slot(loaded);
    let mut gaps = Vec::new();
    let mut ports = Vec::new();
    for (ifindex, slot) in &loaded.tables.interfaces {
        let Some(port) = loaded.tables.ports.get(slot).filter(|port| port.flags & PORT_MANAGED != 0) else { continue };
        let mut enforced = enforced(loaded, *slot, port);
        enforced.ifindex = IfIndex(*ifindex);
        enforced.flows = flows.get(slot).copied().unwrap_or(0);
        match loaded.hooks.get(ifindex) {
            Some(Ok(hooks)) => enforced.hooks.clone_from(hooks),
            Some(Err(error)) => gaps.push(gap(&format!("programs of device {ifindex}"), chain(error), false)),
            None => {}
        }
        ports.push(enforced);
    }
    let fact = EnforcementFact {
        pinned: loaded.pinned.display().to_string(),
        abi: ABI_VERSION.into(),
        ports,
        rules: rules(loaded),
        flows: flows.values().sum(),
        tables: Some(tables::loaded(&loaded.tables)),
        floating: floating(loaded),
        tracked: list_flows.then(|| tracked(loaded)),
        ..EnforcementFact::default()
    };
    (fact, gaps)
}

fn enforced(loaded: &Loaded, slot: u32, port: &Port) -> EnforcedPort {
    let Tables { active, views, port_labels, policy_labels, .. } = &loaded.tables;
    let word = active.get(&port.policy).copied().unwrap_or(0);
    let view = views.get(&active_view(word));
    let counters = loaded.counters.get(&slot);
    let losses = counters.map(|counters| counters.losses).unwrap_or_default();
    EnforcedPort {
        slot,
        port_id: port_labels.get(&slot).map_or_else(|| slot.to_string(), |label| label_text(label, slot)),
        ifindex: IfIndex(0),
        mac: Mac(port.mac),
        mode: mode(port),
        stateless: view.is_some_and(|view| view.flags & VIEW_STATELESS != 0),
        groups: policy_labels.get(&port.policy).map(groups).unwrap_or_default(),
        generation: active_generation(word),
        hooks: Vec::new(),
        counters: counters.map(counts).unwrap_or_default(),
        ways: loaded.ways.get(&slot).map(ways).unwrap_or_default(),
        flows: 0,
        suppressed: losses.suppressed,
        lost: losses.lost,
    }
}

const fn mode(port: &Port) -> Mode {
    if port.flags & PORT_TRUSTED != 0 {
        Mode::Trusted
    } else if port.flags & PORT_CLOSED != 0 {
        Mode::Closed
    } else {
        Mode::Filtered
    }
}

fn counts(counters: &PortCounters) -> Vec<ReasonCount> {
    let count = |(&(ingress, reason), tally): (&(bool, u8), &netdiag_common::abi::value::Tally)| ReasonCount {
        direction: direction(ingress),
        reason: Reason::try_from(reason)
            .map_or_else(|unknown| format!("reason-{}", unknown.0), |reason| reason.name().to_owned()),
        packets: tally.packets,
        bytes: tally.bytes,
    };
    counters.tallies.iter().map(count).collect()
}

fn ways(ways: &Ways) -> Vec<WayCount> {
    let count = |(&(ingress, way), tally): (&(bool, Way), &netdiag_common::abi::value::Tally)| WayCount {
        direction: direction(ingress),
        way: way.name().to_owned(),
        packets: tally.packets,
        bytes: tally.bytes,
    };
    ways.iter().map(count).collect()
}

/// Floating IPs that go past their routers.
fn floating(loaded: &Loaded) -> Vec<LoadedFloating> {
    let one = |(key, floating): (&FloatingKey, &Floating)| LoadedFloating {
        floating: tables::ipv4(key.address),
        fixed: tables::ipv4(floating.fixed),
        slot: floating.slot,
        ifindex: IfIndex(key.device),
        vlan: u16::try_from(key.vlan).unwrap_or_default(),
        begins: floating.flags & FLOATING_BEGINS != 0,
    };
    loaded.floating.floating.iter().map(one).collect()
}

const fn direction(ingress: bool) -> Direction {
    if ingress { Direction::Ingress } else { Direction::Egress }
}

fn rules(loaded: &Loaded) -> Vec<LoadedRule> {
    let rule = |(index, label): (&u32, &Label)| LoadedRule {
        index: *index,
        id: label_text(label, *index),
        hits: loaded.hits.get(index).copied().unwrap_or(0),
    };
    loaded.tables.rule_labels.iter().map(rule).collect()
}

// === flows ===

fn flows_by_slot(loaded: &Loaded) -> BTreeMap<u32, u64> {
    let mut flows = BTreeMap::new();
    let slots4 = loaded.flows.ipv4.iter().map(|tracked| (tracked.key.slot, tracked.key.protocol, &tracked.flow));
    let slots6 = loaded.flows.ipv6.iter().map(|tracked| (tracked.key.slot, tracked.key.protocol, &tracked.flow));
    for (slot, protocol, flow) in slots4.chain(slots6) {
        let slot = u32::from(slot);
        // What nobody has removed yet is no flow any more.
        if is_of_port(loaded, slot, flow) && !expired(flow, protocol, loaded.now) {
            *flows.entry(slot).or_default() += 1;
        }
    }
    flows
}

/// True for a flow of the port that is at the place now, rather than of one before it.
fn is_of_port(loaded: &Loaded, slot: u32, flow: &Flow) -> bool {
    loaded.tables.ports.get(&slot).is_some_and(|port| port.epoch == flow.epoch)
}

fn tracked(loaded: &Loaded) -> Vec<FlowFact> {
    let flows4 = loaded.flows.ipv4.iter().map(|Tracked { key, flow, .. }| {
        let (local, remote) = (tables::ipv4(key.local).into(), tables::ipv4(key.remote).into());
        let ports = (key.local_port, key.remote_port);
        flow_fact(key.slot.into(), key.protocol, FlowFact { local, remote, ..empty(flow, loaded.now) }, ports)
    });
    let flows6 = loaded.flows.ipv6.iter().map(|Tracked { key, flow, .. }| {
        let (local, remote) = (tables::ipv6(key.local).into(), tables::ipv6(key.remote).into());
        let ports = (key.local_port, key.remote_port);
        flow_fact(key.slot.into(), key.protocol, FlowFact { local, remote, ..empty(flow, loaded.now) }, ports)
    });
    let now = loaded.now;
    let with_end = |(fact, flow): (FlowFact, &Flow)| FlowFact { expired: expired(flow, fact.protocol, now), ..fact };
    let flows = loaded.flows.ipv4.iter().map(|tracked| &tracked.flow);
    let flows = flows.chain(loaded.flows.ipv6.iter().map(|tracked| &tracked.flow));
    let facts = flows4.chain(flows6).zip(flows).filter(|(fact, flow)| is_of_port(loaded, fact.slot, flow));
    facts.map(with_end).collect()
}

/// What the value says of a flow; the key is not known yet.
fn empty(flow: &Flow, now: Tick) -> FlowFact {
    FlowFact {
        slot: 0,
        direction: direction(flow.flags & FLOW_INGRESS != 0),
        protocol: 0,
        local: std::net::Ipv4Addr::UNSPECIFIED.into(),
        local_port: 0,
        remote: std::net::Ipv4Addr::UNSPECIFIED.into(),
        remote_port: 0,
        state: State::of(flow.state).name().to_owned(),
        rule: flow.rule,
        age: seconds(now.wrapping_sub(flow.born)),
        idle: seconds(now.wrapping_sub(flow.seen)),
        dead: flow.flags & FLOW_DEAD != 0,
        expired: false,
    }
}

/// What the key says of a flow.
fn flow_fact(slot: u32, number: u8, fact: FlowFact, (local, remote): (u16, u16)) -> FlowFact {
    // Of an ICMP request the upper octet says which end asked; the lower one is its type.
    let kind = u16::from_be(remote) & 0xff;
    let remote_port = if protocol::has_ports(number) { u16::from_be(remote) } else { kind };
    FlowFact { slot, protocol: number, local_port: u16::from_be(local), remote_port, ..fact }
}

/// Ticks to seconds.
fn seconds(ticks: Tick) -> u64 {
    (u64::from(ticks) << 30) / 1_000_000_000
}

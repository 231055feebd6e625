//! The flows the datapath tracks, by the names of those they belong to. Flow: observe.

use std::{
    cmp::{Ordering, Reverse},
    collections::BTreeMap,
};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    fact::{
        Gap, SourceKind,
        enforcement::{FlowFact, has_ports},
    },
    inventory::{Enforcement, Instance, Inventory, Nic},
    policy::types::Direction,
};

/// The answer of `netdiag flows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Flows {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// The instance asked for; none for all.
    pub instance: Option<String>,
    /// What there is.
    pub known: Known,
    /// How many flows are tracked, of this instance or of all; the rows are those the filter lets through.
    pub total: usize,
    /// The flows.
    pub rows: Vec<FlowRow>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
}

/// Whether the flows are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Known {
    /// They are.
    Read,
    /// Nothing of netdiag is loaded, or nothing at this instance: nothing is tracked.
    NotEnforced,
    /// They could not be read, or the snapshot holds none.
    Unread,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowRow {
    /// The instance; none where no instance of this host has the port.
    pub instance: Option<String>,
    /// The port's id.
    pub port_id: String,
    /// Name of the host's device.
    pub device: Option<String>,
    /// Id of the rule that allows it; none where no rule of that number is loaded any more.
    pub rule: Option<String>,
    /// What is tracked.
    pub flow: FlowFact,
}

/// Which flows to show; what is none lets all through.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowFilter {
    /// Address or prefix of either end.
    pub address: Option<IpNet>,
    /// Port of either end.
    pub port: Option<u16>,
    /// IP protocol.
    pub protocol: Option<u8>,
    /// Which way it began.
    pub direction: Option<Direction>,
    /// Word of its state; `dead` and `expired` too.
    pub state: Option<String>,
    /// Id of the rule, or its beginning.
    pub rule: Option<String>,
}

/// In which order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FlowOrder {
    /// By instance, direction, protocol and addresses.
    #[default]
    Address,
    /// The last one heard of first.
    Idle,
    /// The youngest first.
    Age,
}

impl FlowFilter {
    fn lets_through(&self, row: &FlowRow) -> bool {
        let flow = &row.flow;
        let word = |state: &String| state == row.word() || (state == &flow.state && !flow.dead);
        self.address.is_none_or(|net| net.contains(&flow.local) || net.contains(&flow.remote))
            && self
                .port
                .is_none_or(|port| has_ports(flow.protocol) && (flow.local_port == port || flow.remote_port == port))
            && self.protocol.is_none_or(|protocol| flow.protocol == protocol)
            && self.direction.is_none_or(|direction| flow.direction == direction)
            && self.state.as_ref().is_none_or(word)
            && self.rule.as_ref().is_none_or(|rule| row.rule.as_ref().is_some_and(|own| own.starts_with(rule)))
    }
}

impl FlowRow {
    /// Its state in one word: that it is dead or expired says more than how far it had come.
    pub fn word(&self) -> &str {
        match &self.flow {
            FlowFact { dead: true, .. } => "dead",
            FlowFact { expired: true, .. } => "expired",
            FlowFact { state, .. } => state,
        }
    }
}

/// The flows of one instance, or of all.
pub fn flows(
    inventory: &Inventory<'_>,
    instance: Option<&Instance<'_>>,
    filter: &FlowFilter,
    order: FlowOrder,
) -> Flows {
    let facts = &inventory.snapshot.facts;
    let owners = owners(inventory, instance);
    let tracked = facts.enforcement.as_ref().and_then(|loaded| loaded.tracked.as_ref());
    let mine = |flow: &&FlowFact| instance.is_none() || owners.contains_key(&flow.slot);
    let mine: Vec<&FlowFact> = tracked.into_iter().flatten().filter(mine).collect();
    let rules = rules(inventory);
    let total = mine.len();
    let rows = mine.into_iter().map(|flow| row(flow, &owners, &rules));
    let mut rows: Vec<FlowRow> = rows.filter(|row| filter.lets_through(row)).collect();
    sort(&mut rows, order);
    Flows {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        instance: instance.map(|instance| instance.identity.name.clone()),
        known: known(inventory, instance, !owners.is_empty()),
        total,
        rows,
        gaps: facts.gaps().filter(|gap| gap.source == SourceKind::Enforcement && !gap.absent).cloned().collect(),
    }
}

fn known(inventory: &Inventory<'_>, instance: Option<&Instance<'_>>, enforced: bool) -> Known {
    let facts = &inventory.snapshot.facts;
    let unread = facts.gaps().any(|gap| gap.source == SourceKind::Enforcement && !gap.absent);
    match &facts.enforcement {
        None if unread => Known::Unread,
        None => Known::NotEnforced,
        Some(_) if instance.is_some() && !enforced => Known::NotEnforced,
        Some(loaded) if loaded.tracked.is_none() => Known::Unread,
        Some(_) => Known::Read,
    }
}

/// Who a port belongs to.
struct Owner {
    instance: Option<String>,
    port_id: String,
    device: Option<String>,
}

/// The owners of all ports by slot, or the ports of one instance.
fn owners(inventory: &Inventory<'_>, only: Option<&Instance<'_>>) -> BTreeMap<u32, Owner> {
    let mut owners = BTreeMap::new();
    let ports = inventory.snapshot.facts.enforcement.as_ref().map_or(&[][..], |loaded| &loaded.ports);
    for port in ports.iter().filter(|_| only.is_none()) {
        owners.insert(port.slot, Owner { instance: None, port_id: port.port_id.clone(), device: None });
    }
    let all = only.map_or(&inventory.instances[..], std::slice::from_ref);
    for (instance, nic) in all.iter().flat_map(|instance| instance.nics.iter().map(move |nic| (instance, nic))) {
        if let Enforcement::Port(port) = inventory.enforcement(nic) {
            owners.insert(port.slot, owner(inventory, instance, nic, &port.port_id));
        }
    }
    owners
}

fn owner(inventory: &Inventory<'_>, instance: &Instance<'_>, nic: &Nic<'_>, port_id: &str) -> Owner {
    Owner {
        instance: Some(instance.identity.name.clone()),
        port_id: port_id.to_owned(),
        device: nic.outer_name(inventory).map(str::to_owned),
    }
}

/// Ids of the rules in force, by number.
fn rules<'a>(inventory: &Inventory<'a>) -> BTreeMap<u32, &'a str> {
    let rules = inventory.snapshot.facts.enforcement.as_ref().map_or(&[][..], |loaded| &loaded.rules);
    rules.iter().map(|rule| (rule.index, rule.id.as_str())).collect()
}

fn row(flow: &FlowFact, owners: &BTreeMap<u32, Owner>, rules: &BTreeMap<u32, &str>) -> FlowRow {
    let owner = owners.get(&flow.slot);
    FlowRow {
        instance: owner.and_then(|owner| owner.instance.clone()),
        port_id: owner.map_or_else(|| format!("slot {}", flow.slot), |owner| owner.port_id.clone()),
        device: owner.and_then(|owner| owner.device.clone()),
        rule: rules.get(&flow.rule).map(|id| (*id).to_owned()),
        flow: flow.clone(),
    }
}

/// Sorts rows; whatever the order, the same flows come out the same way.
fn sort(rows: &mut [FlowRow], order: FlowOrder) {
    match order {
        FlowOrder::Address => rows.sort_by(by_address),
        FlowOrder::Idle => rows.sort_by(|a, b| a.flow.idle.cmp(&b.flow.idle).then_with(|| by_address(a, b))),
        FlowOrder::Age => rows.sort_by(|a, b| a.flow.age.cmp(&b.flow.age).then_with(|| by_address(a, b))),
    }
}

/// By owner, those without an instance last; what comes in before what goes out; then by protocol and ends.
fn by_address(a: &FlowRow, b: &FlowRow) -> Ordering {
    fn key(row: &FlowRow) -> impl Ord + '_ {
        let flow = &row.flow;
        let owner = (row.instance.is_none(), row.instance.as_deref(), row.port_id.as_str());
        let ends = (flow.local, flow.local_port, flow.remote, flow.remote_port);
        (owner, Reverse(flow.direction), flow.protocol, ends)
    }
    key(a).cmp(&key(b))
}

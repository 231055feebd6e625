//! What one look at a host gave, in the shape the tabs show. Made once, away from the screen, of the same models the
//! commands print.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use netdiag_model::{
    doctor::{self, Report},
    fact::{LinkStats, SourceKind, enforcement::EnforcedPort},
    floating::show::{self, Listed},
    groups::{self, FlowFilter, FlowOrder, Flows, Shown, ShownRule, Standing},
    inventory::{Enforcement, Inventory},
    list::{Listing, RowInterface},
    live::rates::{Amount, Rate},
    policy::types::Direction,
    snapshot::Snapshot,
    status::Status,
    trace::{self, Identity, Trace},
};

use super::sheet::{Health, hops};

/// What the agent says and does.
mod agent;

pub(crate) use agent::Fact;

/// What a snapshot does not hold, and whoever looks at a live host can find out beside it.
#[derive(Clone, Debug, Default)]
pub struct Extra {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub at_ms: u64,
    /// What the agent says of itself.
    pub agent: Agent,
    /// What the host can and cannot do; where it was not asked, what follows from the snapshot is shown.
    pub doctor: Option<Report>,
    /// How long looking took, in milliseconds.
    pub took_ms: u64,
}

/// What the agent says of itself.
#[derive(Clone, Debug, Default)]
pub enum Agent {
    /// It was not asked: this is not a live host.
    #[default]
    Unasked,
    /// Why it does not answer.
    Silent(String),
    /// Its answer, and the share of a core it uses in thousandths, where that is known.
    Answers(Box<Status>, Option<u32>),
}

/// One look.
#[derive(Clone, Debug)]
pub struct Look {
    /// What it was made of.
    pub(crate) snapshot: Arc<Snapshot>,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: u64,
    /// Instances.
    pub(crate) listing: Listing,
    /// The same, one for each interface.
    pub(crate) interfaces: Vec<Card>,
    /// Counters of host devices, by interface.
    counters: HashMap<String, LinkStats>,
    /// Security groups of each instance.
    pub(crate) shown: Vec<Shown>,
    /// Groups and rules of all of them.
    pub(crate) rules: Vec<GroupRule>,
    /// What goes past routers each second, by the port of the instance: all flows of a port together.
    past_router: HashMap<String, Rate>,
    /// Instances by their ports.
    owners: HashMap<String, String>,
    /// The places of a rule among them, by its id.
    places: HashMap<String, Vec<usize>>,
    /// Members of groups, those of this host: id, and name and instances.
    pub(crate) groups: BTreeMap<String, Group>,
    /// Tracked connections.
    pub(crate) flows: Flows,
    /// Floating IPs and their ways.
    pub(crate) floating: Listed,
    /// What the agent says.
    pub(crate) status: Option<Status>,
    /// What there is to say of the agent.
    pub(crate) agent: Vec<Fact>,
    /// What the host can and cannot do.
    pub(crate) doctor: Report,
    /// Only those checks were made that follow from the snapshot.
    pub(crate) doctor_partial: bool,
    /// How each source fared.
    pub(crate) sources: Vec<(SourceKind, Health)>,
}

/// An interface of an instance, or an instance without any.
#[derive(Clone, Debug, Default)]
pub(crate) struct Card {
    /// Place of the instance.
    pub(crate) instance: usize,
    /// Place of the interface; none where the instance has none.
    pub(crate) interface: Option<usize>,
    /// What it is, whatever place it has.
    pub(crate) id: String,
    /// What goes to and from the instance.
    pub(crate) rates: Option<Rates>,
    /// Packets that were dropped: by security groups, and by the device.
    pub(crate) dropped: u64,
    /// Verdicts of which there is no record.
    pub(crate) lost: u64,
}

/// What goes through an interface in a second, as the instance sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rates {
    /// Bytes to the instance.
    pub in_bytes: u64,
    /// Packets to the instance.
    pub in_packets: u64,
    /// Bytes from it.
    pub out_bytes: u64,
    /// Packets from it.
    pub out_packets: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// A rule, at all ports of this host together.
#[derive(Clone, Debug)]
pub(crate) struct GroupRule {
    /// The group's name, as an operator would say it.
    pub(crate) group: String,
    /// The group's id.
    pub(crate) group_id: String,
    /// The rule; none where the group has none.
    pub(crate) rule: Option<ShownRule>,
    /// Instances at whose ports it is asked for or loaded.
    pub(crate) instances: Vec<String>,
}

/// A group, as far as this host has it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: String,
    /// Instances in it, with their addresses.
    pub(crate) members: Vec<(String, Vec<IpAddr>)>,
}

/// The path of an instance.
#[derive(Clone, Debug)]
pub struct Traced {
    /// Whose.
    pub(crate) id: String,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub(crate) at_ms: u64,
    /// The path.
    pub(crate) trace: Trace,
    /// What its hops have counted, by what they are.
    pub(crate) counters: HashMap<String, LinkStats>,
}

impl Traced {
    /// Explains the path of an instance of a look; none where it has no such instance.
    pub fn explain(snapshot: &Snapshot, id: &str, at_ms: u64) -> Option<Self> {
        let inventory = Inventory::build(snapshot);
        let instance = inventory.instances.iter().find(|one| self::id(&one.identity) == id)?;
        Some(Self::new(id.to_owned(), at_ms, trace::explain(&inventory, instance)))
    }

    pub(crate) fn new(id: String, at_ms: u64, trace: Trace) -> Self {
        let counters = hops::all(&trace).filter_map(|(place, _, hop)| Some((hops::id(place, hop), hop.counters?)));
        Self { id, at_ms, counters: counters.collect(), trace }
    }
}

impl Look {
    /// Joins and explains what a snapshot holds. The look before it gives rates.
    pub fn of(snapshot: &Arc<Snapshot>, extra: Extra, before: Option<&Self>) -> Self {
        let inventory = Inventory::build(snapshot);
        let listing = trace::list(&inventory);
        let counters = counters(&inventory, &listing);
        let shown: Vec<Shown> = inventory.instances.iter().map(|one| groups::show(&inventory, one)).collect();
        let flows = groups::flows(&inventory, None, &FlowFilter::default(), FlowOrder::default());
        let floating = show::list(&inventory, None);
        let agent = agent::facts(snapshot, &extra);
        let rules = rules(&shown);
        let mut look = Self {
            at_ms: extra.at_ms,
            interfaces: Vec::new(),
            counters,
            past_router: before.map(|before| past_router(snapshot, extra.at_ms, before)).unwrap_or_default(),
            owners: owners(&inventory),
            places: places(&rules),
            rules,
            groups: members(&shown),
            listing,
            shown,
            flows,
            floating,
            agent,
            status: match extra.agent {
                Agent::Answers(status, _) => Some(*status),
                Agent::Unasked | Agent::Silent(_) => None,
            },
            doctor_partial: extra.doctor.is_none(),
            doctor: extra.doctor.unwrap_or_else(|| report(snapshot)),
            sources: sources(snapshot),
            snapshot: Arc::clone(snapshot),
        };
        look.interfaces = look.count(before);
        look
    }

    /// What it was made of.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// One line for each interface, with rates where the look before has its counters.
    fn count(&self, before: Option<&Self>) -> Vec<Card> {
        let mut lines = Vec::new();
        for (instance, row) in self.listing.instances.iter().enumerate() {
            let places =
                if row.interfaces.is_empty() { vec![None] } else { (0..row.interfaces.len()).map(Some).collect() };
            for interface in places {
                let card = interface.map(|place| &row.interfaces[place]);
                let id = interface_id(&row.identity, card, interface);
                let port = interface.and_then(|place| self.shown.get(instance)?.ports.get(place));
                let denied = card.and_then(|card| card.enforcement.as_ref());
                let denied = denied.map_or(0, |summary| summary.ingress.dropped + summary.egress.dropped);
                let device = self.counters.get(&id).map_or(0, |stats| stats.rx_dropped + stats.tx_dropped);
                let rates = before.and_then(|before| self.rates(before, &id));
                lines.push(Card {
                    instance,
                    interface,
                    rates,
                    dropped: denied + device,
                    lost: port.map_or(0, |port| port.suppressed + port.lost),
                    id,
                });
            }
        }
        lines
    }

    /// What went through an interface since the look before, in a second. What the host's end sends the instance receives.
    fn rates(&self, before: &Self, id: &str) -> Option<Rates> {
        let millis = self.at_ms.checked_sub(before.at_ms).filter(|millis| *millis > 0)?;
        let (now, then) = (self.counters.get(id)?, before.counters.get(id)?);
        // A device that was made anew counts from 0.
        let rate = |now: u64, then: u64| Some(now.checked_sub(then)?.saturating_mul(1000) / millis);
        Some(Rates {
            in_bytes: rate(now.tx_bytes, then.tx_bytes)?,
            in_packets: rate(now.tx_packets, then.tx_packets)?,
            out_bytes: rate(now.rx_bytes, then.rx_bytes)?,
            out_packets: rate(now.rx_packets, then.rx_packets)?,
            dropped: rate(now.rx_dropped + now.tx_dropped, then.rx_dropped + then.tx_dropped)?,
        })
    }

    /// The same host with this many instances, flows, rules, lines about the agent, and checks.
    #[cfg(test)]
    pub(crate) fn multiplied(&self, number: usize) -> Self {
        let mut look = self.clone();
        let named = |(place, mut row): (usize, netdiag_model::list::Row)| {
            row.identity.name = format!("{}-{place}", row.identity.name);
            row.identity.container_id = None;
            row
        };
        look.listing.instances =
            self.listing.instances.iter().cloned().cycle().take(number).enumerate().map(named).collect();
        look.shown.clear();
        let flows = self.flows.rows.iter().cloned().cycle().take(number).enumerate();
        look.flows.rows = flows
            .map(|(place, mut row)| {
                row.flow.remote_port = u16::try_from(place % 65_536).unwrap_or(0);
                row
            })
            .collect();
        let rules = self.rules.iter().cloned().cycle().take(number).enumerate();
        look.rules = rules
            .map(|(place, mut rule)| {
                rule.group_id = format!("{}-{place}", rule.group_id);
                rule
            })
            .collect();
        let facts = self.agent.iter().cloned().cycle().take(number).enumerate();
        look.agent = facts.map(|(before, fact)| Fact { before, ..fact }).collect();
        let checks = self.doctor.checks.iter().cloned().cycle().take(number).enumerate();
        look.doctor.checks = checks
            .map(|(place, mut check)| {
                check.name = format!("{} {place}", check.name);
                check
            })
            .collect();
        look.interfaces = look.count(None);
        look
    }

    /// What goes past the router each second, in all flows of a port together; none where there was no look before.
    pub(crate) fn past_router(&self, port_id: &str) -> Option<Rate> {
        self.past_router.get(port_id).copied()
    }

    /// Whose a port is.
    pub(crate) fn owner(&self, port_id: &str) -> Option<&str> {
        self.owners.get(port_id).map(String::as_str)
    }

    /// A rule by its id, in each group that has it.
    pub(crate) fn rules_of<'l>(&'l self, id: &str) -> impl Iterator<Item = &'l GroupRule> {
        self.places.get(id).into_iter().flatten().filter_map(|place| self.rules.get(*place))
    }

    /// An instance's row by its identity.
    pub(crate) fn instance(&self, id: &str) -> Option<usize> {
        self.listing.instances.iter().position(|row| self::id(&row.identity) == id)
    }
}

/// What an instance is, whatever it is called.
pub(crate) fn id(identity: &Identity) -> String {
    let nova = || identity.nova_uuid.as_ref().map(ToString::to_string);
    identity.container_id.clone().or_else(nova).unwrap_or_else(|| identity.name.clone())
}

/// What an interface is, whatever place it has.
fn interface_id(identity: &Identity, card: Option<&RowInterface>, place: Option<usize>) -> String {
    let port = card.and_then(|card| card.port_id.as_ref().map(ToString::to_string));
    let device = card.and_then(|card| card.device.clone().or_else(|| card.host_device.clone()));
    let own = port.or(device).or_else(|| place.map(|place| place.to_string())).unwrap_or_default();
    format!("{}/{own}", id(identity))
}

/// Counters of the host's end of every card, by the identity of the interface.
fn counters(inventory: &Inventory<'_>, listing: &Listing) -> HashMap<String, LinkStats> {
    let mut counters = HashMap::new();
    for (instance, row) in inventory.instances.iter().zip(&listing.instances) {
        for (place, nic) in instance.nics.iter().enumerate() {
            let stats = nic.outer.and_then(|outer| inventory.link(outer)).map(|link| link.stats);
            if let Some(stats) = stats {
                counters.insert(interface_id(&row.identity, row.interfaces.get(place), Some(place)), stats);
            }
        }
    }
    counters
}

/// Rules of all ports, each once, with the ports it is at; groups without rules too.
fn rules(shown: &[Shown]) -> Vec<GroupRule> {
    let mut rules: BTreeMap<(String, String, String), GroupRule> = BTreeMap::new();
    for (instance, port) in shown.iter().flat_map(|shown| shown.ports.iter().map(move |port| (&shown.instance, port))) {
        for rule in port.rules.iter().flatten() {
            let (group, group_id) = rule.rule.as_ref().map_or_else(
                || ("not known".to_owned(), String::new()),
                |words| (words.group.called().to_owned(), words.group.id.clone()),
            );
            let key = (group.clone(), group_id.clone(), rule.id.clone());
            let line = rules.entry(key).or_insert_with(|| GroupRule {
                group,
                group_id,
                rule: Some(rule.clone()),
                instances: Vec::new(),
            });
            line.instances.push(instance.clone());
            line.worsen(rule);
        }
        for group in &port.groups {
            let has_rules = port.rules.iter().flatten().filter_map(|rule| rule.rule.as_ref());
            if port.rules.is_none() || !has_rules.map(|rule| &rule.group.id).any(|id| *id == group.id) {
                let key = (group.called().to_owned(), group.id.clone(), String::new());
                let (group, group_id) = (group.called().to_owned(), group.id.clone());
                let bare = GroupRule { group, group_id, rule: None, instances: Vec::new() };
                rules.entry(key).or_insert(bare).instances.push(instance.clone());
            }
        }
    }
    rules.into_values().collect()
}

impl GroupRule {
    /// Takes over what is worse at another port: a rule that is missing at one is missing.
    fn worsen(&mut self, other: &ShownRule) {
        let Some(rule) = &mut self.rule else { return };
        if bad(other.standing) && !bad(rule.standing) {
            rule.standing = other.standing;
        }
        rule.hits = rule.hits.max(other.hits);
    }
}

/// Whether what is loaded and what is asked contradict each other.
const fn bad(standing: Standing) -> bool {
    matches!(standing, Standing::Missing | Standing::NotAsked)
}

/// What went past routers since the look before, in a second, by port.
fn past_router(snapshot: &Snapshot, at_ms: u64, before: &Look) -> HashMap<String, Rate> {
    let ports = |snapshot: &'_ Snapshot| -> HashMap<String, Rate> {
        let ports = snapshot.facts.enforcement.iter().flat_map(|loaded| &loaded.ports);
        ports.map(|port| (port.port_id.clone(), fast(port))).collect()
    };
    let then = ports(&before.snapshot);
    let millis = at_ms.saturating_sub(before.at_ms);
    let rate = |now: u64, then: u64| now.checked_sub(then)?.saturating_mul(1000).checked_div(millis);
    let amount = |now: Amount, then: Amount| {
        Some(Amount { packets: rate(now.packets, then.packets)?, bytes: rate(now.bytes, then.bytes)? })
    };
    let since = |(port, now): (String, Rate)| {
        let then = then.get(&port)?;
        let rate = Rate { inward: amount(now.inward, then.inward)?, outward: amount(now.outward, then.outward)? };
        Some((port, rate))
    };
    ports(snapshot).into_iter().filter_map(since).collect()
}

/// What has gone past the router at a port so far.
fn fast(port: &EnforcedPort) -> Rate {
    let of = |direction| {
        let counts = port.ways.iter().filter(|count| count.is_fast() && count.direction == direction);
        counts.fold(Amount::default(), |sum, count| Amount {
            packets: sum.packets.saturating_add(count.packets),
            bytes: sum.bytes.saturating_add(count.bytes),
        })
    };
    Rate { inward: of(Direction::Ingress), outward: of(Direction::Egress) }
}

/// Instances by the ids of the ports that netdiag enforces.
fn owners(inventory: &Inventory<'_>) -> HashMap<String, String> {
    let nics = inventory.instances.iter().flat_map(|instance| instance.nics.iter().map(move |nic| (instance, nic)));
    let owned = nics.filter_map(|(instance, nic)| match inventory.enforcement(nic) {
        Enforcement::Port(port) => Some((port.port_id.clone(), instance.identity.name.clone())),
        Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged | Enforcement::Refused(_) => None,
    });
    owned.collect()
}

/// The places of rules by their ids.
fn places(rules: &[GroupRule]) -> HashMap<String, Vec<usize>> {
    let mut places: HashMap<String, Vec<usize>> = HashMap::new();
    let known = rules.iter().enumerate().filter_map(|(place, line)| Some((place, line.rule.as_ref()?)));
    known.for_each(|(place, rule)| places.entry(rule.id.clone()).or_default().push(place));
    places
}

/// Members of the groups, as far as they are on this host.
fn members(shown: &[Shown]) -> BTreeMap<String, Group> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for (instance, port) in shown.iter().flat_map(|shown| shown.ports.iter().map(move |port| (&shown.instance, port))) {
        for group in &port.groups {
            let known = groups.entry(group.id.clone()).or_default();
            group.called().clone_into(&mut known.name);
            known.members.push((instance.clone(), port.addresses.iter().map(ipnet::IpNet::addr).collect()));
        }
    }
    groups
}

/// The checks that follow from a snapshot.
fn report(snapshot: &Snapshot) -> Report {
    Report {
        schema_version: Report::VERSION,
        hostname: snapshot.hostname.clone(),
        kernel: snapshot.kernel.clone(),
        netdiag: snapshot.netdiag.clone(),
        checks: doctor::from_facts(&snapshot.facts),
    }
}

/// How each source fared: what is simply not there is well.
fn sources(snapshot: &Snapshot) -> Vec<(SourceKind, Health)> {
    let reports = snapshot.facts.reports.iter();
    let mut sources: BTreeMap<SourceKind, Health> = BTreeMap::new();
    for report in reports {
        let failed = report.gaps.iter().any(|gap| !gap.absent);
        let health = if failed { Health::Unknown } else { Health::Ok };
        let known = sources.entry(report.source).or_default();
        *known = (*known).max(health);
    }
    sources.into_iter().collect()
}

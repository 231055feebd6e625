//! One pass: find the ports, compile, write the difference, attach, clean up. Flow: policy.
//!
//! Everything is computed before anything is written, so a policy that does not fit changes nothing. Tables come before
//! attaching: a device without a port passes everything, so its port is written first. Floating IPs come last, and those of a
//! port that goes first of all.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
    sync::Arc,
    time::SystemTime,
};

use ipnet::IpNet;
use netdiag_model::{
    compile::{Compiled, Input, Tables},
    fact::{
        SourceKind,
        enforcement::{AgentFact, RefusedPort},
    },
    floating::tables::Places,
    inventory::Inventory,
    policy::{
        binding::{self, Bound, Problem, hook_ahead},
        types::{Attached, Direction, GroupId, Policy, Port, PortId, Remote},
    },
    snapshot::Snapshot,
    status::{Asked, Losses, Passes, PortStatus, Status},
};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::{
    ahead::Ahead,
    floating::{Enforced, Floats, Treatment},
    ports::{self, Known, Plan, plan},
    straight::Straights,
};
use crate::{
    discover::{chain, netlink::links_here},
    enforce::{Enforcer, HookState},
    policy_source::stored,
};

/// Where the ports that are enforced are kept for the next start.
const PORTS: &str = "ports.json";
/// Tells one boot from another.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Records a second that one port may cause: enough to see what goes on, too few to keep anybody from being seen.
const EVENTS_PER_SECOND: u32 = 100;

/// What passes work on, and what the last one came to.
pub(crate) struct Pass {
    enforcer: Enforcer,
    /// What the maps hold; none where a write failed and they have to be read first.
    compiled: Option<Compiled>,
    known: Vec<Known>,
    /// Names of instances by the index of the host's device.
    names: BTreeMap<u32, String>,
    state: PathBuf,
    boot: String,
    report: Report,
    floats: Floats,
    straights: Straights,
    ahead: Ahead,
    /// The policy with the ports that were made, and the ports that are enforced, as of the last pass.
    enforced: (Policy, Vec<Attached>),
}

/// What the passes came to so far.
#[derive(Debug, Default)]
struct Report {
    since: u64,
    converged: Option<u64>,
    /// Why the last pass failed.
    failure: Option<String>,
    /// What else is not as it should be.
    problems: Vec<String>,
    asked: Asked,
    ports: Vec<PortStatus>,
    refused: Vec<RefusedPort>,
    found: Arc<BTreeMap<PortId, BTreeSet<IpAddr>>>,
    made: Arc<BTreeMap<PortId, Port>>,
    passes: Passes,
    flows: u64,
    losses: Losses,
}

/// What is kept for the next start. Indices of devices mean nothing after a boot.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    boot: String,
    ports: Vec<Known>,
}

impl Pass {
    /// Reads what is enforced already.
    pub(crate) fn new(
        enforcer: Enforcer,
        treatment: Treatment,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tables = enforcer.read_tables()?;
        let state = treatment.state.clone();
        let straights = Straights::open(treatment.straight, &enforcer)?;
        let boot = std::fs::read_to_string(BOOT_ID)?.trim().to_owned();
        let floats = Floats::open(treatment, &enforcer, &boot)?;
        // Without what was kept a port is found again by looking, or not at all; see `unexplained`.
        let kept: Kept = stored::read(&state.join(PORTS)).unwrap_or_default();
        let known = if kept.boot == boot { kept.ports } else { Vec::new() };
        let report = Report { since: now(), ..Report::default() };
        let none = (Policy::default(), Vec::new());
        let names = BTreeMap::new();
        Ok(Self {
            enforcer,
            compiled: Some(tables.into()),
            known,
            names,
            state,
            boot,
            report,
            floats,
            straights,
            ahead: Ahead::default(),
            enforced: none,
        })
    }

    /// Makes what is loaded what is asked, with the host as a look saw it that began at a time, and with routers as they were seen last, if they
    /// were, likewise.
    ///
    /// # Errors
    /// Why it could not. What was loaded before goes on to be enforced, as far as the failure left it.
    pub(crate) fn run(
        &mut self,
        policy: &Policy,
        (seen, looked): (&Snapshot, Instant),
        routers: Option<(&Snapshot, Instant)>,
    ) -> Result<(), String> {
        let started = Instant::now();
        self.ahead.forget_before(looked);
        let result = self.reconcile(policy, seen).and_then(|()| self.float(routers));
        let passes = &mut self.report.passes;
        passes.last_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &result {
            Ok(()) => {
                passes.done += 1;
                self.report.converged = Some(now());
                self.report.failure = None;
            }
            Err(why) => {
                passes.failed += 1;
                self.report.failure = Some(why.clone());
            }
        }
        result
    }

    fn reconcile(&mut self, policy: &Policy, seen: &Snapshot) -> Result<(), String> {
        let inventory = Inventory::build(seen);
        let mut devices = devices(&inventory)?;
        self.name(&inventory, &devices);
        self.ahead.seen(&devices, hook_ahead(&seen.facts));
        let bound = binding::bind(policy, &inventory);
        let whole = bound.complete(policy);
        let Bound { attached, mut found, problems, .. } = bound.clone();
        let mut plan = plan(&self.known, attached, policy, &devices.keys().copied().collect());
        let known: Vec<_> = plan.enforce.iter().map(|port| Known::of(port, policy)).collect();
        self.ahead.add_to(&mut plan, policy, &mut devices);
        self.unexplained(&plan, &devices, seen)?;
        let whole = with_kept(whole, &plan, &mut found);
        let (refused, mut problems) = sort_out(problems, &plan);
        self.remember(known, &mut problems);
        self.write((&whole, &inventory), &plan, &found)?;
        let refused = self.attach(&plan, refused, &devices, &mut problems);
        self.clean_up(&plan, &mut problems);
        problems.extend(self.enforcer.prepare(self.ahead.hook).err().map(|error| chain(&error)));
        self.report.asked = asked(policy);
        let made = whole.ports.iter().filter(|(id, _)| !policy.ports.contains_key(*id));
        self.report.made = Arc::new(made.map(|(id, port)| (id.clone(), port.clone())).collect());
        (self.report.refused, self.report.found, self.report.problems) = (refused, Arc::new(found), problems);
        self.enforced = (whole.into_owned(), self.attached(&plan));
        Ok(())
    }

    /// Ports whose programs are attached.
    fn attached(&self, plan: &Plan) -> Vec<Attached> {
        let is_attached = |port: &&Attached| self.report.ports.iter().any(|status| status.id == port.id.0);
        plan.enforce.iter().filter(is_attached).cloned().collect()
    }

    /// Makes the way of floating IPs what it shall be, with routers as a look saw them that began at a time.
    ///
    /// # Errors
    /// Why it could not. What was in the maps stays, as far as the failure left it.
    pub(crate) fn float(&mut self, routers: Option<(&Snapshot, Instant)>) -> Result<(), String> {
        // Without tables of security groups the next pass begins with them.
        let Some(tables) = self.compiled.as_ref().map(Compiled::tables) else { return Ok(()) };
        let (policy, ports) = (&self.enforced.0, &self.enforced.1[..]);
        let straight = self.straights.run(&self.enforcer, (ports, tables), routers.map(|(seen, _)| seen));
        let routers = routers.map(|(seen, looked)| (seen, looked.into_std()));
        let result = self.floats.run(&self.enforcer, Enforced { policy, ports, tables }, routers);
        result.map_err(|why| format!("floating IPs: {why}"))?;
        straight.map_err(|why| format!("ways past bridges: {why}"))
    }

    /// Takes notice of a router's namespace that has come.
    pub(crate) fn welcome(&mut self, router: &str) {
        self.floats.welcome(&self.enforcer, router);
    }

    /// Floating IPs.
    pub(crate) const fn floats(&self) -> &Floats {
        &self.floats
    }

    /// Floating IPs, to give them orders.
    pub(crate) const fn floats_mut(&mut self) -> &mut Floats {
        &mut self.floats
    }

    /// What the maps hold, where it is known.
    fn tables(&self) -> Option<&Tables> {
        self.compiled.as_ref().map(Compiled::tables)
    }

    /// Places and epochs of ports by device.
    pub(crate) fn places(&self) -> Places {
        self.tables().map(super::floating::places).unwrap_or_default()
    }

    /// A device that is enforced, and of which neither memory nor the host says whose it is, is left alone as long as
    /// something could not be read: it may be that port.
    fn unexplained(&self, plan: &Plan, devices: &BTreeMap<u32, String>, seen: &Snapshot) -> Result<(), String> {
        let explained: BTreeSet<u32> =
            plan.enforce.iter().map(|port| port.ifindex).chain(plan.detach.iter().copied()).collect();
        let attached = self.enforcer.devices().map_err(|error| chain(&error))?;
        let lost: Vec<_> = attached
            .iter()
            .filter(|device| !explained.contains(device))
            .filter_map(|device| devices.get(device))
            .collect();
        let gap = seen.facts.gaps().find(|gap| !gap.absent);
        match (lost.first(), gap) {
            (Some(device), Some(gap)) => Err(format!(
                "{device} is enforced, and whose port it is cannot be told: {}: {}; all stays as it is",
                gap.object, gap.why
            )),
            _ => Ok(()),
        }
    }

    /// Whose the devices are. One whose instance is not found any more keeps its name as long as it is there.
    fn name(&mut self, inventory: &Inventory<'_>, devices: &BTreeMap<u32, String>) {
        let cards =
            inventory.instances.iter().flat_map(|instance| instance.nics.iter().map(move |nic| (nic, instance)));
        let mut found = BTreeMap::new();
        for (nic, instance) in cards {
            if let Some(outer) = nic.outer.filter(|outer| Some(outer.netns) == inventory.host) {
                // Containers that share a namespace share its cards: the first one gives the name.
                found.entry(outer.ifindex.0).or_insert_with(|| instance.identity.name.clone());
            }
        }
        self.names.extend(found);
        self.names.retain(|ifindex, _| devices.contains_key(ifindex));
    }

    /// Closes devices that have come since the last look, where the policy says by their names whose they are. What fails here is
    /// left to the look that follows.
    pub(crate) fn close_ahead(&mut self, policy: &Policy) {
        let mut links = links_here().unwrap_or_default();
        links.retain(|link| self.ahead.is_new(link));
        for link in links {
            let Some(port) = binding::ahead(policy, &link, self.ahead.hook) else { continue };
            let taken = self.tables().is_none_or(|tables| tables.interfaces.contains_key(&port.ifindex));
            if !taken && self.close(&port).is_ok() {
                self.ahead.closed(link);
            }
        }
    }

    fn close(&mut self, port: &Attached) -> Result<(), Box<dyn std::error::Error>> {
        let mut compiled = self.compiled.take().ok_or("the maps are to be read first")?;
        let phases = match compiled.close(port) {
            Ok(phases) => phases,
            Err(error) => {
                self.compiled = Some(compiled);
                return Err(error.into());
            }
        };
        self.enforcer.apply(&phases)?;
        self.compiled = Some(compiled);
        self.enforcer.attach(port.ifindex, port.hook)?;
        Ok(())
    }

    /// Keeps what will be enforced for the next start, before it is.
    fn remember(&mut self, known: Vec<Known>, problems: &mut Vec<String>) {
        if known == self.known {
            return;
        }
        self.known.clone_from(&known);
        let kept = Kept { boot: self.boot.clone(), ports: known };
        if let Err(error) = stored::write(&self.state.join(PORTS), &kept) {
            problems.push(format!("{}: cannot be written: {error}", self.state.join(PORTS).display()));
        }
    }

    /// Writes the difference between what the maps hold and what they shall hold.
    fn write(
        &mut self,
        (policy, inventory): (&Policy, &Inventory<'_>),
        plan: &Plan,
        found: &BTreeMap<PortId, BTreeSet<IpAddr>>,
    ) -> Result<(), String> {
        let mut compiled = match self.compiled.take() {
            Some(compiled) => compiled,
            None => self.enforcer.read_tables().map_err(|error| chain(&error))?.into(),
        };
        let members = members(policy, found);
        let input = Input { policy, attached: &plan.enforce, members: &members, events_per_second: EVENTS_PER_SECOND };
        let phases = match compiled.advance(&input) {
            Ok(phases) => phases,
            Err(error) => {
                self.compiled = Some(compiled);
                return Err(error.to_string());
            }
        };
        // As below.
        self.straights.narrow(&self.enforcer, compiled.tables(), inventory)?;
        self.floats.narrow(&self.enforcer, compiled.tables())?;
        // Where this fails, what the maps hold is not known any more and is read before the next pass.
        self.enforcer.apply(&phases).map_err(|error| chain(&error))?;
        self.compiled = Some(compiled);
        Ok(())
    }

    /// Attaches to every device of a port. One that refuses does not keep the others from it.
    fn attach(
        &mut self,
        plan: &Plan,
        mut refused: Vec<RefusedPort>,
        devices: &BTreeMap<u32, String>,
        problems: &mut Vec<String>,
    ) -> Vec<RefusedPort> {
        self.report.ports.clear();
        for Attached { id, ifindex, hook, mode, .. } in &plan.enforce {
            let device = devices.get(ifindex).cloned().unwrap_or_else(|| ifindex.to_string());
            let instance = self.names.get(ifindex).cloned();
            match self.enforcer.attach(*ifindex, *hook) {
                Ok(states) => {
                    problems.extend(states.iter().filter_map(|state| behind(&device, state)));
                    let hooks = states.iter().map(hook_words).collect();
                    self.report.ports.push(PortStatus { id: id.0.clone(), device, hooks, mode: *mode, instance });
                }
                Err(error) => {
                    let ifindex = Some(netdiag_model::id::IfIndex(*ifindex));
                    refused.push(RefusedPort {
                        port_id: id.0.clone(),
                        ifindex,
                        why: format!("{device}: {}", chain(&error)),
                    });
                }
            }
        }
        refused
    }

    /// Detaches where there is no port any more, and removes what earlier versions left once nothing uses it.
    fn clean_up(&mut self, plan: &Plan, problems: &mut Vec<String>) {
        let wanted: BTreeSet<u32> = plan.enforce.iter().map(|port| port.ifindex).collect();
        let attached = self.enforcer.devices();
        let unwanted: BTreeSet<u32> = match attached {
            Ok(attached) => attached.into_iter().filter(|device| !wanted.contains(device)).collect(),
            Err(error) => return problems.push(chain(&error)),
        };
        for device in unwanted {
            problems.extend(self.enforcer.detach(device).iter().map(|error| chain(error)));
        }
        if let Err(error) = self.enforcer.remove_other_versions() {
            problems.push(chain(&error));
        }
    }

    /// Removes flows that are over, and looks at what was lost.
    pub(crate) fn sweep(&mut self) {
        // What fails now is tried again in a few seconds; until then flows expire by themselves.
        if let Ok(collected) = self.enforcer.collect() {
            self.report.flows = collected.live;
        }
        let slots = self.tables().into_iter().flat_map(|tables| tables.interfaces.values());
        let counters = slots.filter_map(|slot| self.enforcer.port_counters(*slot).ok());
        self.report.losses = counters.fold(Losses::default(), |sum, counters| Losses {
            suppressed: sum.suppressed + counters.losses.suppressed,
            lost: sum.lost + counters.losses.lost,
        });
        self.floats.sweep(&self.enforcer);
    }

    /// True where what is loaded is what was asked at the last pass.
    pub(crate) const fn is_converged(&self) -> bool {
        self.report.converged.is_some() && self.report.failure.is_none()
    }

    /// Addresses of ports whose own are not given.
    pub(crate) const fn found(&self) -> &Arc<BTreeMap<PortId, BTreeSet<IpAddr>>> {
        &self.report.found
    }

    /// Ports that no document has.
    pub(crate) const fn made(&self) -> &Arc<BTreeMap<PortId, Port>> {
        &self.report.made
    }

    /// Why a port cannot be enforced, where it cannot.
    pub(crate) fn refusal(&self, port: &str) -> Option<&str> {
        self.report.refused.iter().find(|refused| refused.port_id == port).map(|refused| refused.why.as_str())
    }

    /// How things are.
    pub(crate) fn status(&self) -> Status {
        let report = &self.report;
        Status {
            agent: AgentFact {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: report.since,
                converged: report.converged,
                problems: report
                    .failure
                    .iter()
                    .chain(&report.problems)
                    .chain(self.floats.problems())
                    .cloned()
                    .collect(),
            },
            now: now(),
            pinned: self.enforcer.pinned().display().to_string(),
            asked: report.asked,
            ports: report.ports.clone(),
            refused: report.refused.clone(),
            passes: report.passes.clone(),
            flows: report.flows,
            losses: report.losses,
            floating_ips: self.floats.has_looked().then(|| self.floats.plan().floating_ips.clone()),
            ..Status::default()
        }
    }
}

/// The devices of the host by index.
fn devices(inventory: &Inventory<'_>) -> Result<BTreeMap<u32, String>, String> {
    let host = inventory.host.ok_or("the host's network namespace was not found")?;
    if inventory.network(host).is_none() || inventory.unread(SourceKind::Netlink, host) {
        let gap = inventory.snapshot.facts.gaps().find(|gap| gap.source == SourceKind::Netlink);
        return Err(gap.map_or_else(
            || "the host's links were not read".to_owned(),
            |gap| format!("{}: {}", gap.object, gap.why),
        ));
    }
    Ok(inventory.links_in(host).map(|(key, link)| (key.ifindex.0, link.name.clone())).collect())
}

/// Members of the groups that rules name.
fn members(policy: &Policy, found: &BTreeMap<PortId, BTreeSet<IpAddr>>) -> BTreeMap<GroupId, BTreeSet<IpNet>> {
    let rules = policy.groups.values().flat_map(|group| &group.rules);
    let named: BTreeSet<_> = rules
        .filter_map(|rule| match &rule.remote {
            Remote::Group(group) => Some(group),
            Remote::Any | Remote::Prefix(_) | Remote::AddressGroup(_) => None,
        })
        .collect();
    named.into_iter().map(|group| (group.clone(), policy.members_of(group, found))).collect()
}

fn asked(policy: &Policy) -> Asked {
    Asked {
        security_groups: policy.groups.len(),
        rules: policy.groups.values().map(|group| group.rules.len()).sum(),
        address_groups: policy.address_groups.len(),
        ports: policy.ports.len(),
    }
}

fn behind(device: &str, state: &HookState) -> Option<String> {
    let behind = state.behind.as_ref()?;
    Some(format!("{device}: {behind} comes before netdiag's program and can keep packets from it"))
}

/// `tcx egress`: Neutron's direction, relative to the instance.
fn hook_words(state: &HookState) -> String {
    let direction = match state.direction {
        Direction::Egress => "egress",
        Direction::Ingress => "ingress",
    };
    format!("{} {direction}", state.method)
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The policy with the ports no document has that stay although they were not found, so that they go on being members of
/// their groups.
fn with_kept<'p>(
    policy: Cow<'p, Policy>,
    plan: &Plan,
    found: &mut BTreeMap<PortId, BTreeSet<IpAddr>>,
) -> Cow<'p, Policy> {
    let mut policy = policy;
    for port in plan.enforce.iter().filter(|port| plan.kept.contains(&port.id)) {
        match policy.ports.get(&port.id) {
            Some(known) if known.fixed_ips.is_some() => {}
            Some(_) => drop(found.insert(port.id.clone(), port.fixed_ips.clone())),
            None => drop(policy.to_mut().ports.insert(port.id.clone(), ports::made(port))),
        }
    }
    policy
}

/// Ports that are not enforced, apart from what else there is to say.
fn sort_out(problems: Vec<Problem>, plan: &Plan) -> (Vec<RefusedPort>, Vec<String>) {
    let enforced: BTreeSet<_> = plan.enforce.iter().map(|port| &port.id).collect();
    let (mut refused, mut others) = (Vec::new(), Vec::new());
    for problem in problems {
        if enforced.contains(&problem.port) {
            others.push(problem.to_string());
        } else {
            let why = problem.to_string();
            let lead = format!("port {}: ", problem.port);
            let why = why.strip_prefix(&lead).unwrap_or(&why).to_owned();
            refused.push(RefusedPort { port_id: problem.port.0, ifindex: None, why });
        }
    }
    (refused, others)
}

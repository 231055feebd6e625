//! Floating IPs in a pass: plan, serve netdiag's own, attach to external devices, hold flows, write the difference. Flow: policy.
//!
//! ```text
//! plan -> own ones: rules, address -> external devices attached -> flows of before held -> maps -> held once more -> detached
//! ```
//!
//! What was led past which router is kept for the next router of that name.
//!
//! Security groups come first: a port that goes takes its floating IPs off the fast way before it does. What cannot be made fast is
//! slow, with the reason, and does not keep the others from it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use netdiag_model::{
    compile::Tables,
    fact::SourceKind,
    floating::{
        FloatingIp, Plan, State, Switches,
        tables::{FloatingTables, Places, lower},
    },
    id::NetnsId,
    inventory::{Inventory, Role},
    policy::types::{Attached, Policy},
    snapshot::Snapshot,
};

use self::{
    anew::{Anew, Present},
    held::Holder,
    hops::Hops,
    ways::Orders,
};
use crate::{
    discover::chain,
    enforce::Enforcer,
    own::{Own, Served, Wanted},
};

/// Routers that are made anew.
mod anew;
/// Flows that routers are told of.
mod handover;
/// Flows that stay on the slow way.
mod held;
/// Next hops that are kept alive.
mod hops;
/// What netdiag serves by itself.
mod serve;
/// Which floating IPs were told to be slow.
pub(crate) mod ways;

/// Looks that may be incomplete in a row before the floating IPs are planned with what there is.
const PATIENCE: u8 = 3;
/// How often flows that are held are compared with what routers still track.
const HELD_FOR: Duration = Duration::from_secs(30);
/// How often next hops are asked for.
const ASKED: Duration = Duration::from_secs(10);

/// How floating IPs are to be treated.
#[derive(Clone, Debug)]
pub(crate) struct Treatment {
    /// Lead those of others past their routers.
    pub(crate) accelerate: bool,
    /// Let instances of one network send to each other past the bridge.
    pub(crate) straight: bool,
    /// Where the agent keeps what it must know.
    pub(crate) state: PathBuf,
    /// Directories with names of namespaces.
    pub(crate) netns: Vec<PathBuf>,
}

/// What is served, and how.
pub(crate) struct Floats {
    treatment: Treatment,
    orders: Orders,
    own: Own,
    /// What the maps hold; none where a write failed and they have to be read first.
    tables: Option<FloatingTables>,
    plan: Plan,
    /// The plan is one: routers have been looked at, or nobody wants to know of them.
    looked: bool,
    problems: Vec<String>,
    holder: Holder,
    anew: Anew,
    hops: Hops,
    incomplete: u8,
    held_due: Instant,
    hops_due: Instant,
}

/// What the security groups' part of a pass came to.
#[derive(Clone, Copy)]
pub(super) struct Enforced<'a> {
    /// The policy with the ports that were made.
    pub(super) policy: &'a Policy,
    /// Ports that are enforced.
    pub(super) ports: &'a [Attached],
    /// What the maps of security groups hold.
    pub(super) tables: &'a Tables,
}

impl Floats {
    /// What was served before, during the same boot.
    pub(crate) fn open(
        treatment: Treatment,
        enforcer: &Enforcer,
        boot: &str,
    ) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let tables = enforcer.read_floating()?;
        Ok(Self {
            orders: Orders::open(&treatment.state),
            own: Own::open(&treatment.state),
            holder: Holder::new(treatment.netns.clone()),
            anew: Anew::open(&treatment.state, boot),
            hops: Hops::default(),
            treatment,
            tables: Some(tables),
            plan: Plan::default(),
            looked: false,
            problems: Vec::new(),
            incomplete: 0,
            held_due: Instant::now(),
            hops_due: Instant::now(),
        })
    }

    /// Whether there is anything to look at routers for.
    pub(crate) fn is_wanted(&self, policy: Option<&Policy>) -> bool {
        self.treatment.accelerate
            || self.treatment.straight
            || policy.is_some_and(|policy| !policy.floating_ips.is_empty())
            || self.leads_any()
    }

    /// Whether any floating IP is led past its router now.
    fn leads_any(&self) -> bool {
        self.tables.as_ref().is_none_or(|tables| !tables.floating.is_empty())
    }

    /// Takes floating IPs of ports away that will not be at their places any more.
    pub(super) fn narrow(&mut self, enforcer: &Enforcer, after: &Tables) -> Result<(), String> {
        let before = self.before(enforcer)?;
        let places = places(after);
        let there = |slot: u32, epoch: u32| places.values().any(|place| *place == (slot, epoch));
        let mut narrowed = before.clone();
        narrowed.floating.retain(|_, floating| there(floating.slot, floating.epoch));
        narrowed.leaving.retain(|slot, leaving| there(*slot, leaving.epoch));
        narrowed.more_leaving.retain(|key, leaving| there(key.slot, leaving.epoch));
        self.anew.narrow(there);
        self.write(enforcer, &before, narrowed)
    }

    /// Makes the way of every floating IP what it shall be, as far as routers were seen, by a look that began at a time.
    pub(super) fn run(
        &mut self,
        enforcer: &Enforcer,
        asked: Enforced<'_>,
        seen: Option<(&Snapshot, Instant)>,
    ) -> Result<(), String> {
        let (mut plan, present) = match seen {
            // Where some are led past their routers still, it takes the routers' names to take them off.
            _ if self.leaves_all_alone(asked.policy) && !self.leads_any() => Default::default(),
            None => return Ok(()),
            Some((seen, looked)) => {
                let inventory = Inventory::build(seen);
                if let Some(why) = self.is_incomplete(&inventory) {
                    self.problems = vec![format!("{why}; floating IPs stay as they are")];
                    return Ok(());
                }
                let plan = netdiag_model::floating::plan(&inventory, asked.policy, asked.ports, &self.switches(looked));
                self.hops = Hops::of(&inventory, &plan);
                (plan, anew::present(&inventory))
            }
        };
        let mut problems = Vec::new();
        self.know(enforcer, &plan, (&places(asked.tables), &present), &mut problems);
        self.serve(&mut plan, &mut problems);
        attach(enforcer, &mut plan);
        let result = self.lead_past(enforcer, &mut plan, &places(asked.tables), &mut problems);
        detach(enforcer, &plan, &mut problems);
        if self.leaves_all_alone(asked.policy) {
            plan = Plan::default();
            self.anew.clear();
        }
        problems.extend(self.anew.keep().err());
        self.plan = plan;
        self.looked = true;
        self.problems = problems;
        result
    }

    fn leaves_all_alone(&self, policy: &Policy) -> bool {
        !self.treatment.accelerate && policy.floating_ips.is_empty()
    }

    fn switches(&mut self, looked: Instant) -> Switches {
        let ours = self.own.since(looked);
        Switches { accelerate: self.treatment.accelerate, own: true, slow: self.orders.slow(), ours }
    }

    /// What of the routers could not be seen, unless that has been so for a while.
    fn is_incomplete(&mut self, inventory: &Inventory<'_>) -> Option<String> {
        let routes = |netns: NetnsId| {
            matches!(inventory.role(netns), Role::Host | Role::Router(_) | Role::Snat(_) | Role::Fip(_))
        };
        let sources = [SourceKind::Netns, SourceKind::Netlink, SourceKind::Netfilter, SourceKind::Ovsdb];
        let gap = inventory.snapshot.facts.gaps().find(|gap| {
            let whole = gap.netns.is_none() && gap.object == gap.source.name();
            !gap.absent && sources.contains(&gap.source) && (whole || gap.netns.is_some_and(routes))
        });
        let Some(gap) = gap else {
            self.incomplete = 0;
            return None;
        };
        self.incomplete = self.incomplete.saturating_add(1);
        (self.incomplete < PATIENCE).then(|| format!("{}: {}", gap.object, gap.why))
    }

    fn serve(&mut self, plan: &mut Plan, problems: &mut Vec<String>) {
        for error in self.own.serve(&serve::wanted(plan)) {
            let why = chain(&error);
            match error.floating() {
                Some(address) => serve::refuse(plan, address, &why),
                None => problems.push(why),
            }
        }
    }

    /// Holds what routers know already of those that come, and writes the maps.
    fn lead_past(
        &mut self,
        enforcer: &Enforcer,
        plan: &mut Plan,
        places: &Places,
        problems: &mut Vec<String>,
    ) -> Result<(), String> {
        let mut before = self.before(enforcer)?;
        let new = held::new(plan, places, &before);
        for (router, why) in self.holder.hold(enforcer, &new) {
            slow_down(plan, |address, _| address.router == router && new.iter().any(|new| new.is(address)), &why);
        }
        let after = lower(plan, places);
        if let Some(draining) = handover::draining(&before, &after) {
            enforcer.apply_floating(&before, &draining).map_err(|error| chain(&error))?;
            before = draining;
        }
        let owners = handover::owners(plan, self.anew.awaited());
        for (router, why) in handover::give(enforcer, &owners, (&before, &after), &self.treatment.netns) {
            problems.push(format!("flows of {router}: {why}"));
        }
        self.write(enforcer, &before, after)?;
        // What began on the slow way between the first look and the maps is known to the router by now.
        for (router, why) in self.holder.hold(enforcer, &new) {
            problems.push(format!("connections of {router}: {why}"));
        }
        Ok(())
    }

    /// Tells a router whose namespace has come of its flows, if it is one that was there before.
    pub(super) fn welcome(&mut self, enforcer: &Enforcer, router: &str) {
        let told = self.anew.recall(enforcer, router, &self.treatment.netns);
        self.problems.extend(told.err().map(|why| format!("flows of {router}: {why}")));
    }

    /// Takes what a look says of routers that were made anew.
    fn know(
        &mut self,
        enforcer: &Enforcer,
        plan: &Plan,
        (places, present): (&Places, &Present),
        problems: &mut Vec<String>,
    ) {
        for router in self.anew.strangers(present) {
            let told = self.anew.recall(enforcer, &router, &self.treatment.netns);
            problems.extend(told.err().map(|why| format!("flows of {router}: {why}")));
        }
        let wrong = self.anew.seen(plan, places, present);
        for (router, why) in anew::take_back(wrong, &self.treatment.netns) {
            problems.push(format!("flows of {router}: {why}"));
        }
    }

    fn before(&mut self, enforcer: &Enforcer) -> Result<FloatingTables, String> {
        match self.tables.take() {
            Some(tables) => Ok(tables),
            None => enforcer.read_floating().map_err(|error| chain(&error)),
        }
    }

    fn write(&mut self, enforcer: &Enforcer, before: &FloatingTables, after: FloatingTables) -> Result<(), String> {
        // Where this fails, what the maps hold is not known any more and is read before the next pass.
        enforcer.apply_floating(before, &after).map_err(|error| chain(&error))?;
        self.tables = Some(after);
        Ok(())
    }

    /// Lets flows go that no router knows any more, and routers that have no flows any more, and keeps next hops alive.
    pub(super) fn sweep(&mut self, enforcer: &Enforcer) {
        let now = Instant::now();
        if now >= self.held_due {
            self.held_due = now + HELD_FOR;
            let fast = self.tables.as_ref().map(held::all);
            self.holder.release(enforcer, &self.plan, &fast.unwrap_or_default());
            self.anew.sweep(enforcer);
        }
        if now >= self.hops_due {
            self.hops_due = now + ASKED;
            self.hops.ask(enforcer, &self.plan, &self.treatment.netns);
        }
    }

    /// Has floating IPs begin flows the slow way, or not any longer.
    pub(crate) fn order(&mut self, target: ways::Target, slow: bool) -> std::io::Result<bool> {
        self.orders.give(target, slow)
    }

    /// What was ordered.
    pub(crate) const fn orders(&self) -> &Orders {
        &self.orders
    }

    /// The plan that is in force.
    pub(crate) const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Whether there has been a plan yet.
    pub(super) const fn has_looked(&self) -> bool {
        self.looked
    }

    /// What is not as it should be.
    pub(super) fn problems(&self) -> &[String] {
        &self.problems
    }
}

/// Places and epochs of ports by device.
pub(super) fn places(tables: &Tables) -> Places {
    let place = |(ifindex, slot): (&u32, &u32)| Some((*ifindex, (*slot, tables.ports.get(slot)?.epoch)));
    tables.interfaces.iter().filter_map(place).collect()
}

/// Makes fast ones slow that fit.
fn slow_down(plan: &mut Plan, fits: impl Fn(&FloatingIp, u32) -> bool, why: &str) {
    for address in &mut plan.floating_ips {
        let device = address.fast().map(|path| path.ifindex);
        if device.is_some_and(|device| fits(address, device)) {
            address.way = State::Slow { why: why.to_owned() };
        }
    }
}

/// Attaches to the external devices of those that are fast.
fn attach(enforcer: &Enforcer, plan: &mut Plan) {
    let paths = plan.floating_ips.iter().filter_map(FloatingIp::fast);
    let devices: BTreeMap<u32, _> = paths.map(|path| (path.ifindex, (path.hook, path.device.clone()))).collect();
    for (ifindex, (hook, name)) in devices {
        if let Err(error) = enforcer.attach_external(ifindex, hook) {
            let why = format!("{name}: {}", chain(&error));
            slow_down(plan, |_, device| device == ifindex, &why);
        }
    }
}

/// Detaches from devices that no fast one needs.
fn detach(enforcer: &Enforcer, plan: &Plan, problems: &mut Vec<String>) {
    let wanted: BTreeSet<u32> =
        plan.floating_ips.iter().filter_map(FloatingIp::fast).map(|path| path.ifindex).collect();
    match enforcer.external_devices() {
        Ok(devices) => {
            let unwanted = devices.into_iter().filter(|device| !wanted.contains(device));
            problems.extend(unwanted.flat_map(|device| enforcer.detach_external(device)).map(|error| chain(&error)));
        }
        Err(error) => problems.push(chain(&error)),
    }
}

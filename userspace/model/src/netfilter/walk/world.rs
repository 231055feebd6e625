//! One of the ways things may be, and where those ways end. Flow: explain.

use std::sync::Arc;

use crate::netfilter::{Packet, matching::Truth};

/// What is not known, and the rule it is about.
#[derive(Clone, Debug)]
pub(super) struct Doubt {
    pub(super) step: Option<usize>,
    pub(super) why: Arc<str>,
}

/// A packet at a rule, in one or several of the ways things may be.
#[derive(Clone, Debug)]
pub(super) struct World {
    pub(super) packet: Packet,
    /// The first thing in this base chain that is not known and without which it may not be here.
    pub(super) doubt: Option<Doubt>,
    /// Whether a NAT rule has translated it at this hook.
    pub(super) bound: Truth,
    /// Set by the rule that translates, until it is asked.
    pub(super) translated: bool,
}

impl World {
    pub(super) const fn new(packet: Packet) -> Self {
        Self { packet, doubt: None, bound: Truth::No, translated: false }
    }

    /// Adds a doubt where there is none yet.
    pub(super) fn doubt(&mut self, step: Option<usize>, why: &str) {
        self.doubt.get_or_insert_with(|| Doubt { step, why: why.into() });
    }

    /// One world for two.
    pub(super) fn join(self, other: Self) -> Self {
        Self {
            packet: self.packet.join(&other.packet),
            doubt: self.doubt.or(other.doubt),
            bound: if self.bound == other.bound { self.bound } else { Truth::Unknown },
            translated: false,
        }
    }

    /// Whether the rule just applied has translated it, which ends its way through this base chain.
    pub(super) const fn translated_now(&mut self) -> bool {
        std::mem::replace(&mut self.translated, false)
    }
}

/// A world that was dropped.
#[derive(Clone, Debug)]
pub(super) struct Dropped {
    /// By which step; `None` where the walk gave up.
    pub(super) step: Option<usize>,
    pub(super) doubt: Option<Doubt>,
}

/// Where the worlds that entered a chain have gone.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// Back to the caller.
    pub(super) returned: Option<World>,
    /// Out of the base chain.
    pub(super) accepted: Option<World>,
    /// Dead.
    pub(super) dropped: Vec<Dropped>,
}

impl Ends {
    pub(super) fn accepted(world: World) -> Self {
        Self { accepted: Some(world), ..Self::default() }
    }

    /// What may happen where it is not known what happens.
    pub(super) fn of_anything(step: Option<usize>, world: World, why: &str) -> Self {
        let mut ends = Self::default();
        ends.anything(step, world, why);
        ends
    }

    pub(super) fn anything(&mut self, step: Option<usize>, mut world: World, why: &str) {
        world.doubt(step, why);
        self.drop(step, &world);
        self.accept(world.clone());
        self.give_back(Some(world));
    }

    pub(super) fn accept(&mut self, world: World) {
        self.accepted = Some(match self.accepted.take() {
            Some(other) => other.join(world),
            None => world,
        });
    }

    pub(super) fn give_back(&mut self, world: Option<World>) {
        self.returned = match (self.returned.take(), world) {
            (Some(one), Some(other)) => Some(one.join(other)),
            (one, other) => one.or(other),
        };
    }

    pub(super) fn drop(&mut self, step: Option<usize>, world: &World) {
        self.dropped.push(Dropped { step, doubt: world.doubt.clone() });
    }

    pub(super) fn merge(&mut self, other: Self) {
        let Self { returned, accepted, dropped } = other;
        self.give_back(returned);
        if let Some(world) = accepted {
            self.accept(world);
        }
        self.dropped.extend(dropped);
    }

    /// Takes over what a chain that was jumped to has decided; what goes on after the jump.
    pub(super) fn after_jump(&mut self, mut inner: Self) -> Option<World> {
        let goes_on = inner.returned.take();
        self.merge(inner);
        goes_on
    }

    /// Whether a world has ended for good.
    pub(super) const fn decided(&self) -> bool {
        self.accepted.is_some() || !self.dropped.is_empty()
    }

    /// Whether a world has left the chain.
    pub(super) const fn any(&self) -> bool {
        self.decided() || self.returned.is_some()
    }
}

//! Why packets died, by the host as it is then: a fault may have come after watching began.

use std::time::{Duration, Instant};

use netdiag_agent::{
    discover::{self, Options},
    ofproto,
};
use netdiag_model::{
    event::VerdictEvent,
    inventory::Inventory,
    live::{
        blame::{
            Blame, Case, Code, blame,
            switch::{Question, answered, question},
        },
        journey::Journey,
        points::Points,
    },
    resolve::resolve,
    snapshot::Snapshot,
    trace::{self, Trace},
};

/// How long a look is good for: packets of one fault come in crowds.
const FRESH: Duration = Duration::from_secs(3);

/// The host at two moments: when watching began, and when a packet last died.
pub(in crate::cmd) struct Host<'h, 'a> {
    options: Options,
    first: &'h Inventory<'a>,
    place: usize,
    expected: &'h Trace,
    name: String,
    later: Option<(Snapshot, Instant)>,
}

impl<'h, 'a> Host<'h, 'a> {
    pub(in crate::cmd) fn new(options: Options, first: &'h Inventory<'a>, place: usize, expected: &'h Trace) -> Self {
        let identity = &first.instances[place].identity;
        let name = identity.container_id.clone().unwrap_or_else(|| identity.name.clone());
        Self { options, first, place, expected, name, later: None }
    }

    /// Looks at the host again, unless that was just done.
    pub(in crate::cmd) async fn look_again(&mut self) {
        if self.later.as_ref().is_none_or(|(_, taken)| taken.elapsed() > FRESH) {
            self.later = Some((discover::look(self.options.clone()).await, Instant::now()));
        }
    }

    /// What there is to watch by the last look, where there was one.
    pub(in crate::cmd) fn points(&self) -> Option<Points> {
        let (snapshot, _) = self.later.as_ref()?;
        let inventory = Inventory::build(snapshot);
        let instance = &inventory.instances[resolve(&inventory, &self.name).ok()?];
        Some(Points::of(&inventory, &trace::explain(&inventory, instance)))
    }

    /// Says why a packet died; none if it did not.
    pub(in crate::cmd) async fn blame(
        &self,
        journey: &Journey,
        points: &Points,
        verdicts: &[VerdictEvent],
    ) -> Option<Blame> {
        if !journey.ended.is_death() {
            return None;
        }
        let (blame, question) = self.by_later(journey, points, verdicts).or_else(|| {
            let instance = &self.first.instances[self.place];
            let case = Case { inventory: self.first, earlier: None, instance, trace: self.expected, points, verdicts };
            Some((blame(&case, journey)?, question(&case, journey)))
        })?;
        match question.filter(|_| blame.code == Code::NotSeen) {
            Some(question) => match ofproto::trace(&question.bridge, &question.flow).await {
                Ok(answer) => Some(answered(blame, &question, &answer)),
                // What the switch does not say is not known; how to ask it stands in the answer.
                Err(_) => Some(blame),
            },
            None => Some(blame),
        }
    }

    fn by_later(
        &self,
        journey: &Journey,
        points: &Points,
        verdicts: &[VerdictEvent],
    ) -> Option<(Blame, Option<Question>)> {
        let (snapshot, _) = self.later.as_ref()?;
        let inventory = Inventory::build(snapshot);
        let instance = &inventory.instances[resolve(&inventory, &self.name).ok()?];
        let trace = trace::explain(&inventory, instance);
        let earlier = Some(self.first);
        let case = Case { inventory: &inventory, earlier, instance, trace: &trace, points, verdicts };
        Some((blame(&case, journey)?, question(&case, journey)))
    }
}

//! Devices that are closed ahead of the look that will say whose they are. Flow: policy.
//!
//! A look that began before a device came knows nothing of it and must not open it again; one that began later decides.

use std::collections::BTreeMap;

use netdiag_model::{
    fact::LinkFact,
    policy::{
        binding,
        types::{Hook, Policy},
    },
};
use tokio::time::Instant;

use super::ports::Plan;

/// What was closed, and what there was before.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    /// Where a new device is to be held.
    pub(super) hook: Hook,
    /// Devices by index as the last look saw them; none where no look saw any.
    seen: Option<BTreeMap<u32, String>>,
    /// Devices closed since, and when.
    closed: BTreeMap<u32, (LinkFact, Instant)>,
}

impl Ahead {
    /// Whether a device has come since the last look, or has got another name, and was not closed yet.
    pub(super) fn is_new(&self, link: &LinkFact) -> bool {
        let ifindex = link.ifindex.0;
        let has_come = self.seen.as_ref().is_some_and(|seen| seen.get(&ifindex) != Some(&link.name));
        has_come && !self.closed.contains_key(&ifindex)
    }

    /// A device was closed.
    pub(super) fn closed(&mut self, link: LinkFact) {
        self.closed.insert(link.ifindex.0, (link, Instant::now()));
    }

    /// A look has ended that began at a time: what was closed before is its to decide about.
    pub(super) fn forget_before(&mut self, looked: Instant) {
        self.closed.retain(|_, (_, since)| *since >= looked);
    }

    /// What a look saw.
    pub(super) fn seen(&mut self, devices: &BTreeMap<u32, String>, hook: Hook) {
        self.seen = Some(devices.clone());
        self.hook = hook;
    }

    /// Keeps closed what the look could not see, as long as the policy means it.
    pub(super) fn add_to(&self, plan: &mut Plan, policy: &Policy, devices: &mut BTreeMap<u32, String>) {
        let closed = self.closed.values().filter_map(|(link, _)| binding::ahead(policy, link, self.hook));
        let closed: Vec<_> = closed.collect();
        for port in &closed {
            let name = self.closed.get(&port.ifindex).map(|(link, _)| link.name.clone());
            devices.entry(port.ifindex).or_insert(name.unwrap_or_default());
            plan.detach.remove(&port.ifindex);
        }
        binding::beside(&mut plan.enforce, closed);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use netdiag_model::{
        fact::LinkFact,
        id::IfIndex,
        policy::{
            convert::{Document, policy},
            types::{Hook, Mode, Policy},
        },
    };
    use tokio::time::Instant;

    use super::{Ahead, Plan};

    fn link(ifindex: u32, name: &str) -> LinkFact {
        let (name, kind) = (name.to_owned(), Some("tun".to_owned()));
        LinkFact { ifindex: IfIndex(ifindex), name, kind, ..LinkFact::default() }
    }

    fn asked() -> Policy {
        let text = "ports: [{id: p, security_groups: [], binding: {device: vnet0}}]".to_owned();
        policy(&[Document { name: "a".to_owned(), text }]).unwrap()
    }

    /// What is enforced where the look found nothing.
    fn planned(ahead: &Ahead, policy: &Policy) -> Vec<(u32, Mode)> {
        let mut plan = Plan::default();
        ahead.add_to(&mut plan, policy, &mut BTreeMap::new());
        plan.enforce.iter().map(|port| (port.ifindex, port.mode)).collect()
    }

    #[test]
    fn a_look_that_began_before_a_device_was_closed_does_not_open_it_and_one_that_began_later_decides() {
        let (mut ahead, before) = (Ahead::default(), Instant::now());
        ahead.closed(link(7, "vnet0"));
        ahead.forget_before(before);
        assert_eq!(planned(&ahead, &asked()), [(7, Mode::Closed)]);
        ahead.forget_before(Instant::now() + Duration::from_secs(1));
        assert_eq!(planned(&ahead, &asked()), []);
    }

    #[test]
    fn a_device_that_the_policy_does_not_mean_any_more_is_not_kept_closed() {
        let mut ahead = Ahead::default();
        ahead.closed(link(7, "vnet0"));
        assert_eq!(planned(&ahead, &Policy::default()), []);
    }

    #[test]
    fn a_device_is_new_until_a_look_has_seen_it_under_its_name_or_it_is_closed() {
        let mut ahead = Ahead::default();
        assert!(!ahead.is_new(&link(7, "vnet0")), "nobody knows what is new before the first look");
        ahead.seen(&BTreeMap::from([(5, "old".to_owned())]), Hook::Tc);
        assert!(!ahead.is_new(&link(5, "old")));
        assert!(ahead.is_new(&link(5, "vnet0")) && ahead.is_new(&link(7, "vnet0")));
        ahead.closed(link(7, "vnet0"));
        assert!(!ahead.is_new(&link(7, "vnet0")));
    }
}

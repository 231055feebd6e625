//! Which ports stay, come and go. Flow: policy.
//!
//! That a port is not found does not mean that it is gone: Docker may restart, Open vSwitch may hang. So a port that was enforced
//! stays enforced as long as its device is there and the policy wants it where it was.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use netdiag_model::policy::types::{AddressPair, Attached, Binding, Mode, Policy, Port, PortId};
use serde::{Deserialize, Serialize};

/// A port as it was enforced by the pass before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    /// The port.
    pub(super) attached: Attached,
    /// How the policy said it is found; none where an instance's labels made it a port.
    pub(super) binding: Option<Binding>,
}

impl Known {
    /// A port as it is enforced under a policy.
    pub(super) fn of(attached: &Attached, policy: &Policy) -> Self {
        let binding = policy.ports.get(asked(attached).as_ref()).map(|port| port.binding.clone());
        Self { attached: attached.clone(), binding }
    }

    /// The port with what a policy says of it now; none where the policy does not want it there any more.
    fn under(&self, policy: &Policy) -> Option<Attached> {
        let mut attached = self.attached.clone();
        let Some(binding) = &self.binding else {
            attached.groups.retain(|group| policy.groups.contains_key(group));
            return Some(attached);
        };
        let port = policy.ports.get(asked(&attached).as_ref()).filter(|port| port.binding == *binding)?;
        refresh(&mut attached, port);
        Some(attached)
    }
}

/// The id a policy has for a port: that of a port found at several devices has the device in it at each but the first.
fn asked(attached: &Attached) -> Cow<'_, PortId> {
    attached.id.elsewhere(attached.ifindex).map_or(Cow::Borrowed(&attached.id), Cow::Owned)
}

/// What a port says of itself, in place of what it said before.
fn refresh(attached: &mut Attached, port: &Port) {
    attached.groups.clone_from(&port.groups);
    attached.log_allowed = port.log_allowed;
    attached.mode = match (attached.mode, port.filtered) {
        // Whatever was in doubt about it is so still.
        (Mode::Closed, _) => Mode::Closed,
        (Mode::Filtered | Mode::Trusted, true) => Mode::Filtered,
        (Mode::Filtered | Mode::Trusted, false) => Mode::Trusted,
    };
    attached.mac = port.mac.unwrap_or(attached.mac);
    if let Some(fixed) = &port.fixed_ips {
        attached.fixed_ips.clone_from(fixed);
    }
    let own = attached.mac;
    let pair = |AddressPair { mac, address }: &AddressPair| (mac.unwrap_or(own), *address);
    attached.pairs = port.allowed_address_pairs.iter().map(pair).collect();
}

/// A port no document has, as a document would.
pub(super) fn made(attached: &Attached) -> Port {
    let pairs = attached.pairs.iter().map(|(mac, address)| AddressPair { mac: Some(*mac), address: *address });
    Port {
        id: attached.id.clone(),
        name: String::new(),
        binding: Binding::default(),
        mac: Some(attached.mac),
        fixed_ips: Some(attached.fixed_ips.clone()),
        allowed_address_pairs: pairs.collect(),
        groups: attached.groups.clone(),
        filtered: attached.mode != Mode::Trusted,
        log_allowed: attached.log_allowed,
    }
}

/// What shall be, and what shall be no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// Ports to enforce.
    pub(super) enforce: Vec<Attached>,
    /// Those of them that were not found and stay as they were.
    pub(super) kept: BTreeSet<PortId>,
    /// Devices to which nothing of ours shall be attached.
    pub(super) detach: BTreeSet<u32>,
}

/// Joins what was enforced with what was found now. `there` are the devices of the host.
pub(super) fn plan(known: &[Known], found: Vec<Attached>, policy: &Policy, there: &BTreeSet<u32>) -> Plan {
    let mut plan = Plan::default();
    let mut devices: BTreeMap<u32, usize> = BTreeMap::new();
    let ids: BTreeSet<_> = found.iter().map(|port| port.id.clone()).collect();
    for (place, port) in found.iter().enumerate() {
        devices.insert(port.ifindex, place);
    }
    plan.enforce = found;
    for port in known {
        let ifindex = port.attached.ifindex;
        if devices.contains_key(&ifindex) {
            continue;
        }
        let stays = there.contains(&ifindex) && !ids.contains(asked(&port.attached).as_ref());
        match stays.then(|| port.under(policy)).flatten() {
            Some(attached) => {
                devices.insert(ifindex, plan.enforce.len());
                plan.kept.insert(attached.id.clone());
                plan.enforce.push(attached);
            }
            None => drop(plan.detach.insert(ifindex)),
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::{Known, Plan, plan};
    use netdiag_model::{
        id::Mac,
        policy::types::{Attached, Binding, GroupId, Hook, Mode, Policy, Port, PortId},
    };
    use std::collections::BTreeSet;

    fn attached(id: &str, ifindex: u32) -> Attached {
        Attached {
            id: PortId(id.to_owned()),
            ifindex,
            mac: Mac([2, 0, 0, 0, 0, 1]),
            fixed_ips: BTreeSet::new(),
            pairs: BTreeSet::new(),
            groups: vec![],
            mode: Mode::Filtered,
            hook: Hook::Tc,
            log_allowed: false,
        }
    }

    fn port(id: &str) -> Port {
        Port {
            id: PortId(id.to_owned()),
            name: String::new(),
            binding: Binding { port_id: true, ..Binding::default() },
            mac: None,
            fixed_ips: None,
            allowed_address_pairs: BTreeSet::new(),
            groups: vec![],
            filtered: true,
            log_allowed: false,
        }
    }

    fn policy(ids: &[&str]) -> Policy {
        Policy { ports: ids.iter().map(|id| (PortId((*id).to_owned()), port(id))).collect(), ..Policy::default() }
    }

    fn planned(known: &[(&str, u32)], found: &[(&str, u32)], asked: &[&str], there: &[u32]) -> (Vec<u32>, Vec<u32>) {
        let documents = known.iter().map(|(id, _)| *id).filter(|id| !id.starts_with("label") && !id.contains(' '));
        let before = policy(&documents.collect::<Vec<_>>());
        let known: Vec<_> = known.iter().map(|(id, ifindex)| Known::of(&attached(id, *ifindex), &before)).collect();
        let found = found.iter().map(|(id, ifindex)| attached(id, *ifindex)).collect();
        let Plan { enforce, detach, .. } = plan(&known, found, &policy(asked), &there.iter().copied().collect());
        (enforce.iter().map(|port| port.ifindex).collect(), detach.into_iter().collect())
    }

    #[test]
    fn a_port_that_is_not_found_stays_as_long_as_its_device_is_there() {
        assert_eq!(planned(&[("p", 5)], &[], &["p"], &[5]), (vec![5], vec![]));
        assert_eq!(planned(&[("p", 5)], &[], &["p"], &[]), (vec![], vec![5]));
        assert_eq!(planned(&[("label", 5)], &[], &[], &[5]), (vec![5], vec![]));
    }

    #[test]
    fn a_port_the_policy_drops_is_detached_though_its_device_is_there() {
        assert_eq!(planned(&[("p", 5)], &[], &[], &[5]), (vec![], vec![5]));
    }

    #[test]
    fn a_port_that_has_moved_leaves_its_old_device() {
        assert_eq!(planned(&[("p", 5)], &[("p", 9)], &["p"], &[5, 9]), (vec![9], vec![5]));
    }

    #[test]
    fn a_device_at_which_a_port_was_found_besides_is_let_go_with_the_doubt_about_it() {
        let twice = [("p", 5), ("p at device 7", 7)];
        assert_eq!(planned(&twice, &[("p", 5)], &["p"], &[5, 7]), (vec![5], vec![7]), "it is found once");
        assert_eq!(planned(&twice, &[("p", 7)], &["p"], &[5, 7]), (vec![7], vec![5]), "it is found once, there");
        assert_eq!(planned(&twice, &[], &[], &[5, 7]), (vec![], vec![5, 7]), "the policy drops it");
        assert_eq!(planned(&twice, &[], &["p"], &[5, 7]), (vec![5, 7], vec![]), "it is not found at all");
    }

    #[test]
    fn a_device_belongs_to_the_port_found_there_now() {
        assert_eq!(planned(&[("p", 5)], &[("q", 5)], &["p", "q"], &[5]), (vec![5], vec![]));
    }

    #[test]
    fn a_port_that_stays_has_the_groups_it_is_in_now() {
        let group = GroupId("web".to_owned());
        let before = policy(&["p"]);
        let mut now = policy(&["p"]);
        now.ports.get_mut(&PortId("p".to_owned())).unwrap().groups = vec![group.clone()];
        let plan = plan(&[Known::of(&attached("p", 5), &before)], vec![], &now, &BTreeSet::from([5]));
        assert_eq!(plan.enforce[0].groups, [group]);
        assert!(plan.kept.contains(&PortId("p".to_owned())));
    }

    #[test]
    fn a_port_that_is_to_be_found_in_another_way_is_not_kept_where_it_was() {
        let known = Known::of(&attached("p", 5), &policy(&["p"]));
        let mut now = policy(&["p"]);
        now.ports.get_mut(&PortId("p".to_owned())).unwrap().binding = Binding::default();
        assert_eq!(plan(&[known], vec![], &now, &BTreeSet::from([5])).detach, BTreeSet::from([5]));
    }
}

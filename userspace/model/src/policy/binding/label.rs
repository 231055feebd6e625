//! Ports of containers that name their groups in a label. Flow: policy.
//!
//! A container on plain Docker needs no document of its own: `--label netdiag.security-groups=web,db` makes one port for each
//! of its network cards. A port that a document ties to the card comes first.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use super::{Bound, Claim, Claims, Place, Problem, port};
use crate::{
    inventory::{Instance, Inventory},
    policy::types::{GroupId, Policy, Port, PortId},
    resolve::CANDIDATES,
    trace::Identity,
};

/// Label of a container whose value names its security groups, by id or name, separated by commas.
pub const LABEL: &str = "netdiag.security-groups";

/// Claims the cards of labelled containers that no document claims.
pub(super) fn claim(policy: &Policy, places: &[Place<'_, '_>], (claims, bound): (&mut Claims<'_>, &mut Bound)) {
    for (number, place) in places.iter().enumerate() {
        let labels: BTreeMap<&str, &Identity> =
            place.instances.iter().filter_map(|own| Some((label(own)?, *own))).collect();
        let Some((text, identity)) = labels.first_key_value().filter(|_| !claims.contains_key(&number)) else {
            continue;
        };
        let id = PortId(format!("{}/{}", identity.name, place.inner_name.unwrap_or("?")));
        let groups = match labels.len() {
            1 => groups(policy, text),
            _ => Err("containers of one namespace have labels that differ".to_owned()),
        };
        let closed = groups.is_err();
        let made = Port { groups: groups.clone().unwrap_or_default(), ..port(id) };
        if let Err(why) = groups {
            let why = format!("{LABEL}: {why}; it is closed");
            bound.problems.push(Problem {
                port: made.id.clone(),
                device: place.device(),
                why,
                candidates: named(policy),
            });
        }
        if place.outer.is_ok() {
            bound.made.push(made.clone());
        }
        claims.insert(number, vec![Claim { port: Cow::Owned(made), closed }]);
    }
}

/// Labelled containers on the host's network: they send through the host's own devices, which nothing may claim for them.
pub(super) fn beyond_reach(inventory: &Inventory<'_>, bound: &mut Bound) {
    let on_host = |instance: &&Instance<'_>| inventory.host.is_some() && instance.netns == inventory.host;
    for instance in inventory.instances.iter().filter(on_host).filter(|instance| label(&instance.identity).is_some()) {
        let why = format!("not enforced: {LABEL}: it is on the host's network, and has no card of its own");
        let port = PortId(instance.identity.name.clone());
        bound.problems.push(Problem { port, device: None, why, candidates: vec![] });
    }
}

fn label(identity: &Identity) -> Option<&str> {
    identity.labels.get(LABEL).map(String::as_str)
}

/// The groups of a label.
fn groups(policy: &Policy, text: &str) -> Result<Vec<GroupId>, String> {
    let mut groups = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let group = group(policy, word)?;
        if !groups.contains(&group) {
            groups.push(group);
        }
    }
    let kinds: BTreeSet<bool> =
        groups.iter().filter_map(|id| policy.groups.get(id)).map(|group| group.stateful).collect();
    if kinds.len() > 1 { Err(format!("{text} mixes stateful and stateless groups")) } else { Ok(groups) }
}

/// A group by its id, or by a name no other has.
fn group(policy: &Policy, word: &str) -> Result<GroupId, String> {
    let id = GroupId(word.to_owned());
    if policy.groups.contains_key(&id) {
        return Ok(id);
    }
    let mut called = policy.groups.values().filter(|group| group.name == word);
    match (called.next(), called.next()) {
        (Some(group), None) => Ok(group.id.clone()),
        (Some(_), Some(_)) => Err(format!("{word} is the name of several security groups")),
        (None, _) => Err(format!("no security group {word}")),
    }
}

/// What the groups there are are called.
fn named(policy: &Policy) -> Vec<String> {
    let called = policy.groups.values().map(|group| if group.name.is_empty() { &group.id.0 } else { &group.name });
    called.take(CANDIDATES).cloned().collect()
}

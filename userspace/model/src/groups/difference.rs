//! Where what is loaded for a port differs from what is asked. Flow: explain.

use std::{collections::BTreeSet, net::IpAddr};

use super::{
    near,
    show::{self, ShownRule, Standing},
};
use crate::{
    fact::enforcement::{EnforcedPort, EnforcementFact},
    inventory::Inventory,
    policy::types::{Mode, Port},
};

/// How many rules or addresses are named.
const NAMED: usize = 3;

/// What differs at a port, each a sentence; nothing where one of the two is not known.
pub(super) fn differences(inventory: &Inventory<'_>, port: &EnforcedPort) -> Vec<String> {
    let (Some(asked), Some(loaded)) = (inventory.asked(), inventory.snapshot.facts.enforcement.as_ref()) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    if let Some(own) = asked.port(&port.port_id) {
        found.extend(mode(port, own));
        found.extend(addresses(port, own, loaded));
    }
    let rules = show::rules(port, inventory).unwrap_or_default();
    let of = |standing| rules.iter().filter(move |rule| rule.standing == standing).map(words);
    found.extend(listed("asked for and not in force", of(Standing::Missing).collect()));
    found.extend(listed("in force, and nobody asks for it any more", of(Standing::NotAsked).collect()));
    found
}

/// What becomes of its packets. A port that is closed is so because something is in doubt, which is said elsewhere.
fn mode(port: &EnforcedPort, own: &Port) -> Option<String> {
    match (port.mode, own.filtered) {
        (Mode::Trusted, true) => Some("rules are asked for, and everything passes".to_owned()),
        (Mode::Filtered, false) => Some("no port security is asked for, and rules are enforced".to_owned()),
        (Mode::Trusted, false) | (Mode::Filtered, true) | (Mode::Closed, _) => None,
    }
}

/// What it may send from, where the policy says so.
fn addresses(port: &EnforcedPort, own: &Port, loaded: &EnforcementFact) -> Vec<String> {
    if port.mode != Mode::Filtered || loaded.tables.is_none() {
        return Vec::new();
    }
    let there = near::attached(port, loaded);
    let mut found = Vec::new();
    if let Some(mac) = own.mac.filter(|mac| *mac != port.mac) {
        found.push(format!("its MAC address is {} and not {mac}, which is asked for", port.mac));
    }
    let pairs = || there.pairs.iter().map(|(_, net)| *net);
    let asked = own.fixed_ips.iter().flatten();
    let missing =
        asked.filter(|address| !there.fixed_ips.contains(address) && !pairs().any(|net| net.contains(*address)));
    found.extend(listed("asked for, and nothing may be sent from it", missing.map(IpAddr::to_string).collect()));
    if let Some(asked) = &own.fixed_ips {
        let wanted: BTreeSet<_> = own.allowed_address_pairs.iter().map(|pair| pair.address).collect();
        let more = there
            .fixed_ips
            .iter()
            .filter(|address| !asked.contains(address) && !wanted.iter().any(|net| net.contains(*address)));
        found.extend(listed("not asked for, and it may be sent from", more.map(IpAddr::to_string).collect()));
    }
    found
}

fn words(rule: &ShownRule) -> String {
    match &rule.rule {
        Some(known) => format!("rule {} of {}", rule.id, known.group.called()),
        None => format!("rule {}", rule.id),
    }
}

/// `asked for and not in force: rule a of web, rule b of web and 3 more`; none where there is nothing to name.
fn listed(what: &str, things: Vec<String>) -> Option<String> {
    let more = things.len().saturating_sub(NAMED);
    let named = things.into_iter().take(NAMED).collect::<Vec<_>>().join(", ");
    match (named.is_empty(), more) {
        (true, _) => None,
        (false, 0) => Some(format!("{what}: {named}")),
        (false, more) => Some(format!("{what}: {named} and {more} more")),
    }
}

//! Ports tied to the instances of this host. Flow: policy.
//!
//! Whatever is not certain is closed: a card that two ports claim, a port that is found twice, a label that names a group
//! nobody knows. What nothing can hold is refused with the reason, and never claimed to be enforced.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
};

use serde::Serialize;

use super::types::{Attached, Binding, Mode, Policy, Port, PortId};
use crate::{
    id::{IfIndex, Mac},
    inventory::Inventory,
};

/// Ports that a device's name alone gives away.
mod ahead;
/// Where ports are found.
mod find;
/// Ports of containers that name their groups in a label.
mod label;
/// Network cards, and whether anything can hold them.
mod place;
#[cfg(test)]
mod tests;

pub use ahead::{ahead, beside, hook_ahead};
use find::Search;
pub use label::LABEL;
use place::Place;

/// A policy tied to a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Ports to enforce on this host, in the order of their ids.
    pub attached: Vec<Attached>,
    /// Ports that no document has: those of labelled containers. They are members of their groups as others are.
    pub made: Vec<Port>,
    /// Addresses of ports that were given none, as found at their devices.
    pub found: BTreeMap<PortId, BTreeSet<IpAddr>>,
    /// What keeps ports from being enforced as asked.
    pub problems: Vec<Problem>,
    /// Network cards that no port claims, and that could be held.
    pub candidates: Vec<Candidate>,
}

impl Bound {
    /// The policy with the ports that were made.
    pub fn complete<'p>(&self, policy: &'p Policy) -> Cow<'p, Policy> {
        if self.made.is_empty() {
            return Cow::Borrowed(policy);
        }
        let mut whole = policy.clone();
        whole.ports.extend(self.made.iter().map(|port| (port.id.clone(), port.clone())));
        Cow::Owned(whole)
    }
}

/// Why a port is not enforced as asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Problem {
    /// The port.
    pub port: PortId,
    /// The host's device, where one was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Why, and what becomes of its packets.
    pub why: String,
    /// What may have been meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "port {}: ", self.port)?;
        if let Some(device) = &self.device {
            write!(f, "{device}: ")?;
        }
        f.write_str(&self.why)?;
        if self.candidates.is_empty() { Ok(()) } else { write!(f, "; there is {}", self.candidates.join(", ")) }
    }
}

/// A network card that no port claims.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Candidate {
    /// Name of its instance; none for a device with nobody behind it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// The host's device.
    pub device: String,
    /// Its index.
    pub ifindex: IfIndex,
    /// Its Neutron port, as Open vSwitch has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port_id: Option<String>,
}

/// A port's claim on a card.
#[derive(Clone, Debug)]
struct Claim<'p> {
    port: Cow<'p, Port>,
    /// What is to be enforced there is in doubt.
    closed: bool,
}

/// Claims by the card's place in the list.
type Claims<'p> = BTreeMap<usize, Vec<Claim<'p>>>;

/// Ties every port to its card on this host, if it has one here.
pub fn bind(policy: &Policy, inventory: &Inventory<'_>) -> Bound {
    let places = place::all(policy, inventory);
    let mut bound = Bound::default();
    let mut claims = Claims::new();
    let search = Search::new(&places, policy, inventory);
    for port in policy.ports.values() {
        let found = search.find(port);
        bound.problems.extend(found.problem);
        for place in found.places {
            claims.entry(place).or_default().push(Claim { port: Cow::Borrowed(port), closed: found.closed });
        }
    }
    label::claim(policy, &places, (&mut claims, &mut bound));
    label::beyond_reach(inventory, &mut bound);
    if policy.close_unknown_ports {
        close_unknown(policy, &places, &mut claims);
    }
    for (number, place) in places.iter().enumerate() {
        match claims.get(&number) {
            Some(claims) => attach(place, claims, inventory, &mut bound),
            None => bound.candidates.extend(candidate(place, inventory)),
        }
    }
    bound.attached.sort_by(|a, b| a.id.cmp(&b.id).then(a.ifindex.cmp(&b.ifindex)));
    name_apart(&mut bound.attached);
    bound.problems.sort();
    bound.candidates.sort();
    bound
}

/// Closes the cards of Neutron ports that the policy does not have.
fn close_unknown(policy: &Policy, places: &[Place<'_, '_>], claims: &mut Claims<'_>) {
    for (number, place) in places.iter().enumerate() {
        let id = place.port_id.as_ref().map(|id| PortId(id.to_string()));
        let unknown = id.filter(|id| !claims.contains_key(&number) && !policy.ports.contains_key(id));
        if let Some(id) = unknown.filter(|_| place.outer.is_ok()) {
            claims.insert(number, vec![Claim { port: Cow::Owned(port(id)), closed: true }]);
        }
    }
}

/// A port of which nothing but the id is known.
fn port(id: PortId) -> Port {
    Port {
        id,
        name: String::new(),
        binding: Binding::default(),
        mac: None,
        fixed_ips: None,
        allowed_address_pairs: BTreeSet::new(),
        groups: vec![],
        filtered: true,
        log_allowed: false,
    }
}

fn attach(place: &Place<'_, '_>, claims: &[Claim<'_>], inventory: &Inventory<'_>, bound: &mut Bound) {
    let Some(Claim { port, closed }) = claims.first() else { return };
    let problem = |why: String| Problem { port: port.id.clone(), device: place.device(), why, candidates: vec![] };
    let ifindex = match &place.outer {
        Ok(outer) => outer.ifindex.0,
        Err(why) => {
            let why = format!("not enforced: {why}");
            let each = claims.iter().map(|claim| Problem { port: claim.port.id.clone(), ..problem(why.clone()) });
            return bound.problems.extend(each);
        }
    };
    let mut closed = *closed;
    if let [_, others @ ..] = claims
        && !others.is_empty()
    {
        let others: Vec<_> = others.iter().map(|claim| claim.port.id.to_string()).collect();
        bound
            .problems
            .push(problem(format!("is claimed by {} too, and closed until one of them lets go", others.join(", "))));
        closed = true;
    }
    let own = place.mac(inventory);
    if port.mac.is_none() && own.is_none() && !closed {
        bound.problems.push(problem("no MAC address is given or found, so it is closed".to_owned()));
        closed = true;
    }
    if let (Some(asked), Some(own)) = (port.mac, own)
        && asked != own
        && port.filtered
    {
        bound.problems.push(problem(format!("has the MAC address {own} and not {asked}, so what it sends is refused")));
    }
    let mac = port.mac.or(own).unwrap_or(Mac([0; 6]));
    let fixed_ips = port.fixed_ips.clone().unwrap_or_else(|| place.addresses(inventory));
    if port.fixed_ips.is_none() && !fixed_ips.is_empty() {
        bound.found.entry(port.id.clone()).or_default().extend(&fixed_ips);
    }
    bound.attached.push(Attached {
        id: port.id.clone(),
        ifindex,
        mac,
        fixed_ips,
        pairs: port.allowed_address_pairs.iter().map(|pair| (pair.mac.unwrap_or(mac), pair.address)).collect(),
        groups: port.groups.clone(),
        mode: mode(port, closed),
        hook: place.hook(inventory),
        log_allowed: port.log_allowed,
    });
}

fn mode(port: &Port, closed: bool) -> Mode {
    match (closed, port.filtered) {
        (true, _) => Mode::Closed,
        (false, true) => Mode::Filtered,
        (false, false) => Mode::Trusted,
    }
}

/// Gives a port that was found at several devices an id for each but the first.
fn name_apart(attached: &mut [Attached]) {
    let mut seen = BTreeSet::new();
    for port in attached {
        if !seen.insert(port.id.clone()) {
            port.id = port.id.at_device(port.ifindex);
        }
    }
}

fn candidate(place: &Place<'_, '_>, inventory: &Inventory<'_>) -> Option<Candidate> {
    let key = *place.outer.as_ref().ok().filter(|_| !place.gone())?;
    Some(Candidate {
        instance: place.instances.first().map(|identity| identity.name.clone()),
        device: inventory.link(key)?.name.clone(),
        ifindex: key.ifindex,
        port_id: place.port_id.as_ref().map(ToString::to_string),
    })
}

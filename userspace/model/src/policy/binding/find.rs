//! Where ports are found. Flow: policy.

use super::{Place, Problem};
use crate::{
    id::Uuid,
    inventory::Inventory,
    policy::types::{Policy, Port},
};

/// How much of a port's id Neutron puts behind `tap`.
const CUT: usize = 11;

/// Shortest beginning of a container's id that is taken for one: what `docker ps` prints.
const SHORT_ID: usize = 12;

/// Where a port is, as places in the list of cards.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) places: Vec<usize>,
    /// Which of them is meant is in doubt.
    pub(super) closed: bool,
    pub(super) problem: Option<Problem>,
}

/// Looks for a port by what its binding says first.
pub(super) fn find(port: &Port, places: &[Place<'_, '_>], policy: &Policy, inventory: &Inventory<'_>) -> Found {
    let binding = &port.binding;
    if let Some(device) = &binding.device {
        by_device(port, device, places, inventory)
    } else if let Some(instance) = &binding.instance {
        by_instance(port, instance, places, inventory)
    } else if binding.port_id {
        by_port_id(port, places, policy, inventory)
    } else {
        Found::default()
    }
}

fn problem(port: &Port, why: String, candidates: Vec<String>) -> Found {
    let problem = Problem { port: port.id.clone(), device: None, why, candidates };
    Found { problem: Some(problem), ..Found::default() }
}

/// Cards that satisfy a test, those of instances that are gone only where nothing else does.
fn such(places: &[Place<'_, '_>], test: impl Fn(&Place<'_, '_>) -> bool) -> Vec<usize> {
    let hits: Vec<usize> = (0..places.len()).filter(|place| test(&places[*place])).collect();
    let here: Vec<usize> = hits.iter().copied().filter(|place| !places[*place].gone()).collect();
    if here.is_empty() { hits } else { here }
}

fn by_device(port: &Port, device: &str, places: &[Place<'_, '_>], inventory: &Inventory<'_>) -> Found {
    let key = inventory.host.and_then(|host| inventory.link_named(host, device));
    let hits = such(places, |place| key.is_some() && place.own == key);
    if !hits.is_empty() {
        return one(port, places, hits);
    }
    match inventory.links_named(device).next() {
        Some(key) => {
            let label = inventory.netns(key.netns).label;
            problem(port, format!("device {device} is in namespace {label}, and not in the host's"), vec![])
        }
        None => problem(port, format!("no device {device} on this host"), vec![]),
    }
}

fn by_instance(port: &Port, instance: &str, places: &[Place<'_, '_>], inventory: &Inventory<'_>) -> Found {
    let exact = |text: Option<&str>| text.is_some_and(|text| text == instance);
    let of = |place: &Place<'_, '_>| {
        place.instances.iter().any(|identity| {
            let id = identity.container_id.as_deref();
            exact(Some(&identity.name))
                || exact(identity.container_name.as_deref())
                || exact(identity.libvirt_name.as_deref())
                || identity.nova_uuid.as_ref().is_some_and(|uuid| uuid.as_str().eq_ignore_ascii_case(instance))
                || id.is_some_and(|id| instance.len() >= SHORT_ID && id.starts_with(instance))
        })
    };
    let cards = such(places, of);
    match cards.len() {
        0 => problem(port, format!("no instance {instance} with a network card on this host"), names(places)),
        1 => one(port, places, cards),
        _ => one(port, places, narrow(port, places, inventory, cards)),
    }
}

/// The card of an instance with several that has the port's MAC address.
fn narrow(port: &Port, places: &[Place<'_, '_>], inventory: &Inventory<'_>, cards: Vec<usize>) -> Vec<usize> {
    let same: Vec<usize> =
        cards.iter().copied().filter(|card| port.mac.is_some() && places[*card].mac(inventory) == port.mac).collect();
    if same.is_empty() { cards } else { same }
}

fn by_port_id(port: &Port, places: &[Place<'_, '_>], policy: &Policy, inventory: &Inventory<'_>) -> Found {
    let Ok(id) = port.id.0.parse::<Uuid>() else {
        return problem(port, "is bound by its id, which is no UUID".to_owned(), vec![]);
    };
    let carried = such(places, |place| place.port_id.as_ref() == Some(&id));
    if !carried.is_empty() {
        return one(port, places, carried);
    }
    let cut = format!("tap{}", id.prefix(CUT));
    let named = such(places, |place| place.device().as_ref() == Some(&cut));
    let mut like = policy
        .ports
        .keys()
        .filter(|other| other.0.get(..CUT).is_some_and(|cut| id.prefix(CUT).eq_ignore_ascii_case(cut)));
    let (_, second) = (like.next(), like.next());
    match (named.is_empty(), second) {
        (false, None) => one(port, places, named),
        (false, Some(_)) => {
            let why = format!("{cut} is named by the beginning of its id, which another port has, too; it is closed");
            Found { places: named, closed: true, ..problem(port, why, vec![]) }
        }
        (true, _) if port.binding.host.as_deref().is_some_and(|host| is_this(host, inventory)) => {
            problem(port, "is bound to this host, and no device here carries its id".to_owned(), vec![])
        }
        (true, _) => Found::default(),
    }
}

/// Whether a name Neutron has for a host is this one's; one of the two may lack the domain.
fn is_this(host: &str, inventory: &Inventory<'_>) -> bool {
    let own = inventory.snapshot.hostname.as_str();
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    host.eq_ignore_ascii_case(own) || ((!host.contains('.') || !own.contains('.')) && first(host) == first(own))
}

/// One card, or several that are all closed since nobody knows which is meant.
fn one(port: &Port, all: &[Place<'_, '_>], places: Vec<usize>) -> Found {
    let devices: Vec<String> = places.iter().filter_map(|place| all[*place].device()).collect();
    let why = format!("is found {} times, at {}; all are closed", places.len(), devices.join(" and "));
    match places.len() {
        0 | 1 => Found { places, ..Found::default() },
        _ => Found { places, closed: true, ..problem(port, why, vec![]) },
    }
}

fn names(places: &[Place<'_, '_>]) -> Vec<String> {
    let mut names: Vec<String> =
        places.iter().flat_map(|place| &place.instances).map(|identity| identity.name.clone()).collect();
    names.sort();
    names.dedup();
    names.truncate(crate::resolve::CANDIDATES);
    names
}

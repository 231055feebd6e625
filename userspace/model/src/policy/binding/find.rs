//! Where ports are found. Flow: policy.

use std::collections::{BTreeMap, BTreeSet};

use super::{Place, Problem};
use crate::{
    id::Uuid,
    inventory::Inventory,
    policy::types::{Policy, Port, PortId},
    resolve::CANDIDATES,
    trace::Identity,
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

/// The cards of a host, and where to look for one. A policy has the ports of many hosts, so that looking must be quick.
pub(super) struct Search<'s, 'i, 'a> {
    places: &'s [Place<'i, 'a>],
    by_port_id: BTreeMap<&'s str, Vec<usize>>,
    by_device: BTreeMap<&'a str, Vec<usize>>,
    policy: &'s Policy,
    inventory: &'s Inventory<'a>,
}

impl<'s, 'i, 'a> Search<'s, 'i, 'a> {
    pub(super) fn new(places: &'s [Place<'i, 'a>], policy: &'s Policy, inventory: &'s Inventory<'a>) -> Self {
        let mut search = Self { places, by_port_id: BTreeMap::new(), by_device: BTreeMap::new(), policy, inventory };
        for (number, place) in places.iter().enumerate() {
            if let Some(id) = &place.port_id {
                search.by_port_id.entry(id.as_str()).or_default().push(number);
            } else if let Some(name) = place.name {
                search.by_device.entry(name).or_default().push(number);
            }
        }
        search
    }

    /// Looks for a port by what its binding says first.
    pub(super) fn find(&self, port: &Port) -> Found {
        let binding = &port.binding;
        if let Some(device) = &binding.device {
            self.by_device(port, device)
        } else if let Some(instance) = &binding.instance {
            self.by_instance(port, instance)
        } else if binding.port_id {
            self.by_port_id(port)
        } else {
            Found::default()
        }
    }

    /// Cards that satisfy a test.
    fn such(&self, test: impl Fn(&Place<'_, '_>) -> bool) -> Vec<usize> {
        self.here((0..self.places.len()).filter(|place| test(&self.places[*place])).collect())
    }

    /// Those of instances that are gone count only where nothing else does.
    fn here(&self, hits: Vec<usize>) -> Vec<usize> {
        let here: Vec<usize> = hits.iter().copied().filter(|place| !self.places[*place].gone()).collect();
        if here.is_empty() { hits } else { here }
    }

    fn by_device(&self, port: &Port, device: &str) -> Found {
        let inventory = self.inventory;
        let key = inventory.host.and_then(|host| inventory.link_named(host, device));
        let hits = self.such(|place| key.is_some() && place.own == key);
        if !hits.is_empty() {
            return self.one(port, hits);
        }
        match inventory.links_named(device).next() {
            Some(key) => {
                let label = inventory.netns(key.netns).label;
                problem(port, format!("device {device} is in namespace {label}, and not in the host's"), vec![])
            }
            None => problem(port, format!("no device {device} on this host"), vec![]),
        }
    }

    fn by_instance(&self, port: &Port, instance: &str) -> Found {
        let cards = self.such(|place| place.instances.iter().any(|identity| is_called(identity, instance)));
        match cards.len() {
            0 => problem(port, format!("no instance {instance} with a network card on this host"), self.names()),
            1 => self.one(port, cards),
            _ => self.one(port, self.narrow(port, cards)),
        }
    }

    /// The card of an instance with several that has the port's MAC address.
    fn narrow(&self, port: &Port, cards: Vec<usize>) -> Vec<usize> {
        let is_same = |card: &usize| port.mac.is_some() && self.places[*card].mac(self.inventory) == port.mac;
        let same: Vec<usize> = cards.iter().copied().filter(is_same).collect();
        if same.is_empty() { cards } else { same }
    }

    fn by_port_id(&self, port: &Port) -> Found {
        let Ok(id) = port.id.0.parse::<Uuid>() else {
            return problem(port, "is bound by its id, which is no UUID".to_owned(), vec![]);
        };
        if let Some(carried) = self.by_port_id.get(id.as_str()) {
            return self.one(port, self.here(carried.clone()));
        }
        // A device whose port Open vSwitch names is that port's, whatever it is called.
        if let Some(places) = self.by_device.get(named(&id).as_str()) {
            return self.by_cut(port, &id, places.clone());
        }
        match port.binding.host.as_deref() {
            Some(host) if is_this(host, self.inventory) => {
                problem(port, "is bound to this host, and no device here carries its id".to_owned(), vec![])
            }
            Some(_) | None => Found::default(),
        }
    }

    /// A device named by the beginning of a port's id, which several ports may share.
    fn by_cut(&self, port: &Port, id: &Uuid, named: Vec<usize>) -> Found {
        let cut = id.prefix(CUT);
        let same = |other: &&PortId| other.0.get(..CUT).is_some_and(|start| start.eq_ignore_ascii_case(cut));
        if self.policy.ports.keys().filter(same).count() == 1 {
            return self.one(port, named);
        }
        let why = format!("tap{cut} is named by the beginning of its id, which another port has, too; it is closed");
        Found { places: named, closed: true, ..problem(port, why, vec![]) }
    }

    /// One card, or several that are all closed since nobody knows which is meant.
    fn one(&self, port: &Port, places: Vec<usize>) -> Found {
        let devices: Vec<&str> = places.iter().filter_map(|place| self.places[*place].name).collect();
        let why = format!("is found {} times, at {}; all are closed", places.len(), devices.join(" and "));
        match places.len() {
            0 | 1 => Found { places, ..Found::default() },
            _ => Found { places, closed: true, ..problem(port, why, vec![]) },
        }
    }

    /// Instances there are.
    fn names(&self) -> Vec<String> {
        let identities = self.places.iter().flat_map(|place| &place.instances);
        let names: BTreeSet<&str> = identities.map(|identity| identity.name.as_str()).collect();
        names.into_iter().take(CANDIDATES).map(str::to_owned).collect()
    }
}

/// Name of the device Neutron makes for a port.
fn named(id: &Uuid) -> String {
    format!("tap{}", id.prefix(CUT))
}

/// The same for a port's id that may be none of Neutron's.
pub(super) fn tap(id: &PortId) -> Option<String> {
    id.0.parse().ok().map(|id| named(&id))
}

/// Whether an instance is meant by a name, a container's id or its beginning, or a Nova UUID.
fn is_called(identity: &Identity, instance: &str) -> bool {
    let names = [Some(&identity.name), identity.container_name.as_ref(), identity.libvirt_name.as_ref()];
    let id = identity.container_id.as_deref();
    names.into_iter().flatten().any(|name| name == instance)
        || identity.nova_uuid.as_ref().is_some_and(|uuid| uuid.as_str().eq_ignore_ascii_case(instance))
        || id.is_some_and(|id| instance.len() >= SHORT_ID && id.starts_with(instance))
}

fn problem(port: &Port, why: String, candidates: Vec<String>) -> Found {
    let problem = Problem { port: port.id.clone(), device: None, why, candidates };
    Found { problem: Some(problem), ..Found::default() }
}

/// Whether a name Neutron has for a host is this one's; one of the two may lack the domain.
fn is_this(host: &str, inventory: &Inventory<'_>) -> bool {
    let own = inventory.snapshot.hostname.as_str();
    let first = |name: &str| name.split('.').next().unwrap_or_default().to_ascii_lowercase();
    host.eq_ignore_ascii_case(own) || ((!host.contains('.') || !own.contains('.')) && first(host) == first(own))
}

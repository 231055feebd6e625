//! What an operator typed, turned into one instance or a list of candidates. Flow: explain.
//!
//! Anything an operator has in hand is a key: names, ids and their prefixes, addresses, devices, pids. An exact match
//! of any key beats every prefix; two instances that match equally well are ambiguous, and the candidates say by which
//! of their keys they matched. Overlapping addresses of different tenants are therefore never guessed at.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::Serialize;

use crate::{
    fact::PublishedPort,
    inventory::{Instance, Inventory, PortPlace, instance::GONE},
};

/// Shortest prefix of an id that is taken for one.
const SHORTEST_PREFIX: usize = 3;

/// How many candidates an answer lists.
pub const CANDIDATES: usize = 20;

/// A word by which an instance can be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    what: &'static str,
    text: String,
    /// Whether a prefix of it will do.
    prefix: bool,
}

/// Whether a key is what is meant by a word.
type Rule = fn(&Key, &str) -> bool;

/// Why nothing was resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unresolved {
    /// What was typed.
    pub query: String,
    /// True where several match equally well; false where none does.
    pub ambiguous: bool,
    /// Those that match, or those that come close; at most [`CANDIDATES`].
    pub candidates: Vec<Candidate>,
    /// How many there are in all.
    pub total: usize,
}

/// An instance that may have been meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Which of its keys matched.
    pub by: String,
    /// A key of it that no other instance has, to type instead.
    pub unique: String,
}

/// The instance that is meant, as its place in [`Inventory::instances`].
///
/// # Errors
/// None matches, or several do; the candidates are listed.
pub fn resolve(inventory: &Inventory<'_>, query: &str) -> Result<usize, Unresolved> {
    let query = query.trim();
    let bare = bare(query);
    let keys: Vec<Vec<Key>> = inventory.instances.iter().map(|instance| keys(inventory, instance)).collect();
    let rules: [(Rule, &str); 3] = [(exactly, query), (exactly, bare), (by_prefix, query)];
    for (rule, query) in rules {
        let hits: Vec<(usize, &Key)> = keys
            .iter()
            .enumerate()
            .filter_map(|(place, keys)| keys.iter().find(|key| rule(key, query)).map(|key| (place, key)))
            .collect();
        // What is left of an instance is meant where nothing else is.
        let gone = |place: usize| inventory.instances[place].identity.state == GONE;
        let here: Vec<_> = hits.iter().filter(|(place, _)| !gone(*place)).collect();
        match (&hits[..], &here[..]) {
            ([], _) => {}
            ([(place, _)], _) | (_, [(place, _)]) => return Ok(*place),
            _ => return Err(unresolved(inventory, query, true, &hits)),
        }
    }
    let behind = behind_floating_ip(inventory, bare, &keys);
    let untied: Vec<_> = behind.iter().copied().filter(|(place, key)| is_untied(inventory, *place, key)).collect();
    match (&behind[..], &untied[..]) {
        ([], _) => {}
        (_, [(place, _)]) => return Ok(*place),
        (others, []) => return Err(unresolved(inventory, query, false, others)),
        (_, several) => return Err(unresolved(inventory, query, true, several)),
    }
    let near: Vec<(usize, &Key)> = keys
        .iter()
        .enumerate()
        .filter_map(|(place, keys)| keys.iter().find(|key| nearly(key, query)).map(|key| (place, key)))
        .collect();
    // With nothing near, every instance is a candidate: an operator who mistyped wants to see what there is.
    let all = keys.iter().enumerate().filter_map(|(place, keys)| keys.first().map(|key| (place, key)));
    let offered = if near.is_empty() { all.collect() } else { near };
    Err(unresolved(inventory, query, false, &offered))
}

/// Instances that a floating IP may stand for by its rules alone. An operator asks for one exactly when its path is broken,
/// and then nothing but the rules may tie it to its instance.
fn behind_floating_ip<'k>(inventory: &Inventory<'_>, query: &str, keys: &'k [Vec<Key>]) -> Vec<(usize, &'k Key)> {
    let Ok(address) = query.parse() else { return Vec::new() };
    let fixed: Vec<String> = inventory.behind_floating_ip(address).iter().map(ToString::to_string).collect();
    let stands_for = |key: &&Key| key.what == "fixed IP" && fixed.contains(&key.text);
    let hits = keys.iter().enumerate().filter_map(|(place, keys)| Some((place, keys.iter().find(stands_for)?)));
    hits.collect()
}

/// Whether the card that has a fixed address is behind no router that is known. One that is behind a router without the floating
/// IP's rules only has an address that another tenant's instance has as well.
fn is_untied(inventory: &Inventory<'_>, place: usize, fixed: &Key) -> bool {
    let has_it = |net: &IpNet| fixed.text == net.addr().to_string();
    let mut cards = inventory.instances[place].nics.iter().filter(|nic| nic.addresses.iter().any(has_it));
    cards.any(|nic| inventory.translators(nic).is_empty())
}

/// An address or a device as `ip` prints it (`10.0.0.2/24`, `tap1@if4:`), without what is not its own.
fn bare(query: &str) -> &str {
    let end = if query.parse::<IpNet>().is_ok() { query.find('/') } else { query.find('@') };
    let word = end.map_or(query, |end| &query[..end]);
    word.strip_suffix(':').filter(|_| word.parse::<IpAddr>().is_err()).unwrap_or(word)
}

fn exactly(key: &Key, query: &str) -> bool {
    key.text.eq_ignore_ascii_case(query)
        || matches!((key.text.parse::<IpAddr>(), query.parse::<IpAddr>()), (Ok(own), Ok(asked)) if own == asked)
        || (key.what == "MAC" && key.text == query.to_ascii_lowercase().replace('-', ":"))
}

fn by_prefix(key: &Key, query: &str) -> bool {
    key.prefix
        && query.len() >= SHORTEST_PREFIX
        && key.text.get(..query.len()).is_some_and(|start| start.eq_ignore_ascii_case(query))
}

/// Close enough to be offered after a typing mistake: it contains the query, or differs from it by at most two edits.
fn nearly(key: &Key, query: &str) -> bool {
    let (own, asked) = (key.text.to_ascii_lowercase(), query.to_ascii_lowercase());
    (asked.len() >= SHORTEST_PREFIX && own.contains(&asked)) || (asked.len() > 4 && distance(&own, &asked) <= 2)
}

/// Levenshtein distance; 3 stands for anything beyond 2.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) > 2 {
        return 3;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row[b.len()].min(3)
}

/// Every word by which an instance can be meant, the tellingest first.
fn keys(inventory: &Inventory<'_>, instance: &Instance<'_>) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut add = |what, text: Option<String>, prefix| {
        keys.extend(text.filter(|text| !text.is_empty()).map(|text| Key { what, text, prefix }));
    };
    let identity = &instance.identity;
    add("name", Some(identity.name.clone()), true);
    add("container name", identity.container_name.clone(), true);
    add("libvirt name", identity.libvirt_name.clone(), true);
    add("host name", identity.hostname.clone(), false);
    add("Nova UUID", identity.nova_uuid.as_ref().map(ToString::to_string), true);
    add("Nova name", identity.nova_uuid.as_ref().map(|uuid| format!("nova-{uuid}")), true);
    add("container id", identity.container_id.clone(), true);
    add("pid", identity.pid.map(|pid| pid.to_string()), false);
    let own = instance.netns.filter(|id| Some(*id) != inventory.host).and_then(|id| inventory.namespace(id));
    for process in own.map_or(&[][..], |namespace| &namespace.processes) {
        add("pid", Some(process.pid.to_string()), false);
    }
    for port in instance.published {
        for text in published(port) {
            add("published port", Some(text), false);
        }
    }
    for nic in &instance.nics {
        add("port", nic.port_id.as_ref().map(ToString::to_string), true);
        add("port's instance", nic.port.as_ref().and_then(PortPlace::instance_id).map(str::to_owned), true);
        add("MAC", nic.mac.map(|mac| mac.to_string()), false);
        for address in &nic.addresses {
            add("fixed IP", Some(address.addr().to_string()), false);
        }
        for floating in inventory.floating_ips(nic) {
            add("floating IP", Some(floating.address.to_string()), false);
        }
        for (_, port, _) in inventory.port_forwardings(nic) {
            add("floating IP", Some(port.host_address.to_string()), false);
        }
        add("device", nic.outer_name(inventory).map(str::to_owned), false);
        add("device", nic.port.map(|port| port.interface.name.clone()), false);
        add("device", nic.port.and_then(|port| plug(inventory, &port)), false);
        let bridge = nic.bridge.and_then(|bridge| inventory.link(bridge)).filter(|link| link.name.starts_with("qbr"));
        add("device", bridge.map(|link| link.name.clone()), false);
        // `eth0` is in every container; an inner name is a key only where it says something.
        let telling = nic.inner_name(inventory).filter(|name| nic.port_id.is_some() && !name.starts_with("eth"));
        add("device", telling.map(str::to_owned), false);
    }
    keys
}

/// The near end of the veth by which a bridge is plugged into a switch (`qvb` of a hybrid plug), where that is on the host: that
/// of a card plugged without a bridge is the card.
fn plug(inventory: &Inventory<'_>, port: &PortPlace<'_>) -> Option<String> {
    let far = inventory.link_named(inventory.host?, &port.interface.name)?;
    let near = inventory.peer(far).filter(|near| near.netns == far.netns)?;
    inventory.link(near).map(|link| link.name.clone())
}

/// The ways a published port is written: `8080`, `8080/tcp`, `tcp/8080`, and with its address as `ss` and Docker do.
fn published(port: &PublishedPort) -> [String; 4] {
    let PublishedPort { protocol, host_address, host_port, .. } = port;
    let whole = SocketAddr::new(*host_address, *host_port);
    [host_port.to_string(), format!("{host_port}/{protocol}"), format!("{protocol}/{host_port}"), whole.to_string()]
}

fn unresolved(inventory: &Inventory<'_>, query: &str, ambiguous: bool, hits: &[(usize, &Key)]) -> Unresolved {
    let candidates = hits
        .iter()
        .take(CANDIDATES)
        .map(|(place, key)| {
            let identity = &inventory.instances[*place].identity;
            let id = identity.container_id.as_ref().map(|id| id.chars().take(12).collect());
            let unique =
                id.or_else(|| identity.pid.map(|pid| pid.to_string())).unwrap_or_else(|| identity.name.clone());
            Candidate { name: identity.name.clone(), by: format!("{} {}", key.what, key.text), unique }
        })
        .collect();
    Unresolved { query: query.to_owned(), ambiguous, candidates, total: hits.len() }
}

#[cfg(test)]
mod tests;

//! Which rule of the packet filter dropped a packet of which nothing is known but where the kernel gave it up. Flow: explain.
//!
//! The device is the one the packet came by until it is sent, and from then on the one it leaves by; of a bridged packet the
//! bridge, and then the port it leaves by. Addresses and routes say which of these it is; where they do not, no rule is named.

use std::{collections::HashMap, net::IpAddr};

use super::Dropped;
use crate::{
    id::LinkKey,
    inventory::Inventory,
    live::{
        Sighting,
        packet::Headers,
        rules::{self, Way, leads},
    },
    trace::RuleRef,
};

/// The kernel's reason where a rule dropped it.
const REASON: &str = "NETFILTER_DROP";

/// Packets that rules are asked about, by one look at the host: of more, what scans ports sends, no rule is named.
const MOST: usize = 2_048;

/// Rules of a host, as one look has them.
#[derive(Debug)]
pub struct Rules<'i, 'a> {
    inventory: &'i Inventory<'a>,
    /// What was found for packets that are alike: at one device, with one mark, of the same words.
    known: HashMap<(LinkKey, u32, String), Vec<RuleRef>>,
}

impl Dropped {
    /// Whether a rule of the packet filter dropped it, whichever.
    pub fn is_by_rule(&self) -> bool {
        self.reason == REASON
    }
}

impl<'i, 'a> Rules<'i, 'a> {
    /// Nobody asked yet.
    pub fn of(inventory: &'i Inventory<'a>) -> Self {
        Self { inventory, known: HashMap::new() }
    }

    /// The same packet with the rules that would drop it: one, where it is that one whatever the state of its flow.
    #[must_use]
    pub fn named(&mut self, dropped: Dropped, sighting: &Sighting) -> Dropped {
        let Some(link) = sighting.link.filter(|_| dropped.is_by_rule()) else { return dropped };
        let key = (link, sighting.mark, dropped.packet.clone());
        if self.known.len() >= MOST && !self.known.contains_key(&key) {
            return dropped;
        }
        let inventory = self.inventory;
        let found = self.known.entry(key).or_insert_with(|| found(inventory, link, sighting));
        Dropped { rules: found.clone(), ..dropped }
    }
}

fn found(inventory: &Inventory<'_>, link: LinkKey, sighting: &Sighting) -> Vec<RuleRef> {
    let headers = Headers::of(sighting);
    let way = headers.addresses().and_then(|ends| way(inventory, link, ends));
    way.map(|way| rules::dropping(inventory, (link.netns, way), (&headers, sighting.mark))).unwrap_or_default()
}

/// How a packet from one address to another can have come to the rules that it met at a device.
fn way(inventory: &Inventory<'_>, link: LinkKey, (source, destination): (IpAddr, IpAddr)) -> Option<Way> {
    let netns = link.netns;
    if let Some(bridge) = bridge(inventory, link).filter(|bridge| *bridge != link || !rules::routes(inventory, link)) {
        return between(inventory, (link, bridge), (source, destination));
    }
    if inventory.holder(netns, source).is_some() {
        return Some(Way::Local { out: Some(link) });
    }
    let name = inventory.link(link).map(|link| link.name.as_str());
    let to = leads(inventory, netns, (source, destination), name);
    let back = leads(inventory, netns, (destination, source), None);
    if to == Some(link) && back != Some(link) && inventory.holder(netns, destination).is_none() {
        return Some(Way::Leaves { by: link });
    }
    Some(Way::Routed { by: link, out: None })
}

/// The bridge a device is, or is a port of.
fn bridge(inventory: &Inventory<'_>, link: LinkKey) -> Option<LinkKey> {
    let own = || inventory.bridge_ports(link).next().map(|_| link);
    inventory.linux_bridge(link).or_else(own)
}

/// From the port of whom a bridged packet is from to the port of whom it is for, one of which is known by an instance's card.
fn between(
    inventory: &Inventory<'_>,
    (link, bridge): (LinkKey, LinkKey),
    (source, destination): (IpAddr, IpAddr),
) -> Option<Way> {
    let ports: Vec<LinkKey> = inventory.bridge_ports(bridge).map(|(port, _)| port).collect();
    let of = |address: IpAddr| {
        let nics = inventory.instances.iter().flat_map(|instance| &instance.nics);
        let mut own = nics.filter(|nic| nic.addresses.iter().any(|net| net.addr() == address));
        own.find_map(|nic| nic.outer.filter(|outer| ports.contains(outer)))
    };
    let other = |port: LinkKey| ports.iter().copied().find(|one| *one != port).filter(|_| ports.len() == 2);
    let (from, to) = match (of(source), of(destination)) {
        (Some(from), to) => (from, to.or_else(|| other(from))),
        (None, Some(to)) => (other(to)?, Some(to)),
        (None, None) => return None,
    };
    // At a port it leaves by that port.
    (link == bridge || to == Some(link)).then_some(Way::Bridged { port: from, bridge })
}

#[cfg(test)]
mod tests;

//! Packets that were given up anywhere on the host: whose, where, why. Flow: observe.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    net::IpAddr,
};

use super::{
    Losses, Sighting, What,
    packet::{Content, Headers},
    points::is_copied,
    reasons,
};
use crate::{
    event::{Decision, VerdictEvent},
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    trace::RuleRef,
};

/// Which rule dropped a packet.
mod by_rule;

pub use by_rule::Rules;

/// A packet that was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`.
    pub time_ns: u64,
    /// Whose packet; none where nothing says.
    pub instance: Option<String>,
    /// Where: device and namespace.
    pub place: String,
    /// The kernel's reason, or the name of netdiag's.
    pub reason: String,
    /// Who names it: `core`, `openvswitch`, `netdiag`.
    pub subsystem: String,
    /// Function that gave it up.
    pub location: Option<String>,
    /// What the reason means.
    pub because: Option<&'static str>,
    /// The packet in words.
    pub packet: String,
    /// Rules of the packet filter that would drop it: one is the guilty one, of several it is one.
    pub rules: Vec<RuleRef>,
}

/// A copy of a packet, which has gone its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Copied {
    /// What is left when whoever was to have it has had it: Open vSwitch, or a socket of another kind.
    Rest,
    /// A packet socket's, closed before anybody read it.
    Unread,
}

/// Whose packets are whose, by device and by address.
#[derive(Debug, Default)]
pub struct Owners {
    links: HashMap<LinkKey, String>,
    namespaces: HashMap<NetnsId, String>,
    /// Tenants may use the same addresses, which then mean nobody.
    addresses: HashMap<IpAddr, Option<String>>,
    /// But in a router's namespace they mean whoever is behind that router.
    routed: HashMap<(NetnsId, IpAddr), Option<String>>,
    /// Devices Open vSwitch takes copies of: what the host's stack does to the rest says nothing.
    copied: BTreeSet<LinkKey>,
    places: HashMap<LinkKey, String>,
    labels: HashMap<NetnsId, String>,
}

impl Owners {
    /// Of every instance of a host.
    pub fn of(inventory: &Inventory<'_>) -> Self {
        let mut owners = Self::default();
        for instance in &inventory.instances {
            let name = &instance.identity.name;
            for nic in &instance.nics {
                for link in nic.inner.into_iter().chain(nic.outer) {
                    owners.links.insert(link, name.clone());
                }
                let own = nic.addresses.iter().map(ipnet::IpNet::addr);
                let floating = inventory.floating_ips(nic).into_iter().map(|floating| floating.address);
                let routers = inventory.router_ports(nic).into_iter().map(|port| port.device.netns);
                let routers: Vec<NetnsId> = routers.filter(|netns| Some(*netns) != inventory.host).collect();
                for address in own.chain(floating) {
                    means(owners.addresses.entry(address), name);
                    for netns in &routers {
                        means(owners.routed.entry((*netns, address)), name);
                    }
                }
            }
            // A virtual machine's namespace is the host's, which is nobody's.
            if let Some(netns) = instance.netns.filter(|netns| Some(*netns) != inventory.host) {
                owners.namespaces.insert(netns, name.clone());
            }
        }
        for (key, link) in inventory.all_links() {
            let label = inventory.netns(key.netns).label;
            let place = if label == "host" { link.name.clone() } else { format!("{} in {label}", link.name) };
            owners.places.insert(key, place);
            owners.labels.entry(key.netns).or_insert(label);
            if is_copied(inventory, key) {
                owners.copied.insert(key);
            }
        }
        owners
    }

    /// What there is to say of a packet that was given up; none where it is a copy that nobody misses, or no packet.
    pub fn dropped(&self, sighting: &Sighting) -> Option<Dropped> {
        let missed = self.copy(sighting).is_none();
        self.described(sighting).filter(|_| missed)
    }

    /// Whose copy it is that was given up, if it is one.
    pub fn copy(&self, sighting: &Sighting) -> Option<Copied> {
        let What::Dropped { reason, copy, location, .. } = &sighting.what else { return None };
        let switched = || sighting.link.is_some_and(|link| self.copied.contains(&link));
        if *copy {
            Some(Copied::Unread)
        } else if switched() || reasons::is_left_over((reason, location.as_deref()), &Headers::of(sighting)) {
            Some(Copied::Rest)
        } else {
            None
        }
    }

    /// What there is to say of whatever was given up, copies too.
    pub fn described(&self, sighting: &Sighting) -> Option<Dropped> {
        let What::Dropped { reason, subsystem, location, .. } = &sighting.what else { return None };
        let headers = Headers::of(sighting);
        // Messages of netlink and of local sockets are given up the same way, and are nobody's packets.
        if sighting.link.is_none() && headers.content == (Content::Other { ethertype: 0 }) {
            return None;
        }
        Some(Dropped {
            time_ns: sighting.time_ns,
            instance: self.whose(sighting.link, &headers).map(str::to_owned),
            place: self.place(sighting.link),
            reason: reason.clone(),
            subsystem: subsystem.clone(),
            location: location.clone(),
            because: reasons::at(reason, location.as_deref()).map(|meaning| meaning.because),
            packet: super::words::packet(headers.innermost()),
            rules: Vec::new(),
        })
    }

    /// Whose packet it is: by its device, else by the namespace it was in, else by its addresses, first by whose they are behind
    /// the router it was in.
    fn whose(&self, link: Option<LinkKey>, headers: &Headers) -> Option<&str> {
        let by_link = link.and_then(|link| self.links.get(&link).or_else(|| self.namespaces.get(&link.netns)));
        let by_address = || {
            let (source, destination) = headers.innermost().addresses()?;
            let behind = |address| self.routed.get(&(link?.netns, address))?.as_ref();
            let known = |address| self.addresses.get(&address)?.as_ref();
            behind(source).or_else(|| behind(destination)).or_else(|| known(source)).or_else(|| known(destination))
        };
        by_link.or_else(by_address).map(String::as_str)
    }

    fn place(&self, link: Option<LinkKey>) -> String {
        let Some(link) = link else { return "no device".to_owned() };
        let device = self.places.get(&link).cloned();
        device.or_else(|| self.labels.get(&link.netns).cloned()).unwrap_or_else(|| link.netns.to_string())
    }
}

/// Takes note that something means an instance; what means two means neither.
fn means<K>(entry: Entry<'_, K, Option<String>>, name: &str) {
    let known = entry.or_insert_with(|| Some(name.to_owned()));
    if known.as_deref() != Some(name) {
        *known = None;
    }
}

impl Dropped {
    /// The one rule that dropped it, by its place and its words.
    pub fn guilty(&self) -> Option<String> {
        let [rule] = &self.rules[..] else { return None };
        Some(format!("{} of {}: {}", super::words::rule(rule), rule.netns.label, rule.rule))
    }

    /// The same of a refusal of netdiag's own; none of what it allows.
    pub fn refused(event: &VerdictEvent) -> Option<Self> {
        if event.verdict != Decision::Deny {
            return None;
        }
        let reason = netdiag_common::abi::reason::Reason::ALL.iter().find(|reason| reason.name() == event.reason);
        let end = |address: Option<IpAddr>, port: u16| match address {
            None => "?".to_owned(),
            Some(address) if port == 0 => address.to_string(),
            Some(IpAddr::V4(address)) => format!("{address}:{port}"),
            Some(IpAddr::V6(address)) => format!("[{address}]:{port}"),
        };
        let protocol = event
            .protocol
            .map_or_else(|| format!("ethertype {:#06x}", event.ethertype), crate::policy::convert::protocol_name);
        let icmp = matches!(event.protocol, Some(1 | 58));
        let ports = if icmp { (0, 0) } else { (event.source_port, event.destination_port) };
        Some(Self {
            time_ns: event.time_ns,
            instance: Some(event.instance.clone().unwrap_or_else(|| event.port_id.clone())),
            place: event.device.clone().unwrap_or_else(|| event.port_id.clone()),
            reason: event.reason.clone(),
            subsystem: "netdiag".to_owned(),
            location: None,
            because: reason.map(|reason| reason.meaning()),
            packet: format!("{protocol} {} > {}", end(event.source, ports.0), end(event.destination, ports.1)),
            rules: Vec::new(),
        })
    }
}

/// What packets died of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// Whose they were; none where nothing says.
    pub instance: Option<String>,
    /// Where.
    pub place: String,
    /// Why.
    pub reason: String,
    /// The rule that did it, where it is known which.
    pub rule: Option<String>,
}

/// How many packets of whom died where and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    counts: BTreeMap<Cause, u64>,
    /// All of them.
    pub packets: u64,
    /// Copies that nobody misses.
    pub copies: u64,
    /// Copies that packet sockets had not read when they were closed.
    pub unread: u64,
    /// Drops of which there is no record.
    pub losses: Losses,
}

impl Census {
    /// Counts a packet.
    pub fn add(&mut self, dropped: &Dropped) {
        self.packets += 1;
        let cause = Cause {
            instance: dropped.instance.clone(),
            place: dropped.place.clone(),
            reason: dropped.reason.clone(),
            rule: dropped.guilty(),
        };
        *self.counts.entry(cause).or_default() += 1;
    }

    /// Counts a copy.
    pub const fn add_copy(&mut self, copy: Copied) {
        match copy {
            Copied::Rest => self.copies += 1,
            Copied::Unread => self.unread += 1,
        }
    }

    /// Causes with how many packets died of each, the most first.
    pub fn rows(&self) -> Vec<(&Cause, u64)> {
        let mut rows: Vec<_> = self.counts.iter().map(|(cause, count)| (cause, *count)).collect();
        rows.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        live::journey::simulation::Made,
        testing::{Host, PORT, neutron},
    };

    /// Two containers of two tenants with one and the same address, behind a user-space switch.
    fn host() -> (Host, [LinkKey; 4]) {
        let mut host = Host::new();
        let mut links = Vec::new();
        for (name, device, address) in [("web-1", "tap1", "10.0.0.2/24"), ("web-2", "tap2", "10.0.0.2/24")] {
            let netns = host.netns(&[]);
            let (outer, inner) = host.veth((host.id, device), (netns, "eth0"));
            host.address(inner, address);
            host.container(name, Some(netns));
            links.extend([inner, outer]);
        }
        neutron(host.ovs("br-int", "tap1", ""), PORT, "02:00:00:00:00:02", 1);
        host.facts.switches[0].bridges[0].datapath_type = "netdev".to_owned();
        (host, links.try_into().unwrap())
    }

    fn of(owners: &Owners, link: Option<LinkKey>) -> Option<Dropped> {
        owners.dropped(&Sighting { link, ..Made::syn(1).dropped(1, None, "NO_SOCKET") })
    }

    #[test]
    fn a_packet_is_of_the_instance_whose_device_it_was_at_and_an_address_of_two_means_neither() {
        let (host, [inner, _, _, other]) = host();
        let snapshot = host.snapshot();
        let owners = Owners::of(&Inventory::build(&snapshot));
        let at_inner = of(&owners, Some(inner)).unwrap();
        assert_eq!((at_inner.instance.as_deref(), at_inner.place.as_str()), (Some("web-1"), "eth0 in web-1"));
        assert_eq!(of(&owners, Some(other)).unwrap().instance.as_deref(), Some("web-2"));
        let nowhere = of(&owners, None).unwrap();
        assert_eq!((nowhere.instance, nowhere.place.as_str()), (None, "no device"));
        assert_eq!(nowhere.because, Some("nobody listens there"));
    }

    #[test]
    fn in_a_routers_namespace_an_address_means_whoever_is_behind_that_router() {
        let (mut host, [inner, outer, _, other]) = host();
        for (number, tag) in [(1_u16, 1), (2, 2)] {
            let router = host.netns(&[&format!("qrouter-{number}")]);
            let device = format!("qr-{number}");
            let qr = host.link(router, &device, Some("tun"));
            host.address(qr, "10.0.0.1/24");
            let id = format!("{}9{number}", &PORT[..PORT.len() - 2]);
            neutron(host.ovs("br-int", &device, "internal"), &id, "02:00:00:00:00:99", tag);
        }
        let id = format!("{}42", &PORT[..PORT.len() - 2]);
        neutron(host.ovs("br-int", "tap2", ""), &id, "02:00:00:00:00:42", 2);
        let snapshot = host.snapshot();
        let inventory = Inventory::build(&snapshot);
        let owners = Owners::of(&inventory);
        let at = |name: &str| inventory.links_named(name).next();
        let whose = |link| of(&owners, link).unwrap().instance;
        assert_eq!(whose(at("qr-1")).as_deref(), Some("web-1"));
        assert_eq!(whose(at("qr-2")).as_deref(), Some("web-2"));
        assert!(inner != outer && other != outer);
        assert_eq!(whose(None), None, "anywhere else it means neither");
    }

    #[test]
    fn the_copy_that_is_left_when_open_vswitch_has_taken_a_frame_is_missed_by_nobody() {
        let (host, [_, copied, _, plain]) = host();
        let snapshot = host.snapshot();
        let owners = Owners::of(&Inventory::build(&snapshot));
        assert_eq!(of(&owners, Some(copied)), None);
        assert!(of(&owners, Some(plain)).is_some());
    }

    #[test]
    fn what_a_closed_packet_socket_had_not_read_is_told_from_what_died() {
        let (host, [inner, ..]) = host();
        let snapshot = host.snapshot();
        let owners = Owners::of(&Inventory::build(&snapshot));
        let died = Sighting { link: Some(inner), ..Made::syn(1).dropped(1, None, "QUEUE_PURGE") };
        let mut unread = died.clone();
        if let What::Dropped { copy, .. } = &mut unread.what {
            *copy = true;
        }
        assert!(owners.dropped(&died).is_some(), "a socket that had the packet itself");
        assert_eq!((owners.dropped(&unread), owners.copy(&unread)), (None, Some(Copied::Unread)));
        assert_eq!(owners.described(&unread).unwrap().reason, "QUEUE_PURGE", "for whoever asks for it");
        let mut census = Census::default();
        census.add_copy(Copied::Unread);
        census.add_copy(Copied::Rest);
        assert_eq!((census.packets, census.copies, census.unread), (0, 1, 1));
    }

    #[test]
    fn a_message_between_programs_is_no_packet() {
        let (host, [device, ..]) = host();
        let snapshot = host.snapshot();
        let owners = Owners::of(&Inventory::build(&snapshot));
        let mut message = Made::syn(1).dropped(7, None, "QUEUE_PURGE");
        message.head = vec![0x14, 0, 0, 0, 3, 0, 2, 0];
        (message.length, message.layer) = (8, crate::live::Layer::Network);
        assert_eq!(owners.dropped(&message), None);
        message.link = Some(device);
        assert!(owners.dropped(&message).is_some(), "at a device it is a frame that cannot be read");
    }

    #[test]
    fn packets_are_counted_by_whose_they_are_where_and_why() {
        let (host, [inner, _, _, other]) = host();
        let snapshot = host.snapshot();
        let owners = Owners::of(&Inventory::build(&snapshot));
        let mut census = Census::default();
        for link in [other, inner, inner] {
            census.add(&of(&owners, Some(link)).unwrap());
        }
        let rows = census.rows();
        let text = str::to_owned;
        let cause = Cause {
            instance: Some(text("web-1")),
            place: text("eth0 in web-1"),
            reason: text("NO_SOCKET"),
            rule: None,
        };
        assert_eq!(rows[0], (&cause, 2));
        assert_eq!((rows.len(), census.packets), (2, 3));
    }
}

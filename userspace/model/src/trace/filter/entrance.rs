//! Floating IPs and published ports: how the outside comes in.

use std::{collections::BTreeSet, net::IpAddr};

use super::{ask, rule_ref};
use crate::{
    fact::{NamespaceFact, ProxyFact, PublishedPort, SourceKind},
    id::{LinkKey, NetnsId},
    inventory::{
        Instance, Inventory, Role,
        nat::Floating,
        route::{NoRoute, Question},
    },
    netfilter::{Address, Effect, Hook, Known, Packet, Step, Walk},
    trace::{
        Finding, FloatingIp, HopState, Publication, RuleRef, Severity,
        command::{in_netns, quote},
        outward::Way,
        path::finding,
    },
};

/// What a client outside sends to.
#[derive(Clone, Debug)]
pub(in crate::trace) struct Targets {
    floating: Vec<IpAddr>,
    published: Vec<PublishedPort>,
    /// A process of the host carries the packet on where no rule does.
    carried: bool,
    /// Where the packet goes now: a router on the way may already have translated it.
    now: Packet,
}

impl Targets {
    /// The ways in from outside; the packet that is walked goes to the first. A port published on loopback is none.
    pub(in crate::trace) fn of(floating: &[FloatingIp], published: &[Publication]) -> Self {
        let floating: Vec<_> = floating.iter().map(|floating| floating.address).collect();
        let open = published.iter().filter(|publication| !publication.port.host_address.is_loopback());
        let by_process = open.clone().next().is_some_and(|publication| publication.process.is_some());
        let published: Vec<_> = open.map(|publication| publication.port.clone()).collect();
        let now = match (floating.first(), published.first()) {
            (Some(address), _) => Packet::between(Address::Outside, Address::Is(*address)),
            (None, Some(port)) => to_host(port),
            (None, None) => Packet::default(),
        };
        let carried = floating.is_empty() && by_process;
        Self { floating, published, carried, now }
    }

    /// True where nothing outside can open a connection.
    pub(in crate::trace) const fn is_empty(&self) -> bool {
        self.floating.is_empty() && self.published.is_empty()
    }

    /// The targets in words.
    pub(in crate::trace) fn words(&self) -> String {
        let addresses = self.floating.iter().map(|address| format!("floating IP {address}"));
        let ports = self.published.iter().map(port_words);
        // A port published on IPv4 and IPv6 alike is one way in.
        once(addresses.chain(ports)).join(", ")
    }

    /// Whether a namespace may let a packet through as it is: it was translated before, a process carries it on, or the
    /// namespace only routes it to the one that translates (`fip-` of a distributed router).
    pub(super) fn passes_untranslated(&self, way: &Way<'_, '_>, netns: NetnsId) -> bool {
        let arrived =
            matches!(self.now.destination, Address::Is(to) if way.nic.addresses.iter().any(|net| net.addr() == to));
        let translates = way.inventory.translators(way.nic).contains(&netns) || Some(netns) == way.inventory.host;
        arrived || self.carried || !translates
    }

    /// Whether a process of the host carries the packet on.
    pub(super) const fn is_carried(&self) -> bool {
        self.carried
    }

    pub(super) fn packet(&self) -> Packet {
        self.now.clone()
    }

    /// Goes on with the destination a namespace left it with.
    pub(super) fn translated(&mut self, packet: &Packet) {
        let (destination, destination_port) = (packet.destination, packet.destination_port);
        self.now = Packet { destination, destination_port, to_local: Known::Is(false), ..self.now.clone() };
    }
}

/// A published port in words: a port of the host, or of the floating IP it is forwarded from.
pub(in crate::trace) fn port_words(port: &PublishedPort) -> String {
    let number = format!("port {}/{}", port.host_port, port.protocol);
    if port.host_address.is_unspecified() {
        format!("host {number}")
    } else {
        format!("{} {number}", port.host_address)
    }
}

/// Words in their order, each once.
pub(in crate::trace) fn once(words: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    words.filter(|word| seen.insert(word.clone())).collect()
}

/// The rules that a client of a published port meets. A packet to loopback can only come from the host itself: the kernel
/// drops one from outside as a martian (RFC 1122, section 3.2.1.3), and Docker 28 adds rules in `raw` that do the same.
fn lead_on(inventory: &Inventory<'_>, host: NetnsId, port: &PublishedPort) -> Walk {
    let packet = to_host(port);
    if port.host_address.is_loopback() {
        let itself = Address::Is(port.host_address);
        let packet = Packet { source: itself, in_device: Known::Absent, out_device: Known::Is("lo".into()), ..packet };
        return ask(inventory, host, Hook::Output, packet);
    }
    ask(inventory, host, Hook::Prerouting, packet)
}

/// A packet from outside to a published port of the host.
fn to_host(port: &PublishedPort) -> Packet {
    let destination = if port.host_address.is_unspecified() { Address::Local } else { Address::Is(port.host_address) };
    let packet = Packet { ipv6: port.host_address.is_ipv6(), ..Packet::between(Address::Outside, destination) };
    let packet = Packet { to_local: Known::Is(true), ..packet };
    match port.protocol.as_str() {
        "udp" => packet.udp(port.host_port),
        "sctp" => Packet { protocol: Known::Is(132), ..packet.udp(port.host_port) },
        _ => packet.tcp(port.host_port),
    }
}

/// Floating IPs of a card, with what each lacks.
pub(in crate::trace) fn floating_ips(way: &mut Way<'_, '_>) -> Vec<FloatingIp> {
    let inventory = way.inventory;
    inventory.floating_ips(way.nic).into_iter().map(|floating| floating_ip(way, floating)).collect()
}

fn floating_ip(way: &mut Way<'_, '_>, floating: Floating) -> FloatingIp {
    let inventory = way.inventory;
    let answers = answering(inventory, floating.netns, floating.address);
    let rules_unread = inventory.unread(SourceKind::Netfilter, floating.netns);
    let state = if answers == Answering::Nobody && is_standby(inventory, floating.netns) {
        way.path.findings.push(standby_router(inventory, &floating));
        HopState::Unknown
    } else {
        let mut lacks = lacks(&floating, &answers);
        // A rule that is not among those that were read may be among those that were not.
        lacks.retain(|(_, code)| !rules_unread || *code == "floating-ip-address");
        way.path.findings.extend(lacks.iter().map(|(what, code)| incomplete(inventory, &floating, what, code)));
        if let Some(finding) = misled(inventory, &floating) {
            way.path.findings.push(finding);
            return whole(floating, &answers, HopState::Broken);
        }
        if let Answering::Mute(device) = &answers {
            way.path.findings.push(mute(inventory, &floating, *device));
            return whole(floating, &answers, HopState::Broken);
        }
        match (lacks.is_empty(), answers == Answering::Unknown || rules_unread) {
            (false, _) => HopState::Broken,
            (true, true) => HopState::Unknown,
            (true, false) => HopState::Ok,
        }
    };
    whole(floating, &answers, state)
}

fn whole(floating: Floating, answers: &Answering, state: HopState) -> FloatingIp {
    let device = if let Answering::By(device) = answers { Some(device.clone()) } else { None };
    FloatingIp {
        address: floating.address,
        fixed_address: floating.fixed,
        device,
        rules: [floating.dnat, floating.output, floating.snat].into_iter().flatten().collect(),
        state,
        way: None,
    }
}

/// What a floating IP lacks, each with its stable word.
fn lacks(floating: &Floating, answers: &Answering) -> Vec<(&'static str, &'static str)> {
    let parts = [
        (
            floating.dnat.is_some(),
            "has no DNAT rule: nothing that comes for it reaches the instance",
            "floating-ip-dnat",
        ),
        (floating.snat.is_some(), "has no SNAT rule: the instance does not leave as it", "floating-ip-snat"),
        (
            *answers != Answering::Nobody,
            "is on no device: nothing that comes for it enters the router",
            "floating-ip-address",
        ),
    ];
    parts.into_iter().filter(|(there, ..)| !there).map(|(_, what, code)| (what, code)).collect()
}

fn incomplete(inventory: &Inventory<'_>, floating: &Floating, what: &str, code: &str) -> Finding {
    let label = inventory.netns(floating.netns).label;
    let address = floating.address.to_string();
    finding(Severity::Error, code, &address, format!("floating IP {address} {what}"))
        .seen(format!("rules and addresses of {label}"))
        .verify(in_netns(inventory, floating.netns, "iptables-save -t nat; ip addr"))
        .fix("see neutron-l3-agent's log")
}

/// Devices by which a distributed router sends what leaves by a floating IP.
const BY_FLOATING: &str = "rfp-";

/// A distributed router that sends the instance's packets elsewhere than where they leave as the floating IP.
fn misled(inventory: &Inventory<'_>, floating: &Floating) -> Option<Finding> {
    let netns = floating.netns;
    let (right, link) = inventory.links_in(netns).find(|(_, link)| link.name.starts_with(BY_FLOATING))?;
    let question = Question { source: floating.fixed, destination: None, iif: None };
    let answer = match inventory.route(netns, question) {
        Ok(answer) if answer.ifindex() == Some(right.ifindex) => return None,
        Ok(answer) => answer.ifindex().and_then(|ifindex| inventory.link(LinkKey { netns, ifindex })),
        Err(NoRoute::Unknown) => return None,
        Err(NoRoute::None | NoRoute::Refused(_) | NoRoute::Dead) => None,
    };
    let Floating { address, fixed, .. } = floating;
    let by = answer.map_or_else(|| "nowhere".to_owned(), |other| format!("by {}", other.name));
    let label = inventory.netns(netns).label;
    let message =
        format!("no policy rule leads {fixed} to {}: it leaves {by}, and not as floating IP {address}", link.name);
    let fix = format!("ip rule add from {fixed} lookup 16");
    let found = finding(Severity::Error, "floating-ip-rule", address.to_string(), message)
        .seen(format!("policy rules and routes of {label}"))
        .verify(in_netns(inventory, netns, &format!("ip rule show from {fixed}")))
        .fix(in_netns(inventory, netns, &fix));
    Some(found)
}

/// Nobody has the address, and the device that should answer ARP for it does not.
fn mute(inventory: &Inventory<'_>, floating: &Floating, device: LinkKey) -> Finding {
    let (label, address) = (inventory.netns(device.netns).label, floating.address.to_string());
    let name = inventory.link(device).map_or("", |link| &link.name);
    let sysctl = proxy_arp(name);
    let message = format!("nobody answers ARP for floating IP {address}: proxy_arp of {name} in {label} is off");
    finding(Severity::Error, "floating-ip-arp", &address, message)
        .seen(format!("{sysctl} is 0, and the address is on no device of {label}"))
        .verify(in_netns(inventory, device.netns, &format!("sysctl {}", quote(&sysctl))))
        .fix(in_netns(inventory, device.netns, &format!("sysctl -w {}", quote(&format!("{sysctl}=1")))))
}

fn proxy_arp(device: &str) -> String {
    format!("net.ipv4.conf.{device}.proxy_arp")
}

fn standby_router(inventory: &Inventory<'_>, floating: &Floating) -> Finding {
    let label = inventory.netns(floating.netns).label;
    let message = format!("this host has the standby of {label}: floating IP {} is the active one's", floating.address);
    finding(Severity::Info, "router-standby", label, message)
        .seen("an ha- device, and no address on the router's other devices")
        .verify(in_netns(inventory, floating.netns, "ip addr"))
}

/// Whether a router is the standby of a highly available pair: keepalived takes every address but those of the `ha-`
/// device from it, and leaves the rules.
fn is_standby(inventory: &Inventory<'_>, netns: NetnsId) -> bool {
    let ha = |name: &str| name.starts_with("ha-");
    let mut others = inventory.links_in(netns).filter(|(_, link)| !link.loopback && !ha(&link.name));
    inventory.links_in(netns).any(|(_, link)| ha(&link.name))
        && others.all(|(key, _)| inventory.addresses(key).is_empty())
}

/// Who answers ARP for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answering {
    /// This device.
    By(String),
    /// This device should, and does not.
    Mute(LinkKey),
    /// No device.
    Nobody,
    /// Not known: the namespace's addresses were not read.
    Unknown,
}

/// The device that answers ARP for a floating IP: the one that holds it, or, on a distributed router, the external leg of
/// the namespace that routes it in.
pub(super) fn answering(inventory: &Inventory<'_>, netns: NetnsId, address: IpAddr) -> Answering {
    let name = |key| inventory.link(key).map(|link| link.name.clone());
    if let Some(holder) = inventory.holder(netns, address).and_then(name) {
        return Answering::By(holder);
    }
    let fips = inventory.roles().filter(|(_, role)| matches!(role, Role::Fip(_)));
    let mut unread = inventory.unread(SourceKind::Netlink, netns);
    for (fip, _) in fips {
        unread |= inventory.unread(SourceKind::Netlink, fip);
        let routes = inventory.network(fip).map_or(&[][..], |network| &network.routes);
        let whole = |net: &ipnet::IpNet| net.addr() == address && net.prefix_len() == net.max_prefix_len();
        let external = || inventory.links_in(fip).find(|(_, link)| link.name.starts_with("fg-"));
        if routes.iter().any(|route| whole(&route.destination))
            && let Some((key, link)) = external()
        {
            let is_off = |name: &str| inventory.sysctl(fip, &proxy_arp(name)) == Some("0");
            let mute = address.is_ipv4() && is_off(&link.name) && is_off("all");
            return if mute { Answering::Mute(key) } else { Answering::By(link.name.clone()) };
        }
    }
    if unread { Answering::Unknown } else { Answering::Nobody }
}

/// Published ports that lead to a card.
pub(in crate::trace) fn publications(way: &mut Way<'_, '_>, instance: &Instance<'_>) -> Vec<Publication> {
    let inventory = way.inventory;
    let mut found = forwardings(way);
    let Some(host) = inventory.host else { return found };
    for port in instance.published {
        let walked = lead_on(inventory, host, port);
        let translation: Vec<&Step> =
            walked.steps.iter().filter(|step| matches!(step.effect, Effect::Dnat(..))).collect();
        let here = translation.iter().find(|step| leads_to(step, way));
        let elsewhere = here.is_none() && !translation.is_empty();
        // A port published on `::` that no IPv6 rule translates is served by docker-proxy, as is every port where
        // Docker runs without iptables.
        let proxied = docker_proxy(way, host, port);
        if elsewhere || (translation.is_empty() && !belongs(way, instance)) {
            continue;
        }
        // Rules or processes that were not seen may lead on what none that was seen does.
        let unread = [SourceKind::Netfilter, SourceKind::Netns].iter().any(|source| inventory.unread(*source, host));
        let state = match proxied {
            _ if here.is_some() => HopState::Ok,
            Proxied::Here => HopState::Ok,
            Proxied::Unknown => HopState::Unknown,
            Proxied::No if unread || port.host_address.is_ipv6() => HopState::Unknown,
            Proxied::No => HopState::Broken,
        };
        if state == HopState::Broken {
            way.path.findings.push(missing_dnat(inventory, host, port));
        }
        let rules = here.map(|step| rule_ref(inventory, host, step)).into_iter().collect();
        let carried = here.is_none() && proxied == Proxied::Here;
        let process = carried.then(|| NamespaceFact::DOCKER_PROXY.to_owned());
        found.push(Publication { port: port.clone(), rules, process, state });
    }
    found
}

/// Port forwardings of a floating IP (the L3 agent's `port_forwarding` extension) that lead to a card.
fn forwardings(way: &Way<'_, '_>) -> Vec<Publication> {
    let inventory = way.inventory;
    let forwardings = inventory.port_forwardings(way.nic).into_iter();
    let publication = |(netns, port, rule): (NetnsId, PublishedPort, RuleRef)| {
        let state = match answering(inventory, netns, port.host_address) {
            Answering::By(_) => HopState::Ok,
            Answering::Nobody | Answering::Mute(_) => HopState::Broken,
            Answering::Unknown => HopState::Unknown,
        };
        Publication { port, rules: vec![rule], process: None, state }
    };
    forwardings.map(publication).collect()
}

fn leads_to(step: &Step, way: &Way<'_, '_>) -> bool {
    let Effect::Dnat(Address::Is(to), _) = &step.effect else { return false };
    way.nic.addresses.iter().any(|net| net.addr() == *to)
}

/// Whether the card is one Docker plugged: only those have published ports.
fn belongs(way: &Way<'_, '_>, instance: &Instance<'_>) -> bool {
    instance.endpoints.iter().any(|endpoint| endpoint.mac.is_some() && endpoint.mac == way.nic.mac)
}

/// Whether a process carries a published port on to a card.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Proxied {
    Here,
    No,
    /// There is such a process, and what it serves is not known.
    Unknown,
}

fn docker_proxy(way: &Way<'_, '_>, host: NetnsId, port: &PublishedPort) -> Proxied {
    let Some(namespace) = way.inventory.namespace(host) else { return Proxied::No };
    let serves = |proxy: &ProxyFact| {
        let key = |port: &PublishedPort| (port.protocol.clone(), port.host_address, port.host_port);
        key(&proxy.port) == key(port) && way.nic.addresses.iter().any(|net| net.addr() == proxy.to)
    };
    let running = namespace.processes.iter().any(|process| process.comm == NamespaceFact::DOCKER_PROXY);
    match namespace.proxies.iter().any(serves) {
        true => Proxied::Here,
        false if running && namespace.proxies.is_empty() => Proxied::Unknown,
        false => Proxied::No,
    }
}

fn missing_dnat(inventory: &Inventory<'_>, host: NetnsId, port: &PublishedPort) -> Finding {
    let name = format!("{}/{}", port.host_port, port.protocol);
    let save = inventory.rulesets(host).first().map_or("iptables-save -t nat", |_| "iptables-save -t nat -c");
    finding(
        Severity::Error,
        "published-port",
        &name,
        format!("no rule of the host leads port {name} to the container, and no docker-proxy serves it"),
    )
    .seen(if port.host_address.is_loopback() {
        "no DNAT matches it at OUTPUT"
    } else {
        "no DNAT matches it at PREROUTING"
    })
    .verify(in_netns(inventory, host, save))
    .fix("restart dockerd: something removed its rules, firewalld or a flush")
}

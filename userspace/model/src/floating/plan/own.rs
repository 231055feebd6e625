//! Floating IPs that netdiag makes itself. Flow: policy.
//!
//! The host is the router: it has a connected route to the instance, translates by rules of netdiag's own, and has the address
//! at its device on the external network. What cannot be served so is held, with the reason; all else goes on.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::{IpNet, Ipv4Net};
use serde::{Deserialize, Serialize};

use super::{
    Entry, State, broken,
    fib::{self, Leads},
    hops::{External, Routers, Step},
    inside, obstacle,
    outside::forwards,
    slow,
    world::World,
};
use crate::{
    floating::{ExternalHook, FastPath, FloatingIp, Owner},
    id::{IfIndex, LinkKey, Mac, NetnsId},
    policy::types::{self, Attached, PortId},
    trace::called,
};

/// Rules of the host.
mod rules;

use rules::{HostRules, Outward};

/// The router's name where the host itself is one.
const HOST: &str = "host";

/// A floating IP that the host is to serve, whichever way its packets go then.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Service {
    /// The address the outside knows.
    pub floating_ip_address: Ipv4Addr,
    /// The address it stands for.
    pub fixed_ip_address: Ipv4Addr,
    /// The port that has it.
    pub port_id: PortId,
    /// The host's device on the external network.
    pub device: String,
    /// Its index.
    pub ifindex: u32,
    /// Its MAC address.
    pub mac: Mac,
    /// The network of the instance, as the host routes it.
    pub network: Ipv4Net,
    /// The bridge port of the instance, where it has to give frames back to whom they are from (`hairpin` of `bridge link`):
    /// a bridge that hands what it forwards to iptables leads an instance that asks its own floating IP straight back to itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hairpin: Option<String>,
}

/// What can be served, and where.
struct Served<'w> {
    service: Service,
    port: &'w Attached,
    external: LinkKey,
    inner: LinkKey,
}

/// The floating IPs of the policy: their ways, and those that the host is to serve.
pub(super) fn all(world: &World<'_, '_>, found: &[Entry], routers: &mut Routers) -> (Vec<Entry>, Vec<Service>) {
    let asked: Vec<&types::FloatingIp> = world.policy.floating_ips.values().collect();
    let Some(host) = world.inventory.host.filter(|_| !asked.is_empty()) else { return (vec![], vec![]) };
    let rules = HostRules::read(world.inventory, host);
    let mut served: Vec<Result<Served<'_>, State>> =
        asked.iter().map(|one| Own { world, host, found, rules: &rules, asked: one }.serve()).collect();
    disagree(&asked, &mut served);
    let mut entries = Vec::new();
    let mut services = Vec::new();
    for (asked, served) in asked.iter().zip(served) {
        let own = Own { world, host, found, rules: &rules, asked };
        let way = served.as_ref().map_err(State::clone).and_then(|served| own.path(served, routers));
        let network = served.as_ref().ok().map(|served| (served.service.ifindex, 0));
        let made = FloatingIp {
            floating_ip_address: asked.floating_ip_address,
            fixed_ip_address: served
                .as_ref()
                .ok()
                .map(|served| served.service.fixed_ip_address)
                .or(asked.fixed_ip_address),
            port_id: asked.port_id.clone(),
            router: HOST.to_owned(),
            owner: Owner::Netdiag,
            way: way.map_or_else(|state| state, |path| State::Fast(Box::new(path))),
        };
        entries.push(Entry { made, network, standby: false });
        services.extend(served.ok().map(|served| served.service));
    }
    services.sort();
    (entries, services)
}

/// Holds all of those that ask for the same: first for an address, then for an instance, which what is held already does not have.
fn disagree(asked: &[&types::FloatingIp], served: &mut [Result<Served<'_>, State>]) {
    let mut addresses: BTreeMap<Ipv4Addr, Vec<usize>> = BTreeMap::new();
    for (place, asked) in asked.iter().enumerate() {
        addresses.entry(asked.floating_ip_address).or_default().push(place);
    }
    for (address, places) in addresses {
        hold(asked, served, (&places, &format!("ask for {address}")));
    }
    let mut fixed: BTreeMap<(u32, Ipv4Addr), Vec<usize>> = BTreeMap::new();
    for (place, served) in served.iter().enumerate() {
        if let Ok(served) = served {
            fixed.entry((served.port.ifindex, served.service.fixed_ip_address)).or_default().push(place);
        }
    }
    for ((_, address), places) in fixed {
        hold(asked, served, (&places, &format!("stand for {address}")));
    }
}

/// Holds all of some, if they are more than one.
fn hold(asked: &[&types::FloatingIp], served: &mut [Result<Served<'_>, State>], (places, what): (&[usize], &str)) {
    let ids: Vec<&str> = places.iter().map(|place| asked[*place].id.0.as_str()).collect();
    let why = match &ids[..] {
        [] | [_] => return,
        [one, other] => format!("floating IPs {one} and {other} both {what}"),
        [others @ .., last] => format!("floating IPs {} and {last} all {what}", others.join(", ")),
    };
    for place in places {
        served[*place] = broken(why.clone());
    }
}

/// One floating IP of the policy.
struct Own<'o, 'w, 'a> {
    world: &'o World<'w, 'a>,
    host: NetnsId,
    found: &'o [Entry],
    rules: &'o HostRules,
    asked: &'o types::FloatingIp,
}

impl<'w> Own<'_, 'w, '_> {
    /// Whether it can be served, and where.
    fn serve(&self) -> Result<Served<'w>, State> {
        let (world, asked) = (self.world, self.asked);
        if !world.switches.own {
            return broken("netdiag is told to serve no floating IPs of its own");
        }
        let Some(id) = &asked.port_id else { return broken("it is associated with no port") };
        if let Some(qos) = &asked.qos_policy {
            return broken(format!("QoS policy {qos} asks for a limit, which netdiag would not keep"));
        }
        let port = self.port(id)?;
        let fixed = self.fixed(id, port)?;
        let external = self.external()?;
        self.is_free(external)?;
        forwards(world, self.host)?;
        let (inner, network) = self.inner(external, fixed)?;
        let link = world.inventory.link(external);
        let Some((link, mac)) = link.and_then(|link| Some((link, link.mac?))) else {
            return broken(format!("{} has no MAC address", obstacle::place(world, external)));
        };
        let service = Service {
            floating_ip_address: asked.floating_ip_address,
            fixed_ip_address: fixed,
            port_id: id.clone(),
            device: link.name.clone(),
            ifindex: external.ifindex.0,
            mac,
            network,
            hairpin: self.hairpin(port, inner),
        };
        Ok(Served { service, port, external, inner })
    }

    fn port(&self, id: &PortId) -> Result<&'w Attached, State> {
        let world = self.world;
        let mut here = world.enforced.iter().filter(|port| port.id == *id);
        if let Some(port) = here.next() {
            return Ok(port);
        }
        match world.policy.ports.get(id) {
            None => broken(format!("there is no port {id}")),
            Some(port) => match &port.binding.host {
                Some(other) => broken(format!("port {id} is on no device of this host; it is bound to host {other}")),
                None => broken(format!("port {id} is on no device of this host")),
            },
        }
    }

    /// The fixed address, as it is given or the only one.
    fn fixed(&self, id: &PortId, port: &Attached) -> Result<Ipv4Addr, State> {
        let own: Vec<Ipv4Addr> = port.fixed_ips.iter().copied().filter_map(super::world::four).collect();
        let has = || match own[..] {
            [] => "no IPv4 address".to_owned(),
            _ => own.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and "),
        };
        match (self.asked.fixed_ip_address, &own[..]) {
            (Some(fixed), _) if own.contains(&fixed) => Ok(fixed),
            (Some(fixed), _) => broken(format!("port {id} has {}, and not {fixed}", has())),
            (None, [only]) => Ok(*only),
            (None, _) => broken(format!("port {id} has {}: fixed_ip_address must say which it stands for", has())),
        }
    }

    /// The device on the external network: the one that is asked for, or that of the host's default route.
    fn external(&self) -> Result<LinkKey, State> {
        let inventory = self.world.inventory;
        let device = match &self.asked.device {
            Some(name) => match inventory.link_named(self.host, name) {
                Some(device) => device,
                None => return broken(format!("there is no device {name} on this host")),
            },
            None => self.default_device()?,
        };
        let link = inventory.link(device);
        let name = obstacle::place(self.world, device);
        if let Some(master) = inventory.master(device).filter(|master| inventory.kind(*master) != Some("vrf")) {
            let master = obstacle::place(self.world, master);
            return broken(format!("{name} belongs to {master}, and receives nothing itself"));
        }
        if link.is_some_and(|link| link.loopback || !link.admin_up) {
            return broken(format!("{name} is down, or leads nowhere"));
        }
        Ok(device)
    }

    fn default_device(&self) -> Result<LinkKey, State> {
        let (host, everything) = (self.host, Ipv4Net::default());
        let Some(network) = self.world.network(host) else {
            return broken("the routes of this host could not be read");
        };
        let asked = fib::Asked { source: None, by: "" };
        let tables = fib::tables(network, asked).unwrap_or_default();
        match fib::prefixes(network, &tables).get(&everything) {
            Some(Leads::By(ifindex, _)) => Ok(LinkKey { netns: host, ifindex: *ifindex }),
            Some(Leads::Nowhere) | None => {
                broken("it names no device, and this host has no one default route to take its device from")
            }
        }
    }

    /// Whether nobody else has the address, and it can be one of the network.
    fn is_free(&self, external: LinkKey) -> Result<(), State> {
        let (world, floating) = (self.world, self.asked.floating_ip_address);
        let name = obstacle::place(world, external);
        let other = self.found.iter().find(|entry| entry.made.floating_ip_address == floating && !entry.standby);
        if let Some(other) = other {
            return broken(format!("{floating} is a floating IP of {} already", other.made.router));
        }
        let here = |(key, _): &(LinkKey, _)| key.netns == self.host || world.inventory.role(key.netns).is_neutron();
        let mut links = world.inventory.all_links().filter(here);
        let holder = links.find(|(_, link)| link.addresses.iter().any(|held| held.address.addr() == floating));
        let ours = self.rules.serves(floating) || world.switches.ours.contains(&floating);
        if let Some((holder, _)) = holder.filter(|_| !ours) {
            return broken(format!("{floating} is an address of {} already", obstacle::place(world, holder)));
        }
        if !ours {
            self.is_no_gateway()?;
        }
        let nets: Vec<Ipv4Net> = world.held_by(external).filter(|net| net.prefix_len() < 32).collect();
        let Some(net) = nets.iter().find(|net| net.contains(&floating)) else {
            let nets: Vec<String> = nets.iter().map(|net| net.trunc().to_string()).collect();
            let nets = if nets.is_empty() { "none".to_owned() } else { nets.join(", ") };
            return broken(format!("{floating} is in no subnet of {name}, which has {nets}"));
        };
        if net.prefix_len() < 31 && (net.network() == floating || net.broadcast() == floating) {
            return broken(format!("{floating} is nobody's address in {}, the subnet of {name}", net.trunc()));
        }
        Ok(())
    }

    /// Whether nobody of this host goes anywhere by the address: whoever has it would be cut off, and all others with him.
    fn is_no_gateway(&self) -> Result<(), State> {
        let (world, floating) = (self.world, self.asked.floating_ip_address);
        let here = |netns: NetnsId| netns == self.host || world.inventory.role(netns).is_neutron();
        for network in world.inventory.snapshot.facts.networks.iter().filter(|network| here(network.netns)) {
            let hops = network.routes.iter().flat_map(|route| route.next_hops.iter().map(move |hop| (route, hop)));
            let Some((route, hop)) = hops.into_iter().find(|(_, hop)| hop.gateway == Some(ip(floating))) else {
                continue;
            };
            let device = hop.ifindex.map(|ifindex| LinkKey { netns: network.netns, ifindex });
            let by = device.map_or_else(String::new, |device| format!(" by {}", obstacle::place(world, device)));
            return broken(format!("{floating} is the gateway of this host to {}{by}", route.destination));
        }
        Ok(())
    }

    /// The device the host reaches the fixed address by, and the network it is on there.
    fn inner(&self, external: LinkKey, fixed: Ipv4Addr) -> Result<(LinkKey, Ipv4Net), State> {
        let world = self.world;
        let by = world.inventory.link(external).map_or("", |link| &link.name);
        let device = inside::device(world, (self.host, "this host"), by, fixed)?;
        let on = world.held_by(device).find(|net| net.contains(&fixed)).map(|net| net.trunc());
        let name = obstacle::place(world, device);
        if device == external {
            return broken(format!("{fixed} is on the external network itself, behind {name}"));
        }
        match on {
            Some(network) => Ok((device, network)),
            None => broken(format!("{name}, which leads to {fixed}, has no address on its network")),
        }
    }

    /// The bridge port of a container that has to give it back what it sends to its own floating IP. Not a virtual machine's: its
    /// system may take its own neighbour solicitations for another's, as it knows nothing of RFC 7527, and go without address.
    fn hairpin(&self, port: &Attached, bridge: LinkKey) -> Option<String> {
        let inventory = self.world.inventory;
        let key = LinkKey { netns: self.host, ifindex: IfIndex(port.ifindex) };
        let given_back = inventory.linux_bridge(key) == Some(bridge) && inventory.kind(key) == Some("veth");
        let link = inventory.link(key).filter(|_| given_back && called(inventory, bridge));
        link.map(|link| link.name.clone())
    }

    /// The way past the host's own routing, or why there is none.
    fn path(&self, served: &Served<'_>, routers: &mut Routers) -> Result<FastPath, State> {
        let (world, host) = (self.world, self.host);
        let Served { service, external, inner, .. } = served;
        let inside = inside::find(world, (host, "this host"), &service.device, service.fixed_ip_address)
            .map_err(serve_all_the_same)?;
        if inside.port.ifindex != served.port.ifindex {
            let (port, other) = (&served.port.id, &inside.port.id);
            return slow(format!(
                "{} is at port {other} as this host reaches it, and not at {port}",
                service.fixed_ip_address
            ));
        }
        obstacle::met(world, *external, false).map_err(serve_all_the_same)?;
        let step = Step {
            netns: host,
            by: inside.name.clone(),
            out: *external,
            next: vec![],
            source: service.fixed_ip_address,
        };
        let beyond = External { device: *external, internal: false };
        let number = routers.number(world, HOST, beyond, &[step]).map_err(serve_all_the_same)?;
        let leaves = Outward { router: number, hops: &routers.made[&number].hops };
        self.rules.let_through(service, &inside.name, leaves)?;
        let mtu = world.inventory.link(*external).map_or(0, |link| link.mtu);
        debug_assert_eq!(inside.device, *inner);
        Ok(FastPath {
            router: number,
            device: service.device.clone(),
            ifindex: service.ifindex,
            hook: ExternalHook::Tc,
            vlan: 0,
            outer_mac: service.mac,
            outer_mtu: mtu,
            inner_mac: inside.mac,
            inner_mtu: inside.mtu,
            mac: inside.port.mac,
            port_ifindex: inside.port.ifindex,
            peer: inside.peer,
            hops: 1,
            random: false,
            begins: !world.switches.slow.has(service.floating_ip_address),
        })
    }
}

/// The host serves it, so that whatever is in the way of the fast path is in the way of nothing else.
fn serve_all_the_same(state: State) -> State {
    match state {
        State::Broken { why } | State::Slow { why } => State::Slow { why },
        State::Fast(path) => State::Fast(path),
    }
}

/// The prefix of an address and its length, where it is IPv4.
pub(super) fn net4(net: IpNet) -> Option<Ipv4Net> {
    match net {
        IpNet::V4(four) => Some(four),
        IpNet::V6(_) => None,
    }
}

/// An address as the walk wants it.
pub(super) const fn ip(address: Ipv4Addr) -> IpAddr {
    IpAddr::V4(address)
}

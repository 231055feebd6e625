//! Routes (`RTM_GETROUTE`) of all tables but `local`: what `ip route show table all` shows. Flow: discover.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netdiag_model::{
    fact::{NextHop, RouteFact},
    id::IfIndex,
};
use netlink_packet_core::{Emitable as _, ParseableParametrized as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteLwEnCapType, RouteMessage, RouteNextHop,
        RouteNextHopFlags, RouteScope, RouteType, RouteVia,
    },
};

use super::connection::Answer;

/// Table `local`: the host's own addresses, which are facts already.
const TABLE_LOCAL: u32 = 255;

/// Asks for all routes of one family.
pub(super) fn request(family: AddressFamily) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    RouteNetlinkMessage::GetRoute(message)
}

/// One route of a family; none for a route of table `local`, of the cache, or of another family, which the kernel sends
/// where it knows nothing of the family it was asked for.
pub(super) fn route(answer: &Answer, family: AddressFamily) -> Option<RouteFact> {
    let header = RouteHeader::parse(&answer.0).ok()?;
    if header.address_family != family || header.flags.contains(RouteFlags::Cloned) {
        return None;
    }
    let mut read = Read::new(&header);
    for nla in answer.attributes(header.buffer_len()) {
        // Encapsulation is not read, so it need not be told apart either.
        let context = (family, header.kind, RouteLwEnCapType::None);
        if let Ok(attribute) = RouteAttribute::parse_with_param(&nla, context) {
            read.apply(attribute);
        }
    }
    (read.table != TABLE_LOCAL).then(|| read.finish(&header)).flatten()
}

/// The attributes of a route, as far as read.
struct Read {
    table: u32,
    destination: Option<IpAddr>,
    source: Option<IpAddr>,
    metric: u32,
    /// The only next hop, where `several` is empty.
    single: NextHop,
    several: Vec<NextHop>,
}

impl Read {
    fn new(header: &RouteHeader) -> Self {
        let single = NextHop {
            gateway: None,
            ifindex: None,
            dead: header.flags.intersects(RouteFlags::Dead | RouteFlags::Linkdown),
            onlink: header.flags.contains(RouteFlags::Onlink),
        };
        let table = u32::from(header.table);
        Self { table, destination: None, source: None, metric: 0, single, several: Vec::new() }
    }

    fn apply(&mut self, attribute: RouteAttribute) {
        match attribute {
            RouteAttribute::Table(table) => self.table = table,
            RouteAttribute::Destination(destination) => self.destination = address(&destination),
            RouteAttribute::PrefSource(source) => self.source = address(&source),
            RouteAttribute::Priority(metric) => self.metric = metric,
            RouteAttribute::MultiPath(hops) => self.several = hops.iter().map(next_hop).collect(),
            hop => apply_to_hop(&mut self.single, &hop),
        }
    }

    fn finish(self, header: &RouteHeader) -> Option<RouteFact> {
        let destination = match (self.destination, header.destination_prefix_length) {
            (Some(destination), _) => destination,
            (None, 0) if header.address_family == AddressFamily::Inet6 => Ipv6Addr::UNSPECIFIED.into(),
            (None, 0) => Ipv4Addr::UNSPECIFIED.into(),
            // Not readable: a default route would be a lie.
            (None, _) => return None,
        };
        let next_hops = if leads_nowhere(header.kind) {
            // IPv6 names the loopback device where IPv4 names none.
            Vec::new()
        } else if self.several.is_empty() {
            vec![self.single]
        } else {
            self.several
        };
        Some(RouteFact {
            table: self.table,
            destination: IpNet::new(destination, header.destination_prefix_length).ok()?,
            kind: kind(header.kind),
            source: self.source,
            metric: self.metric,
            scope: scope(header.scope),
            next_hops,
        })
    }
}

fn next_hop(hop: &RouteNextHop) -> NextHop {
    let mut next_hop = NextHop {
        gateway: None,
        ifindex: Some(IfIndex(hop.interface_index)).filter(|index| index.0 != 0),
        dead: hop.flags.intersects(RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown),
        onlink: hop.flags.contains(RouteNextHopFlags::Onlink),
    };
    for attribute in &hop.attributes {
        apply_to_hop(&mut next_hop, attribute);
    }
    next_hop
}

fn apply_to_hop(hop: &mut NextHop, attribute: &RouteAttribute) {
    match attribute {
        RouteAttribute::Gateway(gateway) => hop.gateway = address(gateway),
        // A gateway of the other family (RFC 5549).
        RouteAttribute::Via(RouteVia::Inet(gateway)) => hop.gateway = Some((*gateway).into()),
        RouteAttribute::Via(RouteVia::Inet6(gateway)) => hop.gateway = Some((*gateway).into()),
        RouteAttribute::Oif(index) => hop.ifindex = Some(IfIndex(*index)),
        _ => {}
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some((*address).into()),
        RouteAddress::Inet6(address) => Some((*address).into()),
        _ => None,
    }
}

fn leads_nowhere(kind: RouteType) -> bool {
    matches!(kind, RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit | RouteType::Throw)
}

/// The name iproute2 gives a kind of route.
fn kind(kind: RouteType) -> String {
    let name = match kind {
        RouteType::Unspec => "unspec",
        RouteType::Unicast => "unicast",
        RouteType::Local => "local",
        RouteType::Broadcast => "broadcast",
        RouteType::Anycast => "anycast",
        RouteType::Multicast => "multicast",
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        RouteType::Nat => "nat",
        RouteType::ExternalResolve => "xresolve",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

/// The name iproute2 gives a scope.
fn scope(scope: RouteScope) -> String {
    let name = match scope {
        RouteScope::Universe => "global",
        RouteScope::Site => "site",
        RouteScope::Link => "link",
        RouteScope::Host => "host",
        RouteScope::NoWhere => "nowhere",
        other => return u8::from(other).to_string(),
    };
    name.to_owned()
}

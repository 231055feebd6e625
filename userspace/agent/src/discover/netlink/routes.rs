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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(family: AddressFamily, prefix: u8, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = prefix;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.kind = RouteType::Unicast;
        message.attributes = attributes;
        message
    }

    fn v4(prefix: u8, attributes: Vec<RouteAttribute>) -> Option<RouteFact> {
        route(&Answer::with(&message(AddressFamily::Inet, prefix, attributes)), AddressFamily::Inet)
    }

    fn inet(address: &str) -> RouteAddress {
        address.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn a_default_route_has_a_destination_of_no_length() {
        let fact = v4(0, vec![RouteAttribute::Gateway(inet("10.0.0.1")), RouteAttribute::Oif(2)]).unwrap();
        assert_eq!(fact.destination.to_string(), "0.0.0.0/0");
        let hop = NextHop {
            gateway: Some("10.0.0.1".parse().unwrap()),
            ifindex: Some(IfIndex(2)),
            dead: false,
            onlink: false,
        };
        assert_eq!(fact.next_hops, [hop]);
        assert_eq!((fact.kind.as_str(), fact.scope.as_str(), fact.table), ("unicast", "global", 254));
    }

    #[test]
    fn a_route_whose_destination_cannot_be_read_is_not_taken_for_the_default_route() {
        assert_eq!(v4(24, vec![RouteAttribute::Oif(2)]), None);
    }

    #[test]
    fn the_table_of_more_than_eight_bits_counts() {
        let fact = v4(0, vec![RouteAttribute::Table(70_000)]).unwrap();
        assert_eq!(fact.table, 70_000);
    }

    #[test]
    fn table_local_and_other_families_and_the_cache_are_left_out() {
        assert_eq!(v4(0, vec![RouteAttribute::Table(255)]), None);
        let six = Answer::with(&message(AddressFamily::Inet6, 0, Vec::new()));
        assert_eq!(route(&six, AddressFamily::Inet), None);
        let mut cached = message(AddressFamily::Inet6, 0, Vec::new());
        cached.header.flags = RouteFlags::Cloned;
        assert_eq!(route(&Answer::with(&cached), AddressFamily::Inet6), None);
    }

    #[test]
    fn all_hops_of_a_multipath_route_are_read() {
        let hop = |index, address, flags| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.flags = flags;
            hop.attributes = vec![RouteAttribute::Gateway(inet(address))];
            hop
        };
        let hops = vec![
            hop(2, "10.0.0.1", RouteNextHopFlags::empty()),
            hop(3, "10.0.1.1", RouteNextHopFlags::Linkdown | RouteNextHopFlags::Onlink),
        ];
        let fact = v4(8, vec![RouteAttribute::Destination(inet("10.0.0.0")), RouteAttribute::MultiPath(hops)]).unwrap();
        let read: Vec<_> = fact.next_hops.iter().map(|hop| (hop.ifindex, hop.dead, hop.onlink)).collect();
        assert_eq!(read, [(Some(IfIndex(2)), false, false), (Some(IfIndex(3)), true, true)]);
        assert_eq!(fact.next_hops[1].gateway, Some("10.0.1.1".parse().unwrap()));
    }

    #[test]
    fn a_gateway_of_the_other_family_is_a_gateway() {
        let via = RouteVia::Inet6("fe80::1".parse().unwrap());
        let fact = v4(0, vec![RouteAttribute::Via(via), RouteAttribute::Oif(2)]).unwrap();
        assert_eq!(fact.next_hops[0].gateway, Some("fe80::1".parse().unwrap()));
    }

    #[test]
    fn a_route_that_leads_nowhere_has_no_hop() {
        let mut message =
            message(AddressFamily::Inet6, 0, vec![RouteAttribute::Oif(1), RouteAttribute::Priority(1024)]);
        message.header.kind = RouteType::Unreachable;
        let fact = route(&Answer::with(&message), AddressFamily::Inet6).unwrap();
        assert_eq!((fact.kind.as_str(), fact.next_hops, fact.metric), ("unreachable", Vec::new(), 1024));
    }
}

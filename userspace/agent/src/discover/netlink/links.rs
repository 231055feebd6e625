//! Links (`RTM_GETLINK`): what `ip -d -s link` shows. Flow: discover.

use std::net::IpAddr;

use netdiag_model::{
    fact::{BridgePortFact, BridgePortState, LinkDetail, LinkFact, LinkStats, OperState},
    id::{IfIndex, Mac},
};
use netlink_packet_core::{Emitable as _, Nla as _, NlaBuffer, ParseableParametrized as _};
use netlink_packet_route::{
    RouteNetlinkMessage,
    link::{
        self, BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoIpVlan, InfoKind, InfoMacVlan, InfoMacVtap,
        InfoPortData, InfoTun, InfoVlan, InfoVrf, InfoVxlan, LinkAttribute, LinkFlags, LinkHeader, LinkInfo,
        LinkLayerType, LinkMessage, Prop, State, Stats64,
    },
};

use super::connection::{Answer, attributes};

/// Times of bridges and neighbours are in `USER_HZ`, which is 100 for every architecture's user space.
pub(super) const USER_HZ: u32 = 100;

/// `IFLA_INFO_KIND` of `linux/if_link.h`.
const IFLA_INFO_KIND: u16 = 1;
/// `IFLA_TUN_TYPE` of `linux/if_link.h`.
const IFLA_TUN_TYPE: u16 = 3;
/// `IFF_TAP` of `linux/if_tun.h`, as [`IFLA_TUN_TYPE`] holds it.
const IFF_TAP: u8 = 2;

/// Asks for all links.
pub(super) fn request() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(LinkMessage::default())
}

/// One link, without its addresses.
pub(crate) fn link(answer: &Answer) -> Option<LinkFact> {
    let header = LinkHeader::parse(&answer.0).ok()?;
    let mut fact = LinkFact {
        ifindex: IfIndex(header.index),
        loopback: header.link_layer_type == LinkLayerType::Loopback,
        admin_up: header.flags.contains(LinkFlags::Up),
        carrier: header.flags.contains(LinkFlags::LowerUp),
        promiscuous: header.flags.contains(LinkFlags::Promisc),
        ..LinkFact::default()
    };
    for nla in answer.attributes(header.buffer_len()).filter(is_wanted) {
        if let Some(attribute) = attribute(&nla, &header) {
            apply(&mut fact, attribute);
        }
    }
    Some(fact)
}

/// Leaves out the bulky attributes nothing is read from: they are most of what the kernel sends.
fn is_wanted(nla: &NlaBuffer<&[u8]>) -> bool {
    !matches!(nla.kind(), libc::IFLA_AF_SPEC | libc::IFLA_STATS | libc::IFLA_MAP | libc::IFLA_VFINFO_LIST)
}

/// One attribute, as far as it can be read.
pub(super) fn attribute(nla: &NlaBuffer<&[u8]>, header: &LinkHeader) -> Option<LinkAttribute> {
    LinkAttribute::parse_with_param(nla, header.interface_family).ok().or_else(|| salvage(nla))
}

/// What can be had of an attribute the library refuses: a name that is no UTF-8, the kind of a link whose detail it
/// cannot read.
fn salvage(nla: &NlaBuffer<&[u8]>) -> Option<LinkAttribute> {
    match nla.kind() {
        libc::IFLA_IFNAME => Some(LinkAttribute::IfName(text(nla.value()))),
        libc::IFLA_IFALIAS => Some(LinkAttribute::IfAlias(text(nla.value()))),
        libc::IFLA_LINKINFO => {
            let kind = attributes(nla.value()).find(|nla| nla.kind() == IFLA_INFO_KIND)?;
            Some(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Other(text(kind.value())))]))
        }
        _ => None,
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

fn apply(fact: &mut LinkFact, attribute: LinkAttribute) {
    match attribute {
        LinkAttribute::IfName(name) => fact.name = name,
        LinkAttribute::PropList(props) => fact.alt_names.extend(props.into_iter().filter_map(|prop| match prop {
            Prop::AltIfName(name) => Some(name),
            _ => None,
        })),
        LinkAttribute::LinkInfo(infos) => infos.into_iter().for_each(|info| apply_info(fact, info)),
        LinkAttribute::Address(octets) => fact.mac = octets.try_into().ok().map(Mac),
        LinkAttribute::Mtu(mtu) => fact.mtu = mtu,
        LinkAttribute::Promiscuity(count) => fact.promiscuity = count,
        LinkAttribute::OperState(state) => fact.state = oper_state(state),
        LinkAttribute::Controller(index) => fact.master = Some(IfIndex(index)),
        // 0 is a tunnel bound to no link.
        LinkAttribute::Link(index) => fact.link = Some(IfIndex(index)).filter(|index| index.0 != 0),
        LinkAttribute::LinkNetNsId(id) => fact.link_netnsid = Some(id),
        LinkAttribute::Qdisc(qdisc) => fact.qdisc = Some(qdisc),
        LinkAttribute::IfAlias(alias) => fact.alias = Some(alias),
        LinkAttribute::Stats64(counters) => fact.stats = stats(&counters),
        _ => {}
    }
}

fn apply_info(fact: &mut LinkFact, info: LinkInfo) {
    match info {
        LinkInfo::Kind(kind) => fact.kind = Some(kind.to_string()),
        LinkInfo::Data(data) => fact.detail = detail(&data),
        LinkInfo::PortData(InfoPortData::BridgePort(port)) => fact.bridge_port = Some(bridge_port(&port)),
        _ => {}
    }
}

fn stats(counters: &Stats64) -> LinkStats {
    LinkStats {
        rx_packets: counters.rx_packets,
        rx_bytes: counters.rx_bytes,
        rx_dropped: counters.rx_dropped,
        rx_errors: counters.rx_errors,
        tx_packets: counters.tx_packets,
        tx_bytes: counters.tx_bytes,
        tx_dropped: counters.tx_dropped,
        tx_errors: counters.tx_errors,
    }
}

fn oper_state(state: State) -> OperState {
    match state {
        State::NotPresent => OperState::NotPresent,
        State::Down => OperState::Down,
        State::LowerLayerDown => OperState::LowerLayerDown,
        State::Testing => OperState::Testing,
        State::Dormant => OperState::Dormant,
        State::Up => OperState::Up,
        _ => OperState::Unknown,
    }
}

fn detail(data: &InfoData) -> LinkDetail {
    match data {
        InfoData::Vlan(vlan) => find(vlan, |info| match info {
            InfoVlan::Id(id) => Some(LinkDetail::Vlan { id: *id }),
            _ => None,
        }),
        InfoData::Vxlan(vxlan) => self::vxlan(vxlan),
        InfoData::Bridge(bridge) => self::bridge(bridge),
        InfoData::Tun(tun) => find(tun, tun_type),
        InfoData::MacVlan(infos) => find(infos, |info| match info {
            InfoMacVlan::Mode(mode) => Some(LinkDetail::Macvlan { mode: mode.to_string() }),
            _ => None,
        }),
        InfoData::MacVtap(infos) => find(infos, |info| match info {
            InfoMacVtap::Mode(mode) => Some(LinkDetail::Macvlan { mode: mode.to_string() }),
            _ => None,
        }),
        InfoData::IpVlan(infos) => find(infos, |info| match info {
            InfoIpVlan::Mode(mode) => Some(LinkDetail::Macvlan { mode: mode.to_string() }),
            _ => None,
        }),
        InfoData::Vrf(vrf) => find(vrf, |info| match info {
            InfoVrf::TableId(table) => Some(LinkDetail::Vrf { table: *table }),
            _ => None,
        }),
        _ => LinkDetail::None,
    }
}

fn find<T>(infos: &[T], detail: impl FnMut(&T) -> Option<LinkDetail>) -> LinkDetail {
    infos.iter().find_map(detail).unwrap_or_default()
}

/// The library leaves the attributes of a TUN device as bytes.
fn tun_type(info: &InfoTun) -> Option<LinkDetail> {
    let mut kind = [0];
    (info.kind() == IFLA_TUN_TYPE && info.value_len() == kind.len()).then(|| info.emit_value(&mut kind))?;
    Some(LinkDetail::Tun { tap: kind == [IFF_TAP] })
}

fn vxlan(infos: &[InfoVxlan]) -> LinkDetail {
    let (mut vni, mut local, mut remote, mut port) = (0, None, None, 0);
    for info in infos {
        match info {
            InfoVxlan::Id(id) => vni = *id,
            InfoVxlan::Local(address) => local = Some(IpAddr::V4(*address)),
            InfoVxlan::Local6(address) => local = Some(IpAddr::V6(*address)),
            InfoVxlan::Group(address) => remote = Some(IpAddr::V4(*address)),
            InfoVxlan::Group6(address) => remote = Some(IpAddr::V6(*address)),
            InfoVxlan::Port(number) => port = *number,
            _ => {}
        }
    }
    LinkDetail::Vxlan { vni, local, remote, port }
}

fn bridge(infos: &[InfoBridge]) -> LinkDetail {
    let (mut stp, mut vlan_filtering, mut ageing, mut nf_call_iptables) = (false, false, 0, false);
    for info in infos {
        match info {
            InfoBridge::StpState(state) => stp = *state != BridgeStpState::Disabled,
            InfoBridge::VlanFiltering(on) => vlan_filtering = *on,
            InfoBridge::AgeingTime(time) => ageing = time / USER_HZ,
            InfoBridge::NfCallIpTables(on) => nf_call_iptables = *on,
            _ => {}
        }
    }
    LinkDetail::Bridge { stp, vlan_filtering, ageing, nf_call_iptables }
}

fn bridge_port(infos: &[InfoBridgePort]) -> BridgePortFact {
    let mut port = BridgePortFact::default();
    for info in infos {
        match info {
            InfoBridgePort::State(state) => port.state = port_state(*state),
            InfoBridgePort::HairpinMode(on) => port.hairpin = *on,
            InfoBridgePort::Isolated(on) => port.isolated = *on,
            InfoBridgePort::Learning(on) => port.learning = *on,
            InfoBridgePort::UnicastFlood(on) => port.flood = *on,
            InfoBridgePort::BroadcastFlood(on) => port.broadcast_flood = *on,
            InfoBridgePort::Locked(on) => port.locked = *on,
            _ => {}
        }
    }
    port
}

fn port_state(state: link::BridgePortState) -> BridgePortState {
    match state {
        link::BridgePortState::Listening => BridgePortState::Listening,
        link::BridgePortState::Learning => BridgePortState::Learning,
        link::BridgePortState::Forwarding => BridgePortState::Forwarding,
        link::BridgePortState::Blocking => BridgePortState::Blocking,
        // What a bridge does with a port in a state nobody knows is to pass nothing.
        _ => BridgePortState::Disabled,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DefaultNla;
    use netlink_packet_route::link::{
        BridgeStpState, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan, InfoPortData, InfoPortKind,
        InfoVlan, InfoVrf, InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode, Prop, State,
    };

    use super::*;

    fn read(attributes: Vec<LinkAttribute>) -> LinkFact {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.attributes = attributes;
        link(&Answer::with(&message)).unwrap()
    }

    fn detail_of(kind: InfoKind, data: InfoData) -> LinkDetail {
        read(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(data)])]).detail
    }

    #[test]
    fn a_veth_whose_peer_is_in_another_namespace_names_both() {
        let mut message = LinkMessage::default();
        message.header.index = 7;
        message.header.flags = LinkFlags::Up | LinkFlags::LowerUp | LinkFlags::Promisc;
        message.attributes = vec![
            LinkAttribute::IfName("tap1a2b3c4d-5e".to_owned()),
            LinkAttribute::PropList(vec![Prop::AltIfName("a longer name than fits".to_owned())]),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)]),
            LinkAttribute::Address(vec![0xfa, 0x16, 0x3e, 0, 0, 2]),
            LinkAttribute::Mtu(1450),
            LinkAttribute::OperState(State::LowerLayerDown),
            LinkAttribute::Controller(3),
            LinkAttribute::Link(2),
            LinkAttribute::LinkNetNsId(5),
            LinkAttribute::Qdisc("noqueue".to_owned()),
            LinkAttribute::IfAlias("net0".to_owned()),
            LinkAttribute::Promiscuity(2),
        ];
        let expected = LinkFact {
            ifindex: IfIndex(7),
            name: "tap1a2b3c4d-5e".to_owned(),
            alt_names: vec!["a longer name than fits".to_owned()],
            kind: Some("veth".to_owned()),
            mac: Some(Mac([0xfa, 0x16, 0x3e, 0, 0, 2])),
            mtu: 1450,
            state: OperState::LowerLayerDown,
            admin_up: true,
            carrier: true,
            promiscuous: true,
            promiscuity: 2,
            master: Some(IfIndex(3)),
            link: Some(IfIndex(2)),
            link_netnsid: Some(5),
            qdisc: Some("noqueue".to_owned()),
            alias: Some("net0".to_owned()),
            ..LinkFact::default()
        };
        assert_eq!(link(&Answer::with(&message)), Some(expected));
    }

    #[test]
    fn a_name_that_is_no_utf_8_does_not_hide_the_link() {
        let name = DefaultNla::new(libc::IFLA_IFNAME, b"eth\xff\0".to_vec());
        let fact = read(vec![LinkAttribute::Other(name), LinkAttribute::Mtu(1500)]);
        assert_eq!((fact.name.as_str(), fact.mtu), ("eth\u{fffd}", 1500));
    }

    #[test]
    fn a_link_of_a_kind_nobody_knows_is_a_link_of_that_kind() {
        let kind = InfoKind::Other("wormhole".to_owned());
        let fact =
            read(vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind), LinkInfo::Data(InfoData::Other(vec![1]))])]);
        assert_eq!((fact.kind.as_deref(), fact.detail), (Some("wormhole"), LinkDetail::None));
    }

    #[test]
    fn detail_that_cannot_be_read_leaves_the_kind() {
        // IFLA_INFO_KIND "vrf", then IFLA_INFO_DATA with an IFLA_VRF_TABLE of one byte instead of four.
        let info = [8, 0, 1, 0, b'v', b'r', b'f', 0, 12, 0, 2, 0, 5, 0, 1, 0, 9, 0, 0, 0];
        let fact = read(vec![LinkAttribute::Other(DefaultNla::new(libc::IFLA_LINKINFO, info.to_vec()))]);
        assert_eq!((fact.kind.as_deref(), fact.detail), (Some("vrf"), LinkDetail::None));
    }

    #[test]
    fn a_tunnel_bound_to_no_link_has_none() {
        assert_eq!(read(vec![LinkAttribute::Link(0)]).link, None);
    }

    #[test]
    fn a_tap_is_told_from_a_tun() {
        let detail = |kind| {
            let info = DefaultNla::new(IFLA_TUN_TYPE, vec![kind]);
            // The kind, the data, and in them one attribute: what the library makes of it when it comes from the kernel.
            let message = vec![LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Tun),
                LinkInfo::Data(InfoData::Other(emitted(&info))),
            ])];
            read(message).detail
        };
        assert_eq!(detail(2), LinkDetail::Tun { tap: true });
        assert_eq!(detail(1), LinkDetail::Tun { tap: false });
    }

    fn emitted(message: &impl netlink_packet_core::Emitable) -> Vec<u8> {
        Answer::with(message).0
    }

    #[test]
    fn details_of_each_kind_are_read() {
        let cases = [
            (InfoKind::Vlan, InfoData::Vlan(vec![InfoVlan::Id(42)]), LinkDetail::Vlan { id: 42 }),
            (InfoKind::Vrf, InfoData::Vrf(vec![InfoVrf::TableId(10)]), LinkDetail::Vrf { table: 10 }),
            (
                InfoKind::MacVlan,
                InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Passthrough)]),
                LinkDetail::Macvlan { mode: "passthru".to_owned() },
            ),
            (
                InfoKind::Vxlan,
                InfoData::Vxlan(vec![
                    InfoVxlan::Id(4097),
                    InfoVxlan::Local("192.0.2.1".parse().unwrap()),
                    InfoVxlan::Group6("2001:db8::2".parse().unwrap()),
                    InfoVxlan::Port(4789),
                ]),
                LinkDetail::Vxlan {
                    vni: 4097,
                    local: Some("192.0.2.1".parse().unwrap()),
                    remote: Some("2001:db8::2".parse().unwrap()),
                    port: 4789,
                },
            ),
        ];
        for (kind, data, expected) in cases {
            assert_eq!(detail_of(kind, data), expected);
        }
    }

    #[test]
    fn ageing_of_a_bridge_is_in_seconds() {
        let data = InfoData::Bridge(vec![
            InfoBridge::AgeingTime(30_000),
            InfoBridge::StpState(BridgeStpState::KernelStp),
            InfoBridge::VlanFiltering(true),
            InfoBridge::NfCallIpTables(true),
        ]);
        let expected = LinkDetail::Bridge { stp: true, vlan_filtering: true, ageing: 300, nf_call_iptables: true };
        assert_eq!(detail_of(InfoKind::Bridge, data), expected);
    }

    #[test]
    fn a_port_of_a_bridge_has_a_state() {
        let fact = read(vec![LinkAttribute::LinkInfo(vec![
            LinkInfo::PortKind(InfoPortKind::Bridge),
            LinkInfo::PortData(InfoPortData::BridgePort(vec![
                InfoBridgePort::State(link::BridgePortState::Forwarding),
                InfoBridgePort::HairpinMode(true),
                InfoBridgePort::Isolated(false),
                InfoBridgePort::Learning(false),
                InfoBridgePort::UnicastFlood(false),
                InfoBridgePort::BroadcastFlood(true),
                InfoBridgePort::Locked(true),
            ])),
        ])]);
        let expected = BridgePortFact {
            state: BridgePortState::Forwarding,
            hairpin: true,
            isolated: false,
            learning: false,
            flood: false,
            broadcast_flood: true,
            locked: true,
        };
        assert_eq!(fact.bridge_port, Some(expected));
    }
}

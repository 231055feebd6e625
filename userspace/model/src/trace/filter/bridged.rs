//! Bridged traffic: security groups of the hybrid plug, on the bridge between tap and Open vSwitch.

use super::{Place, answers, ask, device, push_filter, source};
use crate::{
    fact::SourceKind,
    id::{LinkKey, NetnsId},
    inventory::{Enforcement, Inventory},
    netfilter::{Address, Hook, Known, Outcome, Packet, Test, Walk},
    trace::{
        Severity,
        command::in_netns,
        outward::Way,
        path::{Path, finding},
    },
};

/// IP protocol number of TCP.
pub(super) const TCP: u8 = 6;

/// What these rules are to a tenant.
const NAME: &str = "security groups";

/// What filters at the host's end of a card: rules that name its device as a bridge port.
pub(in crate::trace) fn at_host_device(way: &mut Way<'_, '_>, outer: LinkKey) {
    let inventory = way.inventory;
    let Some(bridge) = inventory.linux_bridge(outer) else { return };
    let hybrid = way.nic.port.is_some();
    let named = names_port(inventory, outer);
    // Where netdiag enforces the groups itself, nobody misses iptables.
    let own = matches!(inventory.enforcement(way.nic), Enforcement::Port(_));
    let read = |source| !own && !inventory.unread(source, outer.netns);
    if !called(inventory, bridge) {
        if (hybrid || named) && read(SourceKind::Sysctl) {
            uncalled(way, outer);
        }
        return;
    }
    if hybrid && !named && read(SourceKind::Netfilter) {
        unfiltered(way, outer);
    }
    if !named {
        return;
    }
    let any = outgoing(way, bridge, outer);
    // What starts most connections: rules for DHCP, or for one peer, do not concern it.
    let usual = Packet { destination: Address::Outside, protocol: Known::Is(TCP), ..any.clone() };
    let whole = cross(inventory, outer.netns, any);
    let usual = cross(inventory, outer.netns, usual);
    let shown = if usual.outcome == Outcome::Accept { &usual } else { &whole };
    let label = inventory.netns(outer.netns);
    let place = |what| Place { netns: outer.netns, label: &label, name: NAME.to_owned(), what };
    push_filter(&mut way.path, inventory, &place("packets from the instance"), shown);
    if matches!(shown.outcome, Outcome::Drop { .. }) {
        return;
    }
    let back = cross(inventory, outer.netns, answers::answer(&usual.packet));
    answers::report(&mut way.path, inventory, &place("answers to the instance"), &back);
    let more = cross(inventory, outer.netns, answers::under_way(outgoing(way, bridge, outer)));
    answers::report(&mut way.path, inventory, &place("packets of a flow that was answered"), &more);
}

/// Rules a bridged packet meets: those before routing decide about its state, those of FORWARD about the packet.
pub(crate) fn cross(inventory: &Inventory<'_>, netns: NetnsId, packet: Packet) -> Walk {
    let before = answers::through(inventory, netns, &[Hook::Prerouting], packet.clone());
    if matches!(before.outcome, Outcome::Drop { .. }) {
        return before;
    }
    let Packet { mark, connmark, zone, state, .. } = before.packet;
    ask(inventory, netns, Hook::Forward, Packet { mark, connmark, zone, state, ..packet })
}

/// The same for what comes in. It is asked for whether or not anything filters what goes out.
pub(in crate::trace) fn inward_at_host_device(way: &Way<'_, '_>, path: &mut Path) {
    let inventory = way.inventory;
    let Some((outer, bridge)) = filtered(way) else { return };
    // Filters of routing namespaces are asked with their router.
    if way.legs.iter().any(|leg| leg.netns == outer.netns) {
        return;
    }
    let packet = incoming(way, bridge, outer, Address::Outside);
    let walked = cross(inventory, outer.netns, packet);
    let label = inventory.netns(outer.netns);
    let place = Place { netns: outer.netns, label: &label, name: NAME.to_owned(), what: "packets to the instance" };
    push_filter(path, inventory, &place, &walked);
}

/// A packet from the instance to anywhere, as it crosses the bridge.
pub(super) fn outgoing(way: &Way<'_, '_>, bridge: LinkKey, outer: LinkKey) -> Packet {
    let inventory = way.inventory;
    Packet {
        physdev_in: device(inventory, outer),
        physdev_out: uplink(inventory, bridge, outer),
        source_mac: way.nic.mac.map_or(Known::Unknown, Known::Is),
        ..bridged(inventory, bridge, Packet::between(source(way), Address::Unknown))
    }
}

/// A packet to the instance, as it crosses the bridge.
pub(super) fn incoming(way: &Way<'_, '_>, bridge: LinkKey, outer: LinkKey, from: Address) -> Packet {
    let inventory = way.inventory;
    Packet {
        physdev_in: uplink(inventory, bridge, outer),
        physdev_out: device(inventory, outer),
        ..bridged(inventory, bridge, Packet::between(from, source(way)))
    }
}

/// The host's end of a card with its bridge, where bridged packets meet rules that name it.
pub(super) fn filtered(way: &Way<'_, '_>) -> Option<(LinkKey, LinkKey)> {
    let outer = way.nic.outer.filter(|outer| names_port(way.inventory, *outer))?;
    let bridge = way.inventory.linux_bridge(outer).filter(|bridge| called(way.inventory, *bridge))?;
    Some((outer, bridge))
}

fn bridged(inventory: &Inventory<'_>, bridge: LinkKey, packet: Packet) -> Packet {
    Packet {
        in_device: device(inventory, bridge),
        out_device: device(inventory, bridge),
        bridged: Known::Is(true),
        ..packet
    }
}

/// What becomes of a packet between two ports of a bridge, whichever; `None` where iptables is not asked about bridged packets.
pub(crate) fn between_any(inventory: &Inventory<'_>, bridge: LinkKey, packet: Packet) -> Option<Outcome> {
    let any = Packet { physdev_in: Known::Unknown, physdev_out: Known::Unknown, state: Known::Unknown, ..packet };
    called(inventory, bridge).then(|| cross(inventory, bridge.netns, bridged(inventory, bridge, any)).outcome)
}

/// The other port of a per-port bridge.
fn uplink(inventory: &Inventory<'_>, bridge: LinkKey, outer: LinkKey) -> Known<String> {
    let mut others = inventory.bridge_ports(bridge).filter(|(key, _)| *key != outer);
    match (others.next(), others.next()) {
        (Some((_, link)), None) => Known::Is(link.name.clone()),
        _ => Known::Unknown,
    }
}

/// Whether bridged packets of a bridge are handed to iptables: by `br_netfilter`'s switch, or the bridge's own.
fn called(inventory: &Inventory<'_>, bridge: LinkKey) -> bool {
    inventory.sysctl(bridge.netns, "net.bridge.bridge-nf-call-iptables") == Some("1")
        || inventory
            .link(bridge)
            .is_some_and(|link| matches!(link.detail, crate::fact::LinkDetail::Bridge { nf_call_iptables: true, .. }))
}

/// Whether any rule names the device as a bridge port.
fn names_port(inventory: &Inventory<'_>, outer: LinkKey) -> bool {
    let Some(link) = inventory.link(outer) else { return false };
    let rulesets = inventory.rulesets(outer.netns).iter();
    let mut rules = rulesets
        .flat_map(|ruleset| &ruleset.tables)
        .flat_map(crate::netfilter::Table::chains)
        .flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        rule.matches.iter().any(|one| {
            let (Test::PhysdevIn(pattern) | Test::PhysdevOut(pattern)) = &one.test else { return false };
            pattern.exact() == Some(&link.name)
        })
    })
}

fn uncalled(way: &mut Way<'_, '_>, outer: LinkKey) {
    let inventory = way.inventory;
    let name = "net.bridge.bridge-nf-call-iptables";
    let seen = inventory
        .sysctl(outer.netns, name)
        .map_or("br_netfilter is not loaded".to_owned(), |value| format!("{name} = {value}"));
    let device = inventory.link(outer).map(|link| link.name.clone()).unwrap_or_default();
    way.path.report(
        finding(
            Severity::Warning,
            "bridge-nf-off",
            device,
            "security groups are not enforced here: bridged packets never reach iptables",
        )
        .seen(seen)
        .verify(in_netns(inventory, outer.netns, &format!("sysctl {name}")))
        .fix(format!("modprobe br_netfilter && sysctl -w {name}=1")),
    );
}

fn unfiltered(way: &mut Way<'_, '_>, outer: LinkKey) {
    let device = way.inventory.link(outer).map(|link| link.name.clone()).unwrap_or_default();
    way.path.report(
        finding(
            Severity::Warning,
            "no-security-group-chain",
            &device,
            "no security group filters this port: everything passes",
        )
        .seen(format!("no rule names {device} as a bridge port"))
        .verify("iptables-save | grep physdev")
        .fix("normal where port security is off; else see neutron-openvswitch-agent's log"),
    );
}

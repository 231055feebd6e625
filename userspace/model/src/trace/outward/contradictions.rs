//! Where two places of a path say different things of one another: MTUs, MAC addresses, the route back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Leg, Way};
use crate::{
    fact::NeighbourFact,
    id::LinkKey,
    inventory::{
        PortPlace,
        route::{NoRoute, Question},
    },
    trace::{
        Severity,
        command::{in_netns, quote},
        path::finding,
    },
};

impl Way<'_, '_> {
    /// Reports a device that takes smaller packets than the instance sends. A router says so to whoever sent them, by ICMP,
    /// which not everybody lets through.
    pub(super) fn mtu_step(&mut self, device: LinkKey, by_router: bool) {
        let inner = self.nic.inner.and_then(|inner| self.inventory.link(inner));
        let (Some(inner), Some(link)) = (inner, self.inventory.link(device)) else { return };
        if link.mtu >= inner.mtu {
            return;
        }
        let at = self.inventory.netns(device.netns).label;
        let what =
            if by_router { "large packets die here unless ICMP makes it back" } else { "large packets die here" };
        self.path.report(
            finding(
                Severity::Warning,
                "mtu-mismatch",
                format!("{} in {at}", link.name),
                format!("{} takes {} bytes, the instance sends {}: {what}", link.name, link.mtu, inner.mtu),
            )
            .seen(format!("MTU {} against {} of {}", link.mtu, inner.mtu, inner.name))
            .verify(in_netns(self.inventory, device.netns, &format!("ip link show dev {}", quote(&link.name))))
            .fix("set both ends to the network's MTU"),
        );
    }

    /// Reports a router's end whose MAC address is not the one its Neutron port has.
    pub(super) fn router_mac(&mut self, port: &PortPlace<'_>, device: LinkKey) {
        let own = self.inventory.link(device).and_then(|link| link.mac);
        let (Some(own), Some(attached)) = (own, port.attached_mac()) else { return };
        if own == attached {
            return;
        }
        let name = &port.interface.name;
        self.path.report(
            finding(
                Severity::Warning,
                "router-mac",
                name,
                format!(
                    "{name} has the MAC address {own}, its Neutron port {attached}: whoever trusts Neutron misses it"
                ),
            )
            .seen("the link's address is not external_ids:attached-mac of the port")
            .verify(in_netns(self.inventory, device.netns, &format!("ip link show dev {}", quote(name))))
            .fix(in_netns(
                self.inventory,
                device.netns,
                &format!("ip link set {} address {attached}", quote(name)),
            )),
        );
    }

    /// Reports a neighbour entry that is written down and wrong, at the instance for its gateway or at the gateway for it:
    /// nobody asks who really has the address.
    pub(super) fn written_down(&mut self, gateway: LinkKey) {
        let inventory = self.inventory;
        let (Some(inner), Some(source)) = (self.nic.inner, self.source) else { return };
        let mac = |key| inventory.link(key).and_then(|link| link.mac);
        let asked = [(inner, self.gateway, mac(gateway)), (gateway, Some(source), mac(inner))];
        for (at, address, wanted) in asked {
            let neighbours = inventory.network(at.netns).map_or(&[][..], |network| &network.neighbours);
            let of = |entry: &&NeighbourFact| entry.ifindex == at.ifindex && Some(entry.address) == address;
            let permanent = neighbours.iter().filter(of).find(|entry| entry.state == "PERMANENT" && !entry.proxy);
            let (Some(entry), Some(wanted)) = (permanent, wanted) else { continue };
            let Some(written) = entry.mac.filter(|mac| *mac != wanted) else { continue };
            let (label, address) = (inventory.netns(at.netns).label, entry.address);
            let device = inventory.link(at).map(|link| link.name.clone()).unwrap_or_default();
            let delete = format!("ip neigh del {address} dev {}", quote(&device));
            self.path.report(
                finding(
                    Severity::Error,
                    "wrong-neighbour",
                    address.to_string(),
                    format!("{label} sends to {address} at {written}, which is not its MAC address: its frames die"),
                )
                .seen(format!("a PERMANENT neighbour entry says {written}, the device has {wanted}"))
                .verify(in_netns(inventory, at.netns, &format!("ip neigh show {address}")))
                .fix(in_netns(inventory, at.netns, &delete)),
            );
        }
    }

    /// Reports a router that sends what comes for the instance anywhere but back to it.
    pub(super) fn route_back(&mut self, leg: Leg) {
        let inventory = self.inventory;
        // Behind the first router, the address that comes back may be another.
        let Some(address) = self.source.filter(|_| self.legs.len() == 1) else { return };
        let source = match address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let iif = inventory.link(leg.outside).map(|link| link.name.as_str());
        let seen = match inventory.route(leg.netns, Question { source, destination: Some(address), iif }) {
            Ok(answer) if answer.ifindex() == Some(leg.inside.ifindex) => return,
            Ok(answer) => {
                let out = answer.ifindex().and_then(|ifindex| inventory.link(LinkKey { netns: leg.netns, ifindex }));
                format!("{} leads out by {}", answer.route.destination, out.map_or("?", |link| &link.name))
            }
            // A dead route is there; that its link is down is said of the link.
            Err(NoRoute::Unknown | NoRoute::Dead) => return,
            Err(NoRoute::Refused(kind)) => format!("a route or a policy rule of kind {kind}"),
            Err(NoRoute::None) => "no route".to_owned(),
        };
        let label = inventory.netns(leg.netns).label;
        self.path.report(
            finding(
                Severity::Error,
                "no-route-back",
                &label,
                format!("{label} does not send what comes for {address} back to the instance"),
            )
            .seen(seen)
            .verify(in_netns(inventory, leg.netns, &format!("ip route get {address}")))
            .fix("remove the route that is in the way of the network's own"),
        );
    }

    /// Tells of routes that send part of the outside another way, or nowhere: whether they matter depends on whom the
    /// instance talks to.
    pub(super) fn refusals(&mut self, at: LinkKey) {
        let inventory = self.inventory;
        let routes = inventory.network(at.netns).map_or(&[][..], |network| &network.routes);
        let refusing = ["blackhole", "unreachable", "prohibit"];
        let ipv4 = self.source.is_none_or(|source| source.is_ipv4());
        let partial = routes.iter().filter(|route| {
            refusing.contains(&route.kind.as_str())
                && route.destination.prefix_len() > 0
                && route.destination.addr().is_ipv4() == ipv4
        });
        for route in partial {
            let label = inventory.netns(at.netns).label;
            let (kind, to) = (&route.kind, route.destination);
            self.path.report(
                finding(
                    Severity::Warning,
                    "route-refuses",
                    to.to_string(),
                    format!("packets to {to} die in {label}: a route of kind {kind} refuses them"),
                )
                .seen(format!("{kind} {to} in table {}", route.table))
                .verify(in_netns(inventory, at.netns, "ip route show table all"))
                .fix(in_netns(
                    inventory,
                    at.netns,
                    &format!("ip route del {kind} {to} table {}", route.table),
                )),
            );
        }
    }
}

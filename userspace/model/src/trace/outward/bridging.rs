//! Layer 2 of the way out: Linux bridges and Open vSwitch, as far as the router or the wire.

use std::net::IpAddr;

use super::{DefaultRoute, Way};
use crate::{
    fact::NeighbourFact,
    id::{LinkKey, Mac, NetnsId},
    inventory::{PortPlace, Role, neighbourhood::Member, switch::DEAD_VLAN},
    trace::{
        Direction, Hop, HopKind, HopState, Severity,
        bridge::{self, Side},
        command::{in_netns, quote},
        filter,
        path::{Path, SEGMENT, finding},
        switching::{self, WayOut},
    },
};

impl<'a> Way<'_, 'a> {
    pub(super) fn through_linux_bridge(&mut self, bridge: LinkKey, from: LinkKey) {
        self.path.device(self.inventory, HopKind::LinuxBridge, bridge);
        bridge::port(&mut self.path, self.inventory, Side { port: from, mac: self.nic.mac });
        let own = self.inventory.addresses(bridge);
        // Behind a per-port bridge the segment goes on in Open vSwitch.
        if self.default_route_elsewhere() && self.nic.port.is_none() {
            self.end_of_segment(Some(bridge.netns));
            return;
        }
        let gateway_here = self.gateway.map_or(!own.is_empty(), |gateway| own.iter().any(|net| net.addr() == gateway));
        if gateway_here {
            bridge::vlans(&mut self.path, self.inventory, bridge, (from, bridge));
            filter::at_bridge(self, from, None);
            self.written_down(bridge);
            self.route_in(bridge);
            return;
        }
        let Some(uplink) = self.bridge_uplink(bridge, from) else {
            let name = self.inventory.link(bridge).map_or("the bridge", |link| &link.name).to_owned();
            self.path.report(
                finding(
                    Severity::Warning,
                    "bridge-without-uplink",
                    &name,
                    format!("{name} has no way out: no address of its own and no port that leads on"),
                )
                .seen("no other port is a physical device, a VLAN, or a veth to another bridge")
                .verify(format!("bridge link show; ip -d link show master {}", quote(&name))),
            );
            return;
        };
        self.cross_linux_bridge(bridge, (from, uplink));
        if let Some(peer) = self.inventory.peer(uplink) {
            self.path.device(self.inventory, HopKind::Veth, uplink);
            self.path.device(self.inventory, HopKind::Veth, peer);
            self.enter_device(peer);
        } else {
            self.path.device(self.inventory, HopKind::Uplink, uplink);
            self.leave(None);
        }
    }

    /// What keeps frames from the port of a bridge that leads on.
    fn cross_linux_bridge(&mut self, bridge: LinkKey, ports: (LinkKey, LinkKey)) {
        let (inventory, gateway) = (self.inventory, self.gateway_entry());
        let mac = gateway.and_then(|entry| entry.mac);
        bridge::port(&mut self.path, inventory, Side { port: ports.1, mac });
        bridge::between(&mut self.path, inventory, ports);
        bridge::vlans(&mut self.path, inventory, bridge, ports);
        if self.gateway.is_some() {
            bridge::silenced(&mut self.path, inventory, ports.1, gateway);
        }
        filter::at_bridge(self, ports.0, Some(ports.1));
    }

    /// Whether the instance's default route is known to leave by another card, or by none, and nothing that comes in from
    /// outside makes it answer by this one.
    pub(super) fn default_route_elsewhere(&self) -> bool {
        let entered = self.routed || !self.inventory.floating_ips(self.nic).is_empty();
        self.default_route == DefaultRoute::Elsewhere && !entered
    }

    /// The instance's default route leaves by another card: by this one it reaches its own subnet.
    pub(super) fn end_of_segment(&mut self, netns: Option<NetnsId>) {
        let subnet = self.nic.addresses.first().map_or_else(|| "the segment".to_owned(), |net| net.trunc().to_string());
        self.path.push(Hop {
            kind: HopKind::NextHop,
            name: subnet,
            netns: netns.map(|netns| self.inventory.netns(netns)),
            state: HopState::Ok,
            status: SEGMENT.to_owned(),
            note: "the default route does not leave by this card: it reaches its own subnet".to_owned(),
            ..Hop::default()
        });
    }

    /// The port of a Linux bridge that leads on: where the bridge learned the gateway, else the only one that is no
    /// instance's.
    pub(super) fn bridge_uplink(&self, bridge: LinkKey, from: LinkKey) -> Option<LinkKey> {
        let inventory = self.inventory;
        let instances: Vec<_> =
            inventory.instances.iter().flat_map(|instance| &instance.nics).filter_map(|nic| nic.outer).collect();
        let leads_on = |key: &LinkKey| *key != from && !instances.contains(key);
        let learned = self.gateway_mac().and_then(|mac| {
            let fdb = &inventory.network(bridge.netns)?.fdb;
            let entry = fdb.iter().find(|entry| entry.mac == mac && entry.master == Some(bridge.ifindex))?;
            Some(LinkKey { netns: bridge.netns, ifindex: entry.ifindex })
        });
        learned.filter(leads_on).or_else(|| inventory.bridge_ports(bridge).map(|(key, _)| key).find(leads_on))
    }

    fn gateway_mac(&self) -> Option<Mac> {
        self.gateway_entry()?.mac
    }

    /// What the instance's neighbour table says of its gateway.
    pub(super) fn gateway_entry(&self) -> Option<&'a NeighbourFact> {
        let inner = self.nic.inner?;
        let mut neighbours = self.inventory.network(inner.netns)?.neighbours.iter();
        neighbours.find(|entry| entry.ifindex == inner.ifindex && Some(entry.address) == self.gateway && !entry.proxy)
    }

    /// Goes on from the instance's port of an Open vSwitch bridge: to the router on this host, or out by patch or tunnel.
    pub(super) fn enter_port(&mut self, port: &PortPlace<'a>) {
        switching::port(&mut self.path, self.inventory, port);
        self.path.ovs_bridge(self.inventory, port);
        if let Some((near, parent)) = self.inventory.ports().trunk_parent(port) {
            switching::patch(&mut self.path, self.inventory, &near);
            self.enter_port(&parent);
            return;
        }
        if let Some(plane) = port.by_flows_of().filter(|_| port.untagged_vlan().is_none()) {
            let (name, bridge, interface) = (plane.name(), &port.bridge.name, &port.interface.name);
            self.stop(format!(
                "{name} takes frames on by flows, which are not read: ovs-appctl ofproto/trace {} in_port={}",
                quote(bridge),
                quote(interface)
            ));
            return;
        }
        if port.untagged_vlan().is_none_or(|vlan| vlan == DEAD_VLAN) && port.port_id().is_some() {
            self.stop("frames of this port go no further: it is not wired to its network");
            return;
        }
        self.other_hosts(port);
        let segment = self.inventory.segment(port);
        let holds_gateway = |device: LinkKey| {
            self.gateway.is_some_and(|gateway| self.inventory.addresses(device).iter().any(|net| net.addr() == gateway))
        };
        let is_router = |device: LinkKey| matches!(self.inventory.role(device.netns), Role::Router(_));
        let router = segment
            .iter()
            .find(|member| holds_gateway(member.device))
            // A guest's default route cannot be seen from here; then the network's router is taken for it.
            .or_else(|| segment.iter().find(|member| self.gateway.is_none() && is_router(member.device)));
        match router {
            Some(member) if self.default_route_elsewhere() => {
                self.router = self.router_of(member.device);
                self.end_of_segment(port.switch.netns);
            }
            Some(member) => {
                self.written_down(member.device);
                self.enter_router(port, member);
            }
            None => {
                self.gateway_nowhere(port);
                if !self.gateway_in_another_vlan(port) {
                    self.leave_switch(port, None);
                }
            }
        }
    }

    /// Goes from a port of a bridge to a router's on the same segment, and through the router.
    pub(super) fn enter_router(&mut self, port: &PortPlace<'a>, member: &Member<'a>) {
        switching::port(&mut self.path, self.inventory, &member.port);
        switching::between(&mut self.path, port, &member.port);
        self.path.device(self.inventory, HopKind::RouterPort, member.device);
        self.mtu_step(member.device, false);
        self.router_mac(&member.port, member.device);
        self.route_in(member.device);
    }

    /// The end of another of Neutron's routing namespaces on a router's segment that holds the next hop.
    pub(super) fn next_router(&self, port: &PortPlace<'a>, next_hop: IpAddr) -> Option<Member<'a>> {
        let routes = |netns| matches!(self.inventory.role(netns), Role::Router(_) | Role::Snat(_) | Role::Fip(_));
        let holds = |member: &Member<'_>| {
            let held = self.inventory.addresses(member.device);
            routes(member.device.netns) && held.iter().any(|net| net.addr() == next_hop)
        };
        self.inventory.segment(port).into_iter().find(holds)
    }

    /// The network's router holds the gateway, and its port is not in the VLAN of the instance's.
    fn gateway_in_another_vlan(&mut self, port: &PortPlace<'a>) -> bool {
        let inventory = self.inventory;
        let Some(gateway) = self.gateway else { return false };
        let holds = |device: LinkKey| inventory.addresses(device).iter().any(|net| net.addr() == gateway);
        let routers = inventory.router_ports(self.nic);
        let Some(member) = routers.iter().find(|member| holds(member.device)) else { return false };
        let before = self.path.findings.len();
        switching::port(&mut self.path, inventory, &member.port);
        if self.path.findings.len() == before {
            let (name, own) = (&member.port.interface.name, &port.interface.name);
            let words = |port: &PortPlace<'_>| port.untagged_vlan().map_or("none".to_owned(), |vlan| vlan.to_string());
            self.path.report(
                finding(
                    Severity::Error,
                    "router-vlan",
                    name,
                    format!("{name}, which holds the gateway {gateway}, is in another VLAN than {own}"),
                )
                .seen(format!("VLAN {} against {}", words(&member.port), words(port)))
                .verify(format!("ovs-vsctl list port {}", quote(&member.port.port.name)))
                .fix("see neutron-openvswitch-agent's log"),
            );
        }
        true
    }

    /// The network's router is here, and does not hold the address the instance sends to.
    fn gateway_nowhere(&mut self, port: &PortPlace<'a>) {
        let Some(gateway) = self.gateway else { return };
        let segment = self.inventory.segment(port);
        let mut routers =
            segment.iter().filter(|member| matches!(self.inventory.role(member.device.netns), Role::Router(_)));
        let Some(router) = routers.next() else { return };
        let held: Vec<String> =
            self.inventory.addresses(router.device).iter().map(|net| net.addr().to_string()).collect();
        let held = if held.is_empty() { "no address".to_owned() } else { held.join(", ") };
        let label = self.inventory.netns(router.device.netns).label;
        self.path.report(
            finding(
                Severity::Warning,
                "gateway-elsewhere",
                gateway.to_string(),
                format!(
                    "the instance sends to the gateway {gateway}, which the network's router on this host does not hold"
                ),
            )
            .seen(format!("{label} has {held} on {}", router.port.interface.name))
            .verify(in_netns(self.inventory, router.device.netns, "ip addr"))
            .fix("compare the instance's default route with the subnet's gateway"),
        );
    }

    /// The tunnels to the same network on other hosts, beside the way out.
    pub(super) fn other_hosts(&mut self, port: &PortPlace<'a>) {
        if self.inventory.segment(port).is_empty() || !self.lateral.hops.is_empty() {
            return;
        }
        let WayOut::By(patch) = switching::way_out(self.inventory, port) else { return };
        let Some(far) = self.inventory.ports().patch_peer(&patch) else { return };
        if self.inventory.ports().on(far.bridge).any(|port| port.is_tunnel()) {
            switching::patch(&mut self.lateral, self.inventory, &patch);
            self.lateral.ovs_bridge(self.inventory, &far);
            switching::tunnels(&mut self.lateral, self.inventory, &far, &switching::network_words(port));
        }
    }

    /// Leaves a bridge of Open vSwitch towards the outside: by a patch port and the next bridge's NIC or tunnel.
    pub(super) fn leave_switch(&mut self, port: &PortPlace<'a>, neighbour: Option<(LinkKey, IpAddr)>) {
        if !self.spend() {
            return;
        }
        // A bridge that has its own NIC or is the host's own end needs no patch.
        if self.leave_by_nic(port, port.untagged_vlan().or(Some(0)), neighbour) {
            return;
        }
        let bridge = &port.bridge.name;
        let patch = match switching::way_out(self.inventory, port) {
            WayOut::By(patch) => patch,
            WayOut::OneOf(patches) => {
                let patches = patches.join(" or ");
                return self
                    .stop(format!("{bridge} leads on by {patches}: bridge_mappings of Neutron's agent say which"));
            }
            WayOut::Nowhere => {
                return self.stop(format!("no port of {bridge} leads out of this host for this network"));
            }
        };
        let far = switching::patch(&mut self.path, self.inventory, &patch);
        switching::between(&mut self.path, port, &patch);
        let Some(far) = far else { return };
        switching::carried(&mut self.path, &far, port.untagged_vlan().unwrap_or(0));
        self.path.ovs_bridge(self.inventory, &far);
        if self.inventory.ports().on(far.bridge).any(|port| port.is_tunnel()) {
            self.lateral = Path::new(Direction::Lateral);
            switching::tunnels(&mut self.path, self.inventory, &far, &switching::network_words(port));
            let (next_hop, what) = match neighbour {
                Some((_, address)) => (Some(address), "what the router sends this to"),
                None => (self.gateway, "the router of this network"),
            };
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: next_hop.map_or_else(|| "another host".to_owned(), |next_hop| next_hop.to_string()),
                state: HopState::Unknown,
                status: "other host".to_owned(),
                note: format!("{what} is on another host: trace on from there"),
                ..Hop::default()
            });
        } else if !self.leave_by_nic(&far, wire_vlan(port), neighbour) {
            self.no_uplink(&far);
        }
    }

    pub(super) fn no_uplink(&mut self, port: &PortPlace<'a>) {
        let bridge = &port.bridge.name;
        let mut others = self.inventory.ports().on(port.bridge).filter(|other| !other.is_patch());
        if let Some(other) = others.find(|other| other.interface.name != *bridge) {
            return self.stop(format!("{bridge} goes on by {}, which is not followed", other.interface.name));
        }
        self.path.report(
            finding(
                Severity::Error,
                "bridge-without-uplink",
                bridge,
                format!("{bridge} has no NIC and no address: nothing leaves the host by it"),
            )
            .seen("no port of the bridge is a device of the host, and the bridge's own device has no address")
            .verify(format!("ovs-vsctl list-ports {}", quote(bridge)))
            .fix(format!("ovs-vsctl add-port {} <NIC>", quote(bridge))),
        );
    }

    /// Leaves by a NIC that is a port of this bridge, or by the bridge's own device where the host itself is outside.
    /// `vlan` is what its frames are in on the bridge, 0 where they have no tag there, none where it is not known.
    pub(super) fn leave_by_nic(
        &mut self,
        port: &PortPlace<'a>,
        vlan: Option<u16>,
        neighbour: Option<(LinkKey, IpAddr)>,
    ) -> bool {
        let inventory = self.inventory;
        let nics = inventory.ports().on(port.bridge).filter_map(|other| {
            let plain = other.interface.kind.is_empty() || other.interface.kind == "system";
            let foreign = !other.interface.external_ids.contains_key("iface-id") && !other.is(port);
            let device = inventory.device(&other)?;
            // The peer of an instance's veth is inside the instance; a NIC's wire end cannot be seen from here.
            let wire = inventory.peer(device).is_none();
            (plain && foreign && wire).then_some((other, device))
        });
        let nics: Vec<_> = nics.collect();
        let carrying = nics.iter().find(|(nic, _)| vlan.is_some() && nic.carries(vlan));
        if let Some(&(nic, device)) = carrying.or(nics.first()) {
            self.path.device(inventory, HopKind::Uplink, device);
            if let Some(vlan) = vlan {
                switching::carried(&mut self.path, &nic, vlan);
            }
            self.leave(neighbour);
            return true;
        }
        let local = port.switch.netns.and_then(|netns| inventory.link_named(netns, &port.bridge.name));
        let Some(local) = local.filter(|local| !inventory.addresses(*local).is_empty()) else { return false };
        self.path.device(inventory, HopKind::Uplink, local);
        if let Some((_, address)) = neighbour.filter(|(_, address)| inventory.holder(local.netns, *address).is_some()) {
            self.path.push(Hop {
                kind: HopKind::NextHop,
                name: address.to_string(),
                netns: Some(inventory.netns(local.netns)),
                state: HopState::Ok,
                status: "this host".to_owned(),
                note: "the host itself is the gateway".to_owned(),
                ..Hop::default()
            });
        } else {
            self.leave(neighbour);
        }
        true
    }
}

/// VLAN of a network's frames on its physical bridge, where Neutron's agent maps its own to the network's: 0 for none. Not
/// known where the port says nothing of its network.
fn wire_vlan(port: &PortPlace<'_>) -> Option<u16> {
    let network = port.network();
    match network.kind? {
        "flat" => Some(0),
        "vlan" => network.segmentation_id.and_then(|id| u16::try_from(id).ok()),
        _ => None,
    }
}

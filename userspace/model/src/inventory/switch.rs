//! Open vSwitch: ports, patch pairs, tunnels, and the devices behind them.

use std::{collections::HashMap, net::IpAddr};

use super::control::ControlPlane;
use crate::{
    fact::{OvsBridgeFact, OvsInterfaceFact, OvsPortFact, SwitchFact},
    id::{Mac, Uuid},
};

/// VLAN Neutron's agent parks ports in that must not pass anything (`DEAD_VLAN_TAG`).
pub const DEAD_VLAN: u16 = 4095;

/// An interface with the port, bridge and switch it belongs to.
#[derive(Clone, Copy, Debug)]
pub struct PortPlace<'a> {
    /// Switch.
    pub switch: &'a SwitchFact,
    /// Bridge.
    pub bridge: &'a OvsBridgeFact,
    /// Port.
    pub port: &'a OvsPortFact,
    /// Interface.
    pub interface: &'a OvsInterfaceFact,
}

impl<'a> PortPlace<'a> {
    /// Neutron port (`external_ids:iface-id`).
    pub fn port_id(&self) -> Option<Uuid> {
        self.interface.external_ids.get("iface-id")?.parse().ok()
    }

    /// MAC address of the instance (`external_ids:attached-mac`).
    pub fn attached_mac(&self) -> Option<Mac> {
        self.interface.external_ids.get("attached-mac")?.parse().ok()
    }

    /// Instance (`external_ids:vm-uuid`, or `vm-id` as libvirt writes it).
    pub fn instance_id(&self) -> Option<&'a str> {
        let ids = &self.interface.external_ids;
        ids.get("vm-uuid").or_else(|| ids.get("vm-id")).map(String::as_str)
    }

    /// What Neutron's agent wrote of the port's network.
    pub fn network(&self) -> NetworkId<'a> {
        let text = |key: &str| self.port.other_config.get(key).map(String::as_str).filter(|text| *text != "None");
        NetworkId {
            id: text("net_uuid"),
            kind: text("network_type"),
            physical_network: text("physical_network"),
            segmentation_id: text("segmentation_id").and_then(|id| id.parse().ok()),
        }
    }

    /// Who runs the port's bridge, as far as can be told.
    pub fn control_plane(&self) -> Option<ControlPlane> {
        ControlPlane::of(self.switch, self.bridge)
    }

    /// Who tells the networks of the port's bridge apart by flows, where they are not told apart by VLANs.
    pub fn by_flows_of(&self) -> Option<ControlPlane> {
        self.control_plane().filter(|plane| plane.by_flows_alone())
    }

    /// True for a patch port.
    pub fn is_patch(&self) -> bool {
        self.interface.kind == "patch"
    }

    /// True for a tunnel port.
    pub fn is_tunnel(&self) -> bool {
        matches!(self.interface.kind.as_str(), "vxlan" | "gre" | "ip6gre" | "geneve" | "stt" | "erspan")
    }

    /// Far end of a tunnel.
    pub fn remote_ip(&self) -> Option<&'a str> {
        self.interface.options.get("remote_ip").map(String::as_str)
    }

    /// Near end of a tunnel.
    pub fn local_ip(&self) -> Option<IpAddr> {
        self.interface.options.get("local_ip")?.parse().ok()
    }

    /// Whether Open vSwitch limits or delays what passes the port.
    pub fn limits(&self) -> bool {
        /// What `os-vif` hangs on every port, and what does nothing.
        const NOTHING: &str = "linux-noop";
        let qos = self.port.qos && self.port.qos_type.as_deref() != Some(NOTHING);
        qos || self.interface.policing.is_some()
    }

    /// True where two places are the same interface.
    pub fn is(&self, other: &Self) -> bool {
        std::ptr::eq(self.interface, other.interface)
    }

    /// What the port does with VLANs (`vlan_mode` of ovs-vswitchd.conf.db(5); without one, `tag` decides).
    pub fn vlan_mode(&self) -> VlanMode {
        match (self.port.vlan_mode.as_deref(), self.port.tag) {
            (None, Some(_)) | (Some("access"), _) => VlanMode::Access,
            (Some("native-tagged"), _) => VlanMode::NativeTagged,
            (Some("native-untagged"), _) => VlanMode::NativeUntagged,
            (Some("dot1q-tunnel"), _) => VlanMode::Tunnel,
            // A trunk has no tag of its own, whatever the column says.
            (None | Some(_), _) => VlanMode::Trunk,
        }
    }

    /// VLAN of the frames that come in without a tag; none where they have none inside the switch either.
    pub fn untagged_vlan(&self) -> Option<u16> {
        match self.vlan_mode() {
            VlanMode::Trunk => None,
            // Without a tag, an access port is in VLAN 0, as are the untagged frames of a trunk.
            VlanMode::Access | VlanMode::Tunnel | VlanMode::NativeTagged | VlanMode::NativeUntagged => self.port.tag,
        }
    }

    /// Whether frames of a VLAN pass this port; none stands for those without one.
    pub fn carries(&self, vlan: Option<u16>) -> bool {
        let own = self.untagged_vlan();
        let vlan = vlan.unwrap_or(0);
        match self.vlan_mode() {
            VlanMode::Access | VlanMode::Tunnel => own.unwrap_or(0) == vlan,
            VlanMode::Trunk | VlanMode::NativeTagged | VlanMode::NativeUntagged => {
                self.port.trunks.is_empty() || self.port.trunks.contains(&vlan) || own == Some(vlan)
            }
        }
    }
}

/// What a port does with VLANs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VlanMode {
    /// One VLAN, without its tag on the port.
    Access,
    /// Frames keep their tags.
    Trunk,
    /// A trunk with a VLAN for frames without a tag; they leave with one.
    NativeTagged,
    /// A trunk with a VLAN for frames without a tag; they leave without.
    NativeUntagged,
    /// One VLAN around whatever tags the frames have.
    Tunnel,
}

/// A network as Neutron's agent describes it in `Port.other_config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkId<'a> {
    /// Neutron network.
    pub id: Option<&'a str>,
    /// `vxlan`, `vlan`, `flat`, `gre`, `geneve`, `local`.
    pub kind: Option<&'a str>,
    /// Physical network of a provider network.
    pub physical_network: Option<&'a str>,
    /// VNI or provider VLAN.
    pub segmentation_id: Option<u32>,
}

/// Every interface of every switch.
#[derive(Debug)]
pub struct Ports<'a> {
    all: Vec<PortPlace<'a>>,
    by_name: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Ports<'a> {
    pub(super) fn build(switches: &'a [SwitchFact]) -> Self {
        let mut all = Vec::new();
        for switch in switches {
            for bridge in &switch.bridges {
                for port in &bridge.ports {
                    all.extend(port.interfaces.iter().map(|interface| PortPlace { switch, bridge, port, interface }));
                }
            }
        }
        let mut by_name: HashMap<&str, Vec<usize>> = HashMap::new();
        for (place, port) in all.iter().enumerate() {
            by_name.entry(&port.interface.name).or_default().push(place);
        }
        Self { all, by_name }
    }

    /// Every interface.
    pub fn all(&self) -> &[PortPlace<'a>] {
        &self.all
    }

    /// Interfaces of a name.
    pub fn named(&self, name: &str) -> impl Iterator<Item = PortPlace<'a>> {
        self.by_name.get(name).into_iter().flatten().map(|place| self.all[*place])
    }

    /// Interfaces of a bridge.
    pub fn on(&self, bridge: &'a OvsBridgeFact) -> impl Iterator<Item = PortPlace<'a>> {
        self.all.iter().filter(move |port| std::ptr::eq(port.bridge, bridge)).copied()
    }

    /// Where the untagged frames of a trunk port go on: the patch pair from its own bridge (`tbr-`) to the port on br-int
    /// that carries its Neutron port (`tpt-` to `tpi-`). None for ports that are no trunk's parent.
    pub fn trunk_parent(&self, port: &PortPlace<'a>) -> Option<(PortPlace<'a>, PortPlace<'a>)> {
        let id = port.port_id().filter(|_| port.port.tag.is_none() && !port.is_patch())?;
        let patches = self.on(port.bridge).filter(PortPlace::is_patch);
        let mut pairs = patches.filter_map(|near| Some((near, self.patch_peer(&near)?)));
        pairs.find(|(_, far)| far.port_id().as_ref() == Some(&id))
    }

    /// The other end of a patch port, if it is there and points back.
    pub fn patch_peer(&self, port: &PortPlace<'a>) -> Option<PortPlace<'a>> {
        let peer = port.interface.options.get("peer").filter(|_| port.is_patch())?;
        self.named(peer).find(|other| {
            std::ptr::eq(other.switch, port.switch) && other.interface.options.get("peer") == Some(&port.interface.name)
        })
    }
}

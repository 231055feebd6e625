//! A compute host as Neutron's Open vSwitch agent, L3 agent and DHCP agent leave it.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::{Context as _, Result};

use super::{
    controller,
    flows::{self, Distribution, TUNNEL_PATCH, Vlan},
    router,
};
use crate::lab::{
    command, dhcp,
    host::Host,
    identity,
    inventory::{self, Carrier, Instance, Network, Ovs, Port, Role, Uuid},
    netns,
    ovs::{self, Switch, Transaction},
};

/// How many ports go into one transaction: a command line has an end.
pub(crate) const PORTS_A_TRANSACTION: usize = 100;

const INT: &str = "br-int";
const TUN: &str = "br-tun";
const EX: &str = "br-ex";
/// Bridge that holds the tunnel address where Open vSwitch, and not the kernel, sends the tunnels' packets.
const PHY: &str = "br-phy";
/// Where Neutron's agents reach the database (`ovsdb_connection`).
const MANAGER: &str = "ptcp:6640:127.0.0.1";
const INT_PATCH: &str = "int-br-ex";
const EX_PATCH: &str = "phy-br-ex";
const EXTERNAL_NIC: &str = "eth1";
const TUNNEL_NIC: &str = "eth0";

/// The agents of one host.
pub(crate) struct Agent<'a> {
    host: &'a Host<'a>,
    pub(crate) switch: Switch,
    system_id: Uuid,
    local_ip: Ipv4Addr,
    bridges: Vec<String>,
}

impl<'a> Agent<'a> {
    /// Starts Open vSwitch and makes the bridges, and the tunnels to the other compute hosts.
    pub(crate) fn start(host: &'a Host<'a>) -> Result<Self> {
        let name = &host.plan.name;
        let system_id = identity::uuid("system-id", name);
        let switch = Switch::start(&system_id, name)?;
        let address = host.uplink(TUNNEL_NIC)?.address.context("no address for tunnels")?;
        controller::start()?;
        let mut agent = Self { host, switch, system_id, local_ip: address.address, bridges: Vec::new() };
        agent.add_bridges()?;
        agent.connect_underlay()?;
        agent.add_tunnels()?;
        Ok(agent)
    }

    /// The bridges the agent controls: all but the one for the tunnels' own packets.
    fn bridges_of_the_agent(&self) -> impl Iterator<Item = &str> {
        self.bridges.iter().map(String::as_str).filter(|bridge| *bridge != PHY)
    }

    fn has_external(&self) -> bool {
        self.host.plan.uplink(EXTERNAL_NIC).is_some()
    }

    fn add_bridges(&mut self) -> Result<()> {
        let mut transaction = Transaction::default();
        self.bridges.extend([INT, TUN].map(str::to_owned));
        if self.has_external() {
            self.bridges.push(EX.into());
        }
        let kind = format!("datapath_type={}", self.switch.datapath_type);
        let columns = [kind, "fail_mode=secure".into(), "protocols=OpenFlow10,OpenFlow13,OpenFlow14".into()];
        let (address, port) = controller::ADDRESS;
        for bridge in &self.bridges {
            transaction.add_bridge(bridge, &columns);
            transaction.set_controller(bridge, &format!("tcp:{address}:{port}"));
        }
        transaction.set_manager(MANAGER);
        transaction.add_patch((INT, TUNNEL_PATCH), (TUN, "patch-int"));
        if self.has_external() {
            transaction.add_patch((INT, INT_PATCH), (EX, EX_PATCH));
            transaction.add_port(EX, EXTERNAL_NIC, &[]);
        }
        transaction.commit()?;
        if self.has_external() {
            command::run("ip", ["link", "set", EXTERNAL_NIC, "up"])?;
            command::run("ip", ["link", "set", EX, "up"])?;
        }
        Ok(())
    }

    /// Gives the host its address on the underlay. The kernel's datapath sends tunnels by the kernel's routes; the one in
    /// user space needs the address on a bridge of its own.
    fn connect_underlay(&mut self) -> Result<()> {
        let uplink = self.host.uplink(TUNNEL_NIC)?;
        if !self.switch.in_user_space() {
            return self.host.configure_uplink(uplink);
        }
        self.bridges.push(PHY.into());
        let mac = format!("other-config:hwaddr=\"{}\"", uplink.mac);
        let mut transaction = Transaction::default();
        transaction.add_bridge(PHY, &["datapath_type=netdev".into(), mac]);
        transaction.add_port(PHY, TUNNEL_NIC, &[]);
        transaction.commit()?;
        command::run("ip", ["link", "set", TUNNEL_NIC, "up"])?;
        self.host.configure_uplink(&inventory::Uplink { device: PHY.into(), ..uplink.clone() })
    }

    fn add_tunnels(&self) -> Result<()> {
        let mut transaction = Transaction::default();
        for remote in self.remotes() {
            let columns = [
                "type=vxlan".into(),
                format!("options:local_ip={}", self.local_ip),
                format!("options:remote_ip={remote}"),
                "options:in_key=flow".into(),
                "options:out_key=flow".into(),
                "options:df_default=true".into(),
                "options:egress_pkt_mark=0".into(),
            ];
            transaction.add_port(TUN, &tunnel_name(remote), &columns);
        }
        transaction.commit()
    }

    /// Tunnel addresses of the other compute hosts.
    fn remotes(&self) -> impl Iterator<Item = Ipv4Addr> {
        let others = self.host.lab.hosts.iter().filter(|host| host.role == Role::Compute);
        others
            .filter_map(|host| host.uplink(TUNNEL_NIC)?.address)
            .map(|address| address.address)
            .filter(|address| *address != self.local_ip)
    }

    /// Plugs a device of an instance's port into br-int: what nova-docker or libvirt writes, and then what the agent adds.
    pub(crate) fn plug_instance(&self, transaction: &mut Transaction, device: &str, (owner, port): (&Instance, &Port)) {
        let mut columns = identify(&port.id, &port.mac);
        let key = if owner.machine.is_some() { "vm-id" } else { "vm-uuid" };
        columns.push(format!("external-ids:{key}={}", owner.uuid));
        transaction.add_port(INT, device, &columns);
        self.bind(transaction, device, &port.network);
    }

    /// Plugs a device of a router or DHCP service into br-int, which makes the device.
    fn plug_internal(&self, transaction: &mut Transaction, device: &str, id: &Uuid, (mac, network): (&str, &Uuid)) {
        let mut columns = identify(id, mac);
        columns.push("type=internal".into());
        transaction.add_port(INT, device, &columns);
        self.bind(transaction, device, network);
    }

    /// What the agent writes once it knows the network of a port.
    fn bind(&self, transaction: &mut Transaction, device: &str, network: &Uuid) {
        let Some(network) = self.host.lab.network(network) else { return };
        let Some(tag) = network.tags.get(&self.host.plan.name) else { return };
        let (kind, physical, segment) = match &network.carrier {
            // The agent is written in Python and puts its `None` into words.
            Carrier::Vxlan { segmentation_id } => ("vxlan", "None", Some(segmentation_id)),
            Carrier::Flat { physical_network } => ("flat", physical_network.as_str(), None),
        };
        let mut columns = vec![
            format!("tag={tag}"),
            format!("other-config:net_uuid={}", network.id),
            format!("other-config:network_type={kind}"),
            format!("other-config:physical_network={physical}"),
            format!("other-config:tag=\"{tag}\""),
        ];
        columns.extend(segment.map(|segment| format!("other-config:segmentation_id=\"{segment}\"")));
        transaction.set("Port", device, &columns);
    }

    /// Sets up routers, DHCP services and flows around the instances that are plugged.
    pub(crate) fn wire(&self, instances: &[Instance]) -> Result<()> {
        self.add_services()?;
        self.add_flows(instances)?;
        // ovs-vswitchd writes this every five seconds; before that the agent looks dead.
        self.bridges_of_the_agent().try_for_each(|bridge| ovs::wait_until("Controller", bridge, "is_connected=true"))
    }

    fn add_services(&self) -> Result<()> {
        let (lab, here) = (self.host.lab, &self.host.plan.name);
        let served = |network: &'a Network| Some((network, network.dhcp.as_ref().filter(|dhcp| dhcp.host == *here)?));
        let dhcps: Vec<_> = lab.networks.iter().filter_map(served).collect();
        let mut transaction = Transaction::default();
        let mut moves = String::new();
        for (network, dhcp) in &dhcps {
            netns::add(&dhcp.netns)?;
            self.plug_internal(&mut transaction, &dhcp.device, &dhcp.port_id, (&dhcp.mac, &network.id));
            writeln!(moves, "link set {} netns {}", dhcp.device, dhcp.netns)?;
        }
        for router::Namespace { netns, ports } in router::add_namespaces(lab, here)? {
            for port in ports {
                self.plug_internal(&mut transaction, &port.device, &port.port_id, (&port.mac, &port.network));
                writeln!(moves, "link set {} netns {netns}", port.device)?;
            }
        }
        transaction.commit()?;
        command::feed("ip", ["-batch", "-"], &moves)?;
        for (network, dhcp) in dhcps {
            dhcp::serve(lab, network, dhcp)?;
        }
        router::configure(lab, here)
    }

    fn add_flows(&self, instances: &[Instance]) -> Result<()> {
        let here = &self.host.plan.name;
        let cookie = |bridge: &str| identity::bits(&format!("{here}/{bridge}"), 0);
        let (mut vlans, mut external) = (Vec::new(), Vec::new());
        for network in &self.host.lab.networks {
            let Some(tag) = network.tags.get(here).copied() else { continue };
            match network.carrier {
                Carrier::Vxlan { segmentation_id: vni } => vlans.push(Vlan { tag, vni }),
                Carrier::Flat { .. } => external.push(tag),
            }
        }
        let tunnels: Vec<_> = self.remotes().map(tunnel_name).collect();
        let patches: Vec<_> = external.iter().map(|tag| (*tag, INT_PATCH.to_owned())).collect();
        let distribution = Distribution::on(self.host.lab, here);
        let distribution = distribution.as_ref();
        ovs::add_flows(TUN, &flows::tunnel(cookie(TUN), &tunnels, &vlans, distribution)?)?;
        if self.has_external() {
            ovs::add_flows(EX, &flows::physical(cookie(EX), EX_PATCH, &external, distribution)?)?;
        }
        ovs::add_flows(INT, &flows::integration(cookie(INT), &patches, instances, distribution)?)
    }

    /// The host as it has become.
    pub(crate) fn describe(&self, docker: Option<String>) -> inventory::Host {
        let tunnel_device = if self.switch.in_user_space() { PHY } else { TUNNEL_NIC };
        let ovs = Ovs {
            version: self.switch.version.clone(),
            datapath_type: self.switch.datapath_type.into(),
            system_id: self.system_id.clone(),
            tunnel_device: Some(tunnel_device.into()),
            bridges: self.bridges.clone(),
        };
        inventory::Host { ovs: Some(ovs), docker, ..self.host.plan.clone() }
    }
}

/// Columns by which the agent knows a port.
fn identify(id: &Uuid, mac: &str) -> Vec<String> {
    vec![
        format!("external-ids:iface-id={id}"),
        "external-ids:iface-status=active".into(),
        format!("external-ids:attached-mac=\"{mac}\""),
    ]
}

/// `vxlan-` and the remote address in hexadecimal.
fn tunnel_name(remote: Ipv4Addr) -> String {
    format!("vxlan-{:08x}", u32::from(remote))
}

#[cfg(test)]
mod tests {
    use super::tunnel_name;

    #[test]
    fn tunnel_is_named_after_the_remote_address() {
        assert_eq!(tunnel_name([192, 168, 50, 12].into()), "vxlan-c0a8320c");
    }
}

//! What a lab holds, as JSON: what `lab status -o json` prints and what tests compare netdiag's answers with.
//!
//! A profile computes the whole inventory before anything is built, from its name and the number of instances alone, so
//! identities are the same in every run; building fills in what only the kernel and Docker can say (`Option`s below).
//! This file depends on nothing but serde, so that another crate can read the JSON with it.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, str::FromStr};

use serde::{Deserialize, Serialize};

// Another crate may include this file by its path; the folder has to be named for that.
#[path = "inventory/distributed.rs"]
pub mod distributed;
#[path = "inventory/docker.rs"]
pub mod docker;
#[path = "inventory/security.rs"]
pub mod security;

use distributed::{Distributed, FipNamespace};
use docker::{Container, DockerNetwork};
use security::{PacketFilter, PortSecurity, SecurityGroup};

/// Version of the JSON; a change that removes or renames a field counts it up.
pub const VERSION: u32 = 1;

/// A UUID in its 36-character lower-case form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Uuid(pub String);

impl Uuid {
    /// A device name as Neutron makes it: prefix and id, cut to 14 characters.
    pub fn device(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.0).chars().take(14).collect()
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An IPv4 address with the length of its subnet's prefix; prints as `10.0.0.1/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Cidr {
    /// The address, host bits included.
    pub address: Ipv4Addr,
    /// Length of the prefix in bits.
    pub prefix: u8,
}

impl Cidr {
    /// The mask of the prefix, as `255.255.255.0`.
    pub fn netmask(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0))
    }

    /// Whether the address is in the subnet.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::from(self.netmask());
        u32::from(self.address) & mask == u32::from(address) & mask
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// A whole lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// [`VERSION`] of the program that wrote it.
    pub version: u32,
    /// Name of the lab.
    pub name: String,
    /// What it imitates.
    pub profile: Profile,
    /// The process whose end is the end of the lab; `None` in a plan.
    pub supervisor: Option<Process>,
    /// The wires between the hosts, and the world beyond them.
    pub segments: Vec<Segment>,
    /// Lab hosts: compute hosts, and the one outside.
    pub hosts: Vec<Host>,
    /// Tenants' networks and the external network.
    pub networks: Vec<Network>,
    /// Routers with their floating IPs.
    pub routers: Vec<Router>,
    /// Namespaces that connect distributed routers to the external network, one per host.
    #[serde(default)]
    pub fip_namespaces: Vec<FipNamespace>,
    /// Instances, in the order of their numbers.
    pub instances: Vec<Instance>,
    /// Security groups of the instances' ports.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroup>,
    /// Networks of Docker's own.
    #[serde(default)]
    pub docker_networks: Vec<DockerNetwork>,
    /// Containers that are no instances of Nova's.
    #[serde(default)]
    pub containers: Vec<Container>,
}

impl Inventory {
    /// The host of this name.
    pub fn host(&self, name: &str) -> Option<&Host> {
        self.hosts.iter().find(|host| host.name == name)
    }

    /// The network of this id.
    pub fn network(&self, id: &Uuid) -> Option<&Network> {
        self.networks.iter().find(|network| network.id == *id)
    }

    /// The router of this id.
    pub fn router(&self, id: &Uuid) -> Option<&Router> {
        self.routers.iter().find(|router| router.id == *id)
    }

    /// The instances of one host.
    pub fn instances_on<'a>(&'a self, host: &'a str) -> impl Iterator<Item = &'a Instance> {
        self.instances.iter().filter(move |instance| instance.host == host)
    }
}

/// What a lab imitates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Neutron's Open vSwitch agent and nova-docker: taps directly on br-int.
    NeutronOvs,
    /// The same with a Linux bridge per port, where iptables filters by security groups.
    Hybrid,
    /// The Open vSwitch agent again, with distributed routers: floating IPs are on the host of their instance.
    Dvr,
    /// The Open vSwitch agent again, with virtual machines of libvirt's in place of containers.
    Vm,
    /// Docker's default networking, and a second NIC plugged by hand.
    Docker,
}

impl Profile {
    /// Every profile with its name on the command line.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("neutron-ovs", Self::NeutronOvs),
        ("hybrid", Self::Hybrid),
        ("dvr", Self::Dvr),
        ("vm", Self::Vm),
        ("docker", Self::Docker),
    ];
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::NAMES.iter().find(|(_, profile)| profile == self).map_or("", |(name, _)| name);
        f.write_str(name)
    }
}

/// The text names no profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidProfile;

impl fmt::Display for InvalidProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Profile::NAMES.iter().map(|(name, _)| *name).collect();
        write!(f, "profiles are: {}", names.join(", "))
    }
}

impl std::error::Error for InvalidProfile {}

impl FromStr for Profile {
    type Err = InvalidProfile;

    fn from_str(text: &str) -> Result<Self, InvalidProfile> {
        Self::NAMES.iter().find(|(name, _)| *name == text).map(|(_, profile)| *profile).ok_or(InvalidProfile)
    }
}

/// A process of the real host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its pid there.
    pub pid: u32,
    /// When it started, in clock ticks since boot: tells it from a later process with the same pid.
    pub start_time: u64,
}

/// An Ethernet segment outside the lab hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Name, as `underlay`, `external`, `internet`.
    pub name: String,
    /// Address of the gateway that routes between the segments; `None` where nothing leaves the segment.
    pub gateway: Option<Cidr>,
}

/// What a lab host is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs instances.
    Compute,
    /// A machine of nobody's, to talk to and from: in the internet, or in the external network.
    Outside,
}

/// A lab host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Host name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Its NICs.
    pub uplinks: Vec<Uplink>,
    /// Process 1 of the lab host, as the real host counts pids.
    pub pid: Option<u32>,
    /// Open vSwitch, where the host has it.
    pub ovs: Option<Ovs>,
    /// Version of the Docker daemon; `None` where instances are plain namespaces.
    pub docker: Option<String>,
    /// How the host filters what its bridges forward, where that is what the profile is about.
    #[serde(default)]
    pub packet_filter: Option<PacketFilter>,
}

impl Host {
    /// The NIC of this name.
    pub fn uplink(&self, device: &str) -> Option<&Uplink> {
        self.uplinks.iter().find(|uplink| uplink.device == device)
    }
}

/// A NIC of a lab host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uplink {
    /// Device name, as `eth0`.
    pub device: String,
    /// The segment it is plugged into.
    pub segment: String,
    /// MAC address.
    pub mac: String,
    /// Address the host has on that segment; `None` for a NIC that only carries instances' packets.
    pub address: Option<Cidr>,
}

/// Open vSwitch of a lab host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ovs {
    /// Version of ovs-vswitchd.
    pub version: String,
    /// `system` or `netdev`.
    pub datapath_type: String,
    /// Its `external_ids:system-id`.
    pub system_id: Uuid,
    /// Device that holds the tunnel's local address.
    pub tunnel_device: Option<String>,
    /// Bridges in the order they were made.
    pub bridges: Vec<String>,
}

/// How a network is carried between hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "network_type", rename_all = "lowercase")]
pub enum Carrier {
    /// In VXLAN.
    Vxlan {
        /// The VNI.
        segmentation_id: u32,
    },
    /// Untagged on a physical network.
    Flat {
        /// Neutron's name of the physical network.
        physical_network: String,
    },
}

/// A network with its one subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Neutron's network id.
    pub id: Uuid,
    /// Human name.
    pub name: String,
    /// The project that owns it.
    pub project: Uuid,
    /// How it is carried.
    #[serde(flatten)]
    pub carrier: Carrier,
    /// MTU of its ports.
    pub mtu: u32,
    /// Subnet id.
    pub subnet: Uuid,
    /// Address of the subnet.
    pub cidr: Cidr,
    /// Default gateway of the subnet.
    pub gateway: Ipv4Addr,
    /// Local VLAN on br-int of each host that has the network: host name to tag.
    pub tags: BTreeMap<String, u16>,
    /// Its DHCP service.
    pub dhcp: Option<Dhcp>,
}

/// DHCP service of a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dhcp {
    /// Host that serves it.
    pub host: String,
    /// Namespace, `qdhcp-<network id>`.
    pub netns: String,
    /// Neutron's port id.
    pub port_id: Uuid,
    /// Device in the namespace.
    pub device: String,
    /// MAC address.
    pub mac: String,
    /// Address it serves on.
    pub address: Ipv4Addr,
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Neutron's router id.
    pub id: Uuid,
    /// Human name.
    pub name: String,
    /// The project that owns it.
    pub project: Uuid,
    /// Host it is scheduled to; of a distributed one, the host where instances without a floating IP leave.
    pub host: String,
    /// Namespace, `qrouter-<router id>`.
    pub netns: String,
    /// Its `qg-` side; of a distributed one, in its `snat-` namespace.
    pub gateway: RouterPort,
    /// Its `qr-` sides.
    pub interfaces: Vec<RouterPort>,
    /// Floating IPs it serves.
    pub floating_ips: Vec<FloatingIp>,
    /// What more a distributed router has; `None` for one that is on one host.
    #[serde(default)]
    pub distributed: Option<Distributed>,
}

/// A side of a router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouterPort {
    /// Neutron's port id.
    pub port_id: Uuid,
    /// Network it is on.
    pub network: Uuid,
    /// Device in the namespace.
    pub device: String,
    /// MAC address.
    pub mac: String,
    /// Its address there.
    pub address: Cidr,
}

/// A floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Neutron's id of the floating IP.
    pub id: Uuid,
    /// The public address.
    pub address: Ipv4Addr,
    /// The address it stands for.
    pub fixed: Ipv4Addr,
    /// The instance's port.
    pub port_id: Uuid,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Nova's instance id.
    pub uuid: Uuid,
    /// Nova's name, and the host name inside: `instance-00000001`.
    pub name: String,
    /// What its owner calls it.
    pub display_name: String,
    /// The project that owns it.
    pub project: Uuid,
    /// Host it runs on.
    pub host: String,
    /// Name of the container, `nova-<uuid>`; `None` where instances are plain namespaces or virtual machines.
    pub container_name: Option<String>,
    /// Full id of the container; of a plain namespace the id made up for its `/run/netns` name.
    pub container_id: Option<String>,
    /// Process 1 of the instance, or its hypervisor, as the lab host counts pids.
    pub pid: Option<u32>,
    /// What more a virtual machine has; `None` for a container.
    #[serde(default)]
    pub machine: Option<Machine>,
    /// Its ports in the order they were plugged; the last one holds the default route.
    pub ports: Vec<Port>,
}

impl Instance {
    /// The port with the default route.
    pub fn default_port(&self) -> Option<&Port> {
        self.ports.last()
    }
}

/// A virtual machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Process 1 of the guest, as the real host counts pids: the lab host has neither its processes nor its namespaces.
    pub guest_pid: Option<u32>,
}

/// A port of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Neutron's port id.
    pub id: Uuid,
    /// Network it is on.
    pub network: Uuid,
    /// MAC address.
    pub mac: String,
    /// Fixed IP.
    pub address: Cidr,
    /// Default gateway of its subnet.
    pub gateway: Ipv4Addr,
    /// MTU.
    pub mtu: u32,
    /// Device inside the instance.
    pub device: String,
    /// Devices on the host from the instance outwards, up to the port of `bridge`.
    pub host_devices: Vec<String>,
    /// Linux bridge between the first two of them, where instances are plugged through one.
    #[serde(default)]
    pub linux_bridge: Option<String>,
    /// Bridge it ends on.
    pub bridge: String,
    /// Local VLAN on that bridge.
    pub vlan_tag: Option<u16>,
    /// VNI of its network.
    pub segmentation_id: Option<u32>,
    /// Router that holds its default gateway.
    pub router: Option<Uuid>,
    /// Floating IP that stands for it.
    pub floating_ip: Option<Ipv4Addr>,
    /// What its packets are filtered by; `None` where the host filters nothing.
    #[serde(default)]
    pub security: Option<PortSecurity>,
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::{Cidr, Profile, Uuid};

    #[test]
    fn device_name_is_the_id_cut_to_fourteen_characters() {
        let port = Uuid("1a2b3c4d-5e6f-4a1b-8c2d-000000000001".into());
        assert_eq!(port.device("tap"), "tap1a2b3c4d-5e");
        assert_eq!(port.device("ns"), "ns1a2b3c4d-5e6");
    }

    #[test]
    fn netmask_covers_the_prefix() {
        let mask = |prefix| Cidr { address: Ipv4Addr::LOCALHOST, prefix }.netmask();
        assert_eq!(mask(24), Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(mask(32), Ipv4Addr::BROADCAST);
        assert_eq!(mask(0), Ipv4Addr::UNSPECIFIED);
        let subnet = Cidr { address: Ipv4Addr::new(10, 0, 0, 7), prefix: 24 };
        assert!(subnet.contains(Ipv4Addr::new(10, 0, 0, 200)) && !subnet.contains(Ipv4Addr::new(10, 0, 1, 7)));
    }

    #[test]
    fn profile_parses_as_it_prints() {
        for (name, profile) in Profile::NAMES {
            assert_eq!(name.parse(), Ok(profile));
            assert_eq!(profile.to_string(), name);
        }
        assert!("ovn".parse::<Profile>().is_err());
    }
}

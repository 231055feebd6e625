//! The example deployment, computed from the number of instances alone.
//!
//! Project `demo` has the networks `private` (10.0.0.0/24, local VLAN 1 on compute-1) and `backend` (10.0.1.0/24) behind
//! one router, on two compute hosts; project `other` has a network with the same 10.0.0.0/24 behind a router of its own.
//! The first instance is the classic single-machine one: 10.0.0.2, reached as 172.24.4.6 through 172.24.4.2. More
//! instances are spread over these networks, and over more networks of `demo` once they are full.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::lab::{
    identity::{mac, uuid},
    inventory::{
        Carrier, Cidr, Dhcp, FloatingIp, Host, Instance, Inventory, Network, Port, Role, Router, RouterPort, Segment,
        Uplink, Uuid, VERSION,
    },
    spec::Spec,
};

/// Host with the routers and DHCP services.
pub(super) const FIRST: &str = "compute-1";
pub(super) const SECOND: &str = "compute-2";

/// MTU of the wires.
const PHYSICAL_MTU: u32 = 1500;
/// What VXLAN over IPv4 leaves of it.
const VXLAN_MTU: u32 = PHYSICAL_MTU - 50;

const EXTERNAL: &str = "public";
/// Local VLAN of the external network on [`FIRST`], the only host that has it.
const EXTERNAL_TAG: u16 = 2;

/// Last octet of a machine in the external network itself: no gateway is between it and the floating IPs.
const NEIGHBOUR: u8 = 250;

/// How many further instances share a network: the three of the example are filled in turn, then others one by one.
///
/// The datapath in user space compares every address of the host with every port a broadcast goes to (`xport_has_ip` of
/// Open vSwitch), so one network with hundreds of ports on one host takes a second for an ARP request.
const INSTANCES_A_NETWORK: usize = 40;

/// How a profile plugs a port: the devices on the host, from the instance outwards.
pub(crate) struct Cabling {
    /// Names of these devices for a port id; the last is a port of br-int.
    pub(crate) host_devices: fn(&Uuid) -> Vec<String>,
}

/// An instance before it has identities.
struct Wish {
    name: String,
    host: &'static str,
    /// Places in the list of networks.
    networks: Vec<usize>,
    /// Last octet of its floating IP, which stands for the first port.
    floating: Option<u8>,
}

/// The instances every lab has.
fn example() -> Vec<Wish> {
    let wish = |name: &str, host, networks: &[usize], floating| Wish {
        name: name.into(),
        host,
        networks: networks.into(),
        floating,
    };
    vec![
        wish("web-1", FIRST, &[0], Some(6)),
        wish("web-2", FIRST, &[0], None),
        wish("db-1", FIRST, &[1], Some(7)),
        wish("db-2", FIRST, &[1, 0], None),
        wish("other-1", FIRST, &[2], Some(8)),
        wish("other-2", FIRST, &[2], None),
        wish("web-3", SECOND, &[0], Some(9)),
        wish("web-4", SECOND, &[0], None),
    ]
}

/// The example with as many further instances as are asked for, and the number of networks they need.
///
/// An instance is the same whatever is asked for beyond it.
fn wishes(asked: u32) -> (Vec<Wish>, usize) {
    let mut wishes = example();
    let more = usize::try_from(asked).unwrap_or(usize::MAX).saturating_sub(wishes.len());
    for place in 0..more {
        let network = if place < 3 * INSTANCES_A_NETWORK { place % 3 } else { place / INSTANCES_A_NETWORK };
        // Project `other` lives on the first host alone.
        let host = if place % 4 == 3 && network != 2 { SECOND } else { FIRST };
        let floating = u8::try_from(place / 5 + 20).ok().filter(|octet| place % 5 == 0 && *octet < 250);
        wishes.push(Wish { name: format!("scale-{}", place + 1), host, networks: vec![network], floating });
    }
    (wishes, more.div_ceil(INSTANCES_A_NETWORK).max(3))
}

/// Plans the deployment for a profile with this cabling.
pub(crate) fn plan(spec: &Spec, cabling: &Cabling) -> Inventory {
    let (wishes, count) = wishes(spec.instances);
    let mut networks: Vec<_> = (0..count).map(network).collect();
    let mut instances = Vec::new();
    let mut used = vec![1_u8; count];
    for (number, wish) in (1..).zip(&wishes) {
        let mut made = instance(number, wish);
        for (position, place) in wish.networks.iter().enumerate() {
            used[*place] += 1;
            let tag = local_vlan(wish.host, *place);
            networks[*place].tags.insert(wish.host.into(), tag);
            let index = 100_000 + number * 4 + u32::try_from(position).unwrap_or(0);
            let mut port = port(&made, position, &networks[*place], mac(index));
            port.address.address = at(networks[*place].cidr, used[*place]);
            port.host_devices = (cabling.host_devices)(&port.id);
            port.vlan_tag = Some(tag);
            if position == 0 {
                port.floating_ip = wish.floating.map(external_address);
            }
            made.ports.push(port);
        }
        instances.push(made);
    }
    let routers = ["demo", "other"].map(|project| router(project, &networks, &instances)).into();
    networks.push(external_network());
    Inventory {
        version: VERSION,
        name: spec.name.clone(),
        profile: spec.profile,
        supervisor: None,
        segments: segments(),
        hosts: hosts(),
        networks,
        routers,
        fip_namespaces: Vec::new(),
        instances,
        security_groups: Vec::new(),
        docker_networks: Vec::new(),
        containers: Vec::new(),
    }
}

fn segments() -> Vec<Segment> {
    let segment = |name: &str, gateway| Segment { name: name.into(), gateway };
    vec![
        segment("underlay", None),
        segment("external", Some(Cidr { address: external_address(1), prefix: 24 })),
        segment("internet", Some(Cidr { address: Ipv4Addr::new(203, 0, 113, 1), prefix: 24 })),
    ]
}

fn hosts() -> Vec<Host> {
    let mut index = 0;
    let mut uplink = |device: &str, segment: &str, address: Option<Ipv4Addr>| {
        index += 1;
        let address = address.map(|address| Cidr { address, prefix: 24 });
        Uplink { device: device.into(), segment: segment.into(), mac: mac(index), address }
    };
    let first =
        vec![uplink("eth0", "underlay", Some(Ipv4Addr::new(192, 168, 50, 11))), uplink("eth1", "external", None)];
    let second = vec![uplink("eth0", "underlay", Some(Ipv4Addr::new(192, 168, 50, 12)))];
    let third = vec![uplink("eth0", "internet", Some(Ipv4Addr::new(203, 0, 113, 10)))];
    let fourth = vec![uplink("eth0", "external", Some(external_address(NEIGHBOUR)))];
    let host = |name: &str, role, uplinks| Host {
        name: name.into(),
        role,
        uplinks,
        pid: None,
        ovs: None,
        docker: None,
        packet_filter: None,
    };
    vec![
        host(FIRST, Role::Compute, first),
        host(SECOND, Role::Compute, second),
        host("outside", Role::Outside, third),
        host("neighbour", Role::Outside, fourth),
    ]
}

/// Name and project of the network at a place.
fn label(place: usize) -> (String, &'static str) {
    match place {
        0 => ("private".into(), "demo"),
        1 => ("backend".into(), "demo"),
        2 => ("private".into(), "other"),
        _ => (format!("scale-{}", place - 2), "demo"),
    }
}

fn network(place: usize) -> Network {
    let (name, project) = label(place);
    let index = u16::try_from(place).unwrap_or(u16::MAX);
    let [high, low] = index.to_be_bytes();
    let (subnet, vni) = match place {
        0 | 1 => (Ipv4Addr::new(10, 0, low, 0), 1001 + u32::from(low)),
        2 => (Ipv4Addr::new(10, 0, 0, 0), 2001),
        _ => (Ipv4Addr::new(10, 16 + high, low, 0), 3000 + u32::from(index)),
    };
    let key = format!("{project}/{name}");
    let id = uuid("network", &key);
    let port_id = uuid("dhcp-port", &key);
    let cidr = Cidr { address: subnet, prefix: 24 };
    let dhcp = Dhcp {
        host: FIRST.into(),
        netns: format!("qdhcp-{id}"),
        device: port_id.device("tap"),
        port_id,
        mac: mac(1000 + u32::from(index)),
        address: at(cidr, 254),
    };
    Network {
        id,
        name,
        project: uuid("project", project),
        carrier: Carrier::Vxlan { segmentation_id: vni },
        mtu: VXLAN_MTU,
        subnet: uuid("subnet", &key),
        cidr,
        gateway: at(cidr, 1),
        tags: BTreeMap::from([(FIRST.into(), local_vlan(FIRST, place))]),
        dhcp: Some(dhcp),
    }
}

fn external_network() -> Network {
    let cidr = Cidr { address: external_address(0), prefix: 24 };
    Network {
        id: uuid("network", EXTERNAL),
        name: EXTERNAL.into(),
        project: uuid("project", "admin"),
        carrier: Carrier::Flat { physical_network: EXTERNAL.into() },
        mtu: PHYSICAL_MTU,
        subnet: uuid("subnet", EXTERNAL),
        cidr,
        gateway: at(cidr, 1),
        tags: BTreeMap::from([(FIRST.into(), EXTERNAL_TAG)]),
        dhcp: None,
    }
}

/// The local VLAN an agent would have given the network at a place: each host counts on its own, in the order it met the
/// networks, and [`EXTERNAL_TAG`] is taken on the first.
pub(super) fn local_vlan(host: &str, place: usize) -> u16 {
    let order = u16::try_from(place).unwrap_or(u16::MAX);
    match (host, place) {
        (FIRST, 0) => 1,
        (FIRST, _) => order + 2,
        (_, 0) => 2,
        (_, 1) => 1,
        _ => order + 1,
    }
}

/// The address in a /24 that ends in `octet`.
pub(super) fn at(subnet: Cidr, octet: u8) -> Ipv4Addr {
    let [a, b, c, _] = subnet.address.octets();
    Ipv4Addr::new(a, b, c, octet)
}

pub(super) fn external_address(octet: u8) -> Ipv4Addr {
    Ipv4Addr::new(172, 24, 4, octet)
}

fn instance(number: u32, wish: &Wish) -> Instance {
    let project = wish.networks.first().map_or("demo", |place| label(*place).1);
    Instance {
        uuid: uuid("instance", &wish.name),
        name: format!("instance-{number:08x}"),
        display_name: wish.name.clone(),
        project: uuid("project", project),
        host: wish.host.into(),
        container_name: None,
        container_id: None,
        pid: None,
        machine: None,
        ports: Vec::new(),
    }
}

fn port(instance: &Instance, position: usize, network: &Network, mac: String) -> Port {
    let id = uuid("port", &format!("{}/{position}", instance.display_name));
    let segmentation_id = match network.carrier {
        Carrier::Vxlan { segmentation_id } => Some(segmentation_id),
        Carrier::Flat { .. } => None,
    };
    Port {
        network: network.id.clone(),
        mac,
        address: network.cidr,
        gateway: network.gateway,
        mtu: network.mtu,
        device: id.device("ns"),
        host_devices: Vec::new(),
        linux_bridge: None,
        bridge: "br-int".into(),
        vlan_tag: None,
        segmentation_id,
        router: Some(router_id(&instance.project)),
        floating_ip: None,
        security: None,
        id,
    }
}

fn router_id(project: &Uuid) -> Uuid {
    uuid("router", &project.0)
}

fn router(project: &str, networks: &[Network], instances: &[Instance]) -> Router {
    let owner = uuid("project", project);
    let id = router_id(&owner);
    let number = u8::from(project != "demo");
    let gateway_id = uuid("gateway-port", project);
    let external = Cidr { address: external_address(2 + number), prefix: 24 };
    let gateway = RouterPort {
        network: uuid("network", EXTERNAL),
        device: gateway_id.device("qg-"),
        port_id: gateway_id,
        mac: mac(500 + u32::from(number)),
        address: external,
    };
    let interfaces = (10_000..).zip(networks.iter().filter(|network| network.project == owner));
    let floating = instances.iter().filter(|instance| instance.project == owner).flat_map(|instance| &instance.ports);
    Router {
        netns: format!("qrouter-{id}"),
        id,
        name: format!("{project}-router"),
        project: owner.clone(),
        host: FIRST.into(),
        gateway,
        interfaces: interfaces.map(|(index, network)| interface(network, index + u32::from(number) * 10_000)).collect(),
        floating_ips: floating.filter_map(floating_ip).collect(),
        distributed: None,
    }
}

fn interface(network: &Network, index: u32) -> RouterPort {
    let id = uuid("router-port", &network.id.0);
    RouterPort {
        network: network.id.clone(),
        device: id.device("qr-"),
        port_id: id,
        mac: mac(index),
        address: Cidr { address: network.gateway, prefix: network.cidr.prefix },
    }
}

fn floating_ip(port: &Port) -> Option<FloatingIp> {
    let address = port.floating_ip?;
    let id = uuid("floating-ip", &port.id.0);
    Some(FloatingIp { id, address, fixed: port.address.address, port_id: port.id.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{Cabling, Inventory, Spec, plan};
    use crate::lab::inventory::Profile;

    fn planned(instances: u32) -> Inventory {
        let spec = Spec { name: "lab".into(), profile: Profile::NeutronOvs, instances, no_docker: false };
        plan(&spec, &Cabling { host_devices: |id| vec![id.device("tap")] })
    }

    #[test]
    fn first_instance_is_the_classic_example() {
        let lab = planned(0);
        let port = &lab.instances[0].ports[0];
        assert_eq!(port.address.to_string(), "10.0.0.2/24");
        assert_eq!(port.vlan_tag, Some(1));
        assert_eq!(port.floating_ip.unwrap().to_string(), "172.24.4.6");
        let router = lab.router(port.router.as_ref().unwrap()).unwrap();
        assert_eq!(router.gateway.address.to_string(), "172.24.4.2/24");
        assert_eq!(router.interfaces[0].address.to_string(), "10.0.0.1/24");
        assert_eq!(lab.instances[0].name, "instance-00000001");
    }

    #[test]
    fn one_network_has_different_tags_on_different_hosts() {
        let lab = planned(0);
        assert_eq!(lab.networks[0].tags["compute-1"], 1);
        assert_eq!(lab.networks[0].tags["compute-2"], 2);
    }

    #[test]
    fn identities_do_not_depend_on_the_number_of_instances() {
        let large = planned(900);
        for count in [0, 100, 500] {
            let small = planned(count);
            assert_eq!(small.instances[..], large.instances[..small.instances.len()]);
        }
    }

    #[test]
    fn no_identity_is_given_twice_in_a_large_lab() {
        let lab = planned(1500);
        assert_eq!(lab.instances.len(), 1500);
        let ports: Vec<_> = lab.instances.iter().flat_map(|instance| &instance.ports).collect();
        let distinct = |texts: Vec<String>| texts.iter().collect::<BTreeSet<_>>().len() == texts.len();
        assert!(distinct(ports.iter().map(|port| port.host_devices[0].clone()).collect()));
        assert!(distinct(ports.iter().map(|port| port.mac.clone()).collect()));
        assert!(distinct(ports.iter().map(|port| format!("{}{}", port.network, port.address)).collect()));
        assert!(distinct(ports.iter().filter_map(|port| port.floating_ip).map(|ip| ip.to_string()).collect()));
        for host in ["compute-1", "compute-2"] {
            assert!(distinct(lab.networks.iter().filter_map(|net| net.tags.get(host)).map(u16::to_string).collect()));
        }
        assert!(distinct(lab.networks.iter().map(|network| network.id.to_string()).collect()));
    }
}

//! The example of the Docker host, computed from the number of containers alone.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{DEFAULT, pipework};
use crate::lab::{
    identity,
    inventory::{
        Cidr, Host, Inventory, Role, Segment, Uplink, VERSION,
        docker::{Container, DockerNetwork, NetworkMode, Nic, PublishedPort, Transport},
    },
    spec::Spec,
};

/// How many containers every lab has.
pub(super) const EXAMPLE: usize = 9;

const HOST: &str = "docker-1";
const HOST_ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const SHOP: &str = "shop";

/// Plans the lab.
pub(super) fn plan(spec: &Spec) -> Inventory {
    let mut containers = example();
    let more = usize::try_from(spec.instances).unwrap_or(usize::MAX).saturating_sub(containers.len());
    containers.extend((1..=more).map(scaled));
    Inventory {
        version: VERSION,
        name: spec.name.clone(),
        profile: spec.profile,
        supervisor: None,
        segments: segments(),
        hosts: hosts(),
        networks: Vec::new(),
        routers: Vec::new(),
        fip_namespaces: Vec::new(),
        instances: Vec::new(),
        security_groups: Vec::new(),
        docker_networks: vec![network(DEFAULT, [172, 17, 0, 0]), network(SHOP, [172, 20, 0, 0])],
        containers,
    }
}

fn segments() -> Vec<Segment> {
    let gateway = |name: &str, address: [u8; 4]| Segment {
        name: name.into(),
        gateway: Some(Cidr { address: address.into(), prefix: 24 }),
    };
    vec![gateway("lan", [192, 0, 2, 1]), gateway("external", [172, 24, 4, 1]), gateway("internet", [203, 0, 113, 1])]
}

/// The Docker host has a second NIC, without an address, in a network that containers could have floating IPs in.
fn hosts() -> Vec<Host> {
    let uplink = |device: &str, segment: &str, index: u32, address: Option<Ipv4Addr>| {
        let address = address.map(|address| Cidr { address, prefix: 24 });
        Uplink { device: device.into(), segment: segment.into(), mac: identity::mac(index), address }
    };
    let host = |name: &str, role, uplinks| Host {
        name: name.into(),
        role,
        uplinks,
        pid: None,
        ovs: None,
        docker: None,
        packet_filter: None,
    };
    let own = vec![uplink("eth0", "lan", 1, Some(HOST_ADDRESS)), uplink("eth1", "external", 3, None)];
    let outside = vec![uplink("eth0", "internet", 2, Some(Ipv4Addr::new(203, 0, 113, 10)))];
    let neighbour = vec![uplink("eth0", "external", 4, Some(Ipv4Addr::new(172, 24, 4, 250)))];
    vec![
        host(HOST, Role::Compute, own),
        host("outside", Role::Outside, outside),
        host("neighbour", Role::Outside, neighbour),
    ]
}

/// A network with Docker's default prefix, whose bridge has the first address.
fn network(name: &str, subnet: [u8; 4]) -> DockerNetwork {
    let [a, b, c, _] = subnet;
    DockerNetwork {
        name: name.into(),
        host: HOST.into(),
        id: None,
        bridge: None,
        subnet: Cidr { address: subnet.into(), prefix: 16 },
        gateway: Ipv4Addr::new(a, b, c, 1),
    }
}

/// The containers every lab has.
fn example() -> Vec<Container> {
    let on = |network: &str| NetworkMode::Network(network.into());
    let mut web = publish(container("web-1", on(DEFAULT)), Transport::Tcp, (8080, 80));
    web.nics.push(by_hand("eth1", 11));
    let mut shop = publish(container("shop-1", on(SHOP)), Transport::Tcp, (8443, 80));
    shop.published[0].host_address = Some(HOST_ADDRESS);
    let mut db = container("db-1", on(SHOP));
    db.nics.push(by_hand("eth1", 21));
    let mut dns = publish(container("dns-1", on(SHOP)), Transport::Udp, (53, 53));
    dns.dns_zone = Some("lab.example".into());
    let mut api = container("api-1", on(DEFAULT));
    api.nics.push(nic("eth1", Some(SHOP)));
    let sidecar = Container { web_port: 8081, ..container("sidecar-1", NetworkMode::Container("db-1".into())) };
    let agent = Container { web_port: 9100, ..container("agent-1", NetworkMode::Host) };
    let (web, db) = (labelled(web, "web"), labelled(db, "database"));
    vec![
        web,
        container("web-2", on(DEFAULT)),
        shop,
        db,
        dns,
        api,
        container("batch-1", NetworkMode::None),
        sidecar,
        agent,
    ]
}

/// One of the containers that are there for their number.
fn scaled(number: usize) -> Container {
    let network = if number.is_multiple_of(2) { DEFAULT } else { SHOP };
    let made = container(&format!("scale-{number}"), NetworkMode::Network(network.into()));
    match u16::try_from(number) {
        Ok(place) if place.is_multiple_of(5) => publish(made, Transport::Tcp, (20_000 + place, 80)),
        _ => made,
    }
}

fn container(name: &str, mode: NetworkMode) -> Container {
    let nics = match &mode {
        NetworkMode::Network(network) => vec![nic("eth0", Some(network))],
        NetworkMode::None | NetworkMode::Host | NetworkMode::Container(_) => Vec::new(),
    };
    Container {
        name: name.into(),
        host: HOST.into(),
        mode,
        hostname: None,
        labels: BTreeMap::new(),
        nics,
        published: Vec::new(),
        web_port: 80,
        dns_zone: None,
        id: None,
        pid: None,
    }
}

fn nic(device: &str, network: Option<&str>) -> Nic {
    Nic {
        device: device.into(),
        network: network.map(Into::into),
        bridge: None,
        host_device: None,
        mac: None,
        address: None,
    }
}

/// A card that Docker does not know, with an address on the bridge it is plugged into.
fn by_hand(device: &str, octet: u8) -> Nic {
    let [a, b, c, _] = pipework::BRIDGE_ADDRESS.address.octets();
    let address = Cidr { address: Ipv4Addr::new(a, b, c, octet), ..pipework::BRIDGE_ADDRESS };
    Nic { bridge: Some(pipework::BRIDGE.into()), address: Some(address), ..nic(device, None) }
}

fn publish(mut container: Container, protocol: Transport, (host_port, container_port): (u16, u16)) -> Container {
    container.published.push(PublishedPort { protocol, host_address: None, host_port, container_port });
    container
}

fn labelled(mut container: Container, role: &str) -> Container {
    let labels = [("com.example.role", role), ("com.example.owner", "Shop & Söhne <ops@example.com>")];
    container.labels.extend(labels.map(|(key, value)| (key.to_owned(), value.to_owned())));
    container
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{EXAMPLE, Spec, plan};
    use crate::lab::inventory::{Profile, docker::NetworkMode};

    fn planned(instances: u32) -> Vec<crate::lab::inventory::docker::Container> {
        plan(&Spec { name: "lab".into(), profile: Profile::Docker, instances, no_docker: false }).containers
    }

    #[test]
    fn example_is_there_whatever_is_asked_for() {
        let small = planned(0);
        assert_eq!(small.len(), EXAMPLE);
        assert_eq!(small[..], planned(60)[..EXAMPLE]);
    }

    #[test]
    fn container_whose_namespace_another_joins_comes_first() {
        let all = planned(0);
        for (place, container) in all.iter().enumerate() {
            if let NetworkMode::Container(joined) = &container.mode {
                assert!(all[..place].iter().any(|earlier| earlier.name == *joined), "{}", container.name);
            }
        }
    }

    #[test]
    fn no_name_and_no_port_is_given_twice_in_a_large_lab() {
        let all = planned(2000);
        assert_eq!(all.len(), 2000);
        let names: BTreeSet<_> = all.iter().map(|container| &container.name).collect();
        assert_eq!(names.len(), all.len());
        let ports: Vec<_> = all.iter().flat_map(|container| &container.published).map(|port| port.host_port).collect();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    }
}

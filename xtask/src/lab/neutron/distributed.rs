//! Makes the routers of a planned deployment distributed ones (DVR): each is on every host with instances behind it, and
//! a floating IP is on the host of its instance. The first host is the one in agent mode `dvr_snat`, the others are in `dvr`.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::plan::{self, FIRST, SECOND};
use crate::lab::{
    identity::{mac, uuid},
    inventory::{
        Carrier, Cidr, Inventory, Router, RouterPort, Uplink,
        distributed::{CentralSnat, Distributed, FipNamespace, LinkEnd, LocalRouter},
    },
};

/// Local VLAN of the external network on the second host, where the network that has this place elsewhere is not.
const SECOND_EXTERNAL_TAG: u16 = 3;
/// Last octet of the first host's address in the external network; DVR takes one for each host.
const FIRST_FIP_GATEWAY: u8 = 4;
/// Last octet of a router's address for source NAT in each of its networks.
const SNAT_OCTET: u8 = 253;
/// Where the pairs between routers and `fip-` namespaces have their addresses from (`DVR_FIP_LL_CIDR`, a /18).
const LINK_LOCAL: u32 = u32::from_be_bytes([169, 254, 64, 0]);
/// MAC address of the second host's NIC in the external network; planned hosts count theirs from 1.
const SECOND_NIC_MAC: u32 = 6;

/// Distributes every router of a deployment.
pub(crate) fn assign(lab: &mut Inventory) {
    connect_second_host(lab);
    let mut routers = std::mem::take(&mut lab.routers);
    for (number, router) in (0..).zip(&mut routers) {
        let hosts = hosts_of(lab, router);
        for host in &hosts {
            tag_networks(lab, router, host);
        }
        let locals = hosts.iter().map(|host| local(router, host, number)).collect();
        let snat = CentralSnat { netns: format!("snat-{}", router.id), ports: snat_ports(lab, router, number) };
        router.distributed = Some(Distributed { locals, snat });
    }
    lab.routers = routers;
    lab.fip_namespaces = [FIRST, SECOND].into_iter().zip(0..).filter_map(|host| fip_namespace(lab, host)).collect();
}

/// Every host of a distributed router needs the external network.
fn connect_second_host(lab: &mut Inventory) {
    if let Some(host) = lab.hosts.iter_mut().find(|host| host.name == SECOND) {
        let (device, segment) = ("eth1".into(), "external".into());
        host.uplinks.push(Uplink { device, segment, mac: mac(SECOND_NIC_MAC), address: None });
    }
    for network in lab.networks.iter_mut().filter(|network| matches!(network.carrier, Carrier::Flat { .. })) {
        network.tags.insert(SECOND.into(), SECOND_EXTERNAL_TAG);
    }
}

/// Hosts with instances behind a router, and its own.
fn hosts_of(lab: &Inventory, router: &Router) -> BTreeSet<String> {
    let behind = |port: &crate::lab::inventory::Port| port.router.as_ref() == Some(&router.id);
    let instances = lab.instances.iter().filter(|instance| instance.ports.iter().any(behind));
    instances.map(|instance| instance.host.clone()).chain([router.host.clone()]).collect()
}

/// A router's networks are wherever the router is, whether or not an instance is on them there.
fn tag_networks(lab: &mut Inventory, router: &Router, host: &str) {
    for (place, network) in lab.networks.iter_mut().enumerate() {
        if router.interfaces.iter().any(|port| port.network == network.id) {
            network.tags.entry(host.into()).or_insert_with(|| plan::local_vlan(host, place));
        }
    }
}

fn local(router: &Router, host: &str, number: u32) -> LocalRouter {
    let second = u32::from(host != FIRST);
    let end = |prefix: &str, place: u32| LinkEnd {
        device: router.id.device(prefix),
        mac: mac(600 + number * 4 + second * 2 + place),
        address: Cidr { address: Ipv4Addr::from(LINK_LOCAL + 2 * number + place), prefix: 31 },
    };
    LocalRouter { host: host.into(), router_end: end("rfp-", 0), fip_end: end("fpr-", 1) }
}

fn snat_ports(lab: &Inventory, router: &Router, number: u32) -> Vec<RouterPort> {
    let first = 30_000 + number * 10_000;
    let networks = router.interfaces.iter().filter_map(|port| lab.network(&port.network));
    (first..)
        .zip(networks)
        .map(|(index, network)| {
            let port_id = uuid("snat-port", &network.id.0);
            RouterPort {
                network: network.id.clone(),
                device: port_id.device("sg-"),
                port_id,
                mac: mac(index),
                address: Cidr { address: plan::at(network.cidr, SNAT_OCTET), prefix: network.cidr.prefix },
            }
        })
        .collect()
}

fn fip_namespace(lab: &Inventory, (host, number): (&str, u8)) -> Option<FipNamespace> {
    let network = lab.networks.iter().find(|network| matches!(network.carrier, Carrier::Flat { .. }))?;
    let port_id = uuid("fip-gateway-port", host);
    let gateway = RouterPort {
        network: network.id.clone(),
        device: port_id.device("fg-"),
        port_id,
        mac: mac(510 + u32::from(number)),
        address: Cidr { address: plan::external_address(FIRST_FIP_GATEWAY + number), prefix: network.cidr.prefix },
    };
    Some(FipNamespace { host: host.into(), network: network.id.clone(), netns: format!("fip-{}", network.id), gateway })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Inventory;
    use crate::lab::{inventory::Profile, profile, spec::Spec};

    fn planned(instances: u32) -> Inventory {
        profile::plan(&Spec { name: "lab".into(), profile: Profile::Dvr, instances, no_docker: false })
    }

    #[test]
    fn a_router_is_where_its_instances_are() {
        let lab = planned(0);
        let hosts = |place: usize| {
            let locals = &lab.routers[place].distributed.as_ref().unwrap().locals;
            locals.iter().map(|local| local.host.as_str()).collect::<Vec<_>>()
        };
        assert_eq!(hosts(0), ["compute-1", "compute-2"]);
        assert_eq!(hosts(1), ["compute-1"]);
    }

    #[test]
    fn the_pair_has_the_two_addresses_of_its_prefix_and_the_router_the_lower() {
        let lab = planned(0);
        for router in &lab.routers {
            for local in &router.distributed.as_ref().unwrap().locals {
                let (router_end, fip_end) = (local.router_end.address, local.fip_end.address);
                assert_eq!(u32::from(router_end.address) + 1, u32::from(fip_end.address));
                assert!(router_end.contains(fip_end.address) && router_end.prefix == 31);
                assert_eq!(local.router_end.device, format!("rfp-{}", &router.id.0[..10]));
            }
        }
    }

    #[test]
    fn every_network_of_a_router_has_a_vlan_of_its_own_wherever_the_router_is() {
        let lab = planned(900);
        for host in ["compute-1", "compute-2"] {
            let tags: Vec<_> = lab.networks.iter().filter_map(|network| network.tags.get(host)).collect();
            assert_eq!(tags.iter().collect::<BTreeSet<_>>().len(), tags.len(), "{host}");
        }
        let demo = &lab.routers[0];
        for port in &demo.interfaces {
            assert_eq!(lab.network(&port.network).unwrap().tags.len(), 2);
        }
    }

    #[test]
    fn no_address_and_no_mac_is_given_twice() {
        let lab = planned(900);
        let instances = lab.instances.iter().flat_map(|instance| &instance.ports);
        let distributed = || lab.routers.iter().filter_map(|router| router.distributed.as_ref());
        let mut macs: Vec<_> = instances.clone().map(|port| port.mac.as_str()).collect();
        macs.extend(distributed().flat_map(|part| &part.snat.ports).map(|port| port.mac.as_str()));
        macs.extend(lab.fip_namespaces.iter().map(|namespace| namespace.gateway.mac.as_str()));
        macs.extend(lab.routers.iter().flat_map(|router| &router.interfaces).map(|port| port.mac.as_str()));
        macs.extend(lab.hosts.iter().flat_map(|host| &host.uplinks).map(|uplink| uplink.mac.as_str()));
        let ends = distributed().flat_map(|part| &part.locals).flat_map(|local| [&local.router_end, &local.fip_end]);
        macs.extend(ends.map(|end| end.mac.as_str()));
        assert_eq!(macs.iter().collect::<BTreeSet<_>>().len(), macs.len());
        let mut external: Vec<_> = instances.filter_map(|port| port.floating_ip).collect();
        external.extend(lab.fip_namespaces.iter().map(|namespace| namespace.gateway.address.address));
        external.extend(lab.routers.iter().map(|router| router.gateway.address.address));
        assert_eq!(external.iter().collect::<BTreeSet<_>>().len(), external.len());
    }
}

//! What distributed routers add to the flow tables.
//!
//! A router's `qr-` side has the same MAC address on every host, so no frame with it may pass between hosts: on the way out
//! it becomes the sending host's own DVR address, and on the receiving host the router's again. Tables are `DVR_PROCESS`
//! and `DVR_NOT_LEARN` of br-tun, `DVR_TO_SRC_MAC` of br-int, and those of the same names of a physical bridge.

use std::{fmt, net::Ipv4Addr};

use super::Flows;
use crate::lab::{
    identity,
    inventory::{Inventory, Role, Router, RouterPort},
};

/// Distributed routers as one host knows them.
pub(crate) struct Distribution {
    /// The host's own DVR MAC address.
    mac: String,
    /// Those of the other hosts.
    others: Vec<String>,
    subnets: Vec<Subnet>,
}

/// A network that a distributed router has a side in.
struct Subnet {
    tag: u16,
    gateway: Ipv4Addr,
    mac: String,
    /// MAC address and device of whom the router reaches on this host.
    served: Vec<(String, String)>,
}

impl Distribution {
    /// What a host knows of them; `None` where it has none.
    pub(crate) fn on(lab: &Inventory, here: &str) -> Option<Self> {
        let local = |router: &&Router| router.distributed.as_ref().is_some_and(|part| part.on(here).is_some());
        let routers = lab.routers.iter().filter(local);
        let sides = routers.flat_map(|router| router.interfaces.iter().map(move |port| (router, port)));
        let subnets: Vec<_> = sides.filter_map(|(router, port)| subnet(lab, here, (router, port))).collect();
        let compute = lab.hosts.iter().filter(|host| host.role == Role::Compute);
        let macs = (1..).zip(compute).map(|(number, host)| (host.name == here, identity::dvr_mac(number)));
        let (own, others): (Vec<_>, Vec<_>) = macs.partition(|(own, _)| *own);
        let mac = own.into_iter().next()?.1;
        let others = others.into_iter().map(|(_, mac)| mac).collect();
        (!subnets.is_empty()).then_some(Self { mac, others, subnets })
    }
}

fn subnet(lab: &Inventory, here: &str, (router, side): (&Router, &RouterPort)) -> Option<Subnet> {
    let network = lab.network(&side.network)?;
    let ports = lab.instances_on(here).flat_map(|instance| &instance.ports).filter(|port| port.network == network.id);
    let mut served: Vec<_> =
        ports.filter_map(|port| Some((port.mac.clone(), port.host_devices.last()?.clone()))).collect();
    let dhcp = network.dhcp.as_ref().filter(|dhcp| dhcp.host == here);
    served.extend(dhcp.map(|dhcp| (dhcp.mac.clone(), dhcp.device.clone())));
    let snat = router.distributed.iter().filter(|_| router.host == here).flat_map(|part| &part.snat.ports);
    let snat = snat.filter(|port| port.network == network.id);
    served.extend(snat.map(|port| (port.mac.clone(), port.device.clone())));
    let tag = *network.tags.get(here)?;
    Some(Subnet { tag, gateway: side.address.address, mac: side.mac.clone(), served })
}

/// br-int: what comes from another host's router goes to whom it is for, as from this host's.
pub(super) fn integration(flows: &mut Flows, parts: &Distribution, patches: (&str, &[(u16, String)])) -> fmt::Result {
    let (tunnel, external) = patches;
    for mac in &parts.others {
        flows.add(0, &format!("priority=2,in_port={tunnel},dl_src={mac}"), "goto_table:1")?;
        for (_, patch) in external {
            flows.add(0, &format!("priority=4,in_port={patch},dl_src={mac}"), "goto_table:2")?;
        }
    }
    for table in [1, 2] {
        flows.add(table, "priority=1", "drop")?;
    }
    for Subnet { tag, mac: router, served, .. } in &parts.subnets {
        for (mac, device) in served {
            let matching = format!("priority=20,dl_vlan={tag},dl_dst={mac}");
            flows.add(1, &matching, &format!("set_field:{router}->eth_src,goto_table:60"))?;
            flows.add(60, &matching, &format!("strip_vlan,output:{device}"))?;
        }
    }
    Ok(())
}

/// br-tun: a router is asked for and answers on its own host alone, and sends under the host's address.
pub(super) fn tunnel(flows: &mut Flows, parts: &Distribution) -> fmt::Result {
    for Subnet { tag, gateway, mac: router, .. } in &parts.subnets {
        flows.add(1, &format!("priority=3,arp,dl_vlan={tag},arp_tpa={gateway}"), "drop")?;
        flows.add(1, &format!("priority=2,dl_vlan={tag},dl_dst={router}"), "drop")?;
        let as_host = format!("set_field:{}->eth_src,resubmit(,2)", parts.mac);
        flows.add(1, &format!("priority=1,dl_vlan={tag},dl_src={router}"), &as_host)?;
    }
    flows.add(1, "priority=0", "goto_table:2")?;
    // Where another host's router is must not be learned: its address is at every host's end of the tunnels.
    for mac in &parts.others {
        flows.add(9, &format!("priority=1,dl_src={mac}"), "output:patch-int")?;
    }
    flows.add(9, "priority=0", "goto_table:10")
}

/// A physical bridge: the same for what comes by its wire. No distributed router has a `qr-` side in a network here.
pub(super) fn physical(parts: &Distribution, (cookie, patch): (u64, &str), tags: &[u16]) -> Result<String, fmt::Error> {
    let mut flows = Flows::new(cookie);
    flows.add(0, &format!("priority=2,in_port={patch}"), "goto_table:1")?;
    flows.add(0, "priority=1", "goto_table:3")?;
    flows.add(0, "priority=0", "NORMAL")?;
    flows.add(1, "priority=0", "goto_table:2")?;
    for tag in tags {
        flows.add(2, &format!("priority=4,in_port={patch},dl_vlan={tag}"), "strip_vlan,NORMAL")?;
    }
    flows.add(2, &format!("priority=2,in_port={patch}"), "drop")?;
    for mac in &parts.others {
        flows.add(3, &format!("priority=2,dl_src={mac}"), &format!("output:{patch}"))?;
    }
    flows.add(3, "priority=1", "NORMAL")?;
    Ok(flows.text)
}

#[cfg(test)]
mod tests {
    use super::Distribution;
    use crate::lab::{
        inventory::Profile,
        neutron::flows::{integration, tunnel},
        profile,
        spec::Spec,
    };

    fn on(host: &str) -> Distribution {
        let spec = Spec { name: "lab".into(), profile: Profile::Dvr, instances: 0, no_docker: false };
        Distribution::on(&profile::plan(&spec), host).unwrap()
    }

    #[test]
    fn what_one_host_sends_as_the_other_takes_back() {
        let (first, second) = (on("compute-1"), on("compute-2"));
        assert_eq!(second.others, [first.mac.as_str()]);
        let sent = tunnel(1, &["vxlan-c0a8320c".into()], &[], Some(&first)).unwrap();
        assert!(sent.contains(&format!("set_field:{}->eth_src,resubmit(,2)", first.mac)), "{sent}");
        let taken = integration(1, &[], &[], Some(&second)).unwrap();
        assert!(taken.contains(&format!("in_port=patch-tun,dl_src={},actions=goto_table:1", first.mac)), "{taken}");
        let router = &second.subnets[0].mac;
        assert!(taken.contains(&format!("actions=set_field:{router}->eth_src,goto_table:60")), "{taken}");
    }

    #[test]
    fn the_gateway_of_a_network_is_never_asked_for_on_another_host() {
        let flows = tunnel(1, &[], &[], Some(&on("compute-1"))).unwrap();
        assert!(flows.contains("table=1,priority=3,arp,dl_vlan=1,arp_tpa=10.0.0.1,actions=drop"), "{flows}");
    }

    #[test]
    fn host_with_legacy_routers_knows_of_no_distribution() {
        let spec = Spec { name: "lab".into(), profile: Profile::NeutronOvs, instances: 0, no_docker: false };
        assert!(Distribution::on(&profile::plan(&spec), "compute-1").is_none());
    }
}

//! The OpenFlow tables Neutron's Open vSwitch agent installs, as text for `ovs-ofctl add-flows`.
//!
//! Table numbers and priorities are those of the agent (its constants `LOCAL_SWITCHING` to `TRANSIENT_EGRESS_TABLE` and
//! `PATCH_LV_TO_TUN` to `FLOOD_TO_TUN`). Every bridge's flows carry a cookie of the agent's.

use std::fmt::{self, Write as _};

use crate::lab::inventory::{Instance, Port};

/// What distributed routers add.
mod distributed;

pub(crate) use distributed::Distribution;

/// The patch port of br-int to br-tun.
pub(super) const TUNNEL_PATCH: &str = "patch-tun";

/// A network with its local VLAN and its VNI.
pub(crate) struct Vlan {
    pub(crate) tag: u16,
    pub(crate) vni: u32,
}

/// br-int. `external` are the local VLANs of flat networks with the patch port their packets come by.
pub(crate) fn integration(
    cookie: u64,
    external: &[(u16, String)],
    instances: &[Instance],
    distribution: Option<&Distribution>,
) -> Result<String, fmt::Error> {
    let mut flows = Flows::new(cookie);
    flows.add(0, "priority=65535,dl_vlan=4095", "drop")?;
    for (tag, patch) in external {
        let push = format!("push_vlan:0x8100,set_field:{}->vlan_vid,goto_table:58", 0x1000 | tag);
        flows.add(0, &format!("priority=3,in_port={patch},vlan_tci=0x0000/0x1fff"), &push)?;
        flows.add(0, &format!("priority=2,in_port={patch}"), "drop")?;
    }
    flows.add(0, "priority=0", "goto_table:58")?;
    flows.add(23, "priority=0", "drop")?;
    flows.add(24, "priority=0", "drop")?;
    for port in instances.iter().flat_map(|instance| &instance.ports) {
        spoofing(&mut flows, port)?;
    }
    for table in [30, 31] {
        flows.add(table, "priority=0", "goto_table:58")?;
    }
    flows.add(58, "priority=0", "goto_table:59")?;
    flows.add(59, "priority=0", "goto_table:60")?;
    flows.add(60, "priority=3", "NORMAL")?;
    flows.add(62, "priority=3", "NORMAL")?;
    if let Some(parts) = distribution {
        distributed::integration(&mut flows, parts, (TUNNEL_PATCH, external))?;
    }
    Ok(flows.text)
}

/// What a port may claim to be: needed where no firewall driver of Open vSwitch's own checks it.
fn spoofing(flows: &mut Flows, port: &Port) -> fmt::Result {
    let Some(device) = port.host_devices.last() else { return Ok(()) };
    flows.add(0, &format!("priority=10,arp,in_port={device}"), "goto_table:24")?;
    flows.add(0, &format!("priority=10,icmp6,in_port={device},icmp_type=136"), "goto_table:24")?;
    flows.add(0, &format!("priority=9,in_port={device}"), "goto_table:25")?;
    flows.add(24, &format!("priority=2,arp,in_port={device},arp_spa={}", port.address.address), "goto_table:25")?;
    flows.add(25, &format!("priority=2,in_port={device},dl_src={}", port.mac), "goto_table:30")
}

/// A physical bridge that carries one flat network per local VLAN.
pub(crate) fn physical(
    cookie: u64,
    patch: &str,
    tags: &[u16],
    distribution: Option<&Distribution>,
) -> Result<String, fmt::Error> {
    if let Some(parts) = distribution {
        return distributed::physical(parts, (cookie, patch), tags);
    }
    let mut flows = Flows::new(cookie);
    for tag in tags {
        flows.add(0, &format!("priority=4,in_port={patch},dl_vlan={tag}"), "strip_vlan,NORMAL")?;
    }
    flows.add(0, &format!("priority=2,in_port={patch}"), "drop")?;
    flows.add(0, "priority=0", "NORMAL")?;
    Ok(flows.text)
}

/// br-tun with one VXLAN port per other host.
pub(crate) fn tunnel(
    cookie: u64,
    tunnels: &[String],
    vlans: &[Vlan],
    distribution: Option<&Distribution>,
) -> Result<String, fmt::Error> {
    let mut flows = Flows::new(cookie);
    // Distributed routers have tables of their own before those that send and those that learn.
    let (sends, learns) = if distribution.is_some() { (1, 9) } else { (2, 10) };
    flows.add(0, "priority=1,in_port=patch-int", &format!("goto_table:{sends}"))?;
    for port in tunnels {
        flows.add(0, &format!("priority=1,in_port={port}"), "goto_table:4")?;
    }
    flows.add(0, "priority=0", "drop")?;
    flows.add(2, "priority=0,dl_dst=00:00:00:00:00:00/01:00:00:00:00:00", "goto_table:20")?;
    flows.add(2, "priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00", "goto_table:22")?;
    for table in [3, 4, 6] {
        flows.add(table, "priority=0", "drop")?;
    }
    let outputs = tunnels.iter().fold(String::new(), |list, port| format!("{list},output:{port}"));
    for Vlan { tag, vni } in vlans {
        let push = format!("push_vlan:0x8100,set_field:{}->vlan_vid,goto_table:{learns}", 0x1000 | tag);
        flows.add(4, &format!("priority=1,tun_id={vni:#x}"), &push)?;
        let send = format!("strip_vlan,set_field:{vni:#x}->tun_id{outputs}");
        flows.add(22, &format!("priority=1,dl_vlan={tag}"), &send)?;
    }
    flows.add(10, "priority=1", &learn(cookie))?;
    flows.add(20, "priority=0", "goto_table:22")?;
    flows.add(22, "priority=0", "drop")?;
    if let Some(parts) = distribution {
        distributed::tunnel(&mut flows, parts)?;
    }
    Ok(flows.text)
}

/// Remembers in table 20 by which tunnel a MAC address was heard of.
fn learn(cookie: u64) -> String {
    let copy = "NXM_OF_VLAN_TCI[0..11],NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]";
    let back = "load:0->NXM_OF_VLAN_TCI[],load:NXM_NX_TUN_ID[]->NXM_NX_TUN_ID[],output:NXM_OF_IN_PORT[]";
    format!("learn(table=20,hard_timeout=300,priority=1,cookie={cookie:#x},{copy},{back}),output:patch-int")
}

/// Flows of one bridge.
struct Flows {
    cookie: u64,
    text: String,
}

impl Flows {
    fn new(cookie: u64) -> Self {
        Self { cookie, text: String::new() }
    }

    fn add(&mut self, table: u8, matching: &str, actions: &str) -> fmt::Result {
        writeln!(self.text, "cookie={:#x},table={table},{matching},actions={actions}", self.cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::{Vlan, integration, physical, tunnel};

    #[test]
    fn every_flow_carries_the_cookie_of_its_bridge() {
        let flows = [
            integration(0xabc, &[(2, "int-br-ex".into())], &[], None).unwrap(),
            physical(0xabc, "phy-br-ex", &[2], None).unwrap(),
            tunnel(0xabc, &["vxlan-c0a8320c".into()], &[Vlan { tag: 1, vni: 1001 }], None).unwrap(),
        ];
        assert!(flows.iter().flat_map(|text| text.lines()).all(|flow| flow.starts_with("cookie=0xabc,table=")));
    }

    #[test]
    fn tunnel_maps_the_local_vlan_to_the_vni_and_back() {
        let flows = tunnel(1, &["vxlan-c0a8320c".into()], &[Vlan { tag: 7, vni: 1001 }], None).unwrap();
        let vid = 0x1000 | 7;
        assert!(flows.contains(&format!("table=4,priority=1,tun_id=0x3e9,actions=push_vlan:0x8100,set_field:{vid}->")));
        assert!(flows.contains("dl_vlan=7,actions=strip_vlan,set_field:0x3e9->tun_id,output:vxlan-c0a8320c"));
    }

    #[test]
    fn host_without_other_hosts_floods_into_no_tunnel() {
        let flows = tunnel(1, &[], &[Vlan { tag: 7, vni: 1001 }], None).unwrap();
        assert!(
            flows.contains("table=22,priority=1,dl_vlan=7,actions=strip_vlan,set_field:0x3e9->tun_id\n"),
            "{flows}"
        );
    }
}

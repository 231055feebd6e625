//! Hosts of the lab, as a snapshot has them.

use crate::{
    floating::{ExternalHook, NextHop, Plan, State, Switches, plan},
    inventory::Inventory,
    policy::{binding, convert, wire::Document},
    snapshot::Snapshot,
    testing::mac,
};

const OVS: &str = include_str!("../../../../../views/tests/fixtures/neutron-ovs-compute-1.json");

/// The plan of a host under a policy.
fn of(snapshot: &str, policy: &str) -> Plan {
    let snapshot: Snapshot = serde_json::from_str(snapshot).unwrap();
    let inventory = Inventory::build(&snapshot);
    let document = Document { name: "policy.yaml".to_owned(), text: policy.to_owned() };
    let policy = convert::policy(&[document]).unwrap();
    let bound = binding::bind(&policy, &inventory);
    plan(&inventory, &bound.complete(&policy), &bound.attached, &Switches::default())
}

/// The way of a floating IP.
fn way<'p>(plan: &'p Plan, address: &str) -> &'p State {
    &plan.floating_ips.iter().find(|one| one.floating_ip_address.to_string() == address).unwrap().way
}

#[test]
fn a_floating_ip_of_an_enforced_port_goes_past_its_router() {
    let ports = "[{id: web, binding: {device: tapf1a1de43-25}}, {id: other, binding: {device: tap94d5ffd0-c7}}]";
    let plan = of(OVS, &format!("security_groups: [{{name: default}}]\nports: {ports}\n"));
    let State::Fast(path) = way(&plan, "172.24.4.6") else { panic!("{plan:?}") };
    assert_eq!((path.device.as_str(), path.ifindex, path.hook, path.vlan), ("eth1", 3, ExternalHook::Xdp, 0));
    assert_eq!((path.port_ifindex, path.peer, path.hops, path.random), (9, true, 1, true));
    assert_eq!((path.outer_mac, path.inner_mac), (mac("fa:16:3e:27:b0:89"), mac("fa:16:3e:31:53:15")));
    assert_eq!((path.mac, path.outer_mtu, path.inner_mtu), (mac("fa:16:3e:1b:db:f9"), 1500, 1450));
    // Another tenant's port with the same fixed address.
    let State::Fast(other) = way(&plan, "172.24.4.8") else { panic!("{plan:?}") };
    assert_eq!((other.port_ifindex, other.mac), (14, mac("fa:16:3e:ed:18:49")));
    let State::Slow { why } = way(&plan, "172.24.4.7") else { panic!("{plan:?}") };
    assert!(why.ends_with(", which has 10.0.1.2, is not held to security groups by netdiag"), "{why}");
    let hop = |router: u32, prefix: &str| plan.routers[&router].hops[&prefix.parse().unwrap()];
    assert_eq!(hop(path.router, "0.0.0.0/0"), NextHop::Via(mac("c6:06:3d:31:f7:8f")));
    assert_eq!(hop(path.router, "172.24.4.1/32"), NextHop::OnLink(mac("c6:06:3d:31:f7:8f")));
    assert_eq!(hop(path.router, "172.24.4.0/24"), NextHop::Unresolved);
    assert_eq!(hop(path.router, "10.0.1.0/24"), NextHop::Slow);
}

//! Ports that Open vSwitch knows by their Neutron id, with a real switch on the host of the test.

use std::{thread, time::Duration};

use netdiag_tests::{
    AgentHost, Switch,
    agent::{answers, pings},
};
use serde_json::Value;

const ID: &str = "5f0c2f6e-6a55-4f0a-9d1e-0a4ad0f4a001";

#[test]
fn a_port_is_enforced_once_open_vswitch_knows_its_id_and_stays_so_while_the_switch_is_away() {
    let test = "a_port_is_enforced_once_open_vswitch_knows_its_id_and_stays_so_while_the_switch_is_away";
    if !Switch::is_there() {
        return;
    }
    let Some(mut host) = AgentHost::enter(test) else { return };
    let mut switch = Switch::start(&host);
    switch.vsctl("add-br br-int -- set bridge br-int datapath_type=netdev");
    switch.vsctl("add-port br-int tap0");
    host.ovsdb.clone_from(&switch.socket);
    host.policy(&format!("ports: [{{id: {ID}, security_groups: []}}]"));
    host.start_with(&["--full-pass", "3600"]);
    host.wait_for_ports(&[]);
    assert!(answers(), "the host's own stack sees the frames as well, until they end at XDP");
    // Nothing changes but the database, and no full pass is due for an hour.
    thread::sleep(Duration::from_secs(1));
    switch.vsctl(&format!("set Interface tap0 external_ids:iface-id={ID}"));
    host.wait_for_ports(&[ID]);
    let port = host.ok("GET", &format!("/v1/ports/{ID}"), "");
    assert_eq!(port["port"]["enforcement"]["hooks"][0], "xdp egress", "AF_PACKET takes frames before TC: {port:#}");
    assert!(!pings());

    // The database server goes away; that the port is not found any more does not mean that it is gone.
    switch.end_database();
    let done = |status: &Value| status["passes"]["done"].as_u64();
    let before = host.wait("a pass", |status| done(status).is_some());
    host.signal(rustix::process::Signal::HUP);
    host.wait("one more pass", |status| done(status) > done(&before));
    thread::sleep(Duration::from_secs(2));
    host.wait_for_ports(&[ID]);
    assert!(!pings());
}

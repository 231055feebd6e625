//! Faults of the wires of the host, and of another host.

use netdiag_tests::{Lab, Target};

use super::{
    fault::{Fault, Traffic},
    router::ping,
};

pub(crate) fn faults(lab: &Lab, target: &Target) -> Vec<Fault<'static>> {
    let far = lab.instances("compute-2");
    let far = far[0]["ports"][0]["address"]["address"].as_str().unwrap();
    let peer = |to: &str| format!("ovs-vsctl set interface int-br-ex options:peer={to}");
    vec![
        Fault::new(
            "missing patch port",
            (peer("nonexistent-peer"), peer("phy-br-ex")),
            ping(target),
            ("path-fault", "int-br-ex", "has no other end"),
        ),
        Fault::new(
            "network card down",
            ("ip link set eth1 down", "ip link set eth1 up"),
            ping(target),
            ("", "", "eth1 is switched off"),
        ),
        Fault {
            at: Some("compute-2"),
            // Where nobody is known any more, the instance's own kernel gives up as well.
            also: &["does not answer ARP"],
            ..Fault::new(
                "the host behind the tunnel down",
                ("ip link set eth0 down", "ip link set eth0 up"),
                Traffic::Here(target.inside(&format!("ping -q -c 2 -i 0.2 -W 1 {far}"))),
                ("unanswered", "vxlan-", "nothing came back"),
            )
        },
    ]
}

//! Faults at the instance, its card and its port of the switch; what comes in and finds nobody.

use netdiag_tests::{Lab, Target};

use super::{
    OUTSIDE,
    fault::{Fault, Traffic},
    router::ping,
    senders::Senders,
};

pub(crate) fn faults(lab: &Lab, target: &Target) -> Vec<Fault<'static>> {
    [listeners(lab, target), cards(target), ports(lab, target)].into_iter().flatten().collect()
}

/// Nothing is done to make a fault, or to mend it.
const NOTHING: (&str, &str) = ("true", "true");

/// Somebody outside tries again and again to reach the instance.
fn knock(protocol: &str, target: &Target, port: u16) -> Traffic<'static> {
    let to = format!("/dev/{protocol}/{}/{port}", target.floating);
    Traffic::From("outside", format!("timeout 1 bash -c 'echo x > {to}'"))
}

fn listeners(lab: &Lab, target: &Target) -> Vec<Fault<'static>> {
    let Target { inner, tap, floating, fixed, .. } = target;
    let dnat = format!("PREROUTING -d {floating}/32 -j DNAT --to-destination {fixed}");
    let senders = Senders::new(lab, "other-1", "other-2");
    let (full, (address, port), crowd) = (senders.full_socket(), senders.full_listener(), senders.crowd(target));
    let instances = lab.instances("compute-1");
    let other = instances.iter().find(|one| one["display_name"] == "other-2").unwrap();
    let call = format!("nsenter -n -t {} timeout 2 bash -c 'echo x > /dev/tcp/{address}/{port}'", other["pid"]);
    vec![
        Fault::new(
            "nobody listens (TCP)",
            NOTHING,
            knock("tcp", target, 81),
            ("kernel-drop", inner, "nobody listens there"),
        ),
        Fault::new(
            "nobody listens (UDP)",
            NOTHING,
            knock("udp", target, 999),
            ("kernel-drop", inner, "nobody listens there"),
        ),
        Fault::new(
            "no DNAT of the floating IP",
            (target.nat("D", &dnat), target.nat("A", &dnat)),
            knock("tcp", target, 80),
            ("kernel-drop", "qg-", "has no DNAT rule"),
        ),
        Fault::new(
            "a reader who does not read",
            NOTHING,
            Traffic::Ours(Box::new(full)),
            ("kernel-drop", inner, "receiving socket's buffer is full"),
        ),
        Fault::new(
            "a listener whose queue is full",
            NOTHING,
            Traffic::Here(call),
            // It is the kernel of the instance that lets go of it, without a word.
            ("no-answer", &target.container, "its listener's queue is full"),
        ),
        Fault::new(
            "full queue of a CPU",
            NOTHING,
            Traffic::Ours(Box::new(crowd)),
            ("kernel-drop", tap, "the queue of a CPU is full"),
        ),
        Fault::new(
            "bad checksum",
            NOTHING,
            Traffic::Ours(Box::new(move || senders.damaged())),
            ("kernel-drop", inner, "its UDP checksum is wrong"),
        ),
    ]
}

fn cards(target: &Target) -> Vec<Fault<'static>> {
    let Target { inner, tap, floating, .. } = target;
    let link = |device: &str, state: &str| format!("ip link set {device} {state}");
    let route = "ip route replace default via 10.0.0.1";
    let up = format!("sh -c '{} && {route}'", link(inner, "up"));
    let big = format!("sh -c 'ip route flush cache; ping -q -c 2 -i 0.2 -W 1 -s 1418 -M do {OUTSIDE}'");
    vec![
        Fault::new(
            "MTU of the host's end",
            (link(tap, "mtu 1400"), link(tap, "mtu 1500")),
            Traffic::Here(target.inside(&big)),
            ("kernel-drop", inner, "takes packets of 1400 bytes, and this one has 1446"),
        ),
        Fault::new(
            "inner device down",
            (target.inside(&link(inner, "down")), target.inside(&up)),
            Traffic::From("outside", format!("ping -q -c 1 -W 1 {floating}")),
            ("", "", &format!("{inner} is switched off")),
        ),
        Fault::new(
            "host device down",
            (link(tap, "down"), link(tap, "up")),
            ping(target),
            ("", "", &format!("{tap} is switched off")),
        ),
        Fault::new(
            "wrong gateway",
            (target.inside("ip route replace default via 10.0.0.9"), target.inside(route)),
            // The kernel gives up asking after three seconds.
            Traffic::Here(target.inside(&format!("ping -q -c 1 -W 4 {OUTSIDE}"))),
            ("kernel-drop", inner, "the gateway 10.0.0.9 did not answer"),
        ),
    ]
}

fn ports(lab: &Lab, target: &Target) -> Vec<Fault<'static>> {
    let tap = &target.tap;
    let instances = lab.instances("compute-1");
    let port = instances.iter().map(|one| &one["ports"][0]).find(|port| port["host_devices"][0] == tap.as_str());
    let own = port.unwrap()["vlan_tag"].to_string();
    let tag =
        |tag: &str| (format!("ovs-vsctl set port {tap} tag={tag}"), format!("ovs-vsctl set port {tap} tag={own}"));
    let flow = (
        format!("ovs-ofctl add-flow br-int 'priority=500,in_port={tap},icmp,actions=drop'"),
        format!("ovs-ofctl del-flows br-int in_port={tap},icmp"),
    );
    vec![
        Fault::new("wrong VLAN", tag("77"), ping(target), ("path-fault", tap, "77")),
        Fault::new("dead VLAN", tag("4095"), ping(target), ("path-fault", tap, "dead VLAN")),
        Fault::new("a flow that drops", flow, ping(target), ("switch-flow", tap, "priority 500")),
    ]
}

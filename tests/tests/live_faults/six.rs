//! Faults of IPv6, beside Neutron's filter: groups, rules, routes, sizes, listeners.

use netdiag_tests::{Lab, Target};

use super::fault::{Fault, Lane, Outcome, Traffic};

/// The instance's address, the router's in its network, the router's outside, and somebody's there.
const OWN: &str = "2001:db8:0:1::2";
const INSIDE: &str = "2001:db8:0:1::1";
const OUTSIDE: &str = "2001:db8:0:9::1";
const NEIGHBOUR: &str = "2001:db8:0:9::7";

/// Gives instance, router and somebody in the external network addresses of IPv6. Neutron gives them by router advertisements.
fn address(lab: &Lab, target: &Target) {
    let Target { inner, qr, qg, .. } = target;
    let on = |device: &str, address: &str| {
        format!("sysctl -qw net.ipv6.conf.{device}.disable_ipv6=0; ip address add {address}/64 dev {device} nodad")
    };
    let inside = target.inside(&format!("sh -c '{}; ip route add default via {INSIDE}'", on(inner, OWN)));
    let router = target.in_router(&format!("sh -c '{}; {}'", on(qr, INSIDE), on(qg, OUTSIDE)));
    lab.sh("compute-1", &format!("{router} && {inside}")).ok();
    let far = format!("{} && ip route add 2001:db8:0:1::/64 via {OUTSIDE}", on("eth0", NEIGHBOUR));
    lab.sh("neighbour", &far).ok();
    // Neutron's flows let nobody say that he has an address which his port has not.
    let instances = lab.instances("compute-1");
    let own = instances.iter().find(|one| one["container_name"] == target.container.as_str()).unwrap();
    let mac = own["ports"][0]["mac"].as_str().unwrap();
    let known = format!("ip neigh replace {OWN} lladdr {mac} dev {qr} nud permanent");
    lab.sh("compute-1", &target.in_router(&known)).ok();
}

pub(crate) fn faults(lab: &Lab, target: &Target) -> Vec<Outcome> {
    address(lab, target);
    let Target { router, qr, qg, tap, .. } = target;
    let both = |make: &str, mend: &str| (target.in_router(make), target.in_router(mend));
    let ping = |to: &str| Traffic::Here(target.inside(&format!("ping -q -c 2 -i 0.2 -W 1 {to}")));
    let large =
        target.inside(&format!("sh -c 'ip -6 route flush cache; ping -q -c 2 -i 0.2 -W 1 -s 1390 {NEIGHBOUR}'"));
    let nothing = ("true", "true");
    let faults = [
        Fault::new(
            "Neutron's groups deny what comes by IPv6",
            nothing,
            Traffic::From("neighbour", format!("timeout 1 bash -c 'echo x > /dev/tcp/{OWN}/81'")),
            ("filter-rule", tap, "rule 1 of filter neutron-openvswi-sg-fallback"),
        ),
        Fault::new(
            "rule of the router for IPv6",
            both("ip6tables -I FORWARD 1 -p icmpv6 --icmpv6-type 128 -j DROP", "ip6tables -D FORWARD 1"),
            ping(NEIGHBOUR),
            ("filter-rule", router, "rule 1 of filter FORWARD"),
        ),
        Fault::new("no route of IPv6", nothing, ping("2001:db8:ff::1"), ("", router, "no route")),
        Fault::new(
            "MTU of IPv6",
            both(&format!("ip link set {qg} mtu 1400"), &format!("ip link set {qg} mtu 1500")),
            Traffic::Here(large),
            ("kernel-drop", qg, "takes packets of 1400 bytes, and this one has 1438"),
        ),
        Fault::new(
            "nobody listens on IPv6",
            nothing,
            Traffic::Here(target.inside(&format!("bash -c 'echo x > /dev/udp/{INSIDE}/999'"))),
            ("kernel-drop", qr, "nobody listens there"),
        ),
    ];
    let lane = Lane::of(lab, "compute-1", &target.container);
    let mut outcomes = vec![lane.healthy("healthy, by IPv6", &ping(NEIGHBOUR))];
    outcomes.extend(lane.each(&faults));
    outcomes
}

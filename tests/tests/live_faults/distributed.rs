//! Faults of distributed routers (DVR): of the namespace of the external network, and of the way there.

use netdiag_tests::{Lab, Target};

use super::{
    fault::{Fault, Lane, Outcome, Traffic},
    router::ping,
};

/// Takes a policy rule away, which is remembered in a file, and gives it back.
fn without_rule(netns: &str, which: &str, table: &str) -> (String, String) {
    let ip = format!("ip netns exec {netns} ip");
    let file = format!("/run/rule-of-{netns}");
    let make = format!("{ip} rule show {which} | cut -d: -f1 > {file} && {ip} rule del {which}");
    (make, format!("{ip} rule add {which} lookup {table} priority $(cat {file})"))
}

pub(crate) fn faults(lab: &Lab) -> Vec<Outcome> {
    let host = "compute-1";
    let target = Target::named(lab, host, "web-1");
    let Target { router, fixed, floating, .. } = &target;
    let here = |pointer: &str| {
        let all = lab.built[pointer].as_array().unwrap();
        all.iter().find(|one| one["host"] == host).unwrap()
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let fip = here("fip_namespaces");
    let (namespace, device) = (text(&fip["netns"]), text(&fip["gateway"]["device"]));
    let routers = lab.built["routers"].as_array().unwrap();
    let own = routers.iter().find(|one| one["netns"] == router.as_str()).unwrap();
    let locals = own["distributed"]["locals"].as_array().unwrap();
    let local = locals.iter().find(|one| one["host"] == host).unwrap();
    let end = text(&local["fip_end"]["device"]);
    let table = format!("$(cat /run/rule-of-{namespace})");
    let proxy = |on: u8| format!("ip netns exec {namespace} sysctl -qw net.ipv4.conf.{device}.proxy_arp={on}");
    let faults = [
        Fault::new(
            "no policy rule for what comes from the router",
            without_rule(&namespace, &format!("iif {end}"), &table),
            ping(&target),
            ("", &namespace, "no route"),
        ),
        Fault::new(
            "no policy rule for the floating IP",
            without_rule(router, &format!("from {fixed}"), "16"),
            ping(&target),
            ("left-as-another", "eth1", floating),
        ),
        Fault {
            patience: "2s",
            ..Fault::new(
                "nobody answers ARP for the floating IP",
                (proxy(0), proxy(1)),
                Traffic::From("neighbour", format!("ip neigh flush all; ping -q -c 1 -W 1 {floating}")),
                ("no-answer", &device, "nobody answers ARP"),
            )
        },
    ];
    let lane = Lane::of(lab, host, &target.container);
    let mut outcomes = vec![lane.healthy("healthy, a distributed router", &ping(&target))];
    outcomes.extend(lane.each(&faults));
    outcomes.push(lane.healthy("healthy again, a distributed router", &ping(&target)));
    outcomes
}

//! Faults of other hosts than Neutron's beside Open vSwitch: with its own filter, plain Docker, virtual machines.

use std::process::Command;

use netdiag_tests::{Lab, Target};
use serde_json::Value;

use super::{
    OUTSIDE,
    fault::{Fault, Lane, Outcome, Traffic},
    router, senders, six,
};

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_else(|| panic!("no {pointer}: {value:#}"))
}

fn find<'v>(all: &'v [Value], key: &str, name: &str) -> &'v Value {
    all.iter().find(|one| one[key] == name).unwrap()
}

/// Neutron's own groups, which are rules of iptables on a bridge for each port: whoever is denied, at either end.
pub(crate) fn hybrid(lab: &Lab) -> Vec<Outcome> {
    let target = Target::named(lab, "compute-1", "web-1");
    let instances = lab.instances("compute-1");
    let locked = find(&instances, "display_name", "web-2");
    let inside = |line: &str| Traffic::Here(format!("nsenter -n -t {} {line}", locked["pid"]));
    let (own, address) = (text(locked, "/ports/0/host_devices/0"), text(locked, "/ports/0/address/address"));
    let fallback = "rule 1 of filter neutron-openvswi-sg-fallback";
    let nothing = ("true", "true");
    let web = Lane::of(lab, "compute-1", &target.container);
    let denied = [
        Fault::new(
            "Neutron's groups deny what comes",
            nothing,
            Traffic::From("outside", format!("timeout 1 bash -c 'echo x > /dev/tcp/{}/81'", target.floating)),
            ("filter-rule", &target.tap, fallback),
        ),
        Fault::new(
            "Neutron's groups deny it at the neighbour",
            nothing,
            Traffic::Here(target.inside(&format!("ping -q -c 2 -i 0.2 -W 1 {address}"))),
            ("filter-rule", own, fallback),
        ),
    ];
    let leaves = Fault::new(
        "Neutron's groups deny what leaves",
        nothing,
        inside(&format!("ping -q -c 2 -i 0.2 -W 1 {OUTSIDE}")),
        ("filter-rule", own.trim_start_matches("tap"), fallback),
    );
    let mut outcomes = vec![web.healthy("healthy, with Neutron's filter", &router::ping(&target))];
    outcomes.extend(web.each(&denied));
    outcomes.extend(Lane::of(lab, "compute-1", text(locked, "/container_name")).each(&[leaves]));
    outcomes.extend(six::faults(lab, &target));
    outcomes.push(web.healthy("healthy again, with Neutron's filter", &router::ping(&target)));
    outcomes
}

/// The host of plain Docker.
const DOCKER: &str = "docker-1";

pub(crate) fn docker(lab: &Lab) -> Vec<Outcome> {
    let containers = lab.built["containers"].as_array().unwrap();
    let web = find(containers, "name", "web-1");
    let (veth, address) = (text(web, "/nics/0/host_device"), text(web, "/nics/0/address/address"));
    let ping = || Traffic::Here(format!("nsenter -n -t {} ping -q -c 2 -i 0.2 -W 1 {OUTSIDE}", web["pid"]));
    // The network of the containers is not the gateway's to know; whoever has a route there is who Docker's rule is for.
    let gateway = senders::gateway(lab).to_string();
    let route = ["-t", &gateway, "-n", "ip", "route", "add", "172.17.0.0/16", "via", "192.0.2.10"];
    assert!(Command::new("nsenter").args(route).status().unwrap().success());
    let masquerade =
        |verb: &str| format!("iptables -t nat -{verb} POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE");
    let published = |verb: &str| {
        format!(
            "iptables -t nat -{verb} DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination {address}:80"
        )
    };
    let proxy = "for pid in $(pidof docker-proxy); do grep -aq 8080 /proc/$pid/cmdline && kill $pid; done; true";
    let faults = [
        Fault::new(
            "Docker's rule against direct access",
            (
                format!("iptables -t raw -I PREROUTING -d {address} ! -i docker0 -j DROP"),
                "iptables -t raw -D PREROUTING 1".to_owned(),
            ),
            Traffic::From("outside", format!("ping -q -c 1 -W 1 {address}")),
            ("filter-rule", "eth0", "rule 1 of raw PREROUTING"),
        ),
        Fault {
            // Docker 28 and later drop in `raw` what then comes back to the container's own address.
            also: &["of raw PREROUTING"],
            ..Fault::new(
                "no MASQUERADE",
                (masquerade("D"), masquerade("A")),
                ping(),
                ("left-untranslated", "eth0", &format!("as {address}")),
            )
        },
        Fault::new(
            "container's veth down",
            (format!("ip link set {veth} down"), format!("ip link set {veth} up")),
            ping(),
            ("", "", &format!("{veth} is switched off")),
        ),
        Fault::new(
            "published port without its rule",
            (format!("{}; {proxy}", published("D")), published("A")),
            Traffic::From("outside", "timeout 1 bash -c 'echo x > /dev/tcp/192.0.2.10/8080'".to_owned()),
            ("kernel-drop", "eth0", "no rule of the host leads port 8080/tcp"),
        ),
    ];
    let lane = Lane::of(lab, DOCKER, "web-1");
    let mut outcomes = vec![lane.healthy("healthy, plain Docker", &ping())];
    outcomes.extend(lane.each(&faults));
    outcomes.push(lane.healthy("healthy again, plain Docker", &ping()));
    outcomes
}

pub(crate) fn machines(lab: &Lab) -> Vec<Outcome> {
    let instances = lab.instances("compute-1");
    let web = find(&instances, "display_name", "web-1");
    let port = &web["ports"][0];
    let (tap, own) = (text(port, "/host_devices/0"), &port["vlan_tag"]);
    let routers = lab.built["routers"].as_array().unwrap();
    let netns = text(routers.iter().find(|router| router["id"] == port["router"]).unwrap(), "/netns");
    let rule = |rule: &str| format!("ip netns exec {netns} iptables -{rule}");
    let ping = || {
        Traffic::Ours(Box::new(|| {
            // Nobody has to answer.
            let _said = lab.inside(web, &["ping", "-q", "-c", "1", "-W", "1", OUTSIDE]);
        }))
    };
    let faults = [
        Fault::new(
            "rule of a machine's router",
            (rule("I FORWARD 1 -s 10.0.0.2 -p icmp -j DROP"), rule("D FORWARD 1")),
            ping(),
            ("filter-rule", netns, "rule 1 of filter FORWARD"),
        ),
        Fault::new(
            "wrong VLAN of a machine",
            (format!("ovs-vsctl set port {tap} tag=77"), format!("ovs-vsctl set port {tap} tag={own}")),
            ping(),
            ("path-fault", tap, "77"),
        ),
        Fault::new(
            "tap of a machine down",
            (format!("ip link set {tap} down"), format!("ip link set {tap} up")),
            ping(),
            ("kernel-drop", tap, "is switched off"),
        ),
    ];
    let lane = Lane::of(lab, "compute-1", tap);
    let mut outcomes = vec![lane.healthy("healthy, a machine", &ping())];
    outcomes.extend(lane.each(&faults));
    outcomes.push(lane.healthy("healthy again, a machine", &ping()));
    outcomes
}

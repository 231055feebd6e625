//! Faults made in a lab on purpose: each must be named by its finding, end with exit code 3, and be gone again when it is
//! mended.

use netdiag_tests::{Lab, Target};
use serde_json::Value;

/// Where the instance with the fault runs.
const HOST: &str = "compute-1";

/// A fault: how it is made, how it is mended, and the finding that must name it.
#[derive(Clone)]
struct Fault {
    code: &'static str,
    severity: &'static str,
    make: String,
    mend: String,
}

fn fault(code: &'static str, make: impl Into<String>, mend: impl Into<String>) -> Fault {
    Fault { code, severity: "error", make: make.into(), mend: mend.into() }
}

/// Devices, VLANs, patch ports: what carries frames.
fn wiring(target: &Target) -> Vec<Fault> {
    let Target { tap, inner, qr, .. } = target;
    let protect = |on: bool| format!("ovs-vsctl set port {tap} protected={on} -- set port {qr} protected={on}");
    vec![
        fault("protected-ports", protect(true), protect(false)),
        fault(
            "vlan-mode",
            format!("ovs-vsctl set port {tap} vlan_mode=trunk"),
            format!("ovs-vsctl clear port {tap} vlan_mode"),
        ),
        fault("vlan-not-carried", "ovs-vsctl set port int-br-ex trunks=4000", "ovs-vsctl clear port int-br-ex trunks"),
        fault("link-down", up_down(tap, "down"), up_down(tap, "up")),
        fault(
            "link-down",
            target.inside(&up_down(inner, "down")),
            target.inside(&format!("sh -c '{} && {ROUTE}'", up_down(inner, "up"))),
        ),
        fault("dead-vlan", format!("ovs-vsctl set port {tap} tag=4095"), format!("ovs-vsctl set port {tap} tag=1")),
        fault("wrong-tag", format!("ovs-vsctl set port {tap} tag=77"), format!("ovs-vsctl set port {tap} tag=1")),
        fault("no-tag", format!("ovs-vsctl remove port {tap} tag 1"), format!("ovs-vsctl set port {tap} tag=1")),
        fault(
            "patch-peer",
            "ovs-vsctl set interface int-br-ex options:peer=nonexistent-peer",
            "ovs-vsctl set interface int-br-ex options:peer=phy-br-ex",
        ),
        fault("link-down", "ip link set eth1 down", "ip link set eth1 up"),
        fault("bridge-without-uplink", "ovs-vsctl del-port br-ex eth1", "ovs-vsctl add-port br-ex eth1"),
        Fault {
            severity: "warning",
            ..fault("mtu-mismatch", format!("ip link set {tap} mtu 1400"), format!("ip link set {tap} mtu 1500"))
        },
    ]
}

/// Routes, gateways, forwarding: what decides where packets go.
fn routing(target: &Target) -> Vec<Fault> {
    let Target { qr, qg, fixed, inner, .. } = target;
    vec![
        fault("no-default-route", target.inside("ip route del default"), target.inside(ROUTE)),
        fault(
            "forwarding-off",
            target.in_router("sysctl -qw net.ipv4.ip_forward=0"),
            target.in_router("sysctl -qw net.ipv4.ip_forward=1"),
        ),
        fault("link-down", target.in_router(&up_down(qr, "down")), target.in_router(&up_down(qr, "up"))),
        fault(
            "no-route",
            target.in_router("ip route replace unreachable default"),
            target.in_router(&format!("ip route replace default via 172.24.4.1 dev {qg}")),
        ),
        fault(
            "forwarding-off",
            target.in_router(&format!("sysctl -qw net.ipv4.conf.{qr}.forwarding=0")),
            target.in_router(&format!("sysctl -qw net.ipv4.conf.{qr}.forwarding=1")),
        ),
        fault(
            "no-route-back",
            target.in_router(&format!("ip route add blackhole {fixed}/32")),
            target.in_router(&format!("ip route del blackhole {fixed}/32")),
        ),
        fault(
            "wrong-neighbour",
            target.inside(&format!("ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev {inner} nud permanent")),
            target.inside(&format!("ip neigh del 10.0.0.1 dev {inner}")),
        ),
        fault("router-vlan", format!("ovs-vsctl remove port {qr} other_config tag -- set port {qr} tag=9"), {
            format!("ovs-vsctl set port {qr} tag=1 other_config:tag=1")
        }),
        Fault {
            severity: "warning",
            ..fault(
                "mtu-mismatch",
                target.in_router(&format!("ip link set {qg} mtu 1400")),
                target.in_router(&format!("ip link set {qg} mtu 1500")),
            )
        },
        Fault {
            severity: "warning",
            ..fault(
                "route-refuses",
                target.inside("ip route add prohibit 198.51.100.0/24"),
                target.inside("ip route del prohibit 198.51.100.0/24"),
            )
        },
        Fault {
            severity: "warning",
            ..fault("gateway-elsewhere", target.inside("ip route replace default via 10.0.0.9"), target.inside(ROUTE))
        },
    ]
}

/// Translation and filters: what rules do to packets.
fn rules(target: &Target) -> Vec<Fault> {
    let Target { floating, fixed, qg, .. } = target;
    let dnat = format!("-d {floating}/32 -j DNAT --to-destination {fixed}");
    let snat = format!("-s {fixed}/32 -j SNAT --to-source {floating} --random-fully");
    let (drop_on, drop_off) = ("iptables -I FORWARD 1 -s 10.0.0.0/24 -j DROP", "iptables -D FORWARD 1");
    vec![
        fault(
            "floating-ip-dnat",
            target.nat("D", &format!("PREROUTING {dnat}")),
            target.nat("A", &format!("PREROUTING {dnat}")),
        ),
        fault(
            "floating-ip-snat",
            target.nat("D", &format!("float-snat {snat}")),
            target.nat("A", &format!("float-snat {snat}")),
        ),
        fault(
            "floating-ip-address",
            target.in_router(&format!("ip addr del {floating}/32 dev {qg}")),
            target.in_router(&format!("ip addr add {floating}/32 dev {qg}")),
        ),
        fault("filter-drop", target.in_router(drop_on), target.in_router(drop_off)),
        fault(
            "filter-drop",
            target.in_router("iptables -I FORWARD 1 -m conntrack --ctstate ESTABLISHED -j DROP"),
            target.in_router(drop_off),
        ),
        fault(
            "filter-drop",
            target.in_router(&format!(
                "sh -c 'ipset create gone hash:ip && ipset add gone {fixed} && \
                 iptables -I FORWARD 1 -m set --match-set gone src -j DROP'"
            )),
            target.in_router("sh -c 'iptables -D FORWARD 1 && ipset destroy gone'"),
        ),
        fault(
            "untracked",
            target.in_router(&format!("iptables -t raw -I PREROUTING -s {fixed} -j CT --notrack")),
            target.in_router("iptables -t raw -D PREROUTING 1"),
        ),
        fault(
            "not-translated",
            target.in_router(&format!("iptables -t raw -I PREROUTING -d {floating} -j CT --notrack")),
            target.in_router("iptables -t raw -D PREROUTING 1"),
        ),
        fault(
            "dnat-elsewhere",
            target
                .in_router(&format!("iptables -t nat -I PREROUTING -d {floating} -j DNAT --to-destination 10.0.0.99")),
            target.in_router("iptables -t nat -D PREROUTING 1"),
        ),
        fault(
            "snat-address",
            target.in_router(&format!("iptables -t nat -I POSTROUTING -s {fixed} -j SNAT --to-source 172.24.4.250")),
            target.in_router("iptables -t nat -D POSTROUTING 1"),
        ),
        fault("filter-drop", target.inside("iptables -A OUTPUT -j DROP"), target.inside("iptables -F OUTPUT")),
        fault("filter-drop", target.inside("iptables -P INPUT DROP"), target.inside("iptables -P INPUT ACCEPT")),
    ]
}

/// Ports of a per-port Linux bridge: what it lets through.
fn bridged(target: &Target) -> Vec<Fault> {
    let tap = &target.tap;
    let qvb = tap.replacen("tap", "qvb", 1);
    let set = |device: &str, what: &str| format!("bridge link set dev {device} {what}");
    let both =
        |on: &str| format!("{} && {}", set(tap, &format!("isolated {on}")), set(&qvb, &format!("isolated {on}")));
    vec![
        fault("isolated-ports", both("on"), both("off")),
        fault("stp-blocked", set(&qvb, "state 0"), set(&qvb, "state 3")),
        fault("stp-blocked", set(tap, "state 0"), set(tap, "state 3")),
        fault(
            "bridge-port-deaf",
            format!("{} && bridge fdb flush dev {tap} master", set(tap, "learning off flood off")),
            set(tap, "learning on flood on"),
        ),
        fault(
            "bridge-port-locked",
            format!("{} && bridge fdb flush dev {tap} master", set(tap, "locked on")),
            set(tap, "locked off"),
        ),
        fault(
            "filter-drop",
            format!("ebtables -A FORWARD -i {tap} -p ARP -j DROP"),
            format!("ebtables -D FORWARD -i {tap} -p ARP -j DROP"),
        ),
        fault(
            "filter-drop",
            format!(
                "nft 'table netdev gone {{ chain c {{ type filter hook ingress device {tap} priority 0; drop; }}; }}'"
            ),
            "nft delete table netdev gone",
        ),
        fault("broadcast-flood-off", set(&qvb, "bcast_flood off"), set(&qvb, "bcast_flood on")),
    ]
}

/// The default route of the instance as nova-docker sets it.
const ROUTE: &str = "ip route replace default via 10.0.0.1";

fn up_down(device: &str, state: &str) -> String {
    format!("ip link set {device} {state}")
}

#[test]
fn a_packet_that_died_is_not_killed_again_by_rules_it_never_meets() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    lab.sh(HOST, &target.in_router(&format!("iptables -t raw -A PREROUTING -d {} -j DROP", target.floating))).ok();
    let trace = lab.trace(HOST, &target.floating);
    let findings = trace["findings"].as_array().expect("findings");
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0]["code"], "filter-drop");
    assert!(
        findings[0]["evidence"]
            .as_str()
            .is_some_and(|rule| rule.ends_with("-j DROP") && rule.contains(&target.floating))
    );
}

#[test]
fn every_fault_is_named_and_a_mended_one_is_gone() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let healthy = lab.trace(HOST, &target.container);
    assert_eq!(healthy["findings"].as_array().map(Vec::len), Some(0), "{healthy:#}");
    each_is_named(&lab, &target, [wiring(&target), routing(&target), rules(&target)].concat());
}

#[test]
fn every_fault_of_a_linux_bridge_is_named_and_a_mended_one_is_gone() {
    let Some(lab) = Lab::up("hybrid") else { return };
    let target = Target::of(&lab, HOST);
    each_is_named(&lab, &target, bridged(&target));
}

/// Makes and mends one fault after the other.
fn each_is_named(lab: &Lab, target: &Target, faults: Vec<Fault>) {
    for Fault { code, severity, make, mend } in faults {
        lab.sh(HOST, &make).ok();
        let said = lab.netdiag(HOST, &["trace", &target.container, "-o", "json"]);
        let trace = said.json();
        let by_address =
            if code.starts_with("floating-ip-") { trace.clone() } else { lab.trace(HOST, &target.floating) };
        lab.sh(HOST, &mend).ok();
        let findings = trace["findings"].as_array().expect("findings");
        let named = findings.iter().find(|finding| finding["code"] == code);
        let named = named.unwrap_or_else(|| panic!("{make}: no {code} in {findings:#?}"));
        assert_eq!(named["severity"], severity, "{make}");
        assert!(named["evidence"].as_str().is_some_and(|evidence| !evidence.is_empty()), "{make}: no evidence");
        // Whatever is broken, the address the tenant knows still means the instance.
        assert_eq!(by_address["instance"]["container_name"], target.container.as_str(), "{make}");
        let expected = if severity == "error" { 3 } else { 0 };
        assert_eq!(said.code, Some(expected), "{make}: {findings:#?}");
    }
    let mended = lab.trace(HOST, &target.container);
    assert_eq!(mended["verdict"], "works", "{mended:#}");
}

#[test]
fn what_is_left_of_an_instance_is_gone_and_what_neutron_made_is_no_instance_without_its_name() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab, HOST);
    let before = lab.netdiag(HOST, &["list", "-o", "json"]).json()["instances"].as_array().map(Vec::len);
    let port = "external_ids:iface-id=9a9a9a9a-0000-4000-8000-000000000009 external_ids:attached-mac=fa:16:3e:00:99:99";
    lab.sh(
        HOST,
        &format!(
            "ip tuntap add tap9a9a9a9a-00 mode tap && ip link set tap9a9a9a9a-00 up && \
             ovs-vsctl add-port br-int tap9a9a9a9a-00 tag=1 -- set interface tap9a9a9a9a-00 {port}"
        ),
    )
    .ok();
    let said = lab.netdiag(HOST, &["trace", "9a9a9a9a", "-o", "json"]);
    let trace = said.json();
    assert_eq!((said.code, &trace["instance"]["state"]), (Some(3), &Value::from("gone")), "{trace:#}");
    assert_eq!(trace["findings"][0]["code"], "port-left-behind", "{trace:#}");
    // Its metadata proxy keeps the namespace alive.
    lab.sh(HOST, &format!("ip netns del {}", target.router)).ok();
    let after = lab.netdiag(HOST, &["list", "-o", "json"]).json()["instances"].as_array().map(Vec::len);
    assert_eq!(after, before.map(|count| count + 1));
    let trace = lab.trace(HOST, &target.container);
    assert_eq!(trace["findings"][0]["code"], "router-unnamed", "{trace:#}");
    // As its dnsmasq does that of the network's DHCP service.
    let name = &trace["interfaces"][0]["dhcp"]["netns"]["name"];
    lab.sh(HOST, &format!("ip netns del {}", name.as_str().expect("a DHCP service"))).ok();
    let after = lab.netdiag(HOST, &["list", "-o", "json"]).json()["instances"].as_array().map(Vec::len);
    assert_eq!(after, before.map(|count| count + 1));
    let trace = lab.trace(HOST, &target.container);
    assert_eq!(trace["interfaces"][0]["dhcp"]["state"], "ok", "{trace:#}");
    let unnamed =
        trace["findings"].as_array().map(|all| all.iter().filter(|one| one["code"] == "dhcp-unnamed").count());
    assert_eq!(unnamed, Some(1), "{trace:#}");
}

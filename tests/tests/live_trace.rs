//! Real packets followed live in a lab: a healthy host gives journeys without a word of blame; a host with a fault names
//! what is guilty, and nothing else.

use std::{thread, time::Duration};

use netdiag_tests::Lab;
use serde_json::Value;

/// Where the instance that is followed runs.
const HOST: &str = "compute-1";

/// An address of the outside world, behind the gateway of the external network.
const OUTSIDE: &str = "203.0.113.10";

/// Names and ids of the instance that is followed.
struct Target {
    name: String,
    pid: String,
    tap: String,
    inner: String,
    fixed: String,
    floating: String,
    router: String,
    qr: String,
    qg: String,
}

impl Target {
    /// The first instance with a floating IP.
    fn of(lab: &Lab) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| panic!("no text: {value}"), str::to_owned);
        let instances = lab.instances(HOST);
        let instance = instances.iter().find(|one| one["ports"][0]["floating_ip"].is_string()).expect("a floating IP");
        let port = &instance["ports"][0];
        let routers = lab.built["routers"].as_array().expect("routers");
        let router = routers.iter().find(|router| router["id"] == port["router"]).expect("its router");
        let inside = router["interfaces"].as_array().expect("interfaces");
        let inside = inside.iter().find(|one| one["network"] == port["network"]).expect("its side");
        Self {
            name: text(&instance["container_name"]),
            pid: instance["pid"].to_string(),
            tap: text(&port["host_devices"][0]),
            inner: text(&port["device"]),
            fixed: text(&port["address"]["address"]),
            floating: text(&port["floating_ip"]),
            router: text(&router["netns"]),
            qr: text(&inside["device"]),
            qg: text(&router["gateway"]["device"]),
        }
    }

    fn inside(&self, command: &str) -> String {
        format!("nsenter -n -t {} {command}", self.pid)
    }

    fn in_router(&self, command: &str) -> String {
        format!("ip netns exec {} {command}", self.router)
    }

    fn ping_out(&self) -> String {
        self.inside(&format!("ping -q -c 3 -i 0.3 -W 1 {OUTSIDE}"))
    }
}

/// Follows the packets of an instance while a command runs.
fn live(lab: &Lab, target: &Target, traffic: &str, words: &[&str]) -> (Option<i32>, Value) {
    let mut all = vec!["trace", &target.name, "--live", "-o", "json", "--cmd", traffic];
    all.extend(words);
    let said = lab.netdiag(HOST, &all);
    (said.code, said.json())
}

/// Follows the packets of an instance while somebody outside sends some.
fn live_from_outside(lab: &Lab, target: &Target, traffic: &str, words: &[&str]) -> (Option<i32>, Value) {
    thread::scope(|scope| {
        // Traffic is there before anybody watches: packets are followed from the middle of a flow.
        let sender = scope.spawn(|| lab.sh("outside", traffic));
        thread::sleep(Duration::from_millis(300));
        let mut all = vec!["trace", &target.name, "--live", "-o", "json"];
        all.extend(words);
        let said = lab.netdiag(HOST, &all);
        // The traffic may have had no answer, which is what some tests are about.
        drop(sender.join().expect("the sender"));
        (said.code, said.json())
    })
}

fn packets(seen: &Value) -> &[Value] {
    seen["packets"].as_array().map_or(&[][..], Vec::as_slice)
}

fn devices(packet: &Value) -> Vec<&str> {
    let steps = packet["steps"].as_array().map_or(&[][..], Vec::as_slice);
    steps.iter().filter_map(|step| step["device"].as_str()).collect()
}

fn is_echo(packet: &Value) -> bool {
    packet["packet"].as_str().is_some_and(|words| words.contains("echo"))
}

/// Every packet of a ping, outward or inward, past these devices, translated once.
fn each_is_whole(seen: &Value, direction: &str, expected: &[&str]) {
    let of = |packet: &&Value| packet["direction"] == direction && is_echo(packet);
    let echoes: Vec<&Value> = packets(seen).iter().filter(of).collect();
    assert!(echoes.len() >= 3, "{direction}: {seen:#}");
    for packet in echoes {
        assert_eq!((devices(packet), &packet["ended"]), (expected.to_vec(), &Value::from("delivered")), "{packet:#}");
        let changes = packet["steps"].as_array().expect("steps").iter().flat_map(|step| step["changes"].as_array());
        assert_eq!(changes.flatten().count(), 1, "{packet:#}");
    }
}

/// No packet died, and nothing is found.
fn is_clean(code: Option<i32>, seen: &Value) {
    assert_eq!((code, &seen["summary"]["verdict"]), (Some(0), &Value::from("works")), "{seen:#}");
    for nothing in ["deaths", "findings"] {
        assert_eq!(seen["summary"][nothing].as_array().map(Vec::len), Some(0), "{seen:#}");
    }
    assert_eq!((&seen["summary"]["lost"], &seen["summary"]["throttled"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn a_healthy_instance_of_neutrons_is_followed_to_the_outside_and_back_without_a_word_of_blame() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab);
    let way = [target.inner.as_str(), &target.tap, &target.qr, &target.qg, "eth1"];
    let back: Vec<&str> = way.iter().rev().copied().collect();
    let (code, seen) = live(&lab, &target, &target.ping_out(), &[]);
    is_clean(code, &seen);
    each_is_whole(&seen, "outward", &way);
    each_is_whole(&seen, "inward", &back);
    let ping = format!("ping -q -i 0.2 -w 20 {}", target.floating);
    let (code, seen) = live_from_outside(&lab, &target, &ping, &["--count", "12"]);
    is_clean(code, &seen);
    each_is_whole(&seen, "inward", &back);
    each_is_whole(&seen, "outward", &way);
}

/// A fault: how it is made and mended, what is sent, and what must be said to be guilty.
struct Fault<'t> {
    make: String,
    mend: String,
    traffic: &'t str,
    code: &'static str,
    /// Words the blame must have.
    says: &'t str,
}

fn faults<'t>(target: &'t Target, ping: &'t str, refused: &'t str, big: &'t str) -> Vec<Fault<'t>> {
    let Target { tap, qr, qg, fixed, inner, .. } = target;
    let fault = |make: String, mend: String, code, says| Fault { make, mend, traffic: ping, code, says };
    vec![
        fault(
            target.in_router(&format!("iptables -I FORWARD 1 -s {fixed} -p icmp -j DROP")),
            target.in_router("iptables -D FORWARD 1"),
            "filter-rule",
            "-p icmp -j DROP",
        ),
        fault(
            target.in_router(&format!("iptables -t raw -I PREROUTING 1 -s {fixed} -j DROP")),
            target.in_router("iptables -t raw -D PREROUTING 1"),
            "filter-rule",
            "rule 1 of raw PREROUTING",
        ),
        fault(
            target.inside("iptables -A OUTPUT -p icmp -j DROP"),
            target.inside("iptables -F OUTPUT"),
            "filter-rule",
            "-A OUTPUT -p icmp -j DROP",
        ),
        fault(
            target.in_router("sysctl -qw net.ipv4.ip_forward=0"),
            target.in_router("sysctl -qw net.ipv4.ip_forward=1"),
            "",
            "does not forward",
        ),
        fault(
            target.in_router("ip route replace unreachable default"),
            target.in_router(&format!("ip route replace default via 172.24.4.1 dev {qg}")),
            "",
            "no way to the outside",
        ),
        fault(
            target.in_router(&format!("ip route replace default via 172.24.4.99 dev {qg}")),
            target.in_router(&format!("ip route replace default via 172.24.4.1 dev {qg}")),
            "kernel-drop",
            "does not answer ARP",
        ),
        fault(
            format!("ovs-vsctl set port {tap} tag=77"),
            format!("ovs-vsctl set port {tap} tag=1"),
            "path-fault",
            "77",
        ),
        fault(
            format!("ovs-vsctl set port {tap} tag=4095"),
            format!("ovs-vsctl set port {tap} tag=1"),
            "path-fault",
            "dead VLAN",
        ),
        fault(
            format!("ovs-ofctl add-flow br-int 'priority=500,in_port={tap},icmp,actions=drop'"),
            "ovs-ofctl --strict del-flows br-int 'priority=500,icmp,in_port='$(ovs-vsctl get interface ".to_owned()
                + tap
                + " ofport)",
            "switch-flow",
            "priority 500",
        ),
        fault(format!("ip link set {tap} down"), format!("ip link set {tap} up"), "", "switched off"),
        fault(
            target.in_router(&format!("ip link set {qr} down")),
            target.in_router(&format!("sh -c 'ip link set {qr} up; ip route replace default via 172.24.4.1 dev {qg}'")),
            "",
            "switched off",
        ),
        fault(
            target.inside(&format!("ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:99 dev {inner} nud permanent")),
            target.inside(&format!("ip neigh del 10.0.0.1 dev {inner}")),
            "",
            "02:00:00:00:00:99",
        ),
        Fault { traffic: refused, ..fault("true".to_owned(), "true".to_owned(), "kernel-drop", "nobody listens") },
        Fault {
            traffic: big,
            ..fault(
                target.in_router(&format!("ip link set {qg} mtu 1400")),
                target.in_router(&format!("ip link set {qg} mtu 1500")),
                "kernel-drop",
                "bigger than the next device",
            )
        },
    ]
}

/// What was said of packets that died.
fn blames(seen: &Value) -> Vec<&Value> {
    seen["summary"]["deaths"].as_array().map_or(&[][..], Vec::as_slice).iter().map(|deaths| &deaths["blame"]).collect()
}

#[test]
fn every_fault_is_found_by_real_packets_and_names_what_is_guilty() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab);
    let ping = target.ping_out();
    // The instance sends to a port of its own address through the router, where its floating IP leads back.
    let refused = target.inside("timeout 2 sh -c 'nc -w 1 127.0.0.1 9; nc -w 1 10.0.0.2 9; true'");
    let big = target.inside(&format!("ping -q -c 3 -i 0.3 -W 1 -s 1410 -M do {OUTSIDE}"));
    let mut wrong = Vec::new();
    for Fault { make, mend, traffic, code, says } in faults(&target, &ping, &refused, &big) {
        if make == "true" {
            continue;
        }
        lab.sh(HOST, &make).ok();
        let (exit, seen) = live(&lab, &target, traffic, &[]);
        lab.sh(HOST, &mend).ok();
        let blames = blames(&seen);
        let fits = |blame: &&Value| {
            let said = blame["sentence"].as_str().is_some_and(|sentence| sentence.contains(says))
                || blame["guilty"].as_str().is_some_and(|guilty| guilty.contains(says));
            said && (code.is_empty() || blame["code"] == code)
        };
        if exit != Some(3) || !blames.iter().any(|blame| fits(blame)) {
            wrong.push(format!("{make}: exit {exit:?}, wanted {code} {says:?}, said {blames:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
    let (code, seen) = live(&lab, &target, &ping, &[]);
    is_clean(code, &seen);
}

#[test]
fn a_capture_file_is_one_that_others_can_read() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let target = Target::of(&lab);
    let traffic = target.ping_out();
    let line = format!(
        "{} trace {} --live -o pcapng --cmd '{traffic}' > /tmp/live.pcapng; tcpdump -nr /tmp/live.pcapng 2>/dev/null | grep -c 'ICMP echo'",
        lab.binary(),
        target.name
    );
    let said = lab.sh(HOST, &line);
    let count: u32 = said.out.trim().parse().unwrap_or_else(|_| panic!("{said:#?}"));
    // Three requests and three answers, at five devices each.
    assert_eq!(count, 30, "{said:#?}");
}

use netdiag_common::abi::floating::StationKey;

use super::{Straight, straight};
use crate::{
    fact::{BridgePortFact, BridgePortState, LinkDetail, ProgramFact, ProgramHook},
    id::LinkKey,
    inventory::Inventory,
    policy::types::{Attached, Hook, Mode, PortId},
    testing::{Host, mac},
};

const ONE: &str = "02:00:00:00:00:01";
const TWO: &str = "02:00:00:00:00:02";

/// What is done to the host.
type Change = fn(&mut Pair);

/// A host with two instances at a bridge.
struct Pair {
    host: Host,
    taps: [LinkKey; 2],
    bridge: LinkKey,
    ports: Vec<Attached>,
}

fn pair() -> Pair {
    let mut host = Host::new();
    let id = host.id;
    let taps = ["tap1", "tap2"].map(|name| host.link(id, name, Some("veth")));
    let bridge = host.bridge(id, "br0", &taps);
    for tap in taps {
        let port = BridgePortFact { state: BridgePortState::Forwarding, ..BridgePortFact::default() };
        host.edit(tap).bridge_port = Some(port);
    }
    host.edit(bridge).detail =
        LinkDetail::Bridge { stp: false, vlan_filtering: false, ageing: 300, nf_call_iptables: false };
    let ports = taps.iter().zip([ONE, TWO]).map(|(tap, address)| attached(*tap, address)).collect();
    Pair { host, taps, bridge, ports }
}

fn attached(tap: LinkKey, address: &str) -> Attached {
    Attached {
        id: PortId(address.to_owned()),
        ifindex: tap.ifindex.0,
        mac: mac(address),
        fixed_ips: [].into(),
        pairs: [].into(),
        groups: vec![],
        mode: Mode::Filtered,
        hook: Hook::Tc,
        log_allowed: false,
    }
}

fn of(pair: Pair) -> Straight {
    let Pair { host, ports, .. } = pair;
    straight(&Inventory::build(&host.snapshot()), &ports)
}

#[test]
fn two_instances_at_a_bridge_send_to_each_other_past_it() {
    let pair = pair();
    let (network, devices) = (pair.bridge.ifindex.0, pair.taps.map(|tap| tap.ifindex.0));
    let found = of(pair);
    assert_eq!(found.networks, devices.map(|device| (device, network)).into());
    let station = |address: &str| StationKey { network, mac: mac(address).0, pad: [0; 2] };
    assert_eq!(found.stations, [(station(ONE), devices[0]), (station(TWO), devices[1])].into());
}

#[test]
fn what_somebody_else_has_to_see_or_may_stop_goes_over_the_bridge() {
    let changes: [(&str, Change); 10] = [
        ("not held to its groups", |pair| pair.ports[0].mode = Mode::Trusted),
        ("met at XDP", |pair| pair.ports[0].hook = Hook::Xdp),
        ("isolated", |pair| port(pair).isolated = true),
        ("locked", |pair| port(pair).locked = true),
        ("blocked", |pair| port(pair).state = BridgePortState::Blocking),
        ("somebody looks at all that crosses it", |pair| pair.host.edit(pair.bridge).promiscuity = 1),
        ("VLANs", |pair| {
            pair.host.edit(pair.bridge).detail =
                LinkDetail::Bridge { stp: false, vlan_filtering: true, ageing: 300, nf_call_iptables: false };
        }),
        ("a rule about frames", |pair| {
            let id = pair.host.id;
            pair.host.nft(id, "bridge", r#""hook": "forward""#, &[r#"[{"drop": null}]"#]);
        }),
        ("iptables drops", |pair| {
            let id = pair.host.id;
            pair.host.sysctl(id, "net.bridge.bridge-nf-call-iptables", "1");
            pair.host.rules(id, "*filter\n:FORWARD DROP [0:0]\nCOMMIT\n");
        }),
        ("another program", |pair| {
            let Pair { host, taps: [tap, _], .. } = pair;
            let program = ProgramFact {
                netns: tap.netns,
                ifindex: tap.ifindex,
                hook: ProgramHook::TcxIngress,
                id: Some(7),
                name: "meter".to_owned(),
                priority: None,
                xdp_mode: None,
            };
            host.facts.programs.push(program);
        }),
    ];
    for (what, change) in changes {
        let mut pair = pair();
        change(&mut pair);
        assert_eq!(of(pair), Straight::default(), "{what}");
    }
}

fn port(pair: &mut Pair) -> &mut BridgePortFact {
    pair.host.edit(pair.taps[0]).bridge_port.as_mut().expect("it is at a bridge")
}

#[test]
fn iptables_that_lets_everything_pass_need_not_see_it() {
    let mut pair = pair();
    let id = pair.host.id;
    pair.host.sysctl(id, "net.bridge.bridge-nf-call-iptables", "1");
    pair.host.rules(id, "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -i br0 -o br0 -j ACCEPT\nCOMMIT\n");
    assert_eq!(of(pair).stations.len(), 2);
}

#[test]
fn a_mac_address_that_two_ports_have_is_nobodys() {
    let mut pair = pair();
    pair.ports[1].mac = pair.ports[0].mac;
    assert_eq!(of(pair).stations.len(), 0);
}

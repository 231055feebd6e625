//! Rules against a walk through them: whatever order and more rules there are, a floating IP that is let through is translated
//! by the walk as the fast way would, both directions.

use std::net::{IpAddr, Ipv4Addr};

use proptest::{collection, prelude::*, sample::select};

use super::{
    super::rules::{Rules, Through, read},
    FIXED, FLOATING, site,
};
use crate::{
    id::NetnsId,
    inventory::Inventory,
    netfilter::{Address, Bits, Hook, Known, Outcome, Packet, Ruleset, walk::Walk, walk::walk},
    testing::{Host, ROUTER},
};

/// Rules that may be there too, harmless or not, with their tables.
const MORE: [(&str, &str); 18] = [
    ("filter", "-A FORWARD -j DROP"),
    ("filter", "-A FORWARD -s 10.0.0.0/24 -j DROP"),
    ("filter", "-A FORWARD -d 10.0.0.2/32 -p tcp -j REJECT"),
    ("filter", "-A neutron-l3-agent-FORWARD -m state --state ESTABLISHED -j ACCEPT"),
    ("filter", "-A neutron-l3-agent-scope -o qg-1 -m mark ! --mark 0x4000000/0xffff0000 -j DROP"),
    ("filter", "-A neutron-l3-agent-scope -o qr-1 -m mark ! --mark 0x5000000/0xffff0000 -j DROP"),
    ("filter", "-A neutron-l3-agent-scope -m mark --mark 0x2/0xffff -j DROP"),
    ("nat", "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.9"),
    ("nat", "-A neutron-l3-agent-PREROUTING -d 172.24.4.9/32 -j DNAT --to-destination 10.0.0.9"),
    (
        "nat",
        "-A neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.0.9:22",
    ),
    ("nat", "-A neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.7"),
    ("nat", "-A neutron-l3-agent-POSTROUTING -s 10.0.0.0/24 -o qg-1 -j MASQUERADE"),
    ("nat", "-A neutron-l3-agent-POSTROUTING ! -o qg-2 -m conntrack ! --ctstate DNAT -j ACCEPT"),
    ("nat", "-A neutron-l3-agent-POSTROUTING -o qg-1 -j SNAT --to-source 172.24.4.2"),
    (
        "nat",
        "-A neutron-l3-agent-snat -m mark ! --mark 0x3/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source 172.24.4.3",
    ),
    ("mangle", "-A neutron-l3-agent-PREROUTING -i qg-1 -j MARK --set-xmark 0x3/0xffff"),
    ("mangle", "-A neutron-l3-agent-floatingip -d 172.24.4.6/32 -j MARK --set-xmark 0x5000000/0xffff0000"),
    ("mangle", "-A neutron-l3-agent-FORWARD -s 10.0.0.2/32 -j neutron-l3-agent-float-snat"),
];

/// The rules of a router with more of them, each put in at a place of its table, and some lines left out.
fn text(more: &[((&str, &str), usize)], without: &[usize]) -> String {
    let mut lines: Vec<String> = site::rules("qg-1", "qr-1", "172.24.4.6").lines().map(str::to_owned).collect();
    let added: Vec<usize> = (0..lines.len()).filter(|place| lines[*place].starts_with("-A ")).collect();
    for place in without.iter().map(|place| added[place % added.len()]) {
        lines[place].clear();
    }
    for ((table, rule), place) in more {
        let start = lines.iter().position(|line| *line == format!("*{table}")).unwrap();
        let end = start + lines[start..].iter().position(|line| line == "COMMIT").unwrap();
        let first = start + lines[start..end].iter().position(|line| line.starts_with("-A ")).unwrap_or(end - start);
        lines.insert(first + place % (end - first + 1), (*rule).to_owned());
    }
    lines.join("\n") + "\n"
}

fn through(inventory: &Inventory<'_>, netns: NetnsId, hooks: &[Hook], packet: Packet, out: &str) -> Vec<Walk> {
    let rulesets: Vec<&Ruleset> = inventory.rulesets(netns).iter().collect();
    let mut walks: Vec<Walk> = Vec::new();
    let mut packet = packet;
    for hook in hooks {
        if *hook != Hook::Prerouting {
            packet.out_device = Known::Is(out.to_owned());
        }
        let walked = walk(&rulesets, *hook, packet);
        packet = walked.packet.clone();
        walks.push(walked);
    }
    walks
}

/// A new packet that comes in by a device, of which nothing but its addresses is known.
fn new(by: &str, source: Address, destination: Address) -> Packet {
    Packet {
        in_device: Known::Is(by.to_owned()),
        to_local: Known::Is(false),
        mark: Bits::is(0),
        connmark: Bits::is(0),
        ..Packet::between(source, destination)
    }
}

fn is(address: Ipv4Addr) -> Address {
    Address::Is(IpAddr::V4(address))
}

fn lets_through(rules: &Rules) -> bool {
    let way = Through { outer: "qg-1", inner: "qr-1", floating: FLOATING, fixed: FIXED };
    rules.arrives.get(&FLOATING) == Some(&FIXED)
        && rules.leaves.get(&FIXED) == Some(&FLOATING)
        && !rules.forwarded.contains_key(&FLOATING)
        && rules.let_through("router", way).is_ok()
}

const HOOKS: [Hook; 3] = [Hook::Prerouting, Hook::Forward, Hook::Postrouting];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn what_is_let_through_is_translated_by_the_router_as_past_it(
        more in collection::vec((select(&MORE[..]), any::<usize>()), 0..3),
        without in collection::vec(any::<usize>(), 0..2),
    ) {
        let mut host = Host::new();
        let netns = host.netns(&[&format!("qrouter-{ROUTER}")]);
        host.rules(netns, &text(&more, &without));
        let snapshot = host.snapshot();
        let inventory = Inventory::build(&snapshot);
        let fast = read(&inventory, netns, false).is_ok_and(|rules| lets_through(&rules));
        prop_assert!(fast || !(more.is_empty() && without.is_empty()), "rules as Neutron leaves them are understood");
        if fast {
            let inward = through(&inventory, netns, &HOOKS, new("qg-1", Address::Outside, is(FLOATING)), "qr-1");
            for walked in &inward {
                prop_assert_eq!(&walked.outcome, &Outcome::Accept, "{:?} {:?}", walked.steps, text(&more, &without));
            }
            prop_assert_eq!(inward[2].packet.destination, is(FIXED), "{}", text(&more, &without));
            prop_assert_eq!(inward[2].packet.source, Address::Outside, "{}", text(&more, &without));
            let outward = through(&inventory, netns, &HOOKS, new("qr-1", is(FIXED), Address::Outside), "qg-1");
            for walked in &outward {
                prop_assert_eq!(&walked.outcome, &Outcome::Accept, "{:?} {:?}", walked.steps, text(&more, &without));
            }
            prop_assert_eq!(outward[2].packet.source, is(FLOATING), "{}", text(&more, &without));
        }
    }
}

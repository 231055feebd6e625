//! Whom a rule is about: prefixes, groups, address groups.

use serde_json::json;

use super::{Case, case};
use crate::behaviour::{
    Family::{V4, V6},
    Way::{In, Out},
    World,
    policy::rules,
};

pub(super) const CASES: &[Case] = &[
    case("a remote prefix is the network its address is in", prefix),
    case("a remote prefix of one address is that address", one_address),
    case("the prefix of everything is everybody", everybody),
    case("a remote group is the fixed addresses of its ports, wherever they are", group),
    case("allowed addresses of a member are members, prefixes too", pairs_of_members),
    case("a group that trusts itself lets its members talk", itself),
    case("a remote group without members is nobody", nobody),
    case("a member that is added is let in, and one that is taken away is cut off", members),
    case("an address group is its prefixes, and follows their change", address_group),
];

fn prefix(world: &mut World) {
    world.policy(&rules(&["ingress 4 udp from 10.77.0.99/24", "egress 6 udp to fd77::99/64"]));
    world.udp(In, V4, 53, "rule");
    world.udp(Out, V6, 53, "rule");
    world.packets(In, V4, "rule", |packet| packet.from("10.77.0.255").udp(1, 2));
    world.packets(In, V4, "no-rule", |packet| packet.from("10.77.1.0").udp(1, 2));
    world.packets(In, V4, "no-rule", |packet| packet.from("10.76.255.255").udp(1, 2));
    world.packets(Out, V6, "no-rule", |packet| packet.to("fd77:0:0:1::").udp(1, 2));
    world.packets(Out, V6, "rule", |packet| packet.to("fd77::ffff:ffff:ffff:ffff").udp(1, 2));
    // The prefix is that of the other end.
    world.udp(Out, V4, 53, "no-rule");
}

fn one_address(world: &mut World) {
    world.policy(&rules(&["ingress 4 udp from 10.77.0.3/32", "ingress 6 udp from fd77::3"]));
    for family in [V4, V6] {
        world.udp(In, family, 53, "rule");
    }
    world.packets(In, V4, "no-rule", |packet| packet.from("10.77.0.4").udp(1, 2));
    world.packets(In, V6, "no-rule", |packet| packet.from("fd77::4").udp(1, 2));
}

fn everybody(world: &mut World) {
    world.policy(&rules(&["ingress 4 udp from 0.0.0.0/0", "ingress 6 udp from ::/0"]));
    world.udp(In, V4, 53, "rule");
    world.udp(In, V6, 53, "rule");
    world.packets(In, V4, "rule", |packet| packet.from("203.0.113.1").udp(1, 2));
    world.packets(In, V6, "rule", |packet| packet.from("2001:db8::1").udp(1, 2));
}

/// A port of another host with a group.
fn elsewhere(fixed: &[&str], pairs: &[&str]) -> serde_json::Value {
    let list =
        |addresses: &[&str]| addresses.iter().map(|address| json!({ "ip_address": address })).collect::<Vec<_>>();
    json!([{ "id": "elsewhere", "mac_address": "fa:16:3e:00:00:99", "security_groups": ["friends"],
             "fixed_ips": list(fixed), "allowed_address_pairs": list(pairs) }])
}

fn group(world: &mut World) {
    let policy = rules(&["ingress 4 udp group friends", "egress 6 udp group friends"]).other("friends", &[]);
    world.policy(&policy.with("ports", elsewhere(&["10.77.0.3", "fd77::3"], &[])));
    world.udp(In, V4, 53, "rule");
    world.udp(Out, V6, 53, "rule");
    world.packets(In, V4, "no-rule", |packet| packet.from("10.77.0.4").udp(1, 2));
    world.packets(Out, V6, "no-rule", |packet| packet.to("fd77::4").udp(1, 2));
    world.tcp(In, V4, 53, "no-rule");
    world.udp(In, V6, 53, "no-rule");
}

fn pairs_of_members(world: &mut World) {
    let policy = rules(&["ingress 4 udp group friends", "ingress 6 udp group friends"]).other("friends", &[]);
    world.policy(&policy.clone().with("ports", elsewhere(&["10.77.0.9"], &["192.0.2.0/28", "2001:db8::/64"])));
    world.packets(In, V4, "rule", |packet| packet.from("10.77.0.9").udp(1, 2));
    world.packets(In, V4, "rule", |packet| packet.from("192.0.2.15").udp(1, 2));
    world.packets(In, V4, "no-rule", |packet| packet.from("192.0.2.16").udp(1, 2));
    world.packets(In, V6, "rule", |packet| packet.from("2001:db8::1").udp(1, 2));
    world.packets(In, V6, "no-rule", |packet| packet.from("2001:db8:0:1::1").udp(1, 2));
    world.policy(&policy.with("ports", elsewhere(&["10.77.0.9"], &["0.0.0.0/0"])));
    world.packets(In, V4, "rule", |packet| packet.from("203.0.113.1").udp(1, 2));
    world.packets(In, V6, "no-rule", |packet| packet.from("2001:db8:0:1::1").udp(1, 2));
}

fn itself(world: &mut World) {
    let policy = rules(&["egress 4 any", "egress 6 any", "ingress 4 any group g", "ingress 6 any group g"]);
    let mut peer = elsewhere(&["10.77.0.3", "fd77::3"], &[]);
    world.policy(&policy);
    world.tcp(In, V4, 88, "no-rule");
    world.tcp(Out, V6, 88, "rule");
    peer[0]["security_groups"] = json!(["g"]);
    world.policy(&policy.with("ports", peer));
    world.tcp(In, V4, 88, "rule");
    world.tcp(In, V6, 88, "rule");
    world.ping(In, V4, "rule");
    world.packets(In, V4, "no-rule", |packet| packet.from("10.77.0.4").udp(1, 2));
}

fn nobody(world: &mut World) {
    world.policy(&rules(&["ingress 4 any group friends", "egress 6 any group friends"]).other("friends", &[]));
    world.tcp(In, V4, 88, "no-rule");
    world.udp(Out, V6, 53, "no-rule");
}

fn members(world: &mut World) {
    world.policy(&rules(&["ingress 4 tcp 88 group friends", "ingress 6 tcp 88 group friends"]).other("friends", &[]));
    let path = "/v1/security-groups/friends/members";
    world.tcp(In, V4, 88, "no-rule");
    world.api("PUT", path, &json!(["10.77.0.3"]));
    let connection = world.connect(In, V4, 88, std::time::Duration::from_secs(10)).expect("a connection");
    connection.talk();
    world.tcp(In, V6, 88, "no-rule");
    world.api("PUT", path, &json!(["10.77.0.3", "fd77::/16"]));
    world.tcp(In, V6, 88, "rule");
    connection.talk();
    world.api("PUT", path, &json!(["fd77::/16"]));
    super::state::is_cut(world, &connection, In);
    world.tcp(In, V4, 88, "no-rule");
    world.tcp(In, V6, 88, "rule");
    world.api("PUT", path, &json!(["10.77.0.3"]));
    world.tcp(In, V4, 88, "rule");
    super::state::goes_on(&connection);
}

fn address_group(world: &mut World) {
    let group = |addresses: &[&str]| json!([{ "id": "office", "addresses": addresses }]);
    let policy = rules(&["ingress 4 udp addresses office", "ingress 6 udp addresses office"]);
    world.policy(&policy.clone().with("address_groups", group(&["10.77.0.2/31", "2001:db8::/32"])));
    world.udp(In, V4, 53, "rule");
    world.packets(In, V4, "no-rule", |packet| packet.from("10.77.0.4").udp(1, 2));
    world.packets(In, V6, "rule", |packet| packet.from("2001:db8::5").udp(1, 2));
    world.udp(In, V6, 53, "no-rule");
    world.policy(&policy.with("address_groups", group(&["10.77.0.4", "fd77::3/128"])));
    world.packets(In, V4, "rule", |packet| packet.from("10.77.0.4").udp(1, 2));
    world.udp(In, V4, 53, "no-rule");
    world.udp(In, V6, 53, "rule");
    world.packets(In, V6, "revoked", |packet| packet.from("2001:db8::5").udp(1, 2));
}

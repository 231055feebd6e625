//! Every instance of the labs that look as Neutron leaves a host, `neutron-ovs`, `hybrid`, `dvr` and `vm`, traced and
//! compared with what was built and with what `ip`, `ovs-vsctl` and `iptables-save` say.

use netdiag_tests::Lab;
use serde_json::{Value, json};

/// A field that must be text.
#[track_caller]
fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no text in {field}: {value:#}"))
}

/// The element of a list whose field has a value.
#[track_caller]
fn find<'v>(list: &'v Value, field: &str, wanted: &Value) -> &'v Value {
    let all = list.as_array().unwrap_or_else(|| panic!("no list: {list:#}"));
    all.iter().find(|one| one[field] == *wanted).unwrap_or_else(|| panic!("no {field} {wanted} in {list:#}"))
}

/// `10.0.0.2/24` from the inventory's address and prefix.
fn cidr(value: &Value) -> String {
    format!("{}/{}", text(value, "address"), value["prefix"])
}

fn hops<'v>(interface: &'v Value, direction: &str) -> Vec<&'v Value> {
    let all = interface["hops"].as_array().expect("hops");
    all.iter().filter(|hop| hop["direction"] == direction).collect()
}

/// Kinds of the hops of a direction, in order.
fn kinds(interface: &Value, direction: &str) -> Vec<String> {
    hops(interface, direction).iter().map(|hop| text(hop, "kind").to_owned()).collect()
}

#[test]
fn every_instance_plugged_into_br_int_is_traced_as_it_was_built() {
    every_instance_is_traced_as_it_was_built("neutron-ovs");
}

#[test]
fn every_instance_behind_a_hybrid_plug_is_traced_as_it_was_built() {
    every_instance_is_traced_as_it_was_built("hybrid");
}

#[test]
fn every_instance_behind_a_distributed_router_is_traced_as_it_was_built() {
    every_instance_is_traced_as_it_was_built("dvr");
}

#[test]
fn every_virtual_machine_is_traced_as_it_was_built() {
    every_instance_is_traced_as_it_was_built("vm");
}

/// What an instance is asked for by.
fn name(instance: &Value) -> &str {
    text(instance, if is_machine(instance) { "name" } else { "container_name" })
}

fn is_machine(instance: &Value) -> bool {
    instance["machine"].is_object()
}

fn every_instance_is_traced_as_it_was_built(profile: &str) {
    let Some(lab) = Lab::up(profile) else { return };
    let mut traced = 0;
    for host in lab.hosts() {
        for instance in lab.instances(&host) {
            let trace = lab.trace(&host, name(&instance));
            assert_eq!(trace["verdict"], "works", "{trace:#}");
            let findings = trace["findings"].as_array().expect("findings");
            let faults = findings.iter().filter(|finding| finding["severity"] != "info").count();
            assert_eq!(faults, 0, "a healthy lab has no fault: {findings:#?}");
            assert_eq!(trace["gaps"], json!([]));
            for field in ["container_id", "container_name", "pid"] {
                assert_eq!(trace["instance"][field], instance[field], "{field}");
            }
            assert_eq!(trace["instance"]["nova_uuid"], instance["uuid"]);
            let named = if is_machine(&instance) { "libvirt_name" } else { "hostname" };
            assert_eq!(trace["instance"][named], instance["name"]);
            let ports = instance["ports"].as_array().expect("ports");
            assert_eq!(trace["interfaces"].as_array().map(Vec::len), Some(ports.len()));
            for port in ports {
                let interface = find(&trace["interfaces"], "port_id", &port["id"]);
                as_built(&lab, &host, (&instance, port), interface);
                as_the_tools_say(&lab, &host, (&instance, port), interface);
                security_groups(port, interface);
                traced += 1;
            }
        }
    }
    assert!(traced >= 9, "only {traced} interfaces were traced");
}

/// What the lab knows because it made it.
fn as_built(lab: &Lab, host: &str, (instance, port): (&Value, &Value), interface: &Value) {
    for (ours, theirs) in
        [("mac", "mac"), ("vlan_tag", "vlan_tag"), ("segmentation_id", "segmentation_id"), ("network_id", "network")]
    {
        assert_eq!(interface[ours], port[theirs], "{ours}");
    }
    let bridge = if port["linux_bridge"].is_string() { &port["linux_bridge"] } else { &port["bridge"] };
    assert_eq!(interface["bridge"], *bridge);
    assert_eq!(interface["host_device"], port["host_devices"][0]);
    let network = find(&lab.built["networks"], "id", &port["network"]);
    dhcp(host, network, interface);
    let router = find(&lab.built["routers"], "id", &port["router"]);
    let local = router["distributed"]["locals"].as_array().into_iter().flatten().find(|local| local["host"] == host);
    let served = router["host"] == host || local.is_some();
    if is_machine(instance) {
        inside_a_guest((port, served), interface);
    } else {
        assert_eq!(interface["device"], port["device"]);
        assert_eq!(interface["addresses"], json!([cidr(&port["address"])]));
    }
    // Which card a guest's default route takes cannot be seen from its host.
    let default = is_machine(instance) || instance["ports"].as_array().and_then(|all| all.last()) == Some(port);
    match local {
        _ if !served => routed_elsewhere(interface),
        Some(local) if default => {
            router_as_built(router, port, interface);
            routed_by_parts(lab, (router, local), port, interface);
        }
        Some(_) | None => routed_here(router, (port, default), interface),
    }
}

/// What a host knows of a guest's card: its address from those it talked to, where they are here.
fn inside_a_guest((port, routed): (&Value, bool), interface: &Value) {
    assert_eq!(interface["device"], Value::Null);
    let learned = json!([format!("{}/32", text(&port["address"], "address"))]);
    assert_eq!(interface["addresses"], if routed { learned } else { json!([]) });
}

fn router_as_built(router: &Value, port: &Value, interface: &Value) {
    assert_eq!(interface["router"]["netns"]["name"], router["netns"]);
    assert_eq!(interface["router"]["id"], router["id"]);
    let inside = find(&router["interfaces"], "network", &port["network"]);
    assert_eq!(interface["router"]["internal_device"], inside["device"]);
    assert_eq!(interface["metadata"]["netns"]["name"], router["netns"]);
}

/// A distributed router: a floating IP goes by the host's own `fip-` namespace, everything else by the one of source NAT.
fn routed_by_parts(lab: &Lab, (router, local): (&Value, &Value), port: &Value, interface: &Value) {
    let outward = hops(interface, "outward");
    let last = outward.last().expect("hops");
    let routers: Vec<_> = outward.iter().filter(|hop| hop["kind"] == "router").map(|hop| &hop["name"]).collect();
    let fip = find(&lab.built["fip_namespaces"], "host", &local["host"]);
    let nat = outward.iter().find(|hop| hop["kind"] == "nat").map(|hop| text(hop, "name").to_owned());
    let snat = &router["distributed"]["snat"];
    if port["floating_ip"].is_string() {
        assert_eq!(routers, [&router["netns"], &fip["netns"]]);
        assert_eq!(nat, Some(format!("SNAT to {}", text(port, "floating_ip"))));
        assert_eq!(interface["router"]["external_device"], local["router_end"]["device"]);
        assert_eq!(last["name"], "172.24.4.1");
        assert_eq!(interface["floating_ips"].as_array().map(Vec::len), Some(1));
        assert_eq!(interface["floating_ips"][0]["address"], port["floating_ip"]);
        assert_eq!(interface["floating_ips"][0]["device"], fip["gateway"]["device"]);
        let inward = hops(interface, "inward");
        let routers = inward.iter().filter(|hop| hop["kind"] == "router").map(|hop| &hop["name"]);
        assert_eq!(routers.collect::<Vec<_>>(), [&fip["netns"], &router["netns"]]);
        assert_eq!((&inward[0]["kind"], &inward[inward.len() - 1]["kind"]), (&json!("outside"), &json!("instance")));
        return;
    }
    assert_eq!(interface["floating_ips"], json!([]));
    assert_eq!(hops(interface, "inward").len(), 0);
    if router["host"] == local["host"] {
        assert_eq!(routers, [&router["netns"], &snat["netns"]]);
        assert_eq!(nat, Some(format!("SNAT to {}", text(&router["gateway"]["address"], "address"))));
        assert_eq!(interface["router"]["external_device"], router["gateway"]["device"]);
        assert_eq!(last["name"], "172.24.4.1");
    } else {
        assert_eq!((routers, nat), (vec![&router["netns"]], None));
        assert_eq!(outward[outward.len() - 2]["kind"], "tunnel");
        let central = find(&snat["ports"], "network", &port["network"]);
        assert_eq!(last["name"], central["address"]["address"]);
    }
}

fn dhcp(host: &str, network: &Value, interface: &Value) {
    if network["dhcp"]["host"] != host {
        assert_eq!(interface["dhcp"], Value::Null);
        return;
    }
    assert_eq!(interface["dhcp"]["netns"]["name"], network["dhcp"]["netns"]);
    assert_eq!(interface["dhcp"]["device"], network["dhcp"]["device"]);
    assert_eq!(interface["dhcp"]["state"], "ok");
}

fn routed_here(router: &Value, (port, default): (&Value, bool), interface: &Value) {
    router_as_built(router, port, interface);
    let outward = hops(interface, "outward");
    if !default {
        // The instance's default route leaves by its last card; by this one it reaches its own subnet.
        assert_eq!(outward.last().expect("hops")["status"], "this segment");
        return;
    }
    assert_eq!(interface["router"]["external_device"], router["gateway"]["device"]);
    let nat = outward.iter().find(|hop| hop["kind"] == "nat").expect("a translation on the way out");
    let gateway = json!(text(&router["gateway"]["address"], "address"));
    let source = if port["floating_ip"].is_null() { &gateway } else { &port["floating_ip"] };
    assert_eq!(nat["name"], format!("SNAT to {}", source.as_str().expect("an address")));
    assert_eq!(outward.last().expect("hops")["name"], "172.24.4.1");
    if port["floating_ip"].is_null() {
        assert_eq!(interface["floating_ips"], json!([]));
        assert_eq!(hops(interface, "inward").len(), 0);
    } else {
        assert_eq!(interface["floating_ips"][0]["address"], port["floating_ip"]);
        assert_eq!(interface["floating_ips"][0]["device"], router["gateway"]["device"]);
        assert_eq!(interface["floating_ips"].as_array().map(Vec::len), Some(1));
        let inward = kinds(interface, "inward");
        assert_eq!(inward.first().map(String::as_str), Some("outside"));
        assert_eq!(inward.last().map(String::as_str), Some("instance"));
        assert!(inward.contains(&"nat".to_owned()), "{inward:?}");
    }
}

/// A network whose router is on another host leaves by the tunnel.
fn routed_elsewhere(interface: &Value) {
    assert_eq!(interface["router"], Value::Null);
    let outward = kinds(interface, "outward");
    assert_eq!(outward[outward.len() - 2..], ["tunnel", "next-hop"], "{outward:?}");
}

/// What the tools an operator would use say.
fn as_the_tools_say(lab: &Lab, host: &str, (instance, port): (&Value, &Value), interface: &Value) {
    let tap = port["host_devices"].as_array().and_then(|all| all.last()).and_then(Value::as_str).expect("a device");
    assert_eq!(lab.on(host, &["ovs-vsctl", "get", "port", tap, "tag"]).ok().trim(), interface["vlan_tag"].to_string());
    assert_eq!(lab.on(host, &["ovs-vsctl", "port-to-br", tap]).ok().trim(), port["bridge"]);
    let id = lab.on(host, &["ovs-vsctl", "--bare", "get", "interface", tap, "external_ids:iface-id"]).ok();
    assert_eq!(id.trim().trim_matches('"'), interface["port_id"]);
    let links = lab.inside(instance, &["ip", "-j", "addr"]).json();
    let link = find(&links, "ifname", &port["device"]);
    assert_eq!(link["address"], interface["mac"]);
    let ipv4 = find(&link["addr_info"], "family", &json!("inet"));
    let address = format!("{}/{}", text(ipv4, "local"), ipv4["prefixlen"]);
    assert_eq!(address, cidr(&port["address"]));
    let inner = hops(interface, "outward").into_iter().find(|hop| hop["kind"] == "inner-device").expect("inner device");
    assert_eq!(inner["mtu"], if is_machine(instance) { Value::Null } else { link["mtu"].clone() });
    for floating in interface["floating_ips"].as_array().expect("floating IPs") {
        let rules = floating["rules"].as_array().expect("rules");
        let router = find(&lab.built["routers"], "id", &port["router"]);
        // A distributed router does not reach floating IPs itself.
        let expected = if router["distributed"].is_null() { 3 } else { 2 };
        assert_eq!(rules.len(), expected, "DNAT, a legacy router's own DNAT, SNAT: {rules:#?}");
        let router = text(&interface["router"]["netns"], "name");
        let saved = lab.on(host, &["ip", "netns", "exec", router, "iptables-save", "-t", "nat"]).ok();
        for rule in rules {
            assert!(saved.lines().any(|line| line == text(rule, "rule")), "{rule:#} is not in\n{saved}");
        }
    }
}

/// The chains of the port's security groups are on its path, and only there.
fn security_groups(port: &Value, interface: &Value) {
    let outward = hops(interface, "outward");
    let filter = outward.iter().find(|hop| hop["kind"] == "filter" && hop["name"] == "security groups");
    let chains: Vec<&Value> =
        filter.and_then(|hop| hop["rules"].as_array()).into_iter().flatten().map(|rule| &rule["chain"]).collect();
    let spoof = &port["security"]["chains"]["spoof"];
    assert_eq!(chains.contains(&spoof), spoof.is_string(), "{chains:?}");
    assert_eq!(filter.is_some(), port["linux_bridge"].is_string(), "{filter:?}");
    // A floating IP whose router is on another host comes in by the tunnel, and is that host's to explain.
    if spoof.is_string() && interface["floating_ips"] != json!([]) {
        let inward = hops(interface, "inward");
        let filter = inward.iter().find(|hop| hop["kind"] == "filter").expect("an ingress filter");
        let rules = filter["rules"].as_array().expect("rules");
        assert!(rules.iter().any(|rule| rule["chain"] == port["security"]["chains"]["ingress"]), "{filter:#}");
    }
}

#[test]
fn whatever_an_operator_has_in_hand_means_the_instance() {
    let Some(lab) = Lab::up("neutron-ovs") else { return };
    let host = "compute-1";
    for instance in lab.instances(host) {
        let mut keys = vec![
            text(&instance, "container_name").to_owned(),
            text(&instance, "container_id").to_owned(),
            text(&instance, "container_id")[..12].to_owned(),
            text(&instance, "uuid").to_owned(),
            text(&instance, "uuid").to_uppercase(),
            text(&instance, "uuid")[..8].to_owned(),
            text(&instance, "name").to_owned(),
            instance["pid"].to_string(),
        ];
        for port in instance["ports"].as_array().expect("ports") {
            keys.extend(
                ["id", "mac", "device", "floating_ip"]
                    .iter()
                    .filter_map(|field| port[*field].as_str().map(str::to_owned)),
            );
            keys.push(text(port, "id")[..11].to_owned());
            keys.push(text(port, "mac").to_uppercase().replace(':', "-"));
            keys.push(port["host_devices"][0].as_str().expect("a device").to_owned());
        }
        for key in keys {
            let trace = lab.trace(host, &key);
            assert_eq!(trace["instance"]["container_id"], instance["container_id"], "{key}");
        }
    }
    // Two tenants use the same address: asking for it must not guess.
    let ambiguous = lab.netdiag(host, &["trace", "10.0.0.2"]);
    assert_eq!((ambiguous.code, ambiguous.out.as_str()), (Some(4), ""));
    assert_eq!(ambiguous.err.matches("fixed IP 10.0.0.2").count(), 2, "{}", ambiguous.err);
    assert_eq!(lab.trace(host, "10.0.1.2")["verdict"], "works");
}

#[test]
fn whatever_an_operator_has_in_hand_means_the_virtual_machine() {
    let Some(lab) = Lab::up("vm") else { return };
    let host = "compute-1";
    for instance in lab.instances(host) {
        let mut keys = vec![
            text(&instance, "uuid").to_owned(),
            text(&instance, "uuid")[..8].to_owned(),
            text(&instance, "name").to_owned(),
            instance["pid"].to_string(),
        ];
        for port in instance["ports"].as_array().expect("ports") {
            let fields = ["id", "mac", "floating_ip"].iter();
            keys.extend(fields.filter_map(|field| port[*field].as_str().map(str::to_owned)));
            keys.push(port["host_devices"][0].as_str().expect("a device").to_owned());
        }
        for key in keys {
            let trace = lab.trace(host, &key);
            assert_eq!(trace["instance"]["libvirt_name"], instance["name"], "{key}");
            assert_eq!(trace["instance"]["kind"], "vm", "{key}");
        }
    }
    // In a wrong VLAN it is still what its floating IP means, though another tenant's guest has the same fixed address.
    let instances = lab.instances(host);
    let web = instances.iter().find(|one| one["ports"][0]["floating_ip"] == "172.24.4.6");
    let web = web.expect("the instance with the floating IP");
    let port = &web["ports"][0];
    let (tap, floating) = (port["host_devices"][0].as_str().expect("a tap"), text(port, "floating_ip"));
    let tag = lab.sh(host, &format!("ovs-vsctl get port {tap} tag")).ok();
    lab.sh(host, &format!("ovs-vsctl set port {tap} tag=77")).ok();
    let trace = lab.trace(host, floating);
    lab.sh(host, &format!("ovs-vsctl set port {tap} tag={tag}")).ok();
    assert_eq!(trace["instance"]["libvirt_name"], web["name"]);
    let findings = trace["findings"].as_array().expect("findings");
    assert!(findings.iter().any(|finding| finding["code"] == "wrong-tag"), "{findings:#?}");
    // Nothing of a guest shows on its host but its hypervisor: no namespace, no process, no container.
    let listed = lab.netdiag(host, &["list", "-o", "json"]).json();
    let kinds: Vec<_> =
        listed["instances"].as_array().expect("instances").iter().map(|one| &one["instance"]["kind"]).collect();
    assert_eq!(kinds.len(), lab.instances(host).len());
    assert!(kinds.iter().all(|kind| **kind == "vm"), "{kinds:?}");
}

#[test]
fn everything_the_labs_promise_works() {
    for profile in ["neutron-ovs", "hybrid", "dvr", "vm", "docker"] {
        let Some(lab) = Lab::up(profile) else { return };
        let checked = lab.check();
        assert_eq!(checked.code, Some(0), "{profile}: {checked:#?}");
    }
}

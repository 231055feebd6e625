//! Documents as operators and Neutron write them.

use super::*;

/// `openstack security group show web -f json`.
pub(super) const GROUP_SHOW: &str = r#"{
  "created_at": "2026-03-02T10:11:12Z",
  "description": "web servers \ud83d\ude00",
  "id": "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11",
  "is_shared": false,
  "name": "web",
  "project_id": "6a1d0d1c2f4c4b0b9c1f0c6f2f6c2a10",
  "revision_number": 4,
  "rules": [
    {
      "id": "0c5d0f46-2f0e-4c3c-8a51-5d2a8e7b9c01",
      "project_id": "6a1d0d1c2f4c4b0b9c1f0c6f2f6c2a10",
      "tenant_id": "6a1d0d1c2f4c4b0b9c1f0c6f2f6c2a10",
      "security_group_id": "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11",
      "ethertype": "IPv4",
      "direction": "ingress",
      "protocol": "tcp",
      "port_range_min": 443,
      "port_range_max": 443,
      "remote_ip_prefix": "0.0.0.0/0",
      "remote_address_group_id": null,
      "normalized_cidr": "0.0.0.0/0",
      "remote_group_id": null,
      "standard_attr_id": 61,
      "description": "",
      "tags": [],
      "created_at": "2026-03-02T10:12:00Z",
      "updated_at": "2026-03-02T10:12:00Z",
      "revision_number": 0,
      "belongs_to_default_sg": false
    },
    {
      "id": "0c5d0f46-2f0e-4c3c-8a51-5d2a8e7b9c02",
      "security_group_id": "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11",
      "ethertype": "IPv6",
      "direction": "egress",
      "protocol": null,
      "port_range_min": null,
      "port_range_max": null,
      "remote_ip_prefix": null,
      "normalized_cidr": null,
      "remote_group_id": null
    }
  ],
  "shared": false,
  "stateful": true,
  "tags": [],
  "updated_at": "2026-03-02T10:12:00Z"
}
"#;

/// `openstack port show web-1 -f json`.
pub(super) const PORT_SHOW: &str = r#"{
  "admin_state_up": true,
  "allowed_address_pairs": [
    {"ip_address": "10.0.0.100", "mac_address": "fa:16:3e:00:00:01"},
    {"ip_address": "10.9.0.0/16", "mac_address": "fa:16:3e:00:00:02"}
  ],
  "binding_host_id": "compute-1",
  "binding_profile": {},
  "binding_vif_details": {"bridge_name": "br-int", "connectivity": "l2", "port_filter": true},
  "binding_vif_type": "ovs",
  "binding_vnic_type": "normal",
  "created_at": "2026-03-02T10:20:00Z",
  "data_plane_status": null,
  "description": "",
  "device_id": "f0e1d2c3-0000-4000-8000-000000000001",
  "device_owner": "compute:nova",
  "device_profile": null,
  "dns_assignment": [{"fqdn": "web-1.example.org.", "hostname": "web-1", "ip_address": "10.0.0.2"}],
  "dns_domain": "",
  "dns_name": "web-1",
  "extra_dhcp_opts": [],
  "fixed_ips": [
    {"ip_address": "10.0.0.2", "subnet_id": "0d0d0d0d-0000-4000-8000-000000000001"},
    {"ip_address": "2001:db8::2", "subnet_id": "0d0d0d0d-0000-4000-8000-000000000002"}
  ],
  "hardware_offload_type": null,
  "hints": "",
  "id": "1a2b3c4d-5e6f-4a1b-8c2d-000000000001",
  "ip_allocation": "immediate",
  "mac_address": "fa:16:3e:00:00:01",
  "name": "web-1",
  "network_id": "0e0e0e0e-0000-4000-8000-000000000001",
  "numa_affinity_policy": null,
  "port_security_enabled": true,
  "project_id": "6a1d0d1c2f4c4b0b9c1f0c6f2f6c2a10",
  "propagate_uplink_status": null,
  "qos_network_policy_id": null,
  "qos_policy_id": null,
  "resource_request": null,
  "revision_number": 7,
  "security_group_ids": ["5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11"],
  "status": "ACTIVE",
  "tags": [],
  "trunk_details": null,
  "trusted": null,
  "updated_at": "2026-03-02T10:21:00Z",
  "vendor:extension": {"anything": ["at all"]}
}
"#;

/// A whole state, written by hand.
pub(super) const STATE: &str = "
security_groups:
  - name: web
    rules:
      - {direction: ingress, protocol: tcp, port_range_min: 443, port_range_max: 443, remote_group_id: db}
      - {direction: ingress, protocol: tcp, port_range_min: 22, port_range_max: 22, remote_address_group_id: office}
  - name: db
    stateful: false
address_groups:
  - name: office
    addresses: [192.0.2.0/24]
ports:
  - name: web-1
    security_groups: [web, web]
    binding: {instance: web-1}
    log_allowed: true
  - name: db-1
    security_groups: [db]
    binding: {device: tap1}
    fixed_ips: [10.0.0.3, {ip_address: 'fd00::3'}]
    mac_address: FA-16-3E-00-00-03
    allowed_address_pairs: [{ip_address: 10.0.0.0/24}]
  - name: elsewhere
    security_groups: [db]
    fixed_ips: [10.0.0.9]
members:
  web: [203.0.113.7, 198.51.100.9/24]
permitted_ethertypes: [0x88cc, '0x8863', 34916]
close_unknown_ports: true
";

fn pair(mac: &str, address: &str) -> AddressPair {
    AddressPair { mac: Some(mac.parse().unwrap()), address: address.parse().unwrap() }
}

/// [`PORT_SHOW`], checked.
fn web_1() -> Port {
    Port {
        id: PortId(PORT.to_owned()),
        name: "web-1".to_owned(),
        binding: Binding { port_id: true, host: Some("compute-1".to_owned()), ..Binding::default() },
        mac: Some("fa:16:3e:00:00:01".parse().unwrap()),
        fixed_ips: Some(["10.0.0.2", "2001:db8::2"].iter().map(|text| text.parse().unwrap()).collect()),
        allowed_address_pairs: [pair("fa:16:3e:00:00:01", "10.0.0.100/32"), pair("fa:16:3e:00:00:02", "10.9.0.0/16")]
            .into(),
        groups: vec![group(WEB)],
        filtered: true,
        log_allowed: false,
    }
}

#[test]
fn what_openstack_shows_of_a_group_and_a_port_is_a_policy() {
    let made = policy(&[document("web.json", GROUP_SHOW), document("web-1.json", PORT_SHOW)]).unwrap();
    assert_eq!(only_port(&made), &web_1());
    let web = &made.groups[&group(WEB)];
    assert_eq!((web.name.as_str(), web.stateful, web.rules.len()), ("web", true, 2));
    let https = &web.rules[0];
    assert_eq!(https.id, RuleId("0c5d0f46-2f0e-4c3c-8a51-5d2a8e7b9c01".to_owned()));
    assert_eq!(https.service, Service::Ports { protocol: 6, first: 443, last: 443 });
    assert_eq!(https.remote, Remote::Any);
    assert_eq!((web.rules[1].direction, web.rules[1].service), (Direction::Egress, Service::Any));
}

#[test]
fn objects_may_stand_in_a_list() {
    let made = read(&format!("[{GROUP_SHOW},{PORT_SHOW}]"));
    assert_eq!(only_port(&made), &web_1());
}

#[test]
fn documents_of_a_yaml_stream_count_together() {
    let made = read(
        "---\nsecurity_groups: [{name: web}]\n---\n---\nname: web-1\nsecurity_groups: [web]\nbinding: {instance: web-1}\n",
    );
    assert_eq!(only_port(&made).groups, [group("web")]);
}

#[test]
fn answers_of_neutrons_api_are_a_policy() {
    let group_ = GROUP_SHOW.replace("\"rules\"", "\"security_group_rules\"");
    let port = PORT_SHOW
        .replace("\"security_group_ids\"", "\"security_groups\"")
        .replace("\"binding_host_id\"", "\"binding:host_id\"")
        .replace("\"binding_vif_type\"", "\"binding:vif_type\"");
    let single = [
        document("1", &format!("{{\"security_group\": {group_}}}")),
        document("2", &format!("{{\"port\": {port}}}")),
        document("3", r#"{"address_group": {"id": "a", "addresses": ["192.0.2.1/24", "2001:db8::/32"]}}"#),
    ];
    let links = r#"[{"href": "http://neutron/v2.0/ports?marker=1", "rel": "next"}]"#;
    let lists = [
        document("1", &format!("{{\"security_groups\": [{group_}], \"security_groups_links\": {links}}}")),
        document("2", &format!("{{\"ports\": [{port}], \"ports_links\": {links}}}")),
        document("3", r#"{"address_groups": [{"id": "a", "addresses": ["192.0.2.1/24", "2001:db8::/32"]}]}"#),
    ];
    for documents in [single, lists] {
        let made = policy(&documents).unwrap();
        assert_eq!(only_port(&made), &web_1());
        assert_eq!(made.groups[&group(WEB)].rules.len(), 2);
        let addresses: Vec<String> =
            made.address_groups.values().next().unwrap().addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.0/24", "2001:db8::/32"]);
    }
}

#[test]
fn rules_may_come_apart_from_their_group_as_neutrons_api_lists_them() {
    let groups = r#"{"security_groups": [{"id": "g1", "name": "web", "project_id": "p"}]}"#;
    let rules = r#"{"security_group_rules": [{"id": "r1", "security_group_id": "g1", "direction": "ingress", "protocol": "tcp"}]}"#;
    let rule = r#"{"security_group_rule": {"id": "r2", "security_group_id": "web", "direction": "ingress", "protocol": "udp"}}"#;
    let made = policy(&[document("1", rules), document("2", groups), document("3", rule)]).unwrap();
    let ids: Vec<&str> = made.groups[&group("g1")].rules.iter().map(|rule| rule.id.0.as_str()).collect();
    assert_eq!(ids, ["r1", "r2"]);
}

#[test]
fn a_whole_state_is_written_by_hand_in_yaml() {
    let made = read(STATE);
    let port = |id: &str| &made.ports[&PortId(id.to_owned())];
    assert_eq!(port("web-1").groups, [group("web")]);
    assert!(port("web-1").log_allowed && port("web-1").fixed_ips.is_none() && port("web-1").mac.is_none());
    assert_eq!(port("web-1").binding.instance.as_deref(), Some("web-1"));
    assert_eq!(port("db-1").binding.device.as_deref(), Some("tap1"));
    assert_eq!(port("db-1").mac.unwrap().to_string(), "fa:16:3e:00:00:03");
    assert_eq!(port("db-1").fixed_ips.as_ref().unwrap().len(), 2);
    assert_eq!(
        port("db-1").allowed_address_pairs,
        [AddressPair { mac: None, address: "10.0.0.0/24".parse().unwrap() }].into()
    );
    assert_eq!(port("elsewhere").binding, Binding::default());
    let members: Vec<String> = made.members[&group("web")].iter().map(ToString::to_string).collect();
    assert_eq!(members, ["198.51.100.0/24", "203.0.113.7/32"]);
    assert_eq!(made.permitted_ethertypes, BTreeSet::from([0x88cc, 0x8863, 34916]));
    assert!(made.close_unknown_ports && !made.groups[&group("db")].stateful);
    assert_eq!(made.groups[&group("web")].rules[0].remote, Remote::Group(group("db")));
}

#[test]
fn nothing_is_a_policy_too() {
    for text in ["", "---\n", "# nothing yet\n", "{}", "null", "[]", "ports: null\n"] {
        assert_eq!(read(text), Policy::default(), "{text:?}");
    }
    assert_eq!(policy(&[]), Ok(Policy::default()));
}

#[test]
fn braces_of_yaml_and_tabs_of_json_are_both_read() {
    assert_eq!(read("{security_groups: [{name: web}]}").groups.len(), 1);
    assert_eq!(read("{\n\t\"security_groups\": [\n\t\t{\"name\": \"web\"}\n\t]\n}\n").groups.len(), 1);
    assert_eq!(read("\u{feff}{\"security_groups\": [{\"name\": \"web\"}]}").groups.len(), 1);
}

#[test]
fn ids_names_and_numbers_are_told_apart_by_quotes_where_they_must() {
    let made = read("security_groups: [{name: 'null'}, {name: 10}, {id: ~, name: '~'}, {name: !!str 7}]");
    let ids: Vec<&str> = made.groups.keys().map(|id| id.0.as_str()).collect();
    assert_eq!(ids, ["10", "7", "null", "~"]);
}

#[test]
fn a_port_that_mentions_no_groups_gets_the_default_group_and_an_empty_list_is_none() {
    let text =
        |fields: &str| format!("security_groups: [{{name: default}}, {{name: web}}]\nports: [{{id: {PORT}{fields}}}]");
    let groups = |fields: &str| only_port(&read(&text(fields))).groups.clone();
    assert_eq!(groups(""), [group("default")]);
    assert_eq!(groups(", security_groups: null"), [group("default")]);
    assert_eq!(groups(", security_groups: []"), []);
    assert_eq!(groups(", security_group_ids: [web]"), [group("web")]);
    assert_eq!(groups(", port_security_enabled: false"), []);
    assert_eq!(groups(", device_owner: 'network:dhcp'"), []);
}

#[test]
fn ports_without_port_security_and_of_the_network_itself_are_not_filtered() {
    let filtered = |fields: &str| {
        let text = format!("security_groups: [{{name: web}}]\nports: [{{id: {PORT}, {fields}}}]");
        only_port(&read(&text)).filtered
    };
    assert!(filtered("security_groups: [web]"));
    assert!(filtered("security_groups: [web], device_owner: 'compute:nova', port_security_enabled: true"));
    assert!(!filtered("security_groups: [], port_security_enabled: false"));
    assert!(!filtered("port_security_enabled: false"));
    assert!(!filtered("device_owner: 'network:router_interface'"));
    assert!(!filtered("device_owner: 'network:router_interface', security_groups: [web]"));
}

#[test]
fn a_uuid_finds_its_port_unless_another_binding_is_given() {
    let binding = |fields: &str| {
        only_port(&read(&format!("ports: [{{id: {PORT}, security_groups: [], {fields}}}]"))).binding.clone()
    };
    assert!(binding("name: x").port_id);
    assert!(!binding("binding: {}, fixed_ips: [10.0.0.1]").port_id);
    let device = binding("binding: {device: tap1}");
    assert_eq!((device.port_id, device.device.as_deref()), (false, Some("tap1")));
    let host = binding("binding_host_id: compute-9");
    assert_eq!((host.port_id, host.host.as_deref()), (true, Some("compute-9")));
}

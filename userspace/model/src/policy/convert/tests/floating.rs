//! Floating IPs.

use super::*;

/// One as `openstack floating ip show -f json` prints it.
const SHOWN: &str = r#"{"created_at": "2026-01-01T00:00:00Z", "description": "", "dns_domain": "", "dns_name": "",
    "fixed_ip_address": "10.0.0.2", "floating_ip_address": "203.0.113.7", "floating_network_id": "n1",
    "id": "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b12", "name": "203.0.113.7", "port_details": {"name": "web"},
    "port_id": "1a2b3c4d-5e6f-4a1b-8c2d-000000000001", "project_id": "p", "qos_policy_id": null, "revision_number": 3,
    "router_id": "r1", "status": "ACTIVE", "subnet_id": null, "tags": [], "updated_at": "2026-01-01T00:00:00Z"}"#;

#[test]
fn neutrons_own_words_are_understood_alone_in_a_list_and_wrapped() {
    for text in [SHOWN.to_owned(), format!("[{SHOWN}]"), format!("{{\"floatingip\": {SHOWN}}}"), listed(SHOWN)] {
        let one = only_floating_ip(&text);
        assert_eq!(one.id.0, "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b12");
        assert_eq!(one.floating_ip_address.to_string(), "203.0.113.7");
        assert_eq!(one.fixed_ip_address.unwrap().to_string(), "10.0.0.2");
        assert_eq!(one.port_id.unwrap().0, PORT);
        assert_eq!((one.network.as_deref(), one.device, one.qos_policy), (Some("n1"), None, None));
    }
}

fn listed(object: &str) -> String {
    format!("{{\"floatingips\": [{object}], \"floatingips_links\": []}}")
}

#[test]
fn one_without_id_and_name_is_known_by_its_address() {
    let one = only_floating_ip("floatingips: [{floating_ip_address: 203.0.113.7}]");
    assert_eq!((one.id.0.as_str(), one.fixed_ip_address, one.port_id), ("203.0.113.7", None, None));
}

#[test]
fn its_port_is_found_by_id_or_by_name_and_may_be_on_another_host() {
    let port = |named: &str| {
        let ports = "ports: [{id: web-1, name: web, security_groups: [], binding: {device: tap0}}]";
        let text =
            format!("{ports}\nfloatingips: [{{floating_ip_address: 203.0.113.7, port_id: {named}, device: eth1}}]");
        only_floating_ip(&text).port_id.unwrap().0
    };
    assert_eq!([port("web-1"), port("web"), port("db")], ["web-1", "web-1", "db"]);
}

#[test]
fn its_mistakes_are_told_with_line_and_field() {
    let text = "floatingips:\n- id: f\n- id: g\n  floating_ip_address: 2001:db8::7\n- id: h\n  floating_ip_address: 127.0.0.1\n\
                - floating_ip_address: 203.0.113.7\n  fixed_ip_address: ten\n  port_id: web\n- name: k\n  \
                floating_ip_address: 203.0.113.8\n  fixed_ip_address: 10.0.0.2\n  devcie: eth0\n\
                - id: l\n  floating_ip_address: 203.0.113.9\n  device: []\n- id: l\n  floating_ip_address: 203.0.113.10\n";
    let told: Vec<String> = refused(text).iter().map(|told| told.split("; valid").next().unwrap().to_owned()).collect();
    assert_eq!(
        told,
        [
            "a.yaml:2: floating IP f: floating_ip_address: is missing",
            "a.yaml:4: floating IP g: floating_ip_address: 2001:db8::7 is an IPv6 address, which needs no floating IP",
            "a.yaml:6: floating IP h: floating_ip_address: 127.0.0.1 is no address that others can reach",
            "a.yaml:8: floating IP 203.0.113.7: fixed_ip_address: `ten` is no IP address",
            "a.yaml:12: floating IP k: fixed_ip_address: needs the port that has it, as port_id",
            "a.yaml:13: floating IP k: devcie: no floating IP has this field; did you mean `device`?",
            "a.yaml:16: floating IP l: device: is a list, and should be text",
            "a.yaml:17: floating IP l: id: l is given twice, first at a.yaml:14",
        ]
    );
}

//! Mistakes, as the operator who made them reads them.

use super::*;

#[test]
fn every_mistake_of_every_document_is_told_at_once_with_its_line() {
    let one = "security_groups:\n- name: web\n  rules:\n  - direction: ingress\n    protocol: tpc\n  - direction: up\nports:\n- id: 7\n  mac_address: nonsense\n";
    let other = "{\n \"ports\": [\n  {\"name\": \"b\",\n   \"security_groups\": [\n    \"web\",\n    \"wbe\"],\n   \"fixed_ips\": [{\"ip_address\": \"10.0.0.300\"}]}\n ]\n}\n";
    let told = policy(&[document("one.yaml", one), document("other.json", other)]).unwrap_err();
    let told: Vec<String> =
        told.iter().map(|mistake| mistake.to_string().split("; valid").next().unwrap().to_owned()).collect();
    assert_eq!(
        told,
        [
            "one.yaml:5: security group web, rule 1: protocol: `tpc` is no protocol",
            "one.yaml:6: security group web, rule 2: direction: `up` is no direction",
            "one.yaml:8: port 7: binding: is missing: the port has no UUID to be found by, and no fixed_ips to be a member with",
            "one.yaml:8: port 7: security_groups: is missing, and there is no one group named `default` in its place; [] is no group at all",
            "one.yaml:9: port 7: mac_address: is `nonsense`, and a MAC address is six hexadecimal octets, as in fa:16:3e:00:00:02",
            "other.json:6: port b: security_groups: no security group `wbe` is given",
            "other.json:7: port b, fixed IP: ip_address: `10.0.0.300` is no IP address",
        ]
    );
}

#[test]
fn what_is_neither_json_nor_yaml_is_told_with_its_line() {
    for (text, line, why) in [
        ("{\n \"ports\": [\n  {\"id\": }\n ]\n}", 3, "not JSON: expected value"),
        ("{\n \"ports\": [\n", 3, "not JSON: EOF while parsing a list"),
        ("ports:\n- id: 1\n - name: x\n", 3, "not YAML: "),
        ("a: 'b\n", 1, "not YAML: "),
        ("ports: &p []\nmembers: *p\n", 2, "an alias (`*name`) is not accepted: write out what it stands for"),
        ("ports: !!set {}\n", 1, "a tag (`!name`) is not accepted"),
        ("? [a]\n: b\n", 1, "the name of a field is a word"),
    ] {
        let told = mistake(text);
        assert!(told.why.starts_with(why), "{told}");
        assert_eq!(told.line, line, "{told}");
    }
}

#[test]
fn a_document_that_nests_without_end_is_refused() {
    let yaml = ["[".repeat(100_000), format!("{}{}", "[".repeat(40), "]".repeat(40)), "- ".repeat(40) + "x"];
    let json = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    for text in yaml.into_iter().chain([json(40), json(100_000)]) {
        let told = mistake(&text);
        assert!(told.why.contains("nested more than 32 deep") || told.why.contains("recursion limit"), "{told}");
    }
}

#[test]
fn a_document_that_is_no_mapping_is_refused() {
    assert_eq!(refused("security groups"), ["a.yaml:1: is `security groups`, and should be a mapping of fields"]);
    assert_eq!(refused("[web]"), ["a.yaml:1: object 1: is `web`, and should be a mapping of fields"]);
    assert_eq!(refused("ports: {}"), ["a.yaml:1: ports: is a mapping, and should be a list"]);
    assert_eq!(refused("ports: [web]"), ["a.yaml:1: port 1: is `web`, and should be a mapping of fields"]);
    assert_eq!(refused("port: []"), ["a.yaml:1: port 1: is a list, and should be a mapping of fields"]);
    assert_eq!(refused("members: []"), ["a.yaml:1: members: is a list, and should be a mapping of fields"]);
}

#[test]
fn a_misspelt_field_is_refused_with_the_nearest_one() {
    for (text, field, nearest) in [
        ("securty_groups: []", "securty_groups", "security_groups"),
        ("close_unknown_port: true", "close_unknown_port", "close_unknown_ports"),
        ("security_groups: [{name: web, statefull: true}]", "statefull", "stateful"),
        (
            "security_groups: [{name: web, rules: [{direction: ingress, remote_ip_prefx: 10.0.0.0/8}]}]",
            "remote_ip_prefx",
            "remote_ip_prefix",
        ),
        ("security_groups: [{name: web, rules: [{direction: ingress, Protocol: tcp}]}]", "Protocol", "protocol"),
        ("address_groups: [{name: o, adresses: []}]", "adresses", "addresses"),
        ("ports: [{name: p, security_groups: [], binding: {instace: x}}]", "instace", "instance"),
        ("ports: [{name: p, security_groups: [], binding: {}, fixed_ip: []}]", "fixed_ip", "fixed_ips"),
        ("ports: [{name: p, security_groups: [], fixed_ips: [{ip_adress: 10.0.0.1}]}]", "ip_adress", "ip_address"),
        (
            "ports: [{name: p, security_groups: [], fixed_ips: [], allowed_address_pairs: [{mac_addres: x}]}]",
            "mac_addres",
            "mac_address",
        ),
    ] {
        let told = mistake(text);
        assert_eq!((told.field.as_str(), &*told.valid), (field, &[nearest.to_owned()][..]), "{told}");
        assert!(told.why.ends_with(&format!("did you mean `{nearest}`?")), "{told}");
    }
}

#[test]
fn a_field_nobody_has_is_refused_in_what_is_written_by_hand_alone() {
    let told = mistake("security_groups: [{name: web, colour: red}]");
    assert_eq!((told.why.as_str(), told.valid.len()), ("no security group has this field", 6));
    assert_eq!(read("security_groups: [{name: web, colour: red, project_id: p}]").groups.len(), 1);
    let misspelt = mistake(
        "security_groups: [{name: web, project_id: p, rules: [{direction: ingress, remote_ip_prefx: 10.0.0.0/8}]}]",
    );
    assert_eq!(misspelt.field, "remote_ip_prefx");
}

#[test]
fn a_field_given_twice_is_refused_by_one_name_and_by_two() {
    assert_eq!(
        refused("security_groups:\n- name: a\n  name: b\n"),
        ["a.yaml:3: security group a: name: is given twice"]
    );
    assert_eq!(refused("{\"members\": {},\n \"members\": {}}"), ["a.yaml:2: members: is given twice"]);
    let told = mistake("security_groups: [{name: a, rules: [], security_group_rules: []}]");
    assert_eq!(
        told.to_string(),
        "a.yaml:1: security group a: rules: says the same as security_group_rules; give one of them"
    );
}

#[test]
fn a_line_of_a_summary_is_refused_with_what_to_use_instead() {
    let list = r#"[{"ID": "5f3b1c0e", "Name": "web", "Description": "", "Project": "p", "Tags": [], "Shared": false}]"#;
    assert!(mistake(list).why.contains("`openstack … show -f json`"), "{:?}", mistake(list));
    let told = mistake("name: web\ncolour: red\n");
    assert!(told.why.starts_with("is neither a security group"), "{told}");
}

#[test]
fn an_object_without_id_and_name_is_refused() {
    assert_eq!(
        refused("security_groups: [{rules: []}]"),
        ["a.yaml:1: security group 1: id: is missing, and there is no name in its place"]
    );
    assert_eq!(
        refused("security_groups: [{id: [], rules: []}]"),
        ["a.yaml:1: security group 1: id: is a list, and should be text"]
    );
}

#[test]
fn an_id_in_two_files_is_refused_and_both_are_named() {
    let one = document(
        "one.yaml",
        "security_groups:\n- {id: a, name: web}\nports:\n- {id: p, security_groups: [], fixed_ips: []}\n",
    );
    let other = document(
        "other.yaml",
        "\nsecurity_groups:\n- {id: a, name: db}\nports:\n- {id: p, security_groups: [], fixed_ips: []}\n",
    );
    let told: Vec<String> = policy(&[one, other]).unwrap_err().iter().map(Mistake::to_string).collect();
    assert_eq!(
        told,
        [
            "other.yaml:3: security group db: id: a is given twice, first at one.yaml:2",
            "other.yaml:5: port p: id: p is given twice, first at one.yaml:4",
        ]
    );
}

#[test]
fn a_rule_id_in_two_groups_is_refused_and_both_are_named() {
    let text = "security_groups:\n- name: a\n  rules: [{id: r, direction: ingress}]\n- name: b\n  rules: [{id: r, direction: ingress}]\n";
    assert_eq!(
        refused(text),
        ["a.yaml:5: security group b, rule 1: id: r is the id of security group a, rule 1 at a.yaml:3 too"]
    );
}

#[test]
fn a_rule_of_no_group_or_of_another_group_is_refused() {
    assert_eq!(
        refused("security_group_rules: [{direction: ingress}]"),
        ["a.yaml:1: rule 1: security_group_id: is missing, and the rule stands in no group"]
    );
    let text = "security_groups: [{name: a, rules: [{direction: ingress, security_group_id: b}]}, {name: b}]";
    assert_eq!(
        refused(text),
        ["a.yaml:1: security group a, rule 1: security_group_id: is b, and the rule stands in group a"]
    );
}

#[test]
fn a_reference_that_leads_nowhere_names_what_there_is_the_nearest_first() {
    let text = with_fields("remote_group_id: webb");
    let told = mistake(&text);
    assert_eq!((told.why.as_str(), &*told.valid), ("no security group `webb` is given", &["web".to_owned()][..]));
    assert_eq!(mistake(&with_fields("remote_address_group_id: offices")).valid[0], "office");
    let port = "security_groups: [{name: db}, {name: web}]\nports: [{name: p, security_groups: [wb], fixed_ips: []}]";
    assert_eq!(&*mistake(port).valid, ["db", "web"]);
    assert_eq!(mistake("members: {web: [10.0.0.1]}").field, "web");
}

#[test]
fn a_name_of_two_groups_is_refused_with_their_ids_and_an_id_is_not() {
    let text = |named: &str| {
        format!(
            "security_groups: [{{id: a, name: web}}, {{id: b, name: web}}]\nports: [{{name: p, security_groups: [{named}], fixed_ips: []}}]"
        )
    };
    let told = mistake(&text("web"));
    assert_eq!(
        (told.why.as_str(), &*told.valid),
        ("`web` is the name of 2 security groups; give the id of one", &["a".to_owned(), "b".to_owned()][..])
    );
    assert_eq!(only_port(&read(&text("b"))).groups, [group("b")]);
}

#[test]
fn two_groups_called_default_leave_a_port_without_groups_open() {
    let text =
        format!("security_groups: [{{id: a, name: default}}, {{id: b, name: default}}]\nports: [{{id: {PORT}}}]");
    assert_eq!(mistake(&text).field, "security_groups");
}

#[test]
fn groups_without_port_security_are_refused() {
    let text = "security_groups: [{name: web}]\nports: [{name: p, security_groups: [web], fixed_ips: [], port_security_enabled: false}]";
    assert_eq!(refused(text), ["a.yaml:2: port p: security_groups: has groups, which need port_security_enabled"]);
}

#[test]
fn groups_that_keep_state_and_groups_that_do_not_are_not_mixed_on_a_port() {
    let text = "security_groups: [{name: a}, {name: b, stateful: false}]\nports: [{name: p, security_groups: [b, a], fixed_ips: []}]";
    assert_eq!(refused(text), ["a.yaml:2: port p: security_groups: mixes a, which is stateful, with b, which is not"]);
    assert_eq!(read(&text.replace("[b, a]", "[b]")).ports.len(), 1);
}

#[test]
fn addresses_that_no_instance_has_are_refused() {
    let told = |fields: &str| mistake(&format!("ports: [{{name: p, security_groups: [], fixed_ips: [], {fields}}}]"));
    let fixed = |text: &str| mistake(&format!("ports: [{{name: p, security_groups: [], fixed_ips: ['{text}']}}]"));
    for text in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "::", "ff02::1"] {
        assert_eq!(fixed(text).why, format!("{text} is not the address of an instance"));
    }
    assert_eq!(fixed("10.0.0.0/24").why, "`10.0.0.0/24` is no IP address");
    assert_eq!(told("mac_address: '01:00:5e:00:00:01'").why, "01:00:5e:00:00:01 is not the address of a card");
    assert_eq!(told("mac_address: '00:00:00:00:00:00'").why, "00:00:00:00:00:00 is not the address of a card");
    assert_eq!(
        told("allowed_address_pairs: [{mac_address: 'fa:16:3e:00:00:01'}]").to_string(),
        "a.yaml:1: port p, allowed address pair: ip_address: is missing"
    );
    assert_eq!(told("allowed_address_pairs: [{ip_address: 10.0.0.0/40}]").field, "ip_address");
    assert_eq!(told("allowed_address_pairs: ['10.0.0.1']").why, "is `10.0.0.1`, and should be a mapping of fields");
    assert_eq!(told("allowed_address_pairs: 10.0.0.1").why, "is `10.0.0.1`, and should be a list");
}

#[test]
fn a_binding_says_one_thing() {
    let told = |binding: &str| mistake(&format!("ports: [{{name: p, security_groups: [], binding: {binding}}}]"));
    let both = told("{device: tap1, instance: web-1}");
    assert_eq!((both.field.as_str(), both.why.as_str()), ("binding", "says more than one thing; give one"));
    assert_eq!(told("{port_id: 'yes'}").why, "is `yes`, and should be true or false");
    assert_eq!(told("web-1").why, "is `web-1`, and should be a mapping of fields");
    assert_eq!(told("{device: []}").why, "is a list, and should be text");
}

#[test]
fn truth_values_are_true_and_false_without_quotes() {
    for text in ["yes", "'true'", "1", "[]"] {
        let told = mistake(&format!("security_groups: [{{name: a, stateful: {text}}}]"));
        assert_eq!((told.field.as_str(), &*told.valid), ("stateful", &["true".to_owned(), "false".to_owned()][..]));
    }
}

#[test]
fn ethertypes_that_cannot_be_permitted_are_refused() {
    for (text, why) in [
        ("0x0800", "is filtered by the rules"),
        ("0x86dd", "is filtered by the rules"),
        ("0x0806", "is filtered by the rules"),
        ("0x8100", "is a VLAN tag"),
        ("1500", "is a length"),
        ("lldp", "is no ethertype"),
        ("0x10000", "is no ethertype"),
    ] {
        assert!(mistake(&format!("permitted_ethertypes: [{text}]")).why.contains(why), "{text}");
    }
}

#[test]
fn more_ethertypes_than_the_datapath_has_room_for_are_refused() {
    let list = |count: u16| (0..count).map(|place| (0x8900 + place).to_string()).collect::<Vec<_>>().join(", ");
    assert_eq!(read(&format!("permitted_ethertypes: [{}]", list(8))).permitted_ethertypes.len(), 8);
    assert_eq!(mistake(&format!("permitted_ethertypes: [{}]", list(9))).why, "are more than 8, all documents together");
}

#[test]
fn documents_that_contradict_each_other_about_unknown_ports_are_refused() {
    let say = |name: &str, close: bool| document(name, &format!("close_unknown_ports: {close}\n"));
    assert!(policy(&[say("a", true), say("b", true)]).unwrap().close_unknown_ports);
    let told = policy(&[say("a", true), say("b", false)]).unwrap_err();
    assert_eq!(told[0].to_string(), "b:1: close_unknown_ports: is false, and true in a:1");
}

#[test]
fn a_mistake_in_a_group_is_not_told_again_by_whoever_refers_to_it() {
    let text = "security_groups: [{name: web, rules: [{direction: up}]}]\nports: [{name: p, security_groups: [web], fixed_ips: []}]";
    assert_eq!(refused(text).len(), 1);
}

#[test]
fn a_document_full_of_mistakes_is_told_in_full_but_not_all_of_them_with_candidates() {
    let groups: Vec<String> = (0..3_000).map(|place| format!("{{name: group-{place}}}")).collect();
    let ports: Vec<String> =
        (0..3_000).map(|place| format!("{{name: p{place}, security_groups: [grp-{place}], fixed_ips: []}}")).collect();
    let text = format!("security_groups: [{}]\nports: [{}]", groups.join(", "), ports.join(", "));
    let told = policy(&[document("a", &text)]).unwrap_err();
    let named = told.iter().filter(|mistake| !mistake.valid.is_empty()).count();
    assert_eq!((told.len(), named), (3_000, 33));
}

proptest::proptest! {
    #[test]
    fn whatever_a_document_holds_is_told_and_not_stumbled_over(text in "[\\[\\]{}:,'\"#&*!|>?%@`~ \n\tA-Za-z0-9./_-]{0,200}") {
        let _any = policy(&[document("a", &text)]);
    }

    #[test]
    fn a_good_document_with_a_piece_cut_out_is_told_and_not_stumbled_over(from in 0_usize..1_000, length in 0_usize..40) {
        for whole in [forms::GROUP_SHOW, forms::PORT_SHOW, forms::STATE] {
            let rest = whole.char_indices().filter(|(at, _)| *at < from || *at >= from + length).map(|(_, letter)| letter);
            let cut: String = rest.collect();
            for mistake in policy(&[document("a", &cut)]).err().into_iter().flatten() {
                proptest::prop_assert!(mistake.line >= 1 && mistake.line <= whole.lines().count() + 1, "{}", mistake);
            }
        }
    }
}

use proptest::prelude::proptest;

use super::{Family, has_iptables_tables, parse, tables_with_lookups, without};
use crate::{
    fact::RuleBackend,
    netfilter::{
        Address, Chain, ChainKind, Effect, Hook, Known, Outcome, Packet, Ruleset, Table, Target, Test, Walk, walk,
    },
};

const RULESET: &str = include_str!("../testdata/nft.json");

fn ruleset() -> Ruleset {
    let (ruleset, problems) = Ruleset::read(RuleBackend::Nft, false, RULESET);
    assert_eq!(problems, []);
    ruleset
}

fn chain(ruleset: &Ruleset, name: &str) -> Chain {
    ruleset.table("fw").unwrap().chain(name).unwrap().clone()
}

fn ip(text: &str) -> Address {
    Address::Is(text.parse().unwrap())
}

fn at(hook: Hook, packet: Packet) -> Walk {
    walk(&[&ruleset()], hook, packet)
}

#[test]
fn base_chains_carry_hook_kind_and_priority() {
    let ruleset = ruleset();
    let base = |name| chain(&ruleset, name).base.map(|base| (base.kind, base.hook, base.priority));
    assert_eq!(base("pre"), Some((ChainKind::Nat, Hook::Prerouting, -100)));
    assert_eq!(base("in"), Some((ChainKind::Filter, Hook::Input, 5)));
    assert_eq!(base("more"), None);
}

#[test]
fn rules_are_printed_as_nft_writes_them() {
    let ruleset = ruleset();
    let raw: Vec<String> = ruleset
        .tables
        .iter()
        .flat_map(Table::chains)
        .flat_map(|chain| &chain.rules)
        .map(|rule| rule.raw.clone())
        .collect();
    insta::assert_snapshot!(raw.join("\n"));
}

#[test]
fn common_expressions_are_understood_and_the_others_kept() {
    let ruleset = ruleset();
    let unknown: Vec<u32> = chain(&ruleset, "in")
        .rules
        .iter()
        .filter(|rule| {
            rule.matches.iter().any(|one| matches!(one.test, Test::Other(_))) || matches!(rule.target, Target::Other(_))
        })
        .map(|rule| rule.number)
        .collect();
    // The named set, the limit, the verdict map and the TCP flags.
    assert_eq!(unknown, [4, 6, 16, 18]);
    assert_eq!(chain(&ruleset, "in").rules[4].comment.as_deref(), Some("hello x"));
}

#[test]
fn a_destination_is_translated() {
    let packet = Packet::between(Address::Outside, ip("192.0.2.1")).tcp(8080);
    let walked = at(Hook::Prerouting, Packet { in_device: Known::Is("eth0".to_owned()), ..packet });
    assert_eq!((walked.packet.destination, walked.packet.destination_port), (ip("10.0.0.2"), Known::Is(80)));
    let walked = at(Hook::Prerouting, Packet::between(Address::Outside, ip("1.2.3.4")).udp(8080));
    assert_eq!(walked.packet.destination, ip("10.0.0.3"));
}

#[test]
fn a_source_is_masqueraded_but_not_by_bridges() {
    let leaving = |device: &str| {
        let packet = Packet::between(ip("10.0.0.9"), Address::Outside).tcp(80);
        at(Hook::Postrouting, Packet { out_device: Known::Is(device.to_owned()), ..packet }).packet.source
    };
    assert_eq!(leaving("eth0"), Address::Local);
    assert_eq!(leaving("br-1"), ip("1.2.3.4"));
}

#[test]
fn an_address_test_of_one_family_does_not_hold_for_the_other() {
    // `ip saddr != 10.0.0.0/8 drop` in a table of both families is for IPv4 alone.
    let rule = &chain(&ruleset(), "in").rules[13];
    let tests: Vec<_> = rule.matches.iter().map(|one| (one.not, one.test.clone())).collect();
    assert_eq!(tests[0], (false, Test::Ipv6(false)));
    assert!(tests[1].0);
}

#[test]
fn a_named_set_leaves_the_answer_open() {
    let known = Packet { in_device: Known::Is("eth0".to_owned()), to_local: Known::Is(true), ..Packet::ipv4() };
    let from = |source| Packet { source, destination: ip("192.0.2.1"), ..known.clone() };
    let walked = at(Hook::Input, from(ip("10.1.1.1")).tcp(22));
    assert!(matches!(&walked.outcome, Outcome::Unknown { why, .. } if why.contains("@blocked")), "{walked:?}");
    let answer = Packet { state: Known::Is(crate::netfilter::CtState::Established), ..from(Address::Outside) };
    let walked = at(Hook::Input, answer.tcp(22));
    assert_eq!((walked.outcome, walked.steps[0].effect.clone()), (Outcome::Accept, Effect::Accept));
}

#[test]
fn tables_read_elsewhere_are_left_out() {
    let mixed = RULESET.replace("\"raw2\"", "\"raw\"");
    assert!(has_iptables_tables(&mixed, false) && !has_iptables_tables(&mixed, true));
    assert!(!has_iptables_tables(RULESET, false));
    let names = |text: &str| parse(text).0.into_iter().map(|table| table.name).collect::<Vec<_>>();
    assert_eq!(names(&without(&mixed, &[(Family::Ip, "raw")])), ["fw", "b"]);
    // The same name in another family is another table.
    assert_eq!(names(&without(&mixed, &[(Family::Ip6, "raw")])), ["fw", "raw", "b"]);
}

#[test]
fn tables_whose_rules_look_things_up_are_told_apart() {
    let (lookup, plain) = (r#"{"match":{"op":"==","left":{},"right":"@s"}}"#, r#"{"counter":{"packets":0,"bytes":0}}"#);
    let rule = |table: &str, expression: &str| {
        format!(r#"{{"rule":{{"family":"ip","table":"{table}","chain":"FORWARD","expr":[{expression}]}}}}"#)
    };
    let text = format!(r#"{{"nftables":[{},{}]}}"#, rule("filter", lookup), rule("raw", plain));
    let names: Vec<String> = tables_with_lookups(&text, Family::Ip).into_iter().collect();
    assert_eq!(names, ["filter"]);
    assert!(tables_with_lookups(&text, Family::Ip6).is_empty());
}

#[test]
fn text_that_is_cut_off_is_a_problem_and_no_rules() {
    let (tables, problems) = parse(&RULESET[..RULESET.len() / 2]);
    assert_eq!((tables, problems.len()), (Vec::new(), 1));
}

#[test]
fn a_rule_that_marks_and_accepts_is_not_understood_by_half() {
    let text = r#"{"nftables":[{"rule":{"family":"ip","table":"t","chain":"c","expr":[
        {"mangle":{"key":{"meta":{"key":"mark"}},"value":5}},{"accept":null}]}}]}"#;
    let (tables, _) = parse(text);
    assert!(matches!(tables[0].chain("c").unwrap().rules[0].target, Target::Other(_)));
}

proptest! {
    #[test]
    fn any_text_is_read_without_a_panic(text in "[\\s\\S]*") {
        parse(&text);
    }

    #[test]
    fn any_damage_to_a_value_is_read_without_a_panic(from in 0..RULESET.len(), value in "[0-9]{1,20}|\"[a-z*@]{0,5}\"|null|\\[\\]|\\{\\}") {
        // From the next value on, another in its place.
        if let Some(colon) = RULESET[from..].find(": ")
            && let Some(end) = RULESET[from + colon + 2..].find([',', '}'])
        {
            let (head, tail) = (&RULESET[..from + colon + 2], &RULESET[from + colon + 2 + end..]);
            let (tables, _) = parse(&format!("{head}{value}{tail}"));
            let ruleset = Ruleset { backend: RuleBackend::Nft, ipv6: false, tables };
            walk(&[&ruleset], Hook::Input, Packet::ipv4());
        }
    }
}

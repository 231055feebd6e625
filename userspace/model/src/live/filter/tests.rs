use proptest::prelude::*;

use super::*;
use crate::{
    live::{
        Layer as Begins,
        journey::simulation::{FIXED, FLOATING, Kind, Made, REMOTE},
        points::Side,
    },
    testing::cases,
};

fn headers(made: &Made) -> Headers {
    Headers::of(&made.at(0, 0, Side::Sent))
}

fn wanted(text: &str) -> Wanted {
    parse(text).unwrap_or_else(|mistake| panic!("{text}: {mistake}"))
}

/// A segment from the fixed address, port 40000, to port 443 of the remote end.
fn out() -> Headers {
    headers(&Made::syn(1))
}

fn back() -> Headers {
    headers(&Made::syn(1).answer())
}

#[test]
fn what_is_said_in_pcaps_language_covers_what_it_says() {
    for (text, forth, answer) in [
        ("", true, true),
        ("host 10.0.0.2", true, true),
        ("10.0.0.2", true, true),
        ("src host 10.0.0.2", true, false),
        ("src 10.0.0.2", true, false),
        ("dst host 10.0.0.2", false, true),
        ("src or dst host 10.0.0.2", true, true),
        ("src and dst host 10.0.0.2", false, false),
        ("host 10.0.0.3", false, false),
        ("net 10.0.0.0/24", true, true),
        ("dst net 203.0.113.0/24", true, false),
        ("ip6", false, false),
        ("ip", true, true),
        ("arp", false, false),
        ("tcp", true, true),
        ("udp", false, false),
        ("proto 6", true, true),
        ("ip proto \\tcp", true, true),
        ("port 443", true, true),
        ("dst port 443", true, false),
        ("tcp dst port 80 or 443", true, false),
        ("udp port 443", false, false),
        ("portrange 400-500", true, true),
        ("not tcp", false, false),
        ("!(tcp)", false, false),
        ("tcp and not port 443", false, false),
        ("udp or tcp and port 80", false, false),
        ("udp or (tcp and port 443)", true, true),
        ("host 10.0.0.2 && (port 443 || port 80)", true, true),
    ] {
        let wanted = wanted(text);
        assert_eq!((wanted.covers(&out()), wanted.covers(&back())), (forth, answer), "{text}");
        let filter = wanted.compile().unwrap();
        assert_eq!((covers(&filter, &out()), covers(&filter, &back())), (forth, answer), "{text}: {filter:?}");
    }
}

#[test]
fn a_mistake_names_its_place_and_what_is_known() {
    for (text, column, says) in [
        ("host", 5, "missing"),
        ("tcp and", 8, "missing"),
        ("tcp and foo", 9, "\"foo\" is not known"),
        ("host web-1", 6, "names are not looked up"),
        ("port http", 6, "a port is a number"),
        ("port 70000", 6, "a port is a number"),
        ("net 10.0.0.0/33", 5, "no network"),
        ("portrange 9-1", 11, "no range"),
        ("(tcp", 5, "not closed"),
        ("tcp)", 4, "not opened"),
        ("tcp prt 80", 5, "\"prt\" is not known"),
        ("(tcp prt 80)", 6, "\"prt\" is not known"),
        ("tcp port 80 10.0.0.2", 13, "\"and\" or \"or\" is missing before \"10.0.0.2\""),
        ("host 10.0.0.2 port 80", 15, "\"and\" or \"or\" is missing before \"port\""),
        ("(tcp port 80", 13, "not closed"),
        ("vlan 5", 1, "VLAN"),
        ("tcp[13] = 2", 1, "looks into the packet"),
        ("ü and foo", 1, "not known"),
    ] {
        let mistake = parse(text).expect_err(text);
        assert_eq!(mistake.column, column, "{text}: {mistake}");
        assert!(mistake.what.contains(says), "{text}: {mistake}");
    }
}

#[test]
fn an_expression_too_big_for_the_kernel_is_refused_and_not_cut() {
    let hosts: Vec<String> = (1..=17).map(|last| format!("host 10.0.0.{last}")).collect();
    assert_eq!(wanted(&hosts.join(" or ")).compile(), Err(Unfit::Clauses(17)));
    let pairs: Vec<String> =
        (1..=5).map(|last| format!("(host 10.0.0.{last} or port {last} or net 10.0.{last}.0/24)")).collect();
    assert!(matches!(wanted(&pairs.join(" and ")).compile(), Err(Unfit::Products(_))));
    assert_eq!(wanted("tcp and not tcp").compile(), Err(Unfit::Nothing));
    assert_eq!(wanted("tcp or not tcp").compile().map(|filter| filter.products.len()), Ok(2));
}

#[test]
fn what_no_packet_can_be_is_said_and_not_asked_of_the_kernel() {
    for nothing in [
        "tcp and arp",
        "icmp port 5",
        "arp and port 80",
        "icmp and arp",
        "ip6 host 10.0.0.2",
        "tcp src port 5 and tcp src port 6",
        "tcp port 80 and tcp port 443 and tcp port 22",
        "tcp and udp port 67",
        "port 80 and not portrange 1-100",
        "src host 10.0.0.2 and not net 10.0.0.0/24",
    ] {
        assert_eq!(wanted(nothing).compile(), Err(Unfit::Nothing), "{nothing}");
    }
    for (text, said) in [
        ("tcp and (arp or port 80)", "tcp and port 80"),
        ("host 10.0.0.2 and net 10.0.0.0/24", "host 10.0.0.2"),
        ("udp and not port 53 and not portrange 1-99", "udp and not (portrange 1-99)"),
        // A segment in VXLAN is both; an error quotes a datagram.
        ("tcp and udp", "tcp and udp"),
        ("icmp and udp port 5", "ip and icmp and udp and port 5"),
        ("src port 80 and dst port 443", "src port 80 and dst port 443"),
    ] {
        assert_eq!(words(&wanted(text).compile().unwrap()), [said], "{text}");
    }
}

#[test]
fn a_packet_is_wanted_before_and_after_translation() {
    let alias = Alias { one: (FIXED.into(), None), other: (FLOATING.into(), None) };
    let after = headers(&Made { source: (FLOATING, 50_000), ..Made::syn(1) });
    for text in ["host 10.0.0.2", "net 10.0.0.0/24", "src host 10.0.0.2", "src 10.0.0.2 and dst 203.0.113.7"] {
        let plain = wanted(text);
        assert!(plain.covers(&out()) && !plain.covers(&after), "{text}");
        let wide = plain.widened(&[alias]).compile().unwrap();
        assert!(covers(&wide, &out()) && covers(&wide, &after), "{text}");
    }
    let by_floating = wanted("host 172.24.4.6").widened(&[alias]).compile().unwrap();
    assert!(covers(&by_floating, &out()) && covers(&by_floating, &after));
    let none = wanted("not host 10.0.0.2").widened(&[alias]).compile().unwrap();
    assert!(!covers(&none, &out()) && !covers(&none, &after));
}

#[test]
fn a_published_port_is_wanted_by_either_number() {
    let alias = Alias { one: (FIXED.into(), Some(80)), other: (FLOATING.into(), Some(8080)) };
    let before = headers(&Made { source: (REMOTE, 1), destination: (FLOATING, 8080), ..Made::syn(1) });
    let after = headers(&Made { source: (REMOTE, 1), destination: (FIXED, 80), ..Made::syn(1) });
    for text in ["dst port 80", "dst port 8080", "dst host 10.0.0.2 and dst port 80"] {
        let wide = wanted(text).widened(&[alias]).compile().unwrap();
        assert!(covers(&wide, &before) && covers(&wide, &after), "{text}");
    }
    let elsewhere = headers(&Made { source: (REMOTE, 1), destination: (FIXED, 22), ..Made::syn(1) });
    assert!(!covers(&wanted("dst port 80").widened(&[alias]).compile().unwrap(), &elsewhere));
}

#[test]
fn the_packet_in_a_tunnel_and_the_one_an_error_quotes_are_wanted_too() {
    let tunnelled = headers(&Made { tunnelled: true, ..Made::syn(1) });
    assert!(wanted("host 10.0.0.2 and tcp port 443").covers(&tunnelled));
    assert!(wanted("udp port 4789").covers(&tunnelled));
    let quoted = Made::syn(1).ip();
    let mut error = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0, 192, 0, 2, 1, 10, 0, 0, 2, 3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(&quoted[..28]);
    let mut seen = Made::syn(1).at(0, 0, Side::Sent);
    (seen.layer, seen.head) = (Begins::Network, error);
    let error = Headers::of(&seen);
    assert!(wanted("port 443").covers(&error) && wanted("icmp").covers(&error));
    assert!(!wanted("port 22").covers(&error));
}

#[test]
fn a_filter_is_said_in_the_language_it_is_read_in() {
    for text in ["tcp and src host 10.0.0.2", "not (port 443)", "portrange 1-9", "ip6 and icmp6", "net 10.0.0.0/24"] {
        let filter = wanted(text).compile().unwrap();
        let said = words(&filter).join(" or ");
        assert_eq!(wanted(&said).compile().unwrap(), filter, "{text}: {said}");
    }
    assert_eq!(words(&Filter::default()), ["every packet"]);
}

fn clause() -> impl Strategy<Value = Wanted> {
    let text = prop::sample::select(vec![
        "tcp",
        "udp",
        "icmp",
        "ip",
        "host 10.0.0.2",
        "src host 10.0.0.2",
        "dst port 443",
        "port 80",
        "src port 80",
        "tcp port 443",
        "udp port 80",
        "arp",
        "net 203.0.113.0/24",
    ]);
    text.prop_map(wanted)
}

fn expression() -> impl Strategy<Value = Wanted> {
    clause().prop_recursive(4, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|one| Wanted::Not(Box::new(one))),
            prop::collection::vec(inner.clone(), 1..3).prop_map(Wanted::All),
            prop::collection::vec(inner, 1..3).prop_map(Wanted::One),
        ]
    })
}

fn packet() -> impl Strategy<Value = Made> {
    let kind = prop_oneof![
        Just(Kind::Udp(vec![1])),
        Just(Kind::Tcp { sequence: 1, flags: 2, payload: vec![] }),
        Just(Kind::Echo { kind: 8, identifier: 1, number: 1, payload: vec![] }),
    ];
    let ports = prop::sample::select(vec![80, 443, 40_000]);
    (kind, prop::sample::select(vec![FIXED, FLOATING]), ports.clone(), ports, any::<bool>(), any::<bool>()).prop_map(
        |(kind, source, from, to, answer, tunnelled)| {
            let made = Made { source: (source, from), destination: (REMOTE, to), tunnelled, ..Made::new(kind) };
            if answer { made.answer() } else { made }
        },
    )
}

#[test]
fn every_word_that_is_listed_is_known_behind_a_whole_condition() {
    let said = parse("port 80 foo").unwrap_err().to_string();
    let (_, listed) = said.split_once("known are: ").unwrap();
    let words: Vec<&str> = listed.split(", ").filter(|word| !word.starts_with("and") && *word != "or").collect();
    assert_eq!(words.len(), 16, "{words:?}");
    for word in words {
        let said = parse(&format!("port 80 {word}")).unwrap_err().what;
        assert_eq!(said, format!("\"and\" or \"or\" is missing before \"{word}\""));
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn what_is_compiled_covers_what_was_written(expression in expression(), packets in prop::collection::vec(packet(), 8)) {
        match expression.compile() {
            Ok(filter) => {
                prop_assert!(filter.clauses.len() <= Filter::CLAUSES && filter.products.len() <= Filter::PRODUCTS);
                for packet in packets {
                    let headers = headers(&packet);
                    prop_assert_eq!(covers(&filter, &headers), expression.covers(&headers), "{:?}", packet);
                }
            }
            Err(Unfit::Nothing) => {
                for packet in packets {
                    prop_assert!(!expression.covers(&headers(&packet)));
                }
            }
            Err(Unfit::Clauses(_) | Unfit::Products(_)) => {}
        }
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "[a-z0-9 ()!&|./:ü-]{0,60}") {
        parse(&text).ok();
    }
}

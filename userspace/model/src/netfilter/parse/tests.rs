use proptest::prelude::{Strategy, any, prop, proptest};

use super::{parse, without};
use crate::netfilter::{
    AddressKind, AddressRange, BaseChain, ChainKind, ChainPolicy, ConnmarkOp, DevicePattern, Hook, Match, NatPorts,
    NatTo, PortRange, PortSide, Rule, RuleCounters, StateName, Table, Target, Test,
};

pub(crate) const ROUTER: &str = include_str!("../testdata/router.rules");
pub(crate) const HYBRID: &str = include_str!("../testdata/hybrid.rules");
pub(crate) const DOCKER: &str = include_str!("../testdata/docker.rules");

/// The only rule of a filter table that also declares `chain`.
fn rule(text: &str) -> Rule {
    let (tables, problems) = parse(&format!("*filter\n:T - [0:0]\n:chain - [0:0]\n{text}\nCOMMIT\n"));
    assert_eq!(problems, []);
    tables[0].chain("T").unwrap().rules[0].clone()
}

fn tests(text: &str) -> Vec<(bool, Test)> {
    rule(text).matches.into_iter().map(|Match { not, test }| (not, test)).collect()
}

fn target(text: &str) -> Target {
    rule(&format!("-A T {text}")).target
}

fn net(text: &str) -> Vec<AddressRange> {
    vec![AddressRange::Net(text.parse().unwrap())]
}

fn exact(name: &str) -> DevicePattern {
    DevicePattern { name: name.to_owned(), prefix: false }
}

#[test]
fn real_rule_sets_are_understood_to_the_last_option() {
    for text in [ROUTER, HYBRID, DOCKER] {
        let (tables, problems) = parse(text);
        assert_eq!(problems, []);
        for rule in tables.iter().flat_map(Table::chains).flat_map(|chain| &chain.rules) {
            let known = rule.matches.iter().all(|one| !matches!(one.test, Test::Other(_)));
            assert!(known && !matches!(rule.target, Target::Other(_)), "{rule:?}");
        }
    }
}

#[test]
fn tables_and_chains_keep_their_order_policy_and_place_in_the_kernel() {
    let (tables, problems) =
        parse("# made by hand\n*nat\n:POSTROUTING DROP [7:420]\n:mine - [0:0]\n[3:180] -A mine -j RETURN\nCOMMIT\n");
    assert_eq!(problems, []);
    let [table] = tables.as_slice() else { panic!("{tables:?}") };
    assert_eq!(table.name, "nat");
    let chain = table.chain("POSTROUTING").unwrap();
    assert_eq!(chain.policy, Some(ChainPolicy::Drop));
    assert_eq!(chain.counters, RuleCounters { packets: 7, bytes: 420 });
    assert_eq!(
        chain.base,
        Some(BaseChain { kind: ChainKind::Nat, hook: Hook::Postrouting, priority: 100, devices: Some(vec![]) })
    );
    let mine = table.chain("mine").unwrap();
    assert_eq!((mine.base.as_ref(), mine.policy), (None, None));
    assert_eq!(mine.rules[0].counters, RuleCounters { packets: 3, bytes: 180 });
    assert_eq!((mine.rules[0].number, mine.rules[0].raw.as_str()), (1, "-A mine -j RETURN"));
}

#[test]
fn addresses_devices_and_protocols_are_read_with_their_negation() {
    let read = tests("-A T -s 10.0.0.0/24 ! -d 172.24.4.6/32 -i qr-+ ! -o qg-3f1d2c4b-5a -p tcp -j ACCEPT");
    let expected = [
        (false, Test::Source(net("10.0.0.0/24"))),
        (true, Test::Destination(net("172.24.4.6/32"))),
        (false, Test::InDevice(DevicePattern { name: "qr-".to_owned(), prefix: true })),
        (true, Test::OutDevice(exact("qg-3f1d2c4b-5a"))),
        (false, Test::Protocol(vec![6])),
    ];
    assert_eq!(read, expected);
}

#[test]
fn the_negation_of_old_releases_comes_after_the_option() {
    let read = tests("-A T -s ! 10.0.0.0/8 -p tcp -m tcp --dport ! 22 -j ACCEPT");
    assert_eq!(read[0], (true, Test::Source(net("10.0.0.0/8"))));
    let ports = Test::Ports { side: PortSide::Destination, ranges: vec![PortRange { first: 22, last: 22 }] };
    assert_eq!(read[2], (true, ports));
}

#[test]
fn a_negation_after_an_option_without_value_belongs_to_the_next_option() {
    let read = tests("-A T -f ! -i eth0 -j DROP");
    assert_eq!(read, [(false, Test::Fragment), (true, Test::InDevice(exact("eth0")))]);
}

#[test]
fn ports_are_single_ranges_or_lists() {
    let ranges = |text: &str| match tests(text).pop() {
        Some((_, Test::Ports { side, ranges })) => {
            (side, ranges.into_iter().map(|range| (range.first, range.last)).collect::<Vec<_>>())
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(ranges("-A T -p tcp -m tcp --dport 22 -j DROP"), (PortSide::Destination, vec![(22, 22)]));
    assert_eq!(ranges("-A T -p udp -m udp --sport 1024: -j DROP"), (PortSide::Source, vec![(1024, 65535)]));
    let list = "-A T -p tcp -m multiport --ports 22,8000:8100 -j DROP";
    assert_eq!(ranges(list), (PortSide::Either, vec![(22, 22), (8000, 8100)]));
    assert_eq!(ranges("-A T -p sctp -m sctp --dport 5:9 -j DROP"), (PortSide::Destination, vec![(5, 9)]));
}

#[test]
fn extensions_neutron_and_docker_use_are_read() {
    let one = |text: &str| tests(&format!("-A T {text} -j DROP")).pop().unwrap();
    let states = Test::States(vec![StateName::Related, StateName::Established]);
    assert_eq!(one("-m state --state RELATED,ESTABLISHED"), (false, states.clone()));
    assert_eq!(one("-m conntrack ! --ctstate RELATED,ESTABLISHED"), (true, states));
    assert_eq!(one("-p icmp -m icmp --icmp-type 8/0"), (false, Test::Icmp { kind: Some(8), code: Some(0) }));
    assert_eq!(one("-p ipv6-icmp -m icmp6 --icmpv6-type 134"), (false, Test::Icmp { kind: Some(134), code: None }));
    assert_eq!(one("-p icmp -m icmp --icmp-type any"), (false, Test::Icmp { kind: None, code: None }));
    assert_eq!(one("-m mark ! --mark 0x2/0xffff"), (true, Test::Mark { value: 2, mask: 0xffff }));
    assert_eq!(one("-m connmark --mark 0x7"), (false, Test::Connmark { value: 7, mask: u32::MAX }));
    assert_eq!(one("-m physdev ! --physdev-is-bridged"), (true, Test::PhysdevIsBridged));
    assert_eq!(one("-m physdev --physdev-in tap1a2b3c4d-5e"), (false, Test::PhysdevIn(exact("tap1a2b3c4d-5e"))));
    let mac = "fa:16:3e:11:22:33".parse().unwrap();
    assert_eq!(one("-m mac --mac-source FA:16:3E:11:22:33"), (false, Test::SourceMac(mac)));
    let set = Test::Set { name: "NIPv4a".to_owned(), fields: "src".to_owned(), members: None };
    assert_eq!(one("-m set ! --match-set NIPv4a src"), (true, set));
    let local = Test::AddressKind { source: false, kinds: vec![AddressKind::Local], limited: true };
    assert_eq!(one("-m addrtype --dst-type LOCAL --limit-iface-in"), (false, local));
    let syn = Test::TcpFlags { mask: 0x17, set: 0x02 };
    assert_eq!(one("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"), (false, syn.clone()));
    assert_eq!(one("-p tcp -m tcp ! --syn"), (true, syn));
    let span = AddressRange::Span([10, 0, 0, 1].into(), [10, 0, 0, 9].into());
    assert_eq!(one("-m iprange --src-range 10.0.0.1-10.0.0.9"), (false, Test::Source(vec![span])));
}

#[test]
fn an_unknown_extension_is_kept_and_loses_nothing_around_it() {
    let text = "-A T -i eth0 -m policy --dir in --pol ipsec -m hashlimit --hashlimit-name \"-j ACCEPT\" -m conntrack \
                --ctproto 6 --ctstate NEW -j DROP";
    let read = tests(text);
    let expected = [
        (false, Test::InDevice(exact("eth0"))),
        (false, Test::Other("-m policy --dir in --pol ipsec".to_owned())),
        (false, Test::Other("-m hashlimit --hashlimit-name \"-j ACCEPT\"".to_owned())),
        (false, Test::Other("--ctproto 6".to_owned())),
        (false, Test::States(vec![StateName::New])),
    ];
    assert_eq!(read, expected);
    assert_eq!(rule(text).target, Target::Drop);
}

#[test]
fn a_negated_option_that_is_not_understood_keeps_its_negation_as_text() {
    let read = tests("-A T ! -s 10.0.0.0/255.0.255.0 -p tcp -j DROP");
    assert_eq!(read[0], (false, Test::Other("! -s 10.0.0.0/255.0.255.0".to_owned())));
    assert_eq!(read[1], (false, Test::Protocol(vec![6])));
}

#[test]
fn a_comment_can_hold_anything_and_stays_a_comment() {
    let hostile = r#"-A T -m comment --comment "\"; -j ACCEPT \\ ! -d 0.0.0.0/0 # \'" -j DROP"#;
    let read = rule(hostile);
    assert_eq!(read.comment.as_deref(), Some(r#""; -j ACCEPT \ ! -d 0.0.0.0/0 # '"#));
    assert_eq!((read.matches.len(), read.target), (0, Target::Drop));
    let bare = rule("-A T -m comment --comment -j -j DROP");
    assert_eq!((bare.comment.as_deref(), bare.target), (Some("-j"), Target::Drop));
}

#[test]
fn nat_targets_are_read_in_every_form() {
    let to = |text: &str| {
        let read = target(text);
        let (Target::Dnat(to) | Target::Snat(to) | Target::Redirect(to) | Target::Masquerade(to)) = read else {
            panic!("{read:?}");
        };
        to
    };
    let one = Some(([10, 0, 0, 9].into(), [10, 0, 0, 9].into()));
    let ports = |first, last, base| Some(NatPorts { range: PortRange { first, last }, base });
    assert_eq!(to("-j DNAT --to-destination 10.0.0.9"), NatTo { addresses: one, ports: None, random: false });
    assert_eq!(to("-j DNAT --to-destination 10.0.0.9:22").ports, ports(22, 22, None));
    assert_eq!(to("-j DNAT --to-destination 10.0.0.9:60-70/40").ports, ports(60, 70, Some(40)));
    let snat = to("-j SNAT --to-source 10.0.0.9 --random-fully");
    assert_eq!((snat.address(), snat.random), (Some([10, 0, 0, 9].into()), true));
    assert_eq!(
        to("-j REDIRECT --to-ports 9697"),
        NatTo { addresses: None, ports: ports(9697, 9697, None), random: false }
    );
    assert_eq!(to("-j MASQUERADE"), NatTo::default());
    let six = to("-j DNAT --to-destination [fd00::2]:80");
    assert_eq!((six.address(), six.ports), (Some("fd00::2".parse().unwrap()), ports(80, 80, None)));
    assert_eq!(to("-j DNAT --to-destination fd00::2").address(), Some("fd00::2".parse().unwrap()));
}

#[test]
fn marks_are_read_as_the_kernel_stores_them() {
    assert_eq!(target("-j MARK --set-xmark 0x1/0xffff"), Target::Mark { value: 1, mask: 0xffff });
    assert_eq!(target("-j MARK --or-mark 0x4"), Target::Mark { value: 4, mask: 4 });
    let save = ConnmarkOp::Save { nfmask: 0xffff_0000, ctmask: 0xffff_0000 };
    assert_eq!(target("-j CONNMARK --save-mark --nfmask 0xffff0000 --ctmask 0xffff0000"), Target::Connmark(save));
    let restore = ConnmarkOp::Restore { nfmask: u32::MAX, ctmask: u32::MAX };
    assert_eq!(target("-j CONNMARK --restore-mark"), Target::Connmark(restore));
    assert_eq!(target("-j CT --zone 4097"), Target::Track { zone: Some(4097), notrack: false });
    assert_eq!(target("-j CT --notrack"), Target::Track { zone: None, notrack: true });
}

#[test]
fn jumps_are_told_from_targets_by_the_declared_chains() {
    assert_eq!(target("-j chain"), Target::Jump("chain".to_owned()));
    assert_eq!(target("-g chain"), Target::Goto("chain".to_owned()));
    assert_eq!(
        target("-j NFLOG --nflog-prefix \"-j ACCEPT\""),
        Target::Passes("NFLOG --nflog-prefix \"-j ACCEPT\"".to_owned())
    );
    assert_eq!(target("-j TPROXY --on-port 1"), Target::Other("TPROXY --on-port 1".to_owned()));
    assert_eq!(target("-j REJECT --reject-with tcp-reset"), Target::Reject(Some("tcp-reset".to_owned())));
    assert_eq!(target("-p tcp"), Target::None);
}

#[test]
fn what_is_no_rule_is_reported_with_its_line() {
    let text = "-A INPUT -j DROP\n*filter\n:INPUT ACCEPT [0:0]\ngarbage\n[x] -A INPUT -j DROP\n-A INPUT -j ACCEPT\n-D INPUT 1\nCOM";
    let (tables, problems) = parse(text);
    assert_eq!(tables[0].chain("INPUT").unwrap().rules.len(), 1);
    let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
    assert_eq!(lines, [1, 4, 5, 7, 8, 0]);
    assert_eq!(problems.last().unwrap().why, "the text ends before the table does");
}

#[test]
fn a_quoted_chain_name_with_blanks_is_reported_and_makes_no_chain() {
    let (tables, problems) = parse("*raw\n-A \" -m \\\" ! -j\n-A \"\" -j DROP\nCOMMIT\n");
    assert_eq!((tables[0].chains().len(), problems.len()), (0, 2));
}

#[test]
fn a_table_that_only_nft_can_print_is_reported_and_other_comments_are_not() {
    let (_, problems) = parse("# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n");
    assert_eq!(problems, []);
    let (_, problems) = parse("# Table `filter' is incompatible, use 'nft' tool.\n");
    assert_eq!(problems.len(), 1);
    let partly = "# Table `filter' contains incompatible base-chains, use 'nft' tool to list them.\n";
    assert_eq!(parse(partly).1.len(), 1);
}

#[test]
fn tables_that_are_better_read_elsewhere_are_left_out_of_the_text() {
    let text = "# Table `nat' is incompatible, use 'nft' tool.\n*raw\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*nat\n-A x -j \
                DROP\nCOMMIT\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n";
    let names = |left_out: &[&str]| {
        let left_out = left_out.iter().map(|&name| name.to_owned()).collect();
        let (tables, problems) = parse(&without(text, &left_out));
        assert_eq!(problems, []);
        tables.into_iter().map(|table| table.name).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["raw", "filter"]);
    assert_eq!(names(&["filter"]), ["raw"]);
}

fn render(tables: &[Table]) -> String {
    tables.iter().map(ToString::to_string).collect()
}

#[test]
fn printing_a_rule_set_gives_back_what_was_read() {
    for text in [ROUTER, HYBRID, DOCKER] {
        let (tables, _) = parse(text);
        let (again, problems) = parse(&render(&tables));
        assert_eq!((problems, again), (Vec::new(), tables));
    }
    let (tables, _) = parse(ROUTER);
    let lines = |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines(&render(&tables)), lines(ROUTER));
}

/// A real rule set with lines cut, doubled and put elsewhere.
fn mutated() -> impl Strategy<Value = String> {
    let edits =
        prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0..5_u8, ".{0,12}"), 1..20);
    (prop::sample::select(vec![ROUTER, HYBRID, DOCKER]), edits).prop_map(|(text, edits)| {
        let mut text: Vec<char> = text.chars().collect();
        for (from, to, kind, insert) in edits {
            let (from, to) = (from.index(text.len().max(1)), to.index(text.len().max(1)));
            let (from, to) = (from.min(to), from.max(to));
            match kind {
                0 => drop(text.drain(from..to.min(from + 40))),
                1 => text.truncate(to),
                2 => drop(text.splice(from..from, insert.chars())),
                3 => text.swap(from, to),
                _ => drop(text.splice(from..from, "\" -m \\\" ! -j\n".chars())),
            }
            if text.is_empty() {
                text.push('*');
            }
        }
        text.into_iter().collect()
    })
}

proptest! {
    #[test]
    fn any_text_is_parsed_without_a_panic(text in "\\PC*|[\\s\\S]*") {
        parse(&text);
    }

    #[test]
    fn any_rule_is_parsed_without_a_panic(
        words in prop::collection::vec("-[a-z-]{1,12}|!|\"[^\"]*\"|\"|[0-9a-fx/:,.\\[\\]-]{1,9}|-j|-m|DNAT|--to-destination", 0..20),
    ) {
        parse(&format!("*nat\n:T - [0:0]\n-A T {}\nCOMMIT\n", words.join(" ")));
    }

    #[test]
    fn a_damaged_rule_set_is_parsed_and_what_was_read_prints_and_reads_the_same(text in mutated()) {
        let (tables, _) = parse(&text);
        let (again, _) = parse(&render(&tables));
        // What names a built-in chain or a jump may have changed with a chain declared later; the text has not.
        assert_eq!(render(&again), render(&tables));
        let (settled, _) = parse(&render(&again));
        assert_eq!(settled, again);
    }
}

//! Invariants of a policy that changes, under traffic, on a real kernel with the real agent: what is taken away is gone with the
//! next packet, what is added disturbs nothing, and nothing in between is all-deny or all-allow.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::time::Instant;

use netdiag_tests::{
    site::{Site, both, of_ipv6, rule, rules},
    traffic::{Stream, Traffic, answers_alone, fresh, handshake, tcp, udp, udp6},
};

/// Something that takes away what some streams live by, and its opposite.
struct Change<'a> {
    what: &'a str,
    /// Numbers of the streams.
    revokes: std::ops::Range<usize>,
    revoke: Box<dyn Fn() + 'a>,
    restore: Box<dyn Fn() + 'a>,
}

fn change<'a>(
    what: &'a str,
    revokes: std::ops::Range<usize>,
    revoke: impl Fn() + 'a,
    restore: impl Fn() + 'a,
) -> Change<'a> {
    Change { what, revokes, revoke: Box::new(revoke), restore: Box::new(restore) }
}

/// Flows that the first machine has, each with what goes the other way.
fn conversations(Site { world, first, second, .. }: &Site) -> Vec<Stream> {
    let (to, from) = ((world, first), (first, world));
    vec![
        udp("udp to the service", to, (5007, 7)),
        udp("udp back from the service", from, (7, 5007)),
        tcp("tcp to the service", to, (5007, 7)),
        tcp("tcp back from the service", from, (7, 5007)),
        udp6("udp of ipv6 to the service", to, (5007, 7)),
        udp6("udp of ipv6 back from the service", from, (7, 5007)),
        udp("udp out", from, (5009, 9)),
        udp("udp in answer", to, (9, 5009)),
        tcp("tcp out", from, (5009, 9)),
        tcp("tcp in answer", to, (9, 5009)),
        udp("udp of a friend", to, (5005, 5)),
        udp("udp back to the friend", from, (5, 5005)),
        udp6("udp of ipv6 of a friend", to, (5005, 5)),
        udp6("udp of ipv6 back to the friend", from, (5, 5005)),
        udp("udp to a target", from, (5006, 6)),
        udp("udp back from the target", to, (6, 5006)),
        udp("udp of a peer", (second, first), (5004, 4)),
        udp("udp back to the peer", (first, second), (4, 5004)),
    ]
}

const SERVICE: std::ops::Range<usize> = 0..6;
const OUT: std::ops::Range<usize> = 6..10;
const FRIEND: std::ops::Range<usize> = 10..14;
const TARGET: std::ops::Range<usize> = 14..16;
const PEER: std::ops::Range<usize> = 16..18;

/// The service, of both families.
fn service() -> String {
    rules(&[both("ingress", 7, ""), of_ipv6(&rule("ingress", "udp", 7, ""))])
}

/// Groups of the first machine's port.
const ALL: [&str; 5] = ["serve", "ask", "friendly", "aimed", "met"];

fn prepare(site: &Site) {
    let friendly = rule("ingress", "udp", 5, r#", "remote_group_id": "friends""#);
    let groups = [
        ("serve", service()),
        ("ask", both("egress", 9, "")),
        ("friends", String::new()),
        ("friendly", rules(&[of_ipv6(&friendly), friendly])),
        ("aimed", rule("egress", "udp", 6, r#", "remote_address_group_id": "targets""#)),
        ("peers", String::new()),
        ("met", rule("ingress", "udp", 4, r#", "remote_group_id": "peers""#)),
        ("anywhere", r#"{"direction": "egress", "ethertype": "IPv4"}"#.to_owned()),
    ];
    let groups = groups.each_ref().map(|(id, rules)| (*id, rules.as_str()));
    let rest = r#", "members": {"friends": ["192.0.2.254", "2001:db8::fe"]},
        "address_groups": [{"id": "targets", "addresses": ["192.0.2.128/25"]}]"#;
    let ports = [site.first.port("p1", &ALL), site.second.port("p2", &["peers", "anywhere"])];
    site.policy(&groups, &ports, rest);
    assert!(handshake(&site.world, &site.first, (5007, 7)) && handshake(&site.first, &site.world, (5009, 9)));
}

/// Every way to take something away.
fn changes(site: &Site) -> Vec<Change<'_>> {
    let host = &site.host;
    let serve = || site.put_group("serve", &service());
    let asked = || site.put_group("ask", &both("egress", 9, ""));
    let others = || {
        let rule = rule("ingress", "udp", 7, r#", "remote_ip_prefix": "2001:db8::/121""#);
        site.put_group(
            "serve",
            &rules(&[both("ingress", 7, r#", "remote_ip_prefix": "192.0.2.0/25""#), of_ipv6(&rule)]),
        );
    };
    let without = |gone: &'static str| {
        move || site.put_port(&site.first, "p1", &ALL.into_iter().filter(|group| *group != gone).collect::<Vec<_>>())
    };
    let whole = || site.put_port(&site.first, "p1", &ALL);
    let members = |list: &'static str| move || drop(host.ok("PUT", "/v1/security-groups/friends/members", list));
    let targets = |list: &'static str| {
        move || {
            let body = format!(r#"{{"id": "targets", "addresses": {list}}}"#);
            drop(host.ok("PUT", "/v1/address-groups/targets", &body));
        }
    };
    let second = |groups: &'static [&'static str]| move || site.put_port(&site.second, "p2", groups);
    vec![
        change("rules leave a group", SERVICE, || site.put_group("serve", ""), serve),
        change("a rule is for others", SERVICE, others, serve),
        change("a group leaves the port", SERVICE, without("serve"), whole),
        change("a group of egress rules leaves the port", OUT, without("ask"), whole),
        change("rules of egress leave a group", OUT, || site.put_group("ask", ""), asked),
        change(
            "a member leaves",
            FRIEND,
            members(r#"["192.0.2.253", "2001:db8::fd"]"#),
            members(r#"["192.0.2.254", "2001:db8::fe"]"#),
        ),
        change(
            "all members leave",
            FRIEND,
            || drop(host.ok("DELETE", "/v1/security-groups/friends/members", "")),
            members(r#"["192.0.2.0/24", "2001:db8::/64"]"#),
        ),
        change(
            "a prefix leaves an address group",
            TARGET,
            targets(r#"["192.0.2.0/25"]"#),
            targets(r#"["192.0.2.254"]"#),
        ),
        change("a port leaves a remote group", PEER, second(&["anywhere"]), second(&["anywhere", "peers"])),
        change(
            "nothing is taken away",
            0..0,
            || site.put_group("serve", &rules(&[service(), both("ingress", 70, ""), both("egress", 71, "")])),
            serve,
        ),
    ]
}

#[test]
fn what_is_taken_away_is_gone_with_the_next_packet_in_both_directions_and_lives_again_when_it_is_back() {
    let test = "what_is_taken_away_is_gone_with_the_next_packet_in_both_directions_and_lives_again_when_it_is_back";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.start();
    prepare(&site);
    let traffic = Traffic::start(conversations(&site));
    let mut times = Vec::new();
    for Change { what, revokes, revoke, restore } in changes(&site) {
        let began = Instant::now();
        traffic.more(50);
        let asked = Instant::now();
        revoke();
        let answered = Instant::now();
        traffic.more(100);
        let asked_again = Instant::now();
        restore();
        let back = Instant::now();
        traffic.more(50);
        times.push((what, revokes, began..asked, answered..asked_again, back..Instant::now()));
    }
    let logs = traffic.stop();
    for (what, revokes, before, without, after) in times {
        for (number, log) in logs.iter().enumerate() {
            if revokes.contains(&number) {
                log.all_arrived(what, &before, 50);
                log.none_arrived(what, &without, 100);
                log.all_arrived(what, &after, 50);
            } else {
                log.all_arrived(what, &(before.start..after.end), 200);
            }
        }
    }
}

// === no blink ===

/// Numbers that follow each other without order.
struct Numbers(u32);

impl Numbers {
    fn below(&mut self, limit: u16) -> u16 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u16::try_from((self.0 >> 16) % u32::from(limit)).unwrap_or_default()
    }
}

/// The rule for port 7, among others, none of which is for 8 or 10.
fn around(numbers: &mut Numbers) -> String {
    let remotes = ["", r#", "remote_ip_prefix": "192.0.2.0/24""#, r#", "remote_group_id": "friends""#];
    let mut all = vec![rule("ingress", "udp", 7, ""), rule("ingress", "tcp", 7, "")];
    for _ in 0..numbers.below(6) {
        let remote = remotes[usize::from(numbers.below(3))];
        let (direction, protocol) = (["ingress", "egress"], ["tcp", "udp"]);
        let (direction, protocol) = (direction[usize::from(numbers.below(2))], protocol[usize::from(numbers.below(2))]);
        let port = if numbers.below(2) == 0 { 1 + numbers.below(7) } else { 11 + numbers.below(3000) };
        let another = rule(direction, protocol, port, remote);
        if !all.contains(&another) {
            all.push(another);
        }
    }
    let place = usize::from(numbers.below(u16::try_from(all.len()).unwrap()));
    all.swap(0, place);
    rules(&all)
}

#[test]
fn hundreds_of_changes_around_a_rule_lose_nothing_it_allows_and_let_nothing_else_through() {
    let test = "hundreds_of_changes_around_a_rule_lose_nothing_it_allows_and_let_nothing_else_through";
    let Some(mut site) = Site::enter(test) else { return };
    site.host.start();
    let whole = both("ingress", 7, "");
    let groups = [("serve", whole.as_str()), ("friends", ""), ("other", "")];
    site.policy(&groups, &[site.first.port("p1", &["serve"])], "");
    assert!(handshake(&site.world, &site.first, (5007, 7)));
    let (to, from) = ((&site.world, &site.first), (&site.first, &site.world));
    let [silent_udp, silent_tcp] = answers_alone(&site.world, &site.first, 7);
    let allowed = 7;
    let traffic = Traffic::start(vec![
        silent_udp,
        silent_tcp,
        udp("udp of a flow", to, (5007, 7)),
        udp("udp back", from, (7, 5007)),
        tcp("tcp", to, (5007, 7)),
        tcp("tcp back", from, (7, 5007)),
        fresh("new flows", to, 7),
        udp("refused udp", to, (5008, 8)),
        tcp("refused tcp", to, (5008, 8)),
        fresh("refused new flows", to, 8),
        udp("refused udp out", from, (5010, 10)),
        tcp("refused tcp out", from, (5010, 10)),
    ]);
    let began = Instant::now();
    let mut numbers = Numbers(20);
    for number in 0..240 {
        match number % 4 {
            0 | 2 => site.put_group("serve", &around(&mut numbers)),
            1 => site.put_port(&site.first, "p1", if number % 8 == 1 { &["serve", "other"] } else { &["serve"] }),
            _ => {
                let list = format!(r#"["192.0.2.{}", "198.51.100.0/24"]"#, numbers.below(256));
                drop(site.host.ok("PUT", "/v1/security-groups/friends/members", &list));
            }
        }
    }
    traffic.more(10);
    let done = &site.host.ok("GET", "/v1/status", "")["passes"]["done"];
    assert!(done.as_u64().is_some_and(|done| done > 200), "only {done} passes");
    let time = began..Instant::now();
    let logs = traffic.stop();
    for (number, log) in logs.iter().enumerate() {
        if number < allowed {
            log.all_arrived("changes", &time, 500);
        } else {
            log.none_arrived("changes", &time, 500);
            assert_eq!(log.arrived(), 0);
        }
    }
}

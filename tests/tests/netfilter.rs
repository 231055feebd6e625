//! Packet filter rules on a real kernel: what the source reads in throw-away namespaces against what iptables lists.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use iptables::IPTables;
use netdiag_agent::{
    discover::{Options, look},
    netns::Namespace,
};
use netdiag_model::{
    fact::{Facts, RuleBackend, RulesetFact, SourceKind, SourceReport},
    netfilter::{
        Address, Effect, Hook, Known, Outcome, Packet, Ruleset, Table,
        recognise::{floating_ips, hybrid_ports, publications},
        walk,
    },
};
use netdiag_tests::{require_programs, require_root};
use tempfile::TempDir;

const ROUTER: &str = include_str!("../../userspace/model/src/netfilter/testdata/router.rules");
const HYBRID: &str = include_str!("../../userspace/model/src/netfilter/testdata/hybrid.rules");
const DOCKER: &str = include_str!("../../userspace/model/src/netfilter/testdata/docker.rules");

/// A namespace of `ip netns`, removed at the end of the test.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("netdiag-nf-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs a tool inside with a text as its input.
    fn feed(&self, tool: &[&str], text: &str) {
        // Tests run side by side, and the legacy tools share one lock file whatever the namespace.
        let wait = tool[0].ends_with("-restore").then_some("--wait=20");
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.0]).args(tool).args(wait);
        let mut child = inside.stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success(), "{tool:?}");
    }

    /// Does work on a thread inside.
    fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let namespace = Namespace::open(&self.path()).unwrap();
        runtime().block_on(namespace.run(work)).unwrap()
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace left behind is a nuisance and no failure.
        drop(Command::new("ip").args(["netns", "del", &self.0]).status());
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// What discovery sees of these namespaces and of nothing else.
fn facts(namespaces: &[&Netns]) -> Facts {
    let folder = TempDir::new().unwrap();
    for netns in namespaces {
        std::os::unix::fs::symlink(netns.path(), folder.path().join(&netns.0)).unwrap();
    }
    let nowhere = folder.path().join("nowhere");
    let options = Options {
        timeout: Duration::from_mins(1),
        docker_socket: nowhere.clone(),
        ovsdb_socket: nowhere.clone(),
        netns_dirs: vec![folder.path().to_owned()],
        pin_dir: nowhere.clone(),
        agent_socket: nowhere.clone(),
        flows: false,
        proc_dir: nowhere,
    };
    runtime().block_on(look(options)).facts
}

fn netfilter(facts: &Facts) -> &SourceReport {
    facts.reports.iter().find(|report| report.source == SourceKind::Netfilter).unwrap()
}

/// The rule sets of one namespace, by backend and family.
fn read(netns: &Netns) -> Vec<RulesetFact> {
    let facts = facts(&[netns]);
    assert_eq!(netfilter(&facts).gaps, []);
    facts.rulesets
}

fn ruleset(fact: &RulesetFact) -> Ruleset {
    let (ruleset, problems) = Ruleset::read(fact.backend, fact.ipv6, &fact.text);
    assert_eq!(problems, []);
    ruleset
}

fn only(facts: Vec<RulesetFact>) -> RulesetFact {
    let [fact] = facts.try_into().unwrap();
    fact
}

/// Rules as `iptables -S` prints them, chain by chain.
fn rules(tables: &[Table], name: &str) -> Vec<String> {
    let chains = tables.iter().filter(|table| table.name == name).flat_map(Table::chains);
    let mut rules: Vec<String> = chains.flat_map(|chain| &chain.rules).map(|rule| rule.raw.clone()).collect();
    // `-S` and `-save` list chains in different orders; within a chain the order is the rule's number.
    rules.sort();
    rules
}

/// The same by the iptables crate, which asks the kernel by `iptables -S`.
fn witness(netns: &Netns, command: &'static str, table: &'static str) -> Vec<String> {
    netns.inside(move || {
        let iptables = IPTables { cmd: command, ..iptables::new(false).unwrap() };
        let listed = iptables.list_table(table).unwrap();
        let mut rules: Vec<String> = listed.into_iter().filter(|line| line.starts_with("-A ")).collect();
        rules.sort();
        rules
    })
}

/// Security groups need their ipsets, which need a tool that is not everywhere.
fn hybrid_without_sets() -> String {
    HYBRID
        .lines()
        .filter(|line| !line.contains("match-set"))
        .map(|line| format!("{line}\n"))
        .collect::<Vec<_>>()
        .concat()
}

#[test]
fn every_rule_iptables_lists_is_read_from_either_backend() {
    if !require_root() || !require_programs(&["iptables-legacy-restore", "iptables-nft-restore", "nft"]) {
        return;
    }
    let backends = [
        (RuleBackend::IptablesLegacy, "iptables-legacy-restore", "iptables-legacy"),
        (RuleBackend::IptablesNft, "iptables-nft-restore", "iptables-nft"),
    ];
    for (backend, restore, list) in backends {
        for text in [ROUTER.to_owned(), hybrid_without_sets(), DOCKER.to_owned()] {
            let netns = Netns::new();
            netns.feed(&[restore], &text);
            let fact = only(read(&netns));
            assert_eq!((fact.backend, fact.ipv6), (backend, false));
            let read = ruleset(&fact);
            let tables: Vec<&str> = read.tables.iter().map(|table| table.name.as_str()).collect();
            assert!(!tables.is_empty());
            for table in ["raw", "mangle", "nat", "filter"].into_iter().filter(|table| tables.contains(table)) {
                let expected = witness(&netns, list, table);
                assert!(!expected.is_empty());
                assert_eq!(rules(&read.tables, table), expected, "{backend:?} {table}");
            }
        }
    }
}

#[test]
fn what_the_kernel_gives_back_is_recognised() {
    if !require_root() || !require_programs(&["iptables-nft-restore", "nft"]) {
        return;
    }
    let tables = |text: &str| {
        let netns = Netns::new();
        netns.feed(&["iptables-nft-restore"], text);
        ruleset(&only(read(&netns))).tables
    };
    assert!(floating_ips(&tables(ROUTER)).iter().all(|floating| floating.missing().is_empty()));
    assert_eq!(hybrid_ports(&tables(&hybrid_without_sets()))[0].zone, Some(4097));
    assert_eq!(publications(&tables(DOCKER)).len(), 2);
}

#[test]
fn legacy_nft_and_ipv6_rules_of_one_namespace_are_all_read_and_none_twice() {
    if !require_root() || !require_programs(&["iptables-legacy-restore", "ip6tables-nft-restore", "nft"]) {
        return;
    }
    let netns = Netns::new();
    netns.feed(&["iptables-legacy-restore"], "*filter\n-A FORWARD -d 10.0.0.1/32 -j DROP\nCOMMIT\n");
    netns.feed(&["iptables-nft-restore"], "*filter\n-A FORWARD -d 10.0.0.2/32 -j DROP\nCOMMIT\n");
    netns.feed(&["ip6tables-nft-restore"], "*filter\n-A FORWARD -d fd00::1/128 -j DROP\nCOMMIT\n");
    netns.feed(&["ip6tables-legacy-restore"], "*filter\n-A FORWARD -d fd00::2/128 -j DROP\nCOMMIT\n");
    let chain = "table inet own { chain f { type filter hook forward priority 10; ip daddr 10.0.0.3 drop; }\n}\n";
    netns.feed(&["nft", "-f", "-"], chain);
    let read = read(&netns);
    let places: Vec<_> = read.iter().map(|fact| (fact.backend, fact.ipv6)).collect();
    let expected = [
        (RuleBackend::IptablesLegacy, false),
        (RuleBackend::IptablesLegacy, true),
        (RuleBackend::IptablesNft, false),
        (RuleBackend::IptablesNft, true),
        (RuleBackend::Nft, false),
    ];
    assert_eq!(places, expected);
    let rulesets: Vec<Ruleset> = read.iter().map(ruleset).collect();
    let count: usize =
        rulesets.iter().flat_map(|one| &one.tables).flat_map(Table::chains).map(|chain| chain.rules.len()).sum();
    assert_eq!(count, 5);
    // Each of them drops its own address, and no other.
    let all: Vec<&Ruleset> = rulesets.iter().collect();
    let dropped = |address: &str| {
        let packet = Packet::between(Address::Outside, Address::Is(address.parse().unwrap())).tcp(80);
        let walked = walk(&all, Hook::Forward, packet);
        let step = walked.deciding().map(|step| step.backend);
        matches!(walked.outcome, Outcome::Drop { .. }).then_some(step).flatten()
    };
    assert_eq!(dropped("10.0.0.1"), Some(RuleBackend::IptablesLegacy));
    assert_eq!(dropped("10.0.0.2"), Some(RuleBackend::IptablesNft));
    assert_eq!(dropped("10.0.0.3"), Some(RuleBackend::Nft));
    assert_eq!(dropped("fd00::1"), Some(RuleBackend::IptablesNft));
    assert_eq!(dropped("fd00::2"), Some(RuleBackend::IptablesLegacy));
    assert_eq!(dropped("10.0.0.4"), None);
}

#[test]
fn rules_that_iptables_prints_wrong_or_not_at_all_are_read_by_nft() {
    if !require_root() || !require_programs(&["nft", "iptables-nft-save"]) {
        return;
    }
    // iptables-nft-save prints the first as `-A FORWARD -j DROP`, and of the second that it cannot.
    for test in ["ip daddr { 10.0.0.1, 10.0.0.2 }", "ip daddr 10.0.0.2 numgen random mod 2 0"] {
        let netns = Netns::new();
        let text = format!(
            "table ip filter {{\n chain FORWARD {{ type filter hook forward priority 0; {test} counter drop; }}\n}}\n"
        );
        netns.feed(&["nft", "-f", "-"], &text);
        let fact = only(read(&netns));
        assert_eq!(fact.backend, RuleBackend::Nft);
        let to = |address: &str| {
            let packet = Packet::between(Address::Outside, Address::Is(address.parse().unwrap())).tcp(80);
            walk(&[&ruleset(&fact)], Hook::Forward, packet).outcome
        };
        assert_ne!(to("10.0.0.2"), Outcome::Accept, "{test}");
        assert_eq!(to("10.0.0.3"), Outcome::Accept, "{test}");
    }
}

#[test]
fn reading_changes_nothing_and_costs_little_in_empty_namespaces() {
    if !require_root() || !require_programs(&["nft", "iptables-legacy-save"]) {
        return;
    }
    let all: Vec<Netns> = (0..50).map(|_| Netns::new()).collect();
    let started = Instant::now();
    let read = facts(&all.iter().collect::<Vec<_>>());
    let took = started.elapsed();
    assert_eq!((read.rulesets.len(), netfilter(&read).gaps.len()), (0, 0));
    assert!(took < Duration::from_secs(20), "{took:?}");
    let tables = all[0].inside(|| {
        let legacy = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        legacy + &String::from_utf8(Command::new("nft").args(["list", "tables"]).output().unwrap().stdout).unwrap()
    });
    assert_eq!(tables, "");
}

#[test]
fn what_rules_of_the_kernel_count_is_read() {
    if !require_root() || !require_programs(&["iptables-nft-restore", "ping"]) {
        return;
    }
    let netns = Netns::new();
    netns.feed(&["ip", "-batch", "-"], "link set lo up\naddress add 10.0.0.2/32 dev lo\n");
    netns.feed(
        &["iptables-nft-restore"],
        "*nat\n-A OUTPUT -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2\nCOMMIT\n",
    );
    netns.feed(&["ip", "-batch", "-"], "route add 172.24.4.0/24 dev lo\n");
    netns.feed(&["ping", "-c", "1", "-W", "2", "172.24.4.6"], "");
    let read = ruleset(&only(read(&netns)));
    let packet = Packet::between(Address::Local, Address::Is("172.24.4.6".parse().unwrap())).echo_request();
    let walked = walk(&[&read], Hook::Output, packet);
    assert_eq!(walked.steps[0].effect, Effect::Dnat(Address::Is("10.0.0.2".parse().unwrap()), Known::Absent));
    assert_eq!(walked.steps[0].counters.packets, 1);
}

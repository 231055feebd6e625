//! Packet filter rules of every namespace: iptables (legacy and nft) and nftables. Flow: discover.
//!
//! Only tools that read are started: `iptables-legacy-save`, `iptables-nft-save`, their IPv6 twins, and
//! `nft -j list ruleset`, and `ipset save` where rules ask for sets. Listing with `iptables -S` would create the table it lists and hook it into the namespace, so
//! a look would change what it looks at; `-save` reads `/proc/net/ip_tables_names` and touches only tables that exist.
//! None of them takes the xtables lock.
//!
//! A host has hundreds of namespaces, most without rules, so what cannot be there is not asked for: legacy tools only
//! where the kernel names tables, `iptables-nft-save` only where `nft` lists tables of iptables' names. A table is kept
//! once: as iptables prints it, or as nft does where iptables cannot print it or prints it wrong. Each tool is
//! started by a thread inside the namespace, is given a time and killed after it; what could not be read is a gap.

use std::{
    collections::BTreeSet,
    fs, io,
    path::Path,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use netdiag_model::{
    fact::{Facts, Gap, RuleBackend, RulesetFact, SetsFact, SourceKind},
    id::NetnsId,
    netfilter::{Family, Ruleset, nft, parse},
};

use super::{Scope, chain, report};
use crate::netns::{Namespace, NetnsError};

/// Which tools this host has.
mod tools;

pub(crate) use tools::search_path;
use tools::{ToolError, Tools};

/// Namespaces read at a time: enough to keep a few cores busy, few enough not to disturb a host in trouble.
const AT_A_TIME: usize = 8;

/// Reads the rules of every namespace.
pub(super) async fn read(scope: &Scope) -> Facts {
    let limits = Limits::new(scope.options.timeout);
    let tools = Tools::find().await;
    let reads = scope.namespaces.iter().map(|namespace| namespace_rules(&tools, namespace, limits));
    let all: Vec<Found> = stream::iter(reads).buffer_unordered(AT_A_TIME).collect().await;
    let (mut rulesets, mut sets, mut gaps) = (Vec::new(), Vec::new(), tools.gaps());
    gaps.extend(ebtables(&fs::read_to_string("/proc/modules").unwrap_or_default()));
    for found in all {
        rulesets.extend(found.rulesets);
        sets.extend(found.sets);
        gaps.extend(found.gaps);
    }
    // Namespaces finish in any order; snapshots of one host should not differ by it.
    rulesets.sort_by_key(|fact| (fact.netns, fact.backend, fact.ipv6));
    sets.sort();
    gaps.sort();
    let how = format!("{} in {} namespaces", tools.names(), scope.namespaces.len());
    Facts { rulesets, sets, ..report(SourceKind::Netfilter, how, gaps) }
}

/// The gap of legacy ebtables, where its modules are loaded: a namespace gets its tables when they are first listed, so
/// nothing here lists them. The tables of ebtables-nft are nftables' own.
fn ebtables(modules: &str) -> Option<Gap> {
    let tables = ["ebtable_filter ", "ebtable_nat ", "ebtable_broute "];
    let module = modules.lines().find(|line| tables.iter().any(|table| line.starts_with(table)))?;
    let module = module.split_whitespace().next().unwrap_or_default();
    Some(Gap {
        source: SourceKind::Netfilter,
        netns: None,
        object: Gap::EBTABLES.to_owned(),
        why: format!("the module {module} is loaded, and listing such tables would make them where there are none"),
        fix: "ebtables-legacy-save in the namespace of the bridge; unload the module where nothing uses it".to_owned(),
        absent: false,
    })
}

/// How long tools may take, so that one that hangs costs its own answer only and not that of the whole source.
#[derive(Clone, Copy)]
struct Limits {
    one: Duration,
    until: Instant,
}

impl Limits {
    fn new(timeout: Duration) -> Self {
        // The rest is for killing what is still running and for putting the facts together.
        Self { one: timeout / 4, until: Instant::now() + timeout * 9 / 10 }
    }

    /// For the next tool; none where the time is up.
    fn next(self) -> Option<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        (!left.is_zero()).then(|| left.min(self.one))
    }
}

/// One namespace while it is read.
struct Reader<'a> {
    tools: &'a Tools,
    namespace: &'a Namespace,
    limits: Limits,
    rulesets: Vec<RulesetFact>,
    sets: Option<SetsFact>,
    gaps: Vec<Gap>,
}

/// What was read in one namespace.
struct Found {
    rulesets: Vec<RulesetFact>,
    sets: Option<SetsFact>,
    gaps: Vec<Gap>,
}

async fn namespace_rules(tools: &Tools, namespace: &Namespace, limits: Limits) -> Found {
    let mut reader = Reader { tools, namespace, limits, rulesets: Vec::new(), sets: None, gaps: Vec::new() };
    match namespace.run(|| [legacy_tables("ip_tables_names"), legacy_tables("ip6_tables_names")]).await {
        Ok(names) => {
            for (names, ipv6) in names.into_iter().zip([false, true]) {
                reader.legacy(names, ipv6).await;
            }
            reader.nft().await;
            reader.sets().await;
        }
        Err(error) => reader.not_entered(&error),
    }
    Found { rulesets: reader.rulesets, sets: reader.sets, gaps: reader.gaps }
}

/// The legacy tables the calling thread's namespace has, a line each.
fn legacy_tables(file: &str) -> io::Result<String> {
    // Not /proc/net, which is the namespace of the process' first thread.
    match fs::read_to_string(format!("/proc/thread-self/net/{file}")) {
        // The modules are not loaded, so no namespace has tables.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    }
}

impl Reader<'_> {
    /// Legacy iptables, where the kernel names tables.
    async fn legacy(&mut self, names: io::Result<String>, ipv6: bool) {
        match names {
            Ok(names) if names.trim().is_empty() => {}
            Ok(_) => {
                self.save(RuleBackend::IptablesLegacy, ipv6, &BTreeSet::new()).await;
            }
            Err(error) => {
                let file = if ipv6 { "ip6_tables_names" } else { "ip_tables_names" };
                self.gap(&format!("/proc/net/{file}"), &error.to_string(), "run as root");
            }
        }
    }

    /// nftables, and iptables-nft where nftables has tables of its names.
    async fn nft(&mut self) {
        let Some(tool) = &self.tools.nft else {
            // Without nft it is not known where iptables-nft has tables; its own tool says.
            self.save(RuleBackend::IptablesNft, false, &BTreeSet::new()).await;
            self.save(RuleBackend::IptablesNft, true, &BTreeSet::new()).await;
            return;
        };
        let Some(mut text) = self.run(tool, &["-j", "list", "ruleset"]).await else { return };
        if nft::lacks_devices(&text)
            && let Some(chains) = self.run(tool, &["list", "chains"]).await
        {
            text = nft::with_devices(&text, &chains);
        }
        let mut printed = Vec::new();
        for (ipv6, family) in [(false, Family::Ip), (true, Family::Ip6)] {
            if nft::has_iptables_tables(&text, ipv6) {
                let misprinted = nft::tables_with_lookups(&text, family);
                let names = self.save(RuleBackend::IptablesNft, ipv6, &misprinted).await;
                printed.extend(names.into_iter().map(|name| (family, name)));
            }
        }
        let printed: Vec<_> = printed.iter().map(|(family, name)| (*family, name.as_str())).collect();
        let rest = if printed.is_empty() { text } else { nft::without(&text, &printed) };
        self.keep(RuleBackend::Nft, false, rest);
    }

    /// The ipsets, where rules ask for some: then the kernel has them loaded, and listing changes nothing.
    async fn sets(&mut self) {
        if !self.rulesets.iter().any(|ruleset| ruleset.text.contains("--match-set")) {
            return;
        }
        let Some(tool) = &self.tools.ipset else {
            return self.gap("ipset", "rules ask for sets, and there is no such tool on this host", "install ipset");
        };
        let text = self.run(tool, &["save"]).await;
        self.sets = text.map(|text| SetsFact { netns: self.namespace.id, text });
    }

    /// Runs a `-save` tool; the tables it printed, but for those it prints wrong.
    async fn save(&mut self, backend: RuleBackend, ipv6: bool, misprinted: &BTreeSet<String>) -> Vec<String> {
        let Some(tool) = self.tools.save(backend, ipv6) else {
            if backend == RuleBackend::IptablesLegacy {
                let tool = if ipv6 { "ip6tables-legacy-save" } else { "iptables-legacy-save" };
                self.gap(tool, "there are legacy tables, and no such tool on this host", "install iptables");
            }
            return Vec::new();
        };
        let Some(mut text) = self.run(tool, &["-c"]).await else { return Vec::new() };
        if backend == RuleBackend::IptablesNft && self.tools.nft.is_some() {
            text = parse::without(&text, misprinted);
        }
        let names = parse(&text).0.into_iter().map(|table| table.name).collect();
        self.keep(backend, ipv6, text);
        names
    }

    /// Keeps a rule set that has rules, or that could not be understood.
    fn keep(&mut self, backend: RuleBackend, ipv6: bool, text: String) {
        let (ruleset, problems) = Ruleset::read(backend, ipv6, &text);
        if !ruleset.is_empty() || !problems.is_empty() {
            self.rulesets.push(RulesetFact { netns: self.namespace.id, backend, ipv6, text });
        }
    }

    /// Runs a tool in the namespace; a gap where it does not answer.
    async fn run(&mut self, tool: &Path, arguments: &'static [&'static str]) -> Option<String> {
        let name = tool.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        let result = match self.limits.next() {
            Some(limit) => tools::run_in(self.namespace, tool, arguments, limit).await,
            None => Err(ToolError::NoTimeLeft),
        };
        result.map_err(|error| self.gap(&name, &error.to_string(), error.fix())).ok()
    }

    fn not_entered(&mut self, error: &NetnsError) {
        let why = chain(error);
        self.gap("rules", &why, "run as root");
    }

    fn gap(&mut self, object: &str, why: &str, fix: &str) {
        self.gaps.push(gap(self.namespace.id, object, why, fix));
    }
}

/// Reads legacy rules, for whoever wants to know that they change.
pub(crate) struct Legacy(Tools);

impl Legacy {
    /// Looks for the tool.
    pub(crate) async fn find() -> Self {
        Self(Tools::find().await)
    }

    /// Legacy IPv4 rules of a namespace without what counts packets; nothing where it has none, or they cannot be read.
    pub(crate) async fn rules(&self, namespace: &Namespace) -> Option<String> {
        let names = namespace.run(|| legacy_tables("ip_tables_names")).await.ok()?.ok()?;
        if names.trim().is_empty() {
            return Some(String::new());
        }
        let tool = self.0.save(RuleBackend::IptablesLegacy, false)?;
        let text = tools::run_in(namespace, tool, &[], LEGACY_LIMIT).await.ok()?;
        Some(without_counters(&text))
    }
}

/// How long reading legacy rules to see whether they change may take.
const LEGACY_LIMIT: Duration = Duration::from_secs(2);

/// What `iptables-save` prints, without comments, which have the time, and without the counters of chains.
fn without_counters(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn gap(netns: NetnsId, object: &str, why: &str, fix: &str) -> Gap {
    Gap {
        source: SourceKind::Netfilter,
        netns: Some(netns),
        object: format!("{object} in {netns}"),
        why: why.to_owned(),
        fix: fix.to_owned(),
        absent: false,
    }
}

#[cfg(test)]
mod tests {
    use super::{ebtables, without_counters};

    #[test]
    fn rules_are_the_same_whatever_has_been_counted() {
        let print = |time, packets| {
            format!(
                "# Generated at {time}\n*nat\n:PREROUTING ACCEPT [{packets}:60]\n-A PREROUTING -j netdiag\nCOMMIT\n"
            )
        };
        assert_eq!(without_counters(&print(1, 7)), without_counters(&print(2, 9)));
        assert_ne!(without_counters(&print(1, 7)), without_counters(&print(1, 7).replace("ACCEPT", "DROP")));
    }

    #[test]
    fn tables_of_legacy_ebtables_may_be_there_where_their_modules_are() {
        assert!(ebtables("nf_tables 360448 2 nft_compat, Live 0x0\nebtable_filter_more 1 0 - Live 0x0\n").is_none());
        let gap = ebtables("ebtables 45056 1 ebtable_filter, Live 0x0\nebtable_filter 16384 0 - Live 0x0\n").unwrap();
        assert!(gap.why.contains("ebtable_filter") && !gap.absent);
    }
}

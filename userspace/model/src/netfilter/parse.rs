//! Parses what `iptables-save -c` and `ip6tables-save -c` print, legacy or nft. Flow: explain.
//!
//! A rule is never lost: an option that is not known is kept as text in `Test::Other` or `Target::Other`, and the
//! options after it are read on. A line that is no rule, chain or table becomes a [`ParseProblem`]. Any text is
//! accepted, truncated, mixed up or hostile.

use std::collections::BTreeSet;

use super::{BaseChain, ChainKind, ChainPolicy, Hook, Rule, RuleCounters, Table, Target};

/// Options before the target.
mod options;
/// The target and its options.
mod target;
/// A line as words, quotes and escapes undone.
mod words;

pub(super) use options::{net, protocol, protocol_name, state};
use words::Words;

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseProblem {
    /// Which line, from 1; 0 where it is not about one line.
    pub line: usize,
    /// Its start. Hostile text.
    pub text: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl ParseProblem {
    /// Characters of a line that are kept: enough to recognise it.
    const KEPT: usize = 200;

    pub(super) fn new(line: usize, text: &str, why: &'static str) -> Self {
        Self { line, text: text.chars().take(Self::KEPT).collect(), why }
    }
}

/// Parses the output of `iptables-save` or `ip6tables-save`, with or without `-c`.
pub fn parse(text: &str) -> (Vec<Table>, Vec<ParseProblem>) {
    let mut parser = Parser::default();
    for (place, line) in text.lines().enumerate() {
        if let Err(why) = parser.line(line.trim()) {
            parser.problems.push(ParseProblem::new(place + 1, line, why));
        }
    }
    if let Some(table) = parser.open.take() {
        parser.problems.push(ParseProblem::new(0, &table.name, "the text ends before the table does"));
        parser.tables.push(table);
    }
    (parser.tables, parser.problems)
}

#[derive(Default)]
struct Parser {
    tables: Vec<Table>,
    /// The table between `*name` and `COMMIT`.
    open: Option<Table>,
    problems: Vec<ParseProblem>,
}

impl Parser {
    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        match line.as_bytes() {
            [] => Ok(()),
            [b'#', ..] => comment(line),
            [b'*', ..] => self.table(&line[1..]),
            [b':', ..] => chain(self.open.as_mut().ok_or("a chain outside of a table")?, &line[1..]),
            [b'-' | b'[', ..] => rule(self.open.as_mut().ok_or("a rule outside of a table")?, line),
            _ if line == "COMMIT" => {
                self.tables.push(self.open.take().ok_or("COMMIT without a table")?);
                Ok(())
            }
            _ => Err("neither a table, a chain nor a rule"),
        }
    }

    fn table(&mut self, name: &str) -> Result<(), &'static str> {
        let unfinished = self.open.replace(Table::new(name, None));
        let complete = unfinished.is_none();
        self.tables.extend(unfinished);
        if complete { Ok(()) } else { Err("the table before was not finished") }
    }
}

/// The comments that a table is, or holds chains, for "'nft' tool" only are the ones that take rules from the answer.
fn comment(line: &str) -> Result<(), &'static str> {
    match only_nft(line) {
        Some(_) => Err("iptables cannot print this table, nft can"),
        None => Ok(()),
    }
}

/// The table a comment says iptables cannot print, or not all of.
fn only_nft(line: &str) -> Option<&str> {
    let (name, rest) = line.trim().strip_prefix("# Table `")?.split_once('\'')?;
    (rest.contains("incompatible") && rest.contains("'nft' tool")).then_some(name)
}

/// What `iptables-nft-save` printed without the tables it says only nft can print, and without some more.
pub fn without(text: &str, tables: &BTreeSet<String>) -> String {
    let unprinted: BTreeSet<&str> = text.lines().filter_map(only_nft).collect();
    let left_out = |name: &str| unprinted.contains(name) || tables.contains(name);
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        inside = line.strip_prefix('*').map_or(inside, |name| left_out(name.trim()));
        if !inside && only_nft(line).is_none() {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= line.trim() != "COMMIT";
    }
    kept
}

/// `INPUT ACCEPT [5:300]` or `name - [0:0]`.
fn chain(table: &mut Table, line: &str) -> Result<(), &'static str> {
    let mut words = line.split_whitespace();
    let name = words.next().ok_or("a chain without a name")?;
    let base = base(&table.name, name);
    let chain = table.chain_mut(name);
    chain.base = base;
    chain.policy = match words.next() {
        Some("ACCEPT") => Some(ChainPolicy::Accept),
        Some("DROP") => Some(ChainPolicy::Drop),
        Some("-") => None,
        _ => return Err("a chain with neither ACCEPT, DROP nor -"),
    };
    if let Some(text) = words.next() {
        chain.counters = counters(text).ok_or("counters that are not [packets:bytes]")?;
    }
    Ok(())
}

/// `[5:300]`.
fn counters(text: &str) -> Option<RuleCounters> {
    let (packets, bytes) = text.strip_prefix('[')?.strip_suffix(']')?.split_once(':')?;
    Some(RuleCounters { packets: packets.parse().ok()?, bytes: bytes.parse().ok()? })
}

/// `[5:300] -A INPUT -i lo -j ACCEPT`, the counters optional.
fn rule(table: &mut Table, line: &str) -> Result<(), &'static str> {
    let (counted, raw) = match line.split_once(' ') {
        Some((first, rest)) if first.starts_with('[') => {
            (counters(first).ok_or("counters that are not [packets:bytes]")?, rest.trim_start())
        }
        _ => (RuleCounters::default(), line),
    };
    let mut words = Words::split(raw);
    if !words.take_option("-A") {
        return Err("not a rule that is appended (-A)");
    }
    let name = words.take().filter(|name| is_name(name)).ok_or("a rule without the name of a chain")?;
    let before = options::read(&mut words);
    let target = target::read(&mut words, |name| table.chain(name).is_some());
    let declared = table.chain(&name).is_some();
    let chain = table.chain_mut(&name);
    chain.rules.push(Rule {
        number: u32::try_from(chain.rules.len() + 1).unwrap_or(u32::MAX),
        counters: before.counters.unwrap_or(counted),
        matches: before.matches,
        target: target.unwrap_or(Target::None),
        comment: before.comment,
        raw: raw.to_owned(),
    });
    if declared { Ok(()) } else { Err("a rule of a chain that was not declared") }
}

/// iptables makes no chain with blanks in its name; such a one comes of damaged text.
fn is_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(|character: char| character.is_whitespace() || character == '"')
}

/// Where the kernel calls a built-in chain of iptables; priorities as in `uapi/linux/netfilter_ipv4.h`.
fn base(table: &str, chain: &str) -> Option<BaseChain> {
    // Built-in chains are upper case; a user chain may be called `input`.
    let hook = Hook::named(chain).filter(|hook| hook.name() == chain)?;
    let source_nat = matches!(hook, Hook::Input | Hook::Postrouting);
    let (kind, priority) = match table {
        "raw" => (ChainKind::Filter, -300),
        "mangle" => (ChainKind::Filter, -150),
        "nat" if source_nat => (ChainKind::Nat, 100),
        "nat" => (ChainKind::Nat, -100),
        "filter" => (ChainKind::Filter, 0),
        "security" => (ChainKind::Filter, 50),
        _ => return None,
    };
    Some(BaseChain { kind, hook, priority, devices: Some(Vec::new()) })
}

#[cfg(test)]
pub(super) mod tests;

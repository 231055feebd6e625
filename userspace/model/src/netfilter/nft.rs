//! Parses what `nft -j list ruleset` prints (libnftables-json(5)). Flow: explain.
//!
//! Tables, chains and rules become the same types as those of iptables; base chains carry hook and priority, so that
//! they are listed and walked in the kernel's order. Of the rules, the common expressions become matches and targets;
//! whatever else stands in a rule is kept as text and makes a walk say "unknown". Named sets and maps are not followed.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    BaseChain, Chain, ChainKind, ChainPolicy, Family, Hook, ParseProblem, Rule, Table, Target, Test, rule::Match,
};

/// Devices of the chains that are called for devices.
mod devices;
/// `match` expressions.
mod matches;
/// Everything else a rule does.
mod statement;
/// An expression as nft writes it.
mod text;

pub use devices::{lacks_devices, with_devices};
use statement::Statement;

/// Parses the JSON.
pub fn parse(text: &str) -> (Vec<Table>, Vec<ParseProblem>) {
    let objects = match objects(text) {
        Ok(objects) => objects,
        Err(why) => return (Vec::new(), vec![ParseProblem::new(0, text, why)]),
    };
    let mut tables = Vec::new();
    let mut problems = Vec::new();
    for (place, object) in objects.iter().enumerate() {
        if let Err(why) = add(&mut tables, object) {
            problems.push(ParseProblem::new(place + 1, &object.to_string(), why));
        }
    }
    (tables, problems)
}

fn objects(text: &str) -> Result<Vec<Value>, &'static str> {
    let document: Value = serde_json::from_str(text).map_err(|_| "not JSON, or cut off")?;
    let Value::Object(mut document) = document else { return Err("not a JSON object") };
    match document.remove("nftables") {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Err("no array \"nftables\""),
    }
}

/// The tables iptables keeps by its own names; those of them that `iptables-nft-save` can print are better read there.
pub const IPTABLES_TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// Whether an IPv4 (or IPv6) table that may be iptables' own is among those listed.
pub fn has_iptables_tables(text: &str, ipv6: bool) -> bool {
    let family = if ipv6 { Family::Ip6 } else { Family::Ip };
    objects(text)
        .unwrap_or_default()
        .iter()
        .filter_map(|object| place(object.get("table")?, "name"))
        .any(|(of, name)| of == family && IPTABLES_TABLES.contains(&name))
}

/// The tables of a family whose rules look something up in a set or map.
///
/// iptables never makes such rules, and `iptables-nft-save` prints them without the lookup: as if they matched
/// everything (seen with 1.8.9). So what it prints of these tables is worth nothing.
pub fn tables_with_lookups(text: &str, family: Family) -> BTreeSet<String> {
    let objects = objects(text).unwrap_or_default();
    let rules = objects.iter().filter_map(|object| object.get("rule"));
    rules
        .filter(|rule| rule.get("expr").is_some_and(looks_up))
        .filter_map(|rule| place(rule, "table").filter(|(of, _)| *of == family))
        .map(|(_, name)| name.to_owned())
        .collect()
}

fn looks_up(value: &Value) -> bool {
    match value {
        Value::Object(object) => {
            object.iter().any(|(key, value)| matches!(key.as_str(), "set" | "map" | "vmap") || looks_up(value))
        }
        Value::Array(values) => values.iter().any(looks_up),
        Value::String(text) => text.starts_with('@'),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The JSON without some tables: those that were read elsewhere. Returned as it was where it cannot be read.
pub fn without(text: &str, tables: &[(Family, &str)]) -> String {
    let Ok(mut objects) = objects(text) else { return text.to_owned() };
    objects.retain(|object| {
        let Some((kind, inner)) = object.as_object().and_then(|object| object.iter().next()) else { return true };
        place(inner, if kind == "table" { "name" } else { "table" }).is_none_or(|place| !tables.contains(&place))
    });
    serde_json::json!({ "nftables": objects }).to_string()
}

/// Family and table of an object.
fn place<'a>(object: &'a Value, key: &str) -> Option<(Family, &'a str)> {
    Some((Family::named(object.get("family")?.as_str()?)?, object.get(key)?.as_str()?))
}

fn add(tables: &mut Vec<Table>, object: &Value) -> Result<(), &'static str> {
    let (kind, inner) = object.as_object().and_then(|object| object.iter().next()).ok_or("an empty object")?;
    match kind.as_str() {
        "table" => {
            let (family, name) = place(inner, "name").ok_or("a table without a family or a name")?;
            table(tables, family, name);
            Ok(())
        }
        "chain" => {
            let (family, name) = place(inner, "table").ok_or("a chain without a table")?;
            chain(table(tables, family, name), inner).ok_or("a chain with a hook or priority that is not known")
        }
        "rule" => {
            let (family, name) = place(inner, "table").ok_or("a rule without a table")?;
            rule(table(tables, family, name), family, inner).ok_or("a rule without a chain or expressions")
        }
        // Sets, maps, counters, helpers: only rules that use them matter, and those keep their names as text.
        _ => Ok(()),
    }
}

/// The table of that name, made where there is none yet.
fn table<'a>(tables: &'a mut Vec<Table>, family: Family, name: &str) -> &'a mut Table {
    let place =
        tables.iter().position(|table| table.family == Some(family) && table.name == name).unwrap_or_else(|| {
            tables.push(Table::new(name, Some(family)));
            tables.len() - 1
        });
    &mut tables[place]
}

fn chain(table: &mut Table, inner: &Value) -> Option<()> {
    let chain: &mut Chain = table.chain_mut(inner.get("name")?.as_str()?);
    let Some(hook) = inner.get("hook") else { return Some(()) };
    let kind =
        if inner.get("type").and_then(Value::as_str) == Some("nat") { ChainKind::Nat } else { ChainKind::Filter };
    let hook = Hook::named(hook.as_str()?)?;
    let at_device = matches!(hook, Hook::Ingress | Hook::Egress);
    let devices = if at_device { inner.get("dev").map(devices::read) } else { Some(Vec::new()) };
    let base = BaseChain { kind, hook, priority: priority(inner.get("prio")?)?, devices };
    chain.base = Some(base);
    chain.policy = match inner.get("policy").and_then(Value::as_str) {
        Some("drop") => Some(ChainPolicy::Drop),
        _ => Some(ChainPolicy::Accept),
    };
    Some(())
}

/// A number; some releases print the names of nft(8).
fn priority(value: &Value) -> Option<i32> {
    if let Some(number) = value.as_i64() {
        return i32::try_from(number).ok();
    }
    match value.as_str()? {
        "raw" => Some(-300),
        "mangle" => Some(-150),
        "dstnat" => Some(-100),
        "filter" => Some(0),
        "security" => Some(50),
        "srcnat" | "out" => Some(100),
        number => number.parse().ok(),
    }
}

fn rule(table: &mut Table, family: Family, inner: &Value) -> Option<()> {
    let expressions = inner.get("expr")?.as_array()?;
    let chain = table.chain_mut(inner.get("chain")?.as_str()?);
    let mut rule = Rule {
        number: u32::try_from(chain.rules.len() + 1).unwrap_or(u32::MAX),
        counters: super::RuleCounters::default(),
        matches: Vec::new(),
        target: Target::None,
        comment: inner.get("comment").and_then(Value::as_str).map(str::to_owned),
        raw: text::rule(expressions, inner.get("handle").and_then(Value::as_u64)),
    };
    for expression in expressions {
        match statement::read(expression, family) {
            Statement::Matches(tests) => rule.matches.extend(tests),
            Statement::Counts(counters) => rule.counters = counters,
            Statement::Passes => {}
            Statement::Target(target, only) => {
                rule.matches.extend(only);
                // Two things in one rule, as `meta mark set 1 accept`, are more than a target can hold.
                rule.target = if rule.target == Target::None { target } else { Target::Other(rule.raw.clone()) };
            }
        }
    }
    chain.rules.push(rule);
    Some(())
}

/// A test that is not understood.
fn unknown(expression: &Value) -> Vec<Match> {
    vec![Match { not: false, test: Test::Other(text::expression(expression)) }]
}

#[cfg(test)]
mod tests;

//! What an nftables rule does besides matching. Flow: explain.

use std::net::IpAddr;

use serde_json::Value;

use super::{matches, text, unknown};
use crate::netfilter::{Family, NatPorts, NatTo, PortRange, RuleCounters, Target, Test, rule::Match};

/// One expression of a rule.
pub(super) enum Statement {
    /// Conditions.
    Matches(Vec<Match>),
    /// `counter`.
    Counts(RuleCounters),
    /// Something after which the packet goes on, unchanged in what rules can match: `log`.
    Passes,
    /// What happens, and for which packets alone.
    Target(Target, Option<Match>),
}

impl From<Target> for Statement {
    fn from(target: Target) -> Self {
        Self::Target(target, None)
    }
}

pub(super) fn read(expression: &Value, family: Family) -> Statement {
    let Some((kind, inner)) = expression.as_object().and_then(|object| object.iter().next()) else {
        return Statement::Matches(unknown(expression));
    };
    let other = || Target::Other(text::expression(expression)).into();
    match kind.as_str() {
        "match" => Statement::Matches(matches::read(inner, family).unwrap_or_else(|| unknown(expression))),
        "counter" => Statement::Counts(counters(inner)),
        "log" | "continue" => Statement::Passes,
        "accept" => Target::Accept.into(),
        "drop" => Target::Drop.into(),
        "return" => Target::Return.into(),
        "jump" => chain(inner).map_or_else(other, |name| Target::Jump(name).into()),
        "goto" => chain(inner).map_or_else(other, |name| Target::Goto(name).into()),
        "reject" => Target::Reject(inner.get("type").and_then(Value::as_str).map(str::to_owned)).into(),
        "queue" => Target::Queue.into(),
        "notrack" => Target::Track { zone: None, notrack: true }.into(),
        "masquerade" => nat(inner, family, Target::Masquerade).unwrap_or_else(other),
        "redirect" => nat(inner, family, Target::Redirect).unwrap_or_else(other),
        "dnat" => nat(inner, family, Target::Dnat).unwrap_or_else(other),
        "snat" => nat(inner, family, Target::Snat).unwrap_or_else(other),
        "mangle" => mark(inner).map_or_else(other, Statement::from),
        // A limit, a set lookup or an xt match decides whether what follows happens at all.
        "limit" | "quota" | "ct count" | "xt" => Statement::Matches(unknown(expression)),
        _ => other(),
    }
}

fn chain(inner: &Value) -> Option<String> {
    inner.get("target").and_then(Value::as_str).map(str::to_owned)
}

/// The counter of the rule; a named one counts for several.
fn counters(inner: &Value) -> RuleCounters {
    let number = |key| inner.get(key).and_then(Value::as_u64).unwrap_or_default();
    RuleCounters { packets: number("packets"), bytes: number("bytes") }
}

/// `dnat ip to 10.0.0.2:80`; in an inet table it is for packets of its own family alone.
fn nat(inner: &Value, family: Family, target: fn(NatTo) -> Target) -> Option<Statement> {
    let addresses = match inner.get("addr") {
        Some(address) => Some(span(address, |value| value.as_str()?.parse::<IpAddr>().ok())?),
        None => None,
    };
    let ports = match inner.get("port") {
        Some(port) => {
            let (first, last) = span(port, |value| u16::try_from(value.as_u64()?).ok())?;
            Some(NatPorts { range: PortRange { first, last }, base: None })
        }
        None => None,
    };
    let random = matches::words(inner.get("flags").unwrap_or(&Value::Null))
        .iter()
        .any(|flag| matches!(*flag, "random" | "fully-random"));
    let only = addresses
        .filter(|_| family == Family::Inet)
        .map(|(first, _)| Match { not: false, test: Test::Ipv6(first.is_ipv6()) });
    Some(Statement::Target(target(NatTo { addresses, ports, random }), only))
}

/// One value, or a range of two.
fn span<T: Copy>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<(T, T)> {
    match value.get("range").and_then(Value::as_array).map(Vec::as_slice) {
        Some([first, last]) => Some((read(first)?, read(last)?)),
        Some(_) => None,
        None => read(value).map(|one| (one, one)),
    }
}

/// `meta mark set 0x5`.
fn mark(inner: &Value) -> Option<Target> {
    let key = inner.get("key")?.get("meta")?.get("key")?.as_str()?;
    let value = u32::try_from(inner.get("value")?.as_u64()?).ok()?;
    (key == "mark").then_some(Target::Mark { value, mask: u32::MAX })
}

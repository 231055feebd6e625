//! Expressions as nft writes them, for people; what has no simple form stays JSON. Flow: explain.

use serde_json::Value;

/// A rule as `nft -a list ruleset` prints it, without its counters, near enough to be found there by its handle.
pub(super) fn rule(expressions: &[Value], handle: Option<u64>) -> String {
    let counter = |expression: &&Value| expression.get("counter").is_some_and(Value::is_object);
    let mut words: Vec<String> = expressions.iter().filter(|one| !counter(one)).map(expression).collect();
    words.extend(handle.map(|handle| format!("# handle {handle}")));
    words.join(" ")
}

/// One expression.
pub(super) fn expression(expression: &Value) -> String {
    let simple = expression.as_object().and_then(|object| object.iter().next()).and_then(|(kind, inner)| {
        match (kind.as_str(), inner) {
            ("match", _) => condition(inner),
            ("jump" | "goto", _) => Some(format!("{kind} {}", inner.get("target")?.as_str()?)),
            ("dnat" | "snat", _) => Some(format!("{kind} to {}", endpoint(inner)?)),
            ("redirect", Value::Object(_)) => Some(format!("redirect to :{}", value(inner.get("port")?)?)),
            ("mangle", _) => Some(format!("{} set {}", left(inner.get("key")?)?, value(inner.get("value")?)?)),
            ("reject", Value::Object(_)) => Some(format!("reject with {}", inner.get("type")?.as_str()?)),
            ("log", Value::Object(_)) => Some(format!("log prefix {}", inner.get("prefix")?)),
            (_, Value::Null) => Some(kind.clone()),
            _ => None,
        }
    });
    simple.unwrap_or_else(|| expression.to_string())
}

fn condition(inner: &Value) -> Option<String> {
    let operator = match inner.get("op")?.as_str()? {
        "==" if inner.get("left")?.get("&").is_some() => "==",
        "==" | "in" => "",
        other => other,
    };
    let words = [left(inner.get("left")?)?, operator.to_owned(), value(inner.get("right")?)?];
    Some(words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
}

fn left(side: &Value) -> Option<String> {
    let (kind, inner) = side.as_object()?.iter().next()?;
    let word = |key: &str| inner.get(key).and_then(Value::as_str);
    match kind.as_str() {
        "payload" => Some(format!("{} {}", word("protocol")?, word("field")?)),
        "meta" | "ct" => Some(match word("key")? {
            key @ ("iifname" | "oifname" | "iif" | "oif") => key.to_owned(),
            key => format!("{kind} {key}"),
        }),
        "fib" => Some(format!("fib {} {}", value(inner.get("flags")?)?, word("result")?)),
        "&" => match inner.as_array()?.as_slice() {
            [of, mask] => Some(format!("{} & {}", left(of)?, value(mask)?)),
            _ => None,
        },
        _ => None,
    }
}

fn value(of: &Value) -> Option<String> {
    match of {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Array(values) => list(values, ","),
        Value::Object(object) => match object.iter().next()? {
            (kind, Value::Array(values)) if kind == "set" => Some(format!("{{ {} }}", list(values, ", ")?)),
            (kind, Value::Array(values)) if kind == "range" => list(values, "-"),
            (kind, prefix) if kind == "prefix" => {
                Some(format!("{}/{}", prefix.get("addr")?.as_str()?, prefix.get("len")?))
            }
            _ => None,
        },
        Value::Null | Value::Bool(_) => None,
    }
}

fn list(values: &[Value], separator: &str) -> Option<String> {
    Some(values.iter().map(value).collect::<Option<Vec<_>>>()?.join(separator))
}

fn endpoint(inner: &Value) -> Option<String> {
    let port = inner.get("port").and_then(value).map(|port| format!(":{port}")).unwrap_or_default();
    match inner.get("addr") {
        Some(address) => Some(value(address)? + &port),
        None => Some(port),
    }
}

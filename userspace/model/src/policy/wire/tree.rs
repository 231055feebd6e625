//! A document as a tree that knows its lines. Flow: policy.
//!
//! Deserialising straight into structs would lose the lines of everything but the first syntax error.

use super::{json, yaml};

/// How deep a document may nest; the deepest there is to say needs six.
pub(super) const DEEPEST: usize = 32;

/// A value and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Node {
    /// Line, from 1.
    pub(in crate::policy) line: usize,
    /// Value.
    pub(in crate::policy) value: Value,
}

/// A value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) enum Value {
    /// Text without quotes: a number, a truth value, null, or a plain word of YAML.
    Plain(String),
    /// Text in quotes, or a block of YAML.
    Quoted(String),
    /// A list.
    List(Vec<Node>),
    /// Names and values, in their order, repeated names too.
    Map(Vec<Entry>),
}

/// A name and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Entry {
    /// Name.
    pub(in crate::policy) key: String,
    /// Line the name is in (JSON: the value).
    pub(in crate::policy) line: usize,
    /// Value.
    pub(in crate::policy) node: Node,
}

/// Why a text is no tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Unreadable {
    /// Line, from 1.
    pub(in crate::policy) line: usize,
    /// Why.
    pub(in crate::policy) why: String,
}

impl Node {
    /// Null, in any spelling of YAML, or nothing at all.
    pub(in crate::policy) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Plain(text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Text, in quotes or not; null is none.
    pub(in crate::policy) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Plain(_) if self.is_null() => None,
            Value::Plain(text) | Value::Quoted(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// What it is, to say what it should have been.
    pub(in crate::policy) fn describe(&self) -> String {
        match &self.value {
            Value::Plain(_) if self.is_null() => "null".to_owned(),
            Value::Plain(text) | Value::Quoted(text) => format!("`{text}`"),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// The values of a text: one of JSON, or as many as a stream of YAML has.
pub(in crate::policy) fn read(text: &str) -> Result<Vec<Node>, Unreadable> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // YAML has braces and brackets too, and reads much of what is broken JSON as something else; quoted names are JSON's.
    let brackets = |letter: char| letter.is_whitespace() || matches!(letter, '{' | '[');
    match (text.trim_start().starts_with(['{', '[']), text.trim_start_matches(brackets).starts_with('"')) {
        (true, true) => json::read(text).map(|node| vec![node]),
        (true, false) | (false, _) => yaml::read(text),
    }
}

//! JSON into a tree. Flow: policy.
//!
//! Every value is taken as the piece of text it is first, since where that lies in the document is its line.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::tree::{DEEPEST, Entry, Node, Unreadable, Value};

/// The value of a text.
pub(super) fn read(text: &str) -> Result<Node, Unreadable> {
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| unreadable(1, &error))?;
    let breaks = text.match_indices('\n').map(|(at, _)| at).collect();
    Reader { start: text.as_ptr() as usize, breaks }.node(raw, 0)
}

struct Reader {
    /// Address of the text.
    start: usize,
    /// Where its lines end.
    breaks: Vec<usize>,
}

impl Reader {
    /// Line of a piece of the text.
    fn line(&self, raw: &RawValue) -> usize {
        let at = raw.get().as_ptr() as usize - self.start;
        self.breaks.partition_point(|end| *end < at) + 1
    }

    fn node(&self, raw: &RawValue, depth: usize) -> Result<Node, Unreadable> {
        let line = self.line(raw);
        if depth > DEEPEST {
            return Err(Unreadable { line, why: format!("nested more than {DEEPEST} deep") });
        }
        let text = raw.get();
        let error = |error| unreadable(line, &error);
        let value = match text.as_bytes().first() {
            Some(b'{') => {
                let Pairs(pairs) = serde_json::from_str(text).map_err(error)?;
                let entry = |(key, raw): (String, &RawValue)| {
                    let node = self.node(raw, depth + 1)?;
                    Ok(Entry { key, line: node.line, node })
                };
                Value::Map(pairs.into_iter().map(entry).collect::<Result<_, _>>()?)
            }
            Some(b'[') => {
                let items: Vec<&RawValue> = serde_json::from_str(text).map_err(error)?;
                Value::List(items.into_iter().map(|raw| self.node(raw, depth + 1)).collect::<Result<_, _>>()?)
            }
            Some(b'"') => Value::Quoted(serde_json::from_str(text).map_err(error)?),
            Some(_) | None => Value::Plain(text.to_owned()),
        };
        Ok(Node { line, value })
    }
}

/// A mistake of a piece that begins at a line.
fn unreadable(line: usize, error: &serde_json::Error) -> Unreadable {
    let whole = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    let why = format!("not JSON: {}", whole.strip_suffix(&place).unwrap_or(&whole));
    Unreadable { line: line + error.line().saturating_sub(1), why }
}

/// Names and values in their order, which a map would not keep of names given twice.
struct Pairs<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Pairs<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = Pairs<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a mapping")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

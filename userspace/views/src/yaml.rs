//! The model as YAML: the same shape as JSON.
//!
//! YAML's own quoting covers control characters, but lets through characters without width and bidirectional ones;
//! those are spelled out as in text. Who needs them exactly takes JSON.

use std::io::{self, Write};

use serde_json::Value;

use crate::{escape, json_schema::Published};

/// Writes a trace, a listing or a report as YAML.
pub fn render(model: &impl Published, out: &mut impl Write) -> io::Result<()> {
    let mut document = serde_json::to_value(model.document())?;
    make_visible(&mut document);
    serde_norway::to_writer(out, &document).map_err(io::Error::other)
}

/// Spells out hostile characters that YAML would print, in every text of a document.
fn make_visible(value: &mut Value) {
    match value {
        Value::String(text) => *text = visible(text),
        Value::Array(values) => values.iter_mut().for_each(make_visible),
        Value::Object(fields) => {
            for (name, mut field) in std::mem::take(fields) {
                make_visible(&mut field);
                fields.insert(visible(&name), field);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The text with hostile characters spelled out, controls apart, which YAML spells by itself.
fn visible(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        if escape::is_hostile(character) && !character.is_control() {
            safe.extend(character.escape_default());
        } else {
            safe.push(character);
        }
    }
    safe
}

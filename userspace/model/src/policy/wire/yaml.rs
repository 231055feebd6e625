//! YAML into a tree. Flow: policy.
//!
//! Aliases are refused: a document of a few lines could mean gigabytes with them.

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::tree::{DEEPEST, Entry, Node, Unreadable, Value};

/// The values of a stream.
pub(super) fn read(text: &str) -> Result<Vec<Node>, Unreadable> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event
            .map_err(|error| Unreadable { line: error.marker().line(), why: format!("not YAML: {}", error.info()) })?;
        let line = span.start.line();
        reader.take(event, line).map_err(|why| Unreadable { line, why })?;
    }
    Ok(reader.done)
}

/// A list or mapping that has begun.
enum Open {
    List(usize, Vec<Node>),
    /// With the name whose value comes next.
    Map(usize, Vec<Entry>, Option<(String, usize)>),
}

#[derive(Default)]
struct Reader {
    done: Vec<Node>,
    open: Vec<Open>,
}

impl Reader {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, _, tag) => {
                let plain = style == ScalarStyle::Plain && !is_text(tag.as_deref())?;
                let text = text.into_owned();
                let value = if plain { Value::Plain(text) } else { Value::Quoted(text) };
                self.put(Node { line, value })
            }
            Event::SequenceStart(_, tag) => self.begin(Open::List(line, Vec::new()), tag.as_deref()),
            Event::MappingStart(_, tag) => self.begin(Open::Map(line, Vec::new(), None), tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(line, items)) => self.put(Node { line, value: Value::List(items) }),
                Some(Open::Map(line, entries, _)) => self.put(Node { line, value: Value::Map(entries) }),
                None => Ok(()),
            },
            Event::Alias(_) => Err("an alias (`*name`) is not accepted: write out what it stands for".to_owned()),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {
                Ok(())
            }
        }
    }

    fn begin(&mut self, open: Open, tag: Option<&Tag>) -> Result<(), String> {
        if tag.is_some() {
            return Err("a tag (`!name`) is not accepted".to_owned());
        }
        if self.open.len() >= DEEPEST {
            return Err(format!("nested more than {DEEPEST} deep"));
        }
        self.open.push(open);
        Ok(())
    }

    fn put(&mut self, node: Node) -> Result<(), String> {
        match self.open.last_mut() {
            None => self.done.push(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, name)) => match name.take() {
                Some((key, line)) => entries.push(Entry { key, line, node }),
                None => match node.value {
                    Value::Plain(key) | Value::Quoted(key) => *name = Some((key, node.line)),
                    Value::List(_) | Value::Map(_) => return Err("the name of a field is a word".to_owned()),
                },
            },
        }
        Ok(())
    }
}

/// Whether a tag says that a plain scalar is text (`!!str`, `!`).
fn is_text(tag: Option<&Tag>) -> Result<bool, String> {
    match tag {
        None => Ok(false),
        Some(tag) if (tag.is_yaml_core_schema() && tag.suffix == "str") || tag.suffix == "!" => Ok(true),
        Some(_) => Err("a tag (`!name`) is not accepted".to_owned()),
    }
}

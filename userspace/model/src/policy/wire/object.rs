//! One object of a document, and its fields as what they should be. Flow: policy.

use std::{collections::BTreeSet, str::FromStr};

use super::{
    Mistake,
    field::{Kind, PROJECT},
    tree::{Entry, Node, Value},
};
use crate::resolve::distance;

/// A mapping with known fields.
#[derive(Clone, Debug)]
pub(in crate::policy) struct Object<'a> {
    /// Name of the document.
    pub(in crate::policy) file: &'a str,
    /// What a reader calls it.
    pub(in crate::policy) what: String,
    /// Line it begins at.
    pub(in crate::policy) line: usize,
    /// Written by Neutron, not by hand.
    pub(in crate::policy) foreign: bool,
    entries: &'a [Entry],
}

/// A field with a value other than null.
#[derive(Clone, Copy, Debug)]
pub(in crate::policy) struct Field<'o, 'a> {
    object: &'o Object<'a>,
    /// Its name.
    pub(in crate::policy) name: &'a str,
    /// Its value.
    pub(in crate::policy) node: &'a Node,
    line: usize,
}

impl<'a> Object<'a> {
    /// A mapping, its fields not looked at yet.
    pub(in crate::policy) fn of(file: &'a str, what: &str, node: &'a Node) -> Result<Self, Mistake> {
        let (entries, why) = match &node.value {
            Value::Map(entries) => (&entries[..], None),
            Value::List(_) | Value::Plain(_) | Value::Quoted(_) => {
                (&[][..], Some(format!("is {}, and should be a mapping of fields", node.describe())))
            }
        };
        let object = Self {
            file,
            what: what.to_owned(),
            line: entries.first().map_or(node.line, |entry| entry.line.min(node.line)),
            foreign: entries.iter().any(|entry| PROJECT.contains(&entry.key.as_str())),
            entries,
        };
        why.map_or(Ok(object.clone()), |why| Err(object.refuse(why)))
    }

    /// The object of a list, called by its name, its id or the address it is, or by its place.
    pub(in crate::policy) fn named(file: &'a str, kind: &Kind, place: usize, node: &'a Node) -> Result<Self, Mistake> {
        let object = Self::of(file, &format!("{} {}", kind.name, place + 1), node)?;
        let name = ["name", "id", "floating_ip_address"]
            .iter()
            .find_map(|key| object.first(key)?.node.text().filter(|text| !text.is_empty()));
        Ok(match name {
            Some(name) => Self { what: format!("{} {name}", kind.name), ..object },
            None => object,
        })
    }

    /// Every name that no object of its kind has, and every name given twice.
    pub(in crate::policy) fn check(&self, kind: &Kind) -> Vec<Mistake> {
        let mut seen = BTreeSet::new();
        let mut mistakes = Vec::new();
        for entry in self.entries {
            let refuse = |why, valid| self.mistake(&entry.key, entry.line, why, valid);
            if !seen.insert(&entry.key) {
                mistakes.push(refuse("is given twice".to_owned(), vec![]));
            } else if !kind.own.contains(&entry.key.as_str()) && !kind.ignored.contains(&entry.key.as_str()) {
                mistakes.extend(self.unknown(kind, entry));
            }
        }
        for [one, other] in kind.twins {
            if let (Some(_), Some(second)) = (self.field(&[one]), self.field(&[other])) {
                mistakes.push(second.refuse(format!("says the same as {one}; give one of them")));
            }
        }
        mistakes
    }

    /// What is wrong with a name nobody knows. Neutron has extensions with fields of their own; one that is nearly ours was
    /// written by hand all the same.
    fn unknown(&self, kind: &Kind, entry: &Entry) -> Option<Mistake> {
        let near = |own: &&&str| distance(own, &entry.key.to_ascii_lowercase()) <= 2;
        let nearest = kind.own.iter().filter(near).min_by_key(|own| distance(own, &entry.key));
        let (why, valid) = match nearest {
            Some(own) => (format!("no {} has this field; did you mean `{own}`?", kind.name), std::slice::from_ref(own)),
            None if self.foreign => return None,
            None => (format!("no {} has this field", kind.name), kind.own),
        };
        Some(self.mistake(&entry.key, entry.line, why, words(valid)))
    }

    /// The first field of one of these names that is there and not null.
    pub(in crate::policy) fn field(&self, names: &[&str]) -> Option<Field<'_, 'a>> {
        names.iter().find_map(|name| self.first(name))
    }

    fn first(&self, name: &str) -> Option<Field<'_, 'a>> {
        let entry = self.entries.iter().find(|entry| entry.key == name && !entry.node.is_null())?;
        Some(Field { object: self, name: &entry.key, node: &entry.node, line: entry.line })
    }

    /// Every field, null or not.
    pub(in crate::policy) fn fields(&self) -> impl Iterator<Item = Field<'_, 'a>> {
        let field = |entry: &'a Entry| Field { object: self, name: &entry.key, node: &entry.node, line: entry.line };
        self.entries.iter().map(field)
    }

    /// Whether a name is there, null or not.
    pub(in crate::policy) fn has(&self, names: &[&str]) -> bool {
        self.entries.iter().any(|entry| names.contains(&entry.key.as_str()))
    }

    /// The object as a whole is wrong.
    pub(in crate::policy) fn refuse(&self, why: String) -> Mistake {
        self.mistake("", self.line, why, vec![])
    }

    /// A field that should be there is not.
    pub(in crate::policy) fn missing(&self, field: &str, why: &str, valid: &[&str]) -> Mistake {
        self.mistake(field, self.line, why.to_owned(), words(valid))
    }

    fn mistake(&self, field: &str, line: usize, why: String, valid: Vec<String>) -> Mistake {
        Mistake {
            file: self.file.to_owned(),
            line,
            object: self.what.clone(),
            field: field.to_owned(),
            why,
            valid: valid.into(),
        }
    }
}

impl<'a> Field<'_, 'a> {
    /// The value is wrong.
    pub(in crate::policy) fn refuse(&self, why: String) -> Mistake {
        self.refuse_for(why, vec![])
    }

    /// The value is wrong, and these would be right.
    pub(in crate::policy) fn refuse_for(&self, why: String, valid: Vec<String>) -> Mistake {
        self.object.mistake(self.name, self.line, why, valid)
    }

    /// Name of its document.
    pub(in crate::policy) fn file(&self) -> &'a str {
        self.object.file
    }

    /// Line it is at.
    pub(in crate::policy) fn line(&self) -> usize {
        self.line
    }

    /// Text.
    pub(in crate::policy) fn text(&self) -> Result<&'a str, Mistake> {
        let text = self.node.text().filter(|text| !text.is_empty());
        text.ok_or_else(|| self.refuse(format!("is {}, and should be text", self.node.describe())))
    }

    /// True or false.
    pub(in crate::policy) fn boolean(&self) -> Result<bool, Mistake> {
        match &self.node.value {
            Value::Plain(text) if text.eq_ignore_ascii_case("true") => Ok(true),
            Value::Plain(text) if text.eq_ignore_ascii_case("false") => Ok(false),
            Value::Plain(_) | Value::Quoted(_) | Value::List(_) | Value::Map(_) => {
                let why = format!("is {}, and should be true or false", self.node.describe());
                Err(self.refuse_for(why, vec!["true".to_owned(), "false".to_owned()]))
            }
        }
    }

    /// Whatever a text can be parsed as.
    pub(in crate::policy) fn parse<T: FromStr>(&self, should: &str) -> Result<T, Mistake> {
        let parsed = self.node.text().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| self.refuse(format!("is {}, and should be {should}", self.node.describe())))
    }

    /// The items of a list, each a field of the list's name at its own line.
    pub(in crate::policy) fn items(&self) -> Result<Vec<Self>, Mistake> {
        match &self.node.value {
            Value::List(items) => Ok(items.iter().map(|node| Self { node, line: node.line, ..*self }).collect()),
            Value::Plain(_) | Value::Quoted(_) | Value::Map(_) => {
                Err(self.refuse(format!("is {}, and should be a list", self.node.describe())))
            }
        }
    }

    /// The mapping it is.
    pub(in crate::policy) fn object(&self, what: &str) -> Result<Object<'a>, Mistake> {
        let object = Object::of(self.object.file, &format!("{}, {what}", self.object.what), self.node)?;
        Ok(Object { foreign: self.object.foreign || object.foreign, ..object })
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

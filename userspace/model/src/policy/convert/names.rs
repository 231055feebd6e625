//! Ids and names, and what they lead to. Flow: policy.

use std::{cell::Cell, collections::BTreeMap};

use super::note;
use crate::{
    policy::wire::{
        Mistake,
        field::Kind,
        object::{Field, Object},
    },
    resolve::distance,
};

/// How many candidates a mistake names.
const CANDIDATES: usize = 20;

/// How many names are compared for candidates, all mistakes together: a document full of mistakes must not keep its reader
/// busy for minutes.
const COMPARISONS: usize = 100_000;

/// Objects of a kind by id, and by name.
#[derive(Debug)]
pub(super) struct Names<'a> {
    kind: &'static str,
    by_id: BTreeMap<String, (String, &'a Object<'a>)>,
    by_name: BTreeMap<String, Vec<String>>,
    /// What is left of [`COMPARISONS`].
    left: Cell<usize>,
}

impl<'a> Names<'a> {
    /// The objects of a kind; one whose id another has already is left out.
    pub(super) fn index(kind: &'static Kind, objects: &'a [Object<'a>], mistakes: &mut Vec<Mistake>) -> Self {
        let mut names =
            Self { kind: kind.name, by_id: BTreeMap::new(), by_name: BTreeMap::new(), left: Cell::new(COMPARISONS) };
        for object in objects {
            let Some((id, name)) = note(identity(object), mistakes) else { continue };
            if let Some((_, first)) = names.by_id.get(&id) {
                let why = format!("{id} is given twice, first at {}:{}", first.file, first.line);
                mistakes.push(
                    object
                        .field(&["id", "name"])
                        .map_or_else(|| object.refuse(why.clone()), |field| field.refuse(why.clone())),
                );
                continue;
            }
            names.by_name.entry(name.clone()).or_default().push(id.clone());
            names.by_id.insert(id, (name, object));
        }
        names
    }

    /// Every object with its id and name.
    pub(super) fn objects(&self) -> impl Iterator<Item = (&str, &str, &'a Object<'a>)> {
        self.by_id.iter().map(|(id, (name, object))| (id.as_str(), name.as_str(), *object))
    }

    /// The id a field's value stands for.
    pub(super) fn find(&self, field: &Field<'_, '_>) -> Result<String, Mistake> {
        self.find_text(field, field.text()?)
    }

    /// The id a text stands for: an id, or else a name nothing else has.
    pub(super) fn find_text(&self, field: &Field<'_, '_>, text: &str) -> Result<String, Mistake> {
        if self.by_id.contains_key(text) {
            return Ok(text.to_owned());
        }
        match self.by_name.get(text).map(Vec::as_slice) {
            Some([id]) => Ok(id.clone()),
            Some(ids @ [_, ..]) => {
                let why = format!("`{text}` is the name of {} {}s; give the id of one", ids.len(), self.kind);
                Err(field.refuse_for(why, ids.to_vec()))
            }
            Some([]) | None => {
                Err(field.refuse_for(format!("no {} `{text}` is given", self.kind), self.candidates(text)))
            }
        }
    }

    /// What a text stands for, where it stands for something: an id, or else a name nothing else has.
    pub(super) fn meant<'n>(&'n self, text: &'n str) -> Option<&'n str> {
        if self.by_id.contains_key(text) { Some(text) } else { self.only_named(text) }
    }

    /// The one object of a name.
    pub(super) fn only_named(&self, name: &str) -> Option<&str> {
        match self.by_name.get(name).map(Vec::as_slice) {
            Some([id]) => Some(id),
            Some(_) | None => None,
        }
    }

    /// What may have been meant, the nearest first: names where there are some, else ids.
    fn candidates(&self, text: &str) -> Vec<String> {
        let Some(left) = self.left.get().checked_sub(self.by_id.len()) else { return Vec::new() };
        self.left.set(left);
        let called = |(id, (name, _)): (&String, &(String, _))| if name.is_empty() { id.clone() } else { name.clone() };
        let mut called: Vec<String> = self.by_id.iter().map(called).collect();
        called.sort_by_key(|name| distance(name, text));
        called.dedup();
        called.truncate(CANDIDATES);
        called
    }
}

/// Id and name of an object: one of them will do, and then the name is the id. A floating IP can be known by its address.
pub(super) fn identity(object: &Object<'_>) -> Result<(String, String), Mistake> {
    // Neutron has objects with an empty name.
    let text = |key: &str| object.field(&[key]).filter(|field| field.node.text() != Some("")).map(|field| field.text());
    let (id, name) = (text("id").transpose()?, text("name").transpose()?);
    match id.or(name).or(text("floating_ip_address").transpose()?) {
        Some(id) => Ok((id.to_owned(), name.unwrap_or_default().to_owned())),
        None => Err(object.missing("id", "is missing, and there is no name in its place", &[])),
    }
}

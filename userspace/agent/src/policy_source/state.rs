//! What the API was told, object by object, in the words it was told in. Flow: policy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Where it is kept.
pub(super) const FILE: &str = "policy.json";

/// Kinds of objects that have an id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// Security groups.
    SecurityGroups,
    /// Address groups.
    AddressGroups,
    /// Ports.
    Ports,
    /// Addresses of groups beyond their ports, by group.
    Members,
    /// Floating IPs.
    Floatingips,
}

impl Kind {
    /// Kinds that a policy has as lists.
    const LISTS: [Self; 4] = [Self::SecurityGroups, Self::AddressGroups, Self::Ports, Self::Floatingips];

    /// Its name in documents.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::SecurityGroups => "security_groups",
            Self::AddressGroups => "address_groups",
            Self::Ports => "ports",
            Self::Members => "members",
            Self::Floatingips => "floatingips",
        }
    }

    /// One of them, as Neutron wraps it.
    pub(crate) const fn one(self) -> &'static str {
        match self {
            Self::SecurityGroups => "security_group",
            Self::AddressGroups => "address_group",
            Self::Ports => "port",
            Self::Members => "members",
            Self::Floatingips => "floatingip",
        }
    }

    /// One of them, in a sentence.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::SecurityGroups => "security group",
            Self::AddressGroups => "address group",
            Self::Ports => "port",
            Self::Members => "members of security group",
            Self::Floatingips => "floating IP",
        }
    }
}

/// What the API was told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// Objects by kind and id.
    objects: BTreeMap<Kind, BTreeMap<String, Value>>,
    /// What else a whole policy says: `permitted_ethertypes`, and whatever it may come to say.
    settings: Map<String, Value>,
}

impl State {
    /// An object.
    pub(crate) fn get(&self, kind: Kind, id: &str) -> Option<&Value> {
        self.objects.get(&kind)?.get(id)
    }

    /// All objects of a kind.
    pub(crate) fn all(&self, kind: Kind) -> impl Iterator<Item = (&String, &Value)> {
        self.objects.get(&kind).into_iter().flatten()
    }

    /// Sets an object.
    pub(crate) fn put(&mut self, kind: Kind, id: String, object: Value) {
        self.objects.entry(kind).or_default().insert(id, object);
    }

    /// Removes an object.
    pub(crate) fn remove(&mut self, kind: Kind, id: &str) {
        if let Some(objects) = self.objects.get_mut(&kind) {
            objects.remove(id);
        }
    }

    /// Replaces everything; but a policy that says nothing of floating IPs leaves them as they are.
    pub(crate) fn replace(&mut self, with: Self) {
        let floating = self.objects.remove(&Kind::Floatingips);
        *self = with;
        if let Some(floating) = floating {
            self.objects.entry(Kind::Floatingips).or_insert(floating);
        }
    }

    /// The policy in it, as a document.
    pub(crate) fn document(&self) -> Value {
        let mut document = self.settings.clone();
        for kind in Kind::LISTS {
            let objects: Vec<_> = self.all(kind).map(|(_, object)| object.clone()).collect();
            if kind != Kind::Floatingips || !objects.is_empty() {
                document.insert(kind.name().to_owned(), objects.into());
            }
        }
        let members: Map<_, _> = self.all(Kind::Members).map(|(id, list)| (id.clone(), list.clone())).collect();
        document.insert(Kind::Members.name().to_owned(), members.into());
        document.into()
    }

    /// A document taken apart.
    ///
    /// # Errors
    /// The field that is not what it has to be, and why.
    pub(crate) fn from_document(document: Value) -> Result<Self, (String, String)> {
        let Value::Object(mut fields) = document else {
            return Err((String::new(), "the body is no object".to_owned()));
        };
        let mut state = Self::default();
        for kind in Kind::LISTS {
            let field = fields.remove(kind.name());
            if kind == Kind::Floatingips && field.is_none() {
                continue;
            }
            let objects = list(kind, field)?;
            let mut by_id = BTreeMap::new();
            for (place, object) in objects.into_iter().enumerate() {
                let id = identity(&object)
                    .ok_or_else(|| (format!("{}[{place}]", kind.name()), "has neither id nor name".to_owned()))?;
                if by_id.insert(id.clone(), object).is_some() {
                    return Err((format!("{}[{place}]", kind.name()), format!("{id} is there twice")));
                }
            }
            state.objects.insert(kind, by_id);
        }
        if let Some(members) = fields.remove(Kind::Members.name()) {
            let Value::Object(members) = members else {
                return Err(("members".to_owned(), "is no object of lists of addresses by group".to_owned()));
            };
            state.objects.insert(Kind::Members, members.into_iter().collect());
        }
        state.settings = fields;
        Ok(state)
    }
}

fn list(kind: Kind, field: Option<Value>) -> Result<Vec<Value>, (String, String)> {
    match field {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(objects)) => Ok(objects),
        Some(_) => Err((kind.name().to_owned(), "is no list".to_owned())),
    }
}

/// What an object is known by: its id, or its name where it has none; a floating IP, by its address where it has neither.
fn identity(object: &Value) -> Option<String> {
    let text = |field| object.get(field).and_then(Value::as_str).filter(|text| !text.is_empty());
    text("id").or_else(|| text("name")).or_else(|| text("floating_ip_address")).map(str::to_owned)
}

/// An object as it is kept: out of Neutron's wrapping, and with the id it was put under.
///
/// # Errors
/// The field that contradicts the id, and why; an object that is none.
pub(crate) fn object(kind: Kind, id: &str, body: Value) -> Result<Value, (String, String)> {
    let Value::Object(mut fields) = body else {
        return Err((String::new(), "the body is no object".to_owned()));
    };
    if let (1, Some(Value::Object(_))) = (fields.len(), fields.get(kind.one()))
        && let Some(Value::Object(inner)) = fields.remove(kind.one())
    {
        fields = inner;
    }
    match fields.get("id") {
        None | Some(Value::Null) => {
            fields.insert("id".to_owned(), json!(id));
        }
        Some(given) if given == id => {}
        Some(given) => return Err(("id".to_owned(), format!("is {given}, but the path says {id}"))),
    }
    Ok(fields.into())
}

#[cfg(test)]
mod tests {
    use super::{Kind, State, object};
    use serde_json::json;

    #[test]
    fn a_document_taken_apart_and_put_together_is_the_same() {
        let document = json!({
            "permitted_ethertypes": ["0x88cc"],
            "security_groups": [{ "id": "a" }, { "name": "b" }],
            "address_groups": [],
            "ports": [{ "id": "p", "security_groups": ["a"] }],
            "members": { "a": ["10.0.0.1"] },
        });
        assert_eq!(State::from_document(document.clone()).unwrap().document(), document);
    }

    #[test]
    fn a_document_that_cannot_be_taken_apart_says_which_field() {
        let field = |document| State::from_document(document).unwrap_err().0;
        assert_eq!(field(json!({ "ports": [{ "id": "p" }, {}] })), "ports[1]");
        assert_eq!(field(json!({ "ports": [{ "id": "p" }, { "name": "p" }] })), "ports[1]");
        assert_eq!(field(json!({ "security_groups": {} })), "security_groups");
        assert_eq!(field(json!({ "members": [] })), "members");
    }

    #[test]
    fn a_whole_policy_replaces_floating_ips_only_where_it_says_what_they_are() {
        let mut state = State::default();
        state.put(Kind::Floatingips, "f".to_owned(), json!({}));
        state.put(Kind::Ports, "p".to_owned(), json!({}));
        state.replace(State::from_document(json!({ "ports": [] })).unwrap());
        assert!(state.get(Kind::Floatingips, "f").is_some() && state.get(Kind::Ports, "p").is_none());
        state.replace(State::from_document(json!({ "floatingips": [] })).unwrap());
        assert!(state.get(Kind::Floatingips, "f").is_none());
    }

    #[test]
    fn an_object_may_be_wrapped_as_neutron_does_and_must_not_contradict_its_path() {
        let kept = json!({ "name": "web", "id": "g" });
        assert_eq!(object(Kind::SecurityGroups, "g", json!({ "security_group": { "name": "web" } })), Ok(kept.clone()));
        assert_eq!(object(Kind::SecurityGroups, "g", json!({ "name": "web", "id": "g" })), Ok(kept));
        assert_eq!(object(Kind::SecurityGroups, "g", json!({ "id": "h" })).unwrap_err().0, "id");
        assert!(object(Kind::SecurityGroups, "g", json!([])).is_err());
    }
}

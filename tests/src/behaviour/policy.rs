//! A policy in few words: `ingress 4 tcp 80-90 from 192.0.2.0/24`.

use serde_json::{Map, Value, json};

/// A whole desired state of one port.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    groups: Vec<Value>,
    of_port: Vec<String>,
    port: Map<String, Value>,
    more: Map<String, Value>,
}

/// The port has one group, `g`, with these rules.
#[must_use]
pub fn rules(rules: &[&str]) -> Policy {
    Policy::default().group("g", rules)
}

impl Policy {
    /// One more group of the port.
    #[must_use]
    pub fn group(mut self, name: &str, rules: &[&str]) -> Self {
        self.of_port.push(name.to_owned());
        self.other(name, rules)
    }

    /// A group the port does not have.
    #[must_use]
    pub fn other(mut self, name: &str, rules: &[&str]) -> Self {
        let rules: Vec<_> = rules.iter().map(|text| rule(text)).collect();
        self.groups.push(json!({ "id": name, "security_group_rules": rules }));
        self
    }

    /// Groups without state.
    #[must_use]
    pub fn stateless(mut self) -> Self {
        for group in &mut self.groups {
            group["stateful"] = json!(false);
        }
        self
    }

    /// A field of the port.
    #[must_use]
    pub fn port(mut self, field: &str, value: Value) -> Self {
        self.port.insert(field.to_owned(), value);
        self
    }

    /// A field of the state.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.more.insert(field.to_owned(), value);
        self
    }

    /// The document, for a port that has these fields unless the policy says otherwise.
    #[must_use]
    pub fn document(&self, port: &Map<String, Value>) -> Value {
        let mut port = port.clone();
        port.insert("security_groups".into(), json!(self.of_port));
        port.extend(self.port.clone());
        let mut state = self.more.clone();
        let mut ports = vec![Value::Object(port)];
        if let Some(Value::Array(others)) = state.remove("ports") {
            ports.extend(others);
        }
        state.insert("security_groups".into(), json!(self.groups));
        state.insert("ports".into(), json!(ports));
        Value::Object(state)
    }
}

/// One rule: direction, family, protocol (`any` for none), ports or ICMP type and code, remote.
fn rule(text: &str) -> Value {
    let mut words = text.split(' ');
    let mut next = || words.next();
    let direction = next().expect("a direction");
    let family = next().expect("a family");
    let mut rule = json!({ "direction": direction, "ethertype": format!("IPv{family}") });
    let mut word = next();
    if let Some(protocol) = word {
        if protocol != "any" {
            rule["protocol"] = json!(protocol);
        }
        word = next();
    }
    if let Some(range) = word.filter(|word| word.starts_with(|first: char| first.is_ascii_digit())) {
        let icmp = rule["protocol"]
            .as_str()
            .is_some_and(|protocol| protocol.contains("icmp") || ["1", "58"].contains(&protocol));
        let (first, last) = range.split_once(['-', '/']).map_or((range, None), |(first, last)| (first, Some(last)));
        let last = if icmp { last } else { last.or(Some(first)) };
        rule["port_range_min"] = number(first);
        rule["port_range_max"] = last.map_or(Value::Null, number);
        word = next();
    }
    if let Some(kind) = word {
        let field = match kind {
            "from" | "to" => "remote_ip_prefix",
            "group" => "remote_group_id",
            "addresses" => "remote_address_group_id",
            other => panic!("{other} in {text}"),
        };
        rule[field] = json!(next().expect("a remote"));
    }
    assert_eq!(next(), None, "{text}");
    rule
}

fn number(text: &str) -> Value {
    json!(text.parse::<u16>().expect("a number"))
}

//! Objects out of documents. Flow: policy.

use super::note;
use crate::policy::wire::{
    Mistake,
    field::{ADDRESS_GROUP, FLOATING_IP, GROUP, Kind, PORT, RULE, STATE},
    object::{Field, Object},
    tree::{Node, Value},
};

/// What only a port has.
const OF_PORT: [&str; 11] = [
    "mac_address",
    "fixed_ips",
    "security_group_ids",
    "allowed_address_pairs",
    "port_security_enabled",
    "device_owner",
    "binding",
    "binding_host_id",
    "binding:host_id",
    "network_id",
    "log_allowed",
];

/// Objects of all documents, not looked into yet.
#[derive(Debug, Default)]
pub(super) struct Gathered<'a> {
    pub(super) groups: Vec<Object<'a>>,
    /// Rules that stand outside their group, as the list of rules of Neutron's API has them.
    pub(super) rules: Vec<Object<'a>>,
    pub(super) address_groups: Vec<Object<'a>>,
    pub(super) ports: Vec<Object<'a>>,
    pub(super) floating_ips: Vec<Object<'a>>,
    /// Mappings of groups to addresses.
    pub(super) members: Vec<Object<'a>>,
    /// Whole documents, for what is no object.
    pub(super) states: Vec<Object<'a>>,
}

impl<'a> Gathered<'a> {
    /// A document: one object, a list of objects, or a mapping with lists of them.
    pub(super) fn document(&mut self, file: &'a str, node: &'a Node, mistakes: &mut Vec<Mistake>) {
        if node.is_null() {
            return;
        }
        if let Value::List(items) = &node.value {
            for (place, item) in items.iter().enumerate() {
                if let Some(object) = note(Object::named(file, &ANY, place, item), mistakes) {
                    self.bare(&object, item, mistakes);
                }
            }
            return;
        }
        let Some(object) = note(Object::of(file, "", node), mistakes) else { return };
        if kind(&object).is_some() || object.has(&["id", "name", "ID", "Name"]) {
            self.bare(&object, node, mistakes);
        } else {
            self.state(object, mistakes);
        }
    }

    /// An object whose fields alone say what it is.
    fn bare(&mut self, object: &Object<'a>, node: &'a Node, mistakes: &mut Vec<Mistake>) {
        match kind(object) {
            Some(kind) => self.add(object.file, kind, (0, node), mistakes),
            None if object.has(&["ID"]) => mistakes.push(object.refuse(
                "is a line of a summary, without rules and addresses: use `openstack … show -f json`, or the answer of Neutron's API"
                    .to_owned(),
            )),
            None => mistakes.push(object.refuse(
                "is neither a security group (`security_group_rules`), an address group (`addresses`), a port (`fixed_ips`, \
                 `mac_address`, `binding`) nor a floating IP (`floating_ip_address`)"
                    .to_owned(),
            )),
        }
    }

    fn state(&mut self, object: Object<'a>, mistakes: &mut Vec<Mistake>) {
        mistakes.extend(object.check(&STATE));
        for field in object.fields().filter(|field| !field.node.is_null()) {
            match field.name {
                "security_groups" => self.list(&field, &GROUP, mistakes),
                "security_group_rules" => self.list(&field, &RULE, mistakes),
                "address_groups" => self.list(&field, &ADDRESS_GROUP, mistakes),
                "ports" => self.list(&field, &PORT, mistakes),
                "floatingips" => self.list(&field, &FLOATING_IP, mistakes),
                "security_group" => self.add(object.file, &GROUP, (0, field.node), mistakes),
                "security_group_rule" => self.add(object.file, &RULE, (0, field.node), mistakes),
                "address_group" => self.add(object.file, &ADDRESS_GROUP, (0, field.node), mistakes),
                "port" => self.add(object.file, &PORT, (0, field.node), mistakes),
                "floatingip" => self.add(object.file, &FLOATING_IP, (0, field.node), mistakes),
                "members" => self.members.extend(note(Object::of(object.file, "members", field.node), mistakes)),
                _ => {}
            }
        }
        self.states.push(object);
    }

    fn list(&mut self, field: &Field<'_, 'a>, kind: &Kind, mistakes: &mut Vec<Mistake>) {
        let items = note(field.items(), mistakes).unwrap_or_default();
        for (place, item) in items.iter().enumerate() {
            self.add(field.file(), kind, (place, item.node), mistakes);
        }
    }

    fn add(&mut self, file: &'a str, kind: &Kind, (place, node): (usize, &'a Node), mistakes: &mut Vec<Mistake>) {
        let Some(object) = note(Object::named(file, kind, place, node), mistakes) else { return };
        let list = match kind.name {
            name if name == GROUP.name => &mut self.groups,
            name if name == RULE.name => &mut self.rules,
            name if name == ADDRESS_GROUP.name => &mut self.address_groups,
            name if name == FLOATING_IP.name => &mut self.floating_ips,
            _ => &mut self.ports,
        };
        list.push(object);
    }
}

/// What an object of a list is called before it is known what it is.
const ANY: Kind = Kind { name: "object", own: &[], twins: &[], ignored: &[] };

/// What an object is, if its fields say so.
fn kind(object: &Object<'_>) -> Option<&'static Kind> {
    // Without an id or a name these two are the lists of a whole state.
    let named = object.has(&["id", "name"]);
    if object.has(&["direction"]) {
        Some(&RULE)
    } else if object.has(&["floating_ip_address"]) {
        Some(&FLOATING_IP)
    } else if object.has(&["stateful", "rules"]) || (named && object.has(&["security_group_rules"])) {
        Some(&GROUP)
    } else if object.has(&["addresses"]) {
        Some(&ADDRESS_GROUP)
    } else if object.has(&OF_PORT) || (named && object.has(&["security_groups"])) {
        Some(&PORT)
    } else {
        None
    }
}

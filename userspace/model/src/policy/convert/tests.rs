//! Every form that is accepted, and every mistake that is told.

use std::collections::BTreeSet;

use super::{Document, Mistake, policy};
use crate::policy::types::{
    AddressPair, Binding, Direction, Ethertype, FloatingIp, GroupId, Policy, Port, PortId, Remote, Rule, RuleId,
    Service,
};

mod examples;
mod floating;
mod forms;
mod mistakes;
mod round_trip;
mod rules;

/// Two ids as Neutron makes them.
const WEB: &str = "5f3b1c0e-6d0a-4f57-9a53-0d5a1c2e7b11";
const PORT: &str = "1a2b3c4d-5e6f-4a1b-8c2d-000000000001";

fn document(name: &str, text: &str) -> Document {
    Document { name: name.to_owned(), text: text.to_owned() }
}

/// The policy of one document.
fn read(text: &str) -> Policy {
    policy(&[document("a.yaml", text)]).unwrap_or_else(|mistakes| panic!("{mistakes:#?}"))
}

/// The mistakes of one document, as an operator reads them.
fn refused(text: &str) -> Vec<String> {
    let told = policy(&[document("a.yaml", text)]).expect_err("no mistake is told");
    told.iter().map(Mistake::to_string).collect()
}

/// The only mistake of one document.
fn mistake(text: &str) -> Mistake {
    let told = policy(&[document("a.yaml", text)]).expect_err("no mistake is told");
    assert_eq!(told.len(), 1, "{told:#?}");
    told[0].clone()
}

fn group(id: &str) -> GroupId {
    GroupId(id.to_owned())
}

fn only_floating_ip(text: &str) -> FloatingIp {
    let policy = read(text);
    assert_eq!(policy.floating_ips.len(), 1);
    policy.floating_ips.into_values().next().unwrap()
}

fn only_port(policy: &Policy) -> &Port {
    assert_eq!(policy.ports.len(), 1);
    policy.ports.values().next().unwrap()
}

/// The rules of a group in a document that has one.
fn rules_of(text: &str) -> Vec<Rule> {
    let policy = read(text);
    assert_eq!(policy.groups.len(), 1);
    policy.groups.into_values().next().unwrap().rules
}

/// A rule of the fields given, in a group of its own.
fn with_fields(fields: &str) -> String {
    format!(
        "security_groups: [{{name: web, rules: [{{direction: ingress, {fields}}}]}}]\naddress_groups: [{{name: office, addresses: []}}]\n"
    )
}

fn rule(fields: &str) -> Rule {
    rules_of(&with_fields(fields)).remove(0)
}

//! Which rule allows a service to a remote address. Flow: policy.
//!
//! Neutron's rules only ever allow, so the order of rules means nothing and the question is whether two sets meet: the
//! rules that know the service, and the rules that know the remote address. Both are looked up as classes, made when the
//! policy is compiled; a pair of classes that meets has a grant. Nothing here depends on how many rules or members there are.

use super::tables::PolicyTables;
use crate::abi::policy::{
    CLASS_ANY, CLASS_HOSTS, CLASS_PREFIXES, CLASS_SHIFT, Class, GrantKey, RemoteKey4, RemoteKey6, Side, VIEW_STATELESS,
    active_generation, active_view, side,
};

/// How often a word of `ACTIVE` that was met half written is read again.
const ATTEMPTS: u32 = 3;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// Which policy: an index of `ACTIVE`.
    pub policy: u32,
    /// To the instance, not from it.
    pub ingress: bool,
    /// IPv6, not IPv4.
    pub ipv6: bool,
    /// IP protocol.
    pub protocol: u8,
    /// Destination port, or ICMP type and code; without meaning for other protocols.
    pub service: u16,
    /// The other end's address, in network byte order; IPv4 addresses are mapped.
    pub remote: [u32; 4],
}

/// The version of a policy that is in force.
#[derive(Clone, Copy, Debug)]
pub struct InForce {
    /// Its generation.
    pub generation: u32,
    /// Its view.
    pub view: u32,
    /// Nothing is tracked.
    pub stateless: bool,
}

/// Finds the version of a policy that is in force; `None` if there is none, or if it was being replaced each time it was
/// looked at.
#[inline(always)]
pub fn in_force<P: PolicyTables>(tables: &P, policy: u32) -> Option<InForce> {
    for _ in 0..ATTEMPTS {
        let word = tables.active(policy)?;
        let (generation, view) = (active_generation(word), active_view(word));
        let head = tables.view(view)?;
        if generation != 0 && head.generation == generation {
            return Some(InForce { generation, view, stateless: head.flags & VIEW_STATELESS != 0 });
        }
    }
    None
}

/// The rule that allows it; 0 if none does.
#[inline(always)]
pub fn rule<P: PolicyTables>(tables: &P, view: u32, question: &Question) -> u32 {
    let Some(view) = tables.view(view) else { return 0 };
    let Some(&Side { services, grants, hosts, prefixes }) = view.sides.get(side(question.ingress, question.ipv6) & 3)
    else {
        return 0;
    };
    if services == 0 {
        return 0;
    }
    let Some(entry) = tables.protocol(services * 256 + u32::from(question.protocol)) else { return 0 };
    let exact = if entry.directory == 0 { 0 } else { exact_class(tables, entry.directory, question.service) };
    let classes = [exact, entry.whole];
    let flags = exact | entry.whole;
    if flags & CLASS_ANY != 0
        && let Some(rule) = granted(tables, grants, 0, classes, CLASS_ANY)
    {
        return rule;
    }
    if flags & CLASS_HOSTS != 0
        && let Some(class) = host_class(tables, hosts, question)
        && let Some(rule) = granted(tables, grants, class, classes, CLASS_HOSTS)
    {
        return rule;
    }
    if flags & CLASS_PREFIXES != 0
        && let Some(class) = prefix_class(tables, prefixes, question)
        && let Some(rule) = granted(tables, grants, class, classes, CLASS_PREFIXES)
    {
        return rule;
    }
    0
}

/// Class of the rules that know the very service.
#[inline(always)]
fn exact_class<P: PolicyTables>(tables: &P, directory: u32, service: u16) -> Class {
    let [upper, lower] = service.to_be_bytes();
    match tables.page(directory, upper) {
        None | Some(0) => 0,
        Some(leaf) => tables.page(leaf, lower).unwrap_or(0),
    }
}

/// The grant of a class of remote addresses with either class of services.
#[inline(always)]
fn granted<P: PolicyTables>(tables: &P, grants: u32, remote: u32, classes: [Class; 2], kind: Class) -> Option<u32> {
    let [exact, whole] = classes;
    if exact & kind != 0
        && let Some(rule) = tables.grant(&GrantKey { grants, remote, class: exact >> CLASS_SHIFT })
    {
        return Some(rule);
    }
    if whole & kind != 0 {
        return tables.grant(&GrantKey { grants, remote, class: whole >> CLASS_SHIFT });
    }
    None
}

#[inline(always)]
fn host_class<P: PolicyTables>(tables: &P, set: u32, question: &Question) -> Option<u32> {
    if question.ipv6 {
        return tables.remote6(&RemoteKey6 { set, address: question.remote });
    }
    tables.remote4(&RemoteKey4 { set, address: question.remote[3] })
}

#[inline(always)]
fn prefix_class<P: PolicyTables>(tables: &P, set: u32, question: &Question) -> Option<u32> {
    if question.ipv6 {
        return tables.prefix6(&RemoteKey6 { set, address: question.remote });
    }
    tables.prefix4(&RemoteKey4 { set, address: question.remote[3] })
}

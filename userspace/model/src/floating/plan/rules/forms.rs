//! What single rules of Neutron's L3 agent mean for the packets of floating IPs. Flow: policy.

use std::net::Ipv4Addr;

use ipnet::IpNet;

use super::{Mark, four, only};
use crate::{
    fact::METADATA_ADDRESS,
    netfilter::{ConnmarkOp, Hook, NatTo, Rule, StateName, Target, Test},
};

/// What a rule means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// It is for other packets, or leaves all as it is.
    Nothing,
    /// Nothing is tracked.
    Untracked,
    /// What comes for an address goes to another.
    Arrives { floating: Ipv4Addr, fixed: Ipv4Addr },
    /// So do some ports of it.
    Forwarded { floating: Ipv4Addr, fixed: Ipv4Addr },
    /// What comes from an address leaves as another.
    Leaves { floating: Ipv4Addr, fixed: Ipv4Addr },
    /// Ends the source translation of all that is left.
    Gateway,
    /// What was translated inward leaves as the router, unless it has this mark.
    Hairpin(Mark),
    /// Translated is only what leaves by this device.
    Guard(String),
    /// Gives a mark.
    Marks { device: Option<String>, address: Option<Ipv4Addr>, mark: Mark },
    /// Drops for a mark.
    Drops { device: Option<String>, not: bool, mark: Mark },
}

/// What a rule means; none where that is not known.
pub(super) fn form(table: &str, hook: Hook, rule: &Rule) -> Option<Form> {
    match (table, hook) {
        ("raw", Hook::Prerouting) => {
            let untracked = rule.target == Target::Track { zone: None, notrack: true };
            (untracked && rule.matches.is_empty()).then_some(Form::Untracked)
        }
        ("nat", Hook::Prerouting) => destination(rule),
        ("nat", Hook::Postrouting) => source(rule),
        ("mangle", Hook::Prerouting | Hook::Forward | Hook::Postrouting) => mark(hook, rule),
        ("filter", Hook::Forward) => filter(rule),
        _ => None,
    }
}

/// The source, where it is all a rule asks for.
pub(super) fn only_source(rule: &Rule) -> Option<Ipv4Addr> {
    let asks = only(rule, |test, not| matches!(test, Test::Source(_)) && !not);
    host(rule.source()?).filter(|_| asks)
}

fn host(net: IpNet) -> Option<Ipv4Addr> {
    four(net.addr()).filter(|_| net.prefix_len() == net.max_prefix_len())
}

fn to(to: &NatTo) -> Option<Ipv4Addr> {
    to.address().and_then(four)
}

fn destination(rule: &Rule) -> Option<Form> {
    let floating = host(rule.destination()?)?;
    if floating == METADATA_ADDRESS {
        return Some(Form::Nothing);
    }
    let Target::Dnat(nat) = &rule.target else { return None };
    let fixed = to(nat)?;
    let device = |test: &Test, not: bool| !not && (matches!(test, Test::Destination(_)) || one_in_device(test));
    if nat.ports.is_none() && only(rule, device) {
        return Some(Form::Arrives { floating, fixed });
    }
    let ports =
        |test: &Test, not: bool| matches!(test, Test::Destination(_) | Test::Protocol(_) | Test::Ports { .. }) && !not;
    only(rule, ports).then_some(Form::Forwarded { floating, fixed })
}

fn one_in_device(test: &Test) -> bool {
    matches!(test, Test::InDevice(pattern) if !pattern.prefix)
}

fn one_out_device(test: &Test) -> bool {
    matches!(test, Test::OutDevice(pattern) if !pattern.prefix)
}

fn is_dnatted(test: &Test) -> bool {
    matches!(test, Test::States(names) if names[..] == [StateName::Dnat])
}

fn source(rule: &Rule) -> Option<Form> {
    let leaves_by_one = rule.matches.iter().any(|one| !one.not && one_out_device(&one.test));
    if let Target::Snat(nat) = &rule.target {
        let as_whom = to(nat).filter(|_| nat.ports.is_none())?;
        if let Some(fixed) = only_source(rule) {
            return Some(Form::Leaves { floating: as_whom, fixed });
        }
        if leaves_by_one && only(rule, |test, _| matches!(test, Test::OutDevice(_))) {
            return Some(Form::Gateway);
        }
        return hairpin(rule);
    }
    if rule.target != Target::Accept {
        return None;
    }
    // Address scopes: what is of the scope outside keeps its address.
    let scope = |test: &Test, not: bool| matches!(test, Test::OutDevice(_) | Test::Connmark { .. }) && !not;
    guard(rule).or_else(|| (leaves_by_one && only(rule, scope)).then_some(Form::Gateway))
}

/// `-m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source GATEWAY`.
fn hairpin(rule: &Rule) -> Option<Form> {
    let asks = |test: &Test, not: bool| if not { matches!(test, Test::Mark { .. }) } else { is_dnatted(test) };
    let (_, mark) = marked(rule).filter(|_| only(rule, asks) && rule.matches.len() == 2)?;
    Some(Form::Hairpin(mark))
}

/// `! -o qg-X -m conntrack ! --ctstate DNAT -j ACCEPT`, before 2019 with `! -i qg-X` as well.
fn guard(rule: &Rule) -> Option<Form> {
    let asks =
        |test: &Test, not: bool| not && (matches!(test, Test::OutDevice(_) | Test::InDevice(_)) || is_dnatted(test));
    let states = rule.matches.iter().any(|one| is_dnatted(&one.test));
    match rule.out_device() {
        Some((true, pattern)) if states && only(rule, asks) => pattern.exact().map(|name| Form::Guard(name.to_owned())),
        _ => None,
    }
}

fn marked(rule: &Rule) -> Option<(bool, Mark)> {
    rule.find(
        |test| if let Test::Mark { value, mask } = test { Some(Mark { value: *value, mask: *mask }) } else { None },
    )
}

fn mark(hook: Hook, rule: &Rule) -> Option<Form> {
    // The scope of a flow goes with it: what its first packet had, its others have.
    if let Target::Connmark(ConnmarkOp::Save { .. } | ConnmarkOp::Restore { .. }) = &rule.target {
        let asks = |test: &Test, _| matches!(test, Test::Connmark { .. } | Test::OutDevice(_) | Test::InDevice(_));
        return only(rule, asks).then_some(Form::Nothing);
    }
    let Target::Mark { value, mask } = &rule.target else { return None };
    let before = hook == Hook::Prerouting;
    if before && rule.destination().and_then(host) == Some(METADATA_ADDRESS) {
        return Some(Form::Nothing);
    }
    let asks = |test: &Test, not: bool| {
        let early = before && (one_in_device(test) || matches!(test, Test::Destination(_)));
        !not && (early || (hook == Hook::Forward && one_out_device(test)))
    };
    let device = rule.in_device().or(rule.out_device()).and_then(|(_, pattern)| pattern.exact());
    let address = rule.destination().map(|net| host(net).ok_or(())).transpose().ok()?;
    let known = only(rule, asks) && !rule.matches.is_empty();
    let mark = Mark { value: *value, mask: *mask };
    known.then(|| Form::Marks { device: device.map(str::to_owned), address, mark })
}

fn filter(rule: &Rule) -> Option<Form> {
    if rule.target == Target::Accept {
        return Some(Form::Nothing);
    }
    let asks = |test: &Test, not: bool| matches!(test, Test::Mark { .. }) || (!not && one_out_device(test));
    let (not, mark) = marked(rule).filter(|_| rule.target == Target::Drop && only(rule, asks))?;
    let device = rule.out_device().and_then(|(_, pattern)| pattern.exact()).map(str::to_owned);
    Some(Form::Drops { device, not, mark })
}

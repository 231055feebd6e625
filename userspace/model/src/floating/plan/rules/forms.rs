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
    let device = |test: &Test, not: bool| match test {
        Test::Destination(_) => !not,
        Test::InDevice(pattern) => !not && !pattern.prefix,
        _ => false,
    };
    if nat.ports.is_none() && only(rule, device) {
        return Some(Form::Arrives { floating, fixed });
    }
    let ports =
        |test: &Test, not: bool| matches!(test, Test::Destination(_) | Test::Protocol(_) | Test::Ports { .. }) && !not;
    only(rule, ports).then_some(Form::Forwarded { floating, fixed })
}

fn source(rule: &Rule) -> Option<Form> {
    let leaves_by = || match rule.out_device() {
        Some((false, pattern)) => pattern.exact().map(str::to_owned),
        _ => None,
    };
    match &rule.target {
        Target::Snat(nat) => {
            let as_whom = to(nat).filter(|_| nat.ports.is_none())?;
            if let Some(fixed) = only_source(rule) {
                return Some(Form::Leaves { floating: as_whom, fixed });
            }
            if leaves_by().is_some() && only(rule, |test, _| matches!(test, Test::OutDevice(_))) {
                return Some(Form::Gateway);
            }
            hairpin(rule)
        }
        Target::Accept => guard(rule).or_else(|| {
            // Address scopes: what is of the scope outside keeps its address.
            let asks = |test: &Test, not: bool| matches!(test, Test::OutDevice(_) | Test::Connmark { .. }) && !not;
            (leaves_by().is_some() && only(rule, asks)).then_some(Form::Gateway)
        }),
        _ => None,
    }
}

/// `-m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source GATEWAY`.
fn hairpin(rule: &Rule) -> Option<Form> {
    let asks = |test: &Test, not: bool| match test {
        Test::Mark { .. } => not,
        Test::States(names) => !not && names[..] == [StateName::Dnat],
        _ => false,
    };
    let (_, mark) = marked(rule).filter(|_| only(rule, asks) && rule.matches.len() == 2)?;
    Some(Form::Hairpin(mark))
}

/// `! -o qg-X -m conntrack ! --ctstate DNAT -j ACCEPT`, before 2019 with `! -i qg-X` as well.
fn guard(rule: &Rule) -> Option<Form> {
    let asks = |test: &Test, not: bool| match test {
        Test::OutDevice(_) | Test::InDevice(_) => not,
        Test::States(names) => not && names[..] == [StateName::Dnat],
        _ => false,
    };
    let states = rule.matches.iter().any(|one| matches!(one.test, Test::States(_)));
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
    match &rule.target {
        Target::Mark { value, mask } => {
            let mark = Mark { value: *value, mask: *mask };
            if hook == Hook::Prerouting && rule.destination().and_then(host) == Some(METADATA_ADDRESS) {
                return Some(Form::Nothing);
            }
            let asks = |test: &Test, not: bool| match (hook, test) {
                (Hook::Prerouting, Test::InDevice(pattern)) | (Hook::Forward, Test::OutDevice(pattern)) => {
                    !not && !pattern.prefix
                }
                (Hook::Prerouting, Test::Destination(_)) => !not,
                _ => false,
            };
            let device = rule.in_device().or(rule.out_device()).and_then(|(_, pattern)| pattern.exact());
            let address = rule.destination().map(|net| host(net).ok_or(())).transpose().ok()?;
            let known = only(rule, asks) && !rule.matches.is_empty();
            known.then(|| Form::Marks { device: device.map(str::to_owned), address, mark })
        }
        // The scope of a flow goes with it: what its first packet had, its others have.
        Target::Connmark(ConnmarkOp::Save { .. } | ConnmarkOp::Restore { .. }) => {
            let asks = |test: &Test, _| matches!(test, Test::Connmark { .. } | Test::OutDevice(_) | Test::InDevice(_));
            only(rule, asks).then_some(Form::Nothing)
        }
        _ => None,
    }
}

fn filter(rule: &Rule) -> Option<Form> {
    match &rule.target {
        Target::Accept => Some(Form::Nothing),
        Target::Drop => {
            let asks = |test: &Test, not: bool| match test {
                Test::Mark { .. } => true,
                Test::OutDevice(pattern) => !not && !pattern.prefix,
                _ => false,
            };
            let (not, mark) = marked(rule).filter(|_| only(rule, asks))?;
            let device = rule.out_device().and_then(|(_, pattern)| pattern.exact()).map(str::to_owned);
            Some(Form::Drops { device, not, mark })
        }
        _ => None,
    }
}

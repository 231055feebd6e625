//! What a rule is for, in a few words. Flow: explain.
//!
//! The words name addresses, ports and devices of the rule itself; where the rule is not one that Neutron or Docker
//! writes there are none, and the rule's own text must do.

use super::{docker, host, router, security_group::port_chain, whole};
use crate::netfilter::{ConnmarkOp, NatTo, PortSide, Rule, StateName, Target, Test, parse};

/// What a rule of that chain is for; `None` where it is not recognised. Names in it are the rule's, so hostile.
pub fn meaning(rule: &Rule, chain: &str) -> Option<String> {
    match chain {
        "DOCKER" => published(rule),
        "PREROUTING" => closed(rule),
        "POSTROUTING" => masquerade(rule),
        _ if chain.starts_with("DOCKER-ISOLATION-STAGE-2") && rule.target == Target::Drop => {
            Some("Docker keeps its networks apart".to_owned())
        }
        _ => neutron(rule, chain),
    }
}

fn neutron(rule: &Rule, chain: &str) -> Option<String> {
    // What stands before the last of an agent's own names is its prefix.
    let ends = |name: &str| chain.strip_suffix(name).is_some_and(|prefix| prefix.ends_with('-'));
    if ends("float-snat") {
        floating_out(rule)
    } else if ends("PREROUTING") || ends("OUTPUT") {
        metadata(rule).or_else(|| floating_in(rule)).or_else(|| tracking(rule)).or_else(|| inside_mark(rule))
    } else if ends("POSTROUTING") {
        router::guarded_device(rule).map(|device| format!("not leaving by {device}: no NAT"))
    } else if ends("snat") {
        gateway(rule)
    } else if ends("INPUT") {
        metadata_input(rule)
    } else if ends("scope") {
        scope(rule)
    } else if ends("mark") {
        entry_mark(rule)
    } else if ends("sg-fallback") {
        (rule.target == Target::Drop).then(|| "no security group rule allows it".to_owned())
    } else if chain.contains("-pf-") {
        forwarded(rule)
    } else {
        security_group(rule, chain)
    }
}

fn floating_in(rule: &Rule) -> Option<String> {
    let Target::Dnat(to) = &rule.target else { return None };
    Some(format!("floating IP {} to {}", host(rule.destination()?)?, whole(rule, to)?))
}

fn floating_out(rule: &Rule) -> Option<String> {
    let Target::Snat(to) = &rule.target else { return None };
    Some(format!("{} leaves as floating IP {}", host(rule.source()?)?, whole(rule, to)?))
}

fn gateway(rule: &Rule) -> Option<String> {
    let Target::Snat(to) = &rule.target else { return None };
    let address = whole(rule, to)?;
    if let Some(device) = router::leaves_by(rule) {
        return Some(format!("what leaves by {device} leaves as {address}, the router's own"));
    }
    router::is_dnatted(rule, false)
        .then(|| format!("from inside to a floating IP: comes from {address}, so that the answer comes back here"))
}

fn metadata(rule: &Rule) -> Option<String> {
    router::metadata(rule).map(|(_, port)| format!("metadata to the proxy on port {port}"))
}

fn metadata_input(rule: &Rule) -> Option<String> {
    match (&rule.target, router::mark_of(rule), rule.destination_ports()) {
        (Target::Accept, Some((false, _)), _) => Some("metadata requests are let in by their mark".to_owned()),
        (Target::Drop, None, Some(ports)) => Some(format!("port {ports} only for marked metadata requests")),
        _ => None,
    }
}

/// The mangle table's PREROUTING and POSTROUTING.
fn inside_mark(rule: &Rule) -> Option<String> {
    if let Target::Connmark(ConnmarkOp::Restore { .. }) = rule.target {
        return Some("the flow's address scope back on the packet".to_owned());
    }
    let metadata = rule.destination().and_then(host).is_some_and(router::is_metadata);
    (metadata && matches!(rule.target, Target::Mark { .. })).then(|| "metadata requests are marked".to_owned())
}

fn entry_mark(rule: &Rule) -> Option<String> {
    match (&rule.target, rule.in_device()) {
        (Target::Mark { .. }, Some((false, pattern))) => Some(format!("came by {pattern}, from outside: marked")),
        _ => None,
    }
}

fn scope(rule: &Rule) -> Option<String> {
    match (&rule.target, rule.in_device(), rule.out_device()) {
        (Target::Mark { .. }, Some((false, pattern)), _) => Some(format!("marked with the address scope of {pattern}")),
        (Target::Drop, _, Some((false, pattern))) => {
            Some(format!("another address scope than that of {pattern} is not routed to it"))
        }
        _ => None,
    }
}

fn forwarded(rule: &Rule) -> Option<String> {
    let Target::Dnat(to) = &rule.target else { return None };
    let floating = host(rule.destination()?)?;
    Some(format!("floating IP {floating} {} to {}", service(rule)?, endpoint(to)?))
}

fn published(rule: &Rule) -> Option<String> {
    if let Target::Dnat(to) = &rule.target {
        return Some(format!("published port {} to {}", service(rule)?, endpoint(to)?));
    }
    if rule.target == Target::Drop {
        return router::leaves_by(rule).map(|device| format!("to {device} only what is published"));
    }
    let address = host(rule.destination().filter(|_| rule.target == Target::Accept)?)?;
    Some(format!("{} of {address} is published", service(rule)?))
}

fn closed(rule: &Rule) -> Option<String> {
    if rule.target != Target::Drop {
        return None;
    }
    let (address, device) = (host(rule.destination()?)?, docker::except_device(rule)?);
    Some(format!("{address} can only be reached by {device}, not directly"))
}

fn masquerade(rule: &Rule) -> Option<String> {
    matches!(rule.target, Target::Masquerade(_)).then_some(())?;
    let source = rule.source().map_or_else(|| "everything".to_owned(), |source| source.to_string());
    Some(match rule.out_device() {
        Some((true, pattern)) => format!("{source} leaves under the host's address, but not by {pattern}"),
        Some((false, pattern)) => format!("{source} leaves by {pattern} under the host's address"),
        None => format!("{source} leaves under the host's address"),
    })
}

fn tracking(rule: &Rule) -> Option<String> {
    let Target::Track { zone, notrack } = rule.target else { return None };
    if notrack {
        return Some("not tracked: stateless".to_owned());
    }
    zone.map(|zone| format!("connection tracking zone {zone}"))
}

/// A rule of a port's `i`, `o` or `s` chain.
fn security_group(rule: &Rule, chain: &str) -> Option<String> {
    let (letter, _) = chain.match_indices('-').find_map(|(dash, _)| port_chain(&chain[..dash], chain))?;
    let states = rule.find(|test| if let Test::States(names) = test { Some(names.as_slice()) } else { None });
    match (&rule.target, letter, states) {
        (Target::Return, 's', _) => Some(format!("may send from {}", source_pair(rule))),
        (Target::Drop, 's', _) => Some("spoofed: not an address and MAC of this port".to_owned()),
        (Target::Return, _, Some((false, names))) if names.contains(&StateName::Established) => {
            Some("answers and what belongs to a known flow".to_owned())
        }
        (Target::Drop, _, Some((false, &[StateName::Invalid]))) => Some("fits no flow".to_owned()),
        (Target::Return, 'i', None) if ports(rule) == Some((17, 67, 68)) => Some("DHCP answers".to_owned()),
        (Target::Return, 'o', None) if ports(rule) == Some((17, 68, 67)) => Some("DHCP requests".to_owned()),
        (Target::Return, 'i', None) if ports(rule) == Some((17, 547, 546)) => Some("DHCPv6 answers".to_owned()),
        (Target::Return, 'o', None) if ports(rule) == Some((17, 546, 547)) => Some("DHCPv6 requests".to_owned()),
        (Target::Drop, 'o', None) if rule.protocol() == Some(17) => Some("the instance is no DHCP server".to_owned()),
        (Target::Return, 'i', None) => Some(format!("allowed in: {}", allowed(rule, rule.source(), "from"))),
        (Target::Return, 'o', None) => Some(format!("allowed out: {}", allowed(rule, rule.destination(), "to"))),
        _ => None,
    }
}

/// Protocol, source and destination port of a rule for exactly these.
fn ports(rule: &Rule) -> Option<(u8, u16, u16)> {
    let source = rule.find(|test| {
        if let Test::Ports { side: PortSide::Source, ranges } = test { Some(ranges.as_slice()) } else { None }
    });
    match (source, rule.destination_ports()) {
        (Some((false, &[from])), Some(to)) if from.first == from.last && to.first == to.last => {
            Some((rule.protocol()?, from.first, to.first))
        }
        _ => None,
    }
}

fn source_pair(rule: &Rule) -> String {
    let address = rule.source().map_or_else(|| "any address".to_owned(), |net| net.to_string());
    match rule.find(|test| if let Test::SourceMac(mac) = test { Some(*mac) } else { None }) {
        Some((false, mac)) => format!("{address} with {mac}"),
        _ => address,
    }
}

fn allowed(rule: &Rule, peer: Option<ipnet::IpNet>, word: &str) -> String {
    let what = service(rule).unwrap_or_else(|| "any protocol".to_owned());
    let set = rule.find(|test| if let Test::Set { name, .. } = test { Some(name) } else { None });
    match (peer, set) {
        (Some(net), _) => format!("{what} {word} {net}"),
        (None, Some((false, name))) => format!("{what} {word} members of {name}"),
        (None, _) => what,
    }
}

/// `tcp/22`, `tcp/8000-8100`, `icmp type 8 code 0`, `udp`.
fn service(rule: &Rule) -> Option<String> {
    let name = parse::protocol_name(rule.protocol()?);
    let ports = rule
        .find(|test| if let Test::Ports { side: PortSide::Destination, ranges } = test { Some(ranges) } else { None });
    if let Some((false, ranges)) = ports {
        let ranges: Vec<String> = ranges.iter().map(ToString::to_string).collect();
        return Some(format!("{name}/{}", ranges.join(",")));
    }
    let icmp = rule.find(|test| if let Test::Icmp { kind, code } = test { Some((*kind, *code)) } else { None });
    Some(match icmp {
        Some((false, (Some(kind), Some(code)))) => format!("{name} type {kind} code {code}"),
        Some((false, (Some(kind), None))) => format!("{name} type {kind}"),
        _ => name,
    })
}

/// `10.0.0.2:80`.
fn endpoint(to: &NatTo) -> Option<String> {
    let address = to.address()?;
    Some(match to.ports {
        None => address.to_string(),
        Some(ports) if address.is_ipv6() => format!("[{address}]:{}", ports.range),
        Some(ports) => format!("{address}:{}", ports.range),
    })
}

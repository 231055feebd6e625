//! The whole answer in one sentence, in the tenant's words.

use super::{
    Direction, Finding, Hop, HopKind, HopState, InterfaceTrace, Router, Severity, Translation, Verdict,
    filter::{once, port_words},
};
use crate::inventory::Instance;

/// Composes the sentence.
pub(super) fn compose(
    instance: &Instance<'_>,
    interfaces: &[InterfaceTrace],
    findings: &[Finding],
    verdict: Verdict,
) -> String {
    let name = &instance.identity.name;
    let worst = findings.first();
    match (verdict, worst) {
        (Verdict::Broken, Some(finding)) => {
            let errors = findings.iter().filter(|finding| finding.severity == Severity::Error).count();
            let more = match errors.saturating_sub(1) {
                0 => String::new(),
                1 => " (1 more error below it)".to_owned(),
                more => format!(" ({more} more errors below it)"),
            };
            format!("{name}: {}{more}.", finding.message)
        }
        (Verdict::Inconclusive, Some(finding)) if interfaces.is_empty() => format!("{name}: {}.", finding.message),
        (Verdict::Inconclusive, _) => {
            format!(
                "{name}: nothing seen speaks against its path, but not everything could be read. {}",
                reach(interfaces)
            )
        }
        (Verdict::Works | Verdict::Broken, _) => format!("{name}: {}", reach(interfaces)),
    }
}

fn reach(interfaces: &[InterfaceTrace]) -> String {
    let words: Vec<_> = interfaces.iter().map(interface).collect();
    if words.is_empty() { "it has no network of its own.".to_owned() } else { words.join(" ") }
}

fn interface(interface: &InterfaceTrace) -> String {
    let address =
        interface.addresses.first().map_or_else(|| "an unknown address".to_owned(), |net| net.addr().to_string());
    let on = interface
        .network_name
        .clone()
        .or_else(|| {
            interface.network_id.as_ref().map(|id| format!("network {}", id.chars().take(8).collect::<String>()))
        })
        .or_else(|| interface.bridge.clone())
        .map_or_else(String::new, |network| format!(" on {network}"));
    let groups = |direction| {
        let filters = interface.hops.iter().filter(|hop| hop.direction == direction && hop.kind == HopKind::Filter);
        filters.clone().any(|hop| hop.state == HopState::Unknown)
    };
    let limit = |direction| if groups(direction) { ", as far as its filters allow" } else { "" };
    let out = match (&interface.router, interface.hops.iter().find_map(translated_to)) {
        _ if interface.is_local() => "reaches its own subnet".to_owned(),
        (None, _) if interface.is_lost() => "leaves by a way that could not be followed".to_owned(),
        (Some(router), Some(source)) => format!("reaches the outside through {} as {source}", router_words(router)),
        (Some(router), None) if router.external_device.is_some() => {
            format!("is routed to the outside by {} without translation", router_words(router))
        }
        (Some(router), None) => tunnel(interface).map_or_else(
            || format!("reaches its gateway {} and no further", router.gateway),
            |tunnel| format!("leaves this host by {} and a tunnel ({tunnel}) for source NAT", router_words(router)),
        ),
        (None, _) => tunnel(interface).map_or_else(
            || "has no router on this host".to_owned(),
            |tunnel| format!("leaves this host by a tunnel ({tunnel}): its router is on another one"),
        ),
    };
    let (outward, back) = (limit(Direction::Outward), limit(Direction::Inward));
    format!("{address}{on} {out}{outward}; {}{back}.", inward(interface))
}

/// The router as a tenant knows it, else where it lives.
fn router_words(router: &Router) -> String {
    let id = router.id.as_ref().map(|id| format!("router {}", id.prefix(8)));
    id.unwrap_or_else(|| if router.netns.host { "this host".to_owned() } else { router.netns.label.clone() })
}

/// The tunnel a network without a router on this host leaves by.
fn tunnel(interface: &InterfaceTrace) -> Option<&str> {
    let outward = interface.hops.iter().filter(|hop| hop.direction == Direction::Outward);
    outward.filter(|hop| hop.kind == HopKind::Tunnel).map(|hop| hop.status.as_str()).next()
}

/// What a source translation on the way out makes of the instance's address.
fn translated_to(hop: &Hop) -> Option<&str> {
    match &hop.translation {
        Some(Translation::Source(becomes)) => Some(becomes),
        Some(Translation::Destination(_)) | None => None,
    }
}

fn inward(interface: &InterfaceTrace) -> String {
    let floating: Vec<_> = interface
        .floating_ips
        .iter()
        .filter(|floating| floating.works())
        .map(|floating| floating.address.to_string())
        .collect();
    let published = interface
        .published_ports
        .iter()
        .filter(|publication| publication.works() && !publication.port.host_address.is_loopback())
        .map(|publication| port_words(&publication.port));
    // A port published on IPv4 and on IPv6 is one way in to whoever reads a sentence.
    let published = once(published);
    match (&floating[..], &published[..]) {
        ([], []) => without_translation(interface),
        ([], ports) => format!("the outside reaches it by {}", ports.join(", ")),
        (addresses, []) => format!("the outside reaches it by floating IP {}", addresses.join(", ")),
        (addresses, ports) => {
            format!("the outside reaches it by floating IP {} and {}", addresses.join(", "), ports.join(", "))
        }
    }
}

/// Whether the outside reaches a card that this host translates nothing to.
fn without_translation(interface: &InterfaceTrace) -> String {
    let uplink = interface.hops.iter().any(|hop| hop.direction == Direction::Outward && hop.kind == HopKind::Uplink);
    let translated = interface.hops.iter().any(|hop| translated_to(hop).is_some());
    match &interface.router {
        _ if interface.is_local() => "nothing outside can open a connection to it",
        _ if interface.is_lost() => "whether the outside reaches it is not known",
        None if tunnel(interface).is_some() => "that host knows whether the outside reaches it",
        None if uplink => "whoever is on that network reaches it by its own address",
        Some(router) if router.external_device.is_some() && !translated => {
            "the outside reaches it where a route leads to its own address"
        }
        None | Some(_) => "nothing outside can open a connection to it",
    }
    .to_owned()
}

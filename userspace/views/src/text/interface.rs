//! One interface: its heading, its hops out and in, and the services of its network.

use std::net::IpAddr;

use netdiag_model::{
    floating::show::Row,
    trace::{Direction, HopState, InterfaceTrace, Router, RuleRef, Service},
};

use super::{
    hops,
    page::{Page, Paint, Span},
};
use crate::shorten;

/// Draws an interface; `place` is its number and how many there are.
pub(super) fn draw(page: &mut Page<'_>, interface: &InterfaceTrace, place: (usize, usize)) {
    heading(page, interface, place);
    network(page, interface);
    host_end(page, interface);
    router(page, interface.router.as_ref());
    floating_ips(page, interface);
    published_ports(page, interface);
    let table = hops::Table::fit(page, interface);
    for direction in [Direction::Outward, Direction::Lateral, Direction::Inward] {
        table.draw(page, direction);
    }
    services(page, interface);
}

/// What the interface is: its device and its addresses.
fn heading(page: &mut Page<'_>, interface: &InterfaceTrace, (number, of): (usize, usize)) {
    let title = if of > 1 { format!("INTERFACE {number} of {of}") } else { "INTERFACE".to_owned() };
    let mut names: Vec<String> = interface.device.iter().map(|device| page.exact(device)).collect();
    names.extend(interface.addresses.iter().map(ToString::to_string));
    if interface.addresses.is_empty() {
        names.push("address unknown".to_owned());
    }
    names.extend(interface.mac.map(|mac| mac.to_string()));
    page.list(vec![Span::new(Paint::Heading, title), Span::space(2)], &names, Paint::Strong);
    page.field("port", &interface.port_id.iter().map(ToString::to_string).collect::<Vec<_>>());
    page.field("netns", &interface.netns.iter().map(|netns| netns.id.to_string()).collect::<Vec<_>>());
}

/// The network of the interface in the words of Neutron or Docker.
fn network(page: &mut Page<'_>, interface: &InterfaceTrace) {
    let mut things: Vec<String> = interface.network_name.iter().cloned().collect();
    things.extend(interface.network_id.iter().map(|id| shorten_digest(id)));
    let kind = interface.network_type.as_deref();
    things.extend(match (kind, interface.segmentation_id) {
        (Some(kind), Some(segment)) => Some(format!("{kind} {segment}")),
        (Some(kind), None) => Some(format!("type {kind}")),
        (None, Some(segment)) => Some(format!("segment {segment}")),
        (None, None) => None,
    });
    things.extend(interface.physical_network.iter().map(|physical| format!("physical network {physical}")));
    things.extend(interface.vlan_tag.map(|tag| format!("tag {tag}")));
    if things.is_empty() {
        things.push("none that Docker or Neutron knows of".to_owned());
    }
    page.field("network", &things);
}

/// A network's id: Neutron's as it is, Docker's, which nobody types in full, cut as Docker cuts it.
fn shorten_digest(id: &str) -> String {
    if id.len() == 64 { shorten::ids(id) } else { id.to_owned() }
}

/// The host's end and what it is plugged into.
fn host_end(page: &mut Page<'_>, interface: &InterfaceTrace) {
    let bridge = interface.bridge.as_deref();
    let text = match (interface.host_device.as_deref(), bridge) {
        (Some(device), Some(bridge)) => format!("{device} on {bridge}"),
        (Some(device), None) => device.to_owned(),
        (None, Some(bridge)) => format!("unknown device on {bridge}"),
        (None, None) => "-".to_owned(),
    };
    page.field("host end", &[text]);
}

/// The router of the default route.
fn router(page: &mut Page<'_>, router: Option<&Router>) {
    let Some(router) = router else {
        page.field("router", &["-".to_owned()]);
        return;
    };
    let itself = router.id.is_none() && router.netns.host;
    let mut things = vec![if itself { "this host".to_owned() } else { router.netns.label.clone() }];
    let named = |id: &str| router.netns.label.contains(id);
    things.extend(router.id.iter().filter(|id| !named(id.as_str())).map(|id| format!("router {id}")));
    things.push(format!("gateway {} on {}", router.gateway, router.internal_device));
    things.push(match &router.external_device {
        Some(device) => format!("out by {device}"),
        None => "out by unknown device".to_owned(),
    });
    page.field("router", &things);
}

/// One line per floating IP.
fn floating_ips(page: &mut Page<'_>, interface: &InterfaceTrace) {
    for floating in &interface.floating_ips {
        let mut things = vec![arrow(page, floating.address, floating.fixed_address)];
        things.extend(floating.device.iter().map(|device| format!("on {}", page.exact(device))));
        things.push(rules_counted(&floating.rules));
        things.extend(floating.way.as_ref().map(|way| way_words(page, way)));
        stateful(page, "floating", floating.state, &things);
        listed_rules(page, &floating.rules);
    }
}

/// Which way its packets take, and why not past the router.
fn way_words(page: &Page<'_>, way: &Row) -> String {
    match &way.why {
        Some(why) => format!("{}: {}", way.standing.name(), page.exact(why)),
        None => way.standing.name().to_owned(),
    }
}

/// One line per published port.
fn published_ports(page: &mut Page<'_>, interface: &InterfaceTrace) {
    for publication in &interface.published_ports {
        let port = &publication.port;
        let host = match port.host_address {
            IpAddr::V4(address) => format!("{address}:{}", port.host_port),
            IpAddr::V6(address) => format!("[{address}]:{}", port.host_port),
        };
        let arrow = page.glyph("→", "->");
        let leads = format!("{} {host} {arrow} {}", page.exact(&port.protocol), port.container_port);
        let by = publication.process.as_ref().map(|process| format!("by {}", page.say(process)));
        let by = by.unwrap_or_else(|| rules_counted(&publication.rules));
        stateful(page, "published", publication.state, &[leads, by]);
        listed_rules(page, &publication.rules);
    }
}

/// The services of the network. A Neutron port should have both, so their absence is said.
fn services(page: &mut Page<'_>, interface: &InterfaceTrace) {
    let expected = interface.port_id.is_some();
    let services = [("dhcp", &interface.dhcp), ("metadata", &interface.metadata)];
    if expected || services.iter().any(|(_, service)| service.is_some()) {
        page.gap();
        page.line(vec![Span::new(Paint::Heading, "SERVICES")]);
    }
    for (name, service) in services {
        match service {
            Some(service) => self::service(page, name, service),
            None if expected => page.field(name, &["- none found on this host".to_owned()]),
            None => {}
        }
    }
}

/// One service.
fn service(page: &mut Page<'_>, name: &str, service: &Service) {
    let mut things: Vec<String> = service.process.iter().map(|process| page.exact(process)).collect();
    things.push(format!("in {}", page.say(&service.netns.label)));
    things.extend(service.device.iter().map(|device| format!("on {}", page.exact(device))));
    things.extend(service.addresses.iter().map(ToString::to_string));
    if !service.note.is_empty() {
        things.push(page.say(&service.note));
    }
    stateful(page, name, service.state, &things);
}

/// A named value with a state.
fn stateful(page: &mut Page<'_>, name: &str, state: HopState, things: &[String]) {
    let mut lead = Page::label(name);
    lead.extend([page.state(state), Span::space(2)]);
    page.list(lead, things, Paint::Plain);
}

/// One address that stands for another.
fn arrow(page: &Page<'_>, from: IpAddr, to: IpAddr) -> String {
    format!("{from} {} {to}", page.glyph("→", "->"))
}

/// How many rules.
fn rules_counted(rules: &[RuleRef]) -> String {
    match rules.len() {
        0 => "no rule".to_owned(),
        1 => "1 rule".to_owned(),
        several => format!("{several} rules"),
    }
}

/// The rules themselves, for `-v`; the hops they act on show them in any case.
fn listed_rules(page: &mut Page<'_>, rules: &[RuleRef]) {
    if page.style.detail > 0 {
        for rule in rules {
            hops::rule(page, rule);
        }
    }
}

//! What a picture of a trace shows, whatever draws it: which hops stand together, and what each says.
//!
//! Text here is still as the model has it, with ids shortened; each drawing escapes it for its own language.

use netdiag_model::trace::{Direction, Hop, HopKind, HopState, InterfaceTrace, Trace, Verdict};

use crate::{shorten, time};

/// A picture of a trace.
pub(crate) struct Picture {
    /// The instance and what it is.
    pub(crate) title: String,
    /// Where and when.
    pub(crate) seen: String,
    /// The answer as a word and a sentence.
    pub(crate) answer: String,
    /// How the answer is painted.
    pub(crate) state: HopState,
    /// One per interface.
    pub(crate) panels: Vec<Panel>,
}

/// The paths of one interface.
pub(crate) struct Panel {
    /// The interface and its network.
    pub(crate) caption: String,
    /// The path from the instance.
    pub(crate) outward: Vec<Place>,
    /// The path to the instance.
    pub(crate) inward: Vec<Place>,
}

/// Hops one after the other in one namespace.
pub(crate) struct Place {
    /// The namespace, or `outside`.
    pub(crate) label: String,
    /// The hops in the order packets meet them.
    pub(crate) stops: Vec<Stop>,
}

/// A hop.
pub(crate) struct Stop {
    /// Place on the path.
    pub(crate) number: usize,
    /// What it is.
    pub(crate) kind: HopKind,
    /// Its name.
    pub(crate) name: String,
    /// Whether it lets packets through.
    pub(crate) state: HopState,
    /// What it says about itself.
    pub(crate) lines: Vec<String>,
}

impl Picture {
    /// The picture of a trace.
    pub(crate) fn of(trace: &Trace) -> Self {
        let (state, word) = match trace.verdict {
            Verdict::Works => (HopState::Ok, "✓ works"),
            Verdict::Inconclusive => (HopState::Unknown, "? inconclusive"),
            Verdict::Broken => (HopState::Broken, "✗ BROKEN"),
        };
        Self {
            title: shorten::ids(&format!("{} ({})", trace.instance.name, trace.instance.kind.name())),
            seen: format!("on {} at {}", trace.hostname, time::words(trace.taken_at)),
            answer: format!("{word}: {}", shorten::ids(&trace.sentence)),
            state,
            panels: trace.interfaces.iter().map(Panel::of).collect(),
        }
    }
}

impl Panel {
    /// The paths of an interface.
    fn of(interface: &InterfaceTrace) -> Self {
        Self {
            caption: shorten::ids(&caption(interface)),
            outward: places(interface, Direction::Outward),
            inward: places(interface, Direction::Inward),
        }
    }
}

/// The interface and its network in one line.
fn caption(interface: &InterfaceTrace) -> String {
    let mut words: Vec<String> = interface.device.iter().cloned().collect();
    words.extend(interface.addresses.iter().map(ToString::to_string));
    words.extend(interface.mac.map(|mac| mac.to_string()));
    words.extend(interface.port_id.iter().map(|port| format!("port {port}")));
    let network = interface.network_name.as_ref().or(interface.network_id.as_ref());
    words.extend(network.map(|network| format!("network {network}")));
    let segment = interface.segmentation_id.map(|id| format!(" {id}")).unwrap_or_default();
    words.extend(interface.network_type.iter().map(|kind| format!("{kind}{segment}")));
    words.extend(interface.vlan_tag.map(|tag| format!("tag {tag}")));
    if words.is_empty() { "interface of which nothing is known".to_owned() } else { words.join(" · ") }
}

/// The hops of a direction, those in one namespace together.
fn places(interface: &InterfaceTrace, direction: Direction) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    for hop in interface.hops.iter().filter(|hop| hop.direction == direction) {
        let label = place_of(interface, hop);
        match places.last_mut() {
            Some(place) if place.label == label => place.stops.push(Stop::of(hop)),
            _ => places.push(Place { label, stops: vec![Stop::of(hop)] }),
        }
    }
    places
}

/// Where a hop stands. The instance stands in its own namespace, a guest in itself.
fn place_of(interface: &InterfaceTrace, hop: &Hop) -> String {
    let inside = matches!(hop.kind, HopKind::Instance | HopKind::Namespace | HopKind::InnerDevice);
    let netns = hop.netns.as_ref().or(if inside { interface.netns.as_ref() } else { None });
    let outside = matches!(hop.kind, HopKind::NextHop | HopKind::Outside);
    match netns {
        Some(netns) => shorten::ids(&netns.label),
        None if inside => "guest".to_owned(),
        None if outside => "outside".to_owned(),
        None => "place unknown".to_owned(),
    }
}

impl Stop {
    /// A hop with the lines a picture has room for.
    fn of(hop: &Hop) -> Self {
        let mut lines = Vec::new();
        let known = [hop.kind.name(), hop.status.as_str()];
        let what: Vec<&str> = known.into_iter().filter(|word| !word.is_empty()).collect();
        lines.push(what.join(" · "));
        lines.extend(hop.mtu.map(|mtu| format!("mtu {mtu}")));
        lines.extend(hop.addresses.iter().map(ToString::to_string));
        lines.extend(hop.rules.iter().flat_map(|rule| {
            let meaning = if rule.meaning.is_empty() { &rule.rule } else { &rule.meaning };
            [meaning.clone(), format!("{} packets", rule.counters.packets)]
        }));
        lines.push(hop.note.clone());
        lines.retain(|line| !line.is_empty());
        let lines = lines.iter().map(|line| shorten::ids(line)).collect();
        Self { number: hop.number, kind: hop.kind, name: shorten::ids(&hop.name), state: hop.state, lines }
    }
}

/// The steps of a path: the number of a hop, that of the next, and whether a broken hop lies before the step, so that
/// no packet takes it.
pub(crate) fn steps(places: &[Place]) -> impl Iterator<Item = (usize, usize, bool)> {
    let stops: Vec<&Stop> = places.iter().flat_map(|place| &place.stops).collect();
    let mut dead = false;
    let step = move |pair: &[&Stop]| {
        dead |= pair[0].state == HopState::Broken;
        (pair[0].number, pair[1].number, dead)
    };
    stops.windows(2).map(step).collect::<Vec<_>>().into_iter()
}

/// A state in a picture: a mark and a word where it is not simply well.
pub(crate) const fn badge(state: HopState) -> Option<&'static str> {
    match state {
        HopState::Ok => None,
        HopState::Warning => Some("! warning"),
        HopState::Unknown => Some("? unknown"),
        HopState::Broken => Some("✗ BROKEN"),
    }
}

/// The colour of an answer.
pub(crate) const fn answer_colour(state: HopState) -> &'static str {
    match state {
        HopState::Ok => INWARD,
        HopState::Warning | HopState::Unknown | HopState::Broken => colour(state),
    }
}

/// The colour of a state on a light background, at least 4.5 to 1 against white.
pub(crate) const fn colour(state: HopState) -> &'static str {
    match state {
        HopState::Ok => "#57606a",
        HopState::Warning => "#9a6700",
        HopState::Unknown => "#8250df",
        HopState::Broken => "#cf222e",
    }
}

/// The fill of a hop: what changes packets stands out from what passes them on.
pub(crate) const fn fill(kind: HopKind) -> &'static str {
    match kind {
        HopKind::Nat => "#fff8c5",
        HopKind::Filter => "#ffefe7",
        HopKind::Tunnel => "#fbefff",
        HopKind::Router => "#ddf4ff",
        HopKind::Instance => "#dafbe1",
        HopKind::Namespace
        | HopKind::InnerDevice
        | HopKind::HostDevice
        | HopKind::LinuxBridge
        | HopKind::Veth
        | HopKind::OvsPort
        | HopKind::OvsBridge
        | HopKind::Patch
        | HopKind::RouterPort
        | HopKind::Uplink
        | HopKind::Vlan
        | HopKind::NextHop
        | HopKind::Outside
        | HopKind::Service => "#ffffff",
    }
}

/// The colour of the way out.
pub(crate) const OUTWARD: &str = "#0969da";
/// The colour of the way in.
pub(crate) const INWARD: &str = "#1a7f37";

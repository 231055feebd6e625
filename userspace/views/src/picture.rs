//! What a picture of a trace shows, whatever draws it: which hops stand together, and what each says.
//!
//! Text here is still as the model has it, with ids shortened; each drawing escapes it for its own language.

use std::ops::Range;

use netdiag_model::trace::{Direction, Hop, HopKind, HopState, InterfaceTrace, Trace, Verdict};

use crate::{
    address, place, shorten, time,
    tunnels::{self, Entry},
};

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
    /// Its paths, from top to bottom: out, aside, in. One nobody can take is left out.
    pub(crate) paths: Vec<Path>,
}

/// One direction of an interface.
pub(crate) struct Path {
    /// Which.
    pub(crate) direction: Direction,
    /// Its namespaces in the order packets meet them.
    pub(crate) places: Vec<Place>,
}

impl Picture {
    /// Whether there is a step no packet takes, so that a reader needs to know how it is drawn.
    pub(crate) fn has_dead_steps(&self) -> bool {
        let mut paths = self.panels.iter().flat_map(|panel| &panel.paths);
        paths.any(|path| steps(&path.stops()).iter().any(|step| step.dead))
    }
}

impl Path {
    /// Its hops in the order packets meet them.
    pub(crate) fn stops(&self) -> Vec<&Stop> {
        self.places.iter().flat_map(|place| &place.stops).collect()
    }
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
        let paths = [Direction::Outward, Direction::Lateral, Direction::Inward];
        let paths = paths.map(|direction| Path { direction, places: places(interface, direction) });
        Self {
            caption: shorten::ids(&caption(interface)),
            paths: paths.into_iter().filter(|path| !path.places.is_empty()).collect(),
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
    let hops = interface.hops.iter().filter(|hop| hop.direction == direction).collect();
    for entry in tunnels::summary(hops) {
        let (hop, stop) = match entry {
            Entry::Hop(hop) => (hop, Stop::of(hop)),
            Entry::More(first, more) => (first, Stop::more(first, more)),
        };
        let label = shorten::ids(&place::of(interface, hop));
        match places.last_mut() {
            Some(place) if place.label == label => place.stops.push(stop),
            _ => places.push(Place { label, stops: vec![stop] }),
        }
    }
    places
}

impl Stop {
    /// Stands for tunnels that are well, of which the first is given.
    fn more(first: &Hop, more: usize) -> Self {
        let lines = vec![HopKind::Tunnel.name().to_owned()];
        let name = format!("and {more} more that are ok");
        Self { number: first.number, kind: HopKind::Tunnel, name, state: HopState::Ok, lines }
    }

    /// A hop with the lines a picture has room for.
    fn of(hop: &Hop) -> Self {
        let mut lines = Vec::new();
        let (kind, status) = (hop.kind.name(), hop.status.as_str());
        // A status that says what the kind says is no news.
        lines.push(if status.is_empty() || status == kind { kind.to_owned() } else { format!("{kind} · {status}") });
        lines.extend(hop.mtu.map(|mtu| format!("mtu {mtu}")));
        lines.extend(address::given(&hop.addresses).map(ToString::to_string));
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

/// A step of a path, by the places of its hops on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Where packets come from.
    pub(crate) from: usize,
    /// Where they go.
    pub(crate) to: usize,
    /// Whether no packet takes it, because a broken hop lies before it.
    pub(crate) dead: bool,
}

/// The steps between hops in the order packets meet them. Tunnels in a row lie beside one another: each leads to
/// another host.
pub(crate) fn steps(hops: &[&Stop]) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut dead: Vec<bool> = Vec::new();
    for (to, hop) in hops.iter().enumerate() {
        let sources = sources(hops, to);
        steps.extend(sources.clone().map(|from| Step { from, to, dead: dead[from] }));
        let cut_off = !sources.is_empty() && sources.into_iter().all(|from| dead[from]);
        dead.push(cut_off || hop.state == HopState::Broken);
    }
    steps
}

/// The hops that packets come to a hop from.
fn sources(hops: &[&Stop], to: usize) -> Range<usize> {
    let tunnel = |at: &usize| hops[*at].kind == HopKind::Tunnel;
    let first = to - (0..to).rev().take_while(tunnel).count();
    if tunnel(&to) {
        first.saturating_sub(1)..first
    } else if first < to {
        first..to
    } else {
        to.saturating_sub(1)..to
    }
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
        HopKind::Nat | HopKind::FastPath => "#fff8c5",
        HopKind::Filter | HopKind::SecurityGroup => "#ffefe7",
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

/// What a direction is called in a picture.
pub(crate) const fn title(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "outward: from the instance",
        Direction::Lateral => "aside: to this network on other hosts",
        Direction::Inward => "inward: to the instance",
    }
}

/// The colour of a direction, at least 4.5 to 1 against white.
pub(crate) const fn direction_colour(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "#0969da",
        Direction::Lateral => "#0e7490",
        Direction::Inward => INWARD,
    }
}

/// The colour of the way in, and of an answer that is good.
const INWARD: &str = "#1a7f37";
/// The colour of a step nothing takes.
pub(crate) const DEAD: &str = "#57606a";

#[cfg(test)]
mod tests {
    use super::{Picture, Step, steps};
    use crate::fixtures;

    #[test]
    fn tunnels_lead_to_hosts_of_their_own_and_a_broken_one_cuts_off_no_other() {
        let picture = Picture::of(&fixtures::mesh());
        let shown = steps(&picture.panels[0].paths[0].stops());
        let step = |from, to| Step { from, to, dead: false };
        assert_eq!(shown, [step(0, 1), step(1, 2), step(1, 3), step(1, 4), step(1, 5), step(1, 6), step(1, 7)]);
    }

    #[test]
    fn nothing_takes_a_step_past_a_broken_hop() {
        let picture = Picture::of(&fixtures::broken());
        let stops = picture.panels[0].paths[0].stops();
        let broken = stops.iter().position(|stop| stop.state == netdiag_model::trace::HopState::Broken).unwrap();
        for step in steps(&stops) {
            assert_eq!(step.dead, step.from >= broken, "{step:?}");
        }
        assert!(picture.has_dead_steps());
    }
}

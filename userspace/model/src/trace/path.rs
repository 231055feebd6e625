//! A path while it is being built: hops in order, and the findings that came up on the way.

use super::{
    Direction, Finding, Hop, HopKind, HopState, InterfaceTrace, Severity,
    command::{in_netns, quote},
};
use crate::{
    fact::{LinkFact, OperState},
    id::LinkKey,
    inventory::{Inventory, PortPlace},
    live,
};

/// A finding with what every one has; the rest is added by the methods below.
pub(super) fn finding(
    severity: Severity,
    code: &str,
    object: impl Into<String>,
    message: impl Into<String>,
) -> Finding {
    Finding {
        severity,
        code: code.to_owned(),
        object: object.into(),
        message: message.into(),
        evidence: String::new(),
        verify: None,
        fix: None,
    }
}

/// Name of the hop that stands for whatever follows a place the path could not be followed beyond.
pub(super) const LOST: &str = "unknown";

/// Status of the last hop of a card that reaches its own subnet alone.
pub(super) const SEGMENT: &str = "this segment";

impl InterfaceTrace {
    /// Whether the way out could not be followed to its end.
    pub(super) fn is_lost(&self) -> bool {
        self.hops.iter().any(|hop| hop.kind == HopKind::NextHop && hop.name == LOST)
    }

    /// Whether the card reaches its own subnet alone.
    pub(super) fn is_local(&self) -> bool {
        self.hops.iter().any(|hop| hop.kind == HopKind::NextHop && hop.status == SEGMENT)
    }
}

impl Finding {
    /// What was seen that says so.
    pub(super) fn seen(self, evidence: impl Into<String>) -> Self {
        Self { evidence: evidence.into(), ..self }
    }

    /// A command that shows it by hand.
    pub(super) fn verify(self, command: impl Into<String>) -> Self {
        Self { verify: Some(command.into()), ..self }
    }

    /// What would mend it.
    pub(super) fn fix(self, command: impl Into<String>) -> Self {
        Self { fix: Some(command.into()), ..self }
    }
}

/// State of a link in the kernel's word. Devices whose driver says nothing (TAP, loopback) are in state UNKNOWN all their
/// life; where they are switched on and have a carrier, that reads like a fault that is none.
fn status(link: &LinkFact) -> &'static str {
    if link.state == OperState::Unknown && link.admin_up && link.carrier { "UP" } else { link.state.name() }
}

/// Hops in one direction.
#[derive(Debug)]
pub(super) struct Path {
    pub(super) direction: Direction,
    pub(super) hops: Vec<Hop>,
    pub(super) findings: Vec<Finding>,
}

impl Path {
    pub(super) const fn new(direction: Direction) -> Self {
        Self { direction, hops: Vec::new(), findings: Vec::new() }
    }

    /// Adds a hop and numbers it.
    pub(super) fn push(&mut self, hop: Hop) {
        let number = self.hops.len() + 1;
        self.hops.push(Hop { direction: self.direction, number, ..hop });
    }

    /// Adds a finding, and marks the last hop with it.
    pub(super) fn report(&mut self, finding: Finding) {
        if let Some(hop) = self.hops.last_mut() {
            let state = match finding.severity {
                Severity::Error => HopState::Broken,
                Severity::Warning => HopState::Warning,
                Severity::Info => hop.state,
            };
            hop.state = hop.state.max(state);
        }
        self.findings.push(finding);
    }

    /// Adds a device as a hop, with what is wrong with the device itself.
    pub(super) fn device(&mut self, inventory: &Inventory<'_>, kind: HopKind, key: LinkKey) {
        let Some(link) = inventory.link(key) else { return };
        let netns = inventory.netns(key.netns);
        let show = in_netns(inventory, key.netns, &format!("ip -s -d link show dev {}", quote(&link.name)));
        let mut detail = vec![("ifindex".to_owned(), key.ifindex.to_string())];
        detail.push(("state".to_owned(), link.state.name().to_owned()));
        detail.extend(link.kind.iter().map(|kind| ("kind".to_owned(), kind.clone())));
        detail.extend(link.qdisc.iter().map(|qdisc| ("qdisc".to_owned(), qdisc.clone())));
        detail.extend(link.alias.iter().map(|alias| ("alias".to_owned(), alias.clone())));
        for program in inventory.programs(key) {
            let id = program.id.map_or_else(String::new, |id| format!(" id {id}"));
            detail.push((program.hook.name().to_owned(), format!("{}{id}", program.name)));
        }
        // netdiag's own eyes let everything pass.
        let filters = inventory.programs(key).filter(|program| !live::PROGRAMS.contains(&&*program.name));
        let programs: Vec<_> = filters.map(|program| program.hook.name()).collect();
        self.push(Hop {
            kind,
            name: link.name.clone(),
            netns: Some(netns.clone()),
            state: HopState::Ok,
            status: status(link).to_owned(),
            mtu: Some(link.mtu),
            mac: link.mac,
            addresses: link.addresses.iter().map(|held| held.address).collect(),
            counters: Some(link.stats),
            note: if programs.is_empty() {
                String::new()
            } else {
                format!("eBPF or TC filter: {}", programs.join(", "))
            },
            detail,
            verify: vec![show.clone()],
            ..Hop::default()
        });
        let at = format!("{} in {}", link.name, netns.label);
        let set_up = in_netns(inventory, key.netns, &format!("ip link set {} up", quote(&link.name)));
        if !link.admin_up {
            self.report(
                finding(Severity::Error, "link-down", at, format!("{} is switched off: nothing passes it", link.name))
                    .seen(format!("state {}, without the flag UP", link.state.name()))
                    .verify(show)
                    .fix(set_up),
            );
        } else if !link.carrier
            || matches!(link.state, OperState::Down | OperState::LowerLayerDown | OperState::NotPresent)
        {
            self.report(
                finding(
                    Severity::Error,
                    "no-carrier",
                    at,
                    format!("{} has no carrier: its other end is down", link.name),
                )
                .seen(format!("state {}, NO-CARRIER", link.state.name()))
                .verify(show)
                .fix("see the other end, the next or the previous hop"),
            );
        }
        self.addresses(inventory, key);
    }

    /// What is wrong with the addresses of the device that is the last hop.
    fn addresses(&mut self, inventory: &Inventory<'_>, key: LinkKey) {
        let Some(link) = inventory.link(key) else { return };
        for held in link.addresses.iter().filter(|held| held.dad_failed) {
            let at = format!("{} in {}", link.name, inventory.netns(key.netns).label);
            self.report(
                finding(
                    Severity::Error,
                    "duplicate-address",
                    at,
                    format!("another machine on the segment already uses {}", held.address.addr()),
                )
                .seen("the kernel's duplicate address detection failed (dadfailed)")
                .verify(in_netns(
                    inventory,
                    key.netns,
                    &format!("ip -6 addr show dev {} dadfailed", quote(&link.name)),
                )),
            );
        }
    }

    /// What to know of a bridge of Open vSwitch. That its flows are not read is said once a path, of the first.
    fn bridge_note(&self, port: &PortPlace<'_>) -> String {
        let first = !self.hops.iter().any(|hop| hop.kind == HopKind::OvsBridge);
        let mirrors = (port.bridge.mirrors > 0).then(|| format!("{} mirror(s)", port.bridge.mirrors));
        let plane = port.by_flows_of().map(|plane| format!("run by {}", plane.name()));
        let flows = first.then(|| "flows not read".to_owned());
        mirrors.into_iter().chain(plane).chain(flows).collect::<Vec<_>>().join(", ")
    }

    /// Adds a bridge of Open vSwitch as a hop, with what is wrong with it.
    pub(super) fn ovs_bridge(&mut self, inventory: &Inventory<'_>, port: &PortPlace<'_>) {
        let bridge = port.bridge;
        let datapath = if bridge.datapath_type.is_empty() { "system" } else { &bridge.datapath_type };
        let mut detail = vec![("datapath".to_owned(), datapath.to_owned())];
        detail.extend(bridge.fail_mode.iter().map(|mode| ("fail mode".to_owned(), mode.clone())));
        detail.extend(port.control_plane().map(|plane| ("run by".to_owned(), plane.name().to_owned())));
        for controller in &bridge.controllers {
            let state = if controller.connected { "connected" } else { "not connected" };
            detail.push(("controller".to_owned(), format!("{} ({state})", controller.target)));
        }
        let flows = format!("ovs-ofctl dump-flows {}", quote(&bridge.name));
        self.push(Hop {
            kind: HopKind::OvsBridge,
            name: bridge.name.clone(),
            netns: port.switch.netns.map(|id| inventory.netns(id)),
            state: HopState::Ok,
            status: format!("{datapath} datapath"),
            note: self.bridge_note(port),
            detail,
            verify: vec![flows],
            ..Hop::default()
        });
        let secure = bridge.fail_mode.as_deref() == Some("secure");
        if !bridge.controllers.is_empty() && bridge.controllers.iter().all(|controller| !controller.connected) {
            let what = if secure { "flows stay as they are" } else { "the bridge falls back to plain switching" };
            self.report(
                finding(
                    Severity::Warning,
                    "controller-lost",
                    &bridge.name,
                    format!("no OpenFlow controller is connected to {}: {what}", bridge.name),
                )
                .seen("Controller.is_connected is false")
                .verify("ovs-vsctl show")
                .fix("see whether Neutron's agent (or the controller) runs"),
            );
        }
    }
}

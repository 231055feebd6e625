//! Packets that left this host by an address they should not have: an answer comes to nobody, or to an address that is not
//! what the instance is known by. Flow: explain.

use std::net::IpAddr;

use crate::{
    live::{
        journey::{Ended, Journey},
        points::{Points, Track},
        words,
    },
    trace::{Direction, Finding, HopKind, Severity, Trace},
};

/// What the trace finds where nothing, or the wrong rule, translates.
const CAUSES: [&str; 5] = ["floating-ip-snat", "floating-ip-rule", "no-translation", "untracked", "snat-address"];

/// Packets that left so: how many, by what, as whom.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// With an address that only the instance's own network knows; and whether others of the instance are translated.
    private: Option<(Group, bool)>,
    /// With an address of the router's, though the instance has one to itself.
    shared: Option<(Group, IpAddr)>,
}

#[derive(Debug)]
struct Group {
    packets: u64,
    device: String,
    source: IpAddr,
}

impl Group {
    const fn new(device: String, source: IpAddr) -> Self {
        Self { packets: 0, device, source }
    }
}

impl Left {
    /// Adds a packet.
    pub(super) fn add(&mut self, journey: &Journey, points: &Points) {
        let Some((track, device, source)) = departure(journey, points) else { return };
        let outside = |address: &&IpAddr| address.is_ipv4() && !is_inside(track, **address);
        if is_inside(track, source) {
            let translated = track.own.iter().chain(&track.shared).any(|address| outside(&address));
            let (group, _) = self.private.get_or_insert_with(|| (Group::new(device, source), translated));
            group.packets += 1;
        } else if let Some(floating) = track.own.iter().find(outside).filter(|_| !track.own.contains(&source)) {
            let (group, _) = self.shared.get_or_insert_with(|| (Group::new(device, source), *floating));
            group.packets += 1;
        }
    }

    /// What is to be said of them. Where nothing is translated, and where an address of the router's is meant, the trace has
    /// to find something wrong as well.
    pub(super) fn findings(self, trace: &Trace) -> Vec<Finding> {
        let cause = trace.findings.iter().find(|finding| CAUSES.contains(&finding.code.as_str()));
        let private = self.private.filter(|(_, translated)| *translated || cause.is_some());
        let shared = self.shared.filter(|_| cause.is_some());
        let private = private.map(|(Group { packets, device, source }, _)| {
            let packets = words::packets(packets);
            let message =
                format!("{packets} left by {device} as {source}, to which no answer from outside finds its way");
            found(("left-untranslated", device, message), source, cause)
        });
        let shared = shared.map(|(Group { packets, device, source }, floating)| {
            let packets = words::packets(packets);
            let message = format!("{packets} left by {device} as {source} and not as floating IP {floating}");
            found(("left-as-another", device, message), source, cause)
        });
        private.into_iter().chain(shared).collect()
    }
}

fn found((code, device, message): (&str, String, String), source: IpAddr, cause: Option<&Finding>) -> Finding {
    let why = cause.map_or_else(String::new, |cause| format!(": {}", cause.message));
    Finding {
        severity: Severity::Error,
        code: code.to_owned(),
        message: format!("{message}{why}"),
        evidence: format!("at {device} the source is {source}"),
        object: device,
        verify: cause.and_then(|cause| cause.verify.clone()),
        fix: cause.and_then(|cause| cause.fix.clone()),
    }
}

/// Track, device and source of a packet that left this host for somewhere beyond the instance's networks.
fn departure<'p>(journey: &Journey, points: &'p Points) -> Option<(&'p Track, String, IpAddr)> {
    let last = journey.steps.last().filter(|_| journey.ended == Ended::Delivered)?;
    let stop = points.stop(last.place).filter(|stop| stop.kind == HopKind::Uplink)?;
    let track = points.tracks.get(journey.track).filter(|_| journey.direction == Direction::Outward)?;
    let ip = last.headers.innermost().ip()?;
    (ip.source.is_ipv4() && track.is_beyond(ip.destination)).then(|| (track, stop.label(), ip.source))
}

fn is_inside(track: &Track, address: IpAddr) -> bool {
    let is_private = matches!(address, IpAddr::V4(address) if address.is_private());
    is_private && track.subnets.iter().any(|net| net.contains(&address))
}

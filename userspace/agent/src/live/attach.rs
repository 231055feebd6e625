//! Attaches the programs to devices, each in the namespace of the device. Flow: observe.
//!
//! At TC ingress ours is the first program and at TC egress the last, so that whatever filters is between the two: what one
//! device sees go in and the next does not see come out died on the way. Links and sockets are descriptors, and gone with them;
//! filters of a clsact qdisc, before Linux 6.6, are kept by a thread in their namespace that removes them at the end. Where TC
//! takes none, as where an ingress qdisc is in the place of clsact, packet sockets see the same frames.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use aya::programs::ProgramFd;
pub(super) use netdiag_model::live::PROGRAMS;
use netdiag_model::{
    fact::{Gap, SourceKind},
    id::{LinkKey, NetnsId},
    live::View,
};
use netlink_packet_route::{RouteNetlinkMessage, link::LinkMessage};

use super::{
    LiveError, Point,
    clsact::{self, Keeper},
    load::Programs,
    socket,
};
use crate::{
    enforce::{
        netlink,
        syscall::{self, Order, Place},
    },
    netns::Namespace,
};

/// What keeps points attached.
#[derive(Debug, Default)]
pub(super) struct Held {
    descriptors: Vec<OwnedFd>,
    keepers: Vec<Keeper>,
    /// Devices that were to be watched at TC, and are by packet sockets.
    pub(super) instead: Vec<LinkKey>,
}

impl Held {
    /// How many sides of devices they are.
    pub(super) fn len(&self) -> usize {
        self.descriptors.len() + self.keepers.iter().map(Keeper::len).sum::<usize>()
    }
}

/// One program that is to be at one side of one device.
#[derive(Debug)]
pub(super) struct Job {
    /// Place of the point among those of its namespace.
    point: usize,
    /// The device.
    pub(super) ifindex: u32,
    /// What goes into it, else what comes out of it.
    pub(super) sent: bool,
    /// The program.
    pub(super) program: ProgramFd,
}

/// Attaches to every point that can be attached to; what could not is a gap.
pub(super) async fn attach(
    points: &[Point],
    namespaces: &[Namespace],
    programs: &mut Programs,
    tcx: bool,
) -> Result<(Held, Vec<Gap>), LiveError> {
    let (mut held, mut gaps) = (Held::default(), Vec::new());
    let mut places: BTreeMap<NetnsId, Vec<&Point>> = BTreeMap::new();
    for point in points {
        places.entry(point.link.netns).or_default().push(point);
    }
    for (id, points) in places {
        let Some(namespace) = namespaces.iter().find(|namespace| namespace.id == id) else {
            let gone = io::Error::new(io::ErrorKind::NotFound, "the namespace is gone, or cannot be opened");
            gaps.extend(points.iter().map(|point| gap(id, &point.name, &gone)));
            continue;
        };
        let mut here = Here { namespace, programs, held: &mut held, gaps: &mut gaps };
        let by = |view| points.iter().copied().filter(|point| point.view == view).collect::<Vec<_>>();
        here.sockets(&by(View::Socket)).await?;
        here.hooks(&by(View::Tc), tcx).await?;
    }
    Ok((held, gaps))
}

/// Work in one namespace.
struct Here<'a> {
    namespace: &'a Namespace,
    programs: &'a mut Programs,
    held: &'a mut Held,
    gaps: &'a mut Vec<Gap>,
}

impl Here<'_> {
    fn refuse(&mut self, device: &str, error: &io::Error) {
        self.gaps.push(gap(self.namespace.id, device, error));
    }

    fn refuse_all(&mut self, points: &[&Point], error: &io::Error) {
        for point in points {
            self.refuse(&point.name, error);
        }
    }

    /// Work on a thread of the namespace; none where it could not be done, which is a gap of every device then.
    async fn run<T: Send + 'static>(
        &mut self,
        points: &[&Point],
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        match self.namespace.run(work).await {
            Ok(done) => Some(done),
            Err(error) => {
                let error = error.into_cause();
                self.refuse_all(points, &error);
                None
            }
        }
    }

    // === packet sockets ===

    async fn sockets(&mut self, points: &[&Point]) -> Result<(), LiveError> {
        let wanted: Vec<_> = points.iter().flat_map(|point| sides(point).map(|sent| (*point, sent))).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let count = wanted.len();
        let open = move || (0..count).map(|_| socket::open()).collect::<io::Result<Vec<_>>>();
        let Some(sockets) = self.run(points, open).await else { return Ok(()) };
        match sockets {
            Ok(sockets) => sockets.into_iter().zip(wanted).try_for_each(|(socket, (point, sent))| {
                self.programs.filter(if sent { "live_socket_out" } else { "live_socket_in" }, &socket)?;
                match socket::watch(&socket, point.link.ifindex.0) {
                    Ok(()) => self.held.descriptors.push(socket),
                    Err(error) => self.refuse(&point.name, &error),
                }
                Ok(())
            }),
            Err(error) => {
                self.refuse_all(points, &error);
                Ok(())
            }
        }
    }

    // === TC ===

    async fn hooks(&mut self, points: &[&Point], tcx: bool) -> Result<(), LiveError> {
        if points.is_empty() {
            return Ok(());
        }
        let jobs = self.jobs(points).await?;
        let places: Vec<_> = jobs.iter().map(|job| job.point).collect();
        let done =
            if tcx { self.run(points, move || jobs.iter().map(link).collect()).await } else { self.keep(jobs).await };
        let done: Vec<io::Result<Option<OwnedFd>>> = done.unwrap_or_default();
        let (mut watched, mut refused) = (BTreeSet::new(), Vec::new());
        for (place, done) in places.into_iter().zip(done) {
            match done {
                Ok(link) => {
                    self.held.descriptors.extend(link);
                    watched.insert(place);
                }
                Err(error) => refused.push((place, error)),
            }
        }
        for (place, error) in refused.iter().filter(|(place, _)| watched.contains(place)) {
            self.refuse(&points[*place].name, error);
        }
        let bare: BTreeSet<_> =
            refused.iter().map(|(place, _)| *place).filter(|place| !watched.contains(place)).collect();
        let bare: Vec<_> = bare.into_iter().map(|place| points[place]).collect();
        self.held.instead.extend(bare.iter().map(|point| point.link));
        self.sockets(&bare).await
    }

    /// A program for each side of each device that is to be watched.
    async fn jobs(&mut self, points: &[&Point]) -> Result<Vec<Job>, LiveError> {
        let indexes: Vec<_> = points.iter().map(|point| point.link.ifindex.0).collect();
        let look = move || indexes.into_iter().map(is_ethernet).collect::<Vec<_>>();
        let kinds = self.run(points, look).await.unwrap_or_default();
        let mut jobs = Vec::new();
        for (place, (point, ethernet)) in points.iter().zip(kinds).enumerate() {
            match ethernet {
                Err(error) => self.refuse(&point.name, &error),
                Ok(ethernet) => {
                    for sent in sides(point) {
                        let program = self.programs.classifier(program(sent, ethernet, self.programs.tells_side))?;
                        jobs.push(Job { point: place, ifindex: point.link.ifindex.0, sent, program });
                    }
                }
            }
        }
        Ok(jobs)
    }

    /// Filters instead of links, and a thread that keeps them.
    async fn keep(&mut self, jobs: Vec<Job>) -> Option<Vec<io::Result<Option<OwnedFd>>>> {
        let (keeper, done) = clsact::keep(self.namespace.clone(), jobs).await?;
        self.held.keepers.push(keeper);
        Some(done.into_iter().map(|done| done.map(|()| None)).collect())
    }
}

/// Sides of a device that are to be watched; true is what goes into it.
fn sides(point: &Point) -> impl Iterator<Item = bool> + use<> {
    [(point.received, false), (point.sent, true)].into_iter().filter_map(|(wanted, sent)| wanted.then_some(sent))
}

/// The program for one side of a device. Where a program is told which side it is at, the same one is at both: the code every packet
/// needs at each device is then there once, and likelier to be in the processor's cache already.
const fn program(sent: bool, ethernet: bool, tells_side: bool) -> &'static str {
    let [received, sent_out, received_ip, sent_ip, either, either_ip] = PROGRAMS;
    match (sent, ethernet) {
        (_, true) if tells_side => either,
        (_, false) if tells_side => either_ip,
        (false, true) => received,
        (true, true) => sent_out,
        (false, false) => received_ip,
        (true, false) => sent_ip,
    }
}

fn link(job: &Job) -> io::Result<Option<OwnedFd>> {
    let (place, order) = if job.sent { (Place::TcxEgress, Order::Last) } else { (Place::TcxIngress, Order::First) };
    syscall::create_link(job.program.as_fd(), job.ifindex, place, order).map(Some)
}

/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK` of `linux/if_arp.h`.
const ETHERNET_TYPES: [u16; 2] = [1, 772];

/// True if packets of a device of this thread's namespace have an Ethernet header.
fn is_ethernet(ifindex: u32) -> io::Result<bool> {
    let mut message = LinkMessage::default();
    message.header.index = ifindex;
    let answers = netlink::exchange(RouteNetlinkMessage::GetLink(message), 0)?;
    // `struct ifinfomsg`: the family, a byte of nothing, the type.
    let kind = answers.first().and_then(|answer| answer.0.get(2..)?.first_chunk().copied());
    let kind = kind.map(u16::from_ne_bytes).ok_or(io::ErrorKind::InvalidData)?;
    Ok(ETHERNET_TYPES.contains(&kind))
}

fn gap(netns: NetnsId, device: &str, error: &io::Error) -> Gap {
    let fix = if error.kind() == io::ErrorKind::PermissionDenied {
        "run as root, or with CAP_SYS_ADMIN, CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON"
    } else {
        "look at the path again: it may have changed (netdiag trace)"
    };
    Gap {
        source: SourceKind::Bpf,
        netns: Some(netns),
        object: format!("packets of {device} in {netns}"),
        why: error.to_string(),
        fix: fix.to_owned(),
        absent: false,
    }
}

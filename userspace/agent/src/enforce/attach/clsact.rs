//! Filters of a clsact qdisc: what kernels before 6.6 have instead of links. Flow: policy.
//!
//! A filter is replaced in place by writing another one with the same priority and handle. It is no object that could be
//! pinned: that the filter is ours is told by its handle and name, that the qdisc is ours by a mark in the device's directory.
//!
//! Filters of one priority are of one kind and for one protocol. Where those of our priority are not like ours, ours goes
//! behind them, which is reported like any program before ours.

use std::os::fd::{AsFd as _, AsRawFd as _};

use netdiag_model::{fact::enforcement::HookFact, policy::types::Direction};

use super::{AttachError, Behind, Change, HookState, Loaded, Method, Side};
use crate::{
    discover::netlink::attachments::ClsactFilter,
    enforce::{
        bpffs::{self, Root},
        netlink,
    },
    live,
};

/// Handle of our filters: "nd" in ASCII.
const HANDLE: u32 = 0x6e64;
/// Mark: the qdisc of the device is ours.
const QDISC: &str = "qdisc";

/// A filter of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spot {
    /// What comes from the instance comes into the host's device.
    FromInstance,
    /// What goes to the instance.
    ToInstance,
    /// What comes into an external device.
    FromExternal,
    /// What the host sends through the internal device of a bridge.
    FromHost,
}

impl Spot {
    /// Those of a port's device.
    const PORT: [Self; 2] = [Self::FromInstance, Self::ToInstance];
    /// Those of an external device.
    pub(super) const EXTERNAL: [Self; 2] = [Self::FromExternal, Self::FromHost];

    /// That of one direction of a port.
    pub(super) const fn of(direction: Direction) -> Self {
        match direction {
            Direction::Egress => Self::FromInstance,
            Direction::Ingress => Self::ToInstance,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::FromInstance => "netdiag:from_instance",
            Self::ToInstance => "netdiag:to_instance",
            Self::FromExternal => "netdiag:from_external",
            Self::FromHost => "netdiag:from_host",
        }
    }

    /// It sees what leaves the device.
    const fn leaves(self) -> bool {
        matches!(self, Self::ToInstance | Self::FromHost)
    }

    /// Unless it is taken. No filter comes before those of ports that was not put there on purpose. At an external device ours takes packets away from whoever
    /// comes after it, so there it is the last.
    const fn priority(self) -> u16 {
        match self {
            Self::FromInstance | Self::ToInstance => 1,
            Self::FromExternal | Self::FromHost => 0xfff0,
        }
    }

    const fn slot(self, ifindex: u32, priority: u16) -> netlink::Slot {
        netlink::Slot { ifindex, egress: self.leaves(), priority, handle: HANDLE }
    }

    fn is_ours(self, entry: &ClsactFilter) -> bool {
        let program = entry.filter.program.as_ref();
        entry.handle == HANDLE && program.is_some_and(|program| program.name.as_deref() == Some(self.name()))
    }

    /// The first priority from its own on whose filters, if it has any, let ours be one of them.
    fn first_free(self, present: &[ClsactFilter]) -> u16 {
        let goes_with =
            |entry: &ClsactFilter| entry.filter.kind == "bpf" && entry.every_protocol && entry.handle != HANDLE;
        let is_free =
            |priority: &u16| present.iter().all(|entry| entry.filter.priority != *priority || goes_with(entry));
        (self.priority()..u16::MAX).find(is_free).unwrap_or(u16::MAX)
    }

    /// Filters of its side, in the order they are asked.
    fn filters(self, ifindex: u32) -> Result<Vec<ClsactFilter>, AttachError> {
        filters(ifindex, self.leaves())
    }
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(std::io::Error) -> AttachError {
    AttachError::kernel(step, ifindex, Method::Clsact)
}

fn filters(ifindex: u32, egress: bool) -> Result<Vec<ClsactFilter>, AttachError> {
    netlink::filters(ifindex, egress).map_err(failed("look at the filters of", ifindex))
}

/// Attaches one program of a port.
pub(super) fn attach(root: &Root, side: &Side<'_>) -> Result<HookState, AttachError> {
    let Side { ifindex, direction, program } = *side;
    let spot = Spot::of(direction);
    let change = put(root, ifindex, spot, program)?;
    let behind = before(ifindex, spot)?;
    Ok(HookState { direction, method: Method::Clsact, program: program.id, change, behind })
}

/// Attaches one program.
pub(super) fn put(root: &Root, ifindex: u32, spot: Spot, program: &Loaded) -> Result<Change, AttachError> {
    ensure_qdisc(root, ifindex)?;
    let present = spot.filters(ifindex)?;
    let ours = present.iter().find(|entry| spot.is_ours(entry));
    let priority = ours.map_or_else(|| spot.first_free(&present), |entry| entry.filter.priority);
    let attached = ours.and_then(|entry| entry.filter.program.as_ref()?.id);
    let change = match attached {
        Some(id) if id == program.id => return Ok(Change::Unchanged),
        Some(_) => Change::Updated,
        None => Change::Attached,
    };
    let fd = program.fd.as_fd().as_raw_fd();
    netlink::set_filter(&spot.slot(ifindex, priority), fd, spot.name()).map_err(failed("attach to", ifindex))?;
    Ok(change)
}

/// The filter that is asked first, if it is not ours and does more than watch.
fn before(ifindex: u32, spot: Spot) -> Result<Option<Behind>, AttachError> {
    let filters = spot.filters(ifindex)?;
    let mut before = filters.into_iter().take_while(|entry| !spot.is_ours(entry));
    let foreign = before.find(|entry| !live::is_watching_filter(entry));
    Ok(foreign
        .map(|entry| Behind { method: Method::Clsact, program: entry.filter.program.and_then(|program| program.id) }))
}

/// Sees that there is a clsact qdisc, and marks it as ours where we made it.
fn ensure_qdisc(root: &Root, ifindex: u32) -> Result<(), AttachError> {
    let mark = root.device(ifindex).join(QDISC);
    match netlink::add_clsact(ifindex) {
        Ok(()) => Ok(bpffs::make(&mark)?),
        // The mark of a device that had this index before would make somebody else's qdisc ours.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            if is_attached(ifindex)? {
                return Ok(());
            }
            bpffs::remove(&mark)?;
            let two_sided = netlink::has_clsact(ifindex).map_err(failed("look at the qdiscs of", ifindex))?;
            if two_sided { Ok(()) } else { Err(AttachError::OneSided { ifindex }) }
        }
        Err(error) => Err(failed("make the qdisc of", ifindex)(error)),
    }
}

/// Filters of a port at a device.
pub(super) fn look(ifindex: u32) -> Result<Vec<HookFact>, AttachError> {
    let mut hooks = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let spot = Spot::of(direction);
        if let Some(id) = program(ifindex, spot)? {
            hooks.push(super::fact(direction, Method::Clsact, id, before(ifindex, spot)?));
        }
    }
    Ok(hooks)
}

/// The program of our filter at a spot.
fn program(ifindex: u32, spot: Spot) -> Result<Option<u32>, AttachError> {
    let filters = spot.filters(ifindex)?;
    let ours = filters.iter().find(|entry| spot.is_ours(entry));
    Ok(ours.and_then(|entry| entry.filter.program.as_ref()?.id))
}

/// True where a filter of ours is at the device.
fn is_attached(ifindex: u32) -> Result<bool, AttachError> {
    for spot in Spot::PORT.into_iter().chain(Spot::EXTERNAL) {
        if spot.filters(ifindex)?.iter().any(|entry| spot.is_ours(entry)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes our filters of some directions of a port, and the qdisc if it is ours and has no filter left.
pub(super) fn remove(root: &Root, ifindex: u32, directions: &[Direction]) -> Result<(), AttachError> {
    let spots: Vec<_> = directions.iter().map(|direction| Spot::of(*direction)).collect();
    take(root, ifindex, &spots)
}

/// Removes our filters at some spots, and the qdisc if it is ours and has no filter left.
pub(super) fn take(root: &Root, ifindex: u32, spots: &[Spot]) -> Result<(), AttachError> {
    let mark = root.device(ifindex).join(QDISC);
    let (mut left, mut removed) = (0, false);
    for egress in [false, true] {
        for entry in filters(ifindex, egress)? {
            if let Some(spot) = spots.iter().find(|spot| spot.leaves() == egress && spot.is_ours(&entry)) {
                let slot = spot.slot(ifindex, entry.filter.priority);
                netlink::remove_filter(&slot).map_err(failed("remove the filter of", ifindex))?;
                removed = true;
            } else {
                left += 1;
            }
        }
    }
    if left == 0 && removed && mark.exists() {
        netlink::remove_clsact(ifindex).map_err(failed("remove the qdisc of", ifindex))?;
    }
    if left == 0 || removed && spots.len() == 2 {
        bpffs::remove(&mark)?;
    }
    Ok(())
}

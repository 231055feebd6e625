//! Filters of a clsact qdisc: what kernels before 6.6 have instead of links. Flow: policy.
//!
//! A filter is replaced in place by writing another one with the same priority and handle. It is no object that could be
//! pinned: that the filter is ours is told by its handle and name, that the qdisc is ours by a mark in the device's directory.
//!
//! Filters of one priority are of one kind and for one protocol. Where those of the first priority are not like ours, ours goes
//! behind them, which is reported like any program before ours.

use std::os::fd::{AsFd as _, AsRawFd as _};

use netdiag_model::{fact::enforcement::HookFact, policy::types::Direction};

use super::{AttachError, Behind, Change, HookState, Method, Side};
use crate::{
    discover::netlink::attachments::ClsactFilter,
    enforce::{
        bpffs::{self, Root},
        netlink,
    },
};

/// Priority of our filters, unless it is taken: no filter comes before them that was not put there on purpose.
const PRIORITY: u16 = 1;
/// Handle of our filters: "nd" in ASCII.
const HANDLE: u32 = 0x6e64;
/// Mark: the qdisc of the device is ours.
const QDISC: &str = "qdisc";

/// Names of our filters.
const fn name(direction: Direction) -> &'static str {
    match direction {
        Direction::Egress => "netdiag:from_instance",
        Direction::Ingress => "netdiag:to_instance",
    }
}

/// What comes from the instance comes into the host's device.
const fn leaves(direction: Direction) -> bool {
    matches!(direction, Direction::Ingress)
}

const fn slot(ifindex: u32, direction: Direction, priority: u16) -> netlink::Slot {
    netlink::Slot { ifindex, egress: leaves(direction), priority, handle: HANDLE }
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(std::io::Error) -> AttachError {
    AttachError::kernel(step, ifindex, Method::Clsact)
}

/// Filters of one side, in the order they are asked.
fn filters(ifindex: u32, direction: Direction) -> Result<Vec<ClsactFilter>, AttachError> {
    netlink::filters(ifindex, leaves(direction)).map_err(failed("look at the filters of", ifindex))
}

fn is_ours(entry: &ClsactFilter, direction: Direction) -> bool {
    let program = entry.filter.program.as_ref();
    entry.handle == HANDLE && program.is_some_and(|program| program.name.as_deref() == Some(name(direction)))
}

/// The first priority whose filters, if it has any, let ours be one of them.
fn first_free(present: &[ClsactFilter]) -> u16 {
    let goes_with = |entry: &ClsactFilter| entry.filter.kind == "bpf" && entry.every_protocol && entry.handle != HANDLE;
    let is_free = |priority: &u16| present.iter().all(|entry| entry.filter.priority != *priority || goes_with(entry));
    (PRIORITY..u16::MAX).find(is_free).unwrap_or(u16::MAX)
}

/// Attaches one program.
pub(super) fn attach(root: &Root, side: &Side<'_>) -> Result<HookState, AttachError> {
    let Side { ifindex, direction, program } = *side;
    ensure_qdisc(root, ifindex)?;
    let present = filters(ifindex, direction)?;
    let ours = present.iter().find(|entry| is_ours(entry, direction));
    let priority = ours.map_or_else(|| first_free(&present), |entry| entry.filter.priority);
    let attached = ours.and_then(|entry| entry.filter.program.as_ref()?.id);
    let change = match attached {
        Some(id) if id == program.id => Change::Unchanged,
        Some(_) => Change::Updated,
        None => Change::Attached,
    };
    if change != Change::Unchanged {
        let program = program.fd.as_fd().as_raw_fd();
        netlink::set_filter(&slot(ifindex, direction, priority), program, name(direction))
            .map_err(failed("attach to", ifindex))?;
    }
    let behind = before(ifindex, direction)?;
    Ok(HookState { direction, method: Method::Clsact, program: program.id, change, behind })
}

/// The filter that is asked first, if it is not ours.
fn before(ifindex: u32, direction: Direction) -> Result<Option<Behind>, AttachError> {
    let first = filters(ifindex, direction)?.into_iter().next();
    let foreign = first.filter(|entry| !is_ours(entry, direction));
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

/// Filters of ours at a device.
pub(super) fn look(ifindex: u32) -> Result<Vec<HookFact>, AttachError> {
    let mut hooks = Vec::new();
    for direction in [Direction::Egress, Direction::Ingress] {
        let filters = filters(ifindex, direction)?;
        let ours = filters.iter().find(|entry| is_ours(entry, direction));
        if let Some(id) = ours.and_then(|entry| entry.filter.program.as_ref()?.id) {
            hooks.push(super::fact(direction, Method::Clsact, id, before(ifindex, direction)?));
        }
    }
    Ok(hooks)
}

/// True where a filter of ours is at the device.
fn is_attached(ifindex: u32) -> Result<bool, AttachError> {
    for direction in [Direction::Egress, Direction::Ingress] {
        if filters(ifindex, direction)?.iter().any(|entry| is_ours(entry, direction)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes our filters of some directions, and the qdisc if it is ours and has no filter left.
pub(super) fn remove(root: &Root, ifindex: u32, directions: &[Direction]) -> Result<(), AttachError> {
    let mark = root.device(ifindex).join(QDISC);
    let (mut left, mut removed) = (0, false);
    for direction in [Direction::Egress, Direction::Ingress] {
        for entry in filters(ifindex, direction)? {
            if directions.contains(&direction) && is_ours(&entry, direction) {
                let failed = failed("remove the filter of", ifindex);
                netlink::remove_filter(&slot(ifindex, direction, entry.filter.priority)).map_err(failed)?;
                removed = true;
            } else {
                left += 1;
            }
        }
    }
    if left == 0 && removed && mark.exists() {
        netlink::remove_clsact(ifindex).map_err(failed("remove the qdisc of", ifindex))?;
    }
    if left == 0 || removed && directions.len() == 2 {
        bpffs::remove(&mark)?;
    }
    Ok(())
}

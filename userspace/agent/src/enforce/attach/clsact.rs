//! Filters of a clsact qdisc: what kernels before 6.6 have instead of links. Flow: policy.
//!
//! A filter is replaced in place by writing another one with the same priority and handle. It is no object that could be
//! pinned: that the filter is ours is told by its handle and name, that the qdisc is ours by a mark in the device's directory.

use std::os::fd::{AsFd as _, AsRawFd as _};

use netdiag_model::{fact::enforcement::HookFact, policy::types::Direction};

use super::{AttachError, Behind, Change, HookState, Method, Side};
use crate::{
    discover::netlink::attachments::Filter,
    enforce::{
        bpffs::{self, Root},
        netlink,
    },
};

/// Priority of our filters: no filter comes before them that was not put there on purpose.
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

const fn slot(ifindex: u32, direction: Direction) -> netlink::Slot {
    netlink::Slot { ifindex, egress: leaves(direction), priority: PRIORITY, handle: HANDLE }
}

fn failed(step: &'static str, ifindex: u32) -> impl FnOnce(std::io::Error) -> AttachError {
    AttachError::kernel(step, ifindex, Method::Clsact)
}

/// Filters of one side, in the order they are asked.
fn filters(ifindex: u32, direction: Direction) -> Result<Vec<(u32, Filter)>, AttachError> {
    netlink::filters(ifindex, leaves(direction)).map_err(failed("look at the filters of", ifindex))
}

fn is_at_our_place((handle, filter): &(u32, Filter)) -> bool {
    *handle == HANDLE && filter.priority == PRIORITY && filter.kind == "bpf"
}

fn is_ours(entry: &(u32, Filter), direction: Direction) -> bool {
    let program = entry.1.program.as_ref();
    is_at_our_place(entry) && program.is_some_and(|program| program.name.as_deref() == Some(name(direction)))
}

/// Attaches one program.
pub(super) fn attach(root: &Root, side: &Side<'_>) -> Result<HookState, AttachError> {
    let Side { ifindex, direction, program } = *side;
    ensure_qdisc(root, ifindex)?;
    let present = filters(ifindex, direction)?;
    let at_our_place = present.iter().find(|entry| is_at_our_place(entry));
    if at_our_place.is_some_and(|entry| !is_ours(entry, direction)) {
        return Err(AttachError::Taken { ifindex, priority: PRIORITY, handle: HANDLE });
    }
    let attached = at_our_place.and_then(|(_, filter)| filter.program.as_ref()?.id);
    let change = match attached {
        Some(id) if id == program.id => Change::Unchanged,
        Some(_) => Change::Updated,
        None => Change::Attached,
    };
    if change != Change::Unchanged {
        let program = program.fd.as_fd().as_raw_fd();
        netlink::set_filter(&slot(ifindex, direction), program, name(direction))
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
        .map(|(_, filter)| Behind { method: Method::Clsact, program: filter.program.and_then(|program| program.id) }))
}

/// Sees that there is a clsact qdisc, and marks it as ours where we made it.
fn ensure_qdisc(root: &Root, ifindex: u32) -> Result<(), AttachError> {
    let mark = root.device(ifindex).join(QDISC);
    match netlink::add_clsact(ifindex) {
        Ok(()) => Ok(bpffs::make(&mark)?),
        // The mark of a device that had this index before would make somebody else's qdisc ours.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            if !is_attached(ifindex)? {
                bpffs::remove(&mark)?;
            }
            Ok(())
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
        if let Some(id) = ours.and_then(|(_, filter)| filter.program.as_ref()?.id) {
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
                netlink::remove_filter(&slot(ifindex, direction)).map_err(failed)?;
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

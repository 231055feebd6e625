//! Attaches the programs to the host's devices of ports, and keeps them attached. Flow: policy.
//!
//! Every step is one that may have been done already, by this agent or one before it: a pinned link is updated to the programs
//! loaded now, never detached in between; a link whose device is gone is removed, and a device that has got the index of
//! one before it is attached anew. Programs of others stay where they are; ours goes before them.
//!
//! | from the instance | to the instance | |
//! |---|---|---|
//! | TCX ingress | TCX egress | Linux 6.6 and newer |
//! | clsact ingress | clsact egress | older |
//! | generic XDP | as above | where the switch takes frames before TC ([`Hook::Xdp`]) |
//!
//! External devices are the matter of `external`.
//!
//! Indices are those of the namespace of the calling thread.

use std::{
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

pub use netdiag_model::policy::types::Hook;
use netdiag_model::{fact::enforcement::HookFact, policy::types::Direction};

use super::{
    bpffs::{self, Root, RootError},
    load::{LoadError, Loaded, Programs},
    netlink,
    syscall::{self, LinkInfo, Order, Place},
};
use crate::live;

/// Filters of a clsact qdisc.
mod clsact;
/// Programs at external devices.
pub(super) mod external;

pub use external::ExternalState;

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// A link at TCX.
    Tcx,
    /// A filter of a clsact qdisc.
    Clsact,
    /// A link at generic XDP.
    Xdp,
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
            Self::Xdp => "xdp",
        })
    }
}

/// What it took to have a program attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was attached.
    Unchanged,
    /// It took the place of another program of netdiag.
    Updated,
    /// There was none.
    Attached,
}

/// One program at one device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookState {
    /// Which packets it decides about.
    pub direction: Direction,
    /// How it is attached.
    pub method: Method,
    /// Its id in the kernel.
    pub program: u32,
    /// What it took.
    pub change: Change,
    /// What comes before it and can keep packets from it.
    pub behind: Option<Behind>,
}

/// A program of somebody else that comes before ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Behind {
    /// How it is attached.
    pub method: Method,
    /// Its id; none for a filter without an eBPF program.
    pub program: Option<u32>,
}

impl fmt::Display for Behind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.program {
            Some(program) => write!(f, "{} program {program}", self.method),
            None => write!(f, "a {} filter", self.method),
        }
    }
}

/// Why a program is not attached.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// Only one XDP program can be at a device.
    #[error(
        "attach to device {ifindex} by xdp: the XDP program {program} of somebody else is there (ip link set dev … xdp off)"
    )]
    Occupied {
        /// The device.
        ifindex: u32,
        /// The program that is there.
        program: u32,
    },
    /// The qdisc that is there has one side only: a filter for the other one would see the packets of this one.
    #[error(
        "attach to device {ifindex} by clsact: an ingress qdisc of somebody else is in its place, and sees nothing that goes to the instance (tc qdisc del dev … ingress; from Linux 6.6 on, no qdisc is needed)"
    )]
    OneSided {
        /// The device.
        ifindex: u32,
    },
    /// The kernel refused.
    #[error("{step} device {ifindex} by {method}")]
    Kernel {
        /// What was tried.
        step: &'static str,
        /// The device.
        ifindex: u32,
        /// How.
        method: Method,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A port's device is to become an external one.
    #[error("attach to device {ifindex}: it is a port's, and cannot be an external device as well")]
    Port {
        /// The device.
        ifindex: u32,
    },
    /// The program could not be loaded.
    #[error(transparent)]
    Load(Box<LoadError>),
    /// Another program is before ours, and another instance of ours, to go before it, could not be loaded.
    #[error("load the programs again, to go before the program of somebody else")]
    Again(#[source] Box<LoadError>),
    /// A pin could not be made or removed.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl From<LoadError> for AttachError {
    fn from(error: LoadError) -> Self {
        Self::Load(Box::new(error))
    }
}

impl AttachError {
    /// True where another agent is at work.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Root(RootError::Locked { .. }))
    }

    pub(super) fn kernel(step: &'static str, ifindex: u32, method: Method) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Kernel { step, ifindex, method, source }
    }
}

/// What attaching needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attacher<'a> {
    /// Where links are pinned.
    pub(super) root: &'a Root,
    /// What to attach.
    pub(super) programs: &'a Programs,
    /// Attach at TC by TCX, else by clsact.
    pub(super) tcx: bool,
}

/// One side of a device, and what belongs there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Side<'a> {
    /// The device.
    pub(super) ifindex: u32,
    /// Which packets.
    pub(super) direction: Direction,
    /// The program for them.
    pub(super) program: &'a Loaded,
}

impl<'a> Attacher<'a> {
    /// Attaches both programs to a device.
    pub(super) fn attach(&self, ifindex: u32, hook: Hook) -> Result<[HookState; 2], AttachError> {
        bpffs::make(&self.root.device(ifindex))?;
        // What was an external device has become a port's.
        if let Some(error) = external::remove(self.root, ifindex).pop() {
            return Err(error);
        }
        let mut from_instance = match hook {
            Hook::Tc => self.tc(&self.outward(ifindex))?,
            Hook::Xdp => self.xdp(ifindex)?,
        };
        let to_instance = self.tc(&self.inward(ifindex))?;
        // What is not needed any longer goes last, so that no packet passes between two hooks.
        self.remove_rest(ifindex, hook)?;
        if hook == Hook::Tc && from_instance.behind.is_none() {
            from_instance.behind = foreign_xdp(ifindex, &[])?;
        }
        Ok([from_instance, to_instance])
    }

    pub(super) fn outward(self, ifindex: u32) -> Side<'a> {
        Side { ifindex, direction: Direction::Egress, program: &self.programs.from_instance }
    }

    pub(super) fn inward(self, ifindex: u32) -> Side<'a> {
        Side { ifindex, direction: Direction::Ingress, program: &self.programs.to_instance }
    }

    fn tc(&self, side: &Side<'_>) -> Result<HookState, AttachError> {
        if self.tcx { self.tcx(side) } else { clsact::attach(self.root, side) }
    }

    fn remove_rest(&self, ifindex: u32, hook: Hook) -> Result<(), AttachError> {
        let directory = self.root.device(ifindex);
        for name in [IN_NEW, OUT_NEW] {
            remove_link(&directory.join(name))?;
        }
        if hook == Hook::Tc {
            remove_link(&directory.join(XDP))?;
        } else {
            remove_link(&directory.join(IN))?;
        }
        if self.tcx {
            clsact::remove(self.root, ifindex, &[Direction::Egress, Direction::Ingress])
        } else {
            remove_link(&directory.join(IN))?;
            remove_link(&directory.join(OUT))?;
            let unwanted: &[Direction] = if hook == Hook::Xdp { &[Direction::Egress] } else { &[] };
            clsact::remove(self.root, ifindex, unwanted)
        }
    }

    // === TCX ===

    fn tcx(&self, side: &Side<'_>) -> Result<HookState, AttachError> {
        let (name, new, place) = at_tcx(side.direction);
        let directory = self.root.device(side.ifindex);
        let path = directory.join(name);
        // An agent was killed in `overtake`, when it had removed the old link and not yet named the new one.
        if !path.exists() && directory.join(new).exists() {
            rename(&directory.join(new), &path)?;
        }
        let at = At { ifindex: side.ifindex, place, order: Order::First };
        let (link, change) = link(side.program, &at, &path)?;
        let before = before(side.ifindex, place, &link)?;
        let behind = before.map(|program| Behind { method: Method::Tcx, program: Some(program) });
        let Side { direction, program, .. } = *side;
        Ok(HookState { direction, method: Method::Tcx, program: program.id, change, behind })
    }

    /// Puts another instance of a program before all others, then takes the one behind them away.
    pub(super) fn overtake(&self, side: &Side<'_>) -> Result<(), AttachError> {
        let (name, new, place) = at_tcx(side.direction);
        let directory = self.root.device(side.ifindex);
        let (new, old) = (directory.join(new), directory.join(name));
        remove_link(&new)?;
        create(side.program, &At { ifindex: side.ifindex, place, order: Order::First }, &new)?;
        remove_link(&old)?;
        Ok(rename(&new, &old)?)
    }

    // === XDP ===

    fn xdp(&self, ifindex: u32) -> Result<HookState, AttachError> {
        let program = self.programs.instance_xdp()?;
        let change = link_xdp(program, ifindex, &self.root.device(ifindex).join(XDP))?;
        Ok(HookState { direction: Direction::Egress, method: Method::Xdp, program: program.id, change, behind: None })
    }
}

/// The XDP link pinned at a path, with our program; made where there is none for this device.
fn link_xdp(program: &Loaded, ifindex: u32, path: &Path) -> Result<Change, AttachError> {
    let ours = open(path)?.filter(|(_, info)| info.ifindex == ifindex).map(|(_, info)| info.program);
    let ours: Vec<u32> = ours.into_iter().collect();
    if let Some(Behind { program: Some(program), .. }) = foreign_xdp(ifindex, &ours)? {
        return Err(AttachError::Occupied { ifindex, program });
    }
    let (_, change) = link(program, &At { ifindex, place: Place::Xdp, order: Order::First }, path)?;
    Ok(change)
}

// === links ===

/// A place of a device, and where among others there.
#[derive(Clone, Copy, Debug)]
struct At {
    ifindex: u32,
    place: Place,
    order: Order,
}

/// The link pinned at a path, with our program; made where there is none for this device.
fn link(program: &Loaded, at: &At, path: &Path) -> Result<(OwnedFd, Change), AttachError> {
    let At { ifindex, place, .. } = *at;
    let method = method(place);
    if let Some((link, info)) = open(path)? {
        let same_place = place == Place::Xdp || info.place == place as u32;
        if info.kind == link_type(place) && info.ifindex == ifindex && same_place {
            if info.program == program.id {
                return Ok((link, Change::Unchanged));
            }
            let failed = AttachError::kernel("update the program at", ifindex, method);
            syscall::update_link(link.as_fd(), program.fd.as_fd()).map_err(failed)?;
            return Ok((link, Change::Updated));
        }
        // The device it was made for is gone.
        remove_link(path)?;
    }
    Ok((create(program, at, path)?, Change::Attached))
}

/// Names of pins of links.
const IN: &str = "in";
const OUT: &str = "out";
const IN_NEW: &str = "in-new";
const OUT_NEW: &str = "out-new";
const XDP: &str = "xdp";

/// `BPF_LINK_TYPE_*` of `linux/bpf.h`.
const fn link_type(place: Place) -> u32 {
    match place {
        Place::Xdp => 6,
        Place::TcxIngress | Place::TcxEgress => 11,
    }
}

const fn method(place: Place) -> Method {
    match place {
        Place::Xdp => Method::Xdp,
        Place::TcxIngress | Place::TcxEgress => Method::Tcx,
    }
}

/// The pin of a link, the pin of one that is about to replace it, and its place. What comes from the instance comes into
/// the host's device.
const fn at_tcx(direction: Direction) -> (&'static str, &'static str, Place) {
    match direction {
        Direction::Egress => (IN, IN_NEW, Place::TcxIngress),
        Direction::Ingress => (OUT, OUT_NEW, Place::TcxEgress),
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), RootError> {
    std::fs::rename(from, to).map_err(|source| RootError::Io { step: "rename the link", path: from.to_owned(), source })
}

/// A pinned link, and what it links; none where nothing is pinned.
fn open(path: &Path) -> Result<Option<(OwnedFd, LinkInfo)>, RootError> {
    let failed = |source| RootError::Io { step: "open the link", path: path.to_owned(), source };
    match syscall::open_link(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        link => {
            let link = link.map_err(failed)?;
            let info = syscall::link_info(link.as_fd()).map_err(failed)?;
            Ok(Some((link, info)))
        }
    }
}

/// Attaches a program and pins the link.
fn create(program: &Loaded, at: &At, path: &Path) -> Result<OwnedFd, AttachError> {
    let At { ifindex, place, order } = *at;
    let method = method(place);
    let link = syscall::create_link(program.fd.as_fd(), ifindex, place, order);
    let link = link.map_err(AttachError::kernel("attach to", ifindex, method))?;
    syscall::pin(link.as_fd(), path).map_err(AttachError::kernel("pin the link of", ifindex, method))?;
    Ok(link)
}

/// Detaches a link and removes its pin; it may be gone already.
pub(super) fn remove_link(path: &Path) -> Result<(), RootError> {
    if let Some((link, _)) = open(path)? {
        match syscall::detach_link(link.as_fd()) {
            // Its device is gone.
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => {
                return Err(RootError::Io { step: "detach the link", path: path.to_owned(), source: error });
            }
            _ => {}
        }
        bpffs::remove(path)?;
    }
    Ok(())
}

/// The program that runs first at TCX, if it is not that of this link. One that only watches is passed over: it goes first to
/// see what ours drops, and drops nothing.
fn before(ifindex: u32, place: Place, link: &OwnedFd) -> Result<Option<u32>, AttachError> {
    let failed = || AttachError::kernel("look at the programs of", ifindex, Method::Tcx);
    let ours = syscall::link_info(link.as_fd()).map_err(failed())?;
    let queued = syscall::query(ifindex, place).map_err(failed())?;
    let before = queued.into_iter().take_while(|queued| queued.link != ours.id);
    Ok(before.map(|queued| queued.program).find(|program| !live::is_watcher(*program)))
}

/// An XDP program that is none of ours.
fn foreign_xdp(ifindex: u32, ours: &[u32]) -> Result<Option<Behind>, AttachError> {
    let programs =
        netlink::xdp(ifindex).map_err(AttachError::kernel("look at the programs of", ifindex, Method::Xdp))?;
    let foreign = programs.into_iter().find(|xdp| !ours.contains(&xdp.id));
    Ok(foreign.map(|xdp| Behind { method: Method::Xdp, program: Some(xdp.id) }))
}

/// True where the kernel knows TCX.
pub(crate) fn has_tcx() -> bool {
    // Device 1 is the loopback device of every namespace; a kernel without TCX knows no such place.
    !syscall::query(1, Place::TcxIngress).is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL))
}

// === looking ===

/// Where programs of ours are attached to a device.
pub(super) fn look(root: &Root, ifindex: u32) -> Result<Vec<HookFact>, AttachError> {
    let directory = root.device(ifindex);
    let mut hooks = Vec::new();
    for (name, place) in [(IN, Place::TcxIngress), (XDP, Place::Xdp), (OUT, Place::TcxEgress)] {
        if let Some((link, info)) = open(&directory.join(name))?.filter(|(_, info)| info.ifindex == ifindex) {
            let program = if place == Place::Xdp { None } else { before(ifindex, place, &link)? };
            let behind = program.map(|program| Behind { method: Method::Tcx, program: Some(program) });
            let direction = if place == Place::TcxEgress { Direction::Ingress } else { Direction::Egress };
            hooks.push(fact(direction, method(place), info.program, behind));
        }
    }
    hooks.extend(clsact::look(ifindex)?);
    let ours: Vec<u32> = hooks.iter().map(|hook| hook.program).collect();
    let xdp = foreign_xdp(ifindex, &ours)?.map(|behind| behind.to_string());
    for hook in hooks.iter_mut().filter(|hook| hook.direction == Direction::Egress && hook.behind.is_none()) {
        hook.behind.clone_from(&xdp);
    }
    Ok(hooks)
}

/// A program of ours as a fact.
fn fact(direction: Direction, method: Method, program: u32, behind: Option<Behind>) -> HookFact {
    HookFact { direction, hook: method.to_string(), program, behind: behind.map(|behind| behind.to_string()) }
}

// === detaching ===

/// Detaches everything of ours from a device; all errors.
pub(super) fn detach(root: &Root, ifindex: u32) -> Vec<AttachError> {
    let directory = root.device(ifindex);
    let mut errors = external::remove(root, ifindex);
    for name in [IN, OUT, XDP, IN_NEW, OUT_NEW] {
        errors.extend(remove_link(&directory.join(name)).err().map(AttachError::from));
    }
    let both = [Direction::Egress, Direction::Ingress];
    errors.extend(clsact::remove(root, ifindex, &both).err());
    if errors.is_empty() {
        errors.extend(bpffs::remove_all(&directory).err().map(AttachError::from));
    }
    errors
}

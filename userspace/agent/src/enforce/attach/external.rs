//! Programs at external devices: where frames for floating IPs come in. Flow: policy.
//!
//! | where frames are met | by |
//! |---|---|
//! | a NIC, a bond, a VLAN device | `from_external` at TC ingress |
//! | the internal device of a bridge without a NIC | `from_host` at TC egress |
//! | a NIC of a user-space Open vSwitch | `from_external_xdp` at generic XDP |
//!
//! These programs take packets away from whoever comes after them, so they come after all that are there: who was there
//! first goes on seeing everything. A mark in the device's directory tells an external device from a port's.

use std::path::PathBuf;

use netdiag_model::floating::ExternalHook;

use super::{
    At, AttachError, Attacher, Change, Method,
    clsact::{self, Spot},
    link, link_xdp, remove_link,
};
use crate::enforce::{
    bpffs::{self, Root, RootError},
    load::Loaded,
    syscall::{Order, Place},
};

/// Mark: the device is an external one.
const MARK: &str = "external";
/// Names of pins of links.
const IN: &str = "external-in";
const OUT: &str = "external-out";
const XDP: &str = "external-xdp";

/// The program at an external device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExternalState {
    /// Where frames are met.
    pub hook: ExternalHook,
    /// How it is attached.
    pub method: Method,
    /// Its id in the kernel.
    pub program: u32,
    /// What it took.
    pub change: Change,
}

impl Attacher<'_> {
    /// Attaches the program of an external device.
    pub(in crate::enforce) fn external(&self, ifindex: u32, hook: ExternalHook) -> Result<ExternalState, AttachError> {
        let directory = self.root.device(ifindex);
        if directory.exists() && !is_external(self.root, ifindex) {
            return Err(AttachError::Port { ifindex });
        }
        bpffs::make(&directory.join(MARK))?;
        let (program, method, change) = match hook {
            ExternalHook::Tc => self.at_tc(ifindex, IN, Spot::FromExternal)?,
            ExternalHook::Internal => self.at_tc(ifindex, OUT, Spot::FromHost)?,
            ExternalHook::Xdp => {
                let program = self.programs.external_xdp()?;
                (program, Method::Xdp, link_xdp(program, ifindex, &directory.join(XDP))?)
            }
        };
        self.remove_other_external(ifindex, hook)?;
        Ok(ExternalState { hook, method, program: program.id, change })
    }

    fn at_tc(&self, ifindex: u32, pin: &str, spot: Spot) -> Result<(&Loaded, Method, Change), AttachError> {
        let (program, place) = match spot {
            Spot::FromHost | Spot::ToInstance => (self.programs.host()?, Place::TcxEgress),
            Spot::FromExternal | Spot::FromInstance => (self.programs.external()?, Place::TcxIngress),
        };
        if !self.tcx {
            return Ok((program, Method::Clsact, clsact::put(self.root, ifindex, spot, program)?));
        }
        let at = At { ifindex, place, order: Order::Last };
        let (_, change) = link(program, &at, &self.root.device(ifindex).join(pin))?;
        Ok((program, Method::Tcx, change))
    }

    /// What is not needed any longer goes last.
    fn remove_other_external(&self, ifindex: u32, hook: ExternalHook) -> Result<(), AttachError> {
        let directory = self.root.device(ifindex);
        for (name, of) in [(IN, ExternalHook::Tc), (OUT, ExternalHook::Internal), (XDP, ExternalHook::Xdp)] {
            if of != hook || !self.tcx && of != ExternalHook::Xdp {
                remove_link(&directory.join(name))?;
            }
        }
        let unwanted: &[Spot] = match hook {
            ExternalHook::Tc if !self.tcx => &[Spot::FromHost],
            ExternalHook::Internal if !self.tcx => &[Spot::FromExternal],
            ExternalHook::Tc | ExternalHook::Internal | ExternalHook::Xdp => &Spot::EXTERNAL,
        };
        clsact::take(self.root, ifindex, unwanted)
    }
}

/// True for a device that is marked as an external one.
pub(in crate::enforce) fn is_external(root: &Root, ifindex: u32) -> bool {
    root.device(ifindex).join(MARK).exists()
}

/// Removes what makes a device an external one; all errors.
pub(super) fn remove(root: &Root, ifindex: u32) -> Vec<AttachError> {
    if !is_external(root, ifindex) {
        return Vec::new();
    }
    let directory = root.device(ifindex);
    let remove = |path: PathBuf| remove_link(&path).err().map(AttachError::from);
    let mut errors: Vec<_> = [IN, OUT, XDP].into_iter().filter_map(|name| remove(directory.join(name))).collect();
    errors.extend(clsact::take(root, ifindex, &Spot::EXTERNAL).err());
    if errors.is_empty() {
        errors.extend(bpffs::remove(&directory.join(MARK)).err().map(AttachError::from));
    }
    errors
}

/// External devices of this namespace.
pub(in crate::enforce) fn devices(root: &Root) -> Result<Vec<u32>, RootError> {
    Ok(root.devices()?.0.into_iter().filter(|ifindex| is_external(root, *ifindex)).collect())
}

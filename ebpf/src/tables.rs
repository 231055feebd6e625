//! The tables of a decision, over the maps. Decides nothing.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
};
use netdiag_common::{
    abi::{
        flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey},
        policy::{
            GrantKey, MAX_ETHERTYPES, MacKey, NEAR_INTERFACES, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, View,
        },
    },
    logic::tables::{FlowTables, PolicyTables},
};

use crate::maps;

/// `EEXIST`: another CPU has inserted the same key first.
const ALREADY_THERE: i32 = -17;

/// The place of the port at a device.
#[inline(always)]
pub fn slot(ifindex: u32) -> Option<u32> {
    let place = if ifindex < NEAR_INTERFACES {
        *maps::INTERFACES.get(ifindex)?
    } else {
        // SAFETY: the value is one word, copied at once; user space replaces elements whole.
        *unsafe { maps::FAR_INTERFACES.get(ifindex) }?
    };
    place.checked_sub(1)
}

/// What user space has compiled.
pub struct Policy;

/// A word of a hash map, copied at once.
macro_rules! word {
    ($map:ident, $key:expr) => {
        // SAFETY: the value is one word, copied at once; an element that is replaced meanwhile is freed after a grace
        // period that the program does not outlive.
        unsafe { maps::$map.get($key) }.copied()
    };
}

impl PolicyTables for Policy {
    #[inline(always)]
    fn port(&self, slot: u32) -> Option<&Port> {
        maps::PORTS.get(slot)
    }

    #[inline(always)]
    fn mac(&self, key: &MacKey) -> bool {
        word!(MACS, key).is_some()
    }

    #[inline(always)]
    fn pair(&self, key: &PairKey) -> bool {
        const BITS: u32 = 8 * size_of::<PairKey>() as u32;
        maps::PAIRS.get(&Key::new(BITS, *key)).is_some()
    }

    #[inline(always)]
    fn active(&self, policy: u32) -> Option<u64> {
        let word = maps::ACTIVE.get_ptr(policy)?;
        // SAFETY: the pointer is to an element of an array, which is never freed. Volatile, so that asking again reads again.
        Some(unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn view(&self, view: u32) -> Option<&View> {
        maps::VIEWS.get(view)
    }

    #[inline(always)]
    fn protocol(&self, index: u32) -> Option<Protocol> {
        maps::PROTOCOLS.get(index).copied()
    }

    #[inline(always)]
    fn page(&self, page: u32, entry: u8) -> Option<u32> {
        maps::PAGES.get(page)?.0.get(entry as usize).copied()
    }

    #[inline(always)]
    fn grant(&self, key: &GrantKey) -> Option<u32> {
        word!(GRANTS, key)
    }

    #[inline(always)]
    fn remote4(&self, key: &RemoteKey4) -> Option<u32> {
        word!(REMOTES4, key)
    }

    #[inline(always)]
    fn remote6(&self, key: &RemoteKey6) -> Option<u32> {
        word!(REMOTES6, key)
    }

    #[inline(always)]
    fn prefix4(&self, key: &RemoteKey4) -> Option<u32> {
        const BITS: u32 = 8 * size_of::<RemoteKey4>() as u32;
        maps::PREFIXES4.get(&Key::new(BITS, *key)).copied()
    }

    #[inline(always)]
    fn prefix6(&self, key: &RemoteKey6) -> Option<u32> {
        const BITS: u32 = 8 * size_of::<RemoteKey6>() as u32;
        maps::PREFIXES6.get(&Key::new(BITS, *key)).copied()
    }

    #[inline(always)]
    fn ethertypes(&self) -> Option<&[u16; MAX_ETHERTYPES]> {
        Some(&maps::SETTINGS.get(0)?.ethertypes)
    }
}

/// What the programs remember.
pub struct Flows {
    /// Place of the port whose packet it is.
    pub slot: u32,
}

/// A flow of one of two maps, to change in place.
macro_rules! flow {
    ($quota:ident, $overflow:ident, $key:expr) => {{
        let flow = match maps::$quota.get_ptr_mut($key) {
            Some(flow) => flow,
            None => maps::$overflow.get_ptr_mut($key)?,
        };
        // SAFETY: an element lives until a grace period after it is removed, which the program does not outlive. CPUs that
        // share a flow may change it at once: each field is a word or less, and whichever value wins is one that was true.
        Some(unsafe { &mut *flow })
    }};
}

/// Tracks a flow by quota, and beyond it where the oldest makes room.
macro_rules! track {
    ($quota:ident, $overflow:ident, $self:ident, $key:expr, $flow:expr) => {{
        if $self.within_quota() {
            match maps::$quota.insert($key, $flow, u64::from(BPF_NOEXIST)) {
                Ok(()) => {
                    $self.count();
                    return true;
                }
                Err(ALREADY_THERE) => return true,
                Err(_) => {}
            }
        }
        maps::$overflow.insert($key, $flow, u64::from(BPF_ANY)).is_ok()
    }};
}

impl Flows {
    /// True if the port may track another flow.
    #[inline(always)]
    fn within_quota(&self) -> bool {
        match (maps::TRACKED.get(self.slot), maps::ALLOWANCE.get(self.slot)) {
            (Some(tracked), Some(allowance)) => tracked < allowance,
            _ => false,
        }
    }

    /// Counts a flow of the port.
    #[inline(always)]
    fn count(&self) {
        if let Some(tracked) = maps::TRACKED.get_ptr_mut(self.slot) {
            // The target has atomic addition, but `core` offers it only where compare-and-swap is to be had as well.
            // SAFETY: the pointer is to an aligned word of an array, which is never freed, and every writer adds atomically.
            unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) tracked, in(reg) 1_u64, options(nostack)) };
        }
    }
}

impl FlowTables for Flows {
    #[inline(always)]
    fn flow4(&mut self, key: &FlowKey4) -> Option<&mut Flow> {
        flow!(FLOWS4, OVER4, key)
    }

    #[inline(always)]
    fn flow6(&mut self, key: &FlowKey6) -> Option<&mut Flow> {
        flow!(FLOWS6, OVER6, key)
    }

    #[inline(always)]
    fn track4(&mut self, key: &FlowKey4, flow: &Flow) -> bool {
        track!(FLOWS4, OVER4, self, key, flow)
    }

    #[inline(always)]
    fn track6(&mut self, key: &FlowKey6, flow: &Flow) -> bool {
        track!(FLOWS6, OVER6, self, key, flow)
    }

    #[inline(always)]
    fn fragment(&mut self, key: &FragmentKey) -> Option<&Fragment> {
        // SAFETY: as for flows; whoever reads copies it at once.
        unsafe { maps::FRAGMENTS.get(key) }
    }

    #[inline(always)]
    fn remember(&mut self, key: &FragmentKey, fragment: &Fragment) {
        // Without room the later fragments are orphans, which is counted where they are refused.
        if maps::FRAGMENTS.insert(key, fragment, u64::from(BPF_ANY)).is_err() {}
    }
}

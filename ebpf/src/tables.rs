//! The tables of a decision, over the maps. Decides nothing.

use core::{arch::asm, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{BPF_ANY, BPF_NOEXIST},
    btf_maps::lpm_trie::Key,
};
use netdiag_common::{
    abi::{
        floating::{Floating, FloatingKey, Hop, HopKey, Leaving, LeavingKey, StationKey},
        flow::{Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, Tick},
        policy::{
            GrantKey, MAX_ETHERTYPES, MacKey, NEAR_INTERFACES, PairKey, Port, Protocol, RemoteKey4, RemoteKey6, View,
        },
    },
    logic::{
        floating::{self, ASKED_TIMEOUT, FloatingTables},
        flow,
        frame::Frame,
        packet::{ethertype, mac},
        tables::{FlowTables, Moment, Note, PolicyTables},
    },
};

use crate::{maps, settled};

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

/// The port at a place.
#[inline(always)]
pub fn port(slot: u32) -> Option<&'static Port> {
    maps::PORTS.get(slot)
}

/// What user space has compiled, and whether a flow that begins with the packet at hand may begin on the fast way.
pub struct Policy<B>(pub B);

/// A word of a hash map, copied at once.
macro_rules! word {
    ($map:ident, $key:expr) => {
        // SAFETY: the value is one word, copied at once; an element that is replaced meanwhile is freed after a grace
        // period that the program does not outlive.
        unsafe { maps::$map.get($key) }.copied()
    };
}

impl<B: Beginning> PolicyTables for Policy<B> {
    #[inline(always)]
    fn begins_fast(&self, slot: u32, key: &FlowKey4) -> bool {
        self.0.may_be_fast(slot) && !Floats.is_held(key)
    }

    #[inline(always)]
    fn port(&self, slot: u32) -> Option<&Port> {
        port(slot)
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

/// The device of the instance that a packet of a port may be sent to past the bridge.
#[inline(always)]
pub fn station<F: Frame>(frame: &F, slot: u32) -> Option<u32> {
    let network = *maps::NETWORKS.get(slot)?;
    if network == 0 {
        return None;
    }
    let [first, second, third, _, _, _, kind] = frame.load16::<7>(0)?;
    // What finds and announces neighbours keeps the bridge's table of addresses fresh.
    if !matches!(u16::from_be(kind), ethertype::IPV4 | ethertype::IPV6) {
        return None;
    }
    word!(STATIONS, StationKey { network, mac: mac([first, second, third]), pad: [0; 2] })
}

/// Floating IPs, and the routers they belong to.
pub struct Floats;

impl FloatingTables for Floats {
    #[inline(always)]
    fn floating(&self, key: &FloatingKey) -> Option<&Floating> {
        // SAFETY: an element that is replaced or removed meanwhile is freed after a grace period that the program does not
        // outlive; user space replaces elements whole.
        unsafe { maps::FLOATING.get(key) }
    }

    #[inline(always)]
    fn leaving(&self, slot: u32, fixed: u32) -> Option<&Leaving> {
        let first = maps::LEAVING.get(slot)?;
        if first.device == 0 {
            return None;
        }
        if first.fixed == fixed {
            return Some(first);
        }
        // SAFETY: as above.
        unsafe { maps::MORE_LEAVING.get(LeavingKey { slot, fixed }) }
    }

    #[inline(always)]
    fn hop(&self, key: &HopKey) -> Option<Hop> {
        const BITS: u32 = 8 * size_of::<HopKey>() as u32;
        maps::HOPS.get(&Key::new(BITS, *key)).copied()
    }

    #[inline(always)]
    fn is_held(&self, key: &FlowKey4) -> bool {
        word!(HELD, key).is_some()
    }

    #[inline(always)]
    fn is_asked(&self, key: &FlowKey4, now: Tick) -> bool {
        let Some(heard) = maps::ASKED.get_ptr_mut(key) else { return false };
        // SAFETY: one aligned word; an element that makes room meanwhile is not freed, and becomes another far end's at worst,
        // which was heard of as lately.
        let lately = !flow::have_passed(ASKED_TIMEOUT, unsafe { *heard }, now);
        if lately {
            // SAFETY: as above.
            unsafe { *heard = now };
        }
        lately
    }
}

impl Floats {
    /// Remembers whom a packet asks that leaves through the router.
    #[inline(always)]
    pub fn ask(key: &FlowKey4, now: Tick) {
        match maps::ASKED.get_ptr_mut(key) {
            // SAFETY: as above.
            Some(heard) => unsafe { *heard = now },
            // Where there is no room, its answers are taken for what begins.
            None => drop(maps::ASKED.insert(key, now, BPF_ANY.into())),
        }
    }
}

/// What the programs remember.
pub struct Flows {
    /// Place of the port whose packet it is.
    slot: u32,
    /// The key that is looked up.
    key: FlowKey,
    /// The flow that was found last is tracked by quota.
    by_quota: bool,
}

/// A key of flows of either family, written by whole words; one for all lookups, as the stack is small.
struct FlowKey(MaybeUninit<[u64; 5]>);

impl FlowKey {
    #[inline(always)]
    fn of4(&mut self, key: &FlowKey4) -> &FlowKey4 {
        let place = self.0.as_mut_ptr();
        // SAFETY: the place has room for more words than these, and nobody else looks at it meanwhile.
        unsafe { place.cast::<[u64; 2]>().write(key.words()) };
        // SAFETY: these words are the key as it lies in memory, and aligned to more than it needs.
        unsafe { &*place.cast() }
    }

    #[inline(always)]
    fn of6(&mut self, key: &FlowKey6) -> &FlowKey6 {
        let place = self.0.write(key.words());
        // SAFETY: as above.
        unsafe { &*place.as_ptr().cast() }
    }
}

/// A flow of one of two maps, to change in place.
macro_rules! flow {
    ($quota:ident, $overflow:ident, $self:ident, $key:expr) => {{
        let slot = $self.slot;
        let key = $key;
        let found = maps::$quota.get_ptr_mut(key);
        $self.by_quota = found.is_some();
        let flow = match found {
            Some(flow) => flow,
            None if !has_overflowed(slot) => return None,
            None => maps::$overflow.get_ptr_mut(key)?,
        };
        // SAFETY: elements are never freed. One that is removed meanwhile may become another flow's: what this packet then finds or
        // writes is of a flow that was allowed, too, under the same generation of the same policy, or counts as not current.
        // CPUs that share a flow may change it at once: each field is a word or less, and whichever value wins was true.
        Some(unsafe { &mut *flow })
    }};
}

/// Tracks a flow by quota, and beyond it where the oldest makes room.
macro_rules! track {
    ($quota:ident, $overflow:ident, $self:ident, $key:expr, $flow:expr) => {{
        let slot = $self.slot;
        let key = $key;
        if within_quota(slot) {
            match maps::$quota.insert(key, $flow, u64::from(BPF_NOEXIST)) {
                Ok(()) => {
                    count(slot);
                    return true;
                }
                Err(ALREADY_THERE) => return true,
                Err(_) => {}
            }
        }
        // Before the flow is there, so that whoever has to find it looks.
        note_overflow(slot);
        maps::$overflow.insert(key, $flow, u64::from(BPF_ANY)).is_ok()
    }};
}

/// Whether a flow that begins with the packet at hand may begin on the fast way of a floating IP.
pub trait Beginning {
    /// Says so, of a packet of the port at a place.
    fn may_be_fast(&self, slot: u32) -> bool;
}

/// The packet is to an instance, and has come the fast way or not.
pub struct Arrived {
    /// It has.
    pub fast: bool,
}

impl Beginning for Arrived {
    #[inline(always)]
    fn may_be_fast(&self, _: u32) -> bool {
        self.fast
    }
}

/// The packet is from an instance: this one.
pub struct Departing<'f, F> {
    /// The packet.
    pub frame: &'f F,
    /// Epoch of its port.
    pub epoch: u32,
}

impl<F: Frame> Beginning for Departing<'_, F> {
    #[inline(always)]
    fn may_be_fast(&self, slot: u32) -> bool {
        matches!(floating::outward(self.frame, &Floats, (slot, self.epoch)), Some(Ok(exit)) if exit.begins())
    }
}

impl Flows {
    /// For a packet of a port.
    #[inline(always)]
    pub const fn new(slot: u32) -> Self {
        Self { slot, key: FlowKey(MaybeUninit::uninit()), by_quota: false }
    }
}

/// True if the port at a place may track another flow.
#[inline(always)]
fn within_quota(slot: u32) -> bool {
    match (maps::TRACKED.get(slot), maps::ALLOWANCE.get(slot)) {
        (Some(tracked), Some(allowance)) => tracked < allowance,
        _ => false,
    }
}

/// True if the port at a place has ever had a flow beyond its quota.
#[inline(always)]
fn has_overflowed(slot: u32) -> bool {
    maps::OVERFLOWED.get(slot).is_none_or(|overflowed| *overflowed != 0)
}

/// Notes that the port at a place has a flow beyond its quota.
#[inline(always)]
fn note_overflow(slot: u32) {
    if let Some(overflowed) = maps::OVERFLOWED.get_ptr_mut(slot) {
        // SAFETY: the pointer is to an aligned word of an array, which is never freed; all who write it write the same.
        unsafe { overflowed.write_volatile(1) };
    }
}

/// Counts a flow of the port at a place.
#[inline(always)]
fn count(slot: u32) {
    if let Some(tracked) = maps::TRACKED.get_ptr_mut(slot) {
        // The target has atomic addition, but `core` offers it only where compare-and-swap is to be had as well.
        // SAFETY: the pointer is to an aligned word of an array, which is never freed, and every writer adds atomically.
        unsafe { asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) tracked, in(reg) 1_u64, options(nostack)) };
    }
}

impl FlowTables for Flows {
    #[inline(always)]
    fn flow4(&mut self, key: &FlowKey4) -> Option<&mut Flow> {
        flow!(FLOWS4, OVER4, self, self.key.of4(key))
    }

    #[inline(always)]
    fn flow6(&mut self, key: &FlowKey6) -> Option<&mut Flow> {
        flow!(FLOWS6, OVER6, self, self.key.of6(key))
    }

    #[inline(always)]
    fn track4(&mut self, key: &FlowKey4, flow: &Flow) -> bool {
        track!(FLOWS4, OVER4, self, self.key.of4(key), flow)
    }

    #[inline(always)]
    fn track6(&mut self, key: &FlowKey6, flow: &Flow) -> bool {
        track!(FLOWS6, OVER6, self, self.key.of6(key), flow)
    }

    #[inline(always)]
    fn noted4(&self, key: &FlowKey4, at: Moment) -> Note {
        settled::noted4(key.words(), at)
    }

    #[inline(always)]
    fn noted6(&self, key: &FlowKey6, at: Moment) -> Note {
        settled::noted6(key.words(), at)
    }

    #[inline(always)]
    fn settle4(&mut self, key: &FlowKey4, at: Moment, flags: u8) {
        // One beyond the quota may have to make room, and then is no flow any more.
        if self.by_quota {
            settled::note4(key.words(), at, flags);
        }
    }

    #[inline(always)]
    fn settle6(&mut self, key: &FlowKey6, at: Moment, flags: u8) {
        if self.by_quota {
            settled::note6(key.words(), at, flags);
        }
    }

    #[inline(always)]
    fn unsettle4(&mut self, key: &FlowKey4) {
        settled::drop4(key.words());
    }

    #[inline(always)]
    fn unsettle6(&mut self, key: &FlowKey6) {
        settled::drop6(key.words());
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

//! Every map, with who writes and who reads it. No logic.
//!
//! Sizes are those of `netdiag_common::abi`; user space may ask for others when it loads the object.

use aya_ebpf::{
    bindings::BPF_F_NO_PREALLOC,
    btf_maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use netdiag_common::abi::{
    event::{Counted, Decided},
    floating::{
        Floating, FloatingKey, Hop, HopKey, Leaving, LeavingKey, MAX_ASKED, MAX_FLOATING, MAX_HELD, MAX_HOPS,
        StationKey, WAYS,
    },
    flow::{
        Flow, FlowKey4, FlowKey6, Fragment, FragmentKey, MAX_FLOWS4, MAX_FLOWS6, MAX_FRAGMENTS, MAX_OVERFLOW, Tick,
    },
    policy::{
        GrantKey, Label, MAX_GRANTS, MAX_PAGES, MAX_POLICIES, MAX_PORTS, MAX_PREFIXES, MAX_REMOTES, MAX_RULES,
        MAX_SERVICE_TABLES, MAX_VIEWS, MacKey, NEAR_INTERFACES, Page, PairKey, Port, Protocol, RemoteKey4, RemoteKey6,
        Settings, View,
    },
    reason::REASONS,
    value::{Budget, Counter, Losses, Tally},
};

/// How many flows of each family can be noted as settled: few enough to stay in the caches. A power of two.
pub const NOTES: u32 = 8192;

/// Elements are allocated as they come: what is not used costs nothing.
const ON_DEMAND: usize = BPF_F_NO_PREALLOC as usize;

/// One counter per CPU, at index 0. Written by `count`, read and summed up by user space.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counter, 1> = PerCpuArray::new();

/// One record per packet; 64 KiB, a multiple of every page size the supported architectures use. Written by `count`,
/// drained by user space.
#[btf_map]
pub static EVENTS: RingBuf<Counted, { 64 * 1024 }> = RingBuf::new();

// === policy: written by user space, read by the programs ===

/// Place of the port at a device, plus one; 0 is none.
#[btf_map]
pub static INTERFACES: Array<u32, { NEAR_INTERFACES as usize }> = Array::new();

/// The same for devices with an index beyond the array.
#[btf_map]
pub static FAR_INTERFACES: HashMap<u32, u32, { MAX_PORTS as usize }> = HashMap::new();

/// Ports.
#[btf_map]
pub static PORTS: Array<Port, { MAX_PORTS as usize }> = Array::new();

/// MAC addresses of ports with more than one.
#[btf_map]
pub static MACS: HashMap<MacKey, u32, { 16 * MAX_PORTS as usize }, ON_DEMAND> = HashMap::new();

/// Address pairs of ports with more than the inline ones.
#[btf_map]
pub static PAIRS: LpmTrie<PairKey, u32, { 64 * MAX_PORTS as usize }> = LpmTrie::new();

/// Which view of each policy is in force.
#[btf_map]
pub static ACTIVE: Array<u64, { MAX_POLICIES as usize }> = Array::new();

/// Versions of policies.
#[btf_map]
pub static VIEWS: Array<View, { MAX_VIEWS as usize }> = Array::new();

/// Service tables, 256 protocols each.
#[btf_map]
pub static PROTOCOLS: Array<Protocol, { 256 * MAX_SERVICE_TABLES as usize }> = Array::new();

/// Pages of service tables.
#[btf_map]
pub static PAGES: Array<Page, { MAX_PAGES as usize }> = Array::new();

/// Rules by pairs of classes.
#[btf_map]
pub static GRANTS: HashMap<GrantKey, u32, { MAX_GRANTS as usize }, ON_DEMAND> = HashMap::new();

/// Host addresses of remote sets.
#[btf_map]
pub static REMOTES4: HashMap<RemoteKey4, u32, { MAX_REMOTES as usize }, ON_DEMAND> = HashMap::new();

/// Host addresses of remote sets.
#[btf_map]
pub static REMOTES6: HashMap<RemoteKey6, u32, { MAX_REMOTES as usize }, ON_DEMAND> = HashMap::new();

/// Prefixes of remote sets.
#[btf_map]
pub static PREFIXES4: LpmTrie<RemoteKey4, u32, { MAX_PREFIXES as usize }> = LpmTrie::new();

/// Prefixes of remote sets.
#[btf_map]
pub static PREFIXES6: LpmTrie<RemoteKey6, u32, { MAX_PREFIXES as usize }> = LpmTrie::new();

/// What holds for all ports.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// Flows each port may track by quota, counted since the map was made; see `TRACKED`.
#[btf_map]
pub static ALLOWANCE: Array<u64, { MAX_PORTS as usize }> = Array::new();

// === floating IPs: written by user space, read by the programs ===

/// Who a floating IP stands for, as packets from outside name it.
#[btf_map]
pub static FLOATING: HashMap<FloatingKey, Floating, { MAX_FLOATING as usize }, ON_DEMAND> = HashMap::new();

/// What the first fixed address of each port that has a floating IP leaves as.
#[btf_map]
pub static LEAVING: Array<Leaving, { MAX_PORTS as usize }> = Array::new();

/// What the other fixed addresses of ports leave as.
#[btf_map]
pub static MORE_LEAVING: HashMap<LeavingKey, Leaving, { MAX_FLOATING as usize }, ON_DEMAND> = HashMap::new();

/// Prefixes and neighbours of routers.
#[btf_map]
pub static HOPS: LpmTrie<HopKey, Hop, { MAX_HOPS as usize }> = LpmTrie::new();

/// Flows that were there before their floating IP was served from here: by the fixed address and port for what leaves, by
/// the floating IP and the port the outside knows for what comes.
#[btf_map]
pub static HELD: HashMap<FlowKey4, u32, { MAX_HELD as usize }, ON_DEMAND> = HashMap::new();

/// The network within which each port may send past the bridge; 0 is none.
#[btf_map]
pub static NETWORKS: Array<u32, { MAX_PORTS as usize }> = Array::new();

/// The host's device of each instance of such a network.
#[btf_map]
pub static STATIONS: HashMap<StationKey, u32, { MAX_PORTS as usize }, ON_DEMAND> = HashMap::new();

/// Packets and bytes of floating IPs by port, direction and way. Written by the programs.
#[btf_map]
pub static WAYS_TAKEN: PerCpuArray<Tally, { MAX_PORTS as usize * 2 * WAYS }> = PerCpuArray::new();

// === names: written and read by user space alone, for whoever looks at the maps without the agent ===

/// Ids of rules.
#[btf_map]
pub static RULES: Array<Label, { MAX_RULES as usize }> = Array::new();

/// Ids of ports.
#[btf_map]
pub static PORT_LABELS: Array<Label, { MAX_PORTS as usize }> = Array::new();

/// What remote sets were made from.
#[btf_map]
pub static SET_LABELS: HashMap<u32, Label, 65_536, ON_DEMAND> = HashMap::new();

/// What policies were made from.
#[btf_map]
pub static POLICY_LABELS: Array<Label, { MAX_POLICIES as usize }> = Array::new();

// === flows: written by the programs; user space removes what has expired ===

/// Flows that are tracked by quota. Their memory is there from the start: to allocate it as they come costs more than all else about
/// a new flow, and may fail just when many come at once.
#[btf_map]
pub static FLOWS4: HashMap<FlowKey4, Flow, { MAX_FLOWS4 as usize }> = HashMap::new();

/// Flows that are tracked by quota.
#[btf_map]
pub static FLOWS6: HashMap<FlowKey6, Flow, { MAX_FLOWS6 as usize }> = HashMap::new();

/// Notes of settled flows; see `settled`.
#[btf_map]
pub static SETTLED4: Array<[u64; 4], { NOTES as usize }> = Array::new();

/// Notes of settled flows.
#[btf_map]
pub static SETTLED6: Array<[u64; 8], { NOTES as usize }> = Array::new();

/// Flows beyond the quota of their port: the oldest makes room for the newest.
#[btf_map]
pub static OVER4: LruHashMap<FlowKey4, Flow, { MAX_OVERFLOW as usize }> = LruHashMap::new();

/// Flows beyond the quota of their port.
#[btf_map]
pub static OVER6: LruHashMap<FlowKey6, Flow, { MAX_OVERFLOW as usize }> = LruHashMap::new();

/// 1 for each port that has ever had a flow beyond its quota: for the others there is no need to look there.
#[btf_map]
pub static OVERFLOWED: Array<u32, { MAX_PORTS as usize }> = Array::new();

/// What the first fragments of datagrams said.
#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { MAX_FRAGMENTS as usize }> = LruHashMap::new();

/// Far ends that instances with floating IPs have asked through their routers, and when they were heard of last: the oldest makes
/// room for the newest.
#[btf_map]
pub static ASKED: LruHashMap<FlowKey4, Tick, { MAX_ASKED as usize }> = LruHashMap::new();

/// Flows each port has ever begun to track by quota. User space, which knows how many of them are gone, says in
/// `ALLOWANCE` how far this may grow; so each of the two maps has one writer.
#[btf_map]
pub static TRACKED: Array<u64, { MAX_PORTS as usize }> = Array::new();

// === what was decided: written by the programs, read by user space ===

/// Packets and bytes by port, direction and reason.
#[btf_map]
pub static TALLIES: PerCpuArray<Tally, { MAX_PORTS as usize * 2 * REASONS }> = PerCpuArray::new();

/// Flows each rule has allowed; packets, on stateless ports.
#[btf_map]
pub static HITS: PerCpuArray<u64, { MAX_RULES as usize }> = PerCpuArray::new();

/// Verdicts of which there is no record, by port.
#[btf_map]
pub static LOSSES: PerCpuArray<Losses, { MAX_PORTS as usize }> = PerCpuArray::new();

/// Records of the current tick, by port.
#[btf_map]
pub static BUDGETS: Array<Budget, { MAX_PORTS as usize }> = Array::new();

/// Records of verdicts; 1 MiB.
#[btf_map]
pub static DECISIONS: RingBuf<Decided, { 1024 * 1024 }> = RingBuf::new();

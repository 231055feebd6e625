//! Every map, with who writes and who reads it. No logic.

use aya_ebpf::{
    btf_maps::{PerCpuArray, RingBuf},
    macros::btf_map,
};
use netdiag_common::abi::{event::Counted, value::Counter};

/// One counter per CPU, at index 0. Written by `count`, read and summed up by user space.
#[btf_map]
pub static COUNTERS: PerCpuArray<Counter, 1> = PerCpuArray::new();

/// One record per packet; 64 KiB, a multiple of every page size the supported architectures use. Written by `count`,
/// drained by user space.
#[btf_map]
pub static EVENTS: RingBuf<Counted, { 64 * 1024 }> = RingBuf::new();

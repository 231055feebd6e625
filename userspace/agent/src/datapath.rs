//! The eBPF programs netdiag carries, and what it does with them. Flow: observe.
//!
//! Nothing here decides policy: that is the model's. The programs themselves are in the `ebpf` crate.

/// Proves on the running kernel that the programs load, attach, count and report.
pub mod probe;

/// The object with the eBPF programs, aligned as an ELF reader needs it; none in a binary that was not built by
/// `cargo xtask build`.
#[cfg(netdiag_bpf_object)]
pub const OBJECT: Option<&[u8]> = Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netdiag.bpf.o")));

/// The object with the eBPF programs, aligned as an ELF reader needs it; none in a binary that was not built by
/// `cargo xtask build`.
#[cfg(not(netdiag_bpf_object))]
pub const OBJECT: Option<&[u8]> = None;

/// The object with the programs that watch packets.
#[cfg(netdiag_bpf_object)]
pub(crate) const LIVE_OBJECT: Option<&[u8]> =
    Some(aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/live.bpf.o")));

/// The object with the programs that watch packets.
#[cfg(not(netdiag_bpf_object))]
pub(crate) const LIVE_OBJECT: Option<&[u8]> = None;

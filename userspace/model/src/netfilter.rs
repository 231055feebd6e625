//! iptables and nftables rules: parsed, recognised and walked. Flow: explain.
//!
//! Three steps, each of its own: [`parse`] turns what `iptables-save -c` prints into [`Table`]s and keeps what it does
//! not know as raw text; [`recognise`] names the chains Neutron, Docker and others made; [`walk`] follows one packet
//! through the hooks in the kernel's order. Matching is three-valued: a match the walker does not know makes the answer
//! "unknown", never "no".

use serde::{Deserialize, Serialize};

/// Packets and bytes a rule has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

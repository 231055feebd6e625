//! Everything one look at a host captured; what every view receives.

use serde::{Deserialize, Serialize};

use crate::fact::Facts;

/// A look at one host. Written by `netdiag snapshot -w`, read back by `--from`: every read-only command gives the same
/// answer from it, on another machine and without privilege.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Version of this format; see [`Snapshot::VERSION`].
    pub schema_version: u32,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// Host name.
    pub hostname: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Version of the netdiag that took it.
    pub netdiag: String,
    /// What the sources saw.
    pub facts: Facts,
}

impl Snapshot {
    /// Raised whenever a field changes its meaning or goes away; new fields do not raise it.
    pub const VERSION: u32 = 1;

    /// Reads a snapshot back.
    ///
    /// # Errors
    /// The text is not JSON, not a snapshot, or a snapshot of a version this netdiag does not know.
    pub fn from_json(text: &[u8]) -> Result<Self, InvalidSnapshot> {
        /// The one field every version has.
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let Version { schema_version } = serde_json::from_slice(text).map_err(InvalidSnapshot::Shape)?;
        if schema_version != Self::VERSION {
            return Err(InvalidSnapshot::Version(schema_version));
        }
        serde_json::from_slice(text).map_err(InvalidSnapshot::Shape)
    }
}

/// Why a file is not a snapshot this netdiag can read.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSnapshot {
    /// Not JSON, or not of a snapshot's shape.
    #[error("not a netdiag snapshot")]
    Shape(#[source] serde_json::Error),
    /// Of a version this netdiag does not know.
    #[error("a snapshot of version {0}; this netdiag reads version {version}", version = Snapshot::VERSION)]
    Version(u32),
}

//! How security groups are enforced at an interface, as several answers say it.

use netdiag_model::{groups as model, policy::types::Mode};
use schemars::JsonSchema;
use serde::Serialize;

use super::{GroupDocument, published};

/// How netdiag enforces security groups at an interface.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct EnforcementDocument {
    /// The port's id in the policy.
    pub port_id: String,
    /// What becomes of its packets.
    pub mode: EnforcementMode,
    /// Its groups; empty where nobody says which.
    pub groups: Vec<GroupDocument>,
    /// What decides about packets from the instance.
    pub egress: SideDocument,
    /// What decides about packets to the instance.
    pub ingress: SideDocument,
    /// Why it cannot be enforced; null where it is.
    pub refused: Option<String>,
    /// Where what is loaded differs from what is asked.
    pub differences: Vec<String>,
}

impl From<&model::Summary> for EnforcementDocument {
    fn from(summary: &model::Summary) -> Self {
        Self {
            port_id: summary.port_id.clone(),
            mode: summary.mode.into(),
            groups: published(&summary.groups),
            egress: (&summary.egress).into(),
            ingress: (&summary.ingress).into(),
            refused: summary.refused.clone(),
            differences: summary.differences.clone(),
        }
    }
}

/// What becomes of a port's packets.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EnforcementMode {
    /// Its groups decide.
    Filtered,
    /// Everything passes: no port security, or a port of the network itself.
    Trusted,
    /// Its policy is not known: system traffic alone passes.
    Closed,
    /// It is asked for and no hook can hold, so everything passes.
    Refused,
}

impl From<Option<Mode>> for EnforcementMode {
    fn from(mode: Option<Mode>) -> Self {
        match mode {
            Some(Mode::Filtered) => Self::Filtered,
            Some(Mode::Trusted) => Self::Trusted,
            Some(Mode::Closed) => Self::Closed,
            None => Self::Refused,
        }
    }
}

/// One direction of a port.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct SideDocument {
    /// The hook: `tcx`, `clsact` or `xdp`; null where nothing is attached.
    pub hook: Option<String>,
    /// A program of somebody else that comes before it.
    pub behind: Option<String>,
    /// Rules in force; null where the maps could not be read.
    pub rules: Option<usize>,
    /// Packets it has dropped.
    pub dropped: u64,
}

impl From<&model::Side> for SideDocument {
    fn from(side: &model::Side) -> Self {
        let model::Side { hook, behind, rules, dropped } = side.clone();
        Self { hook, behind, rules, dropped }
    }
}

//! The published shape of JSON and YAML, apart from the model, so that the model may change without breaking anybody.
//!
//! Every field is always there: what is not known is `null`, what there is none of is an empty array. New fields do not
//! raise [`crate::json_schema::SCHEMA_VERSION`]; a field that goes away or changes its meaning does. The documentation of a field is its
//! description in the schema.

/// The answer of `netdiag doctor`.
mod doctor;
/// How security groups are enforced at an interface.
mod enforcement;
/// One line of `netdiag events -o json`.
mod event;
/// The answer of `netdiag fip`.
mod floating;
/// The answer of `netdiag flows`.
mod flows;
/// The answers of `netdiag sg`.
mod groups;
/// One interface and what belongs to it.
mod interface;
/// The answer of `netdiag list`.
mod list;
/// What `netdiag trace --live` writes.
mod live;
/// The answer of `netdiag agent status`.
mod status;
/// The answer of `netdiag trace`, and what other answers share with it.
mod trace;

/// One line of `netdiag watch -o jsonl`.
mod watch;

use schemars::JsonSchema;
use serde::Serialize;

pub use self::{
    doctor::{CheckDocument, DoctorDocument, Status},
    enforcement::{EnforcementDocument, EnforcementMode, SideDocument},
    event::{EventDocument, LossDocument, PacketVerdict, VerdictDocument},
    floating::{FastPathDocument, FloatingIpDocument, FloatingIpsDocument, FloatingOwner, FloatingWay, WayDocument},
    flows::{FlowDocument, FlowsDocument, FlowsKnown, RuleDirection},
    groups::{
        AgentDocument, AnswerDocument, ExplainDocument, GroupDocument, GroupRuleDocument, GroupsDocument, GroupsPort,
        LoadedRuleDocument, NearMissDocument, ReasonDocument, RuleStanding,
    },
    interface::{
        Counters, Direction, FloatingIp, HopDocument, InterfaceDocument, Netns, PublishedPort, RouterDocument,
        RuleDocument, ServiceDocument, State,
    },
    list::{FloatingWayDocument, ListDocument, ListedInstance, ListedInterface},
    live::{
        BlameDocument, CensusDocument, ChangeDocument, CountDocument, DeathsDocument, DropDocument, DropsLine, End,
        HopSeenDocument, LiveDocument, LiveLine, PacketDocument, StepDocument, SummaryDocument, WatchDocument,
    },
    status::{MistakeDocument, PortDocument, RefusedDocument, StatusDocument},
    trace::{FindingDocument, GapDocument, InstanceDocument, InstanceKind, Severity, TraceDocument, Verdict},
    watch::{WatchLine, Watched},
};

/// Version of the shapes in this module.
pub const SCHEMA_VERSION: u32 = 1;

/// A type of the model with a published shape.
pub trait Published {
    /// The shape.
    type Document: Serialize + JsonSchema;

    /// The same content in the published shape.
    fn document(&self) -> Self::Document;
}

/// Every value as text.
fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}

/// Every value in its published shape.
fn published<'a, M, D: From<&'a M>>(values: &'a [M]) -> Vec<D> {
    values.iter().map(D::from).collect()
}

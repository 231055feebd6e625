//! The answer of `netdiag trace`, and what other answers share with it.

use std::collections::BTreeMap;

use netdiag_model::{fact::Gap, trace as model};
use schemars::JsonSchema;
use serde::Serialize;

use super::{InterfaceDocument, Published, SCHEMA_VERSION, published};
use crate::time;

/// The paths of one instance, and what is wrong on them.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag trace")]
pub struct TraceDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host the look was taken on.
    pub host: String,
    /// When the look was taken, RFC 3339 in UTC; null where the clock gave no instant.
    pub taken_at: Option<String>,
    /// The instance, by every identity it has.
    pub instance: InstanceDocument,
    /// One path per interface.
    pub interfaces: Vec<InterfaceDocument>,
    /// Contradictions and faults, worst first.
    pub findings: Vec<FindingDocument>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<GapDocument>,
    /// The whole in one word; decides the exit code.
    pub verdict: Verdict,
    /// The whole in one sentence, in the tenant's words.
    pub sentence: String,
}

impl Published for model::Trace {
    type Document = TraceDocument;

    fn document(&self) -> TraceDocument {
        TraceDocument::from(self)
    }
}

impl From<&model::Trace> for TraceDocument {
    fn from(trace: &model::Trace) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            host: trace.hostname.clone(),
            taken_at: time::rfc3339(trace.taken_at),
            instance: (&trace.instance).into(),
            interfaces: published(&trace.interfaces),
            findings: published(&trace.findings),
            gaps: published(&trace.gaps),
            verdict: trace.verdict.into(),
            sentence: trace.sentence.clone(),
        }
    }
}

/// The whole answer in one word.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing on the path speaks against it (exit code 0).
    Works,
    /// Something the path needs could not be read (exit code 6).
    Inconclusive,
    /// Something on the path is broken or denies (exit code 3).
    Broken,
}

impl From<model::Verdict> for Verdict {
    fn from(verdict: model::Verdict) -> Self {
        match verdict {
            model::Verdict::Works => Self::Works,
            model::Verdict::Inconclusive => Self::Inconclusive,
            model::Verdict::Broken => Self::Broken,
        }
    }
}

/// Every identity an instance has.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct InstanceDocument {
    /// The name an operator would say: the container's, else the domain's, else the namespace's.
    pub name: String,
    /// What it is.
    pub kind: InstanceKind,
    /// Who runs it, such as `docker` or `qemu`.
    pub runtime: String,
    /// Full id of the container.
    pub container_id: Option<String>,
    /// Name of the container.
    pub container_name: Option<String>,
    /// Image of the container.
    pub image: Option<String>,
    /// Host name inside.
    pub hostname: Option<String>,
    /// Name of the libvirt domain.
    pub libvirt_name: Option<String>,
    /// UUID of the Nova instance or Zun container.
    pub nova_uuid: Option<String>,
    /// First process; qemu's for a virtual machine.
    pub pid: Option<u32>,
    /// State of the runtime's own, such as `running`.
    pub state: String,
    /// Labels of the container.
    pub labels: BTreeMap<String, String>,
}

impl From<&model::Identity> for InstanceDocument {
    fn from(identity: &model::Identity) -> Self {
        Self {
            name: identity.name.clone(),
            kind: identity.kind.into(),
            runtime: identity.runtime.clone(),
            container_id: identity.container_id.clone(),
            container_name: identity.container_name.clone(),
            image: identity.image.clone(),
            hostname: identity.hostname.clone(),
            libvirt_name: identity.libvirt_name.clone(),
            nova_uuid: identity.nova_uuid.as_ref().map(ToString::to_string),
            pid: identity.pid,
            state: identity.state.clone(),
            labels: identity.labels.clone(),
        }
    }
}

/// What an instance is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceKind {
    /// A container.
    Container,
    /// A virtual machine.
    Vm,
    /// A bare network namespace that somebody plugged in.
    Namespace,
}

impl From<model::InstanceKind> for InstanceKind {
    fn from(kind: model::InstanceKind) -> Self {
        match kind {
            model::InstanceKind::Container => Self::Container,
            model::InstanceKind::Vm => Self::Vm,
            model::InstanceKind::Namespace => Self::Namespace,
        }
    }
}

/// A contradiction or a fault.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct FindingDocument {
    /// How bad it is.
    pub severity: Severity,
    /// A stable word for scripts, such as `dead-vlan`.
    pub code: String,
    /// Name of the device, chain or namespace it is about.
    pub object: String,
    /// What is wrong and what follows, in one sentence.
    pub message: String,
    /// What was seen that says so.
    pub evidence: String,
    /// A read-only command that shows it by hand.
    pub verify: Option<String>,
    /// A command or step that would mend it; netdiag never runs it.
    pub fix: Option<String>,
}

impl From<&model::Finding> for FindingDocument {
    fn from(finding: &model::Finding) -> Self {
        Self {
            severity: finding.severity.into(),
            code: finding.code.clone(),
            object: finding.object.clone(),
            message: finding.message.clone(),
            evidence: finding.evidence.clone(),
            verify: finding.verify.clone(),
            fix: finding.fix.clone(),
        }
    }
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Packets die here.
    Error,
    /// Packets may die here, or will when something else changes.
    Warning,
    /// Worth knowing.
    Info,
}

impl From<model::Severity> for Severity {
    fn from(severity: model::Severity) -> Self {
        match severity {
            model::Severity::Error => Self::Error,
            model::Severity::Warning => Self::Warning,
            model::Severity::Info => Self::Info,
        }
    }
}

/// Something that could not be read. Unknown is not "no": an answer that needed it says so.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct GapDocument {
    /// Source that could not read, such as `netfilter`.
    pub source: String,
    /// Inode of the network namespace it concerns, where it concerns only one.
    pub netns_inode: Option<u64>,
    /// What could not be read.
    pub object: String,
    /// Why, with the errno in words.
    pub why: String,
    /// What the operator can do about it.
    pub fix: String,
    /// True where the thing is simply not on this host, so that nothing is missing from the answer.
    pub absent: bool,
}

impl From<&Gap> for GapDocument {
    fn from(gap: &Gap) -> Self {
        Self {
            source: gap.source.name().to_owned(),
            netns_inode: gap.netns.map(|netns| netns.inode),
            object: gap.object.clone(),
            why: gap.why.clone(),
            fix: gap.fix.clone(),
            absent: gap.absent,
        }
    }
}

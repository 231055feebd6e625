//! The answer of `netdiag doctor`.

use netdiag_model::doctor as model;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Published, SCHEMA_VERSION, published};

/// What this host can and cannot do.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[schemars(title = "netdiag doctor")]
pub struct DoctorDocument {
    /// Version of this shape; a field that goes away or changes its meaning raises it.
    pub schema_version: u32,
    /// Host name.
    pub hostname: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Version of the netdiag that made the checks.
    pub netdiag: String,
    /// The checks.
    pub checks: Vec<CheckDocument>,
}

impl Published for model::Report {
    type Document = DoctorDocument;

    fn document(&self) -> DoctorDocument {
        DoctorDocument::from(self)
    }
}

impl From<&model::Report> for DoctorDocument {
    fn from(report: &model::Report) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            hostname: report.hostname.clone(),
            kernel: report.kernel.clone(),
            netdiag: report.netdiag.clone(),
            checks: published(&report.checks),
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct CheckDocument {
    /// What was checked.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found.
    pub result: String,
    /// What follows for the operator.
    pub consequence: String,
    /// What to do about it; empty where nothing is needed.
    pub fix: String,
    /// True where netdiag cannot do its work without it.
    pub required: bool,
}

impl From<&model::Check> for CheckDocument {
    fn from(check: &model::Check) -> Self {
        Self {
            name: check.name.clone(),
            status: check.status.into(),
            result: check.result.clone(),
            consequence: check.consequence.clone(),
            fix: check.fix.clone(),
            required: check.required,
        }
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something works less well than it could.
    Warning,
    /// Something does not work.
    Fail,
    /// It could not be found out.
    Unknown,
}

impl From<model::Status> for Status {
    fn from(status: model::Status) -> Self {
        match status {
            model::Status::Ok => Self::Ok,
            model::Status::Warning => Self::Warning,
            model::Status::Fail => Self::Fail,
            model::Status::Unknown => Self::Unknown,
        }
    }
}

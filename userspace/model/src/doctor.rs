//! What this host can and cannot do: the answer of `netdiag doctor`. Flow: discover.

use serde::Serialize;

/// Every check of one look at the host, in the order an operator reads them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The checks.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was checked: `kernel`, `BTF`, `Docker socket`.
    pub name: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found.
    pub result: String,
    /// What follows for the operator.
    pub consequence: String,
    /// What to do about it; empty where nothing is needed.
    pub fix: String,
    /// True where netdiag cannot do its work without it.
    pub required: bool,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Something works less well than it could.
    Warning,
    /// Something does not work.
    Fail,
    /// It could not be found out.
    Unknown,
}

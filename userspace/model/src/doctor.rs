//! What a host can and cannot do, as a table of checks. Flow: discover.
//!
//! A check has three outcomes besides "well": it stands in the way, it deserves a look, or it could not be made.
//! Unknown is never taken for "no". The agent makes the checks that ask the kernel or a daemon; [`from_facts`](crate::doctor::from_facts) draws
//! those that follow from what the sources saw, so that they can be drawn from a snapshot as well.

use serde::{Deserialize, Serialize};

/// The checks that follow from facts.
mod facts;

pub use facts::from_facts;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Nothing to do.
    Ok,
    /// It works, and something about it deserves a look.
    Warning,
    /// Something netdiag does will not work.
    Fail,
    /// It could not be found out.
    Unknown,
}

impl Status {
    /// The word used in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Fail => "fail",
            Self::Unknown => "unknown",
        }
    }
}

/// One thing about the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was checked, in a word or two that stay the same from release to release: `kernel`, `CAP_NET_ADMIN`.
    pub name: String,
    /// How it came out.
    pub status: Status,
    /// What was found. May hold text from outside (versions, names); views escape it.
    pub result: String,
    /// What does not work because of it; empty when all is well.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub consequence: String,
    /// What to do about it; empty when there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub fix: String,
    /// True if netdiag cannot do its main job, tracing, where this fails.
    pub required: bool,
}

impl Check {
    /// One that came out well.
    pub fn ok(name: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(Status::Ok, name, result)
    }

    /// One that works but deserves a look.
    pub fn warning(name: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(Status::Warning, name, result)
    }

    /// One that stands in the way of something.
    pub fn fail(name: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(Status::Fail, name, result)
    }

    /// One that could not be made.
    pub fn unknown(name: impl Into<String>, result: impl Into<String>) -> Self {
        Self::new(Status::Unknown, name, result)
    }

    fn new(status: Status, name: impl Into<String>, result: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            status,
            result: result.into(),
            consequence: String::new(),
            fix: String::new(),
            required: false,
        }
    }

    /// With what follows from it.
    #[must_use]
    pub fn so(self, consequence: impl Into<String>) -> Self {
        Self { consequence: consequence.into(), ..self }
    }

    /// With what to do about it.
    #[must_use]
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }

    /// As one without which netdiag cannot trace.
    #[must_use]
    pub fn required(self) -> Self {
        Self { required: true, ..self }
    }
}

/// All checks of one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Version of this format; see [`Report::VERSION`].
    pub schema_version: u32,
    /// Host name.
    pub hostname: String,
    /// Kernel release, as `uname -r` prints it.
    pub kernel: String,
    /// Version of the netdiag that made the checks.
    pub netdiag: String,
    /// The checks, what everything else rests on first.
    pub checks: Vec<Check>,
}

impl Report {
    /// Raised whenever a field changes its meaning or goes away; new fields do not raise it.
    pub const VERSION: u32 = 1;

    /// Exit code for a missing privilege or kernel feature.
    const NOT_ABLE: u8 = 5;

    /// Checks that netdiag cannot trace without, and that failed.
    pub fn blocking(&self) -> impl Iterator<Item = &Check> {
        self.checks.iter().filter(|check| check.required && check.status == Status::Fail)
    }

    /// What `netdiag doctor` exits with: 5 if a required check failed, else 0. What could not be found out, and what is
    /// merely recommended, does not fail a script.
    pub fn exit_code(&self) -> u8 {
        if self.blocking().next().is_some() { Self::NOT_ABLE } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Check, Report, Status};

    fn report(checks: Vec<Check>) -> Report {
        let (hostname, kernel, netdiag) = ("c1".to_owned(), "6.1.0".to_owned(), "0.1.0".to_owned());
        Report { schema_version: Report::VERSION, hostname, kernel, netdiag, checks }
    }

    #[test]
    fn only_a_required_check_that_fails_fails_the_report() {
        let harmless = [
            Check::fail("btf", "none"),
            Check::unknown("kernel", "?").required(),
            Check::warning("kernel", "old").required(),
            Check::ok("kernel", "new").required(),
        ];
        assert_eq!(report(harmless.to_vec()).exit_code(), 0);
        let mut checks = harmless.to_vec();
        checks.push(Check::fail("CAP_SYS_ADMIN", "not held").required());
        let report = report(checks);
        assert_eq!(report.exit_code(), 5);
        assert_eq!(report.blocking().map(|check| check.name.as_str()).collect::<Vec<_>>(), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn the_word_for_a_status_is_the_one_in_json() {
        for status in [Status::Ok, Status::Warning, Status::Fail, Status::Unknown] {
            assert_eq!(serde_json::to_value(status).unwrap(), status.name());
        }
    }
}

//! Exit codes, in one table.

use std::{fmt, process::ExitCode};

use netdiag_model::{doctor, trace::Verdict};

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Answered, the path works.
    Works,
    /// Something inside netdiag went wrong.
    Internal,
    /// The command line makes no sense; clap's own errors use the same code.
    Usage,
    /// Answered: the path is broken or denied.
    Broken,
    /// Not found or ambiguous; the candidates were listed.
    NotFound,
    /// A privilege or a kernel feature is missing.
    Missing,
    /// Something the answer needs could not be read.
    Inconclusive,
    /// Ctrl-C.
    Interrupted,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Works => 0,
            Exit::Internal => 1,
            Exit::Usage => 2,
            Exit::Broken => 3,
            Exit::NotFound => 4,
            Exit::Missing => 5,
            Exit::Inconclusive => 6,
            Exit::Interrupted => 130,
        })
    }
}

impl From<Verdict> for Exit {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Works => Self::Works,
            Verdict::Inconclusive => Self::Inconclusive,
            Verdict::Broken => Self::Broken,
        }
    }
}

impl From<&doctor::Report> for Exit {
    fn from(report: &doctor::Report) -> Self {
        if report.exit_code() == 0 { Self::Works } else { Self::Missing }
    }
}

impl Exit {
    /// The code an error ends with.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        error.downcast_ref::<Bad>().map_or(Self::Internal, |bad| bad.exit)
    }
}

/// An error whose exit code is not 1.
#[derive(Debug)]
pub(crate) struct Bad {
    exit: Exit,
    message: String,
}

impl Bad {
    /// What was asked makes no sense or cannot be read.
    pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Usage, message: message.into() }.into()
    }

    /// What was asked for cannot get through.
    pub(crate) fn broken(message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Broken, message: message.into() }.into()
    }

    /// There is no such object; the message lists the candidates.
    pub(crate) fn not_found(message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::NotFound, message: message.into() }.into()
    }

    /// A privilege or a kernel feature is missing.
    pub(crate) fn missing(message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Missing, message: message.into() }.into()
    }

    /// What the answer needs could not be read.
    pub(crate) fn inconclusive(message: impl Into<String>) -> anyhow::Error {
        Self { exit: Exit::Inconclusive, message: message.into() }.into()
    }
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Bad {}

//! What the processes of a lab tell the one that started them: one JSON value a line, on standard output.

use std::io::{self, BufRead, Write as _};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::lab::inventory::{Host, Instance};

/// One line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Report {
    /// A node has its namespaces.
    Started {
        /// Its process 1, as the real host counts pids.
        pid: u32,
    },
    /// A lab host is what its profile says.
    Built(Box<Built>),
    /// The lab is up and its inventory published.
    Ready,
    /// Why something is not so.
    Failed(String),
}

/// What building a host has found out.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Built {
    /// The host, with the versions of what runs on it.
    pub(crate) host: Host,
    /// Its instances, with their pids.
    pub(crate) instances: Vec<Instance>,
}

/// Sends a report. Nobody listens any more once the listener has given up; this process is ended then.
pub(crate) fn send(report: &Report) -> Result<()> {
    let line = serde_json::to_string(report).context("encode a report")?;
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("report")
}

/// Receives the next report; a `Failed` or the end of the stream is an error.
pub(crate) fn receive(from: &mut impl BufRead) -> Result<Report> {
    let mut line = String::new();
    from.read_line(&mut line).context("read a report")?;
    if line.is_empty() {
        bail!("it ended without saying why");
    }
    let report = serde_json::from_str(&line).with_context(|| format!("understand the report {line:?}"))?;
    if let Report::Failed(why) = report {
        bail!("{why}");
    }
    Ok(report)
}

/// Reports a failure to the listener and ends the process; only what could not be reported is left for the log.
pub(crate) fn result(result: Result<()>) -> Result<()> {
    let Err(error) = result else { return Ok(()) };
    send(&Report::Failed(format!("{error:#}")))?;
    std::process::exit(1);
}

#[cfg(test)]
mod tests {
    use super::{Report, receive};

    #[test]
    fn failure_arrives_as_an_error_with_its_words() {
        let line = serde_json::to_string(&Report::Failed("no tun device".into())).unwrap() + "\n";
        assert_eq!(receive(&mut line.as_bytes()).unwrap_err().to_string(), "no tun device");
        assert!(receive(&mut "".as_bytes()).is_err());
    }
}

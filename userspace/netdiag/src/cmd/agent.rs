//! `netdiag agent`: runs the agent, asks it, takes away what it has loaded.

use std::{
    env,
    io::{self, Write as _},
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use netdiag_agent::{
    client::{Client, ClientError},
    doctor, enforce,
    service::{self, Journal},
};
use netdiag_model::doctor::Status;
use netdiag_views::{
    escape, json,
    text::{self, Style},
    yaml,
};

use super::print;
use crate::{
    cli::{
        Look, ReportOutput,
        agent::{Agent, What},
    },
    config,
    exit::{Bad, Exit},
};

/// How long an agent may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Does what is asked of the agent.
pub(crate) async fn agent(agent: &Agent) -> anyhow::Result<Exit> {
    match &agent.what {
        Some(What::Status { socket, look, output }) => {
            let socket = socket.as_deref().unwrap_or(Path::new(config::agent::SOCKET));
            status(socket, look, *output).await
        }
        Some(What::Detach { bpffs }) => detach(bpffs.as_deref()),
        None if agent.detach => detach(agent.bpffs.as_deref()),
        None => run(agent).await,
    }
}

/// Enforces until it is told to stop.
async fn run(agent: &Agent) -> anyhow::Result<Exit> {
    let config = config::agent::config(agent, journal())?;
    match service::run(config).await {
        Ok(()) => Ok(Exit::Works),
        Err(error) if error.is_inability() => {
            explain().await?;
            Err(Bad::missing(format!("{:#}", anyhow::Error::new(error))))
        }
        Err(error) => Err(error.into()),
    }
}

/// Says on standard error what of the host may keep the agent from its work: every check that did not come out well.
async fn explain() -> anyhow::Result<()> {
    let mut report = doctor::examine_for_agent().await;
    report.checks.retain(|check| check.status != Status::Ok);
    let style = Style { ascii: false, ..Style::default() };
    let mut text = Vec::new();
    text::doctor::render(&report, &style, &mut text)?;
    io::stderr().lock().write_all(&text).context("write to standard error")
}

/// Says how the agent is.
async fn status(socket: &Path, look: &Look, output: ReportOutput) -> anyhow::Result<Exit> {
    let status = match Client::new(socket, PATIENCE).status().await {
        Ok(status) => status,
        Err(error @ (ClientError::Connect { .. } | ClientError::Hangs { .. } | ClientError::Broken { .. })) => {
            let hint = "no agent answers; what it has loaded goes on to be enforced, `netdiag list -o wide` shows it";
            return Err(Bad::inconclusive(format!("{:#}: {hint}", anyhow::Error::new(error))));
        }
        Err(error @ ClientError::Refused { .. }) => return Err(error.into()),
    };
    let style = config::style(look);
    print(|out| match output {
        ReportOutput::Table => text::status::render(&status, &style, out),
        ReportOutput::Json => json::render(&status, out),
        ReportOutput::Yaml => yaml::render(&status, out),
    })?;
    Ok(match (status.is_well(), status.agent.converged) {
        (true, _) => Exit::Works,
        (false, None) if status.mistakes.is_empty() && status.agent.problems.is_empty() => Exit::Inconclusive,
        (false, _) => Exit::Broken,
    })
}

/// Leaves the host as it was before any agent ran.
fn detach(bpffs: Option<&Path>) -> anyhow::Result<Exit> {
    let errors = enforce::detach_all(bpffs.unwrap_or(Path::new(enforce::ROOT)));
    if errors.is_empty() {
        return Ok(Exit::Works);
    }
    let lines: Vec<_> = errors.into_iter().map(|error| format!("{:#}", anyhow::Error::new(error))).collect();
    bail!("{}", lines.join("\n"))
}

/// Standard error; under systemd with the priority its journal understands.
fn journal() -> Journal {
    let priority = if env::var_os("JOURNAL_STREAM").is_some() { "<4>" } else { "netdiag: " };
    Journal::new(move |line| {
        // Without a standard error there is nobody to tell.
        drop(writeln!(io::stderr(), "{priority}{}", escape::terminal(line, false)));
    })
}

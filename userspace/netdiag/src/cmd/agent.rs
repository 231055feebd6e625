//! `netdiag agent`: runs the agent, asks it, takes away what it has loaded.

use std::{
    env,
    io::{self, Write as _},
    net::Ipv4Addr,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, bail};
use netdiag_agent::{
    client::{Client, ClientError},
    doctor,
    enforce::{self, AttachError},
    own,
    service::{self, Journal},
};
use netdiag_model::doctor::Status;
use netdiag_views::{
    escape, json as as_json,
    text::{self, Style},
    yaml,
};
use serde_json::{Value, json};

use super::print;
use crate::{
    cli::{
        Look, ReportOutput,
        agent::{Agent, Fip, What},
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
        Some(What::Detach { bpffs, state_dir }) => detach(bpffs.as_deref(), state_dir.as_deref()),
        None if agent.detach => detach(agent.bpffs.as_deref(), agent.state_dir.as_deref()),
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
        Err(error) if error.is_refusal() => Err(Bad::broken(full(error))),
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
        ReportOutput::Json => as_json::render(&status, out),
        ReportOutput::Yaml => yaml::render(&status, out),
    })?;
    Ok(match (status.is_well(), status.agent.converged) {
        (true, _) => Exit::Works,
        (false, None) if status.mistakes.is_empty() && status.agent.problems.is_empty() => Exit::Inconclusive,
        (false, _) => Exit::Broken,
    })
}

/// Leaves the host as it was before any agent ran.
fn detach(bpffs: Option<&Path>, state: Option<&Path>) -> anyhow::Result<Exit> {
    let root = bpffs.unwrap_or(Path::new(enforce::ROOT));
    let state = state.unwrap_or(Path::new(config::agent::STATE_DIR));
    let errors = enforce::detach_all(root);
    let refused = errors.iter().any(AttachError::is_refusal);
    let mut lines: Vec<_> = errors.into_iter().map(full).collect();
    // Where an agent is at work it would serve them again.
    if lines.is_empty() {
        lines.extend(own::withdraw_all(state).into_iter().map(full));
    }
    if lines.is_empty() {
        return Ok(Exit::Works);
    }
    if refused {
        return Err(Bad::broken(lines.join("\n")));
    }
    bail!("{}", lines.join("\n"))
}

/// An error with all its causes.
fn full(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}

/// Has new flows of floating IPs begin the one way or the other.
pub(crate) async fn fip_way(what: &Fip) -> anyhow::Result<Exit> {
    let (way, slow) = match what {
        Fip::Slow(way) => (way, true),
        Fip::Fast(way) => (way, false),
    };
    let client = Client::new(way.socket.as_deref().unwrap_or(Path::new(config::agent::SOCKET)), PATIENCE);
    let which = way.floating_ip.as_deref().unwrap_or("all");
    if !which.chars().all(|letter| letter.is_ascii_alphanumeric() || "-._".contains(letter)) {
        return Err(Bad::usage(format!("{which}: neither an address nor an id")));
    }
    match client.put::<Value>(&format!("/v1/floatingips/{which}/way"), &json!({ "slow": slow })).await {
        Ok(answer) if answer["state"] == "held" => {
            let why = answer["reason"].as_str().unwrap_or("no reason given");
            Err(Bad::inconclusive(format!("the order is kept, and not carried out yet: {why}")))
        }
        Ok(_) => is_unknown(&client, which).await.map_or(Ok(Exit::Works), |why| Err(Bad::inconclusive(why))),
        Err(error @ ClientError::Refused { status: 404, .. }) => {
            let there = words(&candidates(&client).await);
            Err(Bad::not_found(format!("{:#}; there are: {there}", anyhow::Error::new(error))))
        }
        Err(error @ ClientError::Refused { .. }) => Err(Bad::usage(full(error))),
        Err(error) => Err(Bad::inconclusive(full(error))),
    }
}

/// What to say of an order for an address that is no floating IP now: it is kept, and it may be mistyped.
async fn is_unknown(client: &Client, which: &str) -> Option<String> {
    let there = candidates(client).await;
    let unknown = which.parse::<Ipv4Addr>().is_ok() && !there.iter().any(|one| one == which);
    let there = words(&there);
    unknown.then(|| format!("the order is kept, but {which} is no floating IP of this host now; there are: {there}"))
}

/// Floating IPs there are.
async fn candidates(client: &Client) -> Vec<String> {
    let listed = client.get::<Value>("/v1/floatingips").await.unwrap_or_default();
    let addresses = listed["floatingips"].as_array().into_iter().flatten();
    addresses.filter_map(|one| Some(one["floating_ip_address"].as_str()?.to_owned())).collect()
}

/// Floating IPs in a sentence.
fn words(addresses: &[String]) -> String {
    if addresses.is_empty() { "none".to_owned() } else { addresses.join(", ") }
}

/// Standard error; under systemd with the priority its journal understands.
fn journal() -> Journal {
    let priority = if env::var_os("JOURNAL_STREAM").is_some() { "<4>" } else { "netdiag: " };
    Journal::new(move |line| {
        // Without a standard error there is nobody to tell.
        drop(writeln!(io::stderr(), "{priority}{}", escape::terminal(line, false)));
    })
}

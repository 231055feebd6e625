//! How the agent is to live: options, then the file, then defaults.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use netdiag_agent::{
    enforce,
    policy_source::Places,
    service::{Config, Journal},
};
use serde::Deserialize;

use crate::{
    cli::agent::{Agent, FloatingIps, Straight},
    exit::Bad,
};

/// Socket of the agent's API.
pub(crate) const SOCKET: &str = "/run/netdiag/agent.sock";
const POLICY_DIR: &str = "/etc/netdiag/policy.d";
/// Where the agent keeps what must outlive a restart.
pub(crate) const STATE_DIR: &str = "/var/lib/netdiag";
const FULL_PASS: u64 = 30;

/// Settings of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    policy_dir: Option<PathBuf>,
    state_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
    group: Option<String>,
    bpffs: Option<PathBuf>,
    metrics: Option<SocketAddr>,
    full_pass: Option<u64>,
    max_flows: Option<u32>,
    floating_ips: Option<FloatingIps>,
    straight: Option<Straight>,
    docker_socket: Option<PathBuf>,
    ovsdb_socket: Option<PathBuf>,
}

/// Everything together, checked.
///
/// # Errors
/// The file cannot be read or has a setting nobody knows; a group does not exist; metrics would be seen from outside.
pub(crate) fn config(agent: &Agent, journal: Journal) -> anyhow::Result<Config> {
    let file = agent.config.as_deref().map(read).transpose()?.unwrap_or_default();
    let path = |option: &Option<PathBuf>, setting: Option<PathBuf>, default: &str| {
        option.clone().or(setting).unwrap_or_else(|| default.into())
    };
    let metrics = agent.metrics.or(file.metrics);
    if let Some(address) = metrics.filter(|address| !address.ip().is_loopback()) {
        return Err(Bad::usage(format!("--metrics {address}: not a loopback address, and there is no authentication")));
    }
    let mut look = super::options(&agent.sockets);
    look.docker_socket = agent.sockets.docker_socket.clone().or(file.docker_socket).unwrap_or(look.docker_socket);
    look.ovsdb_socket = agent.sockets.ovsdb_socket.clone().or(file.ovsdb_socket).unwrap_or(look.ovsdb_socket);
    let group = agent.group.clone().or(file.group);
    Ok(Config {
        places: Places {
            files: path(&agent.policy_dir, file.policy_dir, POLICY_DIR),
            state: path(&agent.state_dir, file.state_dir, STATE_DIR),
        },
        socket: path(&agent.socket, file.socket, SOCKET),
        group: group.as_deref().map(group_id).transpose()?,
        enforce: enforce::Options {
            root: path(&agent.bpffs, file.bpffs, enforce::ROOT),
            max_flows: agent.max_flows.or(file.max_flows),
            ..enforce::Options::default()
        },
        metrics,
        accelerate: agent.floating_ips.or(file.floating_ips) != Some(FloatingIps::Off),
        straight: agent.straight.or(file.straight) != Some(Straight::Off),
        full_pass: Duration::from_secs(agent.full_pass.or(file.full_pass).unwrap_or(FULL_PASS).max(1)),
        look,
        journal,
    })
}

fn read(path: &Path) -> anyhow::Result<File> {
    let refuse = |error: &dyn std::fmt::Display| Bad::usage(format!("{}: {error}", path.display()));
    let text = fs::read_to_string(path).map_err(|error| refuse(&error))?;
    if text.trim().is_empty() {
        return Ok(File::default());
    }
    serde_norway::from_str(&text).map_err(|error| refuse(&error))
}

/// A group by number, or by name in `/etc/group`. Groups of a directory service are given by number.
fn group_id(group: &str) -> anyhow::Result<u32> {
    if let Ok(id) = group.parse() {
        return Ok(id);
    }
    let text = fs::read_to_string("/etc/group").unwrap_or_default();
    let line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    text.lines()
        .find_map(line)
        .ok_or_else(|| Bad::usage(format!("there is no group {group} in /etc/group; give its number")))
}

#[cfg(test)]
mod tests {
    use super::{File, FloatingIps, group_id};

    #[test]
    fn a_setting_nobody_knows_is_refused_with_those_there_are() {
        let error = serde_norway::from_str::<File>("policy-dir: /x").unwrap_err().to_string();
        assert!(error.contains("policy-dir") && error.contains("policy_dir"), "{error}");
        let file: File = serde_norway::from_str("metrics: 127.0.0.1:9090\nfull_pass: 5\nfloating_ips: off").unwrap();
        assert_eq!((file.full_pass, file.metrics.map(|address| address.port())), (Some(5), Some(9090)));
        assert_eq!(file.floating_ips, Some(FloatingIps::Off));
    }

    #[test]
    fn a_group_is_found_by_name_and_by_number() {
        assert_eq!((group_id("root").unwrap(), group_id("47").unwrap()), (0, 47));
        assert!(group_id("no such group").is_err());
    }
}

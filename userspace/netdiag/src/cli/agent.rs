//! `netdiag agent` as clap reads it.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use serde::Deserialize;

use super::{Look, ReportOutput, Sockets};

/// What the agent needs; shown below its long help.
pub(super) const NEEDS: &str = "\
Runs in the foreground until SIGTERM or SIGINT, which end it and change nothing of what is enforced; `--detach` does that. SIGHUP
reads the policy files anew. Needs root, or the capabilities that packaging/netdiag-agent.service names.";

/// Runs the agent, or asks it, or takes away what it has loaded.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Agent {
    #[command(subcommand)]
    pub(crate) what: Option<What>,
    /// Take every program, map and floating IP of netdiag away from this host; refuses while an agent runs
    #[arg(long)]
    pub(crate) detach: bool,
    /// Settings, in YAML, under the names of these options with `_` for `-`; an option given here comes first
    #[arg(long, value_name = "FILE", env = "NETDIAG_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Directory with policy files, *.yaml, *.yml and *.json [default: /etc/netdiag/policy.d]
    #[arg(long, value_name = "DIR", env = "NETDIAG_POLICY_DIR")]
    pub(crate) policy_dir: Option<PathBuf>,
    /// Directory for what must outlive a restart [default: /var/lib/netdiag]
    #[arg(long, value_name = "DIR", env = "NETDIAG_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// Directory on a bpffs in which maps and links are pinned [default: /sys/fs/bpf/netdiag]
    #[arg(long, value_name = "DIR", env = "NETDIAG_BPFFS")]
    pub(crate) bpffs: Option<PathBuf>,
    /// Socket of the API [default: /run/netdiag/agent.sock]
    #[arg(long, value_name = "PATH", env = "NETDIAG_AGENT_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
    /// Group that may use the API, by name or number [default: the agent's own]
    #[arg(long, value_name = "GROUP", env = "NETDIAG_AGENT_GROUP")]
    pub(crate) group: Option<String>,
    /// Serve metrics for Prometheus at this address, which has to be a loopback one
    #[arg(long, value_name = "ADDRESS:PORT", env = "NETDIAG_METRICS")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The longest time between two looks at the host, in seconds [default: 30]
    #[arg(long, value_name = "SECONDS", env = "NETDIAG_FULL_PASS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) full_pass: Option<u64>,
    /// What to do with the floating IPs of Neutron's routers; those of the policy are served anyway [default: accelerate]
    #[arg(long, value_name = "WHAT", env = "NETDIAG_FLOATING_IPS")]
    pub(crate) floating_ips: Option<FloatingIps>,
    /// Whether instances of one network of a Linux bridge may send to each other past it [default: on]
    #[arg(long, value_name = "WHETHER", env = "NETDIAG_STRAIGHT")]
    pub(crate) straight: Option<Straight>,
    /// How many IPv4 flows to track; half as many IPv6 flows
    #[arg(long, value_name = "COUNT", env = "NETDIAG_MAX_FLOWS")]
    pub(crate) max_flows: Option<u32>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
}

/// What to do with floating IPs of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum FloatingIps {
    /// Lead them past their routers where the result is the same
    Accelerate,
    /// Leave them to their routers
    Off,
}

/// Whether instances may send to each other past their bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Straight {
    /// Where nothing else needs to see the packets
    On,
    /// Never
    Off,
}

/// What there is to do with floating IPs.
#[derive(Debug, Subcommand)]
pub(crate) enum Fip {
    /// Have new flows of a floating IP begin the slow way, through its router; those that began on the fast one end there
    Slow(FipWay),
    /// Have new flows of a floating IP begin the fast way again
    Fast(FipWay),
}

/// Which floating IPs, and whom to tell.
#[derive(Debug, Args)]
pub(crate) struct FipWay {
    /// A floating IP: its address, or its id in the policy
    #[arg(required_unless_present = "all")]
    pub(crate) floating_ip: Option<String>,
    /// All floating IPs, those to come as well
    #[arg(long, conflicts_with = "floating_ip")]
    pub(crate) all: bool,
    /// Socket of the API [default: /run/netdiag/agent.sock]
    #[arg(long, visible_alias = "agent-socket", value_name = "PATH", env = "NETDIAG_AGENT_SOCKET")]
    pub(crate) socket: Option<PathBuf>,
}

/// What else there is to do with an agent.
#[derive(Debug, Subcommand)]
pub(crate) enum What {
    /// Say how the agent is: ports enforced, mistakes in the policy, problems, losses
    Status {
        /// Socket of the API [default: /run/netdiag/agent.sock]
        #[arg(long, visible_alias = "agent-socket", value_name = "PATH", env = "NETDIAG_AGENT_SOCKET")]
        socket: Option<PathBuf>,
        #[command(flatten)]
        look: Look,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
        output: ReportOutput,
    },
    /// Take every program, map and floating IP of netdiag away from this host; refuses while an agent runs
    Detach {
        /// Directory on a bpffs in which they are pinned [default: /sys/fs/bpf/netdiag]
        #[arg(long, value_name = "DIR", env = "NETDIAG_BPFFS")]
        bpffs: Option<PathBuf>,
        /// Directory with what the agent has kept [default: /var/lib/netdiag]
        #[arg(long, value_name = "DIR", env = "NETDIAG_STATE_DIR")]
        state_dir: Option<PathBuf>,
    },
}

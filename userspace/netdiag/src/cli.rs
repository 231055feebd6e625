//! The command line as clap reads it. Nothing here needs the environment; [`crate::config`] checks and completes it.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// `netdiag agent`.
pub(crate) mod agent;
/// `netdiag trace`, and what is seen live.
pub(crate) mod live;
/// `netdiag tui`.
pub(crate) mod tui;

/// Exit codes, the same for every command.
const EXIT_CODES: &str = "\
Exit codes:
  0    answered, the path works
  1    internal error
  2    usage
  3    answered: the path is broken or denied
  4    not found or ambiguous; the candidates are listed
  5    a privilege or a kernel feature is missing
  6    inconclusive: something the answer needs could not be read
  130  interrupted";

/// What a trace needs; shown below its long help.
const TRACE_NEEDS: &str = "\
Needs root, or CAP_SYS_ADMIN, CAP_SYS_PTRACE, CAP_NET_ADMIN and CAP_NET_RAW. Without them it answers from what it can read, and says
what it could not. Nothing on the host is changed.";

/// Where Docker is asked.
const DOCKER_SOCKET: &str = "Docker's socket [default: $DOCKER_HOST, else /run/docker.sock]";

/// Where the agent is asked.
const AGENT_SOCKET: &str = "The agent's socket [default: /run/netdiag/agent.sock]";

/// Where do an instance's packets go on this compute host, and where do they die?
#[derive(Debug, Parser)]
#[command(name = "netdiag", version, about, after_help = EXIT_CODES, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Follow the packets of one instance, out and in, hop by hop; with --live, packet by packet
    #[command(after_long_help = TRACE_NEEDS)]
    Trace(Box<live::Trace>),
    /// Watch what the kernel and netdiag drop on this host: whose packet, where, why
    Drops(Box<live::Drops>),
    /// Watch one instance: its verdict, findings, hops and counters, one line for each change
    Watch(Box<live::Watch>),
    /// List the instances of this host with all their identities
    List {
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        look: Look,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
        output: ListOutput,
    },
    /// Enforce security groups on this host, or ask the agent that does
    #[command(after_long_help = agent::NEEDS)]
    Agent(Box<agent::Agent>),
    /// Security groups of an instance: what is enforced, and what would become of a packet
    #[command(subcommand)]
    Sg(Sg),
    /// List the floating IPs of this host: past their routers, through them and why, or nowhere
    #[command(args_conflicts_with_subcommands = true)]
    Fip {
        #[command(subcommand)]
        way: Option<agent::Fip>,
        /// Only this floating IP, or those of this instance
        instance: Option<String>,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        look: Look,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
        output: ListOutput,
    },
    /// List the flows that are tracked
    Flows(Flows),
    /// Follow what is refused and allowed, packet by packet, as the agent says it
    Events(Events),
    /// See this host live: instances, paths, verdicts, flows, policy, agent; changes nothing
    #[command(after_long_help = tui::NEEDS)]
    Tui(Box<tui::Tui>),
    /// Say what this host can and cannot do: check, result, consequence, fix
    Doctor {
        #[command(flatten)]
        sockets: Sockets,
        #[command(flatten)]
        look: Look,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
        output: ReportOutput,
    },
    /// Write everything netdiag sees of this host to a file that --from reads
    Snapshot {
        /// File to write; `-` is standard output
        #[arg(short, long, value_name = "FILE", default_value = "-")]
        write: PathBuf,
        #[command(flatten)]
        sockets: Sockets,
        #[command(flatten)]
        enforced: Enforced,
    },
    /// Print the JSON schema of an answer
    Schema {
        /// Of which answer
        #[arg(value_enum)]
        of: SchemaOf,
    },
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page (roff)
    Man {
        /// Write netdiag.1 and one page for each command into this directory instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

/// Security groups of an instance.
#[derive(Debug, Subcommand)]
pub(crate) enum Sg {
    /// Show what is enforced at the ports of an instance: rules and how often they were hit, counters, differences
    Show {
        /// Name, container id, Nova or Neutron UUID (or a prefix), fixed or floating IP, MAC, device or pid
        instance: String,
        #[command(flatten)]
        source: Source,
        #[command(flatten)]
        look: Look,
        /// How to print it
        #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
        output: ListOutput,
    },
    /// Say whether a packet would pass, by which rule, and which rule nearly lets it pass
    Explain(SgExplain),
}

/// A packet, and where it is asked about.
#[derive(Debug, Args)]
pub(crate) struct SgExplain {
    /// The instance whose groups are asked
    pub(crate) instance: String,
    /// Who sends it: an address, or the name of an instance
    #[arg(long, value_name = "A")]
    pub(crate) from: String,
    /// Who it is for: an address, or the name of an instance; one of the two is the instance
    #[arg(long, value_name = "B")]
    pub(crate) to: String,
    /// IP protocol, by name or number
    #[arg(long, visible_alias = "protocol", value_name = "PROTOCOL", default_value = "tcp")]
    pub(crate) proto: String,
    /// Destination port
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// ICMP type
    #[arg(long, value_name = "TYPE", conflicts_with = "port")]
    pub(crate) icmp_type: Option<u8>,
    /// ICMP code
    #[arg(long, value_name = "CODE", requires = "icmp_type")]
    pub(crate) icmp_code: Option<u8>,
    /// Answer from a snapshot instead of this host; needs no privilege
    #[arg(long, value_name = "FILE", visible_alias = "from-snapshot", env = "NETDIAG_FROM")]
    pub(crate) snapshot: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) enforced: Enforced,
    #[command(flatten)]
    pub(crate) look: Look,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
    pub(crate) output: ReportOutput,
}

/// Which flows.
#[derive(Debug, Args)]
pub(crate) struct Flows {
    /// Only those of this instance
    pub(crate) instance: Option<String>,
    /// Address or prefix of either end
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<String>,
    /// Port of either end
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// IP protocol, by name or number
    #[arg(long, visible_alias = "protocol", value_name = "PROTOCOL")]
    pub(crate) proto: Option<String>,
    /// Which way its first packet went, as the instance sees it
    #[arg(long, value_enum)]
    pub(crate) direction: Option<Way>,
    /// Its state: established, syn-sent, replied, dead, expired and so on
    #[arg(long)]
    pub(crate) state: Option<String>,
    /// Id of the rule that allows it, or its beginning
    #[arg(long, value_name = "ID")]
    pub(crate) rule: Option<String>,
    /// Order of the rows
    #[arg(long, value_enum, default_value_t)]
    pub(crate) sort: FlowSort,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) look: Look,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
    pub(crate) output: ListOutput,
}

/// Which events.
#[derive(Debug, Args)]
pub(crate) struct Events {
    /// Only those of this instance
    pub(crate) instance: Option<String>,
    /// Only those with this reason; may be given several times
    #[arg(long, value_parser = clap::builder::PossibleValuesParser::new(netdiag_model::event::reasons()))]
    pub(crate) reason: Vec<String>,
    /// Only what was denied, or what was allowed
    #[arg(long, value_enum)]
    pub(crate) verdict: Option<Passed>,
    /// Text: show also refused multicast of the link to an instance (listener reports, router solicitations, mDNS …), of which
    /// there is otherwise only a count; JSON has it always, marked
    #[arg(long, env = "NETDIAG_MULTICAST")]
    pub(crate) multicast: bool,
    #[command(flatten)]
    pub(crate) limits: live::Limits,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) enforced: Enforced,
    #[command(flatten)]
    pub(crate) look: Look,
    /// How to print them
    #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
    pub(crate) output: StreamOutput,
}

/// A direction, as the instance sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// To the instance (ingress)
    #[value(alias = "ingress")]
    In,
    /// From the instance (egress)
    #[value(alias = "egress")]
    Out,
}

/// Order of flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowSort {
    /// By instance, direction, protocol and addresses
    #[default]
    Address,
    /// The last one heard of first
    Idle,
    /// The youngest first
    Age,
}

/// Whether a packet passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Passed {
    /// It passed
    Allow,
    /// It was refused
    Deny,
}

/// Where an answer comes from.
#[derive(Debug, Args)]
pub(crate) struct Source {
    /// Answer from a snapshot instead of this host; needs no privilege
    #[arg(long, value_name = "FILE", env = "NETDIAG_FROM")]
    pub(crate) from: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) enforced: Enforced,
}

/// Where to look on this host.
#[derive(Clone, Debug, Args)]
pub(crate) struct Sockets {
    /// The most any one source may take, in seconds; one request to a daemon gets three tenths of it
    #[arg(long, value_name = "SECONDS", default_value_t = 10, env = "NETDIAG_TIMEOUT",
          value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) timeout: u64,
    #[arg(long, value_name = "PATH", env = "NETDIAG_DOCKER_SOCKET", help = DOCKER_SOCKET)]
    pub(crate) docker_socket: Option<PathBuf>,
    /// Socket of the OVSDB server [default: /run/openvswitch/db.sock]
    #[arg(long, value_name = "PATH", env = "NETDIAG_OVSDB_SOCKET")]
    pub(crate) ovsdb_socket: Option<PathBuf>,
}

/// Where what netdiag itself enforces is found.
#[derive(Clone, Debug, Args)]
pub(crate) struct Enforced {
    #[arg(long, value_name = "PATH", env = "NETDIAG_AGENT_SOCKET", help = AGENT_SOCKET)]
    pub(crate) agent_socket: Option<PathBuf>,
    /// Directory in which the agent pins its maps [default: /sys/fs/bpf/netdiag]
    #[arg(long, value_name = "DIR", env = "NETDIAG_BPFFS")]
    pub(crate) bpffs: Option<PathBuf>,
}

/// How an answer looks.
#[derive(Debug, Args)]
pub(crate) struct Look {
    /// More detail; twice for the commands that show the same by hand
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Colour
    #[arg(long, value_enum, default_value_t, env = "NETDIAG_COLOR", value_name = "WHEN")]
    pub(crate) color: Colour,
    /// Nothing but ASCII in text (pictures and JSON stay UTF-8)
    #[arg(long, env = "NETDIAG_ASCII")]
    pub(crate) ascii: bool,
    /// Columns to fit the text into [default: the terminal's, else 80]
    #[arg(long, value_name = "COLUMNS", env = "NETDIAG_WIDTH", value_parser = clap::value_parser!(u16).range(60..=1000))]
    pub(crate) width: Option<u16>,
    /// Do not shorten UUIDs and container ids
    #[arg(long, env = "NETDIAG_FULL_IDS")]
    pub(crate) full_ids: bool,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Colour {
    /// On a terminal, unless `NO_COLOR` is set or TERM is dumb
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// Forms of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum TraceOutput {
    /// Numbered hops that fit the terminal
    #[default]
    Table,
    /// One line a hop, as long as it takes
    Wide,
    /// JSON, versioned and complete
    Json,
    /// The same as YAML
    Yaml,
    /// A picture for Graphviz
    Dot,
    /// A picture for Markdown
    Mermaid,
    /// A picture
    Svg,
    /// With --live: one line of JSON a packet, as they come
    Jsonl,
    /// With --live: a capture file, for Wireshark
    Pcapng,
}

/// Forms of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ListOutput {
    /// Columns that fit the terminal
    #[default]
    Table,
    /// All columns
    Wide,
    /// JSON, versioned and complete
    Json,
    /// The same as YAML
    Yaml,
}

/// Forms of a report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// Text that fits the terminal
    #[default]
    Table,
    /// JSON, versioned and complete
    Json,
    /// The same as YAML
    Yaml,
}

/// Forms of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum StreamOutput {
    /// One line an event
    #[default]
    #[value(alias = "table")]
    Text,
    /// One line of JSON an event
    #[value(alias = "jsonl")]
    Json,
}

/// Answers with a published schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SchemaOf {
    /// `netdiag trace -o json`
    Trace,
    /// `netdiag list -o json`
    List,
    /// `netdiag doctor -o json`
    Doctor,
    /// `netdiag sg show -o json`
    Sg,
    /// `netdiag sg explain -o json`
    SgExplain,
    /// `netdiag fip -o json`
    Fip,
    /// `netdiag flows -o json`
    Flows,
    /// One line of `netdiag events -o json`
    Events,
    /// `netdiag agent status -o json`
    AgentStatus,
    /// `netdiag trace --live -o json`
    Live,
    /// One line of `netdiag trace --live -o jsonl`
    LiveLine,
    /// One line of `netdiag drops -o json`
    Drops,
    /// One line of `netdiag watch -o jsonl`
    Watch,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, ValueEnum};

    use super::{Cli, SchemaOf};

    /// Commands and the commands below them.
    fn every_command() -> Vec<clap::Command> {
        let all = Cli::command();
        let top = all.get_subcommands().cloned();
        top.flat_map(|command| [vec![command.clone()], command.get_subcommands().cloned().collect()].concat()).collect()
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_every_option_says_what_it_is_for() {
        for command in every_command() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn every_option_with_a_value_can_be_set_by_the_environment() {
        // What is asked, rather than how, belongs on the command line.
        let of_packets = ["from", "to", "proto", "port", "icmp_type", "icmp_code", "ip", "direction", "state", "rule"];
        let of_streams = ["sort", "reason", "verdict", "count", "duration", "until_drop", "cmd"];
        let of_ends = ["from_ip", "to_ip", "from_port", "to_port", "expression", "live", "probe", "from_outside"];
        let of_screens = ["print_filter", "record", "print_keys"];
        let asked =
            ["instance", "floating_ip", "all", "write", "of", "shell", "dir", "detach", "verbose", "help", "version"];
        let asked = [&asked[..], &of_packets, &of_streams, &of_ends, &of_screens].concat();
        for command in every_command() {
            for argument in command.get_arguments().filter(|argument| !asked.contains(&argument.get_id().as_str())) {
                let variable = argument.get_env().and_then(|name| name.to_str());
                assert!(variable.is_some_and(|name| name.starts_with("NETDIAG_")), "{}", argument.get_id());
            }
        }
    }

    #[test]
    fn every_answer_in_json_has_a_schema() {
        let schemas = SchemaOf::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        // With `--live` the answer of `trace` is another, and has a shape of its own as lines.
        let live = ["live", "live-line"];
        let named = schemas.map(|value| value.get_name().to_owned());
        let mut schemas: Vec<_> = named.filter(|name| !live.contains(&name.as_str())).collect();
        let all = Cli::command();
        let leaves = all.get_subcommands().flat_map(|top| {
            let below =
                top.get_subcommands().map(move |below| (format!("{}-{}", top.get_name(), below.get_name()), below));
            below.chain([(top.get_name().to_owned(), top)])
        });
        let is_json = |argument: &clap::Arg| {
            argument.get_id() == "output"
                && argument.get_possible_values().iter().any(|value| value.matches("json", false))
        };
        let answers = leaves.filter(|(_, command)| command.get_arguments().any(is_json));
        // What is shown of security groups is what `sg` alone stands for.
        let mut answers: Vec<_> = answers.map(|(name, _)| name.replace("sg-show", "sg")).collect();
        answers.sort();
        schemas.sort();
        assert_eq!(schemas, answers);
    }

    #[test]
    fn help_names_every_command_and_every_exit_code() {
        insta::assert_snapshot!(Cli::command().term_width(80).render_help().to_string());
    }
}

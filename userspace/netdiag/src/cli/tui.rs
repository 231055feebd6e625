//! `netdiag tui`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::{Colour, Enforced, Sockets};

/// What the live view needs; shown below its long help.
pub(crate) const NEEDS: &str = "\
Needs what a trace needs, and shows what it can read without. Verdicts come from a running agent. A file that --from names, or one
that --record wrote, needs no privilege. Nothing on the host is changed.

Keys, colours and columns are set in ~/.config/netdiag/tui.yaml, else in /etc/netdiag/tui.yaml; --print-keys prints such a file
with the keys. Of columns it says the letters of those to switch on or off, as the key c lists them: columns: {instances: mx}.";

/// The live view of a host.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(crate) struct Tui {
    /// Show a snapshot, or replay a recording, instead of this host; needs no privilege
    #[arg(long, value_name = "FILE", env = "NETDIAG_FROM")]
    pub(crate) from: Option<PathBuf>,
    /// Seconds between two looks at the host; unless somebody works with the keys they are stretched so that looking takes
    /// at most 1 % of a core
    #[arg(long, value_name = "SECONDS", default_value_t = 1, env = "NETDIAG_INTERVAL",
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) interval: u64,
    /// Write every look and every verdict to this file, which --from replays
    #[arg(long, value_name = "FILE", conflicts_with = "from")]
    pub(crate) record: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) sockets: Sockets,
    #[command(flatten)]
    pub(crate) enforced: Enforced,
    /// Colours for a dark or a light ground
    #[arg(long, value_enum, env = "NETDIAG_THEME")]
    pub(crate) theme: Option<Theme>,
    /// Colour
    #[arg(long, value_enum, default_value_t, env = "NETDIAG_COLOR", value_name = "WHEN")]
    pub(crate) color: Colour,
    /// Nothing but ASCII
    #[arg(long, env = "NETDIAG_ASCII")]
    pub(crate) ascii: bool,
    /// Do not shorten UUIDs and container ids
    #[arg(long, env = "NETDIAG_FULL_IDS")]
    pub(crate) full_ids: bool,
    /// Leave the mouse to the terminal, for selecting text
    #[arg(long, env = "NETDIAG_NO_MOUSE")]
    pub(crate) no_mouse: bool,
    /// File with keys and colours
    #[arg(long, value_name = "FILE", env = "NETDIAG_TUI_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Print the keys as a file that sets them, and end
    #[arg(long)]
    pub(crate) print_keys: bool,
}

/// What the colours are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Theme {
    /// Ask the terminal for its ground
    Auto,
    /// Light text on a dark ground
    Dark,
    /// Dark text on a light ground
    Light,
}

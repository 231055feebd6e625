//! Arguments and environment, checked and completed: what the commands receive.

use std::{
    env,
    io::{IsTerminal, stdout},
    net::IpAddr,
    time::Duration,
};

use ipnet::IpNet;
use netdiag_agent::discover::Options;
use netdiag_model::policy::convert::protocol_number;
use netdiag_views::text::Style;

use crate::{
    cli::{Colour, Enforced, Look, Sockets},
    exit::Bad,
};

/// How the agent is to live.
pub(crate) mod agent;
/// How the live view looks and what its keys are.
pub(crate) mod tui;

/// Width of text that no terminal limits.
const DEFAULT_WIDTH: usize = 80;

/// Narrower than this, text would break within words; a terminal that is narrower wraps.
const LEAST_WIDTH: usize = 60;

/// Where to look, and for how long.
pub(crate) fn options(sockets: &Sockets) -> Options {
    let defaults = Options::default();
    Options {
        timeout: Duration::from_secs(sockets.timeout),
        docker_socket: sockets.docker_socket.clone().unwrap_or(defaults.docker_socket),
        ovsdb_socket: sockets.ovsdb_socket.clone().unwrap_or(defaults.ovsdb_socket),
        ..defaults
    }
}

/// The same, and where what netdiag enforces is found.
pub(crate) fn all_options(sockets: &Sockets, enforced: &Enforced) -> Options {
    let options = options(sockets);
    Options {
        agent_socket: enforced.agent_socket.clone().unwrap_or(options.agent_socket),
        pin_dir: enforced.bpffs.clone().unwrap_or(options.pin_dir),
        ..options
    }
}

/// An address, or a prefix.
pub(crate) fn prefix(text: &str) -> anyhow::Result<IpNet> {
    let address = text.parse::<IpAddr>().map(IpNet::from).ok();
    address.or_else(|| text.parse().ok()).ok_or_else(|| {
        Bad::usage(format!("\"{text}\" is neither an address nor a prefix, as 10.0.0.2 and 10.0.0.0/24 are"))
    })
}

/// An IP protocol.
pub(crate) fn protocol(text: &str) -> anyhow::Result<u8> {
    protocol_number(text).ok_or_else(|| {
        Bad::usage(format!(
            "\"{text}\" is no protocol: say tcp, udp, icmp, icmpv6, sctp or another by name, or 0 to 255"
        ))
    })
}

/// How the answer looks.
pub(crate) fn style(look: &Look) -> Style {
    let terminal = stdout().is_terminal();
    let columns = terminal.then(terminal_width).flatten();
    Style {
        width: look.width.map(usize::from).or(columns).unwrap_or(DEFAULT_WIDTH).max(LEAST_WIDTH),
        colour: match look.color {
            Colour::Always => true,
            Colour::Never => false,
            Colour::Auto => colour_wanted(terminal),
        },
        ascii: look.ascii || !locale_is_utf8(),
        detail: look.verbose,
        full_ids: look.full_ids,
    }
}

/// `NO_COLOR` beats everything but the flag (no-color.org); `CLICOLOR_FORCE` and `FORCE_COLOR` beat the lack of a
/// terminal.
pub(crate) fn colour_wanted(terminal: bool) -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    if env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        return false;
    }
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    set("CLICOLOR_FORCE") || set("FORCE_COLOR") || (terminal && !dumb)
}

/// Whether the locale can show more than ASCII: the first of `LC_ALL`, `LC_CTYPE` and `LANG` that is set decides (POSIX).
/// Where none is set, UTF-8 is taken for granted: that is a pipe, a container or a cron job, not an old terminal.
pub(crate) fn locale_is_utf8() -> bool {
    let locale =
        ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.ends_with("utf-8") || locale.ends_with("utf8")
    })
}

fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(stdout()).ok()?;
    (size.ws_col > 0).then_some(usize::from(size.ws_col))
}

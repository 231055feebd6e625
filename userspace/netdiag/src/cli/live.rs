//! `netdiag trace` with its live part, and `netdiag drops`, as clap reads them.

use std::time::Duration;

use clap::{Args, ValueEnum};
use netdiag_model::live::probe::Target;
use tokio::time::Instant;

use super::{Enforced, Look, Sockets, Source, StreamOutput, TraceOutput, Way};

/// `netdiag trace`.
#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Name, container id, Nova or Neutron UUID (or a prefix), fixed or floating IP, MAC, device or pid
    pub(crate) instance: String,
    /// Watch real packets at every device of the path, and say where and why each one dies
    #[arg(long, conflicts_with = "from")]
    pub(crate) live: bool,
    #[command(flatten)]
    pub(crate) probed: Probed,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    #[command(flatten)]
    pub(crate) bounds: Bounds,
    /// With --live: which way, as the instance sees it
    #[arg(long, value_enum, requires = "live")]
    pub(crate) direction: Option<Way>,
    /// With --live: say what is asked of the kernel, and end
    #[arg(long, requires = "live")]
    pub(crate) print_filter: bool,
    /// With --live: what watching may take of a CPU, in percent, in the kernel and by itself together: beyond it packets are left out, and counted
    #[arg(long, value_name = "PERCENT", value_parser = share, default_value = "5", env = "NETDIAG_MAX_OVERHEAD")]
    pub(crate) max_overhead: f64,
    #[command(flatten)]
    pub(crate) source: Source,
    #[command(flatten)]
    pub(crate) look: Look,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, env = "NETDIAG_OUTPUT")]
    pub(crate) output: TraceOutput,
}

/// A packet of netdiag's own.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Probed {
    /// Send one packet, marked and announced, and follow it there and back: from the instance's own device, behind its own rules;
    /// of a virtual machine as if its host device had received it. --duration says how long to wait for an answer
    #[arg(long, value_enum, value_name = "KIND", conflicts_with_all = ["from", "count", "until_drop", "cmd", "direction", "print_filter",
          "ip", "from_ip", "to_ip", "port", "from_port", "to_port", "proto", "expression"])]
    pub(crate) probe: Option<ProbeKind>,
    /// With --probe: whom it is for [default: the gateway]
    #[arg(long, value_name = "ADDRESS[:PORT]", requires = "probe")]
    pub(crate) to: Option<Target>,
    /// With --probe: from outside to the instance's floating IP, as the router's next hop would send it
    #[arg(long, requires = "probe")]
    pub(crate) from_outside: bool,
}

/// What kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProbeKind {
    /// A SYN
    Tcp,
    /// A datagram
    Udp,
    /// An echo request
    Icmp,
    /// Who has the gateway's address, or --to? By ARP, or neighbour discovery of IPv6
    Arp,
    /// A DISCOVER
    Dhcp,
}

/// Which packets. Of one option given several times any may hold; different options must all hold.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Wanted {
    /// Address or prefix of either end
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Vec<String>,
    /// Address or prefix it comes from
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) from_ip: Vec<String>,
    /// Address or prefix it goes to
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) to_ip: Vec<String>,
    /// Port of either end, or a range: 8000-8080
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Vec<String>,
    /// Port it comes from
    #[arg(long, value_name = "PORT")]
    pub(crate) from_port: Vec<String>,
    /// Port it goes to
    #[arg(long, value_name = "PORT")]
    pub(crate) to_port: Vec<String>,
    /// IP protocol, by name or number, or arp
    #[arg(long, visible_alias = "protocol", value_name = "PROTOCOL")]
    pub(crate) proto: Vec<String>,
    /// An expression in the language of pcap, behind --: host, net, port, portrange, src, dst, tcp, and, or, not and so on
    #[arg(last = true, value_name = "EXPRESSION")]
    pub(crate) expression: Vec<String>,
}

/// How much is enough.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Limits {
    /// End after so many packets; of watch, lines; of events, events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// End after so long: 30s, 5m, 500ms; without a unit, seconds
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
}

/// When to end.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Bounds {
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// End with the first packet that dies
    #[arg(long)]
    pub(crate) until_drop: bool,
    /// Run this command by the shell, and end with it
    #[arg(long, value_name = "COMMAND")]
    pub(crate) cmd: Option<String>,
}

impl Wanted {
    /// Whether anything was said.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { ip, from_ip, to_ip, port, from_port, to_port, proto, expression } = self;
        [ip, from_ip, to_ip, port, from_port, to_port, proto, expression].iter().all(|words| words.is_empty())
    }
}

impl Limits {
    /// Whether so many are enough.
    pub(crate) fn is_reached(self, number: u64) -> bool {
        self.count == Some(number)
    }

    /// When it is time to end, from now on.
    pub(crate) fn until(self) -> Option<Instant> {
        self.duration.map(|duration| Instant::now() + duration)
    }
}

impl Bounds {
    /// Whether anything was said.
    pub(crate) const fn is_empty(&self) -> bool {
        let Limits { count, duration } = self.limits;
        count.is_none() && duration.is_none() && !self.until_drop && self.cmd.is_none()
    }
}

/// `netdiag drops`.
#[derive(Debug, Args)]
pub(crate) struct Drops {
    /// Only packets of this instance
    #[arg(long)]
    pub(crate) instance: Option<String>,
    /// Only with this reason, the kernel's (`NETFILTER_DROP`) or netdiag's (no-rule); may be given several times
    #[arg(long)]
    pub(crate) reason: Vec<String>,
    #[command(flatten)]
    pub(crate) wanted: Wanted,
    /// What watching may take of a CPU, in percent, in the kernel and by itself together: beyond it packets are left out, and counted
    #[arg(long, value_name = "PERCENT", value_parser = share, default_value = "5", env = "NETDIAG_MAX_OVERHEAD")]
    pub(crate) max_overhead: f64,
    #[command(flatten)]
    pub(crate) limits: Limits,
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

/// `netdiag watch`.
#[derive(Debug, Args)]
pub(crate) struct Watch {
    /// Name, container id, Nova or Neutron UUID (or a prefix), fixed or floating IP, MAC, device or pid
    pub(crate) instance: String,
    /// Time between two looks: 2s, 500ms, 1m; without a unit, seconds
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s", env = "NETDIAG_INTERVAL")]
    pub(crate) interval: Duration,
    #[command(flatten)]
    pub(crate) limits: Limits,
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

/// A span of time: a number with a unit, or seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|sign: char| !sign.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let scale = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("a time is a number with ms, s, m or h, as 30s is".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "a time begins with a number, as 30s does".to_owned())?;
    match number.checked_mul(scale) {
        Some(0) => Err("it has to be longer than nothing".to_owned()),
        Some(milliseconds) => Ok(Duration::from_millis(milliseconds)),
        None => Err("nobody waits so long".to_owned()),
    }
}

/// A share, given in percent.
fn share(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| "percent are a number, as 5 or 0.5".to_owned())?;
    if percent > 0.0 && percent <= 100.0 {
        Ok(percent / 100.0)
    } else {
        Err("it is more than 0 and at most 100".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{duration, share};

    #[test]
    fn a_share_is_given_in_percent() {
        for (text, expected) in [("5", 0.05), ("0.5", 0.005), ("100", 1.0)] {
            assert!((share(text).unwrap() - expected).abs() < 1e-9, "{text}");
        }
        for text in ["", "five", "0", "-1", "101", "NaN", "inf", "5%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_time_is_a_number_with_a_unit() {
        for (text, milliseconds) in
            [("30s", 30_000), ("30", 30_000), ("500ms", 500), ("5m", 300_000), ("1h", 3_600_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in ["", "s", "-1s", "1d", "0s", "1.5s", "99999999999999999999s", "9999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}

//! The target of a rule and its options. Flow: explain.

use std::net::IpAddr;

use super::{
    options::{masked, number, port_range},
    words::Words,
};
use crate::netfilter::{ConnmarkOp, NatPorts, NatTo, Target};

/// Targets after which the packet always goes on, unchanged in what rules can match.
const PASSING: [&str; 21] = [
    "AUDIT",
    "CHECKSUM",
    "CLASSIFY",
    "CONNSECMARK",
    "DSCP",
    "ECN",
    "HL",
    "IDLETIMER",
    "LED",
    "LOG",
    "NFLOG",
    "RATEEST",
    "SECMARK",
    "SET",
    "TCPMSS",
    "TCPOPTSTRIP",
    "TEE",
    "TOS",
    "TRACE",
    "TTL",
    "ULOG",
];

/// Reads `-j` or `-g` and all that follows; `None` where the rule has no target.
pub(super) fn read(words: &mut Words<'_>, is_chain: impl Fn(&str) -> bool) -> Option<Target> {
    let start = words.place();
    let goto = words.take_option("-g") || words.take_option("--goto");
    if !goto && !words.take_option("-j") && !words.take_option("--jump") {
        return None;
    }
    let name = words.take()?;
    if goto {
        return Some(Target::Goto(name));
    }
    let options = Options::read(words);
    let text = || {
        let mut all = words.text_since(start);
        all.drain(..all.find(&name).unwrap_or(0));
        all
    };
    Some(match name.as_str() {
        "ACCEPT" => Target::Accept,
        "DROP" => Target::Drop,
        "RETURN" => Target::Return,
        "QUEUE" | "NFQUEUE" => Target::Queue,
        _ if is_chain(&name) => Target::Jump(name),
        _ if PASSING.contains(&name.as_str()) => Target::Passes(text()),
        _ => extension(&name, &options).unwrap_or_else(|| Target::Other(text())),
    })
}

/// An extension that ends a packet's way or changes what later rules match.
fn extension(name: &str, options: &Options) -> Option<Target> {
    match name {
        "REJECT" => Some(Target::Reject(options.value("--reject-with").map(str::to_owned))),
        "DNAT" => Some(Target::Dnat(options.nat("--to-destination")?)),
        "SNAT" => Some(Target::Snat(options.nat("--to-source")?)),
        "MASQUERADE" => Some(Target::Masquerade(options.nat_ports()?)),
        "REDIRECT" => Some(Target::Redirect(options.nat_ports()?)),
        "MARK" => mark(options).map(|(value, mask)| Target::Mark { value, mask }),
        "CONNMARK" => connmark(options).map(Target::Connmark),
        "NOTRACK" => Some(Target::Track { zone: None, notrack: true }),
        "CT" => Some(Target::Track {
            zone: options.value("--zone").and_then(|zone| zone.parse().ok()),
            notrack: options.has("--notrack"),
        }),
        _ => None,
    }
}

/// All forms are exclusive or after clearing, which is what the kernel stores; `iptables-save` prints `--set-xmark`.
fn mark(options: &Options) -> Option<(u32, u32)> {
    let [(option, Some(value))] = options.0.as_slice() else {
        return None;
    };
    match option.as_str() {
        "--set-xmark" => masked(value),
        "--set-mark" => masked(value).map(|(value, mask)| (value, value | mask)),
        "--and-mark" => number(value).map(|mask| (0, !mask)),
        "--or-mark" => number(value).map(|bits| (bits, bits)),
        "--xor-mark" => number(value).map(|bits| (bits, 0)),
        _ => None,
    }
}

fn connmark(options: &Options) -> Option<ConnmarkOp> {
    let mask = |option| options.value(option).map_or(Some(u32::MAX), number);
    let (nfmask, ctmask) = match options.value("--mask") {
        Some(both) => (number(both)?, number(both)?),
        None => (mask("--nfmask")?, mask("--ctmask")?),
    };
    if options.has("--save-mark") {
        Some(ConnmarkOp::Save { nfmask, ctmask })
    } else if options.has("--restore-mark") {
        Some(ConnmarkOp::Restore { nfmask, ctmask })
    } else {
        mark(options).map(|(value, mask)| ConnmarkOp::Set { value, mask })
    }
}

/// Options of a target, each with its first value.
struct Options(Vec<(String, Option<String>)>);

impl Options {
    fn read(words: &mut Words<'_>) -> Self {
        let mut options = Vec::new();
        while let Some(option) = words.take() {
            let valued = words.option().is_none_or(|word| !word.starts_with("--"));
            options.push((option, if valued { words.take() } else { None }));
        }
        Self(options)
    }

    fn has(&self, option: &str) -> bool {
        self.0.iter().any(|(name, _)| name == option)
    }

    fn value(&self, option: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| name == option).and_then(|(_, value)| value.as_deref())
    }

    fn random(&self) -> bool {
        self.has("--random") || self.has("--random-fully")
    }

    /// `DNAT --to-destination`, `SNAT --to-source`; kernels before 2.6.11 took several, which is not understood.
    fn nat(&self, option: &str) -> Option<NatTo> {
        let mut all = self.0.iter().filter(|(name, _)| name == option);
        let (Some((_, Some(text))), None) = (all.next(), all.next()) else {
            return None;
        };
        let (addresses, ports) = endpoint(text)?;
        Some(NatTo { addresses, ports, random: self.random() })
    }

    /// `MASQUERADE --to-ports`, `REDIRECT --to-ports`.
    fn nat_ports(&self) -> Option<NatTo> {
        let ports = match self.value("--to-ports").or_else(|| self.value("--to-port")) {
            Some(text) => Some(nat_ports(text)?),
            None => None,
        };
        Some(NatTo { addresses: None, ports, random: self.random() })
    }
}

type Endpoint = (Option<(IpAddr, IpAddr)>, Option<NatPorts>);

/// `10.0.0.2`, `10.0.0.2:22`, `10.0.0.2-10.0.0.9:60-70/40`, `:22`, `[fd00::2]:22`, `fd00::2`.
fn endpoint(text: &str) -> Option<Endpoint> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (addresses, rest) = bracketed.split_once(']')?;
        // Written `[a]-[b]:port` for a span.
        let (last, rest) = match rest.strip_prefix("-[") {
            Some(second) => second.split_once(']').map(|(last, rest)| (Some(last), rest))?,
            None => (None, rest),
        };
        let ports = match rest.strip_prefix(':') {
            Some(ports) => Some(nat_ports(ports)?),
            None => None,
        };
        let (first, end) = addresses.split_once('-').unwrap_or((addresses, last.unwrap_or(addresses)));
        return Some((Some((first.parse().ok()?, end.parse().ok()?)), ports));
    }
    if text.matches(':').count() > 1 {
        return Some((Some(address_span(text)?), None));
    }
    match text.split_once(':') {
        Some(("", ports)) => Some((None, Some(nat_ports(ports)?))),
        Some((addresses, ports)) => Some((Some(address_span(addresses)?), Some(nat_ports(ports)?))),
        None => Some((Some(address_span(text)?), None)),
    }
}

fn address_span(text: &str) -> Option<(IpAddr, IpAddr)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some((first.parse().ok()?, last.parse().ok()?))
}

/// `22`, `60-70`, `60-70/40`.
fn nat_ports(text: &str) -> Option<NatPorts> {
    let (range, base) = match text.split_once('/') {
        Some((range, base)) => (range, Some(base.parse().ok()?)),
        None => (text, None),
    };
    Some(NatPorts { range: port_range(range, '-')?, base })
}

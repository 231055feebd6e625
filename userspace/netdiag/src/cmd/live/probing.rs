//! One packet of netdiag's own: planned, announced, sent once, and judged.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context as _;
use netdiag_agent::{
    discover::Options,
    live::probe::{SendError, Sender},
};
use netdiag_model::{
    inventory::Inventory,
    live::{
        filter::Wanted,
        journey::Journey,
        points::Points,
        probe::{self, Asked, Heard, Mark, Probe, Refusal},
        report::{Summary, Told},
    },
    trace::Trace,
};
use netdiag_views::escape;
use rustix::{
    process::getpid,
    time::{ClockId, clock_gettime},
};

use crate::{
    cli::live::{ProbeKind, Probed},
    exit::Bad,
};

/// How long is waited for the answer to a question for a neighbour.
const ARP_PATIENCE: Duration = Duration::from_secs(1);

/// How long is waited for an answer, unless something else is asked for: longer than a lost packet is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);

/// A packet of netdiag's own.
pub(super) struct Probing {
    probe: Probe,
    sender: Sender,
    heard: Heard,
}

impl Probing {
    /// The packet that is asked for. Nothing is sent yet.
    pub(super) async fn prepare(
        asked: &Probed,
        (inventory, trace): (&Inventory<'_>, &Trace),
        points: &Points,
        options: &Options,
    ) -> anyhow::Result<Option<Self>> {
        let Some(kind) = asked.probe else { return Ok(None) };
        let asked = Asked { kind: kind.into(), to: asked.to, from_outside: asked.from_outside, mark: mark() };
        let probe = probe::plan(inventory, trace, points, &asked).map_err(refused)?;
        let device = (probe.link, probe.device.as_str());
        let sender = Sender::open(device, probe.entry, options).await.map_err(|error| unsent(&error))?;
        Ok(Some(Self { probe, sender, heard: Heard::default() }))
    }

    /// Which packets are to be watched.
    pub(super) fn wanted(&self) -> Wanted {
        self.probe.wanted()
    }

    /// Says what is sent, and sends it; before that it asks for the MAC address it goes to, if nothing says it.
    pub(super) async fn send(&mut self) -> anyhow::Result<()> {
        if self.probe.next_mac.is_none() {
            self.ask().await?;
        }
        say(&self.probe.announcement())?;
        let frame = self.probe.frame().context("build the probe: its destination is not known")?;
        self.sender.send(frame).await.map_err(|error| unsent(&error))
    }

    async fn ask(&mut self) -> anyhow::Result<()> {
        let Self { probe, sender, .. } = self;
        say(&probe.question_announcement())?;
        let answer = sender.ask(probe.question(), probe.next_hop, ARP_PATIENCE).await;
        let Some(mac) = answer.map_err(|error| unsent(&error))? else {
            let Probe { next_hop, device, .. } = probe;
            let asks = if next_hop.is_ipv4() { "ARP" } else { "neighbour discovery" };
            return Err(Bad::broken(format!(
                "the probe was not sent: {next_hop} does not answer {asks} at {device}; --probe arp --to {next_hop} shows where \
                 the question or its answer dies"
            )));
        };
        probe.next_mac = Some(mac);
        Ok(())
    }

    /// Whether a packet is the probe, or answers it.
    pub(super) fn concerns(&self, journey: &Journey) -> bool {
        self.probe.concerns(journey)
    }

    /// A packet with the end that it has for a probe.
    pub(super) fn settled(&self, journey: Journey) -> Journey {
        self.probe.settled(journey)
    }

    /// Takes a packet that is over; true where nothing more is waited for.
    pub(super) fn hear(&mut self, told: &Told) -> bool {
        self.heard.hear(&self.probe, told);
        self.heard.is_enough()
    }

    /// Says in the summary what came of the probe.
    pub(super) fn judge(&self, summary: Summary) -> Summary {
        let (verdict, sentence) = self.heard.verdict(&self.probe);
        Summary { verdict, sentence, ..summary }
    }
}

impl From<ProbeKind> for probe::Kind {
    fn from(kind: ProbeKind) -> Self {
        match kind {
            ProbeKind::Tcp => Self::Tcp,
            ProbeKind::Udp => Self::Udp,
            ProbeKind::Icmp => Self::Icmp,
            ProbeKind::Arp => Self::Arp,
            ProbeKind::Dhcp => Self::Dhcp,
        }
    }
}

/// A mark that no other packet of these minutes is likely to have.
fn mark() -> Mark {
    let now = clock_gettime(ClockId::Realtime);
    // The golden ratio's bits spread what differs little.
    let seed = now.tv_nsec.cast_unsigned()
        ^ now.tv_sec.cast_unsigned()
        ^ u64::from(getpid().as_raw_nonzero().get().cast_unsigned()) << 32;
    let bytes = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
    let ([id, ..], [.., number]) = (bytes.as_chunks::<2>().0, bytes.as_chunks::<4>().0) else {
        return Mark { id: 1, number: 1 };
    };
    Mark { id: u16::from_be_bytes(*id).max(1), number: u32::from_be_bytes(*number) }
}

fn refused(refusal: Refusal) -> anyhow::Error {
    match refusal {
        Refusal::Usage(text) => Bad::usage(text),
        Refusal::Unknown(text) => Bad::inconclusive(text),
        Refusal::NoWay(text) => Bad::broken(text),
    }
}

fn unsent(error: &SendError) -> anyhow::Error {
    let source = std::error::Error::source(error).map_or_else(String::new, |source| format!(": {source}"));
    let fix = "sending needs root, or CAP_NET_RAW and CAP_SYS_ADMIN, at a guest's device CAP_BPF and CAP_NET_ADMIN";
    Bad::missing(format!("{error}{source}; {fix}"))
}

/// Says something beside the answer.
fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{}", escape::terminal(line, false)).context("write to standard error")
}

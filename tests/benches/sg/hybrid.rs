//! The rules that Neutron's hybrid firewall driver writes: `cargo xtask bench` makes them with the code that makes those of the
//! lab.

use std::{
    env, fs,
    io::Write as _,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::path::{self, Pair};

/// The file with the rules.
pub(super) const FILE: &str = "NETDIAG_BENCH_RULES";

/// A port as Neutron plugs it.
#[derive(Clone, Debug)]
pub(super) struct Plugged {
    pub(super) tap: String,
    pub(super) qvb: String,
    pub(super) qvo: String,
    mac: [u8; 6],
    ipv4: Ipv4Addr,
}

/// Rules of two ports, and the ports.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    pub(super) ports: [Plugged; 2],
    text: Value,
}

impl Rules {
    /// Reads what xtask has written.
    pub(super) fn read() -> Result<Self> {
        let path = env::var(FILE).with_context(|| format!("{FILE} is not set: start this by cargo xtask bench sg"))?;
        let all: Value = serde_json::from_slice(&fs::read(&path).with_context(|| format!("read {path}"))?)?;
        let ports = all["ports"].as_array().context("no ports")?;
        let ports: Vec<_> = ports.iter().map(plugged).collect::<Result<_>>()?;
        Ok(Self { ports: ports.try_into().ok().context("two ports")?, text: all["rules"].clone() })
    }

    /// The two ports.
    pub(super) fn pair(&self) -> Pair {
        let [from, to] = self.ports.clone().map(|port| path::port(port.mac, port.ipv4));
        Pair { from, to }
    }

    /// Makes the packet filter that of so many rules a port.
    pub(super) fn install(&self, rules: u32) -> Result<()> {
        let text = self.text[rules.to_string()].as_str().with_context(|| format!("no text of {rules} rules"))?;
        let mut restore = Command::new("iptables-restore").stdin(Stdio::piped()).spawn().context("iptables-restore")?;
        restore.stdin.take().context("its input")?.write_all(text.as_bytes())?;
        ensure!(restore.wait()?.success(), "iptables-restore refused the rules");
        Ok(())
    }
}

fn plugged(port: &Value) -> Result<Plugged> {
    let word = |name: &str| port[name].as_str().with_context(|| format!("no {name}"));
    let octets: Vec<u8> =
        word("mac")?.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>()?;
    let mac = octets.try_into().ok().context("six octets of a MAC address")?;
    let [tap, qvb, qvo] = [word("tap")?, word("qvb")?, word("qvo")?].map(str::to_owned);
    Ok(Plugged { tap, qvb, qvo, mac, ipv4: word("address")?.parse()? })
}

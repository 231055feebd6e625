//! A router whose rules are Neutron's, between a namespace for the instance and one for the outside.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use netdiag_agent::netns::Namespace;

use super::{BEYOND, FIXED, FLOATING, INNER, INSTANCE, OUTER, Packet};
use crate::{agent::run, behaviour::wire::Wire};

/// How long a packet may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// The router is the namespace of the calling thread.
#[derive(Debug)]
pub struct Router {
    outside: Wire,
    inside: Wire,
}

/// A namespace with a device to here, and what is sent to it goes to.
struct Side {
    namespace: &'static str,
    device: &'static str,
    mac: [u8; 6],
    address: &'static str,
    other_mac: [u8; 6],
    other_address: String,
}

fn text(mac: [u8; 6]) -> String {
    mac.map(|octet| format!("{octet:02x}")).join(":")
}

impl Side {
    fn lay(&self) {
        let Self { namespace, device, mac, address, other_mac, other_address } = self;
        let (mac, other_mac) = (text(*mac), text(*other_mac));
        run(&format!("ip netns add {namespace}"));
        run(&format!("ip netns exec {namespace} sysctl -qw net.ipv6.conf.all.disable_ipv6=1"));
        run(&format!(
            "ip link add {device} address {mac} type veth peer name eth0 address {other_mac} netns {namespace}"
        ));
        run(&format!("ip -n {namespace} link set eth0 up"));
        run(&format!("ip address add {address} dev {device}"));
        run(&format!("ip link set {device} up"));
        run(&format!("ip neighbour add {other_address} lladdr {other_mac} dev {device} nud permanent"));
    }

    async fn wire(&self) -> Result<Wire> {
        let namespace = Namespace::open(&Path::new("/run/netns").join(self.namespace))?;
        Ok(namespace.run(|| Wire::open("eth0")).await??)
    }
}

impl Router {
    /// Makes the namespaces and the rules, in a namespace where there is nothing yet.
    ///
    /// # Errors
    /// A namespace cannot be entered.
    ///
    /// # Panics
    /// A tool fails.
    pub async fn new() -> Result<Self> {
        let (outer, inner) = ("172.24.4.2/24", "10.0.0.1/24");
        let outside = Side {
            namespace: "outside",
            device: "qg-1",
            mac: OUTER,
            address: outer,
            other_mac: BEYOND,
            other_address: "172.24.4.1".to_owned(),
        };
        let inside = Side {
            namespace: "inside",
            device: "qr-1",
            mac: INNER,
            address: inner,
            other_mac: INSTANCE,
            other_address: FIXED.to_string(),
        };
        run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0");
        run("sysctl -qw net.ipv4.conf.default.rp_filter=0 net.ipv4.conf.default.send_redirects=0");
        outside.lay();
        inside.lay();
        run("ip route add default via 172.24.4.1");
        for rule in [
            format!("PREROUTING -d {FLOATING}/32 -j DNAT --to-destination {FIXED}"),
            "POSTROUTING ! -o qg-1 -m conntrack ! --ctstate DNAT -j ACCEPT".to_owned(),
            format!("POSTROUTING -s {FIXED}/32 -j SNAT --to-source {FLOATING}"),
        ] {
            run(&format!("iptables -w -t nat -A {rule}"));
        }
        // This kernel sums up UDP-Lite as if it were UDP, and would call every right checksum of it wrong.
        fs::write("/proc/sys/net/netfilter/nf_conntrack_checksum", "0").context("take checksums as they come")?;
        // As Neutron sets it; there is such a file once something is tracked.
        fs::write("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal", "1").context("take TCP as it comes")?;
        Ok(Self { outside: outside.wire().await?, inside: inside.wire().await? })
    }

    /// What a packet becomes, in the order of its frames.
    ///
    /// # Errors
    /// Less comes out than went in.
    pub fn translate(&self, packet: &Packet) -> Result<Vec<Vec<u8>>> {
        let (from, to) = if packet.inward { (&self.outside, &self.inside) } else { (&self.inside, &self.outside) };
        to.drain();
        for frame in &packet.frames {
            from.send(frame);
        }
        let id = &packet.frames[0][18..20];
        let end = Instant::now() + PATIENCE;
        let mut translated = Vec::new();
        while translated.len() < packet.frames.len() {
            let left = end.saturating_duration_since(Instant::now());
            let next = to.find(left, |frame| frame.get(18..20) == Some(id));
            let count = translated.len();
            translated.push(next.with_context(|| format!("{count} of {} frames came out", packet.frames.len()))?);
        }
        translated.sort_by_key(|frame| u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff);
        ensure!(translated.iter().all(|frame| frame[12..14] == [8, 0]), "what came out is not IP");
        Ok(translated)
    }

    /// Forgets every connection.
    ///
    /// # Panics
    /// The tool fails.
    pub fn forget() {
        run("conntrack -F");
    }
}

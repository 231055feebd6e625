//! Whoever translates a packet of a floating IP comes to the same bytes: the logic in memory, the programs in the kernel at TC
//! and at XDP, and netfilter in a router with Neutron's rules.
//!
//! `NETDIAG_TRANSLATION_PACKETS` says how many packets (4,000 unless told otherwise), `NETDIAG_TRANSLATION_SEED` where to begin; a
//! failure prints the seed of its talk, which with one packet asked for is all that runs.

use std::{collections::BTreeMap, env};

use netdiag_tests::{
    private_host, require_ebpf, require_programs,
    translation::{Kind, Packet, Programs, Router, Talk, translate},
};

/// Packets unless told otherwise: as many as take some seconds on a busy machine.
const PACKETS: u64 = 4_000;
/// After so many talks everybody forgets: as many as have addresses of their own, and fit into what is tracked.
const TALKS: u64 = 10_000;
/// Length of an Ethernet header.
const ETHERNET: usize = 14;

/// A number from the environment.
fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap_or_else(|error| panic!("{variable}={text}: {error}")))
}

fn hex(frames: &[Vec<u8>]) -> String {
    let frame = |frame: &Vec<u8>| frame.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    frames.iter().map(frame).collect::<Vec<_>>().join("\n         ")
}

/// In what two disagree, from the IP header on.
fn difference(one: &[Vec<u8>], other: &[Vec<u8>]) -> Option<String> {
    for (place, (one, other)) in one.iter().zip(other).enumerate() {
        let (one, other) = (&one[ETHERNET..], &other[ETHERNET..]);
        if one.len() != other.len() {
            return Some(format!("frame {place}: {} and {} bytes", one.len(), other.len()));
        }
        if let Some(at) = one.iter().zip(other).position(|(one, other)| one != other) {
            return Some(format!("frame {place}, byte {at} of the IP packet"));
        }
    }
    (one.len() != other.len()).then(|| format!("{} and {} frames", one.len(), other.len()))
}

fn programs() -> Programs {
    Programs::load(netdiag_agent::datapath::OBJECT.expect("the programs")).expect("load the programs")
}

/// All who translate.
struct Translators {
    programs: Programs,
    router: Router,
}

impl Translators {
    async fn new() -> Self {
        Self { programs: programs(), router: Router::new().await.expect("a router") }
    }

    /// Goes through the packets of a seed, which all must agree about; kind and protocol of each.
    fn talk(&mut self, seed: u64) -> Vec<(Kind, u8)> {
        let talk = Talk::new(seed);
        for (place, packet) in talk.packets.iter().enumerate() {
            if let Some(why) = self.disagree(packet) {
                let way = if packet.inward { "to" } else { "from" };
                let (what, frames) = (&packet.what, hex(&packet.frames));
                panic!("seed {seed}, packet {place} {way} the instance, {what}: {why}\nit was   {frames}");
            }
        }
        talk.packets.iter().map(|packet| (packet.kind, packet.frames[0][23])).collect()
    }

    /// Forgets every flow.
    fn forget(&mut self) {
        Router::forget();
        self.programs = programs();
    }

    /// In what they disagree about a packet.
    fn disagree(&mut self, packet: &Packet) -> Option<String> {
        let memory = translate(packet).unwrap_or_default();
        let programs = match self.programs.translate(packet) {
            Ok(frames) => frames,
            Err(error) => return Some(format!("{error:#}")),
        };
        let router = match self.router.translate(packet) {
            Ok(frames) => frames,
            Err(error) => return Some(format!("the router: {error:#}")),
        };
        let why = if memory == programs {
            format!("programs and router: {}", difference(&programs, &router)?)
        } else {
            let why = difference(&memory, &programs).unwrap_or_else(|| "MAC addresses".to_owned());
            format!("memory and programs: {why}")
        };
        let [memory, programs, router] = [hex(&memory), hex(&programs), hex(&router)];
        Some(format!("{why}\nmemory   {memory}\nprograms {programs}\nrouter   {router}"))
    }
}

#[tokio::test]
async fn programs_memory_and_netfilter_come_to_the_same_bytes() {
    if !require_ebpf() || !require_programs(&["ip", "iptables", "conntrack", "sysctl"]) {
        return;
    }
    if !private_host::enter("programs_memory_and_netfilter_come_to_the_same_bytes") {
        return;
    }
    let packets = number("NETDIAG_TRANSLATION_PACKETS").unwrap_or(PACKETS);
    let first = number("NETDIAG_TRANSLATION_SEED").unwrap_or(1);
    let mut translators = Translators::new().await;
    let mut kinds: BTreeMap<(Kind, u8), u64> = BTreeMap::new();
    let (mut seed, mut done) = (first, 0);
    while done < packets {
        if seed != first && (seed - first).is_multiple_of(TALKS) {
            translators.forget();
        }
        for kind in translators.talk(seed) {
            *kinds.entry(kind).or_default() += 1;
            done += 1;
        }
        seed += 1;
    }
    println!("{done} packets, seeds {first} to {seed}, no disagreement; by kind and protocol: {kinds:?}");
}

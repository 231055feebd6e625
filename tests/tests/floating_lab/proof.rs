//! The slow way, then the fast one: what both ends see must be the same.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::Instant,
};

use netdiag_tests::{
    Lab,
    agent::PATIENCE,
    capture::RUN,
    floating::{
        cases::{CASES, Case, REFUSED, Scene, metadata, observe, swap},
        ends::{End, within},
    },
};

use super::stage::{Floating, Host, Marks, Plain, found, peer, plain, policy};

/// Runs of cases: each has ports and identifiers of its own.
pub(crate) struct Runs(AtomicU16);

impl Runs {
    pub(crate) const fn from(first: u16) -> Self {
        Self(AtomicU16::new(first))
    }

    pub(crate) fn base(&self) -> u16 {
        let base = self.0.fetch_add(RUN, Ordering::Relaxed);
        assert!(base + RUN < 32_000, "these are ports of the kernel's own");
        base
    }
}

/// What is to be shown, and where.
pub(crate) struct Proof<'a> {
    pub(crate) host: Host<'a>,
    pub(crate) peers: Vec<(&'static str, End)>,
    pub(crate) floating: Vec<Floating>,
    /// Instances without a floating IP.
    pub(crate) plain: Vec<Plain>,
}

/// What was seen of each case.
type Record = BTreeMap<String, Vec<String>>;

impl<'a> Proof<'a> {
    /// A host of the lab whose agent lets everything through, once all of its floating IPs are fast.
    pub(crate) fn start(lab: &'a Lab, name: &str) -> Self {
        let (floating, plain) = (found(lab, name), plain(lab, name));
        let host = Host::start(lab, name, &policy(&floating, &plain, true));
        let proof = Self { host, peers: ["neighbour", "outside"].map(|name| peer(lab, name)).into(), floating, plain };
        proof.wait_until("fast");
        proof
    }

    /// Waits until all floating IPs are in a state.
    pub(crate) fn wait_until(&self, state: &str) {
        for floating in &self.floating {
            self.host.wait_for(floating.address, state);
        }
    }

    /// The policy that lets nothing in.
    pub(crate) fn closed(&self) -> String {
        policy(&self.floating, &self.plain, false)
    }

    /// Work for each floating IP, for all at once: most of it is waiting.
    fn each<T: Send>(&self, work: impl Fn(&Floating) -> T + Sync) -> Vec<T> {
        let work = &work;
        thread::scope(|scope| {
            let started: Vec<_> = self.floating.iter().map(|floating| scope.spawn(move || work(floating))).collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    /// All ways between a floating IP and the peers.
    pub(crate) fn scenes(&self, floating: &Floating) -> Vec<(String, Scene)> {
        let scenes = self.peers.iter().flat_map(|(name, peer)| {
            let (instance, address) = (floating.instance.clone(), floating.address);
            let inward = Scene {
                asker: peer.clone(),
                answerer: instance.clone(),
                asked: address,
                seen: peer.address,
                outward: false,
            };
            let outward =
                Scene { asker: instance, answerer: peer.clone(), asked: peer.address, seen: address, outward: true };
            [(format!("{name} to {address}"), inward), (format!("{address} to {name}"), outward)]
        });
        scenes.collect()
    }

    /// Ways that lead through the router whatever the floating IP's own is: to itself, to the others behind its router, and
    /// to it from an instance that has none.
    fn hairpins(&self, floating: &Floating) -> Vec<(String, Scene)> {
        let asks = |asker: &End, seen: Ipv4Addr, asked: &Floating| {
            let name = format!("{} to {}", asker.address, asked.address);
            let (asker, answerer) = (asker.clone(), asked.instance.clone());
            (name, Scene { asker, answerer, asked: asked.address, seen, outward: true })
        };
        let behind = |router: &str| router == floating.router_name;
        let others = self.floating.iter().filter(|other| behind(&other.router_name));
        let own = others.map(|other| asks(&floating.instance, floating.address, other));
        let plain = self.plain.iter().find(|plain| behind(&plain.router_name));
        own.chain(plain.map(|plain| asks(&plain.instance, plain.inside, floating))).collect()
    }

    /// An instance without a floating IP, which leaves as its router does.
    fn leaving(&self, floating: &Floating) -> Vec<(String, Scene)> {
        let plain = self.plain.iter().find(|plain| plain.router_name == floating.router_name);
        let scenes = plain.into_iter().flat_map(|plain| self.peers.iter().map(move |peer| (plain, peer)));
        let scenes = scenes.map(|(plain, (name, peer))| {
            let (asker, answerer) = (plain.instance.clone(), peer.clone());
            let scene = Scene { asker, answerer, asked: peer.address, seen: plain.gateway, outward: true };
            (format!("{} to {name}", plain.instance.address), scene)
        });
        scenes.collect()
    }

    /// Runs every case, and says what was seen in each.
    fn run(&self, runs: &Runs, fast: bool) -> Record {
        let peers = self.peers.iter().map(|(_, peer)| peer);
        for end in self.floating.iter().map(|floating| &floating.instance).chain(peers) {
            end.forget_paths();
        }
        let mut record = Record::new();
        // Bulk fills queues, and what is not repeated must not be lost there.
        for is_bulk in [false, true] {
            let is_due = move |case: &&Case| (case.name == "tcp") == is_bulk;
            record.extend(self.each(|floating| self.past(floating, runs, (fast, &is_due))).into_iter().flatten());
            // Only then, as these count at rules of several floating IPs.
            record.extend(self.each(|floating| self.through(floating, runs, &is_due)).into_iter().flatten());
        }
        record
    }

    /// What goes past the router where that is the way.
    fn past(&self, floating: &Floating, runs: &Runs, (fast, is_due): (bool, &dyn Fn(&&Case) -> bool)) -> Record {
        let mut record = Record::new();
        for (name, scene) in self.scenes(floating) {
            for case in CASES.iter().filter(is_due) {
                let what = format!("{} from {name}", case.name);
                // What goes by the switch may be lost there, once; what goes past it may not.
                let tries = if fast && case.fast { 1 } else { 3 };
                for left in (0..tries).rev() {
                    let (before, base) = (self.host.marks(floating, 0), runs.base());
                    let words = observe(&scene, case, base);
                    if left > 0 && has_lost_an_answer(&words) {
                        continue;
                    }
                    if case.fast {
                        assert!(case.name == "tcp" || words.len() > 2, "{what}: {words:#?}");
                        check_way(&what, fast, (&before, &self.host.marks(floating, base)));
                    }
                    record.insert(what, words);
                    break;
                }
            }
        }
        record
    }

    /// What goes through the router either way.
    fn through(&self, floating: &Floating, runs: &Runs, is_due: &dyn Fn(&&Case) -> bool) -> Record {
        let mut record = Record::new();
        let first = self.floating.iter().find(|other| other.router_name == floating.router_name);
        // Instances that have none are of no floating IP more than of another.
        let is_first = first.is_some_and(|first| first.address == floating.address);
        let leaving = if is_first { self.leaving(floating) } else { Vec::new() };
        let cases = || CASES.iter().filter(|case| ["ping", "udp", "tcp"].contains(&case.name)).filter(is_due);
        for (name, scene) in self.hairpins(floating).into_iter().chain(leaving) {
            for case in cases() {
                let (before, base) = (self.host.packets(floating, "fast"), runs.base());
                let what = format!("{} from {name}", case.name);
                let words = observe(&scene, &Case { packets: None, ..*case }, base);
                assert_eq!(self.host.packets(floating, "fast"), before, "{what} is the router's: {words:#?}");
                let (tracked, _) = Host::traces(floating, base);
                assert!(tracked > 0, "{what}: the router has not seen it: {words:#?}");
                // How often a router says that there is a shorter way is a matter of time.
                let redirect = |line: &String| line.contains(": icmp 501 ");
                record.insert(what, words.into_iter().filter(|line| !redirect(line)).collect());
            }
        }
        if floating.has_metadata && is_first {
            record.insert(format!("metadata for {}", floating.address), metadata(&floating.instance));
        }
        record
    }

    /// The slow way, then the fast one.
    pub(crate) fn same_both_ways(&self, runs: &Runs) {
        self.host.all("slow");
        self.wait_until("slow");
        let slow = self.run(runs, false);
        self.host.all("fast");
        self.wait_until("fast");
        same(&slow, &self.run(runs, true));
        if let Some(path) = std::env::var_os("NETDIAG_FLOATING_SEEN") {
            std::fs::write(path, format!("{slow:#?}")).unwrap();
        }
    }

    /// A flow of a floating IP that begins now goes through the router.
    pub(crate) fn is_routed(&self, floating: &Floating, runs: &Runs, why: &str) {
        let (name, scene) = &self.scenes(floating)[0];
        let base = runs.base();
        let words = observe(scene, &CASES[1], base);
        let (tracked, _) = Host::traces(floating, base);
        assert!(tracked > 0, "{name}: {why}, and the router has not seen it: {words:#?}");
    }

    /// An instance and the one beside it send to each other past their bridge.
    pub(crate) fn is_straight(&self, runs: &Runs) {
        let (floating, beside) = (&self.floating[0], &self.plain[0].instance);
        let [one, other] = [&floating.instance, beside];
        let scene = Scene {
            asker: one.clone(),
            answerer: other.clone(),
            asked: other.address,
            seen: one.address,
            outward: true,
        };
        let started = Instant::now();
        let straight = || self.host.packets(floating, "straight")[1];
        loop {
            let before = straight();
            let words = observe(&scene, &CASES[1], runs.base());
            let gone = straight() - before;
            if gone == 3 {
                return;
            }
            assert!(started.elapsed() < PATIENCE, "{gone} of three go straight: {words:#?}");
        }
    }

    /// What is sent to a port of an address reaches that of an instance, from every peer.
    pub(crate) fn is_forwarded(&self, asked: (Ipv4Addr, u16), instance: &End, port: u16) {
        let listener = within(&instance.netns, move || TcpListener::bind(("0.0.0.0", port))).unwrap();
        for (name, peer) in &self.peers {
            let connect = move || TcpStream::connect_timeout(&asked.into(), PATIENCE);
            let client = within(&peer.netns, connect).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (server, by) = listener.accept().unwrap();
            assert_eq!(by.ip(), peer.address, "{name}");
            let other = thread::spawn(move || swap(server, (1, 2)));
            swap(client, (2, 1));
            other.join().unwrap();
        }
    }

    /// Lets everything in again.
    pub(crate) fn open(&self, runs: &Runs) {
        self.host.policy(&policy(&self.floating, &self.plain, true));
        let started = Instant::now();
        self.each(|floating| {
            let scene = &self.scenes(floating)[0].1;
            while observe(scene, &REFUSED, runs.base()).iter().all(|line| line.starts_with("asker sends")) {
                assert!(started.elapsed() < PATIENCE, "{} is never open", floating.address);
            }
        });
    }

    /// What security groups refuse does not arrive, whichever way.
    pub(crate) fn closed_both_ways(&self, runs: &Runs, policy: &str) {
        self.host.policy(policy);
        let started = Instant::now();
        self.each(|floating| {
            let scene = &self.scenes(floating)[0].1;
            while !observe(scene, &REFUSED, runs.base()).iter().all(|line| line.starts_with("asker sends")) {
                assert!(started.elapsed() < PATIENCE, "{} is never closed", floating.address);
            }
        });
        for way in ["slow", "fast"] {
            self.host.all(way);
            self.each(|floating| {
                self.host.wait_for(floating.address, way);
                for (name, scene) in self.scenes(floating).into_iter().filter(|(_, scene)| !scene.outward) {
                    let words = observe(&scene, &REFUSED, runs.base());
                    let sent = words.iter().filter(|line| line.starts_with("asker sends")).count();
                    assert_eq!((sent, words.len()), (3, 3), "{way}: {name}: {words:#?}");
                }
            });
        }
    }
}

/// Whether an answer was sent that did not come.
fn has_lost_an_answer(words: &[String]) -> bool {
    let count = |what: &str| words.iter().filter(|line| line.starts_with(what)).count();
    count("answerer sends") > count("asker gets")
}

/// Both records tell the same.
pub(crate) fn same(slow: &Record, fast: &Record) {
    assert!(slow.keys().eq(fast.keys()), "{:?}\n{:?}", slow.keys(), fast.keys());
    for (what, words) in slow {
        let other = &fast[what];
        assert!(words == other, "{what}:\nslow: {words:#?}\nfast: {other:#?}");
    }
}

/// Floating IPs of two hosts to each other, both of which go their way, slow and fast.
pub(crate) fn between_hosts(proofs: [&Proof<'_>; 2], runs: &Runs) {
    let ends = proofs.map(|proof| (proof, &proof.floating[0]));
    let mut records = Vec::new();
    for way in ["slow", "fast"] {
        for (proof, _) in ends {
            proof.host.all(way);
            proof.wait_until(way);
        }
        let mut record = Record::new();
        for ((here, from), (there, to)) in [(ends[0], ends[1]), (ends[1], ends[0])] {
            let (asker, answerer) = (from.instance.clone(), to.instance.clone());
            let scene = Scene { asker, answerer, asked: to.address, seen: from.address, outward: true };
            for case in &CASES {
                let what = format!("{} from {} to {}", case.name, from.address, to.address);
                let (mine, its, base) = (here.host.marks(from, 0), there.host.marks(to, 0), runs.base());
                let words = observe(&scene, &Case { packets: None, ..*case }, base);
                if case.fast {
                    check_way(&what, way == "fast", (&mine, &here.host.marks(from, base)));
                    check_way(&what, way == "fast", (&its, &there.host.marks(to, base)));
                }
                record.insert(what, words);
            }
        }
        records.push(record);
    }
    same(&records[0], &records[1]);
}

/// A case that has nothing to do with the router has gone past it, or through it, and nothing else.
fn check_way(what: &str, fast: bool, (before, after): (&Marks, &Marks)) {
    let gone = [0, 1].map(|way| after.fast[way] - before.fast[way]);
    assert!(!after.rules.is_empty(), "{what}: the router has no rules for it");
    if !fast {
        assert_eq!(gone, [0, 0], "{what}: it went the fast way: {after:#?}");
        assert!(after.tracked > 0 && after.rules != before.rules, "{what}: not by the router: {before:#?}\n{after:#?}");
        return;
    }
    assert!(gone[0] > 0 && gone[1] > 0, "{what}: not past the router: {before:#?}\n{after:#?}");
    let doubtful = after.doubtful - before.doubtful;
    if doubtful == 0 {
        assert_eq!(after.tracked, 0, "{what}: the router has seen it: {before:#?}\n{after:#?}");
        assert_eq!(after.rules, before.rules, "{what}: rules of the router have counted");
    } else {
        assert!(doubtful * 100 < gone[0] + gone[1], "{what}: too many for chance: {before:#?}\n{after:#?}");
    }
}

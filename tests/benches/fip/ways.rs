//! The ways between outside and instance, and what is measured of each.

use std::{net::SocketAddrV4, os::fd::OwnedFd, time::Duration};

use anyhow::{Context as _, Result, ensure};
use netdiag_common::abi::floating::Way as Taken;

use super::{
    Effort, SIZES,
    course::{Course, Ends, Measured},
    district::{BEYOND, District, INSTANCE},
    fast::Fast,
    kernel,
    program::Programs,
    report::Report,
    router::{Filter, Router, Rules},
    small,
    stats::Samples,
    talk::{Talk, Talked},
    world::OPEN,
};

/// What is between the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Programs that only redirect; inward into the peer or not.
    Floor(bool),
    /// The first of these, with the floating IP looked up.
    Found,
    /// netdiag; the same.
    Fast(bool),
    /// The bridge alone.
    Bridge,
    /// The router of a place among all.
    Router(usize),
}

/// One way.
struct Way {
    name: String,
    kind: Kind,
    /// How many floating IPs, where there are any.
    size: Option<u16>,
    course: Course,
    measured: Measured,
    talked: Talked,
}

/// Everything.
pub(super) struct Bench {
    district: District,
    talk: Talk,
    routers: Vec<Router>,
    ways: Vec<Way>,
    fast: Fast,
}

impl Way {
    fn new(name: &str, kind: Kind, size: Option<u16>, ends: Ends) -> Self {
        let name = size.map_or_else(|| name.to_owned(), |size| format!("{name}, {size}"));
        let (measured, talked) = (Measured::default(), Talked::default());
        Self { name, kind, size, course: Course::new(ends), measured, talked }
    }
}

/// Where the ways of a number of floating IPs begin.
fn ends(rules: &Rules, router: &Router, size: u16) -> Ends {
    let count = u32::from(size);
    Ends { macs: router.macs, outside: (rules.floating(0), count), inside: (rules.fixed(0), count) }
}

impl Bench {
    /// Lays the cables, makes the routers and the frames.
    pub(super) async fn new() -> Result<Self> {
        let rules = Rules::read()?;
        let district = District::new().await?;
        let mut routers = vec![Router::new(0, Filter::None, 1, &rules)?];
        let direct = Ends { macs: [INSTANCE, BEYOND], outside: (rules.fixed(0), 1), inside: (rules.fixed(0), 1) };
        let through = Ends { macs: routers[0].macs, ..direct };
        let mut ways = vec![
            Way::new("redirect only, peer", Kind::Floor(true), None, direct),
            Way::new("redirect only", Kind::Floor(false), None, direct),
            Way::new("bridge", Kind::Bridge, None, direct),
            Way::new("routing only", Kind::Router(0), None, through),
        ];
        for size in SIZES {
            for (name, filter) in [("router, iptables", Filter::Legacy), ("router, nft", Filter::Nft)] {
                let place = routers.len();
                let router = Router::new(u8::try_from(place)?, filter, size, &rules)?;
                let ends = ends(&rules, &router, size);
                ways.push(Way::new(name, Kind::Router(place), Some(size), ends));
                // netdiag is beside that router.
                if filter == Filter::Legacy {
                    let found = Ends { macs: direct.macs, outside: ends.inside, ..ends };
                    ways.push(Way::new("lookup and redirect, peer", Kind::Found, Some(size), found));
                    ways.push(Way::new("netdiag, peer", Kind::Fast(true), Some(size), ends));
                    ways.push(Way::new("netdiag", Kind::Fast(false), Some(size), ends));
                }
                routers.push(router);
            }
        }
        let addresses: Vec<_> = SIZES.iter().map(|size| rules.fixed(u32::from(*size) / 2)).collect();
        let talk = Talk::new(&district, &addresses).await?;
        let fast = Fast::new(&district, None)?;
        Ok(Self { district, talk, routers, ways, fast })
    }

    /// Measures the programs by themselves, in turn with those of another object where one is given; says what came of it.
    pub(super) fn programs(
        &mut self,
        report: &mut Report,
        (rounds, repeat): (u32, u32),
        against: Option<&[u8]>,
    ) -> Result<()> {
        let mut other = against.map(|object| Fast::new(&self.district, Some(object))).transpose()?;
        let all = || {
            let ways = self.ways.iter().filter(|way| way.kind == Kind::Fast(true));
            ways.map(|way| Programs::new(way.course.ends)).collect::<Vec<_>>()
        };
        let (mut own, mut others) = (all(), all());
        for _ in 0..rounds {
            for (own, others) in own.iter_mut().zip(&mut others) {
                own.measure(&mut self.fast, &self.district, repeat)?;
                if let Some(other) = &mut other {
                    others.measure(other, &self.district, repeat)?;
                }
            }
        }
        for (own, others) in own.iter().zip(&others) {
            report.part("program, BPF_PROG_TEST_RUN, gross");
            own.report(report);
            if other.is_some() {
                report.part("the same, the other object");
                others.report(report);
            }
        }
        Ok(())
    }

    /// Measures every way, one after the other, so often.
    pub(super) async fn measure(&mut self, effort: Effort) -> Result<()> {
        for round in 0..effort.rounds {
            for way in &mut self.ways {
                let links = begin(way, &self.district, &mut self.fast)?;
                frames(way, &mut self.district, (round, effort.batches)).await?;
                talk(way, &self.district, &self.talk, effort.talk).await?;
                drop(links);
                match way.kind {
                    Kind::Fast(_) => {
                        all_fast(&self.fast, &self.district)?;
                        self.fast.end()?;
                    }
                    Kind::Router(place) if way.size.is_some() => self.routers[place].forget()?,
                    Kind::Floor(_) | Kind::Found | Kind::Bridge | Kind::Router(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// Makes a way the one that is taken, for as long as what is returned lives.
fn begin(way: &Way, district: &District, fast: &mut Fast) -> Result<Vec<OwnedFd>> {
    let (outer, port) = (district.outside.device, district.instance.device);
    Ok(match way.kind {
        Kind::Floor(peer) => {
            let inward = if peer { small::redirect_peer(port)? } else { small::redirect(port)? };
            vec![kernel::attach(&inward, outer, false)?, kernel::attach(&small::redirect(outer)?, port, false)?]
        }
        Kind::Found => {
            let outside = way.course.ends.outside;
            let addresses: Vec<_> = (0..outside.1).map(|place| Ends::address(outside, place)).collect();
            let inward = small::redirect_peer_found(port, &addresses)?;
            vec![kernel::attach(&inward, outer, false)?, kernel::attach(&small::redirect(outer)?, port, false)?]
        }
        Kind::Fast(peer) => {
            fast.begin(&way.course.ends, peer)?;
            Vec::new()
        }
        Kind::Bridge | Kind::Router(_) => Vec::new(),
    })
}

/// Sends frames. What is sent and does not arrive is an error: it would be cheap.
async fn frames(way: &mut Way, district: &mut District, part: (usize, usize)) -> Result<()> {
    district.outside.end(true).await?;
    district.instance.end(true).await?;
    let ended = |district: &District| Ok::<_, anyhow::Error>([district.instance.ended()?, district.outside.ended()?]);
    let before = ended(district)?;
    let begun = way.course.begin(district)?;
    let sent = way.course.measure(district, part, &mut way.measured)?;
    let after = ended(district)?;
    for (place, direction) in ["inward", "outward"].into_iter().enumerate() {
        let (arrived, sent) = (after[place] - before[place], begun[place] + sent[place]);
        ensure!(arrived == sent, "{}: {arrived} of {sent} frames arrived {direction}", way.name);
    }
    district.outside.end(false).await?;
    district.instance.end(false).await
}

async fn talk(way: &mut Way, district: &District, talk: &Talk, effort: (usize, usize)) -> Result<()> {
    let ends = way.course.ends;
    let to = Ends::address(ends.outside, ends.middle());
    district.outside.know(&to.to_string(), ends.macs[0])?;
    district.instance.know("10.2.0.1", ends.macs[1])?;
    let talked = &mut way.talked;
    talk.measure(district, SocketAddrV4::new(to, OPEN), effort, talked).await.with_context(|| way.name.clone())?;
    // What the last connection had to say must not be counted among the frames of the next way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// Makes sure that what was measured was the fast way.
fn all_fast(fast: &Fast, district: &District) -> Result<()> {
    let ways = fast.host.enforcer.ways(fast.host.slot(district.instance.device)?)?;
    let slow: Vec<_> = ways.iter().filter(|((_, way), _)| *way != Taken::Fast).collect();
    ensure!(!ways.is_empty() && slow.is_empty(), "not all was fast: {slow:?}");
    Ok(())
}

// === what is said ===

impl Bench {
    /// Says what it came to.
    pub(super) fn report(&self, report: &mut Report) {
        for (title, samples) in [
            ("inward, one connection", (|way| &way.measured.one) as fn(&Way) -> &Samples),
            ("inward, 10,048 connections in turn, of all floating IPs", |way| &way.measured.turn),
            ("inward, new connections", |way| &way.measured.new),
            ("outward, one connection", |way| &way.measured.back),
        ] {
            report.part(title);
            for way in &self.ways {
                report.samples(way.name.as_str(), (samples(way), 0.0), None);
            }
        }
        self.rates(report);
        self.sockets(report);
        self.targets(report);
    }

    fn rates(&self, report: &mut Report) {
        report.part("packets a second, inward, one connection, one CPU");
        for way in &self.ways {
            report.figure(way.name.as_str(), 1e6 / way.measured.one.p5(), "k/s", None);
        }
    }

    fn sockets(&self, report: &mut Report) {
        report.part("TCP: connect and accept");
        for way in &self.ways {
            report.samples(way.name.as_str(), (&way.talked.connections, 0.0), None);
        }
        report.part("TCP: connections a second, one CPU");
        for way in &self.ways {
            report.figure(way.name.as_str(), 1e6 / way.talked.connections.p5(), "k/s", None);
        }
        for percent in [50, 99] {
            report.part(format!("TCP: question and answer, percentile {percent}"));
            for way in &self.ways {
                report.figure(way.name.as_str(), way.talked.trips.percentile(percent), "ns", None);
            }
        }
    }

    /// p5 of one connection inward, and outward, of a way.
    fn one(&self, kind: Kind, size: Option<u16>) -> [f64; 2] {
        let way = self.ways.iter().find(|way| way.kind == kind && way.size == size);
        way.map_or([f64::NAN; 2], |way| [way.measured.one.p5(), way.measured.back.p5()])
    }

    fn targets(&self, report: &mut Report) {
        report.part("what is asked for");
        let bridge = self.one(Kind::Bridge, None);
        for (name, peer) in [("peer", true), ("redirect", false)] {
            let fast = self.one(Kind::Fast(peer), Some(1));
            for (place, direction) in ["inward", "outward"].into_iter().enumerate() {
                let (fast, bridge) = (fast[place], bridge[place]);
                let floor = self.one(Kind::Floor(peer), None)[place];
                report.figure(format!("{direction}, {name}: more than redirect only"), fast - floor, "ns", None);
                report.figure(format!("{direction}, {name}: of the bridge"), fast / bridge, "x", Some(1.0));
                let routers = [("iptables", 1), ("nft", 2)];
                for (filter, router) in routers {
                    let router = self.one(Kind::Router(router), Some(1))[place];
                    let target = (place == 0).then_some(0.5);
                    report.figure(format!("{direction}, {name}: of the router, {filter}"), fast / router, "x", target);
                }
            }
            self.flatness(report, name, Kind::Fast(peer));
        }
    }

    /// What 10,000 floating IPs cost more than one, and, where all of them are in use at once, beside a router with as many.
    fn flatness(&self, report: &mut Report, name: &str, kind: Kind) {
        let p5 = |samples: fn(&Way) -> &Samples, size| {
            let way = self.ways.iter().find(|way| way.kind == kind && way.size == Some(size));
            way.map_or(f64::NAN, |way| samples(way).p5())
        };
        for (what, samples, target) in [
            ("one", (|way| &way.measured.one) as fn(&Way) -> &Samples, Some(1.1)),
            // What is in use then fits into no near cache, whoever looks for it.
            ("in turn", |way| &way.measured.turn, None),
            ("new", |way| &way.measured.new, Some(1.1)),
        ] {
            let times = p5(samples, 10_000) / p5(samples, 1);
            report.figure(format!("{name}, {what}: 10,000 floating IPs to 1"), times, "x", target);
        }
        let routers = self.ways.iter().filter(|way| matches!(way.kind, Kind::Router(_)) && way.size == Some(10_000));
        for router in routers {
            let part = p5(|way| &way.measured.turn, 10_000) / router.measured.turn.p5();
            report.figure(format!("{name}, in turn: of the {}", router.name), part, "x", Some(0.5));
        }
    }
}

//! What the programs take by themselves: `BPF_PROG_TEST_RUN`, on one CPU, over warm caches.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result, ensure};

use super::{
    course::Ends,
    district::District,
    fast::Fast,
    frames::{ACK, SYN, SYN_ACK},
    kernel,
    report::Report,
    small::{self, Again},
    stats::Samples,
};

const TCX_NEXT: i32 = -1;
const REDIRECT: i32 = 7;

/// One thing that is measured.
struct Case {
    name: String,
    samples: Samples,
    target: Option<f64>,
}

/// What is measured with so many floating IPs, in this order.
const BASE: usize = 0;
const FLOOR: usize = 1;
const LEAST: usize = 2;
const TO_INSTANCE: usize = 3;
const EXTERNAL: usize = 4;
const FROM_INSTANCE: usize = 5;
const LEAVING: usize = 6;
const CASES: [&str; 7] = [
    "empty program",
    "redirect only",
    "redirect, what no translation is without",
    "security groups, to instance",
    "inward: security groups, translation",
    "security groups, from instance",
    "outward: security groups, translation",
];

/// All cases with so many floating IPs.
pub(super) struct Programs {
    ends: Ends,
    cases: Vec<Case>,
}

impl Programs {
    pub(super) fn new(ends: Ends) -> Self {
        let count = ends.outside.1;
        let case = |name: &&str| Case { name: format!("{name}, {count}"), samples: Samples::default(), target: None };
        Self { ends, cases: CASES.iter().map(case).collect() }
    }

    /// Measures each case once.
    pub(super) fn measure(&mut self, fast: &mut Fast, district: &District, repeat: u32) -> Result<()> {
        let [from, to, external] = fast.begin(&self.ends, true)?;
        let (outer, port) = (district.outside.device, district.instance.device);
        let middle = self.ends.middle();
        let inward = |flags| self.ends.inward(middle, flags, 50_000);
        let outward = |flags| self.ends.outward(middle, flags, 50_000);
        for (program, packet, device) in
            [(&external, inward(SYN), outer), (&from, outward(SYN_ACK), port), (&external, inward(ACK), outer)]
        {
            let ran = kernel::test_run(program, &packet, device, 1)?;
            ensure!(ran.verdict == REDIRECT, "a connection is not begun the fast way: {}", ran.verdict);
        }
        let elsewhere = Ends { macs: [[2; 6]; 2], ..self.ends };
        let inside = Ends { outside: self.ends.inside, ..self.ends };
        let (empty, floor) = (small::empty()?, small::redirect(port)?);
        let addresses: Vec<_> = (0..self.ends.outside.1).map(|place| Ends::address(self.ends.outside, place)).collect();
        let least = small::least(port, &addresses, &inside.inward(middle, ACK, 50_000))?;
        let runs: [(&OwnedFd, Vec<u8>, u32, i32); CASES.len()] = [
            (&empty, inward(ACK), outer, TCX_NEXT),
            (&floor, inward(ACK), outer, REDIRECT),
            (&least, inward(ACK), outer, REDIRECT),
            (&to, inside.inward(middle, ACK, 50_000), port, TCX_NEXT),
            (&external, inward(ACK), outer, REDIRECT),
            // Not to the router: nobody translates it.
            (&from, elsewhere.outward(middle, ACK, 50_000), port, TCX_NEXT),
            (&from, outward(ACK), port, REDIRECT),
        ];
        for (case, (program, packet, device, verdict)) in self.cases.iter_mut().zip(runs) {
            let ran = Again::new(packet)?.run(program, device, repeat)?;
            ensure!(ran.verdict == verdict, "{}: verdict {}", case.name, ran.verdict);
            case.samples.add(ran.thread);
        }
        fast.end()
    }

    fn p5(&self, place: usize) -> f64 {
        self.cases[place].samples.p5()
    }

    /// Says what it came to.
    pub(super) fn report(&self, report: &mut Report) {
        for case in &self.cases {
            report.samples(case.name.as_str(), (&case.samples, 0.0), case.target);
        }
        let least = self.p5(LEAST) - self.p5(FLOOR);
        report.figure("no translation adds less than", least, "ns", None);
        for (what, with, without) in [("inward", EXTERNAL, TO_INSTANCE), ("outward", LEAVING, FROM_INSTANCE)] {
            let added = self.p5(with) - self.p5(without) - (self.p5(FLOOR) - self.p5(BASE));
            report.figure(format!("translation adds, {what}"), added, "ns", Some(30.0));
        }
    }
}

/// Opens programs by their ids.
pub(super) fn open(ids: [u32; 3]) -> Result<[OwnedFd; 3]> {
    let programs = ids.map(kernel::program);
    let [from, to, external] = programs.map(|program| program.context("open a program"));
    Ok([from?, to?, external?])
}

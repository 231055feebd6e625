//! What a policy takes to be compiled and written, and what its flows take of memory.

use anyhow::Result;

use super::{
    report::Report,
    world::{BenchPort, Host, Size, World},
};

/// Sizes whose times are told.
const SIZES: [Size; 3] =
    [Size { rules: 10, members: 10 }, Size { rules: 1000, members: 1000 }, Size { rules: 10_000, members: 100_000 }];

/// How long policies of several sizes take, from nothing, and with one member more.
pub(super) fn times(report: &mut Report) -> Result<()> {
    report.part("policy: time to compile and to write");
    for size in SIZES {
        let mut host = Host::new(None)?;
        let mut world = World::new(&[BenchPort::new(1, size)])?;
        let Size { rules, members } = size;
        for change in ["all of it", "one member more"] {
            let took = host.apply(&world)?;
            for (what, took) in [("lower, diff", took.lower), ("apply", took.apply)] {
                let what = format!("{rules}/{members}, {change}, {what}");
                report.figure(what, took.as_secs_f64() * 1e3, "ms", None);
            }
            world.grow();
        }
    }
    Ok(())
}

/// As many as a busy host is expected to have.
const FLOWS: f64 = 100_000.0;

/// Bytes of the map of IPv4 flows, without flows and with so many, and of the notes of settled flows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) empty: u64,
    pub(super) full: u64,
    pub(super) notes: u64,
}

/// What flows take. The notes are of both families, and as large however many flows there are.
pub(super) fn memory(report: &mut Report, Memory { empty, full, notes }: Memory, (flows, capacity): (u32, u32)) {
    #[expect(clippy::cast_precision_loss, reason = "a map is smaller than 2^52 bytes")]
    let [empty, full, notes] = [empty, full, notes].map(|bytes| bytes as f64);
    report.part("memory: FLOWS4 and notes, bytes a flow (memlock)");
    report.figure("notes (SETTLED4, SETTLED6), all of them", notes / 1024.0, "KiB", None);
    report.figure(format!("FLOWS4: growth, from 0 to {flows} flows"), (full - empty) / f64::from(flows), "B", None);
    report.figure("both, by 100,000 flows", (full + notes) / FLOWS, "B", Some(150.0));
    report.figure(
        format!("both, by the {capacity} FLOWS4 can hold"),
        (full + notes) / f64::from(capacity),
        "B",
        Some(150.0),
    );
}

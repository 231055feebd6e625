//! How long it takes until something is seen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use netdiag_agent::{
    discover::Options,
    live::{Plan, RING_BYTES, Session},
};

use super::{
    report::Report,
    scene::{Scene, filter},
    stats::Samples,
};

/// What was measured.
#[derive(Default)]
pub(super) struct First {
    start: Samples,
    event: Samples,
}

/// Begins to watch so often, sends frames, and waits for the first of them to be told.
pub(super) async fn measure(scene: &mut Scene, times: usize) -> Result<First> {
    let mut first = First::default();
    for _ in 0..times {
        let (points, filter) = (scene.points(0..2), filter(true));
        let plan = Plan {
            points,
            filter,
            drops: true,
            drops_in: Vec::new(),
            ring_bytes: RING_BYTES,
            budget: None,
            overhead: None,
        };
        let before = Instant::now();
        let mut session = Session::start(plan, &Options::default()).await?;
        first.start.add(milliseconds(before));
        let before = Instant::now();
        scene.send(&mut Samples::default())?;
        tokio::time::timeout(Duration::from_secs(5), session.next()).await.context("nothing is seen")?;
        first.event.add(milliseconds(before));
    }
    Ok(first)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

impl First {
    /// Says what it came to.
    pub(super) fn report(&self, report: &mut Report) {
        report.part("time to the first event, by percentile");
        for (what, samples) in
            [("until it watches", &self.start), ("from the packet to what is said of it", &self.event)]
        {
            for percent in [50, 95] {
                report.figure(format!("{what}, {percent}"), samples.percentile(percent), "ms", None);
            }
        }
    }
}

//! The slow way, then the fast one, on a host of a test's own: what both ends see must be the same.

use std::{collections::BTreeMap, net::Ipv4Addr};

use super::{
    FloatingHost, ROUTER,
    cases::{CASES, Case, Scene, observe},
    ends::End,
};
use crate::capture::RUN;

/// First port of the first run.
const PORTS: u16 = 20_000;

impl FloatingHost {
    /// Everything that may happen between an instance and somebody who knows it by a floating IP, in both directions.
    ///
    /// # Panics
    /// The ways differ, or one was not taken.
    pub fn same_both_ways(&self, floating: Ipv4Addr, instance: &End, remote: &End) {
        let scenes = [
            ("inward", Scene::of(remote, instance, floating, remote.address, false)),
            ("outward", Scene::of(instance, remote, remote.address, floating, true)),
        ];
        let mut ports = (PORTS..).step_by(RUN.into());
        let records = [true, false].map(|slow| {
            self.host.ok("PUT", "/v1/floatingips/all/way", &format!(r#"{{"slow": {slow}}}"#));
            [instance, remote].into_iter().for_each(End::forget_paths);
            let mut record = BTreeMap::new();
            for (name, scene) in &scenes {
                for case in &CASES {
                    let what = format!("{} {name}, {}", case.name, if slow { "slow" } else { "fast" });
                    let base = ports.next().expect("a port");
                    record.insert((*name, case.name), self.goes(floating, (scene, case), (slow, base, &what)));
                }
            }
            record
        });
        let [slow, fast] = records;
        for (what, words) in &slow {
            assert!(*words == fast[what], "{what:?}:\nslow: {words:#?}\nfast: {:#?}", fast[what]);
        }
    }

    /// A case goes its way, and both ends see this.
    fn goes(
        &self,
        floating: Ipv4Addr,
        (scene, case): (&Scene, &Case),
        (slow, base, what): (bool, u16, &str),
    ) -> Vec<String> {
        let fast = || ["ingress", "egress"].map(|direction| self.packets(floating, direction, "fast"));
        let before = fast();
        let words = observe(scene, case, base);
        if case.fast {
            assert!(case.name == "tcp" || words.len() > 2, "{what}: {words:#?}");
            let gone = fast().iter().zip(before).map(|(after, before)| after - before).collect::<Vec<_>>();
            let tracked = self.tracked_run(floating, base);
            let as_it_should = if slow { tracked > 0 && gone == [0, 0] } else { tracked == 0 && !gone.contains(&0) };
            assert!(as_it_should, "{what}: {gone:?} past the router, which knows {tracked}: {words:#?}");
        }
        words
    }

    /// Connections of one run that the router knows.
    fn tracked_run(&self, floating: Ipv4Addr, base: u16) -> usize {
        let ours = |word: &str| {
            let number = ["sport=", "dport=", "id="].iter().find_map(|key| word.strip_prefix(key));
            number.and_then(|number| number.parse().ok()).is_some_and(|number| (base..base + RUN).contains(&number))
        };
        let tracked = self.tracked(Some(ROUTER), floating);
        tracked.iter().filter(|line| line.split_whitespace().any(ours)).count()
    }
}

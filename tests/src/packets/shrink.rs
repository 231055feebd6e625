//! A scenario cut down to what matters: steps are left out in ever smaller pieces while the failure stays.

use super::Scenario;

pub(super) fn shrink(scenario: &Scenario, mut fails: impl FnMut(&Scenario) -> bool) -> Scenario {
    let mut smallest = scenario.clone();
    let mut piece = smallest.steps.len().div_ceil(2);
    while piece > 0 {
        let mut start = 0;
        while start < smallest.steps.len() {
            let shorter = without(&smallest, start, piece);
            if fails(&shorter) {
                smallest = shorter;
            } else {
                start += piece;
            }
        }
        piece /= 2;
    }
    smallest
}

fn without(scenario: &Scenario, start: usize, count: usize) -> Scenario {
    let end = (start + count).min(scenario.steps.len());
    let mut shorter = scenario.clone();
    shorter.steps.drain(start..end);
    shorter
}

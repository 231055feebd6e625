use std::collections::BTreeMap;

use netdiag_common::abi::reason::Reason;
use netdiag_model::policy::decide::{Context, Frame, Judge, Judgement};

use super::{Scenario, Step};

/// What no judge can answer: it is asked for known ports only, its policy never changes under it, and it has room.
const NEVER: [Reason; 3] = [Reason::Unmanaged, Reason::Untracked, Reason::PolicyChanging];

/// The judgements of a scenario's frames, in order.
fn judge(scenario: &Scenario) -> Vec<Judgement> {
    let mut judge = Judge::default();
    let mut world = &scenario.world;
    let mut now = u32::MAX - 40;
    let mut judgements = Vec::new();
    for step in &scenario.steps {
        match step {
            Step::Advance(ticks) => now = now.wrapping_add(*ticks),
            Step::Change(next) => world = next,
            Step::Packet(packet) => {
                let port = world.port(&packet.port).unwrap();
                let context = Context { policy: &world.policy, members: &world.members, port };
                let (direction, vlan_beside) = (packet.direction, packet.vlan_beside);
                let frame = Frame { bytes: &packet.bytes, vlan_beside, direction, now };
                judgements.push(judge.judge(&context, &frame));
            }
        }
    }
    judgements
}

#[test]
fn a_seed_always_gives_the_same_scenario() {
    let texts = |seed| Scenario::new(seed, 300).steps.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts(7), texts(7));
    assert_ne!(texts(7), texts(8));
}

#[test]
fn every_reason_occurs_and_well_over_a_third_of_the_frames_pass() {
    let mut counts: BTreeMap<Reason, usize> = BTreeMap::new();
    for seed in 0..1000 {
        for judgement in judge(&Scenario::new(seed, 200)) {
            *counts.entry(judgement.reason).or_default() += 1;
        }
    }
    let all: usize = counts.values().sum();
    let passed: usize = counts.iter().filter(|(reason, _)| reason.passes()).map(|(_, count)| count).sum();
    for (reason, count) in &counts {
        println!("{:>22} {count}", reason.name());
    }
    println!("{passed} of {all} pass");
    assert!(all >= 200_000);
    for reason in Reason::ALL.iter().filter(|reason| !NEVER.contains(reason)) {
        assert!(counts.get(reason).is_some_and(|count| *count >= 20), "{} is too rare", reason.name());
    }
    assert!(passed * 100 > all * 40, "{passed} of {all}");
}

#[test]
fn a_failure_is_cut_down_to_the_steps_it_needs() {
    let revoked = |scenario: &Scenario| judge(scenario).iter().any(|judgement| judgement.reason == Reason::Revoked);
    let scenario = (0..100).map(|seed| Scenario::new(seed, 200)).find(revoked).unwrap();
    let small = scenario.shrink(revoked);
    assert!(revoked(&small));
    assert!(small.steps.len() <= 4, "{}", small.steps.iter().map(ToString::to_string).collect::<String>());
}

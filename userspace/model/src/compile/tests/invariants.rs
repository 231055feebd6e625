//! What holds at every moment of a change.

use proptest::prelude::*;

use super::world::{Fate, Point, World, any_change, any_world, fate, generation, points};
use crate::compile::{Op, Tables, diff};

/// Every state between two tables, both included. A rule for every protocol is 256 writes; those of protocols that no point has
/// are taken together with the write that follows.
fn states(before: &Tables, after: &Tables) -> Vec<Tables> {
    let mut states = Vec::new();
    let mut state = before.clone();
    for op in diff(before, after).iter().flat_map(|phase| &phase.ops) {
        let is_unseen = matches!(op, Op::Protocol(change) if ![1, 6, 17, 47, 58].contains(&(change.key() % 256)));
        if !is_unseen {
            states.push(state.clone());
        }
        op.apply(&mut state);
    }
    states.push(state);
    states
}

/// Some of the points.
fn some_points() -> impl Strategy<Value = Vec<Point>> {
    prop::sample::subsequence(points(), 32)
}

/// Devices of ports that are there in both worlds.
fn staying(first: &World, second: &World) -> Vec<u32> {
    let there = |ifindex: &u32| second.attached.iter().any(|port| port.ifindex == *ifindex);
    first.attached.iter().map(|port| port.ifindex).filter(there).collect()
}

/// Checks that no state allows what neither end allows, or refuses what both allow.
fn check_no_blink(states: &[Tables], ifindexes: &[u32], points: &[Point]) -> Result<(), TestCaseError> {
    let (first, last) = (states.first().unwrap(), states.last().unwrap());
    for ifindex in ifindexes {
        for point in points {
            let (before, after) = (fate(first, *ifindex, point), fate(last, *ifindex, point));
            for (place, state) in states.iter().enumerate() {
                let now = fate(state, *ifindex, point);
                let between = now.passes() == before.passes() || now.passes() == after.passes();
                prop_assert!(
                    between,
                    "write {} of {}: {:?}, {:?}, {:?} at {} {:?}",
                    place,
                    states.len(),
                    before,
                    now,
                    after,
                    ifindex,
                    point
                );
            }
        }
    }
    Ok(())
}

/// Checks that a flow which any state allowed and the last does not is asked again.
fn check_revocation(states: &[Tables], ifindexes: &[u32], points: &[Point]) -> Result<(), TestCaseError> {
    let last = states.last().unwrap();
    for ifindex in ifindexes {
        for point in points {
            if fate(last, *ifindex, point) != Fate::Refused {
                continue;
            }
            for (place, state) in states.iter().enumerate() {
                if matches!(fate(state, *ifindex, point), Fate::Allowed(_)) {
                    prop_assert_ne!(
                        generation(state, *ifindex),
                        generation(last, *ifindex),
                        "write {} at {} {:?}",
                        place,
                        ifindex,
                        point
                    );
                }
            }
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(crate::testing::cases(64))]

    #[test]
    fn writes_in_their_order_make_the_new_tables_of_the_old((first, second) in any_change()) {
        let before = first.lower(&Tables::default());
        let after = second.lower(&before);
        prop_assert_eq!(states(&before, &after).pop().unwrap(), after);
    }

    #[test]
    fn lowering_again_changes_nothing((first, second) in any_change()) {
        let after = second.lower(&first.lower(&Tables::default()));
        prop_assert_eq!(diff(&after, &second.lower(&after)), vec![]);
        prop_assert_eq!(second.lower(&after), after);
    }

    #[test]
    fn no_write_allows_what_neither_policy_allows_or_refuses_what_both_allow((first, second) in any_change(), points in some_points()) {
        let before = first.lower(&Tables::default());
        let after = second.lower(&before);
        check_no_blink(&states(&before, &after), &staying(&first, &second), &points)?;
    }

    #[test]
    fn a_flow_that_is_no_longer_allowed_is_asked_again((first, second) in any_change(), points in some_points()) {
        let before = first.lower(&Tables::default());
        let after = second.lower(&before);
        check_revocation(&states(&before, &after), &staying(&first, &second), &points)?;
    }

    #[test]
    fn a_change_that_is_interrupted_anywhere_is_brought_to_its_end_by_the_next(
        (first, second) in any_change(), third in prop::option::of(any_world()), at in any::<prop::sample::Index>(),
        points in some_points(),
    ) {
        let before = first.lower(&Tables::default());
        let mut so_far = states(&before, &second.lower(&before));
        so_far.truncate(at.index(so_far.len()) + 1);
        let interrupted = so_far.last().unwrap().clone();
        let third = third.unwrap_or(second.clone());
        let after = third.lower(&interrupted);
        let rest = states(&interrupted, &after);
        prop_assert_eq!(rest.last().unwrap(), &after);
        prop_assert_eq!(&third.lower(&after), &after);
        let mut staying = staying(&first, &second);
        staying.retain(|ifindex| third.attached.iter().any(|port| port.ifindex == *ifindex));
        check_no_blink(&rest, &staying, &points)?;
        so_far.extend(rest);
        check_revocation(&so_far, &staying, &points)?;
        let fresh = third.lower(&Tables::default());
        for port in &third.attached {
            for point in &points {
                let (here, there) = (fate(&after, port.ifindex, point), fate(&fresh, port.ifindex, point));
                prop_assert_eq!(here.passes(), there.passes());
            }
        }
    }
}

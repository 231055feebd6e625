//! What is looked up is what the rules say.

use proptest::prelude::*;

use super::world::{Fate, any_world, fate, may_send, points};
use crate::{
    compile::{Tables, label::label},
    policy::types::{Direction, Mode},
};

proptest! {
    #![proptest_config(crate::testing::cases(64))]

    #[test]
    fn tables_allow_what_a_walk_over_the_rules_allows_and_name_one_of_the_rules(world in any_world()) {
        let tables = world.lower(&Tables::default());
        let labels: Vec<_> = world.policy.groups.values().flat_map(|group| &group.rules).map(|rule| (label(&rule.id.0), &rule.id)).collect();
        for port in &world.attached {
            for point in points() {
                let rules = world.allowing(port, &point);
                let spoofed = point.direction == Direction::Egress && !may_send(port, point.sender);
                match fate(&tables, port.ifindex, &point) {
                    Fate::Unmanaged => prop_assert!(false, "every port is managed"),
                    Fate::Trusted => prop_assert_eq!(port.mode, Mode::Trusted),
                    Fate::Spoofed => prop_assert!(spoofed, "{:?} {:?}", port, point),
                    Fate::Refused => prop_assert!(!spoofed && rules.is_empty(), "{:?} {:?}", rules, point),
                    Fate::Allowed(number) => {
                        prop_assert!(!spoofed, "{:?} {:?}", port, point);
                        let named = labels.iter().find(|(label, _)| *label == tables.rule_labels[&number]);
                        prop_assert!(rules.contains(&named.unwrap().1), "{:?} {:?}", named, point);
                    }
                }
            }
        }
    }
}

//! The table: what Neutron's security groups promise, row by row.

use super::{Case, Plug};

mod fragments;
mod headers;
mod identity;
mod remotes;
mod rules;
mod state;
mod system;

/// Every case.
#[must_use]
pub fn all() -> Vec<Case> {
    [rules::CASES, remotes::CASES, system::CASES, identity::CASES, headers::CASES, fragments::CASES, state::CASES]
        .concat()
}

/// A case for every plug.
const fn case(says: &'static str, run: fn(&mut super::World)) -> Case {
    Case { says, except: &[], run }
}

/// Tagged frames for an instance behind Open vSwitch.
const ACCESS: &[(Plug, &str)] = &[
    (Plug::Hybrid, "an access port of Open vSwitch takes no tagged frame, so none comes to the instance"),
    (Plug::Ovs, "an access port of Open vSwitch takes no tagged frame, so none comes to the instance"),
];

//! Security groups do to real traffic what Neutron promises, on every way an instance can be plugged.

use netdiag_tests::behaviour::{Plug, World, cases, run};

fn on(plug: Plug) {
    if let Some(mut world) = World::up(plug) {
        run(&mut world, &cases::all());
    }
}

#[test]
fn every_case_holds_on_a_container_in_docker0() {
    on(Plug::Docker);
}

#[test]
fn every_case_holds_on_a_container_in_the_bridge_of_its_port() {
    on(Plug::Hybrid);
}

#[test]
fn every_case_holds_on_a_port_of_open_vswitch() {
    on(Plug::Ovs);
}

#[test]
fn every_case_holds_on_a_tap() {
    on(Plug::Tap);
}

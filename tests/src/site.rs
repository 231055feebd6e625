//! A host with an agent and machines at a bridge, for tests that try to break what holds about enforcement.

use std::sync::Arc;

use crate::{
    AgentHost,
    machine::{self, Machine},
};

/// A host with machines at a bridge: two whose ports are managed, and one that is the rest of the world.
#[derive(Debug)]
pub struct Site {
    /// The host.
    pub host: AgentHost,
    /// `world0`, 192.0.2.254: no port of the policy.
    pub world: Arc<Machine>,
    /// `vm1`, 192.0.2.1.
    pub first: Arc<Machine>,
    /// `vm2`, 192.0.2.2.
    pub second: Arc<Machine>,
}

impl Site {
    /// Runs the calling test again on such a host; none outside, or where it must be skipped.
    #[must_use]
    pub fn enter(test: &str) -> Option<Self> {
        let host = AgentHost::enter(test)?;
        machine::bridge();
        let [world, first, second] = [("world0", 254), ("vm1", 1), ("vm2", 2)]
            .map(|(device, number)| Arc::new(Machine::at_bridge(device, number)));
        machine::wait_for_bridge(&[&world, &first, &second]);
        Some(Self { host, world, first, second })
    }

    /// Puts groups with their rules, ports in them, and what else there is, as one change that is in force afterwards.
    pub fn policy(&self, groups: &[(&str, &str)], ports: &[String], rest: &str) {
        self.host.ok("PUT", "/v1/policy", &document(groups, ports, rest));
    }

    /// Puts a group.
    pub fn put_group(&self, id: &str, rules: &str) {
        self.host.ok("PUT", &format!("/v1/security-groups/{id}"), &group(id, rules));
    }

    /// Puts the port of a machine.
    pub fn put_port(&self, machine: &Machine, id: &str, groups: &[&str]) {
        self.host.ok("PUT", &format!("/v1/ports/{id}"), &machine.port(id, groups));
    }
}

/// A whole policy, for the API or a file: groups with their rules, ports, and what else there is.
#[must_use]
pub fn document(groups: &[(&str, &str)], ports: &[String], rest: &str) -> String {
    let groups: Vec<_> = groups.iter().map(|(id, rules)| group(id, rules)).collect();
    let (groups, ports) = (groups.join(","), ports.join(","));
    format!(r#"{{"security_groups": [{groups}], "ports": [{ports}] {rest}}}"#)
}

fn group(id: &str, rules: &str) -> String {
    format!(r#"{{"id": "{id}", "security_group_rules": [{rules}]}}"#)
}

/// A rule for one port of UDP or TCP, with whatever it says of the remote end.
#[must_use]
pub fn rule(direction: &str, protocol: &str, port: u16, remote: &str) -> String {
    format!(
        r#"{{"direction": "{direction}", "ethertype": "IPv4", "protocol": "{protocol}", "port_range_min": {port},
             "port_range_max": {port}{remote}}}"#
    )
}

/// The same rule for the other family.
#[must_use]
pub fn of_ipv6(rule: &str) -> String {
    rule.replace("IPv4", "IPv6")
}

/// Rules of a group.
#[must_use]
pub fn rules(all: &[String]) -> String {
    all.join(",")
}

/// Both protocols, from or to anywhere.
#[must_use]
pub fn both(direction: &str, port: u16, remote: &str) -> String {
    rules(&[rule(direction, "udp", port, remote), rule(direction, "tcp", port, remote)])
}

//! The packet filter of two instances with as many rules as asked for: what `cargo xtask bench` compares with.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Family, tables};
use crate::lab::{
    identity::uuid,
    inventory::{
        Inventory, Profile,
        security::{Direction, Ethertype, Peer, SecurityGroup, SecurityRule, Traffic},
    },
    profile,
    spec::Spec,
};

/// The ports, and the IPv4 tables for each number of rules of a direction. Ports 80 to 83 are open, by the rule in the middle.
pub(crate) fn sized(sizes: &[u16]) -> Result<Value> {
    let mut lab = two_instances()?;
    let ports: Vec<_> = lab.instances.iter().flat_map(|instance| &instance.ports).map(|port| {
        let device = |prefix| port.id.device(prefix);
        let address = port.address.address.to_string();
        json!({ "tap": device("tap"), "qvb": device("qvb"), "qvo": device("qvo"), "mac": port.mac, "address": address })
    }).collect();
    let host = lab.instances[0].host.clone();
    let mut texts = serde_json::Map::new();
    for size in sizes {
        lab.security_groups = vec![group(*size)];
        texts.insert(size.to_string(), tables::text(&lab, &host, (Family::V4, false))?.into());
    }
    Ok(json!({ "ports": ports, "rules": texts }))
}

/// The hybrid example with two instances of one host, which have the one group.
fn two_instances() -> Result<Inventory> {
    let spec = Spec { name: "bench".into(), profile: Profile::Hybrid, instances: 0, no_docker: true };
    let mut lab = profile::plan(&spec);
    let host = lab.instances.first().context("an instance")?.host.clone();
    lab.instances.retain(|instance| instance.host == host && instance.ports.len() == 1);
    lab.instances.truncate(2);
    for port in lab.instances.iter_mut().flat_map(|instance| &mut instance.ports) {
        let security = port.security.as_mut().context("a filtered port")?;
        security.groups = vec![uuid("security-group", "bench")];
    }
    Ok(lab)
}

fn group(size: u16) -> SecurityGroup {
    let rules = [Direction::Ingress, Direction::Egress].into_iter().flat_map(|direction| {
        (0..size).map(move |place| SecurityRule {
            direction,
            ethertype: Ethertype::V4,
            traffic: if place == size / 2 {
                Traffic::Tcp { min: 80, max: 83 }
            } else {
                Traffic::Tcp { min: 1024 + place, max: 1024 + place }
            },
            peer: Peer::Any,
        })
    });
    let id = uuid("security-group", "bench");
    SecurityGroup { id, name: "bench".into(), project: uuid("project", "bench"), rules: rules.collect() }
}

#[cfg(test)]
mod tests {
    use super::sized;

    #[test]
    fn the_rule_that_allows_is_in_the_middle_of_as_many_as_asked_for() {
        let all = sized(&[10]).unwrap();
        let tables = all["rules"]["10"].as_str().unwrap();
        assert_eq!(all["ports"].as_array().unwrap().len(), 2);
        // Two ports, two directions.
        assert_eq!(tables.lines().filter(|line| line.contains("--dports 80:83 -j RETURN")).count(), 4);
        assert_eq!(tables.lines().filter(|line| line.contains("--dport 1024 -j RETURN")).count(), 4);
        assert_eq!(tables.lines().filter(|line| line.contains("-p tcp")).count(), 40);
    }
}

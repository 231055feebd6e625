//! The packet filter of a router with as many floating IPs as asked for: what `cargo xtask bench` compares with.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Subject, ipv4};
use crate::lab::{
    identity::uuid,
    inventory::{FloatingIp, Profile, Router},
    profile,
    spec::Spec,
};

/// First floating IP, and the address it stands for.
const FLOATING: Ipv4Addr = Ipv4Addr::new(172, 25, 0, 0);
const FIXED: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);

/// The router's devices, the first addresses, and the tables for each number of floating IPs.
pub(crate) fn sized(sizes: &[u16]) -> Result<Value> {
    let spec = Spec { name: "bench".into(), profile: Profile::NeutronOvs, instances: 0, no_docker: true };
    let mut router = profile::plan(&spec).routers.into_iter().next().context("a router")?;
    router.interfaces.truncate(1);
    let interface = router.interfaces.first().context("an interface")?.device.clone();
    let mut texts = serde_json::Map::new();
    for size in sizes {
        texts.insert(size.to_string(), with(&mut router, *size)?.into());
    }
    let gateway = &router.gateway.device;
    Ok(json!({ "gateway": gateway, "interface": interface, "floating": FLOATING, "fixed": FIXED, "rules": texts }))
}

fn with(router: &mut Router, size: u16) -> Result<String> {
    let after = |first: Ipv4Addr, place: u16| Ipv4Addr::from_bits(first.to_bits() + u32::from(place));
    let floating_ips = (0..size).map(|place| FloatingIp {
        id: uuid("floating-ip", &place.to_string()),
        address: after(FLOATING, place),
        fixed: after(FIXED, place),
        port_id: uuid("port", &place.to_string()),
    });
    router.floating_ips = floating_ips.collect();
    Ok(ipv4(&Subject::legacy(router))?)
}

#[cfg(test)]
mod tests {
    use super::sized;

    #[test]
    fn every_floating_ip_is_translated_both_ways() {
        let all = sized(&[300]).unwrap();
        let tables = all["rules"]["300"].as_str().unwrap();
        let count = |text: &str| tables.lines().filter(|line| line.contains(text)).count();
        assert_eq!(count("PREROUTING -d 172.25."), 300);
        assert_eq!(count("float-snat -s 10.1."), 300);
        assert_eq!(count("-d 172.25.1.43/32 -j DNAT --to-destination 10.1.1.43"), 2);
    }
}

//! Floating IPs. Flow: policy.
//!
//! What only the host can tell is no mistake here: that the port is there and has the address, that nobody else has the
//! floating IP. The plan of the host holds such a floating IP back, and all else goes on.

use std::net::{IpAddr, Ipv4Addr};

use super::{Names, address, note};
use crate::policy::{
    types::{FloatingIp, FloatingIpId, PortId},
    wire::{
        Mistake,
        field::FLOATING_IP,
        object::{Field, Object},
    },
};

/// A floating IP; none where it has no address, which is told. Another field with a mistake is as if it were not there.
pub(super) fn floating_ip(
    object: &Object<'_>,
    id: &str,
    ports: &Names<'_>,
    mistakes: &mut Vec<Mistake>,
) -> Option<FloatingIp> {
    mistakes.extend(object.check(&FLOATING_IP));
    let text = |name: &str, mistakes: &mut Vec<Mistake>| {
        let field = object.field(&[name]).filter(|field| field.node.text() != Some(""));
        field.and_then(|field| note(field.text().map(str::to_owned), mistakes))
    };
    let floating = object.field(&["floating_ip_address"]);
    let floating = floating.ok_or_else(|| object.missing("floating_ip_address", "is missing", &[]));
    let floating = floating.and_then(|field| outside(&field));
    let fixed = object.field(&["fixed_ip_address"]);
    let port_id = text("port_id", mistakes);
    if let Some(field) = fixed.filter(|_| port_id.is_none()) {
        mistakes.push(field.refuse("needs the port that has it, as port_id".to_owned()));
    }
    Some(FloatingIp {
        id: FloatingIpId(id.to_owned()),
        fixed_ip_address: fixed.and_then(|field| note(four(&field), mistakes)),
        // The port may be one of another host, which nobody has to tell this one of.
        port_id: port_id.map(|port| PortId(ports.meant(&port).unwrap_or(&port).to_owned())),
        network: text("floating_network_id", mistakes),
        device: text("device", mistakes),
        qos_policy: text("qos_policy_id", mistakes),
        floating_ip_address: note(floating, mistakes)?,
    })
}

fn four(field: &Field<'_, '_>) -> Result<Ipv4Addr, Mistake> {
    match address::address(field)? {
        IpAddr::V4(four) => Ok(four),
        IpAddr::V6(six) => Err(field.refuse(format!("{six} is an IPv6 address, which needs no floating IP"))),
    }
}

/// An address others can reach.
fn outside(field: &Field<'_, '_>) -> Result<Ipv4Addr, Mistake> {
    let address = four(field)?;
    if address.is_loopback() || address.is_link_local() || address.octets()[0] == 0 || address.octets()[0] >= 240 {
        return Err(field.refuse(format!("{address} is no address that others can reach")));
    }
    Ok(address)
}

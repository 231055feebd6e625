//! Addresses and prefixes. Flow: policy.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{
    id::{InvalidMac, Mac},
    policy::wire::{Mistake, object::Field},
};

/// A prefix with its host bits cleared; an address alone is one of full length.
pub(super) fn prefix(field: &Field<'_, '_>) -> Result<IpNet, Mistake> {
    let text = field.text()?;
    let net = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
    let why = || format!("`{text}` is no prefix: 192.0.2.0/24, 2001:db8::/64, or an address");
    net.map(|net| net.trunc()).ok_or_else(|| field.refuse(why()))
}

/// The address of one instance.
pub(super) fn address(field: &Field<'_, '_>) -> Result<IpAddr, Mistake> {
    let text = field.text()?;
    let address: IpAddr = text.parse().map_err(|_| field.refuse(format!("`{text}` is no IP address")))?;
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    if address.is_unspecified() || address.is_multicast() || broadcast {
        return Err(field.refuse(format!("{address} is not the address of an instance")));
    }
    Ok(address)
}

/// The MAC address of one card.
pub(super) fn mac(field: &Field<'_, '_>) -> Result<Mac, Mistake> {
    let text = field.text()?;
    let mac: Mac = text.parse().map_err(|why: InvalidMac| field.refuse(format!("is `{text}`, and {why}")))?;
    if mac.0[0] & 1 != 0 || mac.0 == [0; 6] {
        return Err(field.refuse(format!("{mac} is not the address of a card")));
    }
    Ok(mac)
}

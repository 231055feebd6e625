//! Who talks to whom: two words of an operator turned into two addresses and a direction.

use std::net::IpAddr;

use ipnet::IpNet;

use super::super::near::Seen;
use crate::{
    inventory::{Instance, Inventory, Nic},
    policy::types::Direction,
    resolve::{Unresolved, resolve},
};

/// ICMP, and what IPv6 has in its place.
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Echo request, of either.
const ECHO: (u16, u16) = (8 << 8, 128 << 8);

/// What an operator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking<'q> {
    /// Who sends: an address, or an instance.
    pub from: &'q str,
    /// Who is meant: an address, or an instance.
    pub to: &'q str,
    /// IP protocol. ICMP means ICMPv6 between IPv6 addresses.
    pub protocol: u8,
    /// Destination port, or ICMP type and code as `type * 256 + code`; without it an ICMP packet is an echo request.
    pub service: Option<u16>,
}

/// Why a question cannot be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// One end is no address, and means no instance or several.
    Unresolved(Unresolved),
    /// It is not between the instance and somebody else; the text says what is wrong.
    Ends(String),
}

/// Both ends, and where the packet crosses.
pub(in crate::groups) struct Ends<'i, 'a> {
    /// The card of the instance.
    pub(in crate::groups) nic: &'i Nic<'a>,
    /// The instance's address.
    pub(in crate::groups) local: IpAddr,
    /// The instance at the other end, where it was named.
    pub(in crate::groups) other: Option<&'i Instance<'a>>,
    /// The packet.
    pub(in crate::groups) packet: Seen,
}

/// One end.
enum End<'i, 'a> {
    /// The instance itself, by this address or by any.
    Own(Option<IpAddr>),
    /// Another instance.
    Instance(&'i Instance<'a>),
    /// An address of somebody else.
    Address(IpAddr),
}

pub(super) fn find<'i, 'a>(
    inventory: &'i Inventory<'a>,
    instance: &'i Instance<'a>,
    asking: &Asking<'_>,
) -> Result<Ends<'i, 'a>, Unclear> {
    let name = &instance.identity.name;
    let (from, to) = (end(inventory, instance, asking.from)?, end(inventory, instance, asking.to)?);
    let (direction, own, other) = match (from, to) {
        (End::Own(own), other @ (End::Instance(_) | End::Address(_))) => (Direction::Egress, own, other),
        (other @ (End::Instance(_) | End::Address(_)), End::Own(own)) => (Direction::Ingress, own, other),
        (End::Own(_), End::Own(_)) => return Err(Unclear::Ends(format!("both ends are {name}"))),
        (End::Instance(_) | End::Address(_), End::Instance(_) | End::Address(_)) => {
            return Err(Unclear::Ends(neither(instance, asking)));
        }
    };
    let (remotes, other) = match other {
        End::Instance(other) => (addresses(other), Some(other)),
        End::Address(address) => (vec![address], None),
        End::Own(_) => (Vec::new(), None),
    };
    let (nic, local, remote) = pair(instance, own, &remotes).ok_or_else(|| {
        Unclear::Ends(format!("{name} has no address of the family the other end has: see netdiag list"))
    })?;
    let protocol = if remote.is_ipv6() && asking.protocol == ICMP { ICMPV6 } else { asking.protocol };
    let service = asking.service.or(match protocol {
        ICMP => Some(ECHO.0),
        ICMPV6 => Some(ECHO.1),
        _ => None,
    });
    Ok(Ends { nic, local, other, packet: Seen { direction, remote, protocol, service } })
}

fn neither(instance: &Instance<'_>, asking: &Asking<'_>) -> String {
    let name = &instance.identity.name;
    let own: Vec<String> = addresses(instance).iter().map(ToString::to_string).collect();
    let own = if own.is_empty() { "no address that is known".to_owned() } else { own.join(", ") };
    format!("neither {} nor {} is {name}, which has {own}", asking.from, asking.to)
}

/// What a word means: an address of the instance or of somebody else, or an instance.
fn end<'i, 'a>(inventory: &'i Inventory<'a>, instance: &Instance<'_>, word: &str) -> Result<End<'i, 'a>, Unclear> {
    if let Ok(address) = word.parse::<IpAddr>() {
        let floating = instance.nics.iter().flat_map(|nic| inventory.floating_ips(nic));
        let fixed = floating.filter(|floating| floating.address == address).map(|floating| floating.fixed).next();
        let own = addresses(instance).into_iter().find(|own| *own == address).or(fixed);
        return Ok(own.map_or(End::Address(address), |own| End::Own(Some(own))));
    }
    let place = resolve(inventory, word).map_err(Unclear::Unresolved)?;
    let found = &inventory.instances[place];
    Ok(if found.identity == instance.identity { End::Own(None) } else { End::Instance(found) })
}

fn addresses(instance: &Instance<'_>) -> Vec<IpAddr> {
    instance.nics.iter().flat_map(|nic| &nic.addresses).map(IpNet::addr).collect()
}

/// The card and the two addresses: on one subnet if they can be, else the first of one family.
fn pair<'i, 'a>(
    instance: &'i Instance<'a>,
    own: Option<IpAddr>,
    remotes: &[IpAddr],
) -> Option<(&'i Nic<'a>, IpAddr, IpAddr)> {
    let held = instance.nics.iter().flat_map(|nic| nic.addresses.iter().map(move |net| (nic, net)));
    let held = held.filter(|(_, net)| own.is_none_or(|own| net.addr() == own));
    let pairs = held.flat_map(|(nic, net)| remotes.iter().map(move |remote| (nic, net, *remote)));
    let pairs: Vec<_> = pairs.filter(|(_, net, remote)| net.addr().is_ipv4() == remote.is_ipv4()).collect();
    let near = pairs.iter().find(|(_, net, remote)| net.contains(remote)).or(pairs.first())?;
    Some((near.0, near.1.addr(), near.2))
}

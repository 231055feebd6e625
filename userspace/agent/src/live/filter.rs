//! A filter as the programs evaluate it. Flow: observe.

use std::net::IpAddr;

use netdiag_common::{
    abi::live::{CLAUSE_ONE_WAY, Clause, Config, End, Product},
    logic::packet::mapped,
};
use netdiag_model::live::{self, Filter};

/// Bits of an IPv4 address that is mapped before it begins.
const MAPPED: u32 = 96;

/// A filter, with no limit; or why there can be no such filter.
pub(super) fn config(filter: &Filter) -> Result<Config, String> {
    let mut config = Config::default();
    config.clauses = fits(filter.clauses.len(), config.clause.len(), "clauses")?;
    config.products = fits(filter.products.len(), config.product.len(), "products")?;
    for (place, clause) in config.clause.iter_mut().zip(&filter.clauses) {
        *place = self::clause(clause)?;
    }
    for (place, product) in config.product.iter_mut().zip(&filter.products) {
        *place = Product { covered: product.covered, uncovered: product.uncovered };
    }
    Ok(config)
}

fn fits(count: usize, room: usize, what: &str) -> Result<u32, String> {
    match u32::try_from(count) {
        Ok(number) if count <= room => Ok(number),
        _ => Err(format!("it has {count} {what}, and there is room for {room}")),
    }
}

fn clause(clause: &live::Clause) -> Result<Clause, String> {
    let (here, there) = (end(&clause.here)?, end(&clause.there)?);
    // With no bit that counts every IPv4 address would be an IPv6 one.
    let family = |end: &live::End| match end.prefix {
        Some((IpAddr::V4(_), _)) => Some(4),
        Some((IpAddr::V6(_), _)) => Some(6),
        None => None,
    };
    let families = (family(&clause.here), family(&clause.there));
    if let (Some(here), Some(there)) = families
        && here != there
    {
        return Err("no packet has an IPv4 address at one end and an IPv6 address at the other".to_owned());
    }
    let (ethertype, ethertype_mask) = counts(clause.ethertype);
    let (protocol, protocol_mask) = counts(clause.protocol.map(u16::from));
    let (family, family_mask) = counts(families.0.or(families.1));
    let flags = if clause.one_way { CLAUSE_ONE_WAY } else { 0 };
    Ok(Clause { here, there, ethertype, ethertype_mask, protocol, protocol_mask, family, family_mask, flags })
}

/// A value and its bits that count: all, or none.
fn counts(value: Option<u16>) -> (u16, u16) {
    value.map_or((0, 0), |value| (value, u16::MAX))
}

fn end(end: &live::End) -> Result<End, String> {
    let (address, mask) = end.prefix.map(|(address, bits)| prefix(address, bits)).transpose()?.unwrap_or_default();
    // What has no port is beyond all ports, so only no wish for a port covers it.
    let (first, last) = end.ports.map_or((0, u32::MAX), |(first, last)| (first.into(), last.into()));
    let more_ports = last.checked_sub(first).ok_or_else(|| format!("ports {first} to {last} are none"))?;
    Ok(End { address, mask, first_port: first, more_ports })
}

fn prefix(address: IpAddr, bits: u8) -> Result<([u32; 4], [u32; 4]), String> {
    let (words, width) = match address {
        IpAddr::V4(address) => (mapped(u32::from_ne_bytes(address.octets())), 32),
        IpAddr::V6(address) => (words(address.octets()), 128),
    };
    if bits > width {
        return Err(format!("{address}/{bits} is longer than an address"));
    }
    let bits = u32::from(bits) + if width == 32 { MAPPED } else { 0 };
    let mask = u128::MAX.checked_shl(128 - bits).unwrap_or(0);
    Ok((words, self::words(mask.to_be_bytes())))
}

/// Bytes as they lie in a packet, in words.
fn words(bytes: [u8; 16]) -> [u32; 4] {
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    words
}

#[cfg(test)]
mod tests {
    use netdiag_common::logic::live::{Bytes, Start, covers};
    use netdiag_model::live::{Clause, End, Filter, Product};

    use super::config;

    struct Packet(Vec<u8>);

    impl Bytes for Packet {
        fn half(&self, offset: u32) -> Option<u16> {
            let offset = usize::try_from(offset).unwrap();
            Some(u16::from_ne_bytes([*self.0.get(offset)?, *self.0.get(offset + 1)?]))
        }
    }

    /// TCP from 10.0.0.5 port 40000 to 10.0.1.9 port 5432.
    fn packet() -> Packet {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 5, 10, 0, 1, 9];
        packet.extend([0x9c, 0x40, 0x15, 0x38]);
        Packet(packet)
    }

    fn one(clause: Clause) -> Filter {
        Filter { clauses: vec![clause], products: vec![Product { covered: 1, uncovered: 0 }] }
    }

    fn covered(clause: Clause) -> bool {
        covers(&config(&one(clause)).unwrap(), &packet(), Start { offset: 0, network: true })
    }

    fn at(prefix: &str, bits: u8) -> End {
        End { prefix: Some((prefix.parse().unwrap(), bits)), ports: None }
    }

    #[test]
    fn every_part_of_a_clause_counts() {
        assert!(covered(Clause::default()));
        assert!(covered(Clause { here: at("10.0.1.0", 24), ..Clause::default() }));
        assert!(!covered(Clause { here: at("10.0.2.0", 24), ..Clause::default() }));
        assert!(covered(Clause { here: at("0.0.0.0", 0), ..Clause::default() }));
        assert!(!covered(Clause { here: at("::", 0), ..Clause::default() }));
        assert!(covered(Clause { protocol: Some(6), ..Clause::default() }));
        assert!(!covered(Clause { protocol: Some(17), ..Clause::default() }));
        assert!(!covered(Clause { ethertype: Some(0x86dd), ..Clause::default() }));
        let database = End { ports: Some((5432, 5432)), ..at("10.0.1.9", 32) };
        assert!(covered(Clause { here: database.clone(), ..Clause::default() }));
        assert!(covered(Clause { there: database.clone(), one_way: true, ..Clause::default() }));
        assert!(!covered(Clause { here: database, one_way: true, ..Clause::default() }));
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        let refused = |clause| config(&one(clause)).unwrap_err();
        let mixed = Clause { here: at("10.0.0.1", 32), there: at("::1", 128), ..Clause::default() };
        assert!(refused(mixed).contains("IPv4"));
        assert!(refused(Clause { here: at("10.0.0.1", 33), ..Clause::default() }).contains("10.0.0.1/33"));
        let ports = Clause { here: End { prefix: None, ports: Some((9, 8)) }, ..Clause::default() };
        assert!(refused(ports).contains("9 to 8"));
        let many = Filter { clauses: vec![Clause::default(); Filter::CLAUSES + 1], products: Vec::new() };
        assert!(config(&many).unwrap_err().contains("17 clauses"));
    }
}

//! ipsets: what `ipset save` prints, and whether a packet is in a set. Flow: explain.
//!
//! Sets of addresses or networks (`hash:ip`, `hash:net`, `bitmap:ip`) and of either with ports are understood, which are
//! those that Neutron, Docker and most people use; of any other kind it stays unknown whether a packet is in it.

use std::collections::HashMap;

use ipnet::IpNet;

use super::{
    Address, Known, Packet,
    matching::Truth,
    parse::{net, protocol},
};

/// The sets of one namespace, by name.
pub type Sets = HashMap<String, Members>;

/// The members of a set that is understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// The second thing that is looked up is a port.
    ports: bool,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    net: IpNet,
    /// Protocol and port.
    port: Option<(u8, u16)>,
    /// What is in it is not in the set (`nomatch`).
    not: bool,
}

/// Parses what `ipset save` printed. A set of another kind, or with an entry that cannot be read, is left out.
pub fn parse(text: &str) -> Sets {
    let mut sets = Sets::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[..] {
            ["create", name, kind, ..] => {
                if let Some(ports) = dimensions(kind) {
                    sets.insert(name.to_owned(), Members { ports, entries: Vec::new() });
                }
            }
            ["add", name, member, ..] => {
                let Some(set) = sets.get_mut(name) else { continue };
                match entry(member, set.ports, words.contains(&"nomatch")) {
                    Some(entry) => set.entries.push(entry),
                    None => drop(sets.remove(name)),
                }
            }
            _ => {}
        }
    }
    sets
}

/// Whether ports belong to a kind of set; none where it is another.
fn dimensions(kind: &str) -> Option<bool> {
    match kind {
        "hash:ip" | "hash:net" | "bitmap:ip" => Some(false),
        "hash:ip,port" | "hash:net,port" => Some(true),
        _ => None,
    }
}

fn entry(member: &str, ports: bool, not: bool) -> Option<Entry> {
    let (address, port) = match (ports, member.split_once(',')) {
        (false, None) => (member, None),
        (true, Some((address, port))) => {
            let (name, number) = port.split_once(':').unwrap_or(("tcp", port));
            (address, Some((protocol(name)?, number.parse().ok()?)))
        }
        _ => return None,
    };
    Some(Entry { net: net(address)?, port, not })
}

impl Members {
    /// Whether a packet is in the set by the fields a rule looks up (`src`, `dst,src`).
    pub(super) fn has(&self, fields: &str, packet: &Packet) -> Truth {
        let source = |field: &str| match field {
            "src" => Some(true),
            "dst" => Some(false),
            _ => None,
        };
        let mut fields = fields.split(',').map(source);
        let (Some(Some(of_source)), second) = (fields.next(), fields.next()) else { return Truth::Unknown };
        let address = if of_source { packet.source } else { packet.destination };
        match (self.ports, second) {
            (false, None) => addresses(address, &self.entries.iter().collect::<Vec<_>>()),
            (true, Some(Some(of_source))) => {
                let port = if of_source { packet.source_port } else { packet.destination_port };
                let (Known::Is(protocol), Known::Is(port)) = (packet.protocol, port) else {
                    return if self.entries.is_empty() { Truth::No } else { Truth::Unknown };
                };
                let of_port = self.entries.iter().filter(|entry| entry.port == Some((protocol, port)));
                addresses(address, &of_port.collect::<Vec<_>>())
            }
            _ => Truth::Unknown,
        }
    }
}

/// The kernel looks from the longest prefix to the shortest, and the first that has the address decides.
fn addresses(address: Address, entries: &[&Entry]) -> Truth {
    let Address::Is(address) = address else {
        // As everywhere, an address outside is in no prefix but those of everything, which sets hold in halves.
        let everything = entries.iter().any(|entry| entry.net.prefix_len() <= 1);
        let nobody = entries.iter().all(|entry| entry.not) || (address == Address::Outside && !everything);
        return if nobody { Truth::No } else { Truth::Unknown };
    };
    let holds = entries.iter().filter(|entry| entry.net.contains(&address));
    holds.max_by_key(|entry| entry.net.prefix_len()).is_some_and(|entry| !entry.not).into()
}

#[cfg(test)]
mod tests {
    use super::{Truth, parse};
    use crate::netfilter::{Address, Known, Packet};

    const SAVED: &str = "create group hash:net family inet hashsize 1024 maxelem 65536\nadd group 10.0.0.9 nomatch\n\
        add group 10.0.0.0/24\ncreate empty hash:ip family inet\ncreate web hash:ip,port family inet\n\
        add web 10.0.0.5,tcp:80\ncreate all hash:net family inet\nadd all 0.0.0.0/1\nadd all 128.0.0.0/1 timeout 9\n\
        create odd list:set size 8\nadd odd group\ncreate six hash:ip family inet6\nadd six fd00::1\n\
        create bad hash:ip family inet\nadd bad nonsense\n";

    fn from(text: &str) -> Packet {
        let address =
            text.parse().map_or(if text == "outside" { Address::Outside } else { Address::Unknown }, Address::Is);
        Packet::between(address, Address::Outside)
    }

    fn asked(set: &str, fields: &str, packet: &Packet) -> Option<Truth> {
        parse(SAVED).get(set).map(|set| set.has(fields, packet))
    }

    #[test]
    fn the_longest_prefix_decides_and_may_say_no() {
        for (source, truth) in [
            ("10.0.0.2", Truth::Yes),
            ("10.0.0.9", Truth::No),
            ("10.0.1.2", Truth::No),
            ("outside", Truth::No),
            ("any", Truth::Unknown),
        ] {
            assert_eq!(asked("group", "src", &from(source)), Some(truth), "{source}");
        }
    }

    #[test]
    fn an_empty_set_holds_nobody_and_one_of_everything_is_not_said_to_lack_anybody() {
        assert_eq!(asked("empty", "src", &from("any")), Some(Truth::No));
        assert_eq!(asked("all", "src", &from("outside")), Some(Truth::Unknown));
        assert_eq!(asked("all", "src", &from("203.0.113.7")), Some(Truth::Yes));
        assert_eq!(asked("six", "src", &from("fd00::1")), Some(Truth::Yes));
    }

    #[test]
    fn a_set_of_ports_asks_for_protocol_and_port() {
        let packet = |port| from("10.0.0.5").tcp(port);
        assert_eq!(asked("web", "src,dst", &packet(80)), Some(Truth::Yes));
        assert_eq!(asked("web", "src,dst", &packet(81)), Some(Truth::No));
        let any = Packet { destination_port: Known::Unknown, ..packet(80) };
        assert_eq!(asked("web", "src,dst", &any), Some(Truth::Unknown));
        assert_eq!(asked("web", "src", &packet(80)), Some(Truth::Unknown));
    }

    #[test]
    fn what_is_not_understood_is_not_known() {
        assert_eq!((asked("odd", "src", &from("any")), asked("bad", "src", &from("any"))), (None, None));
    }
}

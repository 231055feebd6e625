//! The language of pcap, as far as it speaks of ends: hosts, networks, ports, protocols, and `and`, `or`, `not`.
//!
//! As there, `and` and `or` bind alike and from the left, and an end without words before it takes those of the end before:
//! `tcp dst port 80 or 443`. Names are not looked up.

use std::{net::IpAddr, ops::Range};

use ipnet::IpNet;
use thiserror::Error;

use super::{Wanted, end};
use crate::live::{Clause, End, packet};

/// Words for what kind of end follows.
const KINDS: [(&str, Kind); 5] = [
    ("host", Kind::Host),
    ("net", Kind::Net),
    ("port", Kind::Port),
    ("portrange", Kind::PortRange),
    ("proto", Kind::Proto),
];

/// Words for a side.
const SIDES: [(&str, Side); 2] = [("src", Side::Source), ("dst", Side::Destination)];

/// Words for protocols: ethertype and IP protocol that a packet must have.
const PROTOCOLS: [(&str, Option<u16>, Option<u8>); 8] = [
    ("ip", Some(packet::ETHERTYPE_IPV4), None),
    ("ip6", Some(packet::ETHERTYPE_IPV6), None),
    ("arp", Some(packet::ETHERTYPE_ARP), None),
    ("tcp", None, Some(packet::TCP)),
    ("udp", None, Some(packet::UDP)),
    ("icmp", Some(packet::ETHERTYPE_IPV4), Some(packet::ICMP)),
    ("icmp6", Some(packet::ETHERTYPE_IPV6), Some(packet::ICMPV6)),
    ("sctp", None, Some(packet::SCTP)),
];

/// The words that an end may have before it.
fn keywords() -> impl Iterator<Item = &'static str> {
    let kinds = KINDS.iter().map(|(word, _)| *word);
    let sides = SIDES.iter().map(|(word, _)| *word);
    kinds.chain(sides).chain(PROTOCOLS.iter().map(|(word, ..)| *word))
}

/// What is known, for whoever wrote something else.
fn known() -> String {
    let words: Vec<&str> = keywords().collect();
    format!("known are: {}, and, or, not, and parentheses", words.join(", "))
}

/// Parentheses inside of parentheses.
const DEPTH: u8 = 32;

/// A mistake in an expression.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("column {column}: {what}")]
pub struct Mistake {
    /// Where, in characters from 1.
    pub column: usize,
    /// What is wrong, and what is known.
    pub what: String,
}

/// Reads an expression; an empty one wants every packet.
///
/// # Errors
/// Something is not known; the mistake says where and what would be.
pub fn parse(text: &str) -> Result<Wanted, Mistake> {
    let words = split(text);
    let mut parser = Parser { text, words: &words, next: 0, before: Words::default(), depth: 0 };
    if words.is_empty() {
        return Ok(Wanted::Any);
    }
    let wanted = parser.expression()?;
    match parser.peek() {
        None => Ok(wanted),
        Some(")") => Err(parser.mistake("a parenthesis is closed that was not opened")),
        Some(word) => Err(parser.mistake(unexpected(word))),
    }
}

/// Places of words and signs.
fn split(text: &str) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut open: Option<usize> = None;
    let mut skip = 0;
    for (place, sign) in text.char_indices() {
        if place < skip {
            continue;
        }
        let two = text[place..].starts_with("&&") || text[place..].starts_with("||");
        let alone = matches!(sign, '(' | ')' | '!');
        if sign.is_whitespace() || alone || two {
            found.extend(open.take().map(|start| start..place));
        } else {
            open.get_or_insert(place);
        }
        if alone || two {
            skip = place + if two { 2 } else { sign.len_utf8() };
            found.push(place..skip);
        }
    }
    found.extend(open.map(|start| start..text.len()));
    found
}

/// Which side of a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Side {
    #[default]
    Either,
    Source,
    Destination,
    Both,
}

/// What kind of end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

/// The words before an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Words {
    ethertype: Option<u16>,
    protocol: Option<u8>,
    side: Option<Side>,
    kind: Option<Kind>,
}

struct Parser<'a> {
    text: &'a str,
    words: &'a [Range<usize>],
    next: usize,
    /// The words before the last end.
    before: Words,
    depth: u8,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.words.get(self.next).map(|range| &self.text[range.clone()])
    }

    fn take(&mut self, word: &str) -> bool {
        let is_it = self.peek() == Some(word);
        self.next += usize::from(is_it);
        is_it
    }

    /// A mistake at the next word.
    fn mistake(&self, what: impl Into<String>) -> Mistake {
        let place = self.words.get(self.next).map_or(self.text.len(), |range| range.start);
        Mistake { column: self.text[..place].chars().count() + 1, what: what.into() }
    }

    fn expression(&mut self) -> Result<Wanted, Mistake> {
        let mut left = self.factor()?;
        loop {
            let or = match self.peek() {
                Some("and" | "&&") => false,
                Some("or" | "||") => true,
                _ => return Ok(left),
            };
            self.next += 1;
            let right = self.factor()?;
            left = if or { Wanted::One(vec![left, right]) } else { Wanted::All(vec![left, right]) };
        }
    }

    fn factor(&mut self) -> Result<Wanted, Mistake> {
        if self.depth >= DEPTH {
            return Err(self.mistake(format!("more than {DEPTH} parentheses or \"not\" inside of each other")));
        }
        self.depth += 1;
        let factor = if self.take("not") || self.take("!") {
            self.factor().map(|not| Wanted::Not(Box::new(not)))
        } else if self.take("(") {
            let inner = self.expression()?;
            match self.peek() {
                _ if self.take(")") => Ok(inner),
                Some(word) => Err(self.mistake(unexpected(word))),
                None => Err(self.mistake("a parenthesis is not closed")),
            }
        } else {
            self.primitive()
        };
        self.depth -= 1;
        factor
    }

    fn primitive(&mut self) -> Result<Wanted, Mistake> {
        let mut words = Words::default();
        let begin = self.next;
        words.kind = self.protocols(&mut words);
        self.side(&mut words)?;
        words.kind = words.kind.or_else(|| self.kind());
        let plain = words.side.is_none() && words.kind.is_none();
        if plain && self.next > begin {
            // A protocol alone, unless an address follows: `tcp 10.0.0.2` is none of pcap's either.
            return Ok(Wanted::Clause(Clause {
                ethertype: words.ethertype,
                protocol: words.protocol,
                ..Clause::default()
            }));
        }
        if plain && self.before.kind.is_some() {
            words = self.before;
        }
        let wanted = self.end(words)?;
        self.before = Words { kind: Some(words.kind.unwrap_or_default()), ..words };
        Ok(wanted)
    }

    /// Reads a protocol's name.
    fn protocols(&mut self, words: &mut Words) -> Option<Kind> {
        let next = self.peek()?;
        let (_, ethertype, protocol) = PROTOCOLS.iter().find(|(word, ..)| *word == next)?;
        (words.ethertype, words.protocol) = (*ethertype, *protocol);
        self.next += 1;
        None
    }

    /// Reads `src`, `dst`, `src or dst`, `src and dst`.
    fn side(&mut self, words: &mut Words) -> Result<(), Mistake> {
        let next = self.peek();
        let Some((_, first)) = SIDES.into_iter().find(|(word, _)| Some(*word) == next) else { return Ok(()) };
        self.next += 1;
        let other = if first == Side::Source { "dst" } else { "src" };
        let joined = self.words.get(self.next + 1).map(|range| &self.text[range.clone()]) == Some(other);
        words.side = Some(match self.peek() {
            Some("or" | "||") if joined => Side::Either,
            Some("and" | "&&") if joined => Side::Both,
            None => return Err(self.mistake("what is meant to be the source or destination is missing")),
            Some(_) => {
                return {
                    words.side = Some(first);
                    Ok(())
                };
            }
        });
        self.next += 2;
        Ok(())
    }

    fn kind(&mut self) -> Option<Kind> {
        let next = self.peek()?;
        let (_, kind) = KINDS.into_iter().find(|(word, _)| *word == next)?;
        self.next += 1;
        Some(kind)
    }

    /// Reads an end and makes a clause of it with the words before it.
    fn end(&mut self, words: Words) -> Result<Wanted, Mistake> {
        let Some(word) = self.peek().filter(|word| !matches!(*word, "(" | ")" | "!")) else {
            return Err(self.mistake(format!("something is missing here: {}", known())));
        };
        let clause = Clause { ethertype: words.ethertype, protocol: words.protocol, ..Clause::default() };
        let one = match words.kind {
            Some(Kind::Host) => end(self.address(word)?),
            Some(Kind::Net) => self.net(word)?,
            Some(Kind::Port) => ports(self.port(word)?, self.port(word)?),
            Some(Kind::PortRange) => self.range(word)?,
            Some(Kind::Proto) => {
                let protocol = Some(self.protocol(word)?);
                self.next += 1;
                return Ok(Wanted::Clause(Clause { protocol, ..clause }));
            }
            // Without a word before it: pcap takes it for a host's address.
            None => match word.parse::<IpAddr>() {
                Ok(address) => end(address),
                Err(_) if word.contains('/') => self.net(word)?,
                Err(_) => return Err(self.mistake(unknown(word))),
            },
        };
        self.next += 1;
        Ok(sided(clause, one, words.side.unwrap_or_default()))
    }

    fn address(&self, word: &str) -> Result<IpAddr, Mistake> {
        word.parse().map_err(|_| self.mistake(format!("\"{word}\" is no address; names are not looked up")))
    }

    fn net(&self, word: &str) -> Result<End, Mistake> {
        let net: IpNet = match (word.parse(), word.parse::<IpAddr>()) {
            (Ok(net), _) => net,
            (Err(_), Ok(address)) => address.into(),
            (Err(_), Err(_)) => {
                return Err(self.mistake(format!("\"{word}\" is no network, as 10.0.0.0/24 and 2001:db8::/64 are")));
            }
        };
        Ok(End { prefix: Some((net.network(), net.prefix_len())), ports: None })
    }

    fn port(&self, word: &str) -> Result<u16, Mistake> {
        word.parse().map_err(|_| self.mistake(format!("\"{word}\" is no port: a port is a number up to 65535")))
    }

    fn range(&self, word: &str) -> Result<End, Mistake> {
        let pair = word.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match pair {
            Some((first, last)) if first <= last => Ok(ports(first, last)),
            _ => Err(self.mistake(format!("\"{word}\" is no range of ports, as 8000-8080 is"))),
        }
    }

    fn protocol(&self, word: &str) -> Result<u8, Mistake> {
        let plain = word.trim_start_matches('\\');
        let protocols = PROTOCOLS.iter().filter_map(|(name, _, protocol)| Some((*name, (*protocol)?)));
        let found = protocols.clone().find(|(name, _)| *name == plain).map(|(_, protocol)| protocol);
        found.or_else(|| plain.parse().ok()).ok_or_else(|| {
            let names: Vec<&str> = protocols.map(|(name, _)| name).collect();
            self.mistake(format!("\"{word}\" is no protocol: say {} or a number up to 255", names.join(", ")))
        })
    }
}

const fn ports(first: u16, last: u16) -> End {
    End { prefix: None, ports: Some((first, last)) }
}

/// A clause about an end on one side, or on either.
fn sided(clause: Clause, end: End, side: Side) -> Wanted {
    match side {
        Side::Either => Wanted::Clause(Clause { here: end, ..clause }),
        Side::Source => Wanted::Clause(Clause { here: end, one_way: true, ..clause }),
        Side::Destination => Wanted::Clause(Clause { there: end, one_way: true, ..clause }),
        Side::Both => Wanted::Clause(Clause { here: end.clone(), there: end, ..clause }),
    }
}

/// What to say of a word behind a whole condition.
fn unexpected(word: &str) -> String {
    let begins = keywords().chain(["not", "!", "("]).any(|known| known == word);
    if begins || word.parse::<IpNet>().is_ok() || word.parse::<IpAddr>().is_ok() {
        return format!("\"and\" or \"or\" is missing before \"{word}\"");
    }
    unknown(word)
}

/// What to say of a word that means nothing here.
fn unknown(word: &str) -> String {
    match word {
        "vlan" => "packets are not told apart by VLAN: say which host or port, in whatever VLAN".to_owned(),
        "ether" | "gateway" | "broadcast" | "multicast" | "less" | "greater" => {
            format!("\"{word}\" is pcap's, and not known here: {}", known())
        }
        _ if word.contains('[') => format!("\"{word}\" looks into the packet, which is not known here: {}", known()),
        _ => format!("\"{word}\" is not known: {}", known()),
    }
}

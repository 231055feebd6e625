//! Packets as a capture file (pcapng), with a comment at each: whose it is, and at which hop.
//!
//! Every device is an interface of the file, named `device@namespace`. Blocks are written as they come, so a reader can
//! follow. The format is draft-ietf-opsawg-pcapng; everything is in this machine's byte order, which the file says itself.

use std::io::{self, Write};

use netdiag_model::{
    live::{
        Layer, Sighting, What,
        journey::is_anothers,
        points::{Points, Side},
    },
    trace::Direction,
};

use crate::{escape, text::live::Epoch};

/// Block types.
const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const PACKET: u32 = 6;

/// By which a reader knows the byte order.
const MAGIC: u32 = 0x1a2b_3c4d;

/// Link types: Ethernet, and packets that begin with their IP header.
const ETHERNET: u16 = 1;
const RAW: u16 = 101;

/// Options.
const END: u16 = 0;
const COMMENT: u16 = 1;
const USER_APPLICATION: u16 = 4;
const NAME: u16 = 2;
const RESOLUTION: u16 = 9;
const FLAGS: u16 = 2;

/// Nanoseconds: ten to the power of minus this.
const NANO: u8 = 9;

/// A capture file being written.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Name and link type of every interface there is a block of, in order.
    interfaces: Vec<(String, u16)>,
    epoch: Epoch,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    pub fn begin(mut out: W, epoch: Epoch) -> io::Result<Self> {
        let mut body = Vec::new();
        body.extend(MAGIC.to_ne_bytes());
        // Version 1.0; how long the section is, nobody knows yet.
        body.extend([1_u16.to_ne_bytes(), 0_u16.to_ne_bytes()].concat());
        body.extend(u64::MAX.to_ne_bytes());
        option(&mut body, USER_APPLICATION, concat!("netdiag ", env!("CARGO_PKG_VERSION")).as_bytes());
        option(&mut body, END, &[]);
        block(&mut out, SECTION, &body)?;
        Ok(Self { out, interfaces: Vec::new(), epoch })
    }

    /// Writes a packet, seen at a device of a name, with what there is to say of it.
    pub fn packet(&mut self, sighting: &Sighting, name: &str, comment: &str) -> io::Result<()> {
        let link_type = match sighting.layer {
            Layer::Ethernet => ETHERNET,
            Layer::Network => RAW,
        };
        let interface = self.interface(name, link_type)?;
        let time = self.epoch.at(sighting.time_ns);
        let captured = u32::try_from(sighting.head.len()).unwrap_or(u32::MAX);
        let mut body = Vec::new();
        // The upper half of the time comes first, whatever the byte order.
        let [upper, lower] =
            [time >> 32, time & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
        body.extend([interface, upper, lower].map(u32::to_ne_bytes).concat());
        body.extend([captured.to_ne_bytes(), sighting.length.max(captured).to_ne_bytes()].concat());
        padded(&mut body, &sighting.head);
        option(&mut body, COMMENT, escape::terminal(comment, false).as_bytes());
        option(&mut body, FLAGS, &flags(&sighting.what).to_ne_bytes());
        option(&mut body, END, &[]);
        block(&mut self.out, PACKET, &body)
    }

    /// Passes on what was written.
    pub fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    /// Number of an interface; a new one gets its block first.
    fn interface(&mut self, name: &str, link_type: u16) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|(known, kind)| known == name && *kind == link_type);
        if let Some(place) = known {
            return Ok(u32::try_from(place).unwrap_or(u32::MAX));
        }
        let mut body = Vec::new();
        // Link type, two reserved bytes, no limit to the length of a packet.
        body.extend([link_type.to_ne_bytes(), [0; 2], [0; 2], [0; 2]].concat());
        option(&mut body, NAME, escape::terminal(name, false).as_bytes());
        option(&mut body, RESOLUTION, &[NANO]);
        option(&mut body, END, &[]);
        block(&mut self.out, INTERFACE, &body)?;
        self.interfaces.push((name.to_owned(), link_type));
        Ok(u32::try_from(self.interfaces.len() - 1).unwrap_or(u32::MAX))
    }
}

/// Direction of a packet at its device, in the lowest bits: 1 inbound, 2 outbound.
const fn flags(what: &What) -> u32 {
    match what {
        What::Received(_) => 1,
        What::Sent(_) => 2,
        What::Dropped { .. } => 0,
    }
}

/// Writes a block: type, length, body, length again.
fn block(out: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?;
    out.write_all(&kind.to_ne_bytes())?;
    out.write_all(&length.to_ne_bytes())?;
    out.write_all(body)?;
    out.write_all(&length.to_ne_bytes())
}

/// Adds an option; one too long for its field is cut at a character.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = match std::str::from_utf8(value) {
        Ok(text) => &value[..text.floor_char_boundary(u16::MAX.into())],
        Err(_) => value,
    };
    body.extend(code.to_ne_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_ne_bytes());
    padded(body, value);
}

/// Adds bytes, and zeros up to the next 32 bits.
fn padded(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// Whether a sighting is one of the path: not somebody else's with the same address, not given up elsewhere, and no copy that Open vSwitch left behind.
pub fn belongs(sighting: &Sighting, points: &Points) -> bool {
    let copied = |link| points.devices().iter().any(|stop| stop.copied && stop.link == link);
    match (&sighting.what, sighting.link) {
        (What::Received(_) | What::Sent(_), _) => !is_anothers(sighting, points),
        (What::Dropped { .. }, Some(link)) => {
            points.has_namespace(link.netns) && !copied(link) && !is_anothers(sighting, points)
        }
        (What::Dropped { .. }, None) => false,
    }
}

/// The device a packet was seen at, and what there is to say of it there.
pub fn at(sighting: &Sighting, points: &Points) -> (String, String) {
    let side = Side::of(&sighting.what);
    let stop = sighting.link.and_then(|link| {
        let sides = side.map_or([Side::Received, Side::Sent], |side| [side, side]);
        sides.into_iter().find_map(|side| points.places(link, side).next())
    });
    let place = stop.and_then(|(place, direction)| Some((points.stop(place)?, direction)));
    let name = place.map_or_else(|| "elsewhere".to_owned(), |(stop, _)| format!("{}@{}", stop.name, stop.netns));
    let whose = &points.instance;
    let hop = place.and_then(|(stop, direction)| {
        let way = if direction == Direction::Inward { "inward" } else { "outward" };
        Some(format!("hop {} {way}, ", stop.hop(direction)?))
    });
    let hop = hop.unwrap_or_default();
    match &sighting.what {
        What::Dropped { reason, location, .. } => {
            let location = location.as_ref().map_or_else(String::new, |location| format!(" in {location}"));
            (name, format!("instance {whose}: given up{location}, reason {reason}"))
        }
        What::Received(_) => (name, format!("instance {whose}: {hop}received")),
        What::Sent(_) => (name, format!("instance {whose}: {hop}sent")),
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::live::View;

    use super::*;

    fn sighting(layer: Layer, head: &[u8]) -> Sighting {
        Sighting {
            time_ns: 5,
            cpu: 0,
            link: None,
            what: What::Received(View::Tc),
            buffer: 0,
            length: 100,
            mark: 0,
            tag: None,
            layer,
            head: head.to_vec(),
        }
    }

    /// Blocks of a file, as type and body.
    fn blocks(mut file: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let word = |bytes: &[u8]| u32::from_ne_bytes(bytes[..4].try_into().unwrap());
        let mut found = Vec::new();
        while !file.is_empty() {
            let (kind, length) = (word(file), word(&file[4..]) as usize);
            assert_eq!(length % 4, 0);
            assert_eq!(word(&file[length - 4..]) as usize, length);
            found.push((kind, file[8..length - 4].to_vec()));
            file = &file[length..];
        }
        found
    }

    fn written(packets: &[(Sighting, &str, &str)]) -> Vec<(u32, Vec<u8>)> {
        let mut file = Vec::new();
        let mut writer = Writer::begin(&mut file, Epoch(1_000_000_000)).unwrap();
        for (sighting, name, comment) in packets {
            writer.packet(sighting, name, comment).unwrap();
        }
        blocks(&file)
    }

    #[test]
    fn what_another_tenants_router_sends_from_the_same_address_is_not_written() {
        let (mut points, seen) = (crate::fixtures::live::live("web-1").points, crate::fixtures::live::sightings());
        let own = seen[0].clone();
        assert!(belongs(&own, &points));
        let leaving = Sighting { link: seen[4].link, what: What::Sent(View::Tc), ..own };
        for (router, is_written) in [([2, 0, 0, 0, 0, 2], true), ([2, 0, 0, 0, 0, 9], false)] {
            points.tracks[0].stops[4].segment.near = Some(netdiag_model::id::Mac(router));
            assert_eq!(belongs(&leaving, &points), is_written);
        }
    }

    #[test]
    fn each_device_is_an_interface_once_and_each_link_type_has_its_own() {
        let frame = sighting(Layer::Ethernet, &[1, 2, 3]);
        let bare = sighting(Layer::Network, &[0x45]);
        let file = written(&[
            (frame.clone(), "eth0@web-1", "one"),
            (frame.clone(), "tap1@host", "two"),
            (frame, "eth0@web-1", "three"),
            (bare, "eth0@web-1", "dropped"),
        ]);
        let kinds: Vec<u32> = file.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, PACKET, INTERFACE, PACKET, PACKET, INTERFACE, PACKET]);
        let numbers: Vec<u8> = file.iter().filter(|block| block.0 == PACKET).map(|block| block.1[0]).collect();
        assert_eq!(numbers, [0, 1, 0, 2]);
    }

    #[test]
    fn a_packet_has_its_time_its_bytes_its_whole_length_and_its_comment() {
        let file = written(&[(sighting(Layer::Ethernet, &[1, 2, 3]), "eth0@web-1", "hop 3, web-1")]);
        let body = &file[2].1;
        assert_eq!(body[4..12], [0_u32.to_ne_bytes(), 1_000_000_005_u32.to_ne_bytes()].concat());
        assert_eq!(body[12..20], [3_u32.to_ne_bytes(), 100_u32.to_ne_bytes()].concat());
        assert_eq!(body[20..24], [1, 2, 3, 0]);
        let comment = [&COMMENT.to_ne_bytes()[..], &12_u16.to_ne_bytes(), b"hop 3, web-1"].concat();
        assert!(body.windows(comment.len()).any(|window| window == comment));
    }

    #[test]
    fn hostile_names_reach_the_file_escaped_and_cut() {
        let long = "x".repeat(70_000);
        let file = written(&[(sighting(Layer::Ethernet, &[0]), "eth0\x1b[2J@web", &long)]);
        assert!(!file.iter().any(|(_, body)| body.contains(&0x1b)));
    }
}

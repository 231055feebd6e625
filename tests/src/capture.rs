//! What arrives at and leaves the two ends of a way, in words that are the same for two ways which do the same.
//!
//! Each run of a case has ports and identifiers of its own, because a flow keeps the way it began on. The words name them
//! by their distance from the first one of the run, name identifications of IP by their order, and of a checksum over
//! addresses and ports they keep what is left without those. All else is what was in the packet.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    hash::{DefaultHasher, Hasher as _},
    io,
    net::Ipv4Addr,
    num::NonZeroU32,
    os::fd::{AsRawFd, OwnedFd},
    time::Duration,
};

use crate::behaviour::wire::Wire;

use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with,
    sockopt::{Timeout, set_socket_recv_buffer_size_force, set_socket_timeout},
};

/// Ports and identifiers of one run of a case.
pub const RUN: u16 = 32;

/// `ETH_P_ALL` of `linux/if_ether.h`, in network byte order.
const EVERYTHING: u32 = (3_u16).to_be() as u32;
/// How long the next packet is waited for.
const SOON: Duration = Duration::from_millis(20);
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// Packets of a namespace, each from its IP header on.
#[derive(Debug)]
pub struct Capture(Source);

/// Where they are taken.
#[derive(Debug)]
enum Source {
    /// At all devices, coming and going.
    Everywhere(OwnedFd),
    /// At one device, coming.
    Arriving(Wire),
}

impl Capture {
    /// Opens one at all devices of the namespace the calling thread is in.
    ///
    /// # Errors
    /// There is no right to do it.
    pub fn open() -> io::Result<Self> {
        let protocol = NonZeroU32::new(EVERYTHING).map(Protocol::from_raw);
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
        // Of what happens beside what is looked for there may be much.
        set_socket_recv_buffer_size_force(&socket, 64 << 20)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(SOON))?;
        Ok(Self(Source::Everywhere(socket)))
    }

    /// Opens one for what comes to a device of that namespace.
    ///
    /// # Errors
    /// There is no such device, or no right to do it.
    pub fn arriving(device: &str) -> io::Result<Self> {
        Wire::open(device).map(|wire| Self(Source::Arriving(wire)))
    }

    /// The next packet, if there is one soon.
    #[must_use]
    pub fn receive(&self) -> Option<Vec<u8>> {
        match &self.0 {
            Source::Everywhere(socket) => {
                let mut packet = vec![0; 66_000];
                let (length, _) = recv(socket, &mut packet[..], RecvFlags::empty()).ok()?;
                packet.truncate(length);
                Some(packet)
            }
            Source::Arriving(wire) => wire.receive(SOON).map(|frame| frame.get(ETHERNET..).unwrap_or_default().into()),
        }
    }
}

/// Says whether what a socket sends may be cut into pieces: an `IP_PMTUDISC_` of `linux/in.h`.
///
/// # Errors
/// The kernel does not know it.
#[expect(unsafe_code, reason = "no wrapper sets this option")]
pub fn discover_mtu(socket: &impl AsRawFd, how: libc::c_int) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    let (level, option) = (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER);
    // SAFETY: the option is an int, and lives for the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const how).cast(), size) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives what a socket sends options of IP; none takes them away again.
///
/// # Errors
/// The kernel does not take them.
#[expect(unsafe_code, reason = "no wrapper sets this option")]
pub fn ip_options(socket: &impl AsRawFd, options: &[u8]) -> io::Result<()> {
    let size = libc::socklen_t::try_from(options.len()).map_err(io::Error::other)?;
    let (level, option) = (libc::IPPROTO_IP, libc::IP_OPTIONS);
    // SAFETY: the options are of the size told, and live for the call.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, options.as_ptr().cast(), size) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What all fragments of a datagram have in common: source, destination, protocol, identification.
type Datagram = (Ipv4Addr, Ipv4Addr, u8, u16);

/// Packets of one run at one end of the way.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whoever sends may leave checksums to the hardware; others quote such packets as they are.
    offload: bool,
    /// Of later fragments from these addresses nothing is taken: they share their bytes with what goes on from here, and the kernel
    /// translates that in place.
    own: Vec<Ipv4Addr>,
    packets: Vec<Packet>,
    /// Whose first fragments there were: later ones carry no ports, and others may use the same number (RFC 791, section 2.3).
    begun: BTreeSet<Datagram>,
}

impl Seen {
    /// Nothing so far at an end with these addresses, on a way where checksums are left to the hardware, or on one where they are not.
    #[must_use]
    pub fn new(offload: bool, own: [Ipv4Addr; 2]) -> Self {
        Self { offload, own: if offload { own.into() } else { Vec::new() }, ..Self::default() }
    }

    /// Takes a packet if it is one of the run.
    pub fn take(&mut self, bytes: &[u8], base: u16) {
        let Some(packet) = Packet::read(bytes) else { return };
        if packet.offset == 0 && packet.is_of(base) {
            self.begun.insert(packet.datagram());
        } else if packet.offset == 0 || !self.begun.contains(&packet.datagram()) || self.own.contains(&packet.source) {
            return;
        }
        self.packets.push(packet);
    }

    /// How many there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.packets.len()
    }

    /// True if there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    /// The packets in words, as somebody with this address sees them.
    #[must_use]
    pub fn words(&self, (end, own, base): (&str, Ipv4Addr, u16), names: &mut Names) -> Vec<String> {
        names.offload = self.offload;
        let line = |packet: &Packet| {
            let way = if packet.source == own { "sends" } else { "gets" };
            format!("{end} {way} {}", packet.words(base, names))
        };
        self.packets.iter().map(line).collect()
    }
}

/// Names of identifications, in the order in which they are met.
#[derive(Debug, Default)]
pub struct Names {
    ids: BTreeMap<u16, usize>,
    offload: bool,
}

impl Names {
    fn name(&mut self, id: u16) -> usize {
        let next = self.ids.len();
        *self.ids.entry(id).or_insert(next)
    }
}

/// An IPv4 packet, or the beginning of one.
#[derive(Debug)]
struct Packet {
    header: Vec<u8>,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    id: u16,
    /// In eights of bytes.
    offset: u16,
    protocol: u8,
    body: Vec<u8>,
}

impl Packet {
    fn read(bytes: &[u8]) -> Option<Self> {
        let first = *bytes.first()?;
        let length = usize::from(first & 15) * 4;
        let header = bytes.get(..length.max(20)).filter(|_| first >> 4 == 4)?;
        let address = |at: usize| Some(Ipv4Addr::from(*header.get(at..)?.first_chunk::<4>()?));
        let total = usize::from(word(header, 2)?).min(bytes.len());
        Some(Self {
            header: header.to_vec(),
            source: address(12)?,
            destination: address(16)?,
            id: word(header, 4)?,
            offset: word(header, 6)? & 0x1fff,
            protocol: header[9],
            body: bytes.get(header.len()..total)?.to_vec(),
        })
    }

    const fn datagram(&self) -> Datagram {
        (self.source, self.destination, self.protocol, self.id)
    }

    /// Whether it is of the run, or an error about a packet that is.
    fn is_of(&self, base: u16) -> bool {
        let own = |at: usize| word(&self.body, at).is_some_and(|number| (base..base + RUN).contains(&number));
        match (self.protocol, self.body.first()) {
            (TCP | UDP, _) => own(0) || own(2),
            (ICMP, Some(0 | 8)) => own(4),
            (ICMP, Some(_)) => {
                self.body.get(8..).and_then(Self::read).is_some_and(|quoted| quoted.offset == 0 && quoted.is_of(base))
            }
            _ => false,
        }
    }

    fn words(&self, base: u16, names: &mut Names) -> String {
        let mut text = format!("{} > {}", self.source, self.destination);
        let field = |at: usize| word(&self.header, at).unwrap_or_default();
        let (fragment, ttl, tos) = (field(6), self.header[8], self.header[1]);
        let name = names.name(self.id);
        let _infallible = write!(text, " ttl {ttl} tos {tos:x} length {} id {name} at {fragment:x}", field(2));
        let sum = if sum(&self.header) == 0xffff { "right" } else { "WRONG" };
        let options = &self.header[20..];
        let _infallible = write!(text, " header {sum} options {options:?}: {}", self.content(base, names));
        text
    }

    fn content(&self, base: u16, names: &mut Names) -> String {
        let at = |at: usize| word(&self.body, at).unwrap_or_default();
        let near = |at_word: usize| i32::from(at(at_word)) - i32::from(base);
        match (self.offset, self.protocol, self.body.first()) {
            (0, UDP, _) => {
                let (sum, data) =
                    (self.rest(6, &[0, 2], names.offload), digest(self.body.get(8..).unwrap_or_default()));
                format!("udp {} > {} length {} sum {sum} data {data}", near(0), near(2), at(4))
            }
            (0, ICMP, Some(0 | 8)) => {
                let (kind, data) = (at(0), digest(self.body.get(8..).unwrap_or_default()));
                // The pseudo header is none of its checksum.
                let rest = rest(at(2), &[at(4)]);
                format!("icmp {kind:x} id {} seq {} sum {rest:x} data {data}", near(4), at(6))
            }
            (0, ICMP, Some(_)) => {
                let sum = if sum(&self.body) == 0xffff { "right" } else { "WRONG" };
                let quoted = self.body.get(8..).and_then(Self::read);
                let quoted = quoted.map_or_else(|| "nothing".into(), |quoted| quoted.words(base, names));
                format!("icmp {:x} rest {:x} {:x} sum {sum} quotes [{quoted}]", at(0), at(4), at(6))
            }
            _ => format!("protocol {} data {}", self.protocol, digest(&self.body)),
        }
    }

    /// What is left of a checksum without addresses and ports.
    fn rest(&self, at: usize, ports: &[usize], offload: bool) -> String {
        let Some(sum) = word(&self.body, at) else { return "cut off".into() };
        if sum == 0 {
            return "none".into();
        }
        let addresses = [12, 14, 16, 18].map(|at| word(&self.header, at).unwrap_or_default());
        let header = u16::try_from(self.header.len()).unwrap_or_default();
        let length = word(&self.header, 2).unwrap_or_default().saturating_sub(header);
        let pseudo: u64 = addresses.iter().chain(&[length, self.protocol.into()]).map(|word| u64::from(*word)).sum();
        if offload && pseudo % 0xffff == u64::from(sum) % 0xffff {
            return "unfinished".into();
        }
        // Who translates a quoted one takes it for finished, and no port is in what comes of it.
        let is_whole = self.body.len() == usize::from(length);
        let is_strange = offload && is_whole && !(pseudo + u64::from(self::sum(&self.body))).is_multiple_of(0xffff);
        let ports = ports.iter().filter(|_| !is_strange).filter_map(|at| word(&self.body, *at));
        format!("{:x}", rest(sum, &addresses.into_iter().chain(ports).collect::<Vec<_>>()))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk::<2>().map(|two| u16::from_be_bytes(*two))
}

/// The sum of the words in one's complement.
#[must_use]
pub fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|two| u64::from(two[0]) << 8 | u64::from(two.get(1).copied().unwrap_or_default()));
    let mut sum: u64 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or_default()
}

/// The sum that a checksum stands for, less these words of it.
fn rest(checksum: u16, words: &[u16]) -> u64 {
    let less: u64 = words.iter().map(|word| u64::from(!word)).sum();
    (u64::from(!checksum) + less) % 0xffff
}

/// Few bytes as they are, many as a number.
fn digest(data: &[u8]) -> String {
    if data.len() <= 32 {
        return format!("{data:02x?}");
    }
    let mut hasher = DefaultHasher::new();
    hasher.write(data);
    format!("{} bytes {:x}", data.len(), hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::{Names, Seen, sum};

    /// A datagram with the checksums it must have.
    fn datagram(source: u16, destination: u16) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 32, 0, 7, 0x40, 0, 64, 17, 0, 0];
        packet.extend([10, 0, 0, 1, 192, 0, 2, 1]);
        packet.extend([source.to_be_bytes(), destination.to_be_bytes(), [0, 12], [0, 0]].concat());
        packet.extend(b"ping");
        let header = !sum(&packet[..20]);
        packet[10..12].copy_from_slice(&header.to_be_bytes());
        let pseudo = [&packet[12..20], &[0, 17, 0, 12], &packet[20..]].concat();
        let body = !sum(&pseudo);
        packet[26..28].copy_from_slice(&body.to_be_bytes());
        packet
    }

    fn words(packet: &[u8], base: u16) -> Vec<String> {
        words_of(packet, base, false)
    }

    fn words_of(packet: &[u8], base: u16, offload: bool) -> Vec<String> {
        let mut seen = Seen { offload, ..Seen::default() };
        seen.take(packet, base);
        seen.words(("it", [192, 0, 2, 1].into(), base), &mut Names::default())
    }

    #[test]
    fn checksums_that_were_not_finished_read_the_same_in_two_runs_translated_or_not() {
        let with = |source: u16, checksum: u16| {
            let mut packet = datagram(source, source + 1);
            packet[26..28].copy_from_slice(&checksum.to_be_bytes());
            packet
        };
        let packet = datagram(1, 2);
        let pseudo = sum(&[&packet[12..20], &[0, 17, 0, 12]].concat());
        for (checksum, what) in [(pseudo, "unfinished"), (pseudo - 0x1234, "")] {
            let first = words_of(&with(20_000, checksum), 20_000, true);
            assert!(first[0].contains(what), "{first:?}");
            assert_eq!(words_of(&with(20_032, checksum), 20_032, true), first);
            assert_ne!(words_of(&with(20_032, checksum ^ 1), 20_032, true), first);
        }
        assert_eq!(words_of(&packet, 1, true), words(&packet, 1), "a finished one is read as one");
    }

    #[test]
    fn datagrams_of_two_runs_read_the_same_and_one_wrong_bit_does_not() {
        let first = words(&datagram(20_001, 10_000), 20_000);
        let later = datagram(20_033, 10_032);
        assert_eq!(first.len(), 1);
        assert_eq!(words(&later, 20_032), first);
        for byte in [1, 8, 11, 15, 20, 27, 31] {
            let mut damaged = later.clone();
            damaged[byte] ^= 1;
            assert_ne!(words(&damaged, 20_032), first, "byte {byte}");
        }
    }

    #[test]
    fn later_fragments_go_with_the_first_one_of_the_same_ends_and_no_other_of_its_number() {
        let mut first = datagram(20_001, 10_000);
        first[6] = 0x20;
        let mut later = datagram(30_000, 30_000);
        later[7] = 1;
        let taken = |later: &[u8]| {
            let mut seen = Seen::default();
            for packet in [&first[..], later] {
                seen.take(packet, 20_000);
            }
            seen.len()
        };
        assert_eq!(taken(&later), 2);
        for byte in [5, 9, 15, 19] {
            let mut other = later.clone();
            other[byte] ^= 2;
            assert_eq!(taken(&other), 1, "byte {byte}");
        }
    }

    #[test]
    fn packets_of_others_are_not_taken() {
        assert_eq!(words(&datagram(30_000, 10_000), 20_000), Vec::<String>::new());
        assert_eq!(words(&[0, 1, 8, 0], 20_000), Vec::<String>::new());
    }
}

//! Map keys and values of a compiled policy. Flow: policy.
//!
//! User space writes all of them, the programs only read. Numbers are in the byte order of the host, addresses in
//! that of the network, as the bytes of a packet have them.

/// Devices with an index below this are found by an array; above, by a hash map.
pub const NEAR_INTERFACES: u32 = 65_536;
/// How many ports a host can enforce.
pub const MAX_PORTS: u32 = 1024;
/// How many different combinations of security groups can be in force at once.
pub const MAX_POLICIES: u32 = 4096;
/// How many versions of policies can exist at once: the one in force and the one about to be, of each.
pub const MAX_VIEWS: u32 = 8192;
/// How many different service tables can exist at once.
pub const MAX_SERVICE_TABLES: u32 = 4096;
/// How many pages of [`PAGE`] entries the service tables can have together.
pub const MAX_PAGES: u32 = 16_384;
/// How many rules can be in force at once, on all ports together.
pub const MAX_RULES: u32 = 65_536;
/// How many pairs of remote class and service class can have a rule.
pub const MAX_GRANTS: u32 = 1_048_576;
/// How many host addresses the remote sets can have together, for each family.
pub const MAX_REMOTES: u32 = 1_048_576;
/// How many prefixes the remote sets can have together, for each family.
pub const MAX_PREFIXES: u32 = 262_144;
/// How many sets of host addresses can exist at once.
pub const MAX_SETS: u32 = 16_384;
/// How many MAC addresses ports can have together beside their own.
pub const MAX_MACS: u32 = 16 * MAX_PORTS;
/// How many address pairs ports can have together beside the inline ones.
pub const MAX_PAIRS: u32 = 64 * MAX_PORTS;
/// Entries of a page: the values one octet of a port can have.
pub const PAGE: usize = 256;
/// Fixed addresses of a port that are compared without a lookup.
pub const INLINE_IPV4: usize = 4;
/// The same for IPv6; the link-local address of the MAC address takes one of them.
pub const INLINE_IPV6: usize = 3;
/// Ethertypes an operator can permit.
pub const MAX_ETHERTYPES: usize = 8;

/// The port is filtered. Without this bit the device passes everything unseen.
pub const PORT_MANAGED: u32 = 1;
/// The port passes everything: no port security, or a port of the network itself.
pub const PORT_TRUSTED: u32 = 1 << 1;
/// The port's policy is not known yet; what would be refused for want of a rule says so.
pub const PORT_CLOSED: u32 = 1 << 2;
/// The port has more address pairs than the inline ones: look in `PAIRS` and `MACS` before refusing.
pub const PORT_MORE_PAIRS: u32 = 1 << 3;
/// The port has a fixed IPv6 address: router advertisements may reach it.
pub const PORT_HAS_IPV6: u32 = 1 << 4;
/// Say of every new flow that is allowed, too.
pub const PORT_LOG_ALLOWED: u32 = 1 << 5;

/// A port of an instance, at the place the device leads to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Port {
    /// `PORT_*` bits.
    pub flags: u32,
    /// Which policy is in force: an index of `ACTIVE`.
    pub policy: u32,
    /// Changes whenever the place is given to another port, so that flows of the one before mean nothing. Never 0.
    pub epoch: u32,
    /// The port's MAC address.
    pub mac: [u8; 6],
    /// Always 0.
    pub pad: [u8; 2],
    /// Fixed IPv4 addresses; 0 is none.
    pub ipv4: [u32; INLINE_IPV4],
    /// Fixed IPv6 addresses, and the link-local address of the MAC address; zeros are none.
    pub ipv6: [[u32; 4]; INLINE_IPV6],
}

/// A MAC address with which a port may send.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacKey {
    /// Place of the port.
    pub slot: u32,
    /// The MAC address.
    pub mac: [u8; 6],
    /// Always 0.
    pub pad: [u8; 2],
}

/// The data part of a key of the trie of address pairs. The prefix covers slot and MAC address whole (96 bits) and then
/// as much of the address as the pair names; IPv4 addresses are mapped (`::ffff:0:0/96`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairKey {
    /// Place of the port.
    pub slot: u32,
    /// The MAC address.
    pub mac: [u8; 6],
    /// 4 or 6: a prefix of IPv6 that covers the mapped addresses covers no IPv4 address.
    pub family: u8,
    /// Always 0.
    pub pad: u8,
    /// The address.
    pub address: [u32; 4],
}

/// Which view of a policy is in force, and its generation. The two travel in one word, and the view repeats the
/// generation, so that a reader that meets a word half written knows it.
pub const fn active(view: u32, generation: u32) -> u64 {
    (view as u64) << 32 | generation as u64
}

/// The view in a word of `ACTIVE`.
pub const fn active_view(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The generation in a word of `ACTIVE`.
#[expect(clippy::cast_possible_truncation, reason = "the lower half of the word is the generation")]
pub const fn active_generation(word: u64) -> u32 {
    word as u32
}

/// Replies need rules of their own, and nothing is tracked.
pub const VIEW_STATELESS: u32 = 1;

/// One version of a policy. It is written whole before it is put in force and never changed afterwards.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Generation; the same as in the word of `ACTIVE` that puts it in force.
    pub generation: u32,
    /// `VIEW_*` bits.
    pub flags: u32,
    /// What is allowed, by [`side`].
    pub sides: [Side; 4],
}

/// Which side of a view decides: direction and family.
pub const fn side(ingress: bool, ipv6: bool) -> usize {
    (ingress as usize) << 1 | ipv6 as usize
}

/// The rules of one direction and one family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Side {
    /// Service table: which services the rules tell apart. Table 0 has no rule at all.
    pub services: u32,
    /// First half of a key of `GRANTS`.
    pub grants: u32,
    /// Set of host addresses the rules tell apart, for `REMOTES*`; 0 is none.
    pub hosts: u32,
    /// Set of prefixes the rules tell apart, for `PREFIXES*`; 0 is none.
    pub prefixes: u32,
}

/// What the rules say of a service, in a [`Protocol`] or in a page: a class, which is a key of `GRANTS`, in the upper
/// 29 bits, and who may use it in the lower three. 0: no rule knows the service.
pub type Class = u32;

/// Some rule lets every remote address use it: the grant of remote class 0.
pub const CLASS_ANY: Class = 1;
/// Some rule lets a host of the side's set of host addresses use it.
pub const CLASS_HOSTS: Class = 1 << 1;
/// Some rule lets a prefix of the side's set of prefixes use it.
pub const CLASS_PREFIXES: Class = 1 << 2;
/// Bits below the class itself.
pub const CLASS_SHIFT: u32 = 3;

/// One protocol of a service table, at index `table * 256 + protocol`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Protocol {
    /// Rules of the whole protocol, and of every protocol.
    pub whole: Class,
    /// Page that leads, by the upper octet of the service, to the page that holds, by the lower octet, the class of the
    /// rules with ports (TCP, UDP, SCTP, DCCP, UDP-Lite: the destination port; ICMP: `type << 8 | code`). 0 is none.
    pub directory: u32,
}

/// A page of a service table: page numbers in a directory, classes in a leaf.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Page(pub [u32; PAGE]);

impl Default for Page {
    fn default() -> Self {
        Self([0; PAGE])
    }
}

/// Which rule lets a class of remote addresses use a class of services.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GrantKey {
    /// [`Side::grants`].
    pub grants: u32,
    /// Class of the remote address; 0 is every address.
    pub remote: u32,
    /// Class of the service, without its lower bits.
    pub class: u32,
}

/// A host address of a remote set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey4 {
    /// [`Side::hosts`], or [`Side::prefixes`] as the data part of a key of the trie.
    pub set: u32,
    /// The address.
    pub address: u32,
}

/// A host address of a remote set.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey6 {
    /// [`Side::hosts`], or [`Side::prefixes`] as the data part of a key of the trie.
    pub set: u32,
    /// The address.
    pub address: [u32; 4],
}

/// A name user space keeps beside a number, so that whoever reads the maps knows what it stands for: zeros at the end.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(pub [u8; 64]);

impl Default for Label {
    fn default() -> Self {
        Self([0; 64])
    }
}

/// What holds for all ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// [`crate::ABI_VERSION`] of whoever wrote the maps.
    pub abi: u32,
    /// Records a second that one port may cause.
    pub events_per_second: u32,
    /// Permitted ethertypes in host byte order; 0 is none.
    pub ethertypes: [u16; MAX_ETHERTYPES],
}

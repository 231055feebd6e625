//! Tables, chains and rules, whichever tool printed them. Flow: explain.
//!
//! A rule is its matches and its target, each either understood or kept as the text that was printed; [`Rule::raw`] is
//! always the whole. Base chains carry the hook and priority the kernel calls them at, so that the chains of several
//! backends can be put in one order.

use std::{collections::HashMap, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{RuleCounters, sets::Members};
use crate::id::Mac;

/// Where in its way through the kernel a packet meets rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Hook {
    /// As a frame comes from its device (nftables only).
    Ingress,
    /// Before routing.
    Prerouting,
    /// To this namespace itself.
    Input,
    /// Through this namespace.
    Forward,
    /// From this namespace itself.
    Output,
    /// After routing.
    Postrouting,
    /// As a frame goes to its device (nftables only).
    Egress,
}

impl Hook {
    /// Its name as iptables writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "INGRESS",
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::Egress => "EGRESS",
        }
    }

    /// The hook of that name, in either case.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ingress, Self::Prerouting, Self::Input, Self::Forward, Self::Output, Self::Postrouting, Self::Egress]
            .into_iter()
            .find(|hook| hook.name().eq_ignore_ascii_case(name))
    }
}

/// Which packets an nftables table sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
    /// IPv4 and IPv6.
    Inet,
    /// ARP.
    Arp,
    /// Frames of Linux bridges.
    Bridge,
    /// Frames of one device.
    Netdev,
}

impl Family {
    /// Its name as nft writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
            Self::Inet => "inet",
            Self::Arp => "arp",
            Self::Bridge => "bridge",
            Self::Netdev => "netdev",
        }
    }

    /// The family of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Self::Ip, Self::Ip6, Self::Inet, Self::Arp, Self::Bridge, Self::Netdev]
            .into_iter()
            .find(|family| family.name() == name)
    }
}

/// What the kernel does with a base chain's verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Filters; also iptables' raw, mangle and security tables.
    Filter,
    /// Translates; asked for the first packet of a flow only.
    Nat,
}

/// Where the kernel calls a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseChain {
    /// Filter or NAT.
    pub kind: ChainKind,
    /// At which hook.
    pub hook: Hook,
    /// Lower comes first; connection tracking is at -200.
    pub priority: i32,
    /// Devices it is called for, at the hooks of devices; `None` where they were not printed. Empty at all other hooks.
    pub devices: Option<Vec<String>>,
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// The family of an nftables table; `None` for iptables, where the rule set says it.
    pub family: Option<Family>,
    chains: Vec<Chain>,
    /// Place in `chains` by name: a walk follows thousands of jumps.
    index: HashMap<String, usize>,
}

impl Table {
    /// A table without chains.
    pub fn new(name: impl Into<String>, family: Option<Family>) -> Self {
        Self { name: name.into(), family, chains: Vec::new(), index: HashMap::new() }
    }

    /// Its chains, in the order they were printed.
    pub fn chains(&self) -> &[Chain] {
        &self.chains
    }

    /// A chain by name.
    pub fn chain(&self, name: &str) -> Option<&Chain> {
        self.index.get(name).and_then(|&place| self.chains.get(place))
    }

    /// The same without some rules; the others keep their numbers.
    #[must_use]
    pub fn without(mut self, unwanted: impl Fn(&Rule) -> bool) -> Self {
        for chain in &mut self.chains {
            chain.rules.retain(|rule| !unwanted(rule));
        }
        self
    }

    /// Every rule of every chain, to be completed.
    pub(super) fn rules_mut(&mut self) -> impl Iterator<Item = &mut Rule> {
        self.chains.iter_mut().flat_map(|chain| &mut chain.rules)
    }

    /// The chain of that name, made where there is none yet.
    pub(super) fn chain_mut(&mut self, name: &str) -> &mut Chain {
        let place = self.index.get(name).copied().unwrap_or_else(|| {
            self.index.insert(name.to_owned(), self.chains.len());
            self.chains.push(Chain { name: name.to_owned(), ..Chain::default() });
            self.chains.len() - 1
        });
        &mut self.chains[place]
    }
}

/// Prints the table as `iptables-save -c` does, with every rule's own text.
impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "*{}", self.name)?;
        for Chain { name, policy, counters, .. } in &self.chains {
            let policy = policy.map_or("-", ChainPolicy::name);
            writeln!(f, ":{name} {policy} [{}:{}]", counters.packets, counters.bytes)?;
        }
        for Rule { counters, raw, .. } in self.chains.iter().flat_map(|chain| &chain.rules) {
            writeln!(f, "[{}:{}] {raw}", counters.packets, counters.bytes)?;
        }
        writeln!(f, "COMMIT")
    }
}

/// What happens at the end of a base chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainPolicy {
    /// The packet goes on.
    Accept,
    /// The packet dies.
    Drop,
}

impl ChainPolicy {
    /// Its name as iptables writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Accept => "ACCEPT",
            Self::Drop => "DROP",
        }
    }
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Its name.
    pub name: String,
    /// Where the kernel calls it; `None` for chains that are only jumped to.
    pub base: Option<BaseChain>,
    /// What happens at its end, for base chains.
    pub policy: Option<ChainPolicy>,
    /// What the policy counted.
    pub counters: RuleCounters,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Place in its chain, from 1, as `iptables -L --line-numbers` counts.
    pub number: u32,
    /// What it counted.
    pub counters: RuleCounters,
    /// What must all hold.
    pub matches: Vec<Match>,
    /// What then happens.
    pub target: Target,
    /// Its comment, unquoted. Hostile text.
    pub comment: Option<String>,
    /// The rule as the tool prints it (`-A INPUT -i lo -j ACCEPT`), without its counters. Hostile text.
    pub raw: String,
}

impl Rule {
    /// The only prefix it is for as destination: `-d 172.24.4.6/32` without `!`.
    pub fn destination(&self) -> Option<IpNet> {
        self.find(|test| if let Test::Destination(ranges) = test { Some(ranges) } else { None }).and_then(single_net)
    }

    /// The only prefix it is for as source: `-s 10.0.0.2/32` without `!`.
    pub fn source(&self) -> Option<IpNet> {
        self.find(|test| if let Test::Source(ranges) = test { Some(ranges) } else { None }).and_then(single_net)
    }

    /// The test `pick` finds first, with whether it is negated.
    pub fn find<'a, T>(&'a self, pick: impl Fn(&'a Test) -> Option<T>) -> Option<(bool, T)> {
        self.matches.iter().find_map(|one| pick(&one.test).map(|found| (one.not, found)))
    }

    /// The device it is for (`-i`), with whether that is negated.
    pub fn in_device(&self) -> Option<(bool, &DevicePattern)> {
        self.find(|test| if let Test::InDevice(pattern) = test { Some(pattern) } else { None })
    }

    /// The device it is for (`-o`), with whether that is negated.
    pub fn out_device(&self) -> Option<(bool, &DevicePattern)> {
        self.find(|test| if let Test::OutDevice(pattern) = test { Some(pattern) } else { None })
    }

    /// The only protocol it is for.
    pub fn protocol(&self) -> Option<u8> {
        match self.find(|test| if let Test::Protocol(numbers) = test { Some(numbers.as_slice()) } else { None }) {
            Some((false, &[number])) => Some(number),
            _ => None,
        }
    }

    /// The only range of destination ports it is for.
    pub fn destination_ports(&self) -> Option<PortRange> {
        let found = self.find(|test| {
            if let Test::Ports { side: PortSide::Destination, ranges } = test { Some(ranges.as_slice()) } else { None }
        });
        match found {
            Some((false, &[range])) => Some(range),
            _ => None,
        }
    }
}

fn single_net((not, ranges): (bool, &Vec<AddressRange>)) -> Option<IpNet> {
    match ranges.as_slice() {
        &[AddressRange::Net(net)] if !not => Some(net),
        _ => None,
    }
}

/// One condition of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// Must not hold: `!`.
    pub not: bool,
    /// What is asked.
    pub test: Test,
}

/// What a match asks of a packet. Lists hold where one of them does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Test {
    /// `-s`, `--src-range`.
    Source(Vec<AddressRange>),
    /// `-d`, `--dst-range`.
    Destination(Vec<AddressRange>),
    /// `-i`.
    InDevice(DevicePattern),
    /// `-o`.
    OutDevice(DevicePattern),
    /// `-p`, by number.
    Protocol(Vec<u8>),
    /// `--sport`, `--dport`, `--sports`, `--dports`, `--ports`.
    Ports {
        /// Which port.
        side: PortSide,
        /// Any of these.
        ranges: Vec<PortRange>,
    },
    /// `--icmp-type`, `--icmpv6-type`.
    Icmp {
        /// Type; `None` for any.
        kind: Option<u8>,
        /// Code; `None` for any.
        code: Option<u8>,
    },
    /// `--ctstate`, `--state`.
    States(Vec<StateName>),
    /// `-m mark --mark`.
    Mark {
        /// What the masked mark must be.
        value: u32,
        /// Which bits count.
        mask: u32,
    },
    /// `-m connmark --mark`.
    Connmark {
        /// What the masked mark must be.
        value: u32,
        /// Which bits count.
        mask: u32,
    },
    /// `--physdev-in`.
    PhysdevIn(DevicePattern),
    /// `--physdev-out`.
    PhysdevOut(DevicePattern),
    /// `--physdev-is-in`: came in by a bridge port.
    PhysdevIsIn,
    /// `--physdev-is-out`: goes out by a bridge port.
    PhysdevIsOut,
    /// `--physdev-is-bridged`: is bridged, not routed.
    PhysdevIsBridged,
    /// `--mac-source`.
    SourceMac(Mac),
    /// `--match-set`.
    Set {
        /// Name of the ipset.
        name: String,
        /// What is looked up: `src`, `src,dst`.
        fields: String,
        /// Its members, which are not in the rules; none where they were not read or not understood.
        members: Option<Arc<Members>>,
    },
    /// `--src-type`, `--dst-type`.
    AddressKind {
        /// Of the source; else of the destination.
        source: bool,
        /// Any of these.
        kinds: Vec<AddressKind>,
        /// `--limit-iface-in` or `-out`: only addresses of that device count.
        limited: bool,
    },
    /// `-f`: a fragment that is not the first.
    Fragment,
    /// `--tcp-flags`, `--syn`.
    TcpFlags {
        /// Which flags are looked at.
        mask: u8,
        /// Which of them must be set.
        set: u8,
    },
    /// IPv6; else IPv4. Asked by tables of several families.
    Ipv6(bool),
    /// `ether type`, `meta protocol`: what the frame carries, by number.
    EtherType(Vec<u16>),
    /// Not understood; the text.
    Other(String),
}

/// Addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRange {
    /// A prefix.
    Net(IpNet),
    /// From, to, both included.
    Span(IpAddr, IpAddr),
}

impl AddressRange {
    /// Whether an address is in it; never of the other family.
    pub fn contains(&self, address: IpAddr) -> bool {
        match self {
            Self::Net(net) => net.contains(&address),
            Self::Span(first, last) => first.is_ipv4() == address.is_ipv4() && (*first..=*last).contains(&address),
        }
    }

    /// Whether every address of its family is in it.
    pub fn is_everything(&self) -> bool {
        matches!(self, Self::Net(net) if net.prefix_len() == 0)
    }
}

/// A device by name, or by the start of its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePattern {
    /// The name, or its start.
    pub name: String,
    /// `+`: any name that starts so.
    pub prefix: bool,
}

impl DevicePattern {
    /// Whether a device of that name is meant. The empty name stands for "no device", as in the kernel.
    pub fn matches(&self, device: &str) -> bool {
        if self.prefix { device.starts_with(&self.name) } else { device == self.name }
    }

    /// The name where exactly one device is meant.
    pub fn exact(&self) -> Option<&str> {
        (!self.prefix).then_some(self.name.as_str())
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.prefix { "+" } else { "" })
    }
}

/// Which port of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortSide {
    /// The source's.
    Source,
    /// The destination's.
    Destination,
    /// One of the two.
    Either,
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl PortRange {
    /// Whether a port is in it.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { write!(f, "{}", self.first) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// A word of `--ctstate`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    /// First packet of a flow.
    New,
    /// Both directions were seen.
    Established,
    /// Belongs to another flow: an ICMP error, an FTP data connection.
    Related,
    /// Fits no flow and cannot start one.
    Invalid,
    /// Not looked at: `CT --notrack`.
    Untracked,
    /// The flow's destination was translated.
    Dnat,
    /// The flow's source was translated.
    Snat,
}

/// What an address is to this namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    /// One of its own.
    Local,
    /// Somebody else's.
    Unicast,
    /// Everybody on a subnet.
    Broadcast,
    /// A group.
    Multicast,
    /// Another word of `--dst-type`; never known.
    Other,
}

/// What a rule does with what it matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Counts and nothing else.
    None,
    /// Done with this base chain.
    Accept,
    /// Dies silently.
    Drop,
    /// Dies with an answer; `--reject-with`.
    Reject(Option<String>),
    /// Back to the chain that jumped here.
    Return,
    /// `-j` a chain of the same table.
    Jump(String),
    /// `-g` a chain: like a jump, but what returns goes to the caller's caller.
    Goto(String),
    /// Translates the destination.
    Dnat(NatTo),
    /// Translates the source.
    Snat(NatTo),
    /// Translates the source to an address of the device it leaves by.
    Masquerade(NatTo),
    /// Translates the destination to this namespace itself.
    Redirect(NatTo),
    /// `MARK --set-xmark`: clears the bits of `mask`, then exclusive-ors `value`.
    Mark {
        /// Exclusive-ored in.
        value: u32,
        /// Cleared first.
        mask: u32,
    },
    /// `CONNMARK`.
    Connmark(ConnmarkOp),
    /// `CT --zone`, `CT --notrack`, `NOTRACK`.
    Track {
        /// Connection tracking zone.
        zone: Option<u16>,
        /// Not tracked at all.
        notrack: bool,
    },
    /// `LOG`, `NFLOG`, `TCPMSS` and others that never end a packet's way; the text.
    Passes(String),
    /// `NFQUEUE`, `QUEUE`: a process decides.
    Queue,
    /// Not understood; the text. May do anything.
    Other(String),
}

/// What an address is translated to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatTo {
    /// First and last address; `None` where only ports are translated.
    pub addresses: Option<(IpAddr, IpAddr)>,
    /// Ports, where they are translated.
    pub ports: Option<NatPorts>,
    /// The kernel picks the port at random.
    pub random: bool,
}

impl NatTo {
    /// The address, where it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.addresses.filter(|(first, last)| first == last).map(|(first, _)| first)
    }
}

/// Ports translated to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatPorts {
    /// To these.
    pub range: PortRange,
    /// `/40`: port 40 becomes the first of the range, 41 the second, around and around.
    pub base: Option<u16>,
}

/// What `CONNMARK` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnmarkOp {
    /// Clears the bits of `mask` in the flow's mark, then exclusive-ors `value`.
    Set {
        /// Exclusive-ored in.
        value: u32,
        /// Cleared first.
        mask: u32,
    },
    /// Packet's mark to the flow.
    Save {
        /// Which bits of the packet's mark.
        nfmask: u32,
        /// Which bits of the flow's mark are cleared.
        ctmask: u32,
    },
    /// Flow's mark to the packet.
    Restore {
        /// Which bits of the packet's mark are cleared.
        nfmask: u32,
        /// Which bits of the flow's mark.
        ctmask: u32,
    },
}

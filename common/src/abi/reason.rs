//! Why a packet passed or died: one list, from which datapath, views and documentation all draw. Flow: observe.

/// A typed reason. The number is what counters are indexed by and what records carry; it never changes its meaning
/// within one [`crate::ABI_VERSION`].
macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $verdict:ident;)+) => {
        /// Why a packet passed or died.
        #[repr(u8)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Reason {
            /// Every reason, in the order of the numbers.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The word for counters, events and filters: `no-rule`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What it means, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+),)+ }
            }

            /// True for the reasons that let a packet pass.
            pub const fn passes(self) -> bool {
                match self { $(Self::$variant => matches!(Verdict::$verdict, Verdict::Pass),)+ }
            }
        }

        impl TryFrom<u8> for Reason {
            type Error = UnknownReason;

            fn try_from(number: u8) -> Result<Self, UnknownReason> {
                match number { $($number => Ok(Self::$variant),)+ other => Err(UnknownReason(other)) }
            }
        }
    };
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on to whatever comes next.
    Pass,
    /// It ends here.
    Drop,
}

/// A number that is no reason: written by a newer program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownReason(pub u8);

/// How many reasons a port has counters for; a power of two, above the highest number.
pub const REASONS: usize = 64;

reasons! {
    /// The device belongs to no port that netdiag enforces.
    Unmanaged = 0, "unmanaged", Pass;
    /// The port has no port security, or belongs to the network itself.
    Trusted = 1, "trusted", Pass;
    /// ARP, DHCP, neighbour discovery or multicast listener reports that every port needs.
    System = 2, "system", Pass;
    /// Part of a tracked flow.
    Established = 3, "established", Pass;
    /// The first packet of a flow that a rule allows, or any packet a rule allows on a stateless port.
    Rule = 4, "rule", Pass;
    /// An ICMP error about a tracked flow.
    Related = 5, "related", Pass;
    /// A rule allows it, but there was no room to track its flow.
    Untracked = 6, "untracked", Pass;
    /// A later fragment of a datagram whose first fragment passed.
    Fragment = 7, "fragment", Pass;
    /// An ethertype that the operator has permitted.
    PermittedEthertype = 8, "permitted-ethertype", Pass;

    /// No rule allows it.
    NoRule = 16, "no-rule", Drop;
    /// The port's policy is not known yet: only system traffic passes.
    NoPolicy = 17, "no-policy", Drop;
    /// The rule, group or member that had allowed this flow is gone.
    Revoked = 18, "revoked", Drop;
    /// The source MAC address is none of the port's.
    MacSpoof = 19, "mac-spoof", Drop;
    /// The source address is none the port may use with that MAC address.
    IpSpoof = 20, "ip-spoof", Drop;
    /// An ARP or RARP packet that claims an address of somebody else.
    ArpSpoof = 21, "arp-spoof", Drop;
    /// A neighbour advertisement or solicitation for an address of somebody else.
    NdSpoof = 22, "nd-spoof", Drop;
    /// An instance must not answer as a DHCP server, of either family.
    DhcpServer = 23, "dhcp-server", Drop;
    /// An instance must not advertise itself as a router.
    RouterAdvertisement = 24, "router-advertisement", Drop;
    /// Neither IPv4, IPv6, ARP nor RARP, and not permitted.
    Ethertype = 25, "ethertype", Drop;
    /// The frame carries a VLAN tag.
    VlanTagged = 26, "vlan-tagged", Drop;
    /// Shorter than its headers claim.
    Truncated = 27, "truncated", Drop;
    /// Headers that contradict themselves.
    Malformed = 28, "malformed", Drop;
    /// More IPv6 extension headers than are followed.
    ExtensionHeaders = 29, "extension-headers", Drop;
    /// A first fragment too small to hold its ports, or a later one that would overwrite them.
    TinyFragment = 30, "tiny-fragment", Drop;
    /// A later fragment whose first fragment has not been seen.
    OrphanFragment = 31, "orphan-fragment", Drop;
    /// A later fragment of a datagram whose first fragment was refused.
    RefusedFragment = 32, "refused-fragment", Drop;
    /// TCP flags or an ICMP answer that belong to no flow and cannot begin one.
    Invalid = 33, "invalid", Drop;
    /// An ICMP error about a flow that is not tracked.
    IcmpUnrelated = 34, "icmp-unrelated", Drop;
    /// The policy was being replaced at that very moment; the sender's next attempt meets the new one.
    PolicyChanging = 35, "policy-changing", Drop;
}

#[cfg(test)]
mod tests {
    use super::{REASONS, Reason};

    #[test]
    fn every_number_has_a_counter_and_reads_back_as_itself() {
        for reason in Reason::ALL {
            assert!((*reason as usize) < REASONS);
            assert_eq!(Reason::try_from(*reason as u8), Ok(*reason));
        }
    }

    #[test]
    fn no_two_reasons_share_a_name() {
        let mut names: [&str; 64] = [""; 64];
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert!(!names.contains(&reason.name()), "{}", reason.name());
            names[place] = reason.name();
        }
    }
}

//! States of a tracked flow, and how long each may stay silent. It reads no clock: time is an argument.
//!
//! Timeouts are those of `nf_conntrack` where it has the state (`net/netfilter/nf_conntrack_proto_*.c`).

use crate::abi::flow::{FLOW_FIN_ORIGINAL, FLOW_FIN_REPLY, Flow, Tick};

/// IP protocol numbers the datapath tells apart.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// DCCP.
    pub const DCCP: u8 = 33;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// SCTP.
    pub const SCTP: u8 = 132;
    /// UDP-Lite.
    pub const UDPLITE: u8 = 136;

    /// True for protocols whose header begins with a source and a destination port.
    #[inline]
    pub const fn has_ports(protocol: u8) -> bool {
        matches!(protocol, TCP | UDP | DCCP | SCTP | UDPLITE)
    }
}

/// TCP flags, as in octet 13 of the header.
pub mod tcp {
    /// FIN.
    pub const FIN: u8 = 0x01;
    /// SYN.
    pub const SYN: u8 = 0x02;
    /// RST.
    pub const RST: u8 = 0x04;
    /// ACK.
    pub const ACK: u8 = 0x10;
    /// URG.
    pub const URG: u8 = 0x20;

    /// Flags that say something about the state of a connection.
    const TELLING: u8 = FIN | SYN | RST | ACK | URG;

    /// True for the combinations `nf_conntrack` takes for valid (`tcp_valid_flags`).
    #[inline]
    pub const fn valid(flags: u8) -> bool {
        const SYN_URG: u8 = SYN | URG;
        const SYN_ACK: u8 = SYN | ACK;
        const RST_ACK: u8 = RST | ACK;
        const FIN_ACK: u8 = FIN | ACK;
        const FIN_ACK_URG: u8 = FIN | ACK | URG;
        const ACK_URG: u8 = ACK | URG;
        matches!(flags & TELLING, SYN | SYN_URG | SYN_ACK | RST | RST_ACK | FIN_ACK | FIN_ACK_URG | ACK | ACK_URG)
    }

    /// True for a packet that asks for a new connection.
    #[inline]
    pub const fn opens(flags: u8) -> bool {
        flags & (SYN | ACK | RST | FIN) == SYN
    }

    /// True for a packet that nothing but the middle of a connection has, and so may pick one up that began unseen.
    #[inline]
    pub const fn continues(flags: u8) -> bool {
        flags & (SYN | ACK | RST | FIN) == ACK
    }
}

/// State of a flow.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No answer yet.
    Unreplied = 0,
    /// Answered.
    Replied = 1,
    /// TCP: SYN seen.
    SynSent = 2,
    /// TCP: SYN and ACK answered.
    SynReceived = 3,
    /// TCP: both sides agreed.
    Established = 4,
    /// TCP: one side has sent a FIN.
    FinWait = 5,
    /// TCP: both sides have sent a FIN.
    TimeWait = 6,
    /// TCP: a side has sent a RST.
    Closed = 7,
    /// TCP: begun before anybody looked, and only one side seen since.
    PickedUp = 8,
}

impl State {
    /// The state of a number; what is none is the state that ends soonest.
    #[inline]
    pub const fn of(number: u8) -> Self {
        match number {
            0 => Self::Unreplied,
            1 => Self::Replied,
            2 => Self::SynSent,
            3 => Self::SynReceived,
            4 => Self::Established,
            5 => Self::FinWait,
            6 => Self::TimeWait,
            8 => Self::PickedUp,
            _ => Self::Closed,
        }
    }

    /// The word for listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unreplied => "unreplied",
            Self::Replied => "replied",
            Self::SynSent => "syn-sent",
            Self::SynReceived => "syn-received",
            Self::Established => "established",
            Self::FinWait => "fin-wait",
            Self::TimeWait => "time-wait",
            Self::Closed => "closed",
            Self::PickedUp => "picked-up",
        }
    }

    /// True where no plain packet of either direction changes anything.
    #[inline]
    pub const fn is_mutual(self) -> bool {
        matches!(self, Self::Established | Self::Replied)
    }

    /// True where a TCP packet that asks for a new connection begins a new flow in the place of this one.
    #[inline]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::TimeWait | Self::Closed)
    }
}

/// The state a flow begins in. `flags` are those of a TCP packet.
#[inline]
pub const fn first(protocol: u8, flags: u8) -> State {
    match protocol {
        protocol::TCP if tcp::opens(flags) => State::SynSent,
        protocol::TCP => State::PickedUp,
        _ => State::Unreplied,
    }
}

/// Seconds a flow may stay silent in a state.
#[inline]
pub const fn timeout_seconds(protocol: u8, state: State) -> u32 {
    match (state, protocol) {
        (State::Unreplied, protocol::UDP | protocol::UDPLITE | protocol::SCTP)
        | (State::Unreplied | State::Replied, protocol::ICMP | protocol::ICMPV6) => 30,
        (State::Replied, protocol::UDP | protocol::UDPLITE)
        | (State::SynSent | State::FinWait | State::TimeWait, _) => 120,
        (State::Replied, protocol::SCTP) => 210,
        (State::Unreplied | State::Replied, _) => 600,
        (State::SynReceived, _) => 60,
        (State::Established, _) => 432_000,
        (State::Closed, _) => 10,
        (State::PickedUp, _) => 300,
    }
}

/// The same in ticks, rounded up.
#[inline]
pub const fn timeout(protocol: u8, state: State) -> Tick {
    // A tick is 2^30 ns, which is 1.0737 s: 15/16 of the seconds is a little more than the ticks.
    timeout_seconds(protocol, state) / 16 * 15 + timeout_seconds(protocol, state) % 16 + 1
}

/// True where more ticks than these have passed since something was seen.
///
/// The clock may have been read before that: what looks through many flows reads it once, and another CPU may see a packet in the
/// tick that begins meanwhile. Nothing has passed then, so the difference has a sign.
#[inline(always)]
pub const fn have_passed(ticks: Tick, seen: Tick, now: Tick) -> bool {
    now.wrapping_sub(seen).cast_signed() > ticks.cast_signed()
}

/// True where a flow has been silent for longer than its state allows.
#[inline]
pub const fn expired(flow: &Flow, protocol: u8, now: Tick) -> bool {
    have_passed(timeout(protocol, State::of(flow.state)), flow.seen, now)
}

/// What a packet of a flow makes of its state and its `FLOW_*` bits. `reply`: it goes against the direction of the first.
#[inline]
pub const fn next(protocol: u8, state: State, bits: u8, flags: u8, reply: bool) -> (State, u8) {
    if protocol != protocol::TCP {
        let answered = reply || matches!(state, State::Replied);
        return (if answered { State::Replied } else { State::Unreplied }, bits);
    }
    if flags & tcp::RST != 0 {
        return (State::Closed, bits);
    }
    let bits = match flags & tcp::FIN {
        0 => bits,
        _ if reply => bits | FLOW_FIN_REPLY,
        _ => bits | FLOW_FIN_ORIGINAL,
    };
    let fins = bits & (FLOW_FIN_ORIGINAL | FLOW_FIN_REPLY);
    let state = match state {
        State::Closed | State::TimeWait => state,
        _ if fins == FLOW_FIN_ORIGINAL | FLOW_FIN_REPLY => State::TimeWait,
        _ if fins != 0 => State::FinWait,
        State::SynSent if reply && flags & (tcp::SYN | tcp::ACK) == tcp::SYN | tcp::ACK => State::SynReceived,
        State::SynReceived if !reply && flags & (tcp::SYN | tcp::ACK) == tcp::ACK => State::Established,
        State::PickedUp if reply => State::Established,
        State::Unreplied
        | State::Replied
        | State::SynSent
        | State::SynReceived
        | State::Established
        | State::FinWait
        | State::PickedUp => state,
    };
    (state, bits)
}

#[cfg(test)]
mod tests {
    use super::{
        State, expired, first, next,
        protocol::{TCP, UDP},
        tcp, timeout, timeout_seconds,
    };
    use crate::abi::flow::Flow;

    #[test]
    fn a_connection_goes_through_its_states() {
        let mut state = first(TCP, tcp::SYN);
        let mut bits = 0;
        for (flags, reply, expected) in [
            (tcp::SYN | tcp::ACK, true, State::SynReceived),
            (tcp::ACK, false, State::Established),
            (tcp::ACK, true, State::Established),
            (tcp::FIN | tcp::ACK, true, State::FinWait),
            (tcp::ACK, false, State::FinWait),
            (tcp::FIN | tcp::ACK, false, State::TimeWait),
            (tcp::ACK, true, State::TimeWait),
        ] {
            (state, bits) = next(TCP, state, bits, flags, reply);
            assert_eq!(state, expected);
        }
        assert!(state.is_over());
    }

    #[test]
    fn a_reset_closes_in_every_state() {
        for number in 0..=8 {
            assert_eq!(next(TCP, State::of(number), 0, tcp::RST, false).0, State::Closed);
        }
    }

    #[test]
    fn a_connection_begun_before_anybody_looked_is_established_once_both_sides_were_seen() {
        let state = first(TCP, tcp::ACK);
        assert_eq!(state, State::PickedUp);
        assert_eq!(next(TCP, state, 0, tcp::ACK, false).0, State::PickedUp);
        assert_eq!(next(TCP, state, 0, tcp::ACK, true).0, State::Established);
    }

    #[test]
    fn a_flow_is_over_after_its_timeout_and_never_where_the_clock_was_read_before_it_was_seen() {
        for seen in [0, 1000, u32::MAX - 50, u32::MAX] {
            let flow = Flow { seen, state: State::Replied as u8, ..Flow::default() };
            let over = |ticks: u32| expired(&flow, UDP, seen.wrapping_add(ticks));
            let timeout = timeout(UDP, State::Replied);
            assert!(!over(0) && !over(timeout) && over(timeout + 1) && over(1 << 30), "{seen}");
            assert!(!over(1_u32.wrapping_neg()) && !over(1000_u32.wrapping_neg()), "{seen}");
        }
    }

    #[test]
    fn flags_that_no_connection_has_are_not_valid() {
        for flags in [0, tcp::SYN | tcp::FIN, tcp::SYN | tcp::RST, tcp::FIN, tcp::FIN | tcp::URG, 0xff] {
            assert!(!tcp::valid(flags), "{flags:#x}");
        }
    }

    #[test]
    fn ticks_are_never_shorter_than_the_seconds_they_stand_for_and_at_most_a_tenth_longer() {
        for number in 0..=8 {
            for protocol in 0..=255 {
                let seconds = u64::from(timeout_seconds(protocol, State::of(number)));
                let milliseconds = u64::from(timeout(protocol, State::of(number))) * 1074;
                assert!(milliseconds >= seconds * 1000 && milliseconds <= seconds * 1100 + 3000, "{number} {protocol}");
            }
        }
    }
}

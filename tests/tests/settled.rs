//! Notes of settled flows hold no longer than what they were made under: the programs in the kernel, packet by packet.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use netdiag_common::{
    abi::flow::{FlowKey4, tick},
    logic::flow::State,
};
use netdiag_model::{
    compile::{Input, Tables, diff, lower},
    id::Mac,
    policy::types::{
        Attached, Direction, Ethertype, GroupId, Hook, Mode, Policy, PortId, Remote, Rule, RuleId, SecurityGroup,
        Service,
    },
};
use netdiag_tests::{
    kernel::{Kernel, Program},
    memory::Memory,
    require_ebpf,
};
use rustix::time::{ClockId, clock_gettime};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
const PORTS: [u16; 2] = [40_000, 80];

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// A port that may open TCP connections, or may not.
struct Site {
    kernel: Kernel,
    tables: Tables,
    slot: u32,
}

impl Site {
    /// `None` where there are no programs, or no kernel to load them.
    fn new() -> Option<Self> {
        let object = netdiag_agent::datapath::OBJECT.filter(|_| require_ebpf())?;
        let mut site = Self { kernel: Kernel::load(object).unwrap(), tables: Tables::default(), slot: 0 };
        site.allow(true);
        site.slot = *site.tables.interfaces.values().next().unwrap();
        Some(site)
    }

    fn allow(&mut self, tcp: bool) {
        let group = GroupId("group".to_owned());
        let rule = Rule {
            id: RuleId("rule".to_owned()),
            direction: Direction::Egress,
            ethertype: Ethertype::IPv4,
            service: Service::Ports { protocol: 6, first: 1, last: 65_535 },
            remote: Remote::Any,
            description: String::new(),
        };
        let rules = if tcp { vec![rule] } else { Vec::new() };
        let mut policy = Policy::default();
        policy
            .groups
            .insert(group.clone(), SecurityGroup { id: group.clone(), name: String::new(), stateful: true, rules });
        let attached = [Attached {
            id: PortId("port".to_owned()),
            ifindex: 7,
            mac: Mac(MAC),
            fixed_ips: [IpAddr::V4(OWN)].into(),
            pairs: BTreeSet::new(),
            groups: vec![group],
            mode: Mode::Filtered,
            hook: Hook::Tc,
            log_allowed: false,
        }];
        let input = Input { policy: &policy, attached: &attached, members: &BTreeMap::new(), events_per_second: 100 };
        let after = lower(&input, &self.tables).unwrap();
        self.kernel.apply(&diff(&self.tables, &after)).unwrap();
        self.tables = after;
    }

    /// Sends a segment, from the instance or to it. True if it passes.
    fn send(&mut self, program: Program, flags: u8) -> bool {
        let out = program != Program::ToInstance;
        let mut frame = vec![0; 60];
        frame[6..12].copy_from_slice(&MAC);
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[17] = 46;
        frame[23] = 6;
        let (addresses, ports) = if out { ([OWN, OTHER], PORTS) } else { ([OTHER, OWN], [PORTS[1], PORTS[0]]) };
        frame[26..30].copy_from_slice(&addresses[0].octets());
        frame[30..34].copy_from_slice(&addresses[1].octets());
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        frame[46] = 0x50;
        frame[47] = flags;
        self.kernel.run(self.slot, program, &frame).unwrap()
    }

    /// A handshake. True if all of it passes.
    fn open(&mut self) -> bool {
        self.open_at(Program::FromInstance)
    }

    /// The same where what the instance sends is seen by a program.
    fn open_at(&mut self, from: Program) -> bool {
        self.send(from, SYN) && self.send(Program::ToInstance, SYN | ACK) && self.send(from, ACK)
    }

    fn key(&self) -> FlowKey4 {
        FlowKey4 {
            local: u32::from_ne_bytes(OWN.octets()),
            remote: u32::from_ne_bytes(OTHER.octets()),
            local_port: PORTS[0].to_be(),
            remote_port: PORTS[1].to_be(),
            slot: u16::try_from(self.slot).unwrap(),
            protocol: 6,
            pad: 0,
        }
    }

    fn state(&self) -> State {
        State::of(self.kernel.flow4(&self.key()).unwrap().state)
    }

    /// Lets so many ticks of 1.07 s pass.
    fn advance(&mut self, ticks: u32) {
        let key = self.key();
        let flow = self.kernel.flow4(&key).unwrap();
        let remembered = Memory { flows4: [(key, flow)].into(), ..Memory::default() };
        self.kernel.advance(&remembered, ticks).unwrap();
    }
}

/// Does something within one tick, however often that takes.
fn within_a_tick(mut act: impl FnMut()) {
    let now = || {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        tick(u64::try_from(time.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap())
    };
    for _ in 0..100 {
        let before = now();
        act();
        if now() == before {
            return;
        }
    }
    panic!("no tick was long enough");
}

#[test]
fn a_connection_that_begins_anew_within_a_tick_goes_through_its_states() {
    let Some(mut site) = Site::new() else { return };
    within_a_tick(|| {
        assert!(site.open());
        for program in [Program::FromInstance, Program::ToInstance, Program::FromInstanceXdp, Program::FromInstance] {
            assert!(site.send(program, ACK));
        }
        assert!(site.send(Program::FromInstance, RST | ACK));
        assert_eq!(site.state(), State::Closed);
        assert!(site.send(Program::FromInstance, ACK), "what the note says and the flow says, too");
        assert!(site.open());
        assert_eq!(site.state(), State::Established);
        assert!(site.send(Program::FromInstance, RST | ACK));
    });
}

#[test]
fn what_may_not_go_on_ends_with_the_next_packet_in_the_middle_of_a_tick() {
    let Some(mut site) = Site::new() else { return };
    within_a_tick(|| {
        site.allow(true);
        assert!(site.open());
        for _ in 0..3 {
            assert!(site.send(Program::FromInstance, ACK) && site.send(Program::ToInstance, ACK));
        }
        site.allow(false);
        assert!(!site.send(Program::ToInstance, ACK));
        assert!(!site.send(Program::FromInstance, ACK));
        site.allow(true);
        assert!(site.send(Program::FromInstance, ACK), "the rule is back before the flow is over");
        assert!(site.send(Program::FromInstance, RST | ACK));
    });
}

/// Where what an instance sends is seen.
const FROM: [Program; 2] = [Program::FromInstance, Program::FromInstanceXdp];

#[test]
fn a_connection_that_is_closed_from_both_ends_is_over_after_two_minutes_or_when_it_begins_anew() {
    let Some(mut site) = Site::new() else { return };
    for from in FROM {
        let to = Program::ToInstance;
        assert!(site.open_at(from), "{from:?}");
        assert_eq!(site.state(), State::Established, "{from:?}");
        assert!(site.send(from, FIN | ACK));
        assert_eq!(site.state(), State::FinWait, "{from:?}");
        assert!(site.send(to, ACK) && site.send(from, ACK), "the other end has more to say");
        assert_eq!(site.state(), State::FinWait, "{from:?}");
        assert!(site.send(to, FIN | ACK) && site.send(from, ACK));
        assert_eq!(site.state(), State::TimeWait, "{from:?}");
        site.advance(100);
        assert!(site.send(to, ACK), "{from:?}");
        assert_eq!(site.state(), State::TimeWait, "{from:?}");
        site.advance(130);
        assert!(!site.send(to, ACK), "{from:?}: no rule allows it");
        assert!(site.open_at(from), "{from:?}");
        assert!(site.send(from, FIN | ACK) && site.send(to, FIN | ACK));
        assert!(site.open_at(from), "{from:?}: it begins anew before it is over");
        assert_eq!(site.state(), State::Established, "{from:?}");
        assert!(site.send(from, RST | ACK));
    }
}

#[test]
fn a_connection_that_is_reset_is_over_after_ten_seconds_or_when_it_begins_anew() {
    let Some(mut site) = Site::new() else { return };
    for from in FROM {
        for reset in [from, Program::ToInstance] {
            assert!(site.open_at(from), "{from:?}, {reset:?}");
            assert!(site.send(reset, RST));
            assert_eq!(site.state(), State::Closed, "{from:?}, {reset:?}");
            site.advance(3);
            assert!(site.send(from, ACK) && site.send(Program::ToInstance, ACK), "what is on its way");
            assert_eq!(site.state(), State::Closed, "{from:?}, {reset:?}");
            site.advance(15);
            assert!(!site.send(Program::ToInstance, ACK), "{from:?}, {reset:?}: no rule allows it");
            assert!(site.open_at(from) && site.send(reset, RST));
            assert!(site.open_at(from), "{from:?}, {reset:?}: it begins anew before it is over");
            assert_eq!(site.state(), State::Established, "{from:?}, {reset:?}");
        }
    }
}

//! Flows that nothing can track, as every map of flows is full and nobody makes room: the programs in the kernel beside the
//! reference evaluator. What a rule allows passes, and nothing more than that.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use netdiag_common::abi::reason::Reason;
use netdiag_model::{
    compile::{Input, Tables, diff, lower},
    id::Mac,
    policy::{
        decide::{Context, Frame, Judge},
        types::{
            Attached, Direction, Ethertype, GroupId, Hook, Mode, Policy, PortId, Remote, Rule, RuleId, SecurityGroup,
            Service,
        },
    },
};
use netdiag_tests::{
    Bpffs,
    kernel::{Kernel, Program},
    private_host, require_ebpf,
};

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const OTHER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 3);
const MAC: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 2];
/// Where the instance may send to.
const OPEN: u16 = 80;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;
/// More fragments, and eight octets behind the first fragment (RFC 791).
const MORE: u16 = 0x2000;
const LATER: u16 = 1;

/// A packet between the instance and the other end: its protocol, the port of the instance, what the fragment field says, TCP flags.
#[derive(Clone, Copy, Debug)]
struct Packet(Direction, u8, u16, u16, u8);

impl Packet {
    fn bytes(self) -> Vec<u8> {
        let Self(direction, protocol, port, fragment, flags) = self;
        let mut frame = vec![0; 62];
        let (addresses, ports) = match direction {
            Direction::Egress => ([OWN, OTHER], [port, OPEN]),
            Direction::Ingress => ([OTHER, OWN], [OPEN, port]),
        };
        frame[6..12].copy_from_slice(&MAC);
        frame[12] = 0x08;
        frame[14] = 0x45;
        frame[17] = 48;
        // What belongs together has one identification.
        frame[18..20].copy_from_slice(&port.to_be_bytes());
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        frame[23] = protocol;
        frame[26..30].copy_from_slice(&addresses[0].octets());
        frame[30..34].copy_from_slice(&addresses[1].octets());
        frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
        frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
        if protocol == TCP {
            (frame[46], frame[47]) = (0x50, flags);
        } else {
            frame[39] = 28;
        }
        frame
    }
}

/// A port whose instance may send to one port, or nowhere.
struct Site {
    kernel: Kernel,
    judge: Judge,
    policy: Policy,
    port: Attached,
    tables: Tables,
    from: Program,
    _bpffs: Bpffs,
}

impl Site {
    fn new(object: &[u8], from: Program) -> Self {
        let bpffs = Bpffs::new();
        let kernel = Kernel::load_for_one_flow(object, bpffs.path()).unwrap();
        let port = Attached {
            id: PortId("port".to_owned()),
            ifindex: 7,
            mac: Mac(MAC),
            fixed_ips: [IpAddr::V4(OWN)].into(),
            pairs: BTreeSet::new(),
            groups: vec![GroupId("group".to_owned())],
            mode: Mode::Filtered,
            hook: Hook::Tc,
            log_allowed: false,
        };
        let (judge, policy, tables) = (Judge::with_room(1), Policy::default(), Tables::default());
        let mut site = Self { kernel, judge, policy, port, tables, from, _bpffs: bpffs };
        site.allow(&[TCP, UDP]);
        site
    }

    fn allow(&mut self, protocols: &[u8]) {
        let id = self.port.groups[0].clone();
        let rule = |protocol: &u8| Rule {
            id: RuleId(format!("rule-{protocol}")),
            direction: Direction::Egress,
            ethertype: Ethertype::IPv4,
            service: Service::Ports { protocol: *protocol, first: OPEN, last: OPEN },
            remote: Remote::Any,
            description: String::new(),
        };
        let rules = protocols.iter().map(rule).collect();
        self.policy.groups.insert(id.clone(), SecurityGroup { id, name: String::new(), stateful: true, rules });
        let attached = std::slice::from_ref(&self.port);
        let input = Input { policy: &self.policy, attached, members: &BTreeMap::new(), events_per_second: 100 };
        let after = lower(&input, &self.tables).unwrap();
        self.kernel.apply(&diff(&self.tables, &after)).unwrap();
        self.tables = after;
    }

    /// Sends a packet, and says what becomes of it. The reference evaluator must say the same.
    fn send(&mut self, packet: Packet) -> Reason {
        let (bytes, direction) = (packet.bytes(), packet.0);
        let context = Context { policy: &self.policy, members: &BTreeMap::new(), port: &self.port };
        let frame = Frame { bytes: &bytes, vlan_beside: false, direction, now: 1 };
        let reason = self.judge.judge(&context, &frame).reason;
        let ingress = direction == Direction::Ingress;
        let program = if ingress { Program::ToInstance } else { self.from };
        let slot = self.tables.interfaces[&self.port.ifindex];
        let passed = self.kernel.run(slot, program, &bytes).unwrap();
        assert_eq!(self.kernel.counted(slot, ingress, reason).unwrap(), None, "{packet:?} is {reason:?}");
        assert_eq!(passed, reason.passes(), "{packet:?}");
        reason
    }

    #[track_caller]
    fn all(&mut self, expected: &[(Packet, Reason)]) {
        for (packet, reason) in expected {
            assert_eq!(self.send(*packet), *reason, "{packet:?}");
        }
    }
}

#[test]
fn what_a_rule_allows_passes_where_its_flow_cannot_be_tracked_and_its_answers_do_not() {
    use Direction::{Egress, Ingress};
    let Some(object) = netdiag_agent::datapath::OBJECT.filter(|_| require_ebpf()) else { return };
    if !private_host::enter("what_a_rule_allows_passes_where_its_flow_cannot_be_tracked_and_its_answers_do_not") {
        return;
    }
    for from in [Program::FromInstance, Program::FromInstanceXdp] {
        let mut site = Site::new(object, from);
        site.all(&[
            // This one has the only place.
            (Packet(Egress, UDP, 1, 0, 0), Reason::Rule),
            (Packet(Ingress, UDP, 1, 0, 0), Reason::Established),
            // Each packet of another one asks the rules anew.
            (Packet(Egress, UDP, 2, 0, 0), Reason::Untracked),
            (Packet(Egress, UDP, 2, 0, 0), Reason::Untracked),
            (Packet(Ingress, UDP, 2, 0, 0), Reason::NoRule),
            (Packet(Egress, TCP, 3, 0, SYN), Reason::Untracked),
            (Packet(Ingress, TCP, 3, 0, SYN | ACK), Reason::Invalid),
            (Packet(Egress, TCP, 3, 0, ACK), Reason::Untracked),
            (Packet(Egress, UDP, 4, MORE, 0), Reason::Untracked),
            (Packet(Egress, UDP, 4, LATER, 0), Reason::Fragment),
            (Packet(Egress, UDP, 1, 0, 0), Reason::Established),
        ]);
        site.allow(&[TCP]);
        site.all(&[
            (Packet(Egress, UDP, 2, 0, 0), Reason::NoRule),
            (Packet(Egress, UDP, 4, LATER, 0), Reason::RefusedFragment),
            (Packet(Egress, TCP, 3, 0, ACK), Reason::Untracked),
            (Packet(Egress, UDP, 1, 0, 0), Reason::Revoked),
            (Packet(Ingress, UDP, 1, 0, 0), Reason::Revoked),
        ]);
    }
}

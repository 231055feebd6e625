//! The programs in the kernel, run on packets in memory, over maps in which everything is allowed.

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader, TestRunOptions,
    maps::{
        Array, HashMap, PerCpuArray,
        lpm_trie::{Key, LpmTrie},
    },
    programs::{SchedClassifier, TestRun as _, Xdp},
};
use netdiag_common::abi::{
    floating::{
        FLOATING_BEGINS, FLOATING_PEER, Floating, FloatingKey, HOP_KNOWN, Hop, HopKey, Leaving, Way, way_index,
    },
    policy::{CLASS_ANY, CLASS_SHIFT, GrantKey, PORT_MANAGED, Port, Protocol, Side, View, active},
    value::Tally,
};

use super::{BEYOND, FIXED, FLOATING, INNER, INSTANCE, OUTER, Packet};

/// Index of the loopback device of every namespace, which a test run takes unless told otherwise: instance and outside world
/// are both there.
const LOOPBACK: u32 = 1;
const EPOCH: u32 = 7;
const GENERATION: u32 = 5;
const ROUTER: u32 = 1;
const MTU: u32 = 1500;
const ETHERNET: usize = 14;

/// `TC_ACT_REDIRECT` and `XDP_REDIRECT`.
const REDIRECT: u32 = 7;
const XDP_REDIRECT: u32 = 4;

const FLAGS: u32 = FLOATING_BEGINS | FLOATING_PEER;

/// The floating IP as the program at the external device knows it.
pub(super) fn inward() -> (FloatingKey, Floating) {
    let key = FloatingKey { device: LOOPBACK, vlan: 0, address: u32::from_ne_bytes(FLOATING.octets()) };
    let floating = Floating {
        flags: FLAGS,
        fixed: u32::from_ne_bytes(FIXED.octets()),
        slot: 0,
        epoch: EPOCH,
        device: LOOPBACK,
        mtu: MTU,
        outer_mac: OUTER,
        destination_mac: INSTANCE,
        source_mac: INNER,
        hops: 1,
    };
    (key, floating)
}

/// The same as the program at the instance's device knows it.
pub(super) fn outward() -> Leaving {
    let (key, floating) = inward();
    Leaving {
        flags: FLAGS,
        fixed: floating.fixed,
        floating: key.address,
        epoch: EPOCH,
        router: ROUTER,
        device: LOOPBACK,
        mtu: MTU,
        vlan: 0,
        hops: 1,
        inner_mac: INNER,
        outer_mac: OUTER,
    }
}

/// The programs and their maps.
pub struct Programs(Ebpf);

/// A map of the object by its name.
macro_rules! map {
    ($programs:expr, $kind:ident, $name:literal) => {
        $kind::try_from($programs.map_mut($name).context($name)?).context($name)?
    };
}

impl Programs {
    /// Loads the programs and fills the maps.
    ///
    /// # Errors
    /// The kernel refuses them.
    pub fn load(object: &[u8]) -> Result<Self> {
        let mut programs = EbpfLoader::new().load(object).context("load the object")?;
        for name in ["from_external", "from_instance"] {
            let program: &mut SchedClassifier = programs.program_mut(name).context(name)?.try_into()?;
            program.load().context(name)?;
        }
        for name in ["from_external_xdp", "from_instance_xdp"] {
            let program: &mut Xdp = programs.program_mut(name).context(name)?.try_into()?;
            program.load().context(name)?;
        }
        policy(&mut programs)?;
        addresses(&mut programs)?;
        Ok(Self(programs))
    }

    /// What a packet becomes, in the order of its frames.
    ///
    /// # Errors
    /// A frame of it is not translated, or the programs do not agree among each other.
    pub fn translate(&mut self, packet: &Packet) -> Result<Vec<Vec<u8>>> {
        packet.frames.iter().map(|frame| self.frame(packet.inward, frame)).collect()
    }

    fn frame(&mut self, inward: bool, frame: &[u8]) -> Result<Vec<u8>> {
        let [tc, xdp] =
            if inward { ["from_external", "from_external_xdp"] } else { ["from_instance", "from_instance_xdp"] };
        let translated = self.run(tc, frame)?;
        // The flow is there by now, so this is also the same packet once more.
        let again = self.run(xdp, frame)?;
        ensure!(again == translated, "{tc}: {translated:02x?}\n{xdp}: {again:02x?}");
        Ok(translated)
    }

    fn run(&self, name: &str, frame: &[u8]) -> Result<Vec<u8>> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::new() };
        let program = self.0.program(name).context("no such program")?;
        let (result, expected) = if name.ends_with("xdp") {
            let program: &Xdp = program.try_into()?;
            (program.test_run(options)?, XDP_REDIRECT)
        } else {
            let program: &SchedClassifier = program.try_into()?;
            (program.test_run(options)?, REDIRECT)
        };
        ensure!(
            result.return_value == expected,
            "{name} says {}; ways of all packets so far: {:?}",
            result.return_value.cast_signed(),
            self.ways()?
        );
        ensure!(out.len() >= ETHERNET);
        Ok(out)
    }

    /// How many packets have taken which way, by direction.
    fn ways(&self) -> Result<Vec<(bool, Way, u64)>> {
        let map: PerCpuArray<_, Tally> = PerCpuArray::try_from(self.0.map("WAYS_TAKEN").context("WAYS_TAKEN")?)?;
        let mut ways = Vec::new();
        for ingress in [false, true] {
            for way in Way::ALL {
                let cpus = map.get(&way_index(0, ingress, *way as u8), 0)?;
                let packets: u64 = cpus.iter().map(|tally| tally.packets).sum();
                if packets > 0 {
                    ways.push((ingress, *way, packets));
                }
            }
        }
        Ok(ways)
    }
}

/// A port to which and from which everything is allowed.
fn policy(programs: &mut Ebpf) -> Result<()> {
    let port = Port {
        flags: PORT_MANAGED,
        policy: 0,
        epoch: EPOCH,
        mac: INSTANCE,
        pad: [0; 2],
        ipv4: [u32::from_ne_bytes(FIXED.octets()), 0, 0, 0],
        ipv6: [[0; 4]; 3],
    };
    let side = Side { services: 1, grants: 1, hosts: 0, prefixes: 0 };
    let view = View { generation: GENERATION, flags: 0, sides: [side; 4] };
    let any = Protocol { whole: 1 << CLASS_SHIFT | CLASS_ANY, directory: 0 };
    let mut interfaces: Array<_, u32> = map!(programs, Array, "INTERFACES");
    interfaces.set(LOOPBACK, 1, 0)?;
    let mut ports: Array<_, Port> = map!(programs, Array, "PORTS");
    ports.set(0, port, 0)?;
    let mut allowance: Array<_, u64> = map!(programs, Array, "ALLOWANCE");
    allowance.set(0, u64::MAX >> 1, 0)?;
    let mut protocols: Array<_, Protocol> = map!(programs, Array, "PROTOCOLS");
    for protocol in 0..256 {
        protocols.set(256 + protocol, any, 0)?;
    }
    let mut grants: HashMap<_, GrantKey, u32> = map!(programs, HashMap, "GRANTS");
    grants.insert(GrantKey { grants: 1, remote: 0, class: 1 }, 1, 0)?;
    let mut views: Array<_, View> = map!(programs, Array, "VIEWS");
    views.set(1, view, 0)?;
    let mut in_force: Array<_, u64> = map!(programs, Array, "ACTIVE");
    Ok(in_force.set(0, active(1, GENERATION), 0)?)
}

/// The floating IP, and a router that sends everything beyond.
fn addresses(programs: &mut Ebpf) -> Result<()> {
    let (key, value) = inward();
    let mut floating: HashMap<_, FloatingKey, Floating> = map!(programs, HashMap, "FLOATING");
    floating.insert(key, value, 0)?;
    let mut leaving: Array<_, Leaving> = map!(programs, Array, "LEAVING");
    leaving.set(0, outward(), 0)?;
    let mut hops: LpmTrie<_, HopKey, Hop> = map!(programs, LpmTrie, "HOPS");
    let everywhere = Key::new(u32::BITS, HopKey { router: ROUTER, address: 0 });
    Ok(hops.insert(&everywhere, Hop { kind: HOP_KNOWN, mac: BEYOND, pad: [0; 2] }, 0)?)
}

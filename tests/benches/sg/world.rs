//! Policies of a given size, and a host that enforces them: the agent's own compiler, loader and map writer.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsFd, AsRawFd as _},
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use aya::{maps::MapInfo, programs::loaded_programs};
use netdiag_agent::enforce::{Enforcer, Options};
use netdiag_model::{
    compile::{Compiled, Input},
    id::Mac,
    policy::types::{
        Attached, Direction, Ethertype, GroupId, Hook, Mode, Policy, PortId, Remote, Rule, RuleId, SecurityGroup,
        Service,
    },
};

/// How large a policy is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Rules of each direction.
    pub(super) rules: u32,
    /// Members of the remote group they name.
    pub(super) members: u32,
}

/// What everybody may use, and the three ports after it.
pub(super) const OPEN: u16 = 80;
/// What the members of the remote group may use.
pub(super) const FOR_GROUP: u16 = 443;
/// What [`PARTNERS`] may use.
pub(super) const FOR_PREFIX: u16 = 22;
/// What nobody may use.
pub(super) const CLOSED: u16 = 60_000;
/// First of the prefix that may use [`FOR_PREFIX`].
pub(super) const PARTNERS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 0);
/// First member of the remote group.
pub(super) const MEMBERS: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 0);

/// The other end of connections that need no member.
pub(super) const GATEWAY: [u8; 6] = [0xfa, 0x16, 0x3e, 0, 0, 1];

/// The address so many after another.
pub(super) fn after(first: Ipv4Addr, offset: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + offset)
}

/// A port of the bench.
#[derive(Clone, Debug)]
pub(super) struct BenchPort {
    pub(super) ifindex: u32,
    pub(super) mac: [u8; 6],
    pub(super) ipv4: Ipv4Addr,
    pub(super) size: Size,
}

impl BenchPort {
    /// Of the usual addresses: ports do not see each other's flows.
    pub(super) fn new(ifindex: u32, size: Size) -> Self {
        Self { ifindex, mac: [0xfa, 0x16, 0x3e, 0, 0, 2], ipv4: Ipv4Addr::new(10, 0, 0, 2), size }
    }

    /// Its IPv6 address.
    pub(super) fn ipv6() -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 2)
    }

    fn attached(&self) -> Attached {
        Attached {
            id: PortId(format!("bench-{}", self.ifindex)),
            ifindex: self.ifindex,
            mac: Mac(self.mac),
            fixed_ips: [IpAddr::V4(self.ipv4), IpAddr::V6(Self::ipv6())].into(),
            pairs: BTreeSet::new(),
            groups: vec![rules_of(self.size)],
            mode: Mode::Filtered,
            hook: Hook::Tc,
            log_allowed: false,
        }
    }
}

fn rules_of(size: Size) -> GroupId {
    GroupId(format!("rules-{}-{}", size.rules, size.members))
}

fn members_of(size: Size) -> GroupId {
    GroupId(format!("members-{}", size.members))
}

/// One rule.
fn rule(size: Size, direction: Direction, place: u32) -> Result<Rule> {
    let tcp = |port: u16| Service::Ports { protocol: 6, first: port, last: port };
    let (ethertype, service, remote) = match place {
        0 => (Ethertype::IPv4, Service::Ports { protocol: 6, first: OPEN, last: OPEN + 3 }, Remote::Any),
        1 => (Ethertype::IPv4, tcp(FOR_GROUP), Remote::Group(members_of(size))),
        2 => (Ethertype::IPv4, tcp(FOR_PREFIX), Remote::Prefix(format!("{PARTNERS}/12").parse()?)),
        3 => (Ethertype::IPv6, tcp(OPEN), Remote::Any),
        filler => {
            let port = u16::try_from(1024 + filler).context("more rules than ports")?;
            let remote = match filler % 3 {
                0 => Remote::Any,
                1 => Remote::Group(members_of(size)),
                _ => Remote::Prefix(format!("{}/24", after(Ipv4Addr::new(11, 0, 0, 0), filler << 8)).parse()?),
            };
            (Ethertype::IPv4, tcp(port), remote)
        }
    };
    let id = RuleId(format!("{}/{}/{place}", rules_of(size), direction.name()));
    Ok(Rule { id, direction, ethertype, service, remote, description: String::new() })
}

fn group(id: GroupId, rules: Vec<Rule>) -> SecurityGroup {
    SecurityGroup { id, name: String::new(), stateful: true, rules }
}

/// What an agent would have read: the policy, the ports it found, the members it knows.
pub(super) struct World {
    policy: Policy,
    attached: Vec<Attached>,
    members: BTreeMap<GroupId, BTreeSet<ipnet::IpNet>>,
}

impl World {
    /// Of ports and the policies they have.
    pub(super) fn new(ports: &[BenchPort]) -> Result<Self> {
        let mut world = Self { policy: Policy::default(), attached: Vec::new(), members: BTreeMap::new() };
        for port in ports {
            let size = port.size;
            let mut rules = Vec::new();
            for direction in [Direction::Egress, Direction::Ingress] {
                for place in 0..size.rules {
                    rules.push(rule(size, direction, place)?);
                }
            }
            world.policy.groups.insert(rules_of(size), group(rules_of(size), rules));
            world.policy.groups.insert(members_of(size), group(members_of(size), Vec::new()));
            let members = (0..size.members).map(|member| IpAddr::V4(after(MEMBERS, member)).into());
            world.members.insert(members_of(size), members.collect());
            world.attached.push(port.attached());
        }
        Ok(world)
    }

    fn input(&self) -> Input<'_> {
        let Self { policy, attached, members } = self;
        Input { policy, attached, members, events_per_second: 100 }
    }

    /// Lets every port send with more addresses.
    pub(super) fn allow(&mut self, addresses: ipnet::IpNet) {
        for port in &mut self.attached {
            port.pairs.insert((port.mac, addresses));
        }
    }

    /// Adds a member to every remote group.
    pub(super) fn grow(&mut self) {
        for members in self.members.values_mut() {
            let more = u32::try_from(members.len()).unwrap_or(0);
            members.insert(IpAddr::V4(after(MEMBERS, more)).into());
        }
    }
}

/// How long a change of policy took.
#[derive(Clone, Copy, Debug)]
pub(super) struct Took {
    /// `Compiled::advance`: the tables, and the writes that make them of those before.
    pub(super) lower: Duration,
    /// The writes to the maps.
    pub(super) apply: Duration,
}

/// Programs and maps that enforce a world.
pub(super) struct Host {
    pub(super) enforcer: Enforcer,
    compiled: Compiled,
    _bpffs: Bpffs,
}

impl Host {
    /// Loads the programs, of another object where one is given, with maps of their own.
    pub(super) fn new(object: Option<&[u8]>) -> Result<Self> {
        let bpffs = Bpffs::mount()?;
        let options = Options { root: bpffs.0.path().join("netdiag"), ..Options::default() };
        let enforcer = match object {
            Some(object) => Enforcer::load_object(object, options)?,
            None => Enforcer::load(options)?,
        };
        Ok(Self { enforcer, compiled: Compiled::default(), _bpffs: bpffs })
    }

    /// Makes the maps what a world asks for.
    pub(super) fn apply(&mut self, world: &World) -> Result<Took> {
        let start = Instant::now();
        let phases = self.compiled.advance(&world.input())?;
        let lowered = Instant::now();
        self.enforcer.apply(&phases)?;
        Ok(Took { lower: lowered - start, apply: lowered.elapsed() })
    }

    /// Forgets every tracked IPv4 flow.
    pub(super) fn forget_flows(&self) -> Result<()> {
        for (map, overflow) in [("FLOWS4", false), ("OVER4", true)] {
            let keys = self.enforcer.flows()?.ipv4.into_iter().filter(|flow| flow.overflow == overflow);
            let keys: Vec<_> = keys.map(|flow| flow.key).collect();
            if !keys.is_empty() {
                super::kernel::remove(&super::kernel::open(&self.map(map))?, &keys)?;
            }
        }
        Ok(())
    }

    /// The place of the port at a device.
    pub(super) fn slot(&self, ifindex: u32) -> Result<u32> {
        self.compiled.tables().interfaces.get(&ifindex).copied().with_context(|| format!("no port at device {ifindex}"))
    }

    /// The place of the port at a device, and its epoch.
    pub(super) fn place(&self, ifindex: u32) -> Result<(u32, u32)> {
        let slot = self.slot(ifindex)?;
        let port = self.compiled.tables().ports.get(&slot).with_context(|| format!("no port at place {slot}"))?;
        Ok((slot, port.epoch))
    }

    /// Where a map is pinned.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.enforcer.pinned().join(name)
    }

    /// Bytes the kernel has charged to a map.
    pub(super) fn bytes(&self, name: &str) -> Result<u64> {
        let map = super::kernel::open(&self.map(name)).with_context(|| format!("open map {name}"))?;
        charged(&map)
    }
}

/// Bytes the kernel has charged to a map (`memlock` of its fdinfo).
fn charged(map: &impl AsFd) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_fd().as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:")).context("fdinfo without memlock")?;
    Ok(line.trim().parse()?)
}

/// Bytes of the notes of settled flows, which are pinned nowhere, by a program that uses them.
pub(super) fn bytes_of_notes(program: u32) -> Result<u64> {
    let program = loaded_programs().filter_map(Result::ok).find(|info| info.id() == program).context("no program")?;
    let mut bytes = Vec::new();
    for id in program.map_ids()?.context("a program without maps")? {
        let map = MapInfo::from_id(id)?;
        if map.name_as_str().is_some_and(|name| name.starts_with(NOTES)) {
            bytes.push(charged(&map.fd()?)?);
        }
    }
    ensure!(bytes.len() == 2, "{} maps of notes, and not one for each family", bytes.len());
    Ok(bytes.iter().sum())
}

/// How the names of their maps begin.
const NOTES: &str = "SETTLED";

/// A bpffs of one's own.
struct Bpffs(tempfile::TempDir);

impl Bpffs {
    fn mount() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        run(&["mount", "-t", "bpf", "bpf", &directory.path().to_string_lossy()])?;
        Ok(Self(directory))
    }
}

impl Drop for Bpffs {
    fn drop(&mut self) {
        // The mount namespace takes it along otherwise.
        run(&["umount", "-l", &self.0.path().to_string_lossy()]).ok();
    }
}

/// Runs a program and returns what it printed.
pub(super) fn run(words: &[&str]) -> Result<String> {
    let [program, arguments @ ..] = words else { bail!("no program") };
    let output = Command::new(program).args(arguments).output().with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        bail!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Index of a device.
pub(super) fn ifindex(name: &str) -> Result<u32> {
    let socket = rustix::net::socket(rustix::net::AddressFamily::UNIX, rustix::net::SocketType::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&socket, name).with_context(|| format!("find device {name}"))
}

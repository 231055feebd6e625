//! The floating IPs of a host and the ways they take: the answer of `netdiag fip`. Flow: explain.
//!
//! What is loaded decides: a floating IP is fast where the maps have it. Why another is not is for the agent to say, which found
//! its way; without one, only what the routers' own rules show is known.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
};

use netdiag_common::abi::floating::Way;
use serde::Serialize;

use super::{FastPath, FloatingIp, Owner, State, Switches, plan};
use crate::{
    fact::{
        Gap, SourceKind,
        enforcement::{EnforcedPort, EnforcementFact, LoadedFloating, WayCount},
    },
    id::{IfIndex, LinkKey},
    inventory::{Enforcement, Instance, Inventory, Nic, nat::Floating},
    policy::types::{Direction, Policy},
};

/// The answer of `netdiag fip`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Host the look was taken on.
    pub hostname: String,
    /// When, in seconds since 1970-01-01 UTC.
    pub taken_at: u64,
    /// What was asked for; none is all.
    pub asked: Option<String>,
    /// An agent says which ways there are, or is about to.
    pub agent: bool,
    /// Floating IPs, by address.
    pub rows: Vec<Row>,
    /// What could not be read and would belong to this answer.
    pub gaps: Vec<Gap>,
}

/// One floating IP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The address the outside knows.
    pub floating_ip_address: Ipv4Addr,
    /// The address it stands for.
    pub fixed_ip_address: Option<Ipv4Addr>,
    /// Its port, where netdiag enforces one.
    pub port_id: Option<String>,
    /// The instance.
    pub instance: Option<String>,
    /// The host's device of the instance.
    pub host_device: Option<String>,
    /// The router: name of its namespace, or `host`; none where only the maps know of it.
    pub router: Option<String>,
    /// Who made it.
    pub owner: Option<Owner>,
    /// Which way its packets go.
    pub standing: Standing,
    /// Why not past the router; what the agent says else, where that differs from what is loaded.
    pub why: Option<String>,
    /// The external device.
    pub external_device: Option<String>,
    /// VLAN of the external network there; none is untagged.
    pub vlan: Option<u16>,
    /// Packets of its port's floating IPs by direction and way.
    pub ways: Vec<WayCount>,
    /// All of its way past the router, as the agent found it.
    pub path: Option<FastPath>,
}

/// Which way the packets of a floating IP go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Past the router.
    Fast,
    /// New flows through the router, those that began past it past it.
    Draining,
    /// Through the router.
    Slow,
    /// Asked of netdiag, and not served.
    Held,
    /// Nowhere.
    Broken,
    /// Through the router, or past it: what is loaded could not be read.
    Unknown,
}

impl Standing {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Draining => "draining",
            Self::Slow => "slow",
            Self::Held => "held",
            Self::Broken => "broken",
            Self::Unknown => "unknown",
        }
    }
}

impl Row {
    /// Packets of a direction that went past the router, and those that were left to it.
    pub fn packets(&self, direction: Direction) -> (u64, u64) {
        (self.sum(direction, WayCount::is_fast), self.sum(direction, WayCount::is_slow))
    }

    /// Packets of a direction that security groups have refused where they would have gone past the router.
    pub fn refused(&self, direction: Direction) -> u64 {
        self.sum(direction, |count| count.way == Way::Refused.name())
    }

    fn sum(&self, direction: Direction, of: impl Fn(&WayCount) -> bool) -> u64 {
        let counts = self.ways.iter().filter(|count| count.direction == direction && of(count));
        counts.map(|count| count.packets).sum()
    }
}

/// The floating IPs of a host: all, those of an instance, or one.
pub fn list(inventory: &Inventory<'_>, asked: Option<Wanted<'_, '_>>) -> Listed {
    let facts = &inventory.snapshot.facts;
    let mut rows = rows(inventory);
    match asked {
        None => {}
        Some(Wanted::Address(address)) => rows.retain(|row| row.floating_ip_address == address),
        Some(Wanted::Instance(instance)) => {
            let own = &instance.identity.name;
            rows.retain(|row| row.instance.as_ref() == Some(own));
        }
    }
    let concerns = |gap: &&Gap| !gap.absent && matches!(gap.source, SourceKind::Enforcement | SourceKind::Netfilter);
    Listed {
        hostname: inventory.snapshot.hostname.clone(),
        taken_at: inventory.snapshot.taken_at,
        asked: asked.map(|asked| asked.words()),
        agent: facts.enforcement.as_ref().is_some_and(|fact| fact.floating_ips.is_some() || fact.agent.is_some()),
        rows,
        gaps: facts.gaps().filter(concerns).cloned().collect(),
    }
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'w, 'a> {
    /// One floating IP.
    Address(Ipv4Addr),
    /// Those of an instance.
    Instance(&'w Instance<'a>),
}

impl Wanted<'_, '_> {
    fn words(&self) -> String {
        match self {
            Self::Address(address) => address.to_string(),
            Self::Instance(instance) => instance.identity.name.clone(),
        }
    }
}

/// Floating IPs of a card, as far as netdiag has to do with them.
pub(crate) fn of_nic<'a>(inventory: &Inventory<'a>, nic: &Nic<'a>) -> Vec<Row> {
    let Some(fact) = &inventory.snapshot.facts.enforcement else { return Vec::new() };
    if fact.floating.is_empty() && fact.floating_ips.is_none() {
        return Vec::new();
    }
    let ways = Ways::new(inventory, Some(fact), Names::default());
    match inventory.enforcement(nic) {
        Enforcement::Port(port) => ways.rows(&Of::Port(port)),
        // What nobody enforces anything at is not fast, and the agent says why.
        Enforcement::Absent | Enforcement::Unknown | Enforcement::Unmanaged | Enforcement::Refused(_) => {
            let led_to = inventory.floating_ips(nic).iter().map(|floating| led_to(inventory, floating)).collect();
            ways.rows(&Of::LedTo(led_to))
        }
    }
}

/// A floating IP as routers know it: its address and the router.
fn led_to(inventory: &Inventory<'_>, floating: &Floating) -> (IpAddr, String) {
    (floating.address, inventory.netns(floating.netns).label)
}

fn rows(inventory: &Inventory<'_>) -> Vec<Row> {
    Ways::new(inventory, inventory.snapshot.facts.enforcement.as_ref(), Names::read(inventory)).rows(&Of::All)
}

/// Whose floating IPs.
enum Of<'s> {
    /// Those of the host.
    All,
    /// Those of a port that is enforced.
    Port(&'s EnforcedPort),
    /// These, which lead to a card.
    LedTo(BTreeSet<(IpAddr, String)>),
}

impl Of<'_> {
    /// Whether a floating IP the agent knows is one of them.
    fn has(&self, made: &FloatingIp) -> bool {
        match self {
            Self::All => true,
            Self::Port(port) => made.port_id.as_ref().is_some_and(|id| id.0 == port.port_id),
            Self::LedTo(led_to) => led_to.contains(&(made.floating_ip_address.into(), made.router.clone())),
        }
    }

    /// Whether one that is loaded for the port at a place is.
    const fn is_at(&self, slot: u32) -> bool {
        match self {
            Self::All => true,
            Self::Port(port) => port.slot == slot,
            Self::LedTo(_) => false,
        }
    }
}

/// Names of instances, looked for once.
#[derive(Debug, Default)]
struct Names {
    /// By place of the port.
    ports: BTreeMap<u32, String>,
    /// By floating IP and router, where rules lead to one.
    led_to: BTreeMap<(IpAddr, String), String>,
}

impl Names {
    fn read(inventory: &Inventory<'_>) -> Self {
        let mut names = Self::default();
        for instance in &inventory.instances {
            let name = || instance.identity.name.clone();
            for nic in &instance.nics {
                if let Enforcement::Port(port) = inventory.enforcement(nic) {
                    names.ports.insert(port.slot, name());
                }
                for floating in inventory.floating_ips(nic) {
                    names.led_to.insert(led_to(inventory, &floating), name());
                }
            }
        }
        names
    }
}

/// What is known of ways.
struct Ways<'s, 'a> {
    inventory: &'s Inventory<'a>,
    fact: Option<&'s EnforcementFact>,
    names: Names,
}

impl<'s, 'a> Ways<'s, 'a> {
    const fn new(inventory: &'s Inventory<'a>, fact: Option<&'s EnforcementFact>, names: Names) -> Self {
        Self { inventory, fact, names }
    }

    /// Floating IPs that the agent knows, those that are loaded all the same, and those that only the routers know; of one port
    /// or of all.
    fn rows(&self, of: &Of<'_>) -> Vec<Row> {
        let planned = self.fact.and_then(|fact| fact.floating_ips.as_deref()).unwrap_or_default();
        let loaded = self.fact.map_or(&[][..], |fact| &fact.floating);
        let mut left: BTreeMap<(Ipv4Addr, Option<Ipv4Addr>), &LoadedFloating> =
            loaded.iter().filter(|one| of.is_at(one.slot)).map(|one| ((one.floating, Some(one.fixed)), one)).collect();
        let mut rows: Vec<Row> = planned
            .iter()
            .filter(|made| of.has(made))
            .map(|made| self.planned(made, left.remove(&(made.floating_ip_address, made.fixed_ip_address))))
            .collect();
        let found = if planned.is_empty() && matches!(of, Of::All) { self.found() } else { Vec::new() };
        for made in &found {
            rows.push(self.planned(made, left.remove(&(made.floating_ip_address, made.fixed_ip_address))));
        }
        rows.extend(left.into_values().map(|loaded| self.only_loaded(loaded)));
        rows.sort_by(|a, b| (a.floating_ip_address, &a.router).cmp(&(b.floating_ip_address, &b.router)));
        rows
    }

    /// What the rules of routers show, where nobody says more.
    fn found(&self) -> Vec<FloatingIp> {
        let unread = self.fact.is_none() && self.unread();
        let why = match self.fact.map(|fact| (&fact.floating_ips, &fact.agent)) {
            Some((Some(_), _)) => {
                "the agent of netdiag leaves the floating IPs of routers alone, or has not seen this one yet"
            }
            Some((None, Some(_))) => "the agent of netdiag has not looked at the routers of this host yet",
            Some((None, None)) => "no agent of netdiag answers, and it is not loaded",
            None if unread => "what netdiag has loaded could not be read",
            None => "nothing of netdiag is loaded on this host",
        };
        let mut found = plan(self.inventory, &Policy::default(), &[], &Switches::default()).floating_ips;
        for made in &mut found {
            if let State::Slow { why: other } = &mut made.way
                && !other.starts_with("port forwarding")
            {
                why.clone_into(other);
            }
        }
        found
    }

    fn unread(&self) -> bool {
        let mut gaps = self.inventory.snapshot.facts.gaps();
        gaps.any(|gap| gap.source == SourceKind::Enforcement && !gap.absent)
    }

    fn planned(&self, made: &FloatingIp, loaded: Option<&LoadedFloating>) -> Row {
        let (standing, why) = self.standing(made, loaded);
        let port = loaded.and_then(|loaded| self.port(loaded.slot));
        let port_id = made.port_id.as_ref().map(|id| id.0.clone()).or(port.map(|port| port.port_id.clone()));
        let port = port.or_else(|| self.port_called(port_id.as_deref()?));
        let path = made.fast();
        let device = loaded.map(|loaded| loaded.ifindex).or(path.map(|path| IfIndex(path.ifindex)));
        let vlan = loaded.map(|loaded| loaded.vlan).or(path.map(|path| path.vlan));
        Row {
            floating_ip_address: made.floating_ip_address,
            fixed_ip_address: made.fixed_ip_address,
            instance: self.instance(port, made),
            host_device: port.and_then(|port| self.device(port.ifindex)),
            port_id,
            router: Some(made.router.clone()),
            owner: Some(made.owner),
            standing,
            why,
            external_device: device.and_then(|ifindex| self.device(ifindex)).or(path.map(|path| path.device.clone())),
            vlan: vlan.filter(|vlan| *vlan != 0),
            ways: port.map(|port| port.ways.clone()).unwrap_or_default(),
            path: path.cloned(),
        }
    }

    /// Which way, by what is loaded, and why it is not another.
    fn standing(&self, made: &FloatingIp, loaded: Option<&LoadedFloating>) -> (Standing, Option<String>) {
        let unread = self.fact.is_none() && self.unread();
        match (loaded, &made.way) {
            (Some(LoadedFloating { begins, .. }), way) => {
                let standing = if *begins { Standing::Fast } else { Standing::Draining };
                let agents = match way {
                    State::Fast(path) if path.begins == *begins => made.shown().1.map(str::to_owned),
                    State::Fast(_) => Some("the agent is about to change whether new flows begin so".to_owned()),
                    State::Slow { why } | State::Broken { why } => Some(format!("the agent takes it off: {why}")),
                };
                (standing, agents.filter(|_| self.fact.is_some_and(|fact| fact.floating_ips.is_some())))
            }
            (None, State::Fast(_)) => {
                (Standing::Slow, Some("its way past the router is known, and not loaded yet".to_owned()))
            }
            (None, State::Slow { why }) if unread => (Standing::Unknown, Some(why.clone())),
            (None, State::Slow { why }) => (Standing::Slow, Some(why.clone())),
            (None, State::Broken { why }) if made.owner == Owner::Netdiag => (Standing::Held, Some(why.clone())),
            (None, State::Broken { why }) => (Standing::Broken, Some(why.clone())),
        }
    }

    /// One that is loaded, and that nobody else knows of.
    fn only_loaded(&self, loaded: &LoadedFloating) -> Row {
        let port = self.port(loaded.slot);
        let agent = self.fact.is_some_and(|fact| fact.floating_ips.is_some());
        Row {
            floating_ip_address: loaded.floating,
            fixed_ip_address: Some(loaded.fixed),
            port_id: port.map(|port| port.port_id.clone()),
            instance: port.and_then(|port| self.named(port)),
            host_device: port.and_then(|port| self.device(port.ifindex)),
            router: None,
            owner: None,
            standing: if loaded.begins { Standing::Fast } else { Standing::Draining },
            why: agent.then(|| "the agent does not know of it any more".to_owned()),
            external_device: self.device(loaded.ifindex),
            vlan: Some(loaded.vlan).filter(|vlan| *vlan != 0),
            ways: port.map(|port| port.ways.clone()).unwrap_or_default(),
            path: None,
        }
    }

    fn port(&self, slot: u32) -> Option<&EnforcedPort> {
        self.fact?.ports.iter().find(|port| port.slot == slot)
    }

    fn port_called(&self, id: &str) -> Option<&EnforcedPort> {
        self.fact?.ports.iter().find(|port| port.port_id == id)
    }

    /// Name of a device of the host.
    fn device(&self, ifindex: IfIndex) -> Option<String> {
        let key = LinkKey { netns: self.inventory.host?, ifindex };
        Some(self.inventory.link(key)?.name.clone())
    }

    /// The instance of an enforced port.
    fn named(&self, port: &EnforcedPort) -> Option<String> {
        self.names.ports.get(&port.slot).cloned()
    }

    /// The instance of a port, or whom the rules of a router lead to.
    fn instance(&self, port: Option<&EnforcedPort>, made: &FloatingIp) -> Option<String> {
        let led_to = || {
            let key = (IpAddr::V4(made.floating_ip_address), made.router.clone());
            self.names.led_to.get(&key).cloned()
        };
        port.and_then(|port| self.named(port)).or_else(led_to)
    }
}

#[cfg(test)]
mod tests {
    use netdiag_common::abi::floating::Way;

    use super::{Row, Standing, list};
    use crate::{
        fact::{
            SourceKind,
            enforcement::{AgentFact, EnforcementFact, LoadedFloating, WayCount},
        },
        floating::{ExternalHook, FastPath, FloatingIp, Owner, State},
        id::{IfIndex, Mac},
        inventory::Inventory,
        policy::types::Direction,
        testing::Host,
    };

    fn made(way: State, owner: Owner) -> FloatingIp {
        FloatingIp {
            floating_ip_address: [172, 24, 4, 6].into(),
            fixed_ip_address: Some([10, 0, 0, 2].into()),
            port_id: None,
            router: "qrouter-1".to_owned(),
            owner,
            way,
        }
    }

    fn fast(begins: bool) -> State {
        let mac = Mac([2; 6]);
        State::Fast(Box::new(FastPath {
            router: 1,
            device: "eth1".to_owned(),
            ifindex: 3,
            hook: ExternalHook::Tc,
            vlan: 0,
            outer_mac: mac,
            outer_mtu: 1500,
            inner_mac: mac,
            inner_mtu: 1450,
            mac,
            port_ifindex: 9,
            peer: true,
            hops: 1,
            random: false,
            begins,
        }))
    }

    fn slow(why: &str) -> State {
        State::Slow { why: why.to_owned() }
    }

    fn broken(why: &str) -> State {
        State::Broken { why: why.to_owned() }
    }

    /// The standing of the only row where the agent says this and the maps hold that.
    fn standing(agent: Option<FloatingIp>, loaded: Option<bool>) -> (Standing, Option<String>) {
        let mut host = Host::new();
        let loaded = loaded.map(|begins| LoadedFloating {
            floating: [172, 24, 4, 6].into(),
            fixed: [10, 0, 0, 2].into(),
            slot: 0,
            ifindex: IfIndex(3),
            vlan: 0,
            begins,
        });
        host.facts.enforcement = Some(EnforcementFact {
            floating: loaded.into_iter().collect(),
            floating_ips: agent.map(|made| vec![made]),
            ..EnforcementFact::default()
        });
        let snapshot = host.snapshot();
        let listed = list(&Inventory::build(&snapshot), None);
        let [row] = &listed.rows[..] else { panic!("{listed:?}") };
        (row.standing, row.why.clone())
    }

    #[test]
    fn what_is_loaded_decides_and_the_agent_says_why() {
        let found = |way| Some(made(way, Owner::Found));
        for (agent, loaded, expected, why) in [
            (found(fast(true)), Some(true), Standing::Fast, None),
            (found(fast(false)), Some(false), Standing::Draining, Some("told to be slow")),
            (found(fast(true)), Some(false), Standing::Draining, Some("about to change")),
            (found(fast(true)), None, Standing::Slow, Some("not loaded yet")),
            (found(slow("QoS")), None, Standing::Slow, Some("QoS")),
            (found(slow("QoS")), Some(true), Standing::Fast, Some("the agent takes it off: QoS")),
            (found(broken("two have it")), None, Standing::Broken, Some("two have it")),
            (Some(made(broken("no port"), Owner::Netdiag)), None, Standing::Held, Some("no port")),
            (None, Some(true), Standing::Fast, None),
            (None, Some(false), Standing::Draining, None),
        ] {
            let (standing, told) = standing(agent, loaded);
            assert_eq!(standing, expected);
            assert_eq!(told.is_some(), why.is_some(), "{told:?}");
            assert!(why.is_none_or(|why| told.as_ref().unwrap().contains(why)), "{told:?}");
        }
    }

    /// A host with a router, single ports of whose address lead to an instance and which has a floating IP.
    fn host_with_router() -> Host {
        let mut host = Host::new();
        let router = host.netns(&["qrouter-77aa11bb-22cc-43dd-84ee-00000000000b"]);
        let qg = host.link(router, "qg-1", None);
        host.address(qg, "172.24.4.6/32");
        let qr = host.link(router, "qr-1", None);
        host.address(qr, "10.0.0.1/24");
        let chains = ["PREROUTING", "OUTPUT", "float-snat"].map(|chain| format!(":neutron-l3-agent-{chain} - [0:0]\n"));
        let rules = [
            "PREROUTING -j neutron-l3-agent-PREROUTING",
            "OUTPUT -j neutron-l3-agent-OUTPUT",
            "POSTROUTING -j neutron-l3-agent-float-snat",
            "neutron-l3-agent-PREROUTING -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2",
            "neutron-l3-agent-OUTPUT -d 172.24.4.6/32 -j DNAT --to-destination 10.0.0.2",
            "neutron-l3-agent-float-snat -s 10.0.0.2/32 -j SNAT --to-source 172.24.4.6",
        ]
        .map(|rule| format!("-A {rule}\n"));
        let built_in = ":PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n";
        host.rules(router, &format!("*nat\n{built_in}{}{}COMMIT\n", chains.concat(), rules.concat()));
        host
    }

    #[test]
    fn an_agent_that_has_not_looked_yet_is_told_from_one_that_leaves_it_alone_and_from_none() {
        let why = |agent: bool, looked: bool| {
            let mut host = host_with_router();
            host.facts.enforcement = Some(EnforcementFact {
                agent: agent.then(AgentFact::default),
                floating_ips: looked.then(Vec::new),
                ..EnforcementFact::default()
            });
            let snapshot = host.snapshot();
            let listed = list(&Inventory::build(&snapshot), None);
            (listed.agent, listed.rows[0].why.clone().unwrap_or_default())
        };
        let not_yet = "the agent of netdiag has not looked at the routers of this host yet";
        assert_eq!(why(true, false), (true, not_yet.to_owned()));
        let (agent, alone) = why(true, true);
        assert!(agent && alone.contains("leaves the floating IPs of routers alone"), "{alone}");
        assert_eq!(why(false, false), (false, "no agent of netdiag answers, and it is not loaded".to_owned()));
    }

    #[test]
    fn what_groups_refuse_goes_neither_past_the_router_nor_through_it() {
        let count = |way: Way, packets: u64| WayCount {
            direction: Direction::Ingress,
            way: way.name().to_owned(),
            packets,
            bytes: 0,
        };
        let ways = [(Way::Fast, 1), (Way::Refused, 20), (Way::Straight, 300), (Way::Gone, 4000), (Way::Ttl, 50_000)];
        let ways = ways.into_iter().map(|(way, packets)| count(way, packets)).collect();
        let mut host = Host::new();
        host.facts.enforcement = Some(EnforcementFact {
            floating: vec![LoadedFloating {
                floating: [172, 24, 4, 6].into(),
                fixed: [10, 0, 0, 2].into(),
                slot: 0,
                ifindex: IfIndex(3),
                vlan: 0,
                begins: true,
            }],
            ..EnforcementFact::default()
        });
        let snapshot = host.snapshot();
        let listed = list(&Inventory::build(&snapshot), None);
        let row = Row { ways, ..listed.rows[0].clone() };
        assert_eq!((row.packets(Direction::Ingress), row.refused(Direction::Ingress)), ((1, 54_000), 20));
        assert_eq!((row.packets(Direction::Egress), row.refused(Direction::Egress)), ((0, 0), 0));
    }

    #[test]
    fn what_could_not_be_read_is_not_said_to_be_slow() {
        let snapshot = |unread: bool| {
            let mut host = Host::new();
            let router = host.netns(&["qrouter-77aa11bb-22cc-43dd-84ee-00000000000b"]);
            // Single ports of an address: nothing of it is broken, whatever else is not there.
            host.rules(
                router,
                "*nat\n:PREROUTING ACCEPT [0:0]\n:neutron-l3-agent-PREROUTING - [0:0]\n:neutron-l3-agent-fip-pf - [0:0]\n\
                 :neutron-l3-agent-pf-1 - [0:0]\n-A PREROUTING -j neutron-l3-agent-PREROUTING\n\
                 -A neutron-l3-agent-PREROUTING -j neutron-l3-agent-fip-pf\n-A neutron-l3-agent-fip-pf -j neutron-l3-agent-pf-1\n\
                 -A neutron-l3-agent-pf-1 -d 172.24.4.9/32 -p tcp -m tcp --dport 22 -j DNAT --to-destination 10.0.0.9:22\nCOMMIT\n",
            );
            if unread {
                host.gap(SourceKind::Enforcement, None);
            }
            host.snapshot()
        };
        let standing = |unread| list(&Inventory::build(&snapshot(unread)), None).rows[0].standing;
        assert_eq!([standing(false), standing(true)], [Standing::Slow, Standing::Unknown]);
    }
}

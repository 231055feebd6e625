//! Hosts built by hand, for unit tests: only what a test is about, joined as a real host's facts are.
//!
//! A [`Host`] starts with the host's own namespace. Every method adds one thing an operator could have made with one
//! command, and returns its identity.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use proptest::test_runner::Config as ProptestConfig;

use crate::{
    fact::{
        AddressFact, ContainerFact, Facts, Gap, LinkDetail, LinkFact, NameKind, NamespaceFact, NamespaceName,
        NeighbourFact, NetworkFact, NextHop, OperState, OvsBridgeFact, OvsInterfaceFact, OvsPortFact, PolicyRuleFact,
        ProcessFact, ProxyFact, PublishedPort, RouteFact, RuleBackend, RulesetFact, Runtime, SourceKind, SourceReport,
        SwitchFact, SysctlFact,
    },
    id::{IfIndex, LinkKey, Mac, NetnsId},
    inventory::Inventory,
    snapshot::Snapshot,
    trace::{self, Trace},
};

/// So many random cases, or as many as `PROPTEST_CASES` asks for.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|number| number.parse().ok());
    ProptestConfig::with_cases(asked.unwrap_or(usual))
}

/// Main routing table (`RT_TABLE_MAIN`).
pub(crate) const MAIN: u32 = 254;

/// A port of Neutron.
pub(crate) const PORT: &str = "1a2b3c4d-5e6f-4a1b-8c2d-000000000001";

/// A router of Neutron.
pub(crate) const ROUTER: &str = "77aa11bb-22cc-43dd-84ee-00000000000b";

/// A host while it is being built.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) facts: Facts,
    /// Its own namespace.
    pub(crate) id: NetnsId,
}

impl Host {
    pub(crate) fn new() -> Self {
        let mut host = Self { facts: Facts::default(), id: NetnsId { inode: 0, cookie: 0 } };
        host.id = host.netns(&[]);
        host.facts.namespaces[0].host = true;
        host
    }

    /// A namespace with the names `ip netns` would show, the kernel's own policy rules and forwarding switched on.
    pub(crate) fn netns(&mut self, names: &[&str]) -> NetnsId {
        let number = self.facts.namespaces.len() as u64 + 1;
        let id = NetnsId { inode: 4_026_531_000 + number, cookie: number };
        let name = |name: &&str| NamespaceName { path: format!("/run/netns/{name}"), kind: NameKind::Mount };
        self.facts.namespaces.push(NamespaceFact {
            id,
            host: false,
            names: names.iter().map(name).collect(),
            processes: vec![],
            process_count: 0,
            proxies: vec![],
        });
        self.facts.networks.push(NetworkFact {
            netns: id,
            nsids: BTreeMap::new(),
            links: vec![LinkFact { ifindex: IfIndex(1), name: "lo".to_owned(), loopback: true, ..LinkFact::default() }],
            neighbours: vec![],
            routes: vec![],
            rules: vec![lookup(32766, MAIN)],
            fdb: vec![],
            vlans: vec![],
        });
        let values = [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into();
        self.facts.sysctls.push(SysctlFact { netns: id, values });
        id
    }

    pub(crate) fn namespace(&mut self, id: NetnsId) -> &mut NamespaceFact {
        self.facts.namespaces.iter_mut().find(|fact| fact.id == id).unwrap()
    }

    pub(crate) fn network(&mut self, id: NetnsId) -> &mut NetworkFact {
        self.facts.networks.iter_mut().find(|fact| fact.netns == id).unwrap()
    }

    pub(crate) fn process(&mut self, id: NetnsId, pid: u32, comm: &str) {
        let namespace = self.namespace(id);
        namespace.processes.push(ProcessFact { pid, comm: comm.to_owned() });
        namespace.process_count += 1;
    }

    /// A `docker-proxy` for a port of the host.
    pub(crate) fn proxy(&mut self, port: PublishedPort, to: &str) {
        self.process(self.id, 500, NamespaceFact::DOCKER_PROXY);
        let proxy = ProxyFact { pid: 500, port, to: to.parse().unwrap() };
        self.namespace(self.id).proxies.push(proxy);
    }

    /// A link of a kind that is up; `None` is a physical device.
    pub(crate) fn link(&mut self, netns: NetnsId, name: &str, kind: Option<&str>) -> LinkKey {
        let links = &mut self.network(netns).links;
        let ifindex = IfIndex(u32::try_from(links.len()).unwrap() + 1);
        links.push(LinkFact {
            ifindex,
            name: name.to_owned(),
            kind: kind.map(str::to_owned),
            mtu: 1500,
            state: OperState::Up,
            admin_up: true,
            carrier: true,
            ..LinkFact::default()
        });
        LinkKey { netns, ifindex }
    }

    pub(crate) fn edit(&mut self, key: LinkKey) -> &mut LinkFact {
        self.network(key.netns).links.iter_mut().find(|link| link.ifindex == key.ifindex).unwrap()
    }

    /// A veth pair, whose ends know each other by index and, across namespaces, by nsid.
    pub(crate) fn veth(&mut self, one: (NetnsId, &str), other: (NetnsId, &str)) -> (LinkKey, LinkKey) {
        let (a, b) = (self.link(one.0, one.1, Some("veth")), self.link(other.0, other.1, Some("veth")));
        for (near, far) in [(a, b), (b, a)] {
            let nsid = (near.netns != far.netns).then(|| i32::try_from(far.netns.cookie).unwrap() + 10);
            if let Some(nsid) = nsid {
                self.network(near.netns).nsids.insert(nsid, far.netns);
            }
            let link = self.edit(near);
            (link.link, link.link_netnsid) = (Some(far.ifindex), nsid);
        }
        (a, b)
    }

    /// A container behind a hybrid plug, on [`PORT`]: tap on `qbr`, `qvb` and `qvo` to `br-int`. Its tap.
    pub(crate) fn hybrid_plug(&mut self, name: &str, mac: &str) -> LinkKey {
        let netns = self.netns(&[]);
        let (tap, inner) = self.veth((self.id, "tap1a2b3c4d-5e"), (netns, "ns1a2b3c4d-5e"));
        let (qvb, _) = self.veth((self.id, "qvb1a2b3c4d-5e"), (self.id, "qvo1a2b3c4d-5e"));
        self.bridge(self.id, "qbr1a2b3c4d-5e", &[tap, qvb]);
        self.mac(inner, mac);
        neutron(self.ovs("br-int", "qvo1a2b3c4d-5e", ""), PORT, mac, 1);
        self.container(name, Some(netns));
        tap
    }

    /// A Linux bridge with ports.
    pub(crate) fn bridge(&mut self, netns: NetnsId, name: &str, ports: &[LinkKey]) -> LinkKey {
        let bridge = self.link(netns, name, Some("bridge"));
        self.edit(bridge).detail =
            LinkDetail::Bridge { stp: false, vlan_filtering: false, ageing: 300, nf_call_iptables: false };
        for port in ports {
            self.edit(*port).master = Some(bridge.ifindex);
        }
        bridge
    }

    /// An address, with the connected route the kernel makes of it.
    pub(crate) fn address(&mut self, key: LinkKey, address: &str) {
        let address: IpNet = address.parse().unwrap();
        if address.prefix_len() < address.max_prefix_len() {
            self.route(key, &address.trunc().to_string(), None);
        }
        let held = AddressFact { address, scope: "global".to_owned(), dad_failed: false, tentative: false };
        self.edit(key).addresses.push(held);
    }

    pub(crate) fn mac(&mut self, key: LinkKey, mac: &str) {
        self.edit(key).mac = Some(self::mac(mac));
    }

    /// `ip route add DESTINATION [via GATEWAY] dev KEY`.
    pub(crate) fn route(&mut self, key: LinkKey, destination: &str, gateway: Option<&str>) {
        let next_hop = NextHop {
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
            ifindex: Some(key.ifindex),
            dead: false,
            onlink: false,
        };
        self.network(key.netns).routes.push(RouteFact {
            table: MAIN,
            destination: destination.parse().unwrap(),
            kind: "unicast".to_owned(),
            source: None,
            metric: 0,
            scope: "global".to_owned(),
            next_hops: vec![next_hop],
        });
    }

    pub(crate) fn neighbour(&mut self, key: LinkKey, address: &str, state: &str) {
        let address: IpAddr = address.parse().unwrap();
        let entry = NeighbourFact {
            ifindex: key.ifindex,
            address,
            mac: None,
            state: state.to_owned(),
            age: None,
            proxy: false,
        };
        self.network(key.netns).neighbours.push(entry);
    }

    /// The neighbour that was added last has been in its state for so many seconds.
    pub(crate) fn for_seconds(&mut self, key: LinkKey, seconds: u64) {
        self.network(key.netns).neighbours.last_mut().unwrap().age = Some(seconds);
    }

    /// What `iptables-save` printed.
    pub(crate) fn rules(&mut self, netns: NetnsId, text: &str) {
        let text = text.to_owned();
        self.facts.rulesets.push(RulesetFact { netns, backend: RuleBackend::IptablesNft, ipv6: false, text });
    }

    /// What `nft -j list ruleset` printed of one base chain with rules.
    pub(crate) fn nft(&mut self, netns: NetnsId, family: &str, chain: &str, rules: &[&str]) {
        let place = format!(r#""family": "{family}", "table": "t""#);
        let rules = rules.iter().map(|rule| format!(r#"{{"rule": {{{place}, "chain": "c", "expr": {rule}}}}}"#));
        let chain = format!(r#"{{"chain": {{{place}, "name": "c", "type": "filter", "prio": 0, {chain}}}}}"#);
        let table = format!(r#"{{"table": {{"family": "{family}", "name": "t"}}}}"#);
        let objects: Vec<String> = [table, chain].into_iter().chain(rules).collect();
        let text = format!(r#"{{"nftables": [{}]}}"#, objects.join(", "));
        self.facts.rulesets.push(RulesetFact { netns, backend: RuleBackend::Nft, ipv6: false, text });
    }

    pub(crate) fn sysctl(&mut self, netns: NetnsId, name: &str, value: &str) {
        let fact = self.facts.sysctls.iter_mut().find(|fact| fact.netns == netns).unwrap();
        fact.values.insert(name.to_owned(), value.to_owned());
    }

    /// A port of an Open vSwitch bridge with one interface of its name; both are made where they are not there.
    pub(crate) fn ovs(&mut self, bridge: &str, name: &str, kind: &str) -> &mut OvsPortFact {
        if self.facts.switches.is_empty() {
            self.facts.switches.push(SwitchFact {
                how: "unix:/run/openvswitch/db.sock".to_owned(),
                netns: Some(self.id),
                version: None,
                external_ids: BTreeMap::new(),
                other_config: BTreeMap::new(),
                managers: vec![],
                bridges: vec![],
            });
        }
        let bridges = &mut self.facts.switches[0].bridges;
        let place = bridges.iter().position(|one| one.name == bridge).unwrap_or_else(|| {
            bridges.push(OvsBridgeFact { name: bridge.to_owned(), ..OvsBridgeFact::default() });
            bridges.len() - 1
        });
        let interface =
            OvsInterfaceFact { name: name.to_owned(), kind: kind.to_owned(), ..OvsInterfaceFact::default() };
        let port = OvsPortFact { name: name.to_owned(), interfaces: vec![interface], ..OvsPortFact::default() };
        let ports = &mut bridges[place].ports;
        ports.push(port);
        ports.last_mut().unwrap()
    }

    /// A patch pair: `near` on one bridge, `far` on the other.
    pub(crate) fn patch(&mut self, near: (&str, &str), far: (&str, &str)) {
        for ((bridge, name), (_, peer)) in [(near, far), (far, near)] {
            let options = [("peer".to_owned(), peer.to_owned())].into();
            self.ovs(bridge, name, "patch").interfaces[0].options = options;
        }
    }

    /// A container as Docker describes it.
    pub(crate) fn container(&mut self, name: &str, netns: Option<NetnsId>) -> &mut ContainerFact {
        let number = self.facts.containers.len() + 1;
        self.facts.containers.push(ContainerFact {
            source: SourceKind::Docker,
            runtime: Runtime::Docker,
            id: format!("{number:012x}{:052x}", 0),
            name: Some(name.to_owned()),
            hostname: None,
            image: None,
            state: "running".to_owned(),
            pid: Some(1000 + u32::try_from(number).unwrap()),
            netns,
            network_mode: None,
            labels: BTreeMap::new(),
            endpoints: vec![],
            published: vec![],
        });
        self.facts.containers.last_mut().unwrap()
    }

    pub(crate) fn gap(&mut self, source: SourceKind, netns: Option<NetnsId>) {
        let text = str::to_owned;
        let gap = Gap { source, netns, object: text("it"), why: text("refused"), fix: text("be root"), absent: false };
        let report = SourceReport { source, how: String::new(), took_ms: 0, gaps: vec![gap] };
        self.facts.reports.push(report);
    }

    pub(crate) fn snapshot(self) -> Snapshot {
        Snapshot {
            schema_version: Snapshot::VERSION,
            taken_at: 0,
            hostname: "compute-1".to_owned(),
            kernel: "6.12".to_owned(),
            netdiag: "0.1.0".to_owned(),
            facts: self.facts,
        }
    }

    /// The trace of the instance of a name.
    pub(crate) fn trace(self, name: &str) -> Trace {
        let snapshot = self.snapshot();
        let inventory = Inventory::build(&snapshot);
        let named = |instance: &&crate::inventory::Instance<'_>| instance.identity.name == name;
        trace::explain(&inventory, inventory.instances.iter().find(named).unwrap())
    }
}

/// A policy rule for everything.
pub(crate) fn lookup(priority: u32, table: u32) -> PolicyRuleFact {
    PolicyRuleFact {
        ipv6: false,
        priority,
        source: None,
        destination: None,
        iif: None,
        oif: None,
        fwmark: None,
        inverted: false,
        conditional: false,
        action: "lookup".to_owned(),
        table,
    }
}

pub(crate) fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

/// Gives a port the identity Neutron's agent writes.
pub(crate) fn neutron(port: &mut OvsPortFact, id: &str, mac: &str, tag: u16) {
    port.tag = Some(tag);
    port.interfaces[0].external_ids =
        [("iface-id".to_owned(), id.to_owned()), ("attached-mac".to_owned(), mac.to_owned())].into();
}

/// The codes of a trace's findings.
pub(crate) fn codes(trace: &Trace) -> Vec<&str> {
    trace.findings.iter().map(|finding| finding.code.as_str()).collect()
}

//! A host with a router, built by hand: everything is as Neutron's agents leave it, until a test changes it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use crate::{
    fact::{LinkFact, NeighbourFact, NextHop, OvsBridgeFact, OvsPortFact, PolicyRuleFact, RouteFact},
    floating::{FastPath, Plan, Switches, plan},
    id::{LinkKey, NetnsId},
    inventory::Inventory,
    policy::types::{Attached, GroupId, Hook, Mode, Policy, PortId, SecurityGroup},
    testing::{Host, MAIN, ROUTER, lookup, mac, neutron},
};

pub(super) const FLOATING: Ipv4Addr = Ipv4Addr::new(172, 24, 4, 6);
pub(super) const FIXED: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
pub(super) const OUTER_MAC: &str = "fa:16:3e:00:00:90";
pub(super) const INNER_MAC: &str = "fa:16:3e:00:00:91";
pub(super) const WEB_MAC: &str = "fa:16:3e:00:00:02";
pub(super) const GATEWAY_MAC: &str = "52:54:00:00:00:01";
pub(super) const OTHER_ROUTER: &str = "88bb22cc-33dd-44ee-95ff-00000000000c";
const DB_MAC: &str = "fa:16:3e:00:00:03";

/// A host, the ports that are enforced there, and what is wanted of it.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) host: Host,
    pub(super) router: NetnsId,
    pub(super) enforced: Vec<Attached>,
    pub(super) policy: Policy,
    pub(super) switches: Switches,
}

/// Rules of a router as Neutron's agent writes them, for one floating IP.
pub(super) fn rules(outer: &str, inner: &str, floating: &str) -> String {
    let text = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:neutron-filter-top - [0:0]\n\
        :P-FORWARD - [0:0]\n:P-INPUT - [0:0]\n:P-local - [0:0]\n:P-scope - [0:0]\n-A INPUT -j P-INPUT\n\
        -A FORWARD -j neutron-filter-top\n-A FORWARD -j P-FORWARD\n-A neutron-filter-top -j P-local\n-A P-FORWARD -j P-scope\n\
        -A P-INPUT -m mark --mark 0x1/0xffff -j ACCEPT\n-A P-INPUT -p tcp -m tcp --dport 9697 -j DROP\n\
        -A P-scope -o INNER -m mark ! --mark 0x4000000/0xffff0000 -j DROP\nCOMMIT\n\
        *nat\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:P-OUTPUT - [0:0]\n\
        :P-POSTROUTING - [0:0]\n:P-PREROUTING - [0:0]\n:P-float-snat - [0:0]\n:P-snat - [0:0]\n:neutron-postrouting-bottom - [0:0]\n\
        -A PREROUTING -j P-PREROUTING\n-A OUTPUT -j P-OUTPUT\n-A POSTROUTING -j P-POSTROUTING\n\
        -A POSTROUTING -j neutron-postrouting-bottom\n-A P-OUTPUT -d FLOATING/32 -j DNAT --to-destination 10.0.0.2\n\
        -A P-POSTROUTING ! -o OUTER -m conntrack ! --ctstate DNAT -j ACCEPT\n\
        -A P-PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9697\n\
        -A P-PREROUTING -d FLOATING/32 -j DNAT --to-destination 10.0.0.2\n\
        -A P-float-snat -s 10.0.0.2/32 -j SNAT --to-source FLOATING --random-fully\n-A P-snat -j P-float-snat\n\
        -A P-snat -o OUTER -j SNAT --to-source 172.24.4.2 --random-fully\n\
        -A P-snat -m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source 172.24.4.2 --random-fully\n\
        -A neutron-postrouting-bottom -m comment --comment \"Perform source NAT on outgoing traffic.\" -j P-snat\nCOMMIT\n\
        *mangle\n:PREROUTING ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n:P-FORWARD - [0:0]\n\
        :P-POSTROUTING - [0:0]\n:P-PREROUTING - [0:0]\n:P-float-snat - [0:0]\n:P-floatingip - [0:0]\n:P-mark - [0:0]\n\
        :P-scope - [0:0]\n-A PREROUTING -j P-PREROUTING\n-A FORWARD -j P-FORWARD\n-A POSTROUTING -j P-POSTROUTING\n\
        -A P-POSTROUTING -o OUTER -m connmark --mark 0x0/0xffff0000 -j CONNMARK --save-mark --nfmask 0xffff0000 --ctmask 0xffff0000\n\
        -A P-PREROUTING -j P-mark\n-A P-PREROUTING -j P-scope\n\
        -A P-PREROUTING -m connmark ! --mark 0x0/0xffff0000 -j CONNMARK --restore-mark --nfmask 0xffff0000 --ctmask 0xffff0000\n\
        -A P-PREROUTING -j P-floatingip\n\
        -A P-PREROUTING -d 169.254.169.254/32 -i qr-+ -p tcp -m tcp --dport 80 -j MARK --set-xmark 0x1/0xffff\n\
        -A P-float-snat -m connmark --mark 0x0/0xffff0000 -j CONNMARK --save-mark --nfmask 0xffff0000 --ctmask 0xffff0000\n\
        -A P-mark -i OUTER -j MARK --set-xmark 0x2/0xffff\n\
        -A P-scope -i OUTER -j MARK --set-xmark 0x4000000/0xffff0000\n\
        -A P-scope -i INNER -j MARK --set-xmark 0x4000000/0xffff0000\nCOMMIT\n";
    let text = text.replace("P-", "neutron-l3-agent-");
    text.replace("OUTER", outer).replace("INNER", inner).replace("FLOATING", floating)
}

impl Site {
    /// A central router between a flat external network and one of tunnels, on Open vSwitch.
    pub(super) fn central() -> Self {
        let mut site = Self::empty();
        let external = site.host.link(site.host.id, "br-ex", Some("openvswitch"));
        site.host.mac(external, "02:00:00:00:00:ee");
        site.host.ovs("br-ex", "br-ex", "internal");
        site.host.ovs("br-ex", "eth1", "");
        site.host.patch(("br-int", "int-br-ex"), ("br-ex", "phy-br-ex"));
        let (outer, inner) = (site.port("qg-1", "2", OUTER_MAC), site.port("qr-1", "1", INNER_MAC));
        site.external_network("flat", None);
        site.addressed(outer, inner);
        site.host.rules(site.router, &rules("qg-1", "qr-1", "172.24.4.6"));
        let tap = site.instance("web", WEB_MAC);
        neutron(site.host.ovs("br-int", "tap-web", ""), "aaaa0000-0000-4000-8000-000000000001", WEB_MAC, 1);
        site.enforce("web", tap, WEB_MAC);
        site
    }

    /// The same on Linux bridges, without Open vSwitch.
    pub(super) fn bridged() -> Self {
        let mut site = Self::empty();
        let (outer_end, outer) = site.host.veth((site.host.id, "tap-qg"), (site.router, "qg-1"));
        let (inner_end, inner) = site.host.veth((site.host.id, "tap-qr"), (site.router, "qr-1"));
        site.host.mac(outer, OUTER_MAC);
        site.host.mac(inner, INNER_MAC);
        site.addressed(outer, inner);
        site.host.rules(site.router, &rules("qg-1", "qr-1", "172.24.4.6"));
        let tap = site.instance("web", WEB_MAC);
        let nic = site.key("eth1");
        let bridge = site.host.bridge(site.host.id, "brq-ext", &[outer_end, nic]);
        site.host.mac(bridge, "02:00:00:00:00:ee");
        site.host.bridge(site.host.id, "brq-int", &[inner_end, tap]);
        site.enforce("web", tap, WEB_MAC);
        site
    }

    /// A host with a NIC, a router without devices, and a policy with one group.
    fn empty() -> Self {
        let mut host = Host::new();
        let nic = host.link(host.id, "eth1", None);
        host.mac(nic, "02:00:00:00:00:e1");
        let router = host.netns(&[&format!("qrouter-{ROUTER}")]);
        let id = GroupId("default".to_owned());
        let group = SecurityGroup { id: id.clone(), name: String::new(), stateful: true, rules: vec![] };
        let policy = Policy { groups: BTreeMap::from([(id, group)]), ..Policy::default() };
        Self { host, router, enforced: vec![], policy, switches: Switches::default() }
    }

    /// A port of the router on the integration bridge.
    fn port(&mut self, name: &str, tag: &str, mac: &str) -> LinkKey {
        let key = self.host.link(self.router, name, Some("tun"));
        self.host.mac(key, mac);
        let id = format!("bbbb0000-0000-4000-8000-00000000000{tag}");
        neutron(self.host.ovs("br-int", name, "internal"), &id, mac, tag.parse().unwrap());
        key
    }

    fn addressed(&mut self, outer: LinkKey, inner: LinkKey) {
        self.host.address(outer, "172.24.4.2/24");
        self.host.address(outer, "172.24.4.6/32");
        self.host.address(inner, "10.0.0.1/24");
        self.host.edit(inner).mtu = 1450;
        self.host.route(outer, "0.0.0.0/0", Some("172.24.4.1"));
        self.neighbour(outer, "172.24.4.1", Some(GATEWAY_MAC), "REACHABLE");
    }

    pub(super) fn neighbour(&mut self, key: LinkKey, address: &str, known: Option<&str>, state: &str) {
        self.host.network(key.netns).neighbours.push(NeighbourFact {
            ifindex: key.ifindex,
            address: address.parse().unwrap(),
            mac: known.map(mac),
            state: state.to_owned(),
            age: None,
            proxy: false,
        });
    }

    /// A container of a name, and the host's device of it.
    pub(super) fn instance(&mut self, name: &str, mac: &str) -> LinkKey {
        let netns = self.host.netns(&[]);
        let (tap, inner) = self.host.veth((self.host.id, &format!("tap-{name}")), (netns, "eth0"));
        self.host.mac(inner, mac);
        self.host.address(inner, "10.0.0.2/24");
        self.host.container(name, Some(netns));
        tap
    }

    pub(super) fn enforce(&mut self, id: &str, tap: LinkKey, own: &str) {
        self.enforced.push(Attached {
            id: PortId(id.to_owned()),
            ifindex: tap.ifindex.0,
            mac: mac(own),
            fixed_ips: [FIXED.into()].into(),
            pairs: [].into(),
            groups: vec![GroupId("default".to_owned())],
            mode: Mode::Filtered,
            hook: Hook::Tc,
            log_allowed: false,
        });
    }

    /// Another tenant's router, network and instance, with the same addresses.
    pub(super) fn second_tenant(&mut self) {
        let first = std::mem::replace(&mut self.router, self.host.netns(&[&format!("qrouter-{OTHER_ROUTER}")]));
        let (outer, inner) = (self.port("qg-2", "2", "fa:16:3e:00:00:80"), self.port("qr-2", "3", "fa:16:3e:00:00:81"));
        self.network("qg-2", "flat", None);
        self.addressed(outer, inner);
        self.host.edit(outer).addresses[1].address = "172.24.4.8/32".parse().unwrap();
        self.host.rules(self.router, &rules("qg-2", "qr-2", "172.24.4.8"));
        let tap = self.instance("db", DB_MAC);
        neutron(self.host.ovs("br-int", "tap-db", ""), "aaaa0000-0000-4000-8000-000000000003", DB_MAC, 3);
        self.enforce("db", tap, DB_MAC);
        self.router = first;
    }

    /// Another floating IP of the same fixed address.
    pub(super) fn second_floating(&mut self, floating: &str) {
        let qg = self.key_in(self.router, "qg-1");
        self.host.address(qg, &format!("{floating}/32"));
        let chain = "-A neutron-l3-agent";
        self.nat(
            "",
            &format!(
                "{chain}-PREROUTING -d {floating}/32 -j DNAT --to-destination 10.0.0.2\n\
                 {chain}-OUTPUT -d {floating}/32 -j DNAT --to-destination 10.0.0.2\n\
                 {chain}-float-snat -s 10.0.0.2/32 -j SNAT --to-source {floating}\n"
            ),
        );
    }

    /// Makes the router the other of a highly available pair.
    pub(super) fn standby(&mut self) {
        self.host.link(self.router, "ha-1", Some("tun"));
        let qg = self.key_in(self.router, "qg-1");
        self.host.edit(qg).addresses.clear();
    }

    /// The type of the external network.
    pub(super) fn external_network(&mut self, kind: &str, segment: Option<&str>) {
        self.network("qg-1", kind, segment);
    }

    fn network(&mut self, port: &str, kind: &str, segment: Option<&str>) {
        let port = self.ovs_port(port);
        port.other_config = [("network_type".to_owned(), kind.to_owned())].into();
        port.other_config.extend(segment.map(|segment| ("segmentation_id".to_owned(), segment.to_owned())));
        port.other_config.insert("net_uuid".to_owned(), "cccc0000-0000-4000-8000-000000000001".to_owned());
    }

    pub(super) fn ovs_port(&mut self, name: &str) -> &mut OvsPortFact {
        let bridges = self.host.facts.switches[0].bridges.iter_mut();
        bridges.flat_map(|bridge| &mut bridge.ports).find(|port| port.name == name).unwrap()
    }

    pub(super) fn bridge(&mut self, name: &str) -> &mut OvsBridgeFact {
        self.host.facts.switches[0].bridges.iter_mut().find(|bridge| bridge.name == name).unwrap()
    }

    /// Rules of the router's nat table, more chains first.
    pub(super) fn nat(&mut self, chains: &str, rules: &str) {
        self.replace_rules(ROUTER, |text| {
            let (before, after) = text.split_once("*nat\n").unwrap();
            let (nat, rest) = after.split_once("COMMIT\n").unwrap();
            let (declared, old) = nat.split_at(nat.find("-A ").unwrap());
            format!("{before}*nat\n{declared}{chains}{old}{rules}COMMIT\n{rest}")
        });
    }

    /// Rules of the router of an id, changed as text.
    pub(super) fn replace_rules(&mut self, router: &str, change: impl Fn(&str) -> String) {
        let netns = self.named(&format!("qrouter-{router}"));
        let fact = self.host.facts.rulesets.iter_mut().find(|fact| fact.netns == netns).unwrap();
        fact.text = change(&fact.text);
    }

    pub(super) fn named(&self, name: &str) -> NetnsId {
        let mut namespaces = self.host.facts.namespaces.iter();
        namespaces.find(|fact| fact.names.iter().any(|one| one.path.ends_with(name))).unwrap().id
    }

    pub(super) fn key_in(&self, netns: NetnsId, name: &str) -> LinkKey {
        let network = self.host.facts.networks.iter().find(|network| network.netns == netns).unwrap();
        let link = network.links.iter().find(|link| link.name == name).unwrap();
        LinkKey { netns, ifindex: link.ifindex }
    }

    /// A device of the host.
    pub(super) fn key(&self, name: &str) -> LinkKey {
        self.key_in(self.host.id, name)
    }

    pub(super) fn link(&mut self, name: &str) -> &mut LinkFact {
        let key = self.key(name);
        self.host.edit(key)
    }

    pub(super) fn link_in(&mut self, router: &str, name: &str) -> &mut LinkFact {
        let key = self.key_in(self.named(&format!("qrouter-{router}")), name);
        self.host.edit(key)
    }

    /// `ip route add DESTINATION [via GATEWAY] dev KEY table TABLE`.
    pub(super) fn route(&mut self, key: LinkKey, table: u32, (destination, gateway): (&str, Option<&str>)) {
        self.host.route(key, destination, gateway);
        let route: &mut RouteFact = self.host.network(key.netns).routes.last_mut().unwrap();
        assert_eq!(route.table, MAIN);
        route.table = table;
    }

    /// `ip rule add …`.
    pub(super) fn rule(&mut self, netns: NetnsId, rule: PolicyRuleFact) {
        self.host.network(netns).rules.push(rule);
    }

    pub(super) fn plan(self) -> Plan {
        let Self { host, enforced, policy, switches, .. } = self;
        let snapshot = host.snapshot();
        plan(&Inventory::build(&snapshot), &policy, &enforced, &switches)
    }

    /// The way of the first floating IP, in a word and why.
    pub(super) fn way(self) -> String {
        super::words(&self.plan().floating_ips[0].way)
    }

    /// The way of the first floating IP, which is the fast one.
    pub(super) fn fast(self) -> FastPath {
        let plan = self.plan();
        plan.floating_ips[0].fast().unwrap_or_else(|| panic!("{plan:?}")).clone()
    }
}

/// A rule for a table that asks for nothing.
pub(super) fn rule(priority: u32, table: u32) -> PolicyRuleFact {
    lookup(priority, table)
}

/// A next hop by a gateway.
pub(super) fn by(key: LinkKey, gateway: Option<&str>) -> NextHop {
    let gateway = gateway.map(|gateway| gateway.parse().unwrap());
    NextHop { gateway, ifindex: Some(key.ifindex), dead: false, onlink: false }
}

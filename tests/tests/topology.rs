//! Discovery on a real kernel: what is built with `ip` in throw-away namespaces is mapped back exactly.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use netdiag_agent::{
    discover::{Options, look},
    netns::Namespace,
};
use netdiag_model::{
    fact::{Facts, FdbFact, Gap, LinkDetail, LinkFact, NameKind, NamespaceFact, NetworkFact, RouteFact, SourceKind},
    id::{IfIndex, NetnsId},
};
use netdiag_tests::private_host;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

// === harness ===

/// A namespace of `ip netns`, removed at the end of the test.
struct Netns(String);

impl Netns {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("netdiag-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        run("ip", &["netns", "add", &name]);
        Self(name)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }

    /// Runs commands of `ip` inside, one a line.
    fn ip(&self, commands: &str) {
        ip_batch(&["-n", &self.0], commands);
    }

    /// What discovery says of this namespace.
    fn fact<'facts>(&self, facts: &'facts Facts) -> &'facts NamespaceFact {
        let path = self.path();
        let named = |fact: &&NamespaceFact| fact.names.iter().any(|name| Path::new(&name.path) == path);
        facts.namespaces.iter().find(named).unwrap_or_else(|| panic!("{} is not found", self.0))
    }

    fn network<'facts>(&self, facts: &'facts Facts) -> &'facts NetworkFact {
        let id = self.fact(facts).id;
        facts.networks.iter().find(|network| network.netns == id).unwrap_or_else(|| panic!("{} is not read", self.0))
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A test may have removed it itself.
        Command::new("ip").args(["netns", "delete", &self.0]).stderr(Stdio::null()).status().ok();
    }
}

/// A process that ends with the test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip_batch(options: &[&str], commands: &str) {
    let mut ip = Command::new("ip");
    ip.args(options).args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut ip = ip.spawn().unwrap();
    ip.stdin.take().unwrap().write_all(format!("{commands}\n").as_bytes()).unwrap();
    let output = ip.wait_with_output().unwrap();
    assert!(output.status.success(), "ip {options:?}:\n{commands}{}", String::from_utf8_lossy(&output.stderr));
}

/// Looks at the host; with no names but those in some directories.
fn discover(options: Options) -> Facts {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(look(options)).facts
}

fn link<'facts>(network: &'facts NetworkFact, name: &str) -> &'facts LinkFact {
    network.links.iter().find(|link| link.name == name).unwrap_or_else(|| panic!("no {name}"))
}

// === the property ===

/// One end of a veth pair.
#[derive(Clone, Debug)]
struct End {
    netns: usize,
    mtu: u32,
    up: bool,
    addressed: bool,
    /// Bridge of its namespace it is a port of, if there are that many.
    bridge: Option<usize>,
    routed: bool,
}

#[derive(Clone, Debug)]
struct Bridge {
    netns: usize,
    mtu: u32,
    up: bool,
    vlan_filtering: bool,
}

#[derive(Clone, Debug)]
struct Topology {
    namespaces: usize,
    pairs: Vec<(End, End)>,
    bridges: Vec<Bridge>,
}

/// True where the kernel's bridges know VLANs (`CONFIG_BRIDGE_VLAN_FILTERING`).
#[expect(clippy::print_stderr, reason = "a narrower property must be seen")]
fn bridges_filter_vlans() -> bool {
    let netns = Netns::new();
    let args = ["-n", &netns.0, "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"];
    let filter = Command::new("ip").args(args).stderr(Stdio::null()).status().unwrap().success();
    if !filter {
        eprintln!("NARROWED: bridges of this kernel filter no VLANs");
    }
    filter
}

fn topology(vlan_filtering: bool) -> impl Strategy<Value = Topology> {
    (2..=5_usize).prop_flat_map(move |namespaces| {
        let end =
            (0..namespaces, 1280..=9000_u32, any::<bool>(), any::<bool>(), prop::option::of(0..2_usize), any::<bool>())
                .prop_map(|(netns, mtu, up, addressed, bridge, routed)| End {
                    netns,
                    mtu,
                    up,
                    addressed,
                    bridge,
                    routed,
                });
        let bridge =
            (0..namespaces, 1280..=9000_u32, any::<bool>(), any::<bool>()).prop_map(move |(netns, mtu, up, filter)| {
                Bridge { netns, mtu, up, vlan_filtering: filter && vlan_filtering }
            });
        let pairs = prop::collection::vec((end.clone(), end), 1..=6);
        (Just(namespaces), pairs, prop::collection::vec(bridge, 0..=4))
            .prop_map(|(namespaces, pairs, bridges)| Topology { namespaces, pairs, bridges })
    })
}

/// A topology with every name resolved: what is planned and what is seen are compared in this form.
#[derive(Debug, Default, PartialEq, Eq)]
struct Map {
    /// By namespace and name.
    links: BTreeMap<(usize, String), MappedLink>,
    /// Namespace, destination, gateway and device.
    routes: BTreeSet<(usize, String, Option<IpAddr>, String)>,
}

#[derive(Debug, PartialEq, Eq)]
struct MappedLink {
    kind: String,
    mtu: u32,
    admin_up: bool,
    /// Carrier and operational state.
    state: (bool, String),
    master: Option<String>,
    peer: Option<(usize, String)>,
    addresses: Vec<String>,
    vlan_filtering: Option<bool>,
    is_port: bool,
}

/// One end with its name, its peer and its bridge worked out.
struct PlannedEnd<'plan> {
    end: &'plan End,
    name: String,
    peer: (usize, String),
    master: Option<String>,
    /// Third octet of the addresses of the pair's two ends and of their gateway.
    subnet: u8,
    side: u8,
}

impl PlannedEnd<'_> {
    fn address(&self) -> Option<Ipv4Addr> {
        (self.end.addressed && self.master.is_none()).then(|| Ipv4Addr::new(10, 99, self.subnet, self.side))
    }

    /// A route needs an address to reach its gateway, and a link that is up.
    fn route(&self) -> Option<(String, Ipv4Addr)> {
        let wanted = self.end.routed && self.end.up;
        self.address().filter(|_| wanted).map(|_| {
            (
                format!("172.{}.{}.0/24", 16 + self.side, self.subnet),
                Ipv4Addr::new(10, 99, self.subnet, 200 + self.side),
            )
        })
    }
}

impl Topology {
    /// Names ends `eth0`, `eth1` … in each namespace, so that names repeat between namespaces.
    fn ends(&self) -> Vec<PlannedEnd<'_>> {
        let mut counts = vec![0; self.namespaces];
        let mut name = |end: &End| {
            counts[end.netns] += 1;
            format!("eth{}", counts[end.netns] - 1)
        };
        let mut ends = Vec::new();
        for (subnet, (one, other)) in (0..).zip(&self.pairs) {
            let names = [name(one), name(other)];
            for (side, end, peer) in [(0, one, other), (1, other, one)] {
                ends.push(PlannedEnd {
                    end,
                    name: names[side].clone(),
                    peer: (peer.netns, names[1 - side].clone()),
                    master: end.bridge.and_then(|place| self.bridges_of(end.netns).nth(place)).map(|(name, _)| name),
                    subnet,
                    side: u8::try_from(side).unwrap() + 1,
                });
            }
        }
        ends
    }

    fn bridges_of(&self, netns: usize) -> impl Iterator<Item = (String, &Bridge)> {
        let bridges = self.bridges.iter().filter(move |bridge| bridge.netns == netns);
        bridges.enumerate().map(|(place, bridge)| (format!("br{place}"), bridge))
    }

    fn build(&self, namespaces: &[Netns]) {
        let mut pairs = Vec::new();
        let ends = self.ends();
        for pair in ends.chunks(2) {
            let [one, other] = pair else { panic!("ends come in pairs") };
            let [one_ns, other_ns] = [one, other].map(|end| &namespaces[end.end.netns].0);
            let peer = format!("peer name {} netns {other_ns}", other.name);
            pairs.push(format!("link add {} netns {one_ns} type veth {peer}", one.name));
        }
        ip_batch(&[], &pairs.join("\n"));
        for (place, netns) in namespaces.iter().enumerate() {
            netns.ip(&self.commands(place, &ends));
        }
    }

    /// What makes one namespace, of which the veth ends are there already, as planned.
    fn commands(&self, netns: usize, ends: &[PlannedEnd<'_>]) -> String {
        let mut commands = Vec::new();
        for (name, bridge) in self.bridges_of(netns) {
            let filter = if bridge.vlan_filtering { "vlan_filtering 1" } else { "" };
            commands.push(format!("link add {name} type bridge {filter}"));
        }
        for end in ends.iter().filter(|end| end.end.netns == netns) {
            let (name, state) = (&end.name, if end.end.up { "up" } else { "down" });
            let master = end.master.as_ref().map(|master| format!("master {master}")).unwrap_or_default();
            commands.push(format!("link set {name} mtu {} {state} {master}", end.end.mtu));
            if let Some(address) = end.address() {
                commands.push(format!("address add {address}/24 dev {name}"));
            }
            if let Some((destination, gateway)) = end.route() {
                commands.push(format!("route add {destination} via {gateway} dev {name}"));
            }
        }
        for (name, bridge) in self.bridges_of(netns) {
            commands.push(format!("link set {name} mtu {} {}", bridge.mtu, if bridge.up { "up" } else { "down" }));
        }
        commands.join("\n")
    }

    /// The map of what was planned. The states of links are the kernel's own affair, so they come from `ip`.
    fn map(&self, states: &States) -> Map {
        let mut map = Map::default();
        for end in self.ends() {
            let netns = end.end.netns;
            let link = MappedLink {
                kind: "veth".to_owned(),
                mtu: end.end.mtu,
                admin_up: end.end.up,
                state: states[&(netns, end.name.clone())].clone(),
                master: end.master.clone(),
                peer: Some(end.peer.clone()),
                addresses: end.address().map(|address| format!("{address}/24")).into_iter().collect(),
                vlan_filtering: None,
                is_port: end.master.is_some(),
            };
            if let Some((destination, gateway)) = end.route() {
                map.routes.insert((netns, destination, Some(gateway.into()), end.name.clone()));
            }
            // The kernel routes to the subnet of an address as soon as its link is up.
            if end.address().is_some() && end.end.up {
                map.routes.insert((netns, format!("10.99.{}.0/24", end.subnet), None, end.name.clone()));
            }
            map.links.insert((netns, end.name), link);
        }
        for netns in 0..self.namespaces {
            for (name, bridge) in self.bridges_of(netns) {
                let state = states[&(netns, name.clone())].clone();
                map.links.insert((netns, name), mapped_bridge(bridge, state));
            }
        }
        map
    }
}

fn mapped_bridge(bridge: &Bridge, state: (bool, String)) -> MappedLink {
    MappedLink {
        kind: "bridge".to_owned(),
        mtu: bridge.mtu,
        admin_up: bridge.up,
        state,
        master: None,
        peer: None,
        addresses: Vec::new(),
        vlan_filtering: Some(bridge.vlan_filtering),
        is_port: false,
    }
}

/// Carrier and operational state by namespace and name, as `ip` shows them.
type States = BTreeMap<(usize, String), (bool, String)>;

fn states(namespaces: &[Netns]) -> States {
    let mut states = States::new();
    for (place, netns) in namespaces.iter().enumerate() {
        let output = Command::new("ip").args(["-n", &netns.0, "-json", "link", "show"]).output().unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        for link in links.as_array().unwrap() {
            let text = |key: &str| link[key].as_str().unwrap().to_owned();
            let carrier = link["flags"].as_array().unwrap().iter().any(|flag| flag == "LOWER_UP");
            states.insert((place, text("ifname")), (carrier, text("operstate")));
        }
    }
    states
}

/// Facts and the states of links at the same time: the kernel works states out a little after the change.
fn discover_at_rest(namespaces: &[Netns]) -> (Facts, States) {
    for _ in 0..50 {
        let before = states(namespaces);
        let facts = discover(Options::default());
        if states(namespaces) == before {
            return (facts, before);
        }
    }
    panic!("the states of links never come to rest");
}

/// The map discovery saw of some namespaces.
fn seen(facts: &Facts, namespaces: &[Netns]) -> Map {
    let places: BTreeMap<NetnsId, usize> =
        namespaces.iter().enumerate().map(|(place, netns)| (netns.fact(facts).id, place)).collect();
    let networks: BTreeMap<usize, &NetworkFact> =
        namespaces.iter().enumerate().map(|(place, netns)| (place, netns.network(facts))).collect();
    let name = |place: usize, ifindex: IfIndex| {
        networks[&place].links.iter().find(|link| link.ifindex == ifindex).unwrap().name.clone()
    };
    let mut map = Map::default();
    for (&place, network) in &networks {
        let is_ours = |link: &&LinkFact| matches!(link.kind.as_deref(), Some("veth" | "bridge"));
        for link in network.links.iter().filter(is_ours) {
            let peer = link.link.map(|peer| {
                let there = link.link_netnsid.map_or(place, |number| places[&network.nsids[&number]]);
                (there, name(there, peer))
            });
            map.links
                .insert((place, link.name.clone()), mapped(link, peer, link.master.map(|master| name(place, master))));
        }
        for route in network.routes.iter().filter(|route| route.destination.addr().is_ipv4()) {
            for hop in &route.next_hops {
                let destination = route.destination.to_string();
                map.routes.insert((place, destination, hop.gateway, name(place, hop.ifindex.unwrap())));
            }
        }
    }
    map
}

fn mapped(link: &LinkFact, peer: Option<(usize, String)>, master: Option<String>) -> MappedLink {
    let v4 = link.addresses.iter().filter(|address| address.address.addr().is_ipv4());
    MappedLink {
        kind: link.kind.clone().unwrap(),
        mtu: link.mtu,
        admin_up: link.admin_up,
        state: (link.carrier, link.state.name().to_owned()),
        master,
        peer,
        addresses: v4.map(|address| address.address.to_string()).collect(),
        vlan_filtering: if let LinkDetail::Bridge { vlan_filtering, .. } = link.detail {
            Some(vlan_filtering)
        } else {
            None
        },
        is_port: link.bridge_port.is_some(),
    }
}

#[test]
fn a_random_topology_is_mapped_back_exactly() {
    if !private_host::enter("a_random_topology_is_mapped_back_exactly") {
        return;
    }
    let mut runner =
        TestRunner::new(Config { cases: 32, max_shrink_iters: 40, failure_persistence: None, ..Config::default() });
    let result = runner.run(&topology(bridges_filter_vlans()), |topology| {
        let namespaces: Vec<_> = (0..topology.namespaces).map(|_| Netns::new()).collect();
        topology.build(&namespaces);
        let (facts, states) = discover_at_rest(&namespaces);
        prop_assert_eq!(seen(&facts, &namespaces), topology.map(&states));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{failure}");
    }
}

// === traps ===

#[test]
fn a_name_whose_mount_is_gone_is_stale_and_the_rest_is_read() {
    if !private_host::enter("a_name_whose_mount_is_gone_is_stale_and_the_rest_is_read") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let name = dir.path().join("qrouter-gone");
    fs::write(&name, "").unwrap();
    let path = name.to_str().unwrap();
    let netns = Netns::new();
    run("mount", &["--bind", netns.path().to_str().unwrap(), path]);
    let options = Options { netns_dirs: vec![dir.path().to_owned()], ..Options::default() };
    let before = discover(options.clone());
    run("umount", &[path]);
    let after = discover(options);

    let named = before.namespaces.iter().find(|fact| !fact.names.is_empty()).unwrap();
    assert_eq!((named.names[0].path.as_str(), named.names[0].kind), (path, NameKind::Mount));
    assert!(before.stale_names.is_empty());
    assert_eq!(after.stale_names.len(), 1);
    assert_eq!(after.stale_names[0].path, path);
    assert!(after.networks.iter().any(|network| !network.links.is_empty()));
}

#[test]
fn a_namespace_only_a_process_leads_to_is_found_and_read() {
    if !private_host::enter("a_namespace_only_a_process_leads_to_is_found_and_read") {
        return;
    }
    let process = Process(Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap());
    let pid = process.0.id();
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    while fs::read_link(format!("/proc/{pid}/ns/net")).unwrap() == own {
        thread::sleep(Duration::from_millis(5));
    }
    let facts = discover(Options { netns_dirs: Vec::new(), ..Options::default() });
    let has_it = |fact: &&NamespaceFact| fact.processes.iter().any(|process| process.pid == pid);
    let found = facts.namespaces.iter().find(has_it).unwrap();
    assert_eq!((found.names.len(), found.process_count, found.host), (0, 1, false));
    assert!(facts.networks.iter().any(|network| network.netns == found.id && link(network, "lo").loopback));
}

#[test]
fn links_of_one_name_in_several_namespaces_are_told_apart() {
    if !private_host::enter("links_of_one_name_in_several_namespaces_are_told_apart") {
        return;
    }
    let namespaces = [Netns::new(), Netns::new(), Netns::new()];
    for (netns, mtu) in namespaces.iter().zip([1400, 1500, 1600]) {
        netns.ip(&format!("link add eth0 mtu {mtu} type veth peer name eth1\n"));
    }
    let facts = discover(Options::default());
    let mtus: Vec<_> = namespaces.iter().map(|netns| link(netns.network(&facts), "eth0").mtu).collect();
    assert_eq!(mtus, [1400, 1500, 1600]);
}

#[test]
fn two_names_and_a_process_are_one_namespace() {
    if !private_host::enter("two_names_and_a_process_are_one_namespace") {
        return;
    }
    let netns = Netns::new();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(netns.path(), dir.path().join("nova-1")).unwrap();
    let process = Process(
        Command::new("nsenter").arg(format!("--net={}", netns.path().display())).args(["sleep", "60"]).spawn().unwrap(),
    );
    let comm = format!("/proc/{}/comm", process.0.id());
    while fs::read_to_string(&comm).unwrap() != "sleep\n" {
        thread::sleep(Duration::from_millis(5));
    }
    let facts =
        discover(Options { netns_dirs: vec!["/run/netns".into(), dir.path().to_owned()], ..Options::default() });
    let fact = netns.fact(&facts);
    let kinds: Vec<_> = fact.names.iter().map(|name| name.kind).collect();
    assert_eq!(kinds, [NameKind::Mount, NameKind::Symlink]);
    assert_eq!(fact.processes[0].comm, "sleep");
}

#[tokio::test]
async fn a_namespace_that_is_removed_while_it_is_held_open_is_still_read() {
    if !private_host::enter("a_namespace_that_is_removed_while_it_is_held_open_is_still_read") {
        return;
    }
    let netns = Netns::new();
    let namespace = Namespace::open(&netns.path()).unwrap();
    run("ip", &["netns", "delete", &netns.0]);
    let links = namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev")).await.unwrap().unwrap();
    assert!(links.contains("lo:"), "{links}");
}

#[test]
fn namespaces_that_come_and_go_while_they_are_read_leave_no_gap() {
    if !private_host::enter("namespaces_that_come_and_go_while_they_are_read_leave_no_gap") {
        return;
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let netns = Netns::new();
                netns.ip("link add eth0 type veth peer name eth1\nlink set eth0 up\nlink set eth1 up\n");
            }
        });
        let gaps: Vec<_> = (0..30).flat_map(|_| gaps_of_ours(&discover(Options::default()))).collect();
        done.store(true, Ordering::Relaxed);
        assert!(gaps.is_empty(), "{gaps:#?}");
    });
}

/// Gaps of the sources that read namespaces.
fn gaps_of_ours(facts: &Facts) -> Vec<Gap> {
    let ours = [SourceKind::Netns, SourceKind::Netlink, SourceKind::Sysctl, SourceKind::Bpf];
    facts.gaps().filter(|gap| ours.contains(&gap.source)).cloned().collect()
}

#[test]
fn without_privilege_the_own_namespace_is_read_and_the_rest_is_few_gaps() {
    const INSIDE: &str = "NETDIAG_TEST_WITHOUT_PRIVILEGE";
    if std::env::var_os(INSIDE).is_none() {
        if private_host::enter("without_privilege_the_own_namespace_is_read_and_the_rest_is_few_gaps") {
            let netns = Netns::new();
            let output = Command::new("setpriv")
                .args(["--inh-caps=-all", "--bounding-set=-all"])
                .arg(std::env::current_exe().unwrap())
                .args(["--exact", "without_privilege_the_own_namespace_is_read_and_the_rest_is_few_gaps"])
                .env(INSIDE, netns.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        return;
    }
    let facts = discover(Options::default());
    let named = PathBuf::from(std::env::var_os(INSIDE).unwrap());
    let own = facts.namespaces.iter().find(|fact| fact.host).unwrap();
    let network = facts.networks.iter().find(|network| network.netns == own.id).unwrap();
    assert!(link(network, "lo").loopback);
    assert!(facts.sysctls.iter().any(|sysctl| sysctl.values.contains_key("net.ipv4.ip_forward")));
    let is_named = |fact: &&NamespaceFact| fact.names.iter().any(|name| Path::new(&name.path) == named);
    // Seen by its name, though it cannot be entered.
    assert_eq!(facts.namespaces.iter().find(is_named).unwrap().id.cookie, 0);
    let gaps: Vec<_> = facts.gaps().filter(|gap| gap.source == SourceKind::Netns).collect();
    assert!(gaps.iter().any(|gap| gap.why.contains("Operation not permitted")), "{gaps:#?}");
    assert!(gaps.len() <= 4, "{gaps:#?}");
}

#[test]
fn routes_rules_neighbours_and_forwarding_entries_are_read_as_they_were_made() {
    if !private_host::enter("routes_rules_neighbours_and_forwarding_entries_are_read_as_they_were_made") {
        return;
    }
    let began = Instant::now();
    let netns = Netns::new();
    netns.ip("link set lo up
         link add eth0 type veth peer name eth1
         link set eth0 up
         link set eth1 up
         address add 10.0.0.2/24 dev eth0
         address add 2001:db8::2/64 dev eth0 nodad
         route add default via 10.0.0.1
         route add 192.0.2.0/24 nexthop via 10.0.0.1 weight 1 nexthop via 10.0.0.3 weight 2
         route add blackhole 198.51.100.0/24 metric 7
         route add 203.0.113.7 via 10.0.0.9 table 1600
         route add 2001:db8:1::/48 via 2001:db8::1
         rule add from 10.0.0.2/32 lookup 16 priority 57481
         rule add fwmark 0x1/0xff iif eth0 lookup 1600 priority 100
         neighbour add 10.0.0.1 lladdr fa:16:3e:00:00:01 dev eth0 nud permanent
         neighbour add proxy 10.0.0.7 dev eth0
         link add vx0 type vxlan id 4097 local 10.0.0.2 remote 192.0.2.9 dstport 4789
         link add br0 type bridge ageing_time 0
         link set eth1 master br0
         tuntap add tap0 mode tap
         link property add dev tap0 altname a-name-longer-than-a-device-may-have
         link set tap0 alias the-first");
    run("ip", &["-n", &netns.0, "-6", "rule", "add", "to", "2001:db8:2::/48", "prohibit", "priority", "200"]);
    let facts = discover(Options::default());
    let network = netns.network(&facts);
    let index = |name: &str| link(network, name).ifindex;

    let routes: Vec<_> = network.routes.iter().filter(|route| route.scope == "global").map(route_text).collect();
    for expected in [
        "254 unicast 0.0.0.0/0 via 10.0.0.1",
        "254 unicast 192.0.2.0/24 via 10.0.0.1 via 10.0.0.3",
        "254 blackhole 198.51.100.0/24 metric 7",
        "1600 unicast 203.0.113.7/32 via 10.0.0.9",
        "254 unicast 2001:db8:1::/48 via 2001:db8::1 metric 1024",
    ] {
        assert!(routes.iter().any(|route| route == expected), "{expected} is not in {routes:#?}");
    }
    assert!(network.routes.iter().all(|route| route.table != 255));

    let rule = |priority| network.rules.iter().find(|rule| rule.priority == priority).unwrap();
    assert_eq!((rule(57_481).source.unwrap().to_string().as_str(), rule(57_481).table), ("10.0.0.2/32", 16));
    assert_eq!((rule(100).fwmark, rule(100).iif.as_deref(), rule(100).table), (Some((1, 0xff)), Some("eth0"), 1600));
    assert_eq!((rule(200).ipv6, rule(200).action.as_str()), (true, "prohibit"));

    let neighbour =
        |address: &str| network.neighbours.iter().find(|entry| entry.address.to_string() == address).unwrap();
    let gateway = neighbour("10.0.0.1");
    assert_eq!((gateway.ifindex, gateway.state.as_str(), gateway.proxy), (index("eth0"), "PERMANENT", false));
    assert_eq!(gateway.mac.unwrap().to_string(), "fa:16:3e:00:00:01");
    assert!(gateway.age.is_some_and(|age| age <= began.elapsed().as_secs()), "{gateway:?}");
    assert!(neighbour("10.0.0.7").proxy);
    forwarding(network);

    let [local, remote] = ["10.0.0.2", "192.0.2.9"].map(|address| Some(address.parse().unwrap()));
    assert_eq!(link(network, "vx0").detail, LinkDetail::Vxlan { vni: 4097, local, remote, port: 4789 });
    assert!(matches!(link(network, "br0").detail, LinkDetail::Bridge { ageing: 0, stp: false, .. }));
    assert_eq!(link(network, "tap0").detail, LinkDetail::Tun { tap: true });
    assert_eq!(link(network, "tap0").alt_names, ["a-name-longer-than-a-device-may-have"]);
    assert_eq!(link(network, "tap0").alias.as_deref(), Some("the-first"));
}

/// Forwarding entries, those of the kernel's own among them.
fn forwarding(network: &NetworkFact) {
    let index = |name: &str| link(network, name).ifindex;
    let own = |entry: &&FdbFact| entry.ifindex == index("eth1") && entry.master == Some(index("br0"));
    assert!(network.fdb.iter().find(own).unwrap().permanent);
    let flooded = network.fdb.iter().find(|entry| entry.ifindex == index("vx0")).unwrap();
    assert_eq!(flooded.remote, Some("192.0.2.9".parse().unwrap()));
}

fn route_text(route: &RouteFact) -> String {
    let mut text = format!("{} {} {}", route.table, route.kind, route.destination);
    for gateway in route.next_hops.iter().filter_map(|hop| hop.gateway) {
        text = format!("{text} via {gateway}");
    }
    if route.metric == 0 { text } else { format!("{text} metric {}", route.metric) }
}

#[test]
#[ignore = "a measurement: cargo test --release -p netdiag-tests --test topology -- --ignored --nocapture"]
fn two_hundred_namespaces_are_read_within_a_second() {
    if !private_host::enter("two_hundred_namespaces_are_read_within_a_second") {
        return;
    }
    let host = Netns::new();
    host.ip("link add br0 type bridge\nlink set br0 up\n");
    let namespaces: Vec<_> = (0..200).map(|_| Netns::new()).collect();
    for (place, netns) in namespaces.iter().enumerate() {
        host.ip(&format!(
            "link add veth{place} type veth peer name eth0 netns {}\nlink set veth{place} master br0 up\n",
            netns.0
        ));
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 99, 0, 1).to_bits() + u32::try_from(place).unwrap());
        netns.ip(&format!(
            "link set lo up\nlink set eth0 up\naddress add {address}/16 dev eth0\nroute add default via 10.99.255.254\n"
        ));
    }
    let started = Instant::now();
    let facts = discover(Options::default());
    let took = started.elapsed();
    for report in &facts.reports {
        eprintln!("{:>10}: {} ms", report.source.name(), report.took_ms);
    }
    eprintln!("{} namespaces in {} ms", facts.namespaces.len(), took.as_millis());
    assert!(namespaces.iter().all(|netns| netns.network(&facts).nsids.len() == 1));
    assert!(took < Duration::from_secs(1));
}

//! Hosts of a lab with floating IPs, their agents, and who talks to them.

use std::{
    fs,
    io::Write as _,
    net::Ipv4Addr,
    os::unix::net::UnixStream,
    thread,
    time::{Duration, Instant},
};

use netdiag_agent::netns::Namespace;
use netdiag_tests::{
    Lab,
    agent::PATIENCE,
    capture::RUN,
    floating::ends::{End, command},
    require_ebpf, require_programs,
};
use serde_json::Value;

/// Where the agent of the test lives on its host.
pub(crate) const HOME: &str = "/run/agent-test";

/// The first process of a host.
pub(crate) fn pid(lab: &Lab, name: &str) -> u64 {
    let hosts = lab.built["hosts"].as_array().unwrap();
    hosts.iter().find(|host| host["name"] == name).unwrap()["pid"].as_u64().unwrap()
}

pub(crate) fn address(value: &Value) -> Ipv4Addr {
    value.as_str().unwrap().parse().unwrap()
}

/// A floating IP, and the instance it leads to.
#[derive(Clone, Debug)]
pub(crate) struct Floating {
    pub(crate) address: Ipv4Addr,
    pub(crate) instance: End,
    pub(crate) port: String,
    /// The namespace with its NAT rules.
    pub(crate) router: Namespace,
    /// Name of the router.
    pub(crate) router_name: String,
    /// The router answers for metadata.
    pub(crate) has_metadata: bool,
}

/// An instance without a floating IP.
#[derive(Clone, Debug)]
pub(crate) struct Plain {
    pub(crate) instance: End,
    pub(crate) port: String,
    pub(crate) router_name: String,
    /// The address it leaves as, and the one that floating IPs of its router see.
    pub(crate) gateway: Ipv4Addr,
    pub(crate) inside: Ipv4Addr,
}

/// A host with floating IPs, and its agent.
pub(crate) struct Host<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) name: String,
    /// Where its files are.
    root: String,
}

impl<'a> Host<'a> {
    /// Starts an agent.
    pub(crate) fn start(lab: &'a Lab, name: &str, policy: &str) -> Self {
        let host = Self { lab, name: name.into(), root: format!("/proc/{}/root", pid(lab, name)) };
        host.sh(&format!("mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs"));
        host.policy(policy);
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let agent = format!("{} agent {options} --bpffs {HOME}/bpffs/netdiag", lab.binary());
        host.sh(&format!("setsid {agent} > {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid"));
        host
    }

    #[track_caller]
    pub(crate) fn sh(&self, line: &str) -> String {
        self.lab.sh(&self.name, line).ok()
    }

    pub(crate) fn policy(&self, text: &str) {
        self.sh(&format!(
            "cat > {HOME}/policy.d/.new <<'END' && mv {HOME}/policy.d/.new {HOME}/policy.d/a.yaml\n{text}\nEND"
        ));
    }

    pub(crate) fn api(&self, path: &str) -> Value {
        let answer = || {
            let mut stream = UnixStream::connect(format!("{}{HOME}/agent.sock", self.root))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")?;
            std::io::read_to_string(stream)
        };
        let answer = answer().unwrap_or_default();
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        serde_json::from_str(body).unwrap_or_default()
    }

    pub(crate) fn shown(&self, address: Ipv4Addr) -> Value {
        self.api(&format!("/v1/floatingips/{address}"))["floatingip"].clone()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, address: Ipv4Addr, state: &str) -> Value {
        self.wait_until(address, state, |shown| shown["state"] == state)
    }

    /// Waits until one is slow for a reason that contains these words.
    #[track_caller]
    pub(crate) fn wait_until_slow(&self, address: Ipv4Addr, why: &str) {
        let contains = |shown: &Value| shown["reason"].as_str().is_some_and(|reason| reason.contains(why));
        self.wait_until(address, why, |shown| shown["state"] == "slow" && contains(shown));
    }

    #[track_caller]
    pub(crate) fn wait_until(&self, address: Ipv4Addr, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let shown = self.shown(address);
            if wanted(&shown) {
                return shown;
            }
            let log = || self.sh(&format!("tail -n 20 {HOME}/log"));
            assert!(started.elapsed() < PATIENCE, "{address} is never {what}: {shown:#}\n{}", log());
            thread::sleep(Duration::from_millis(200));
        }
    }

    /// Sends all floating IPs a way.
    #[track_caller]
    pub(crate) fn all(&self, way: &str) {
        let said = self.lab.netdiag(&self.name, &["fip", way, "--all", "--socket", &format!("{HOME}/agent.sock")]);
        said.ok();
    }

    /// What tells whether packets have gone through the router: entries of connection tracking of a run, and what the
    /// rules of the floating IP have counted.
    pub(crate) fn traces(floating: &Floating, base: u16) -> (usize, Vec<String>) {
        let ours = |word: &str| {
            let number = ["sport=", "dport=", "id="].iter().find_map(|key| word.strip_prefix(key));
            number.and_then(|number| number.parse().ok()).is_some_and(|number| (base..base + RUN).contains(&number))
        };
        let tracked = command(&floating.router, &["conntrack", "-L"]);
        let tracked = tracked.lines().filter(|line| line.split_whitespace().any(ours)).count();
        let address = format!("{}/32", floating.address);
        let fixed = format!("{}/32", floating.instance.address);
        let rules = command(&floating.router, &["iptables-save", "-c", "-t", "nat"]);
        let rules = rules.lines().filter(|line| line.contains(&address) || line.contains(&fixed));
        (tracked, rules.map(str::to_owned).collect())
    }

    /// Packets of a floating IP on a way, to it and from it.
    pub(crate) fn packets(&self, floating: &Floating, way: &str) -> [u64; 2] {
        on_way(&self.shown(floating.address), way)
    }

    /// What a case must change, or must not.
    pub(crate) fn marks(&self, floating: &Floating, base: u16) -> Marks {
        let (tracked, rules) = Self::traces(floating, base);
        let shown = self.shown(floating.address);
        let [fast, doubtful] = ["fast", "partial-checksum"].map(|way| on_way(&shown, way));
        Marks { fast, doubtful: doubtful.iter().sum(), tracked, rules }
    }
}

fn on_way(shown: &Value, way: &str) -> [u64; 2] {
    ["ingress", "egress"].map(|direction| shown["packets"][direction][way].as_u64().unwrap_or(0))
}

/// Where packets of a floating IP have left a mark.
#[derive(Debug)]
pub(crate) struct Marks {
    /// On the fast way, to it and from it.
    pub(crate) fast: [u64; 2],
    /// Left to the router because their checksum may be half made: before XDP, one of 65,536 just looks so.
    pub(crate) doubtful: u64,
    /// Entries of the router's connection tracking of this run.
    pub(crate) tracked: usize,
    /// The router's rules for the floating IP, with their counters.
    pub(crate) rules: Vec<String>,
}

impl Drop for Host<'_> {
    fn drop(&mut self) {
        // The lab ends with all its processes; this only spares it the wait.
        drop(self.lab.sh(&self.name, &format!("kill $(cat {HOME}/pid); umount -l {HOME}/bpffs")));
    }
}

/// Somebody outside.
pub(crate) fn peer(lab: &Lab, name: &'static str) -> (&'static str, End) {
    let hosts = lab.built["hosts"].as_array().unwrap();
    let host = hosts.iter().find(|host| host["name"] == name).unwrap();
    let at = address(&host["uplinks"][0]["address"]["address"]);
    let end = End::new(&format!("/proc/{}/ns/net", host["pid"]), at);
    // What it sends is finished, as what instances send is; what others quote of it is to be compared.
    command(&end.netns, &["ethtool", "-K", "eth0", "tx", "off"]);
    (name, end)
}

/// The namespace of an instance, as this test reaches it.
fn namespace_of(lab: &Lab, instance: &Value) -> String {
    match instance["machine"]["guest_pid"].as_u64() {
        Some(guest) => format!("/proc/{guest}/ns/net"),
        None => format!("/proc/{}/root/proc/{}/ns/net", pid(lab, instance["host"].as_str().unwrap()), instance["pid"]),
    }
}

/// True if a host of Open vSwitch switches packets in the kernel. Instances leave checksums to the hardware then.
pub(crate) fn in_kernel(lab: &Lab, host: &str) -> bool {
    lab.sh(host, "ovs-vsctl get bridge br-int datapath_type").ok().trim().trim_matches('"') != "netdev"
}

/// The floating IPs of the instances of a host.
pub(crate) fn found(lab: &Lab, host: &str) -> Vec<Floating> {
    let mut found = Vec::new();
    let offload = in_kernel(lab, host);
    for instance in lab.instances(host) {
        let path = namespace_of(lab, &instance);
        for port in instance["ports"].as_array().unwrap().iter().filter(|port| port["floating_ip"].is_string()) {
            let router_name = format!("qrouter-{}", port["router"].as_str().unwrap());
            found.push(Floating {
                address: address(&port["floating_ip"]),
                instance: End { offload, ..End::new(&path, address(&port["address"]["address"])) },
                port: port["id"].as_str().unwrap().into(),
                router: router(lab, host, &router_name),
                router_name,
                has_metadata: true,
            });
        }
    }
    found
}

/// A router's namespace on a host.
pub(crate) fn router(lab: &Lab, host: &str, name: &str) -> Namespace {
    let path = format!("/proc/{}/root/run/netns/{name}", pid(lab, host));
    End::new(&path, Ipv4Addr::UNSPECIFIED).netns
}

/// The instances of a host that have no floating IP, where their routers' own addresses are on it too.
pub(crate) fn plain(lab: &Lab, host: &str) -> Vec<Plain> {
    let routers = lab.built["routers"].as_array().unwrap();
    let offload = in_kernel(lab, host);
    let plain = lab.instances(host).into_iter().filter_map(|instance| {
        let ports = instance["ports"].as_array().unwrap();
        let port = ports.last().filter(|_| ports.iter().all(|port| port["floating_ip"].is_null()))?;
        let router = routers.iter().find(|router| router["id"] == port["router"] && router["host"] == host)?;
        let gateway = address(&router["gateway"]["address"]["address"]);
        let instance = End::new(&namespace_of(lab, &instance), address(&port["address"]["address"]));
        Some(Plain {
            instance: End { offload, ..instance },
            port: port["id"].as_str().unwrap().into(),
            router_name: router["netns"].as_str().unwrap().into(),
            gateway,
            inside: gateway,
        })
    });
    plain.collect()
}

/// Everything is open, or nothing that comes.
pub(crate) fn policy(floating: &[Floating], plain: &[Plain], open: bool) -> String {
    let ingress = if open { "\n      - {direction: ingress, ethertype: IPv4}" } else { "" };
    let rules = format!("{ingress}\n      - {{direction: egress, ethertype: IPv4}}");
    let floating = floating.iter().map(|Floating { port, instance, .. }| (port, instance.address));
    let ports = floating.chain(plain.iter().map(|Plain { port, instance, .. }| (port, instance.address)));
    let ports =
        ports.map(|(port, address)| format!("  - {{id: {port}, security_groups: [group], fixed_ips: [{address}]}}\n"));
    let ports = ports.collect::<Vec<_>>().concat();
    format!("security_groups:\n  - id: group\n    security_group_rules:{rules}\nports:\n{ports}")
}

/// The gateway of the external network, which lets only smaller packets through to the internet than come to it.
pub(crate) fn narrow_gateway(lab: &Lab) {
    let parent = |pid: u64| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.unwrap().trim().parse::<u64>().unwrap()
    };
    // Process 1 of a host is started by the maker of its namespaces, and that one by the fabric.
    let fabric = parent(parent(pid(lab, "outside")));
    let gateway = End::new(&format!("/proc/{fabric}/ns/net"), Ipv4Addr::UNSPECIFIED).netns;
    assert!(command(&gateway, &["ip", "-o", "link"]).contains("internet"), "this is the gateway");
    command(&gateway, &["ip", "route", "add", "203.0.113.10/32", "dev", "internet", "mtu", "lock", "1300"]);
}

/// Takes `--random-fully` out of the rules of the routers, as Neutron does where `use_random_fully` is off: with it, ports
/// and identifiers of what goes out the slow way are nobody's to compare. And has them tell every error, however many there
/// were before.
pub(crate) fn keep_ports(lab: &Lab) {
    let line = "for netns in $(ip netns list | cut -d' ' -f1); do \
                ip netns exec $netns sysctl -qw net.ipv4.icmp_ratelimit=0 || exit 1; done; \
                for router in $(ip netns list | grep -o '^\\(qrouter\\|snat\\)-[^ ]*'); do \
                ip netns exec $router sh -c 'iptables-save | sed \"s/ --random-fully//\" | iptables-restore' || exit 1; done";
    for host in lab.hosts() {
        lab.sh(&host, line).ok();
    }
}

/// Where packets are switched in the kernel, the card of the external network finishes checksums, as a real one does.
fn finish_checksums(lab: &Lab) {
    let line = "case $(ovs-vsctl --timeout=5 get bridge br-ex datapath_type 2> /dev/null) in ''|*netdev*) ;; \
                *) ethtool -K eth1 tx off ;; esac";
    for host in lab.hosts() {
        lab.sh(&host, line).ok();
    }
}

pub(crate) fn up(profile: &str) -> Option<Lab> {
    let needed = require_ebpf() && require_programs(&["conntrack", "iptables-save", "ip", "ethtool"]);
    let lab = if needed { Lab::up(profile) } else { None }?;
    narrow_gateway(&lab);
    keep_ports(&lab);
    finish_checksums(&lab);
    Some(lab)
}

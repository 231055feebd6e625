//! The instance, its peer, and how they are plugged.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use netdiag_agent::netns::Namespace;
use netdiag_model::id::Mac;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Map, Value, json};

use super::{
    Family, Policy, Way,
    frame::{Packet, ethernet},
    wire::{Relay, Wire, tap},
};
use crate::{
    Lab,
    agent::{PATIENCE, answer},
    require_ebpf, require_programs,
};

/// Where the agent of the test lives on its host.
const HOME: &str = "/run/behaviour";

/// How an instance is plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plug {
    /// A container's veth in docker0.
    Docker,
    /// A container's veth in the Linux bridge of a port, behind it Open vSwitch.
    Hybrid,
    /// A container's veth as a port of Open vSwitch, its datapath in the kernel where the kernel has one, else in user space.
    Ovs,
    /// A tap in docker0, held open by this process.
    Tap,
}

/// One end of the traffic.
#[derive(Debug)]
pub struct End {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its device there.
    pub device: String,
    /// MAC address of the device.
    pub mac: Mac,
    /// IPv4 address.
    pub v4: Ipv4Addr,
    /// IPv6 address.
    pub v6: Ipv6Addr,
    /// Link-local address of the MAC address.
    pub link_local: Ipv6Addr,
    /// The device itself.
    pub wire: Wire,
}

/// An instance whose port is enforced by an agent, and a peer on the same link.
#[derive(Debug)]
pub struct World {
    /// How the instance is plugged.
    pub plug: Plug,
    /// What it sends is decided about by XDP: a datapath in user space takes it before TC.
    pub behind_xdp: bool,
    /// The instance.
    pub instance: End,
    /// The peer, whom nobody enforces.
    pub peer: End,
    /// The host's device of the instance.
    pub tap: String,
    /// Id of the port, another one in each case: what the case before left behind is not seen.
    pub port: String,
    /// Counts cases.
    case: u32,
    /// Counts what must be unlike all before.
    unique: u16,
    root: PathBuf,
    host: String,
    // In the order they must end.
    relay: Option<Relay>,
    lab: Lab,
}

/// What differs between the plugs.
struct Site {
    /// Path of the instance's namespace on the host.
    namespace: String,
    /// Its device.
    device: String,
    /// The host's device.
    tap: String,
    /// Plugs the peer's device `peer0`.
    plug_peer: String,
}

impl World {
    /// Brings one up; none where the test must be skipped.
    ///
    /// # Panics
    /// It does not come up.
    #[must_use]
    pub fn up(plug: Plug) -> Option<Self> {
        if !require_ebpf() || !require_programs(&["ping", "ip", "ethtool", "nsenter"]) {
            return None;
        }
        let lab = Lab::up(match plug {
            Plug::Docker | Plug::Tap => "docker",
            Plug::Hybrid => "hybrid",
            Plug::Ovs => "neutron-ovs",
        })?;
        let host = lab.hosts().first().cloned().expect("a host with instances");
        let built = lab.built["hosts"].as_array().and_then(|hosts| hosts.iter().find(|known| known["name"] == *host));
        let pid = built.and_then(|host| host["pid"].as_u64()).expect("process 1 of the host");
        let netdev = built.is_some_and(|host| host["ovs"]["datapath_type"] == "netdev");
        let behind_xdp = plug == Plug::Ovs && netdev;
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        // Frames that one thread sends stay in order only on one CPU.
        keep_to_one_cpu();
        let on = |line: &str| lab.sh(&host, line).ok();
        let mut relay = None;
        let site = match plug {
            Plug::Docker => docker(&lab),
            Plug::Hybrid | Plug::Ovs => neutron(&lab, &host),
            Plug::Tap => {
                relay = Some(machine(&lab, &host, &root));
                Site { namespace: "/run/netns/guest".into(), device: "eth0".into(), tap: "tap0".into(), ..docker(&lab) }
            }
        };
        on(&link(&site));
        let open = |path: &str| Namespace::open(&root.join(path.trim_start_matches('/'))).expect("a namespace");
        let instance = End::new(open(&site.namespace), &site.device, 2);
        let peer = End::new(open("/run/netns/peer"), "eth0", 3);
        let (port, tap) = (String::new(), site.tap);
        let mut world =
            Self { plug, behind_xdp, instance, peer, tap, port, case: 0, unique: 0, root, host, relay, lab };
        world.start_agent();
        world.next_case();
        Some(world)
    }

    fn start_agent(&self) {
        let directories =
            format!("mkdir -p {HOME}/bpffs {HOME}/policy.d {HOME}/state && mount -t bpf bpf {HOME}/bpffs");
        self.sh(&directories);
        let options = format!("--policy-dir {HOME}/policy.d --state-dir {HOME}/state --socket {HOME}/agent.sock");
        let agent = format!("{} agent {options} --bpffs {HOME}/bpffs/netdiag --full-pass 3600", self.lab.binary());
        self.sh(&format!("setsid {agent} > {HOME}/log 2>&1 < /dev/null & echo $! > {HOME}/pid"));
        let started = Instant::now();
        while self.request("GET", "/v1/status", "").is_none_or(|(_, status)| status["converged"].is_null()) {
            assert!(started.elapsed() < PATIENCE, "no agent: {}", self.sh(&format!("cat {HOME}/log")));
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs a line of shell on the host.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.lab.sh(&self.host, line).ok()
    }

    /// A packet socket at a device of the host.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn wire_of_host(&self, device: &'static str) -> Wire {
        let namespace = Namespace::open(&self.root.join("proc/1/ns/net")).expect("the host's namespace");
        inside(&namespace, || Wire::open(device).expect("a packet socket"))
    }

    /// Forgets the case before.
    pub fn next_case(&mut self) {
        self.case += 1;
        self.port = format!("case-{}", self.case);
    }

    /// A port number that no traffic had before.
    pub const fn unique(&mut self) -> u16 {
        self.unique += 1;
        20_000 + self.unique
    }

    // === Policy ===

    fn request(&self, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.root.join(format!("{}/agent.sock", &HOME[1..]))).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: agent\r\ncontent-length: {length}\r\n\r\n");
        stream.write_all((head + body).as_bytes()).ok()?;
        answer(&mut stream)
    }

    /// A request of the agent's API that must succeed.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn api(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.request(method, path, &body.to_string()).expect("an answer of the agent");
        assert!((200..300).contains(&status) && status != 202, "{method} {path}: {status} {answer:#}\n{body:#}");
        answer
    }

    /// Puts a policy in force.
    ///
    /// # Panics
    /// It is not in force.
    #[track_caller]
    pub fn policy(&self, policy: &Policy) {
        self.api("PUT", "/v1/policy", &policy.document(&self.port()));
        let enforced = self.api("GET", &format!("/v1/ports/{}", self.port), &Value::Null);
        let enforcement = &enforced["port"]["enforcement"];
        assert_eq!(enforcement["state"], "enforced", "{enforced:#}");
        let hooks = enforcement["hooks"].to_string();
        assert_eq!(hooks.contains("xdp"), self.behind_xdp, "the hook of {:?}: {hooks}", self.plug);
    }

    /// The agent refuses a policy, as Neutron's API would.
    ///
    /// # Panics
    /// It takes it.
    #[track_caller]
    pub fn refuses(&self, policy: &Policy) {
        let document = policy.document(&self.port());
        let (status, answer) =
            self.request("PUT", "/v1/policy", &document.to_string()).expect("an answer of the agent");
        assert!((400..500).contains(&status), "{status} {answer:#}\n{document:#}");
        assert!(answer["error"]["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{answer:#}");
    }

    /// The port, with the addresses the instance has.
    fn port(&self) -> Map<String, Value> {
        let mut port = Map::new();
        port.insert("id".into(), json!(self.port));
        port.insert("mac_address".into(), json!(self.instance.mac.to_string()));
        let (v4, v6) = (self.instance.v4, self.instance.v6);
        port.insert("fixed_ips".into(), json!([{ "ip_address": v4 }, { "ip_address": v6 }]));
        port.insert("binding".into(), json!({ "device": self.tap }));
        port
    }

    /// The directory the agent pins its maps in, as seen from here.
    #[must_use]
    pub fn pins(&self) -> PathBuf {
        self.root.join(format!("{}/bpffs/netdiag", &HOME[1..]))
    }

    // === Ends ===

    /// Who sends, and who receives.
    #[must_use]
    pub const fn ends(&self, way: Way) -> (&End, &End) {
        match way {
            Way::In => (&self.peer, &self.instance),
            Way::Out => (&self.instance, &self.peer),
        }
    }

    /// A packet without a payload, from one end to the other.
    #[must_use]
    pub fn packet(&self, way: Way, family: Family) -> Packet {
        let (from, to) = self.ends(way);
        Packet {
            from_mac: from.mac,
            to_mac: to.mac,
            from: from.address(family),
            to: to.address(family),
            protocol: 0,
            payload: Vec::new(),
            fragment: None,
            options: Vec::new(),
            extensions: Vec::new(),
        }
    }

    /// A frame of an ethertype, from one end to the other.
    #[must_use]
    pub fn ethernet(&self, way: Way, ethertype: u16) -> Vec<u8> {
        let (from, to) = self.ends(way);
        // Read as MPLS it is one label, the last: a switch in the kernel takes no stack without an end.
        let mut payload = [0; 46];
        payload[2..4].copy_from_slice(&[1, 64]);
        ethernet(to.mac, from.mac, ethertype, &payload)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.relay = None;
        // The lab ends with all its processes; this only spares it the wait.
        let line = format!("kill $(cat {HOME}/pid); umount -l {HOME}/bpffs");
        drop(self.lab.sh(&self.host, &line));
    }
}

impl End {
    fn new(namespace: Namespace, device: &str, last: u8) -> Self {
        let name = device.to_owned();
        let (wire, shown) = inside(&namespace, move || {
            let wire = Wire::open(&name).expect("a packet socket");
            let shown = Command::new("ip").args(["-br", "link", "show", &name]).output();
            (wire, String::from_utf8_lossy(&shown.expect("start ip").stdout).into_owned())
        });
        let mac: Mac = shown.split_whitespace().nth(2).and_then(|mac| mac.parse().ok()).expect("a MAC address");
        let link_local = link_local(mac);
        let (v4, v6) = (Ipv4Addr::new(10, 77, 0, last), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, last.into()));
        Self { namespace, device: device.to_owned(), mac, v4, v6, link_local, wire }
    }

    /// Its address of a family.
    #[must_use]
    pub const fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Works in its namespace; sockets opened there stay there.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        inside(&self.namespace, work)
    }
}

fn inside<T: Send + 'static>(namespace: &Namespace, work: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(namespace.run(work)).expect("work in a namespace")
}

/// The link-local address of a MAC address (RFC 4291, appendix A).
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [first, second, third, rest @ ..] = mac.0;
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..13].copy_from_slice(&[first ^ 2, second, third, 0xff, 0xfe]);
    octets[13..].copy_from_slice(&rest);
    octets.into()
}

fn keep_to_one_cpu() {
    let mut here = CpuSet::new();
    here.set(rustix::thread::sched_getcpu());
    sched_setaffinity(None, &here).expect("stay on one CPU");
}

/// A container on docker0.
fn docker(lab: &Lab) -> Site {
    let container = &lab.built["containers"][0];
    let nic = &container["nics"][0];
    let text = |value: &Value| value.as_str().expect("what the lab built").to_owned();
    Site {
        namespace: format!("/proc/{}/ns/net", container["pid"]),
        device: text(&nic["device"]),
        tap: text(&nic["host_device"]),
        // A bridge that snoops keeps reports of multicast groups to itself.
        plug_peer: "ip link set peer0 master docker0 && ip link set docker0 type bridge mcast_snooping 0".into(),
    }
}

/// An instance of Neutron. The flows of br-int that check senders are taken away: what is refused, netdiag
/// refuses.
fn neutron(lab: &Lab, host: &str) -> Site {
    let instances = lab.instances(host);
    let instance = instances.first().expect("an instance");
    let port = &instance["ports"][0];
    let text = |value: &Value| value.as_str().expect("what the lab built").to_owned();
    let permissive =
        "ovs-ofctl -O OpenFlow13 del-flows br-int && ovs-ofctl -O OpenFlow13 add-flow br-int priority=0,actions=NORMAL";
    Site {
        namespace: format!("/proc/{}/ns/net", instance["pid"]),
        device: text(&port["device"]),
        tap: text(&port["host_devices"][0]),
        plug_peer: format!(
            "{permissive} && ip -n peer link set eth0 mtu {} && ovs-vsctl add-port br-int peer0 tag={}",
            port["mtu"], port["vlan_tag"]
        ),
    }
}

/// A guest behind a tap: its own tap is the network card, and this process the hypervisor between the two.
fn machine(lab: &Lab, host: &str, root: &Path) -> Relay {
    lab.sh(host, "ip netns add guest").ok();
    let open = |path: &str| Namespace::open(&root.join(path)).expect("a namespace");
    let outside = inside(&open("proc/1/ns/net"), || tap("tap0").expect("make the tap of the host"));
    let card = inside(&open("run/netns/guest"), || tap("eth0").expect("make the card of the guest"));
    lab.sh(host, "ip link set tap0 master docker0 up && ip -n guest link set eth0 up").ok();
    Relay::start(&outside, &card)
}

/// Makes the peer, and gives both ends their addresses.
fn link(site: &Site) -> String {
    let Site { namespace, device, plug_peer, .. } = site;
    // What is refused, netdiag refuses: nothing else may look into what passes a bridge, or put fragments together.
    let mut script =
        "set -e\nsysctl -e -q -w net.bridge.bridge-nf-call-arptables=0 net.bridge.bridge-nf-call-iptables=0 \
                      net.bridge.bridge-nf-call-ip6tables=0\nip netns add peer\nip link add peer0 type veth peer name eth0 netns peer\nip link set peer0 up\n\
                      ip netns exec peer ethtool -K eth0 tx off > /dev/null\n"
            .to_owned();
    script.push_str(plug_peer);
    for (namespace, device, last) in [(namespace.as_str(), device.as_str(), 2), ("/run/netns/peer", "eth0", 3)] {
        let within = format!("nsenter --net={namespace}");
        let sysctl = format!("{within} sysctl -e -q -w");
        for line in [
            // The kernel shall say "unreachable" as often as it is asked to.
            format!("{sysctl} net.ipv4.icmp_ratelimit=0 net.ipv4.icmp_msgs_per_sec=1000000 net.ipv6.icmp.ratelimit=0"),
            format!("{sysctl} net.ipv6.conf.{device}.disable_ipv6=0 net.ipv6.conf.{device}.accept_dad=0"),
            format!("{sysctl} net.ipv6.conf.{device}.accept_ra=0"),
            format!("{within} ip link set {device} up"),
            format!("{within} ip addr add 10.77.0.{last}/24 dev {device}"),
            format!("{within} ip addr add fd77::{last}/64 dev {device} nodad"),
        ] {
            script.push('\n');
            script.push_str(&line);
        }
    }
    script
}

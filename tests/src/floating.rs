//! A host with floating IPs: an instance behind a bridge, a network card to the outside, and a router in its own namespace or
//! the host itself.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use netdiag_agent::netns::Namespace;
use rustix::net::{AddressFamily, SocketType, ipproto};
use serde_json::Value;

use crate::{
    AgentHost,
    agent::{PATIENCE, command, run, until},
};

/// The slow way, then the fast one.
pub mod both_ways;
/// Connections at full speed.
pub mod bulk;
/// What happens between two ends.
pub mod cases;
/// Who sends and receives.
pub mod ends;
/// Flows that go on and on.
pub mod flows;
/// An external network with VLANs.
pub mod tagged;

use ends::{ARRIVES, End};

/// The floating IP.
pub const FLOATING: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 50);
/// Another one.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 51);
/// The instance.
pub const FIXED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
/// Somebody outside.
pub const OUTSIDE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// MAC addresses of the router, which are those of its ports however often it is made.
const INNER: &str = "fa:16:3e:00:00:11";
const OUTER: &str = "fa:16:3e:00:00:22";
/// The router's devices: to the instances, and to the outside.
pub const QR: &str = "qr-11111111-11";
/// See [`QR`].
pub const QG: &str = "qg-22222222-22";
/// The router's namespace.
pub const ROUTER: &str = "qrouter-11111111-2222-4333-8444-555555555555";

/// How long is waited for an answer that may not come.
const SOON: Duration = Duration::from_secs(1);

/// The second instance.
pub const SECOND: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 3);

/// Everything from and to everywhere, for both instances.
pub const OPEN: &str = "
security_groups:
  - id: open
    security_group_rules:
      - {direction: ingress, ethertype: IPv4}
      - {direction: egress, ethertype: IPv4}
ports:
  - {id: p1, security_groups: [open], fixed_ips: [192.0.2.2], binding: {device: tap0}}
  - {id: p2, security_groups: [open], fixed_ips: [192.0.2.3], binding: {device: tap1}}
";

/// A host with floating IPs.
#[derive(Debug)]
pub struct FloatingHost {
    /// The host, and its agent.
    pub host: AgentHost,
    /// The router's rules choose ports at random (`--random-fully`), as Neutron's do unless it is told otherwise.
    pub random: bool,
}

impl FloatingHost {
    /// Runs the calling test again on such a host; none outside, or where it must be skipped. `ext0` leads to the
    /// namespace `outside`; `tap0` and `tap1`, which leads to the
    /// namespace `second`, are in the bridge `br0`.
    #[must_use]
    pub fn enter(test: &str) -> Option<Self> {
        let host = AgentHost::enter(test)?;
        for line in [
            "ip link add br0 type bridge stp_state 0 forward_delay 0",
            "ip addr flush dev tap0",
            "ip link set tap0 master br0",
            "ip link set br0 up",
            "ip netns add second",
            "ip link add tap1 type veth peer name eth0 netns second",
            "ip link set tap1 master br0 up",
            "ip -n second addr add 192.0.2.3/24 dev eth0",
            "ip -n second link set eth0 up",
            "ip -n second route add default via 192.0.2.1",
            "ip link add ext0 type veth peer name eth0",
            "ip link set ext0 up",
            "ip -n instance link set lo up",
            "ip -n instance route add default via 192.0.2.1",
            "ip netns exec instance sysctl -qw net.ipv4.ping_group_range=0\t0",
            "ip netns exec second sysctl -qw net.ipv4.ping_group_range=0\t0",
        ] {
            run(line);
        }
        let site = Self { host, random: false };
        site.make_outside();
        Some(site)
    }

    /// The namespace of the outside has no name that the agent would find: what is in it is not of this host.
    fn make_outside(&self) {
        let path = self.outside();
        std::fs::write(&path, "").expect("make a file");
        run(&format!("unshare --net={} true", path.display()));
        run(&format!("nsenter --net={} ip link set lo up", path.display()));
        let device = format!("ip link set eth0 netns {}", path.display());
        assert!(command(&device).status.success(), "{device}");
        for line in
            ["ip addr add 203.0.113.1/24 dev eth0", "ip link set eth0 up", "sysctl -qw net.ipv4.ping_group_range=0\t0"]
        {
            self.from_outside(line);
        }
    }

    /// Removes the network card to the outside, and plugs another one in that is the same at the far end.
    ///
    /// # Panics
    /// There is none.
    pub fn plug_again(&self) {
        let shown = self.from_outside("ip -o link show dev eth0");
        let mac = shown.split("link/ether ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a MAC address");
        run("ip link del ext0");
        self.plug();
        self.from_outside(&format!("ip link set eth0 address {mac}"));
        run("ip link set ext0 master brex");
    }

    /// Plugs a network card to the outside in, where there is none.
    pub fn plug(&self) {
        run("ip link add ext0 type veth peer name eth0");
        self.take_outside("eth0");
        self.from_outside("ip addr add 203.0.113.1/24 dev eth0");
        self.from_outside("ip link set eth0 up");
        run("ip link set ext0 up");
    }

    /// Takes a device outside.
    pub fn take_outside(&self, device: &str) {
        run(&format!("ip link set {device} netns {}", self.outside().display()));
    }

    fn outside(&self) -> PathBuf {
        self.host.path("outside")
    }

    /// Runs a command outside.
    pub fn from_outside(&self, line: &str) -> String {
        run(&format!("nsenter --net={} {line}", self.outside().display()))
    }

    /// A namespace by name: `outside`, or one that `ip netns` knows.
    ///
    /// # Panics
    /// There is none.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Namespace {
        let path = if name == "outside" { self.outside() } else { Path::new("/run/netns").join(name) };
        Namespace::open(&path).expect("open the namespace")
    }

    /// Somebody in a namespace, by the address others know.
    #[must_use]
    pub fn end(&self, name: &str, address: Ipv4Addr) -> End {
        let path = if name == "outside" { self.outside() } else { Path::new("/run/netns").join(name) };
        // What a device leaves to the next one may come unfinished.
        End { offload: true, ..End::new(&path.display().to_string(), address) }
    }

    /// Whether a ping from a namespace, of which one is sent, is answered, however long that takes.
    ///
    /// # Panics
    /// It cannot be sent.
    pub async fn pings(&self, from: &str, address: Ipv4Addr) -> bool {
        self.namespace(from).run(move || ping(address, PATIENCE)).await.expect("enter the namespace")
    }

    /// Whether it is answered soon: where it must not be, or is tried again.
    ///
    /// # Panics
    /// It cannot be sent.
    pub async fn pings_soon(&self, from: &str, address: Ipv4Addr) -> bool {
        self.namespace(from).run(move || ping(address, SOON)).await.expect("enter the namespace")
    }

    /// A TCP connection from a namespace to an address, which leads to another namespace.
    ///
    /// # Panics
    /// It cannot be made.
    pub async fn connect(&self, (from, to): (&str, &str), address: Ipv4Addr, port: u16) -> Connection {
        let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let listening = self.namespace(to);
        let listener = listening.run(move || TcpListener::bind(any)).await.expect("enter").expect("listen");
        let connect = move || TcpStream::connect_timeout(&(address, port).into(), PATIENCE);
        let here = self.namespace(from).run(connect).await.expect("enter").expect("connect");
        let (there, _) = listener.accept().expect("accept");
        Connection { here, there }
    }

    /// Datagrams from a namespace to an address, which leads to another namespace.
    ///
    /// # Panics
    /// The sockets cannot be made.
    pub async fn datagrams(&self, (from, to): (&str, &str), address: Ipv4Addr, port: u16) -> Datagrams {
        let any: SocketAddr = (Ipv4Addr::UNSPECIFIED, port).into();
        let server = self.namespace(to).run(move || UdpSocket::bind(any)).await.expect("enter").expect("bind");
        let client = self.namespace(from).run(|| UdpSocket::bind("0.0.0.0:0")).await.expect("enter").expect("bind");
        for socket in [&client, &server] {
            socket.set_read_timeout(Some(ARRIVES)).expect("set a timeout");
        }
        Datagrams { client, server, address: (address, port).into() }
    }

    /// Makes the host itself the router of the instance, with rules as Docker leaves them.
    pub fn be_router(&self) {
        for line in [
            "ip addr add 192.0.2.1/24 dev br0",
            "ip addr add 203.0.113.10/24 dev ext0",
            "sysctl -qw net.ipv4.ip_forward=1",
            "iptables -P FORWARD DROP",
            "iptables -A FORWARD -i br0 -j ACCEPT",
            "iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "iptables -t nat -A POSTROUTING -s 192.0.2.0/24 ! -o br0 -j MASQUERADE",
        ] {
            run(line);
        }
        is_reached("ping -c 1 -W 5 203.0.113.1");
    }

    /// Makes a router as Neutron's L3 agent does, plugged into Linux bridges, with a floating IP.
    pub fn add_router(&self) {
        self.plug_outside();
        self.build_router(&[(FLOATING, FIXED)]);
    }

    /// Puts the network card to the outside into a bridge.
    pub fn plug_outside(&self) {
        for line in [
            "ip link add brex type bridge stp_state 0 forward_delay 0",
            "ip link set ext0 master brex",
            "ip link set brex up",
        ] {
            run(line);
        }
    }

    /// The router alone, where everything around it is there.
    pub fn build_router(&self, addresses: &[(Ipv4Addr, Ipv4Addr)]) {
        self.open_router();
        for (device, end, (bridge, mac)) in [(QR, "tapqr", ("br0", INNER)), (QG, "tapqg", ("brex", OUTER))] {
            run(&format!("ip link add {end} type veth peer name {device} netns {ROUTER}"));
            run(&format!("ip -n {ROUTER} link set {device} address {mac}"));
            run(&format!("ip link set {end} master {bridge} up"));
            run(&format!("ip -n {ROUTER} link set {device} up"));
        }
        self.equip_router(addresses);
    }

    /// A router's namespace. It forwards before it has a device, as Neutron's agent has it.
    fn open_router(&self) {
        run(&format!("ip netns add {ROUTER}"));
        for line in [
            "sysctl -qw net.ipv4.ip_forward=1",
            "sysctl -qw net.ipv4.conf.all.arp_ignore=1",
            "sysctl -qw net.ipv4.conf.all.arp_announce=2",
        ] {
            self.router(line);
        }
    }

    /// What a router has beside its devices.
    fn equip_router(&self, addresses: &[(Ipv4Addr, Ipv4Addr)]) {
        for line in [
            &format!("ip addr add 192.0.2.1/24 dev {QR}"),
            &format!("ip addr add 203.0.113.20/24 dev {QG}"),
            "ip route add default via 203.0.113.1",
        ] {
            self.router(line);
        }
        // The rules are in place before the floating IPs: else the router would answer itself.
        self.rules("iptables-restore", addresses);
        // Where connection tracking is a module, it takes rules for this to be there.
        self.router("sysctl -qw net.netfilter.nf_conntrack_tcp_be_liberal=1");
        for (floating, _) in addresses {
            self.router(&format!("ip addr add {floating}/32 dev {QG}"));
        }
        // It knows its gateway, as a router does that has ever sent anything.
        is_reached(&format!("ip netns exec {ROUTER} ping -c 1 -W 5 203.0.113.1"));
    }

    /// Writes the router's rules, all of them.
    ///
    /// # Panics
    /// They are not taken.
    pub fn rules(&self, tool: &str, addresses: &[(Ipv4Addr, Ipv4Addr)]) {
        let file = self.host.path("rules");
        std::fs::write(&file, rules(addresses, self.random)).expect("write rules");
        let path = file.display();
        let said = command(&format!("ip netns exec {ROUTER} {tool} {path}"));
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    /// Runs a command in the router.
    pub fn router(&self, line: &str) -> String {
        run(&format!("ip netns exec {ROUTER} {line}"))
    }

    /// Connections the router tracks, a line each, of one address.
    #[must_use]
    pub fn tracked(&self, netns: Option<&str>, address: Ipv4Addr) -> Vec<String> {
        let within = netns.map_or_else(String::new, |netns| format!("ip netns exec {netns} "));
        let listed = run(&format!("{within}conntrack -L"));
        listed.lines().filter(|line| line.contains(&address.to_string())).map(str::to_owned).collect()
    }

    /// A floating IP as the API shows it; null where there is none.
    #[must_use]
    pub fn floating(&self, address: Ipv4Addr) -> Value {
        let (_, answer) = self.host.request("GET", &format!("/v1/floatingips/{address}"), "");
        answer["floatingip"].clone()
    }

    /// Waits until a floating IP is in a state.
    ///
    /// # Panics
    /// It never is.
    #[track_caller]
    pub fn wait_for(&self, address: Ipv4Addr, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        loop {
            let floating = self.floating(address);
            if wanted(&floating) {
                return floating;
            }
            let status = self.host.request("GET", "/v1/status", "").1;
            let took = started.elapsed();
            assert!(took < PATIENCE, "never: {what}: {floating:#}\n{status:#}\n{}", self.host.log());
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a floating IP goes the fast way.
    #[track_caller]
    pub fn wait_until_fast(&self, address: Ipv4Addr) -> Value {
        self.wait_for(address, "fast", |floating| floating["state"] == "fast")
    }

    /// Packets of a floating IP that went a way.
    #[must_use]
    pub fn packets(&self, address: Ipv4Addr, direction: &str, way: &str) -> u64 {
        self.floating(address)["packets"][direction][way].as_u64().unwrap_or(0)
    }
}

/// Rules of a router as `iptables-save` prints them, with these floating IPs.
fn rules(addresses: &[(Ipv4Addr, Ipv4Addr)], random: bool) -> String {
    let random = if random { " --random-fully" } else { "" };
    let each = |rule: &dyn Fn(Ipv4Addr, Ipv4Addr) -> String| {
        let rules = addresses.iter().map(|(floating, fixed)| rule(*floating, *fixed));
        rules.flat_map(|rule| ["-A neutron-l3-agent-", rule.as_str(), "\n"].map(str::to_owned)).collect::<String>()
    };
    let output = each(&|floating, fixed| format!("OUTPUT -d {floating}/32 -j DNAT --to-destination {fixed}"));
    let arrives = each(&|floating, fixed| format!("PREROUTING -d {floating}/32 -j DNAT --to-destination {fixed}"));
    let leaves = each(&|floating, fixed| format!("float-snat -s {fixed}/32 -j SNAT --to-source {floating}{random}"));
    let chains = |names: &[&str]| names.iter().flat_map(|name| [":", name, " - [0:0]\n"]).collect::<String>();
    let nat = chains(&[
        "neutron-l3-agent-OUTPUT",
        "neutron-l3-agent-POSTROUTING",
        "neutron-l3-agent-PREROUTING",
        "neutron-l3-agent-float-snat",
        "neutron-l3-agent-snat",
        "neutron-postrouting-bottom",
    ]);
    format!(
        "*nat\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n{nat}\
-A PREROUTING -j neutron-l3-agent-PREROUTING
-A OUTPUT -j neutron-l3-agent-OUTPUT
-A POSTROUTING -j neutron-l3-agent-POSTROUTING
-A POSTROUTING -j neutron-postrouting-bottom
{output}\
-A neutron-l3-agent-POSTROUTING ! -o qg-22222222-22 -m conntrack ! --ctstate DNAT -j ACCEPT
{arrives}{leaves}\
-A neutron-l3-agent-snat -j neutron-l3-agent-float-snat
-A neutron-l3-agent-snat -o qg-22222222-22 -j SNAT --to-source 203.0.113.20{random}
-A neutron-l3-agent-snat -m mark ! --mark 0x2/0xffff -m conntrack --ctstate DNAT -j SNAT --to-source 203.0.113.20{random}
-A neutron-postrouting-bottom -m comment --comment \"Perform source NAT on outgoing traffic.\" -j neutron-l3-agent-snat
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:neutron-l3-agent-PREROUTING - [0:0]
:neutron-l3-agent-mark - [0:0]
-A PREROUTING -j neutron-l3-agent-PREROUTING
-A neutron-l3-agent-PREROUTING -j neutron-l3-agent-mark
-A neutron-l3-agent-mark -i qg-22222222-22 -j MARK --set-xmark 0x2/0xffff
COMMIT
"
    )
}

/// Pings until it is answered: devices take their time to come up.
#[track_caller]
pub fn is_reached(line: &str) {
    until(line, || command(line).status.success());
}

/// One ping of the calling thread's namespace.
fn ping(address: Ipv4Addr, patience: Duration) -> bool {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, Some(ipproto::ICMP)).expect("a socket");
    let socket = UdpSocket::from(socket);
    socket.set_read_timeout(Some(patience)).expect("set a timeout");
    // An echo request; the kernel fills in identifier and checksum.
    let request = [8, 0, 0, 0, 0, 0, 0, 1];
    let mut answer = [0; 64];
    socket.send_to(&request, (address, 0)).is_ok() && socket.recv(&mut answer).is_ok()
}

/// A TCP connection that goes on and on.
#[derive(Debug)]
pub struct Connection {
    here: TcpStream,
    there: TcpStream,
}

impl Connection {
    /// Who the other end takes this one for.
    ///
    /// # Panics
    /// There is no other end.
    #[must_use]
    pub fn seen_as(&self) -> SocketAddr {
        self.there.peer_addr().expect("a peer")
    }

    /// Whether a word arrives, and an answer to it.
    pub fn works(&mut self, patience: Duration) -> bool {
        let mut word = [0; 4];
        let limit = Some(patience);
        self.there.set_read_timeout(limit).is_ok()
            && self.here.set_read_timeout(limit).is_ok()
            && self.here.write_all(b"ping").is_ok()
            && self.there.read_exact(&mut word).is_ok()
            && self.there.write_all(b"pong").is_ok()
            && self.here.read_exact(&mut word).is_ok()
    }
}

/// Datagrams between a client and a server that answers.
#[derive(Debug)]
pub struct Datagrams {
    client: UdpSocket,
    server: UdpSocket,
    address: SocketAddr,
}

impl Datagrams {
    /// Sends one and its answer; whom the server has seen.
    #[must_use]
    pub fn exchange(&self) -> Option<SocketAddr> {
        let mut word = [0; 4];
        self.client.send_to(b"ping", self.address).ok()?;
        let (_, from) = self.server.recv_from(&mut word).ok()?;
        self.server.send_to(b"pong", from).ok()?;
        let (_, by) = self.client.recv_from(&mut word).ok()?;
        (by == self.address).then_some(from)
    }
}

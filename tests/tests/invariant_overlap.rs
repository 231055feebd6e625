//! Networks of one host that have the same addresses do not meet: two bridges, at each of them machines with the same MAC and IP
//! addresses that send the very same frames, under a real agent.
#![expect(clippy::unwrap_used, reason = "a harness that fails fails the test")]

use std::{
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use netdiag_common::{
    ABI_VERSION,
    abi::{
        floating::StationKey,
        flow::{Flow, FlowKey4},
    },
    logic::flow::{State, protocol, tcp},
};
use netdiag_tests::{
    AgentHost,
    agent::PATIENCE,
    machine::{self, Machine},
    site::{both, document},
    traffic::handshake,
};

/// What the rules of a server allow its network's clients.
const SERVICE: u16 = 7;

/// A network: a client and a server at a bridge.
struct Network {
    name: &'static str,
    client: Machine,
    server: Machine,
}

impl Network {
    fn new(name: &'static str) -> Self {
        machine::bridge_named(name);
        let [client, server] = [1, 2].map(|number| Machine::at(name, &format!("{name}{number}"), number));
        machine::wait_for_bridge(&[&client, &server]);
        Self { name, client, server }
    }

    /// Two groups of its own: its servers let its clients in.
    fn groups(&self) -> [(String, String); 2] {
        let clients = format!("{}-clients", self.name);
        let rules = both("ingress", SERVICE, &format!(r#", "remote_group_id": "{clients}""#));
        [(clients, String::new()), (format!("{}-servers", self.name), rules)]
    }

    /// Its client is in the group of its clients, or is not.
    fn client(&self, is_member: bool) -> String {
        let clients = format!("{}-clients", self.name);
        let groups: &[&str] = if is_member { &["asks", &clients] } else { &["asks"] };
        self.client.port(&format!("{}1", self.name), groups)
    }

    fn server(&self) -> String {
        self.server.port(&format!("{}2", self.name), &[&format!("{}-servers", self.name)])
    }

    /// Whether a datagram for the service passes.
    fn asks(&self, source: u16) -> bool {
        self.client.reaches(&self.server, &self.client.udp(&self.server, source, SERVICE, b"question"))
    }

    /// Whether the server's answer to it passes; no rule allows any.
    fn answers(&self, source: u16) -> bool {
        self.server.reaches(&self.client, &self.server.udp(&self.client, SERVICE, source, b"answer"))
    }

    /// Whether a segment of a connection passes, and its answer.
    fn goes_on(&self, source: u16) -> [bool; 2] {
        let Self { client, server, .. } = self;
        [
            client.reaches(server, &client.tcp(server, (source, SERVICE), tcp::ACK, b"on")),
            server.reaches(client, &server.tcp(client, (SERVICE, source), tcp::ACK, b"on")),
        ]
    }

    /// Whether a segment passes that ends a connection.
    fn resets(&self, source: u16) -> bool {
        let Self { client, server, .. } = self;
        client.reaches(server, &client.tcp(server, (source, SERVICE), tcp::RST, b""))
    }

    /// Half of a datagram for the service, from its client, of a number.
    fn piece(&self, source: u16, number: u16, first: bool) -> bool {
        let Self { client, server, .. } = self;
        let mut frame = client.udp(server, source, SERVICE, &[0x77; 400]);
        let (flags, range) = if first { ([0x20, 0], 34..34 + 208) } else { ([0, 26], 34 + 208..34 + 408) };
        let half = frame[range].to_vec();
        frame.truncate(34);
        frame.extend(half);
        let total = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&total.to_be_bytes());
        frame[18..20].copy_from_slice(&number.to_be_bytes());
        frame[20..22].copy_from_slice(&flags);
        client.reaches(server, &frame)
    }

    /// Whether the server learns that nobody took what it has answered.
    fn complains(&self, source: u16) -> bool {
        let Self { client, server, .. } = self;
        let answer = server.udp(client, SERVICE, source, b"answer");
        let error = [&[3, 3, 0, 0, 0, 0, 0, 0], &answer[14..]].concat();
        client.reaches(server, &client.ipv4(server, protocol::ICMP, &error))
    }

    /// Nothing has come that nobody of this network has sent.
    #[track_caller]
    fn heard_nothing(&self) {
        for machine in [&self.client, &self.server] {
            assert_eq!(machine.receive(), None, "{} of {}", machine.device, self.name);
        }
    }
}

/// Two networks under one agent.
struct World {
    host: AgentHost,
    red: Network,
    blue: Network,
}

impl World {
    fn enter(test: &str) -> Option<Self> {
        let mut host = AgentHost::enter(test)?;
        let (red, blue) = (Network::new("red"), Network::new("blue"));
        assert_eq!((red.client.mac, red.client.address), (blue.client.mac, blue.client.address));
        assert_eq!(red.client.udp(&red.server, 1, 2, b"same"), blue.client.udp(&blue.server, 1, 2, b"same"));
        host.start();
        Some(Self { host, red, blue })
    }

    /// The red client is a member of its group, or is not; and the blue one.
    fn members(&self, red: bool, blue: bool) {
        let asks = r#"{"direction": "egress", "ethertype": "IPv4"}"#.to_owned();
        let own = [&self.red, &self.blue].into_iter().flat_map(Network::groups);
        let groups: Vec<_> = own.chain([("asks".to_owned(), asks)]).collect();
        let groups: Vec<_> = groups.iter().map(|(id, rules)| (id.as_str(), rules.as_str())).collect();
        let ports = [self.red.client(red), self.red.server(), self.blue.client(blue), self.blue.server()];
        self.host.ok("PUT", "/v1/policy", &document(&groups, &ports, ""));
    }

    fn map<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> HashMap<MapData, K, V> {
        let path = self.host.root().join(format!("v{ABI_VERSION}")).join(name);
        HashMap::try_from(Map::HashMap(MapData::from_pin(path).unwrap())).unwrap()
    }

    /// States of the flows of a client's connection, seen from all ends that have one.
    fn states(&self, source: u16) -> Vec<State> {
        let is_its = |key: &FlowKey4| {
            let ports = [key.local_port, key.remote_port].map(u16::from_be);
            key.protocol == protocol::TCP && (ports == [source, SERVICE] || ports == [SERVICE, source])
        };
        let flows = self.map::<FlowKey4, Flow>("FLOWS4");
        let mut states: Vec<_> = flows.iter().flatten().filter(|(key, _)| is_its(key)).collect();
        states.sort_by_key(|(key, _)| key.slot);
        states.into_iter().map(|(_, flow)| State::of(flow.state)).collect()
    }

    /// Waits until machines of one network send to each other past their bridge.
    fn wait_for_stations(&self) {
        let started = Instant::now();
        while self.map::<StationKey, u32>("STATIONS").keys().flatten().count() < 4 {
            assert!(started.elapsed() < PATIENCE, "nobody sends straight");
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What one network does, of which the other one hears nothing.
    #[track_caller]
    fn red<T>(&self, act: impl Fn(&Network) -> T) -> T {
        let done = act(&self.red);
        self.blue.heard_nothing();
        done
    }

    #[track_caller]
    fn blue<T>(&self, act: impl Fn(&Network) -> T) -> T {
        let done = act(&self.blue);
        self.red.heard_nothing();
        done
    }

    /// Everything in which the networks could meet. Each time from another port.
    fn keep_apart(&self, source: u16) {
        self.members(true, false);
        let asks = |network: &Network| network.asks(source);
        assert!(self.red(asks) && !self.blue(asks), "the member is red");
        let answers = |network: &Network| network.answers(source);
        assert!(self.red(answers) && !self.blue(answers), "who was asked is red");
        let connects = |network: &Network| handshake(&network.client, &network.server, (source, SERVICE));
        assert!(self.red(connects));
        let goes_on = |network: &Network| network.goes_on(source);
        assert_eq!((self.red(goes_on), self.blue(goes_on)), ([true, true], [false, false]));
        let [first, later] = [true, false].map(|first| move |network: &Network| network.piece(source, 1, first));
        assert!(self.red(first) && !self.blue(later), "the first piece was red");
        assert!(self.red(later));
        let complains = |network: &Network| network.complains(source);
        assert!(self.red(complains) && !self.blue(complains), "the answer was red");

        self.members(true, true);
        assert!(self.red(|red| red.piece(source, 2, true)));
        assert!(!self.blue(|blue| blue.piece(source, 2, false)), "it is a red datagram that this is a piece of");
        assert!(self.red(first) && self.blue(first), "of the same number and addresses");
        assert!(self.red(later) && self.blue(later), "neither takes the place of the other");
        assert!(self.blue(connects));
        assert_eq!(self.states(source), [State::Established; 4]);
        assert!(self.red(|network| network.resets(source)));
        let closed = self.states(source).into_iter().filter(|state| *state == State::Closed).count();
        assert_eq!((closed, self.states(source).len()), (2, 4), "it is the red connection that is over");
        assert_eq!(self.blue(goes_on), [true, true]);
        assert!(self.red(connects));

        self.members(false, true);
        assert_eq!((self.red(goes_on), self.red(answers)), ([false, false], false), "the red client has left");
        assert!(self.blue(asks) && self.blue(answers));
        assert_eq!(self.blue(goes_on), [true, true]);
    }
}

#[test]
fn networks_with_the_same_addresses_share_no_member_no_flow_no_fragment_and_no_frame() {
    let test = "networks_with_the_same_addresses_share_no_member_no_flow_no_fragment_and_no_frame";
    let Some(world) = World::enter(test) else { return };
    world.members(true, true);
    world.keep_apart(1000);
    world.wait_for_stations();
    world.keep_apart(2000);
}

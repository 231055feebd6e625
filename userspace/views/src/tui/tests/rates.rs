//! What passes in flows: counted while somebody looks at them, shown, sorted by, and honest about what was not seen.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use insta::assert_snapshot;
use netdiag_model::{
    fact::enforcement::FlowFact,
    id::{IfIndex, LinkKey, NetnsId},
    live::{
        Layer, Losses, Sighting, View, What,
        rates::{Counter, End, Rates},
    },
};

use super::{NOW, docker, enforced, enter_text, press, screen, start};
use crate::tui::{Action, Origin, Settings, State, Tab, update};

/// The device of the instance whose flows have packets.
const DEVICE: &str = "veth804bf8c";

const LINK: LinkKey = LinkKey { netns: NetnsId { inode: 1, cookie: 1 }, ifindex: IfIndex(7) };

/// A packet of a flow from the instance, so many bytes long.
fn packet(flow: &FlowFact, length: u32) -> Sighting {
    let (IpAddr::V4(local), IpAddr::V4(remote)) = (flow.local, flow.remote) else { panic!("{flow:?}") };
    let ip = [0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, flow.protocol, 0, 0];
    let ports = [flow.local_port.to_be_bytes(), flow.remote_port.to_be_bytes()].concat();
    let rest = [0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xfa, 0xf0, 0, 0, 0, 0];
    let head = [&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0][..], &ip, &local.octets(), &remote.octets(), &ports, &rest]
        .concat();
    Sighting {
        time_ns: 1,
        cpu: 0,
        link: Some(LINK),
        what: What::Received(View::Tc),
        buffer: 0,
        length,
        mark: 0,
        tag: None,
        layer: Layer::Ethernet,
        head,
    }
}

/// A second in which the connection to port 443 had a hundred packets, and nothing else had any; so many more were not seen.
pub(super) fn rates(state: &State, missed: u64) -> Arc<Rates> {
    counted(state, missed, Vec::new())
}

/// The same at a device where some addresses go past the router.
pub(super) fn counted(state: &State, missed: u64, fast: Vec<IpAddr>) -> Arc<Rates> {
    let rows = &state.look().unwrap().flows.rows;
    let busy = rows.iter().find(|row| row.flow.local_port == 443 && row.flow.remote_port == 51_512).unwrap();
    assert_eq!(busy.device.as_deref(), Some(DEVICE));
    let end = End { name: DEVICE.to_owned(), fast, ..End::default() };
    let mut counter = Counter::new(HashMap::from([(LINK, end)]), 0, HashMap::new());
    let packet = packet(&busy.flow, 1514);
    for _ in 0..100 {
        counter.see(&packet);
    }
    Arc::new(counter.turn(1_000_000_000, Losses { lost: 0, throttled: missed }, HashMap::new()))
}

fn flows(size: (u16, u16), missed: u64) -> State {
    let state = press(docker(size), "4");
    let rates = rates(&state, missed);
    update(state, Action::Rates(rates)).0
}

/// The line of a flow by its other end.
fn line(state: &State, remote: &str) -> String {
    screen(state).lines().find(|line| line.contains(remote)).unwrap().to_owned()
}

#[test]
fn every_size_shows_what_passes_and_a_wide_one_how_many_packets() {
    for size in super::SIZES {
        assert_snapshot!(format!("rates-{}x{}", size.0, size.1), screen(&flows(size, 0)));
    }
}

#[test]
fn a_flow_without_packets_has_none_and_one_at_a_device_nobody_watches_is_not_known() {
    let state = flows((132, 43), 0);
    assert!(line(&state, "203.0.113.7:51512").contains("151 kB     100 "), "{}", screen(&state));
    assert!(line(&state, "192.0.2.53:53").contains("0 B       0 "), "{}", screen(&state));
    assert!(line(&state, "172.17.0.2:39112").contains("-       - "), "{}", screen(&state));
    let described = screen(&press(enter_text(press(state, "/"), "51512"), "enter d"));
    assert!(described.contains("from the instance") && described.contains("151 kB/s, 100 packets/s"), "{described}");
}

#[test]
fn what_is_an_estimate_says_so_and_of_what() {
    let state = flows((132, 43), 300);
    let shown = screen(&state);
    assert!(shown.contains("rates are estimates from 100 of 400 packets"), "{shown}");
    assert!(line(&state, "203.0.113.7:51512").contains("~605 kB    ~400 "), "{shown}");
    assert!(line(&state, "192.0.2.53:53").contains("-       - "), "of what was not seen nothing is known: {shown}");
}

#[test]
fn of_what_goes_past_the_router_nothing_is_known_and_why_is_said() {
    let state = press(docker((132, 43)), "4");
    let rates = counted(&state, 0, vec!["172.17.0.2".parse().unwrap()]);
    let state = update(state, Action::Rates(rates)).0;
    assert!(line(&state, "203.0.113.7:51512").contains("-       - "), "{}", screen(&state));
    let described = screen(&press(enter_text(press(state, "/"), "51512"), "enter d"));
    assert!(described.contains("not known of this flow alone"), "{described}");
}

#[test]
fn rows_can_be_sorted_by_what_passes() {
    let state = flows((132, 43), 0);
    let by = |state: &State| state.view().sort.map(|(column, _)| column);
    let sorted = (0..12).fold(state, |state, _| if by(&state) == Some(6) { state } else { press(state, "s") });
    let backwards = press(sorted, "S");
    let shown = screen(&backwards);
    let place = |remote: &str| shown.lines().position(|line| line.contains(remote)).unwrap();
    assert!(place("203.0.113.7:51512") < place("192.0.2.53:53"), "{shown}");
}

#[test]
fn packets_are_counted_only_while_somebody_looks_at_the_flows_of_this_host() {
    let state = docker((80, 24));
    assert!(state.counted().is_none(), "on another tab");
    let state = press(state, "4");
    let look = state.look().unwrap();
    assert!(state.counted().is_some_and(|snapshot| Arc::ptr_eq(snapshot, &look.snapshot)));
    assert!(screen(&state).contains("counting packets"), "{}", screen(&state));
    assert!(press(state.clone(), "5").counted().is_none());
    let snapshot = State { origin: Origin::Snapshot("a.json".to_owned()), ..state };
    assert!(snapshot.counted().is_none());
    assert!(!screen(&snapshot).contains("counting"), "{}", screen(&snapshot));
}

#[test]
fn a_screen_that_is_left_alone_counts_nothing_until_a_key_is_pressed() {
    let state = flows((132, 43), 0);
    let alone = update(state, Action::Tick(NOW + 400_000)).0;
    assert!(alone.counted().is_none());
    let shown = screen(&alone);
    assert!(shown.contains("rates are counted again when a key is pressed") && !shown.contains("151 kB"), "{shown}");
    // What was under way comes too late.
    let late = update(alone.clone(), Action::Rates(rates(&alone, 0))).0;
    assert_eq!(screen(&late), shown);
    let again = press(late, "j");
    assert!(again.counted().is_some() && !screen(&again).contains("151 kB"), "{}", screen(&again));
}

#[test]
fn why_nothing_is_counted_is_said_until_the_tab_is_left() {
    let state = press(start(enforced(), Settings::default(), (132, 43)), "4");
    let state = update(state, Action::Uncounted("it needs root".to_owned())).0;
    assert!(screen(&state).contains("rates are not known: it needs root"), "{}", screen(&state));
    let again = press(state, "5 4");
    assert!(screen(&again).contains("counting packets"), "{}", screen(&again));
}

#[test]
fn what_was_counted_is_forgotten_when_counting_begins_anew() {
    let state = update(flows((132, 43), 0), Action::Rates(Arc::default())).0;
    let shown = screen(&state);
    assert!(shown.contains("counting packets") && !shown.contains("151 kB"), "{shown}");
}

#[test]
fn a_frozen_screen_keeps_the_rates_it_had() {
    let frozen = press(flows((132, 43), 0), "space");
    let later = update(frozen.clone(), Action::Rates(rates(&frozen, 300))).0;
    assert!(line(&later, "203.0.113.7:51512").contains("151 kB"), "{}", screen(&later));
    let thawed = press(later, "space");
    assert!(line(&thawed, "203.0.113.7:51512").contains("~605 kB"), "{}", screen(&thawed));
    assert_eq!(thawed.tab(), Tab::Flows);
}

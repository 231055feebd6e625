//! Every screen, every key, hostile names, random actions, and what a frame costs.

use std::{fs, path::Path, sync::Arc};

use insta::assert_snapshot;
use netdiag_model::{
    event::{Decision, Event, LossEvent, VerdictEvent},
    policy::types::Direction,
    snapshot::Snapshot,
};
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
};

use super::{
    Action, Agent, Extra, Followed, Look, Mouse, MouseKind, Origin, Packet, Replay, Request, Settings, State, Stream,
    Tab, Traced, Trouble, draw,
    keymap::{Code, Key},
    theme::{Background, Theme},
    update,
};
use crate::{escape, fixtures};

/// What is cut and what is not.
mod layout;
/// Random actions.
mod random;
/// What passes in flows.
mod rates;
/// What a frame costs.
mod speed;
/// What is typed, found and written.
mod typing;

/// The sizes every screen is seen at.
const SIZES: [(u16, u16); 4] = [(60, 15), (80, 24), (132, 43), (200, 60)];

/// The moment of every look.
const NOW: u64 = 1_795_197_320_000;

fn host(name: &str) -> Snapshot {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(format!("{name}.json"));
    Snapshot::from_json(&fs::read(&file).unwrap()).unwrap()
}

/// A Docker host some of whose ports netdiag enforces, each in another way.
fn enforced() -> Snapshot {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/docker-1-enforcement.json");
    let mut snapshot = host("docker-1");
    snapshot.facts.enforcement = Some(serde_json::from_slice(&fs::read(file).unwrap()).unwrap());
    snapshot
}

/// The same host a second later: every device has sent and received.
fn later(mut snapshot: Snapshot) -> Snapshot {
    for (place, link) in snapshot.facts.networks.iter_mut().flat_map(|network| &mut network.links).enumerate() {
        let more = place as u64;
        link.stats.rx_bytes += 1500 * more;
        link.stats.rx_packets += more;
        link.stats.tx_bytes += 90_000 * more;
        link.stats.tx_packets += 60 * more;
        link.stats.rx_dropped += more % 3;
    }
    snapshot.taken_at += 1;
    snapshot
}

/// Two looks, the second with rates.
fn looks(snapshot: Snapshot) -> (Arc<Look>, Arc<Look>) {
    let extra = |at_ms| Extra {
        at_ms,
        agent: Agent::Answers(Box::new(status()), Some(3)),
        doctor: Some(fixtures::report()),
        took_ms: 84,
    };
    let first = Look::of(&Arc::new(snapshot.clone()), extra(NOW - 1000), None);
    let second = Look::of(&Arc::new(later(snapshot)), extra(NOW), Some(&first));
    (Arc::new(first), Arc::new(second))
}

/// How an agent is that has something to complain about.
fn status() -> netdiag_model::status::Status {
    use netdiag_model::status::{Asked, Losses, Passes, PortStatus, Status};
    let agent = enforced().facts.enforcement.and_then(|loaded| loaded.agent).unwrap();
    Status {
        agent,
        now: NOW / 1000,
        pinned: "/sys/fs/bpf/netdiag".to_owned(),
        files: vec!["/etc/netdiag/policy.d/shop.yaml".to_owned()],
        asked: Asked { security_groups: 3, rules: 9, address_groups: 1, ports: 5 },
        ports: vec![PortStatus {
            id: "a1000001-5e6f-4a1b-8c2d-000000000001".to_owned(),
            instance: Some("web-1".to_owned()),
            device: "veth8e41a07".to_owned(),
            hooks: vec!["tcx egress".to_owned(), "tcx ingress".to_owned()],
            mode: netdiag_model::policy::types::Mode::Filtered,
        }],
        flows: 6,
        losses: Losses { suppressed: 118, lost: 0 },
        passes: Passes { done: 41, failed: 1, last_ms: 12 },
        ..Status::default()
    }
}

fn verdict(number: u64, verdict: Decision, (instance, reason): (&str, &str), rule: Option<&str>) -> Event {
    Event::Verdict(VerdictEvent {
        number,
        time_ns: (NOW - 5000 + number * 250) * 1_000_000,
        port_id: "a1000001-5e6f-4a1b-8c2d-000000000001".to_owned(),
        instance: Some(instance.to_owned()),
        device: Some("veth8e41a07".to_owned()),
        direction: if number.is_multiple_of(3) { Direction::Egress } else { Direction::Ingress },
        verdict,
        reason: reason.to_owned(),
        ethertype: 0x0800,
        protocol: Some(6),
        source: Some("203.0.113.7".parse().unwrap()),
        destination: Some("172.17.0.2".parse().unwrap()),
        source_port: 51_512,
        destination_port: if verdict == Decision::Allow { 443 } else { 22 },
        rule: rule.map(str::to_owned),
        length: 74,
    })
}

fn events() -> Vec<Event> {
    let mut events: Vec<Event> = (1..=40)
        .map(|number| match number % 4 {
            0 => verdict(number, Decision::Allow, ("web-1", "rule"), Some("33cc0001-5e6f-4a1b-8c2d-000000000001")),
            1 => verdict(number, Decision::Deny, ("web-2", "closed"), None),
            _ => verdict(number, Decision::Deny, ("web-1", "no-rule"), None),
        })
        .collect();
    let port_id = Some("a1000001-5e6f-4a1b-8c2d-000000000001".to_owned());
    events.push(Event::Lost(LossEvent { time_ns: NOW * 1_000_000, port_id, suppressed: 118, ..LossEvent::default() }));
    events
}

/// What a state becomes of an action; a path that is asked for is explained at once.
fn after(state: State, action: Action) -> State {
    let (state, request) = update(state, action);
    match request {
        Some(Request::Watch { id, snapshot, at_ms }) => {
            let traced = Traced::explain(&snapshot, &id, at_ms).unwrap();
            update(state, Action::Traced(Arc::new(traced))).0
        }
        _ => state,
    }
}

/// A live host of this look, before any key.
fn start(snapshot: Snapshot, settings: Settings, size: (u16, u16)) -> State {
    let (first, second) = looks(snapshot);
    let mut state = State::new(settings, Origin::Live, size, NOW);
    state.all_events.take(Vec::new(), NOW);
    for action in [
        Action::Look(first),
        Action::Look(second),
        Action::Stream(Stream::Open),
        Action::Events(events()),
        Action::Cpu(4),
        Action::Tick(NOW + 2000),
    ] {
        state = after(state, action);
    }
    state
}

fn docker(size: (u16, u16)) -> State {
    start(enforced(), Settings::default(), size)
}

/// Presses keys by their words.
fn press(state: State, keys: &str) -> State {
    keys.split(' ')
        .filter(|key| !key.is_empty())
        .fold(state, |state, key| after(state, Action::Key(Key::parse(key).unwrap())))
}

/// Types a text, letter by letter.
fn enter_text(state: State, text: &str) -> State {
    text.chars().fold(state, |state, letter| after(state, Action::Key(Key::char(letter))))
}

fn buffer(state: &State) -> Buffer {
    let (width, height) = state.size();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(state, frame)).unwrap();
    terminal.backend().buffer().clone()
}

/// The screen as text.
fn screen(state: &State) -> String {
    let buffer = buffer(state);
    let rows = buffer.content().chunks(usize::from(buffer.area.width).max(1));
    let lines = rows.map(|row| row.iter().map(Cell::symbol).collect::<String>().trim_end().to_owned());
    lines.collect::<Vec<_>>().join("\n")
}

/// The screen with marks where its paint changes.
fn painted(state: &State) -> String {
    let buffer = buffer(state);
    let mut text = String::new();
    for row in buffer.content().chunks(usize::from(buffer.area.width)) {
        let mut paint = String::new();
        for cell in row {
            let modifiers = if cell.modifier.is_empty() { String::new() } else { format!("+{:?}", cell.modifier) };
            let modifiers = modifiers.replace("Modifier", "").replace(['(', ')'], "");
            let now = format!("{}{modifiers}", cell.fg).replace("Reset", "");
            if now != paint {
                text.extend(["«", &now, "»"]);
                paint = now;
            }
            text.push_str(cell.symbol());
        }
        text = text.trim_end().to_owned();
        text.push('\n');
    }
    text
}

/// The key of a tab.
fn digit(tab: Tab) -> String {
    (tab.place() + 1).to_string()
}

fn on(state: State, tab: Tab) -> State {
    let state = if state.tab() == tab { state } else { press(state, &digit(tab)) };
    // A second look at the same path gives it rates.
    match state.traced.clone() {
        Some(_) if tab == Tab::Path => {
            let mut next = state.newest.as_deref().unwrap().clone();
            next.at_ms += 1000;
            next.snapshot = Arc::new(later((*next.snapshot).clone()));
            after(state, Action::Look(Arc::new(next)))
        }
        _ => state,
    }
}

#[test]
fn every_tab_at_every_size() {
    for size in SIZES {
        for tab in Tab::ALL {
            let state = on(docker(size), tab);
            assert_snapshot!(format!("{}-{}x{}", tab.title().to_lowercase(), size.0, size.1), screen(&state));
        }
    }
}

#[test]
fn paths_of_real_hosts() {
    for (name, address) in [("neutron-ovs-compute-1", "172.24.4.6"), ("hybrid-compute-1", "instance-00000002")] {
        for size in SIZES {
            let state = start(host(name), Settings::default(), size);
            let state = press(enter_text(press(state, "/"), address), "enter enter");
            let state = press(on(state, Tab::Path), "G");
            assert_snapshot!(format!("path-{name}-{}x{}", size.0, size.1), screen(&state));
        }
    }
}

#[test]
fn without_colour_the_selection_is_reversed_and_every_state_a_word() {
    let settings = || Settings { theme: Theme { colour: false, ..Theme::default() }, ..Settings::default() };
    for tab in Tab::ALL {
        let state = on(start(enforced(), settings(), (80, 24)), tab);
        let painted = painted(&state);
        let coloured = ["Red", "Green", "Yellow", "Blue", "Magenta", "Cyan", "Gray", "Black", "White"];
        assert!(!coloured.iter().any(|colour| painted.contains(&format!("«{colour}"))), "{painted}");
        assert!(painted.contains("REVERSED"), "{painted}");
        assert_snapshot!(format!("no-colour-{}", tab.title().to_lowercase()), painted);
    }
}

#[test]
fn in_ascii_nothing_else_is_on_the_screen() {
    let settings = || Settings { ascii: true, ..Settings::default() };
    for (width, height) in [(80, 24), (132, 43)] {
        for tab in Tab::ALL {
            let state = on(start(enforced(), settings(), (width, height)), tab);
            let shown = screen(&state);
            assert!(shown.is_ascii(), "{shown}");
            for keys in ["?", "d", "y", "c", "e", "space", "s", "a"] {
                let shown = screen(&press(state.clone(), keys));
                assert!(shown.is_ascii(), "{keys}: {shown}");
            }
            if width == 80 {
                assert_snapshot!(format!("ascii-{}", tab.title().to_lowercase()), shown);
            }
        }
    }
}

#[test]
fn colours_on_a_dark_and_on_a_light_ground() {
    for (name, background) in [("dark", Background::Dark), ("light", Background::Light)] {
        let settings = || Settings { theme: Theme { background, ..Theme::default() }, ..Settings::default() };
        for tab in Tab::ALL {
            let state = on(start(enforced(), settings(), (100, 24)), tab);
            assert_snapshot!(format!("{name}-{}", tab.title().to_lowercase()), painted(&state));
        }
    }
}

#[test]
fn what_covers_the_table() {
    let state = docker((80, 24));
    for (name, keys) in [
        ("help", "?"),
        ("describe", "d"),
        ("json", "y"),
        ("columns", "c"),
        ("export", "e"),
        ("policy-describe", "5 j d"),
        ("path-export", "2 e"),
        ("doctor-json", "7 y"),
    ] {
        assert_snapshot!(format!("overlay-{name}"), screen(&press(state.clone(), keys)));
    }
    let small = press(docker((60, 15)), "? pagedown");
    assert_snapshot!("overlay-help-60x15", screen(&small));
}

#[test]
fn filter_sort_groups_problems_and_columns() {
    let state = docker((100, 20));
    let filtered = enter_text(press(state.clone(), "/"), "inst:web");
    assert_snapshot!("typing-a-filter", screen(&filtered));
    assert_snapshot!("filtered", screen(&press(filtered, "enter")));
    assert_snapshot!("nothing-wanted", screen(&press(enter_text(press(state.clone(), "/"), "nowhere"), "enter")));
    assert_snapshot!("sorted", screen(&press(state.clone(), "s s S")));
    assert_snapshot!("grouped", screen(&press(state.clone(), "a right j")));
    assert_snapshot!("live-by-reason", screen(&press(state.clone(), "3 a")));
    assert_snapshot!("problems", screen(&press(state.clone(), "z")));
    assert_snapshot!("wide", screen(&press(state.clone(), "w right right")));
    assert_snapshot!("columns-off", screen(&press(state.clone(), "c a f esc")));
    assert_snapshot!("past-flows", screen(&press(state.clone(), "4 t")));
    assert_snapshot!("completed", screen(&press(enter_text(press(state, ":"), "pa"), "tab w e tab")));
}

#[test]
fn columns_are_switched_from_the_start_as_the_settings_say() {
    let mut settings = Settings::default();
    settings.switch_columns("instances", "mf").unwrap();
    let shown = screen(&start(enforced(), settings, (132, 20)));
    assert!(shown.contains("MAC") && !shown.contains("FLOATING IPS"), "{shown}");
}

#[test]
fn frozen_stale_replayed_recorded() {
    let state = press(docker((132, 20)), "space");
    let (_, look) = looks(enforced());
    let behind = after(after(state, Action::Look(look)), Action::Events(events()));
    assert_snapshot!("frozen", screen(&behind));
    let live = press(behind, "space");
    assert!(!screen(&live).contains("FROZEN"));
    assert_snapshot!("old", screen(&after(live.clone(), Action::Tick(NOW + 20_000))));
    assert_snapshot!("stale", screen(&after(live.clone(), Action::Tick(NOW + 90_000))));
    let replay = Replay { file: "morning.jsonl".to_owned(), speed: 4.0, at: 3, of: 120 };
    assert_snapshot!("replay", screen(&after(live, Action::Replay(replay))));
    let settings = Settings { recording: true, ..Settings::default() };
    assert_snapshot!("quit-while-recording", screen(&press(start(enforced(), settings, (80, 24)), "q")));
}

#[test]
fn too_small_says_so_and_nothing_yet_says_why() {
    for size in [(59, 15), (60, 14), (1, 1), (10, 3), (200, 2)] {
        let shown = screen(&docker(size));
        assert!(shown.len() <= usize::from(size.0) * 4, "{shown}");
        assert!(size.0 < 50 || shown.contains("needs 60 x 15"), "{shown}");
    }
    let empty = State::new(Settings::default(), Origin::Live, (80, 24), NOW);
    assert_snapshot!("before-the-first-look", screen(&empty));
    let trouble = Trouble {
        what: "this host could not be looked at".to_owned(),
        cause: "read /proc: permission denied".to_owned(),
        advice: "run as root, or show a snapshot with --from".to_owned(),
    };
    assert_snapshot!("trouble", screen(&after(empty, Action::Trouble(Some(trouble.clone())))));
    assert_snapshot!("trouble-after-a-look", screen(&after(docker((80, 24)), Action::Trouble(Some(trouble)))));
    for tab in Tab::ALL {
        let state = State::new(Settings::default(), Origin::Snapshot("host.json".to_owned()), (80, 24), NOW);
        let look = Look::of(&Arc::new(nothing()), Extra { at_ms: NOW, ..Extra::default() }, None);
        let state = on(after(state, Action::Look(Arc::new(look))), tab);
        assert_snapshot!(format!("empty-{}", tab.title().to_lowercase()), screen(&state));
    }
}

/// A host with nothing on it.
fn nothing() -> Snapshot {
    let mut snapshot = host("docker-1");
    snapshot.facts = netdiag_model::fact::Facts::default();
    snapshot
}

/// A look whose every text was chosen by a tenant with bad intent.
fn hostile_look() -> Look {
    let mut look = Look::of(&Arc::new(enforced()), Extra { at_ms: NOW, ..Extra::default() }, None);
    let evil = fixtures::listing().instances[3].identity.name.clone();
    for row in &mut look.listing.instances {
        row.identity.name.clone_from(&evil);
        row.identity.hostname = Some(evil.clone());
        row.identity.labels.insert(evil.clone(), evil.clone());
        for interface in &mut row.interfaces {
            interface.network_name = Some(evil.clone());
            interface.host_device = Some(evil.clone());
        }
    }
    look.listing.hostname.clone_from(&evil);
    look.flows = fixtures::enforced::flows();
    for rule in &mut look.rules {
        rule.group.clone_from(&evil);
        rule.instances = vec![evil.clone()];
    }
    for fact in &mut look.agent {
        fact.value.clone_from(&evil);
    }
    for check in &mut look.doctor.checks {
        check.result.clone_from(&evil);
    }
    look
}

/// The same, with a path and events of that kind.
fn hostile(size: (u16, u16)) -> State {
    let mut state = State::new(Settings::default(), Origin::Snapshot("\u{1b}[2Jx".to_owned()), size, NOW);
    state.watched = Some("x".to_owned());
    let state = after(state, Action::Look(Arc::new(hostile_look())));
    let traced = Traced::new("x".to_owned(), NOW, fixtures::hostile());
    let state = after(state, Action::Traced(Arc::new(traced)));
    let state = after(state, Action::Stream(Stream::Absent("\u{1b}]0;x\u{7}".to_owned())));
    let state =
        after(state, Action::Packets(vec![packet("DROPPED", super::sheet::Health::Broken, "\u{1b}[2J\u{202e}")]));
    after(state, Action::Events(fixtures::enforced::events()))
}

#[test]
fn nothing_hostile_reaches_the_terminal() {
    for (size, tab) in SIZES.into_iter().flat_map(|size| Tab::ALL.map(|tab| (size, tab))) {
        let mut state = hostile(size);
        state.tab = tab;
        let state = after(state, Action::Resize(size.0, size.1));
        for keys in ["", "d", "y", "a", "a right", "w right", "s", "c"] {
            let shown = screen(&press(state.clone(), keys));
            let found = shown.chars().find(|character| *character != '\n' && escape::is_hostile(*character));
            assert_eq!(found, None, "{tab:?} {keys}: {shown}");
        }
    }
    assert_snapshot!("hostile-instances", screen(&hostile((100, 20))));
}

#[test]
fn json_of_a_row_is_what_the_command_prints() {
    use netdiag_model::{groups, inventory::Inventory, trace};
    use serde_json::Value;

    use crate::json;

    fn parsed(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Value {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        serde_json::from_slice(&out).unwrap()
    }
    let snapshot = later(enforced());
    let inventory = Inventory::build(&snapshot);
    let state = docker((200, 60));
    let shown =
        |state: &State, row| -> Value { serde_json::from_str(&super::export::row(state, row).unwrap()).unwrap() };

    let list = parsed(|out| json::render(&trace::list(&inventory), out));
    assert_eq!(shown(&state, 0), list["instances"][0]);
    let flows = groups::flows(&inventory, None, &groups::FlowFilter::default(), groups::FlowOrder::default());
    assert_eq!(shown(&press(state.clone(), "4"), 2), parsed(|out| json::render(&flows, out))["flows"][2]);
    let path = press(enter_text(press(state.clone(), ":"), "path web-1"), "enter");
    let instance = inventory.instances.iter().find(|one| one.identity.name == "web-1").unwrap();
    let traced = parsed(|out| json::render(&trace::explain(&inventory, instance), out));
    assert_eq!(shown(&path, 1), traced["interfaces"][0]["hops"][1]);
    let live = press(state.clone(), "3");
    assert_eq!(shown(&live, 0), parsed(|out| json::line(&events()[0], out)));
    let doctor = press(state.clone(), "7");
    assert_eq!(shown(&doctor, 1), parsed(|out| json::render(&fixtures::report(), out))["checks"][1]);
    let agent = press(state.clone(), "6");
    assert_eq!(shown(&agent, 0), parsed(|out| json::render(&status(), out)));
    let all: Vec<Value> =
        inventory.instances.iter().map(|one| parsed(|out| json::render(&groups::show(&inventory, one), out))).collect();
    let ports = all.iter().flat_map(|shown| shown["ports"].as_array().unwrap());
    let rules: Vec<&Value> = ports.filter_map(|port| port["rules"].as_array()).flatten().collect();
    let policy = press(state, "5");
    for row in 0..policy.view().total {
        let wanted = shown(&policy, row);
        assert!(wanted["standing"].is_null() || rules.contains(&&wanted), "{wanted} is none of {rules:?}");
    }
}

#[test]
fn the_view_is_written_as_its_command_prints_it_with_a_harmless_name() {
    let state = enter_text(press(docker((80, 24)), "/"), "inst:web-1");
    let state = press(state, "enter e");
    let (_, request) = update(state, Action::Key(Key::char('j')));
    let Some(Request::Write { name, bytes }) = request else { panic!("nothing is written") };
    assert!(name.starts_with("netdiag-instances-") && extension(&name) == Some("json"), "{name}");
    assert!(name.chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character)), "{name}");
    let document: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(document["instances"].as_array().unwrap().len(), 1, "only what is shown: {document}");
    let path = press(docker((80, 24)), "2 e");
    let (_, request) = update(path, Action::Key(Key::char('m')));
    assert!(matches!(request, Some(Request::Write { name, .. }) if extension(&name) == Some("mmd")));
}

/// The end of a name.
fn extension(name: &str) -> Option<&str> {
    Path::new(name).extension()?.to_str()
}

/// The screen without what is merely said in the last line.
fn effect(mut state: State) -> String {
    state.message = None;
    painted(&state)
}

#[test]
fn every_key_of_the_table_does_something_where_it_is_listed() {
    let replay = Origin::Recording(Replay { of: 3, at: 2, speed: 1.0, file: String::new() });
    for origin in [Origin::Live, replay] {
        for tab in Tab::ALL {
            let mut fresh = docker((100, 16));
            fresh.origin = origin.clone();
            let fresh = on(press(enter_text(press(fresh, ":"), "path web-1"), "enter"), tab);
            let from_another = press(fresh.clone(), if tab == Tab::Doctor { "6" } else { "7" });
            let ways = ["", "G", "g", "j", "a", "a right", "w right", "s", "g j j"];
            let mut states: Vec<State> = ways.iter().map(|keys| press(fresh.clone(), keys)).collect();
            states.push(press(enter_text(press(fresh.clone(), "/"), "e"), "enter"));
            for binding in fresh.settings.keys.on(tab, &origin) {
                for key in &binding.keys {
                    let mut tried = states.iter().filter(|state| state.tab() == tab);
                    let does = |state: &State| {
                        let before = effect(state.clone());
                        let (next, request) = update(state.clone(), Action::Key(*key));
                        request.is_some() || effect(next) != before
                    };
                    // The key of a tab does nothing on that tab itself.
                    let itself = binding.command == super::keymap::Command::Tab(tab);
                    let there = itself && does(&from_another);
                    assert!(there || tried.any(does), "{key} ({}) does nothing on {tab:?}", binding.name);
                }
            }
        }
    }
}

#[test]
fn what_is_selected_stays_selected_wherever_it_is() {
    let state = press(docker((80, 24)), "j j j");
    let selected = state.view().selected.clone().unwrap();
    let turned = press(state.clone(), "s S");
    assert_eq!(turned.view().selected.as_ref(), Some(&selected));
    assert_ne!(turned.view().cursor, state.view().cursor);
    let narrow = after(turned, Action::Resize(60, 15));
    assert_eq!(narrow.view().selected.as_ref(), Some(&selected));
    let (_, look) = looks(enforced());
    let mut fewer = (*look).clone();
    fewer.interfaces.remove(0);
    let fewer = after(narrow, Action::Look(Arc::new(fewer)));
    assert_eq!(fewer.view().selected.as_ref(), Some(&selected));
}

#[test]
fn enter_goes_to_the_path_and_esc_the_same_way_back() {
    let state = press(docker((80, 24)), "j enter");
    assert_eq!(state.tab(), Tab::Path);
    assert!(screen(&state).contains("Instances > Path of "), "{}", screen(&state));
    let back = press(enter_text(press(state, "/"), "eth0"), "enter esc");
    assert_eq!((back.tab(), back.view().filter.is_empty()), (Tab::Path, true), "the filter first");
    assert_eq!(press(back, "esc").tab(), Tab::Instances);
}

#[test]
fn ctrl_c_ends_it_whatever_covers_the_screen_and_q_asks_while_recording() {
    for keys in ["", "?", "/", ":", "c", "e", "y"] {
        let state = press(docker((80, 24)), keys);
        let (_, request) = update(state, Action::Key(Key::ctrl('c')));
        assert!(matches!(request, Some(Request::Quit { keep: false })), "{keys}");
    }
    let settings = Settings { recording: true, ..Settings::default() };
    let (asked, request) = update(start(enforced(), settings, (80, 24)), Action::Key(Key::char('q')));
    assert!(request.is_none());
    let (on, none) = update(asked.clone(), Action::Key(Key::char('x')));
    assert!(none.is_none() && on.overlay.is_none());
    assert!(matches!(update(asked, Action::Key(Key::char('q'))).1, Some(Request::Quit { .. })));
}

/// A packet at a device.
fn frame(name: &str, text: &str) -> super::packet::Frame {
    use netdiag_model::live::{Layer, Sighting, View, What};
    let sighting = Sighting {
        time_ns: NOW * 1_000_000,
        cpu: 0,
        link: None,
        what: What::Received(View::Tc),
        buffer: 0,
        length: 74,
        mark: 0,
        tag: None,
        layer: Layer::Ethernet,
        head: vec![0; 60],
    };
    super::packet::Frame { sighting, name: name.to_owned(), comment: format!("instance web-1: {text}") }
}

/// A packet that was watched.
fn packet(end: &'static str, health: super::sheet::Health, text: &str) -> Packet {
    Packet {
        time_ns: NOW * 1_000_000,
        instance: Some(text.to_owned()),
        way: "in",
        health,
        end,
        what: "tcp 203.0.113.7:51512 > 172.17.0.2:22 SYN".to_owned(),
        place: "docker0".to_owned(),
        reason: text.to_owned(),
        sentence: text.to_owned(),
        length: 74,
        steps: vec![
            ("at".to_owned(), "eth0, seen first".to_owned()),
            ("at".to_owned(), "docker0, 12 us later".to_owned()),
        ],
        document: "{\n  \"what\": \"packet\"\n}\n".to_owned(),
        frames: vec![frame("eth0@web-1", text), frame("docker0@host", text)],
    }
}

#[test]
fn packets_are_watched_by_a_key_shown_among_verdicts_and_found_by_their_ends() {
    use super::sheet::Health;
    let (state, request) = update(docker((132, 20)), Action::Key(Key::char('l')));
    let instance = state.look().unwrap().listing.instances[0].identity.container_id.clone();
    assert!(matches!(&request, Some(Request::Packets { id, .. }) if *id == instance), "the selected one");
    let state = after(state, Action::Watching(Some("watching packets of web-1 at 4 devices; 0 lost".to_owned())));
    let seen =
        [("delivered", Health::Ok, ""), ("DROPPED", Health::Broken, "iptables rule"), ("VANISHED", Health::Broken, "")];
    let packets = seen.map(|(end, health, text)| packet(end, health, text)).to_vec();
    let state = press(after(state, Action::Packets(packets)), "3");
    assert_snapshot!("packets", screen(&state));
    assert_snapshot!("packet-describe", screen(&press(state.clone(), "k d")));
    let found = press(enter_text(press(state.clone(), "/"), "port:51512 verdict:dropped"), "enter");
    assert_eq!(found.view().entries.len(), 1);
    let (stopped, request) = update(state, Action::Key(Key::char('l')));
    assert!(matches!(request, Some(Request::NoPackets)) && stopped.watching.is_none());
    let (_, request) = update(press(stopped, "4"), Action::Key(Key::char('l')));
    assert!(matches!(request, Some(Request::Packets { id: None, .. })), "the whole host, where no instance is meant");
}

/// The path of an instance of a real host, packets of which are followed.
fn followed(size: (u16, u16)) -> State {
    let state = start(host("neutron-ovs-compute-1"), Settings::default(), size);
    let state = on(press(enter_text(press(state, "/"), "172.24.4.6"), "enter enter"), Tab::Path);
    let state = press(state, "l");
    let traced = state.traced.clone().unwrap();
    let followed = Followed::made(&traced.id, &traced.trace, 8);
    let state = after(state, Action::Watching(Some("watching packets of web at 9 devices; 0 lost".to_owned())));
    after(state, Action::Followed(Arc::new(followed)))
}

#[test]
fn a_path_whose_packets_are_followed_says_how_many_come_how_long_they_take_and_where_they_die() {
    for size in SIZES {
        let state = followed(size);
        assert_snapshot!(format!("followed-{}x{}", size.0, size.1), screen(&press(state, "g j j j")));
    }
    let state = press(followed((132, 43)), "w");
    let died = state.view().entries.iter().filter(|entry| matches!(entry, super::state::Entry::Row(row) if super::sheet::of(&state, Tab::Path).health(*row) == super::sheet::Health::Broken));
    assert_eq!(died.count(), 1);
    assert!(screen(&state).contains("3 of 210 packets died: no rule of security group web"), "{}", screen(&state));
    let frozen = press(state.clone(), "space");
    let none = Arc::new(Followed::default());
    let still = after(frozen, Action::Followed(none));
    assert!(screen(&still).contains("210"), "{}", screen(&still));
    let stopped = press(state, "l");
    assert!(!screen(&stopped).contains("P99"), "{}", screen(&stopped));
}

/// The name and the content of the file a letter writes.
fn written(state: &State, letter: char) -> Result<(String, Vec<u8>), String> {
    match update(press(state.clone(), "e"), Action::Key(Key::char(letter))) {
        (_, Some(Request::Write { name, bytes })) => Ok((name, bytes)),
        (state, _) => Err(state.message.map(|(text, _)| text).unwrap_or_default()),
    }
}

#[test]
fn packets_that_are_shown_are_written_with_their_bytes_at_every_device() {
    use super::sheet::Health;
    let state = press(docker((132, 20)), "3");
    let none = written(&state, 'p').unwrap_err();
    assert!(none.contains("watch some first"), "{none}");
    let packets = vec![packet("delivered", Health::Ok, "one"), packet("DROPPED", Health::Broken, "two")];
    let state = after(state, Action::Packets(packets));
    let (name, both) = written(&state, 'p').unwrap();
    assert!(extension(&name) == Some("pcapng") && both.starts_with(&0x0a0d_0d0a_u32.to_ne_bytes()), "{name}");
    let state = press(enter_text(press(state, "/"), "verdict:dropped"), "enter");
    let (_, one) = written(&state, 'p').unwrap();
    let comments = |file: &[u8], text: &[u8]| file.windows(text.len()).filter(|window| *window == text).count();
    assert_eq!((comments(&both, b"web-1: one"), comments(&both, b"web-1: two")), (2, 2));
    assert_eq!((comments(&one, b"web-1: one"), comments(&one, b"web-1: two")), (0, 2), "only what is shown");
    assert!(written(&press(state, "4"), 'p').is_err(), "only packets are written so");
}

#[test]
fn the_rows_that_are_shown_are_written_as_a_table_with_every_column() {
    let state = press(enter_text(press(docker((60, 15)), "/"), "inst:web"), "enter");
    let (name, bytes) = written(&state, 't').unwrap();
    assert_eq!(extension(&name), Some("txt"));
    assert_snapshot!("table", String::from_utf8(bytes).unwrap());
    let (_, bytes) = written(&press(hostile((80, 24)), "1"), 't').unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert!(!text.chars().any(|character| character != '\n' && escape::is_hostile(character)), "{text}");
}

#[test]
fn a_look_is_not_old_while_the_next_one_is_not_due() {
    let seen = |state: State, later| screen(&after(state, Action::Tick(NOW + later)));
    let planned = after(docker((132, 20)), Action::NextLook(NOW + 40_000));
    assert!(seen(planned.clone(), 30_000).contains("idle, seen 30s ago"));
    assert!(seen(planned, 90_000).contains("STALE"));
    assert!(seen(docker((132, 20)), 30_000).contains("old: seen 30s ago"));
}

#[test]
fn frozen_the_rows_stay_and_what_came_is_there_afterwards() {
    let state = press(docker((80, 24)), "3 space");
    let before = state.view().entries.len();
    let state = after(state, Action::Events(events()));
    assert_eq!(state.view().entries.len(), before);
    assert_eq!(state.events_behind(), 41);
    assert_eq!(press(state, "space").view().entries.len(), before + 41);
}

#[test]
fn new_events_are_followed_until_the_cursor_leaves_the_end() {
    let state = press(docker((80, 24)), "3 G");
    let state = after(state, Action::Events(events()));
    assert_eq!(state.view().cursor + 1, state.view().entries.len());
    let state = press(state, "k k k");
    let selected = state.view().selected.clone();
    let state = after(state, Action::Events(events()));
    assert_eq!(state.view().selected, selected);
}

fn click(state: State, x: u16, y: u16) -> State {
    after(state, Action::Mouse(Mouse { kind: MouseKind::Click, x, y }))
}

#[test]
fn the_mouse_selects_goes_in_turns_the_wheel_and_changes_tabs() {
    let state = click(docker((80, 24)), 5, 6);
    assert_eq!(state.view().cursor, 2);
    let inside = click(state.clone(), 5, 6);
    assert_eq!(inside.tab(), Tab::Path, "twice at once goes in");
    let slow = click(after(state.clone(), Action::Tick(NOW + 9000)), 5, 6);
    assert_eq!(slow.tab(), Tab::Instances, "twice, but not at once");
    let wheel = after(docker((80, 24)), Action::Mouse(Mouse { kind: MouseKind::WheelDown, x: 5, y: 6 }));
    assert_eq!(wheel.view().cursor, 3);
    let tab = click(docker((80, 24)), 25, 1);
    assert_eq!(tab.tab(), Tab::Live);
    let picture = press(enter_text(press(docker((132, 43)), ":"), "path web-1"), "enter");
    let shown = screen(&picture);
    let line = shown.lines().position(|line| line.contains("next hop")).unwrap();
    let hop = click(picture, 10, u16::try_from(line).unwrap());
    assert!(super::sheet::of(&hop, Tab::Path).details(hop.view().cursor)[0].1.starts_with("next hop"));
}

#[test]
fn a_click_on_a_value_copies_it_and_one_beside_closes() {
    let state = press(docker((80, 24)), "d");
    let line = screen(&state).lines().position(|line| line.contains("instance ")).unwrap();
    let click = Action::Mouse(Mouse { kind: MouseKind::Click, x: 20, y: u16::try_from(line).unwrap() });
    let (_, request) = update(state.clone(), click);
    let first = state.look().unwrap().listing.instances[0].identity.name.clone();
    assert!(matches!(request, Some(Request::Copy(value)) if value == first));
    let closed = after(state, Action::Mouse(Mouse { kind: MouseKind::Click, x: 0, y: 0 }));
    assert!(closed.overlay.is_none());
}

#[test]
fn commands_do_what_they_say_and_say_what_there_is_otherwise() {
    let run = |text: &str| press(enter_text(press(docker((100, 24)), ":"), text), "enter");
    assert_eq!(run("path web-1").tab(), Tab::Path);
    assert_eq!(run("sg web").view().filter.text(), "sg:web");
    assert_eq!(run("tab flows").tab(), Tab::Flows);
    assert_eq!(run("inst api").view().filter.text(), "inst:api");
    assert!(run("sort drops").view().sort.is_some());
    for wrong in ["fly", "path nobody", "tab x", "sort x", "hop nowhere", "export pdf", "export mermaid"] {
        assert!(run(wrong).message.is_some(), "{wrong}");
    }
    let hop = press(enter_text(press(run("path web-1"), ":"), "hop docker0"), "enter");
    assert!(hop.view().selected.as_ref().unwrap().ends_with("docker0"), "{:?}", hop.view().selected);
}

#[test]
fn keys_of_text_edit_it() {
    let state = enter_text(press(docker((100, 24)), "/"), "inst:web api");
    assert_eq!(press(state.clone(), "ctrl-w").view().filter.text(), "inst:web");
    assert_eq!(press(state.clone(), "backspace").view().filter.text(), "inst:web ap");
    assert!(press(state.clone(), "ctrl-u").view().filter.is_empty());
    assert!(press(state, "esc").view().filter.is_empty(), "what was typed is taken back");
    assert_eq!(Key::parse("esc").unwrap().code, Code::Esc);
}

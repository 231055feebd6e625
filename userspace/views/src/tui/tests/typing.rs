//! What is typed and asked for without sense is said to be so, and what is written and found is what is seen.

use std::sync::Arc;

use netdiag_model::{
    event::{Event, LossEvent},
    fact::enforcement::WayCount,
    policy::types::Direction,
};
use serde_json::Value;

use super::{
    NOW, Settings, after, docker, enforced, enter_text, fixtures, later, press, rates, screen, start, status, written,
};
use crate::tui::{Action, Agent, Extra, Look, Request, Tab, keymap::Key, update};

/// The last line of a screen.
fn last_line(state: &super::State) -> String {
    screen(state).lines().last().unwrap_or_default().to_owned()
}

#[test]
fn a_filter_that_makes_no_sense_is_not_taken_and_stays_to_be_mended() {
    let state = press(enter_text(press(docker((80, 24)), "/"), "inst:web /(/"), "enter");
    assert!(last_line(&state).starts_with("/inst:web /(/"), "{}", screen(&state));
    assert!(last_line(&state).contains("/(/: "), "{}", screen(&state));
    assert_eq!(state.view().filter.text(), "inst:web /", "what made sense before");
    let mended = press(state, "backspace backspace");
    assert!(!last_line(&mended).contains("/(/: "), "it is not said of what makes sense: {}", screen(&mended));
    let taken = press(mended, "enter");
    assert!(taken.input.is_none() && taken.view().filter.text() == "inst:web /", "{:?}", taken.input);
}

#[test]
fn a_word_that_looks_like_a_keyword_is_said_to_be_text() {
    let state = enter_text(press(docker((80, 24)), "/"), "instance:web");
    assert!(last_line(&state).contains("instance: is text; keywords: inst sg"), "{}", screen(&state));
    let state = press(state, "ctrl-u");
    assert!(last_line(&state).contains("inst: sg: port:"), "{}", screen(&state));
}

#[test]
fn of_a_long_filter_the_end_is_seen() {
    let state = enter_text(press(docker((60, 15)), "/"), &format!("{}end", "inst:web ".repeat(12)));
    let line = last_line(&state);
    assert!(line.starts_with("/…") && line.ends_with("inst:web end"), "{}", screen(&state));
}

#[test]
fn what_was_said_before_is_no_hint_about_what_is_typed() {
    let state = after(docker((80, 24)), Action::Say("written to /tmp/x".to_owned()));
    assert!(last_line(&state).contains("written to"));
    assert!(!last_line(&press(state.clone(), "/")).contains("written to"));
    assert!(!last_line(&press(press(state, ":"), "x")).contains("written to"));
}

#[test]
fn packets_are_watched_of_whom_one_has_selected_and_of_nobody_else() {
    let none = press(enter_text(press(docker((100, 24)), "/"), "nowhere"), "enter");
    let group = press(docker((100, 24)), "a");
    for state in [none, group] {
        let (state, request) = update(state, Action::Key(Key::char('l')));
        assert!(request.is_none() && state.watching.is_none(), "{request:?}");
        assert!(last_line(&state).contains("select an instance first"), "{}", screen(&state));
        let path = press(state, "2");
        assert!(path.watched.is_none(), "{:?}", path.watched);
        assert!(screen(&path).contains("no instance is selected"), "{}", screen(&path));
        let narrow = after(path, Action::Resize(60, 15));
        assert!(screen(&narrow).contains("no instance is selected"), "{}", screen(&narrow));
    }
}

#[test]
fn both_keys_that_quit_ask_while_something_is_recorded() {
    let settings = Settings { recording: true, ..Settings::default() };
    let (state, request) = update(start(enforced(), settings, (80, 24)), Action::Key(Key::char('Q')));
    assert!(request.is_none() && screen(&state).contains("A recording is being made"), "{}", screen(&state));
    let (_, request) = update(state, Action::Key(Key::char('Q')));
    assert!(matches!(request, Some(Request::Quit { keep: true })));
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn rows_of_folded_groups_are_written_like_all_others() {
    let state = docker((100, 24));
    let (_, all) = written(&state, 'j').unwrap();
    let (_, folded) = written(&press(state.clone(), "a a"), 'j').unwrap();
    let count = |bytes: &[u8]| json(bytes)["instances"].as_array().unwrap().len();
    assert_eq!((count(&all), count(&folded)), (9, 9));
    let filtered = press(enter_text(press(state, "/"), "inst:web"), "enter a");
    assert_eq!(count(&written(&filtered, 'j').unwrap().1), 2);
}

#[test]
fn of_the_policy_the_rules_that_are_shown_are_written() {
    let state = press(docker((100, 24)), "5");
    let rules = |state: &super::State| -> Vec<String> {
        let all = json(&written(state, 'j').unwrap().1);
        let ports = all.as_array().unwrap().iter().flat_map(|one| one["ports"].as_array().unwrap().clone());
        let rules = ports.flat_map(|port| port["rules"].as_array().cloned().unwrap_or_default());
        rules.map(|rule| rule["rule"]["security_group"]["name"].as_str().unwrap_or("?").to_owned()).collect()
    };
    let all = rules(&state);
    assert!(all.iter().any(|group| group == "web") && all.iter().any(|group| group == "db"), "{all:?}");
    let web = rules(&press(enter_text(press(state, "/"), "tcp 443"), "enter"));
    assert!(!web.is_empty() && web.len() < all.len() && web.iter().all(|group| group == "web"), "{web:?}");
}

#[test]
fn flows_and_verdicts_are_found_by_the_group_of_their_rule() {
    let flows = press(enter_text(press(docker((132, 43)), "4 /"), "sg:web"), "enter");
    let shown = screen(&flows);
    assert!(shown.contains("203.0.113.7:51512") && !shown.contains("172.17.0.2:39112"), "{shown}");
    let mut state = docker((132, 43));
    let rule = state.look().unwrap().flows.rows.iter().find_map(|row| row.rule.clone()).unwrap();
    let Event::Verdict(event) = &super::events()[3] else { panic!("no verdict") };
    let event = netdiag_model::event::VerdictEvent { rule: Some(rule.clone()), ..event.clone() };
    state = press(after(state, Action::Events(vec![Event::Verdict(event)])), "3");
    let group = state.look().unwrap().rules_of(&rule).next().unwrap().group.clone();
    let found = press(enter_text(press(state.clone(), "/"), &format!("sg:{group}")), "enter");
    assert_eq!(found.view().entries.len(), 1, "{}", screen(&found));
    assert!(screen(&press(found, "d")).contains(&format!("{group}: ")), "the rule in words");
    let none = press(enter_text(press(state, "/"), "sg:nobody"), "enter");
    assert_eq!(none.view().entries.len(), 0);
}

#[test]
fn of_verdicts_that_were_lost_it_is_said_whose() {
    let state = docker((132, 43));
    let port = enforced()
        .facts
        .enforcement
        .unwrap()
        .ports
        .iter()
        .map(|port| port.port_id.clone())
        .find(|port| state.look().unwrap().owner(port).is_some());
    let owner = state.look().unwrap().owner(port.as_ref().unwrap()).unwrap().to_owned();
    let loss = LossEvent { port_id: port, lost: 9, ..LossEvent::default() };
    let state = press(after(state, Action::Events(vec![Event::Lost(loss)])), "3 G");
    let shown = screen(&state);
    let line = shown.lines().find(|line| line.contains("9 ring full")).unwrap();
    assert!(line.contains(&owner), "{line}");
    let found = press(enter_text(press(state, "/"), &format!("inst:{owner} verdict:lost reason:ring")), "enter");
    assert_eq!(found.view().entries.len(), 1, "{}", screen(&found));
}

#[test]
fn of_a_flow_past_the_router_it_is_said_why_its_rate_is_not_known_and_what_its_port_has() {
    let ways = |more: u64| {
        let mut snapshot = enforced();
        let way = |direction, packets, bytes| WayCount { direction, way: "fast".to_owned(), packets, bytes };
        for port in &mut snapshot.facts.enforcement.as_mut().unwrap().ports {
            port.ways = vec![
                way(Direction::Ingress, 100 + 20 * more, 1000 + 30_000 * more),
                way(Direction::Egress, 7 + 10 * more, 70 + 2_000 * more),
                WayCount { direction: Direction::Egress, way: "slow-flow".to_owned(), packets: more, bytes: more },
            ];
        }
        snapshot
    };
    let look = |snapshot, at_ms, before: Option<&Look>| {
        let agent = Agent::Answers(Box::new(status()), None);
        let extra = Extra { at_ms, agent, doctor: Some(fixtures::report()), took_ms: 1 };
        Arc::new(Look::of(&Arc::new(snapshot), extra, before))
    };
    let first = look(ways(0), NOW, None);
    let second = look(later(ways(1)), NOW + 2000, Some(&first));
    let state = press(after(docker((132, 43)), Action::Look(second)), "4");
    let counted = rates::counted(&state, 0, vec!["172.17.0.2".parse().unwrap()]);
    let state = update(state, Action::Rates(counted)).0;
    let state = press(enter_text(press(state, "/"), "51512"), "enter d");
    let shown = screen(&state).split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(shown.contains("past the router before they can be told apart"), "{shown}");
    assert!(
        shown.contains("in 15.0 kB/s, 10 packets/s, out 1.0 kB/s, 5 packets/s; all flows of this port together"),
        "{shown}"
    );
    assert_eq!(state.tab(), Tab::Flows);
}

#[test]
fn a_name_that_several_begin_with_is_answered_with_them() {
    let run = |text: &str| press(enter_text(press(docker((100, 24)), ":"), text), "enter");
    let several = run("path web-");
    assert_eq!(several.tab(), Tab::Instances);
    assert!(last_line(&several).contains("several begin so: web-1  web-2"), "{}", screen(&several));
    assert!(screen(&run("path api")).contains("Path of api-1"), "the only one");
    let selected = press(enter_text(press(docker((100, 24)), "G :"), "path"), "enter");
    assert!(screen(&selected).contains("Path of web-2"), "{}", screen(&selected));
}

#[test]
fn what_completes_a_command_is_not_said_of_what_it_did() {
    let typed = press(enter_text(press(docker((100, 24)), ":"), "inst web-"), "tab");
    assert!(last_line(&typed).contains("web-1  web-2"), "{}", screen(&typed));
    assert!(!last_line(&enter_text(typed.clone(), "1")).contains("web-2"), "it is another word now");
    let left = press(typed.clone(), "esc");
    assert!(!last_line(&left).contains("web-2"), "nobody types any longer: {}", screen(&left));
    let done = press(typed, "enter");
    assert!(screen(&done).contains("/inst:web-") && !last_line(&done).contains("web-2"), "{}", screen(&done));
}

#[test]
fn a_key_that_does_something_elsewhere_says_where() {
    let said = |key: &str| last_line(&press(docker((100, 24)), key));
    assert!(said("t").contains("t does something on Flows only; ? lists the keys"), "{}", said("t"));
    assert!(said("+").contains("+ does something on a recording only"), "{}", said("+"));
    assert!(said("x").contains("x does nothing here; ? lists"), "{}", said("x"));
}

#[test]
fn a_group_says_in_a_word_how_the_worst_of_it_is() {
    let shown = screen(&press(docker((80, 24)), "a"));
    assert!(shown.contains("▸ ✗ BROKEN  bridge  3 rows"), "{shown}");
}

#[test]
fn rows_are_sorted_by_what_is_seen_and_else_it_is_said_by_what() {
    let mut state = press(docker((60, 15)), "4");
    for title in ["▲INSTANCE", "▲DIR", "▲REMOTE", "▲STATE", "▲BYTES/s"] {
        state = press(state, "s");
        assert!(screen(&state).contains(title), "{title}: {}", screen(&state));
    }
    assert_eq!(press(state.clone(), "s").view().sort, None);
    assert!(screen(&press(state, "<")).contains("▲STATE"));
    let hidden = press(enter_text(press(docker((60, 15)), "4 :"), "sort idle"), "enter S");
    assert!(screen(&hidden).contains("sorted by IDLE, backwards"), "{}", screen(&hidden));
    let seen = after(hidden, Action::Resize(80, 24));
    assert!(screen(&seen).contains("▼IDLE") && !screen(&seen).contains("sorted by"), "{}", screen(&seen));
}

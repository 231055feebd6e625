//! Nothing is cut that matters: titles with their marks, columns that are on, keys of the help, ports of addresses, sources.

use netdiag_model::fact::SourceKind;

use super::{
    Action, Settings, State, Tab, Trouble, after, docker, enforced, enter_text, followed, host, on, press, screen,
    start,
};
use crate::tui::{
    area,
    sheet::{self, Health},
};

/// Every tab of a host, the path while packets are followed too.
fn every(size: (u16, u16)) -> Vec<State> {
    let tabs = Tab::ALL.map(|tab| on(docker(size), tab));
    tabs.into_iter().chain([followed(size)]).collect()
}

#[test]
fn a_title_has_room_for_the_mark_of_the_order() {
    for state in every((200, 60)) {
        for column in sheet::of(&state, state.tab()).columns() {
            let needed = column.title.len() + 1;
            let room = usize::from(column.least);
            assert!(needed <= room || column.title == "#", "{:?} {}: {room}", state.tab(), column.title);
        }
    }
}

#[test]
fn a_column_that_is_on_is_seen_at_every_width() {
    for state in every((200, 60)) {
        let sheet = sheet::of(&state, state.tab());
        for width in 60..=240 {
            let shown = area::layout(sheet.as_ref(), state.view(), width);
            for (place, column) in sheet.columns().iter().enumerate() {
                let on = area::is_on(column, state.view(), width, false);
                let seen = shown.iter().any(|(seen, _)| *seen == place);
                assert_eq!(on, seen, "{:?} {} at {width}", state.tab(), column.title);
            }
        }
    }
}

#[test]
fn a_column_without_room_says_how_it_is_seen() {
    let shown = screen(&press(docker((80, 24)), "c e m"));
    assert!(shown.contains("[x] GROUPS  (no room; w shows all)"), "{shown}");
    assert!(shown.contains("[x] STATE\n") || shown.contains("[x] STATE  "), "{shown}");
}

/// The lines of what covers the table, page by page.
fn covered(state: State) -> String {
    let mut state = state;
    let mut pages = String::new();
    loop {
        let shown = screen(&state);
        let inside = shown.lines().filter_map(|line| line.strip_prefix('│')?.strip_suffix('│'));
        pages.extend(inside.flat_map(|line| [line.trim(), " "]));
        let next = press(state.clone(), "pagedown");
        if next.overlay_offset == state.overlay_offset {
            return pages.split_whitespace().collect::<Vec<_>>().join(" ");
        }
        state = next;
    }
}

#[test]
fn the_help_is_whole_on_the_smallest_screen() {
    for tab in Tab::ALL {
        let state = press(on(docker((60, 15)), tab), "?");
        let help = covered(state.clone());
        for binding in state.settings.keys.on(tab, &state.origin) {
            assert!(help.contains(binding.words), "{}: {help}", binding.words);
        }
        assert!(help.contains("! before a word turns it around; /…/ is a regular expression"), "{help}");
    }
}

#[test]
fn on_a_narrow_screen_nothing_is_left_of_rows_beside_what_covers_them() {
    for (size, keys) in [((60, 15), "y"), ((60, 15), "?"), ((80, 24), "d"), ((80, 24), "c"), ((60, 15), "e")] {
        let shown = screen(&press(docker(size), keys));
        let top = shown.lines().position(|line| line.starts_with('┌')).expect("a frame");
        let lines: Vec<&str> = shown.lines().skip(top).collect();
        let bottom = lines.iter().position(|line| line.starts_with('└')).expect("its end");
        assert!(lines[bottom].contains("Esc closes") && lines[bottom].ends_with('┘'), "{shown}");
        for line in &lines[1..bottom] {
            assert!(line.starts_with('│') && line.ends_with('│'), "{shown}");
        }
    }
}

#[test]
fn how_much_more_there_is_is_said_however_long_the_title() {
    let state = start(host("neutron-ovs-compute-1"), Settings::default(), (60, 15));
    let path = press(enter_text(press(state, "/"), "172.24.4.6"), "enter enter G k k d");
    let shown = screen(&path);
    assert!(shown.contains(" 1-9 of ") && shown.contains("Esc closes, a click copies"), "{shown}");
}

#[test]
fn of_an_address_that_does_not_fit_the_port_stays() {
    let shown = screen(&press(docker((80, 24)), "4"));
    let line = shown.lines().find(|line| line.contains("[2001:db8")).expect("its row");
    assert!(line.contains("…]:443 "), "{shown}");
}

#[test]
fn sources_that_could_not_be_read_are_named_or_counted_at_every_width() {
    for width in 60..=200 {
        let mut state = docker((width, 24));
        let mut look = state.newest.as_deref().expect("a look").clone();
        for (_, health) in
            look.sources.iter_mut().filter(|(source, _)| matches!(source, SourceKind::Docker | SourceKind::Ovsdb))
        {
            *health = Health::Unknown;
        }
        state.newest = Some(std::sync::Arc::new(look));
        let shown = screen(&state);
        let head: Vec<&str> = shown.lines().take(2).collect();
        let said = ["?docker", "? 2 of 8 sources", "? 2 unread"].iter().filter(|words| head.concat().contains(**words));
        assert_eq!(said.count(), 1, "{width}: {shown}");
    }
}

#[test]
fn rows_are_counted_with_a_word_beside_the_number_of_instances() {
    let state = docker((132, 43));
    let shown = screen(&state);
    assert!(shown.contains("9 instances") && shown.contains("Instances  13 rows"), "{shown}");
    let one = screen(&press(enter_text(press(state, "/"), "172.17.0.3"), "enter"));
    assert!(one.contains("Instances  1 of 13 rows"), "{one}");
}

#[test]
fn the_answer_of_a_path_has_two_lines_on_the_smallest_screen() {
    let state = start(enforced(), Settings::default(), (60, 15));
    let path = press(enter_text(press(state, ":"), "path web-2"), "enter");
    let shown = screen(&path);
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[3].starts_with("✗ BROKEN: web-2") && !lines[4].is_empty() && lines[5].contains("HOP"), "{shown}");
}

#[test]
fn the_answer_of_a_path_is_whole_where_there_is_room() {
    let state = start(enforced(), Settings::default(), (80, 24));
    let path = press(enter_text(press(state, ":"), "path web-1"), "enter");
    let sentence = path.traced.as_ref().expect("a path").trace.sentence.clone();
    let shown = screen(&path).split_whitespace().collect::<Vec<_>>().join(" ");
    let last_words: Vec<&str> = sentence.split(' ').rev().take(5).collect();
    let last_words: Vec<&str> = last_words.into_iter().rev().collect();
    assert!(shown.contains(&last_words.join(" ")), "{sentence}: {}", screen(&path));
}

#[test]
fn a_screen_that_is_too_small_says_how_large_it_is_and_has_to_be() {
    let shown = screen(&docker((40, 10))).replace('\n', " ");
    assert!(shown.contains("needs 60 x 15 at least; this is 40 x 10"), "{shown}");
}

#[test]
fn what_is_said_is_whole_on_the_smallest_screen() {
    let words = "written to /var/lib/some/directory/netdiag-instances-docker-1-1795197320000.json";
    let state = after(docker((60, 15)), Action::Say(words.to_owned()));
    let last = screen(&state).lines().skip(12).collect::<Vec<_>>().join("");
    assert!(last.contains(words.rsplit_once('/').expect("a path").1), "{}", screen(&state));
    let trouble = Trouble {
        what: "the recording could not be written".to_owned(),
        cause: "write the recording: No space left on device (os error 28)".to_owned(),
        advice: "make room, then begin anew".to_owned(),
    };
    let shown = screen(&after(docker((60, 15)), Action::Trouble(Some(trouble))));
    assert!(shown.split_whitespace().collect::<Vec<_>>().join(" ").ends_with("make room, then begin anew"), "{shown}");
}

#[test]
fn frozen_while_packets_are_watched_the_smallest_screen_says_both() {
    let state = after(
        docker((60, 15)),
        Action::Watching(Some("watching what this host drops; 0 lost, 0 left out to keep the cost down".to_owned())),
    );
    let state = after(press(state, "3 space"), Action::Events(super::events()));
    let shown = screen(&state);
    let first = shown.lines().next().unwrap_or_default();
    assert!(first.contains("FROZEN, 0 looks and 41 events behind  WATCHING"), "{shown}");
    assert!(shown.contains("keep the cost down") || shown.contains("cost down"), "{shown}");
}

#[test]
fn the_sentence_above_a_table_is_whole_on_the_smallest_screen() {
    let words = |state: &State| screen(state).split_whitespace().collect::<Vec<_>>().join(" ");
    let flows = press(docker((60, 15)), "4");
    let rates = super::rates::rates(&flows, 300);
    let estimated = words(&after(flows.clone(), Action::Rates(rates)));
    assert!(estimated.contains("rates are estimates from 100 of 400 packets"), "{estimated}");
    let alone = words(&after(flows, Action::Tick(super::NOW + 400_000)));
    assert!(alone.contains("rates are counted again when a key is pressed"), "{alone}");
    let mut look = docker((60, 15)).newest.as_deref().expect("a look").clone();
    look.doctor_partial = true;
    let doctor = words(&press(after(docker((60, 15)), Action::Look(std::sync::Arc::new(look))), "7"));
    assert!(doctor.contains("netdiag doctor on the host makes all"), "{doctor}");
}

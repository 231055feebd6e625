//! Every text view, as a user sees it.

use std::fmt::Write as _;

use insta::assert_snapshot;
use netdiag_model::event::LeftOut;
use unicode_width::UnicodeWidthStr as _;

use super::{Style, doctor, drops, event, explain, flows, groups, list, live, status, trace, watch};
use crate::{
    escape,
    fixtures::{
        self, enforced,
        live::{EPOCH, Live},
    },
    json_schema::Watched,
    wide,
};

fn text(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Everything there is, in one style.
fn everything(style: &Style) -> Vec<(String, String)> {
    let mut all: Vec<(String, String)> = fixtures::traces()
        .iter()
        .map(|(name, fixture)| ((*name).to_owned(), text(|out| trace::render(fixture, style, out))))
        .collect();
    all.push(("list".to_owned(), text(|out| list::render(&fixtures::listing(), style, out))));
    all.push(("doctor".to_owned(), text(|out| doctor::render(&fixtures::report(), style, out))));
    all.push(("groups".to_owned(), text(|out| groups::render(&enforced::groups(), style, out))));
    all.push(("explain".to_owned(), text(|out| explain::render(&enforced::explained(), style, out))));
    all.push(("flows".to_owned(), text(|out| flows::render(&enforced::flows(), style, out))));
    all.push(("status".to_owned(), text(|out| status::render(&enforced::status(), style, out))));
    all.push(("live".to_owned(), watched(&fixtures::live::live(&fixtures::healthy().instance.name), style)));
    all.push(("live_hostile".to_owned(), watched(&fixtures::live::evil(), style)));
    all.push(("drops".to_owned(), text(|out| drops::census(&fixtures::live::drops().1, style, out))));
    all
}

/// A whole run of `netdiag trace --live`.
fn watched(run: &Live, style: &Style) -> String {
    let Live { watch, points, told, summary } = run;
    text(|out| {
        live::watch(watch, style, out)?;
        told.iter().try_for_each(|told| live::packet(told, points, EPOCH, (style, &mut *out)))?;
        live::summary(summary, style, out)
    })
}

/// Events have one line each at any width.
fn events(style: &Style) -> String {
    let each = enforced::events();
    each.iter().map(|one| text(|out| event::render(one, style, out))).collect()
}

/// Changes have one line each at any width.
fn changes(style: &Style) -> String {
    fixtures::watch::changes().iter().map(|one| text(|out| watch::render(one, style, out))).collect()
}

#[test]
fn a_change_is_one_line_without_a_hostile_character() {
    assert_snapshot!("watch", changes(&Style::default()));
    assert_snapshot!("watch_ascii", changes(&Style { ascii: true, detail: 1, ..Style::default() }));
    assert_snapshot!("watch_colour", changes(&Style { colour: true, ..Style::default() }).replace('\u{1b}', "␛"));
    let hostile = fixtures::hostile();
    for change in netdiag_model::trace::changes::first(&hostile) {
        let watched = Watched { time_ns: 0, instance: hostile.instance.name.clone(), change };
        let shown = text(|out| watch::render(&watched, &Style::default(), out));
        assert_eq!(shown.lines().count(), 1, "{shown}");
        assert!(!shown.chars().any(|found| found != '\n' && escape::is_hostile(found)), "{shown:?}");
    }
}

#[test]
fn an_event_is_one_line_without_a_hostile_character() {
    for style in [Style::default(), Style { detail: 1, ascii: true, ..Style::default() }] {
        let shown = events(&style);
        assert_eq!(shown.lines().count(), enforced::events().len());
        assert!(!shown.chars().any(|found| found != '\n' && escape::is_hostile(found)), "{shown}");
        assert!(shown.is_ascii() || !style.ascii, "{shown}");
    }
    assert_snapshot!("events", events(&Style::default()));
}

#[test]
fn how_many_events_are_not_shown_is_one_line_too() {
    let mut left_out = LeftOut { time_ns: 1_000_000_000, packets: 1, ports: ["p".to_owned()].into() };
    let line = |left_out: &LeftOut| text(|out| event::left_out(left_out, &Style::default(), out));
    let one = "00:00:01.000Z 1 refused of the link's multicast to 1 port, not shown (--multicast shows them)\n";
    assert_eq!(line(&left_out), one);
    left_out.packets = 30;
    left_out.ports.insert("q".to_owned());
    assert!(line(&left_out).contains(" 30 refused of the link's multicast to 2 ports,"));
}

#[test]
fn a_dropped_packet_is_one_line_without_a_hostile_character() {
    for style in [Style::default(), Style { detail: 1, ascii: true, ..Style::default() }] {
        let each = fixtures::live::drops().0;
        let shown: String = each.iter().map(|one| text(|out| drops::line(one, EPOCH, &style, out))).collect();
        assert_eq!(shown.lines().count(), each.len());
        assert!(!shown.chars().any(|found| found != '\n' && escape::is_hostile(found)), "{shown}");
        assert!(shown.is_ascii() || !style.ascii, "{shown}");
        assert_snapshot!(format!("drops_{}", if style.ascii { "lines_ascii" } else { "lines" }), shown);
    }
}

#[test]
fn every_view_at_80_columns() {
    for (name, shown) in everything(&Style::default()) {
        assert_snapshot!(format!("{name}_80"), shown);
    }
}

#[test]
fn every_view_at_200_columns() {
    for (name, shown) in everything(&Style { width: 200, ..Style::default() }) {
        assert_snapshot!(format!("{name}_200"), shown);
    }
}

#[test]
fn every_view_with_details() {
    for (name, shown) in everything(&Style { detail: 1, ..Style::default() }) {
        assert_snapshot!(format!("{name}_v"), shown);
    }
}

#[test]
fn a_trace_with_the_commands_that_verify_it() {
    let style = Style { detail: 2, ..Style::default() };
    assert_snapshot!("healthy_vv", text(|out| trace::render(&fixtures::healthy(), &style, out)));
}

#[test]
fn every_view_in_ascii() {
    for (name, shown) in everything(&Style { ascii: true, ..Style::default() }) {
        assert_snapshot!(format!("{name}_ascii"), shown);
    }
}

#[test]
fn every_view_in_colour() {
    for (name, shown) in everything(&Style { colour: true, ..Style::default() }) {
        assert_snapshot!(format!("{name}_colour"), shown.replace('\u{1b}', "␛"));
    }
}

#[test]
fn a_listing_and_a_trace_in_full() {
    assert_snapshot!("list_wide", text(|out| wide::list(&fixtures::listing(), &Style::default(), out)));
    assert_snapshot!("broken_wide", text(|out| wide::trace(&fixtures::broken(), &Style::default(), out)));
    let ascii = Style { ascii: true, ..Style::default() };
    assert_snapshot!("list_wide_ascii", text(|out| wide::list(&fixtures::listing(), &ascii, out)));
    assert_snapshot!("broken_wide_ascii", text(|out| wide::trace(&fixtures::broken(), &ascii, out)));
}

#[test]
fn no_line_is_wider_than_the_page() {
    for width in 60..=200 {
        for detail in 0..=2 {
            for (ascii, full_ids) in [(false, false), (true, true)] {
                for (name, shown) in everything(&Style { width, colour: false, ascii, detail, full_ids }) {
                    for line in shown.lines() {
                        assert!(line.width() <= width, "{name} at {width}, detail {detail}: {line:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn ascii_text_is_nothing_but_ascii() {
    for width in [60, 80, 200] {
        for (name, shown) in everything(&Style { width, ascii: true, detail: 2, ..Style::default() }) {
            assert!(shown.is_ascii(), "{name}: {shown}");
        }
    }
}

#[test]
fn no_hostile_character_reaches_the_terminal() {
    for style in [Style::default(), Style { detail: 2, full_ids: true, ..Style::default() }] {
        for (name, shown) in everything(&style) {
            let found: Vec<char> = shown.chars().filter(|found| *found != '\n' && escape::is_hostile(*found)).collect();
            assert!(found.is_empty(), "{name}: {found:?}");
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let plain = everything(&Style::default());
    let painted = everything(&Style { colour: true, ..Style::default() });
    for ((name, plain), (_, painted)) in plain.iter().zip(&painted) {
        let mut stripped = String::new();
        for (place, part) in painted.split('\u{1b}').enumerate() {
            let text = if place == 0 { part } else { part.split_once('m').unwrap().1 };
            stripped.write_str(text).unwrap();
        }
        assert_eq!(plain, &stripped, "{name}");
    }
    assert_eq!(plain.len(), painted.len());
}

#[test]
fn every_fact_of_the_table_is_there_at_any_width() {
    for width in [60, 80, 120, 200] {
        let shown = text(|out| trace::render(&fixtures::healthy(), &Style { width, ..Style::default() }, out));
        for fact in ["tap1a2b3c4d-5e", "10.0.0.1/24", "1450", "REACHABLE", "15.2k", "tag 1", "172.24.4.2/24"] {
            assert!(shown.contains(fact), "{fact} at {width}: {shown}");
        }
    }
}

#[test]
fn every_view_on_the_narrowest_page() {
    for (name, shown) in everything(&Style { width: Style::NARROWEST, ..Style::default() }) {
        assert_snapshot!(format!("{name}_60"), shown);
    }
}

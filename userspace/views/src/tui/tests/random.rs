//! Random actions at random sizes never panic, and never let anything hostile through.

use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use netdiag_model::live::rates::Rates;

use super::{NOW, docker, events, hostile, hostile_look, nothing, rates, screen};
use crate::{
    escape, fixtures,
    tui::{
        Action, Extra, Look, Mouse, MouseKind, Request, State, Stream, Traced, Trouble,
        keymap::{Code, Key},
        update,
    },
};

/// Looks a host may have one after the other.
static LOOKS: LazyLock<[Arc<Look>; 3]> = LazyLock::new(|| {
    let empty = Look::of(&Arc::new(nothing()), Extra { at_ms: NOW + 1000, ..Extra::default() }, None);
    let usual = docker((80, 24)).look().unwrap().clone();
    [Arc::new(hostile_look()), Arc::new(empty), usual]
});

/// What passes in the flows of one of them, of which a part was seen.
static RATES: LazyLock<Arc<Rates>> = LazyLock::new(|| rates::rates(&docker((80, 24)), 300));

fn key() -> impl Strategy<Value = Key> {
    const NAMED: [Code; 14] = [
        Code::Enter,
        Code::Esc,
        Code::Tab,
        Code::BackTab,
        Code::Backspace,
        Code::Delete,
        Code::Up,
        Code::Down,
        Code::Left,
        Code::Right,
        Code::PageUp,
        Code::PageDown,
        Code::Home,
        Code::End,
    ];
    let letters = "?hqQjkgG/:sS<> zwcdyetar+-,.1234567imx!v数\u{1b}\u{202e}".chars().collect::<Vec<_>>();
    let code = prop_oneof![
        3 => prop::sample::select(letters).prop_map(Code::Char),
        2 => prop::sample::select(&NAMED[..]),
    ];
    (code, prop::bool::weighted(0.1)).prop_map(|(code, ctrl)| Key { code, ctrl })
}

fn action() -> impl Strategy<Value = Action> {
    let kinds = [MouseKind::Click, MouseKind::WheelUp, MouseKind::WheelDown];
    prop_oneof![
        20 => key().prop_map(Action::Key),
        3 => (prop::sample::select(kinds.to_vec()), 0..210_u16, 0..70_u16)
            .prop_map(|(kind, x, y)| Action::Mouse(Mouse { kind, x, y })),
        2 => (0..210_u16, 0..70_u16).prop_map(|(width, height)| Action::Resize(width, height)),
        2 => (60..210_u16, 15..70_u16).prop_map(|(width, height)| Action::Resize(width, height)),
        2 => (0..3_usize).prop_map(|place| Action::Look(Arc::clone(&LOOKS[place]))),
        1 => Just(Action::Events(events())),
        1 => Just(Action::Events(fixtures::enforced::events())),
        1 => (0..100_000_u64).prop_map(|more| Action::Tick(NOW + more)),
        1 => Just(Action::Rates(Arc::clone(&RATES))),
        1 => Just(Action::Uncounted("\u{9b}2J".to_owned())),
        1 => Just(Action::Stream(Stream::Absent("\u{9b}2J".to_owned()))),
        1 => Just(Action::Say("\u{1b}[2J\n".to_owned())),
        1 => Just(Action::Trouble(Some(Trouble { what: "\u{7}".into(), cause: "\u{202e}".into(), advice: "x".repeat(300) }))),
    ]
}

fn step(state: State, action: Action) -> State {
    let (state, request) = update(state, action);
    let Some(Request::Watch { id, snapshot, at_ms }) = request else { return state };
    match Traced::explain(&snapshot, &id, at_ms) {
        Some(traced) => update(state, Action::Traced(Arc::new(traced))).0,
        None => state,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn no_actions_at_no_size_make_it_panic(actions in prop::collection::vec(action(), 1..60)) {
        let mut state = hostile((80, 24));
        for action in actions {
            let told = format!("{action:?}");
            state = step(state, action);
            let (width, height) = state.size();
            if width == 0 || height == 0 {
                continue;
            }
            let shown = screen(&state);
            let found = shown.chars().find(|character| *character != '\n' && escape::is_hostile(*character));
            prop_assert_eq!(found, None, "after {}: {}", told.chars().take(80).collect::<String>(), shown);
        }
    }
}

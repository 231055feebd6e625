//! What a frame costs with ten thousand rows. A measurement, so it is run by name and in release:
//! `cargo test --release -p netdiag-views --lib tui::tests::speed -- --ignored --nocapture`.

use std::{
    fs,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use ratatui::{Terminal, backend::TestBackend};

use super::{NOW, Settings, docker, enter_text, press};
use crate::tui::{Action, Origin, State, Tab, draw, keymap::Key, update};

/// How many rows.
const ROWS: usize = 10_000;

/// What a frame may take: 60 a second.
const BUDGET: Duration = Duration::from_millis(16);

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

/// The longest step the scheduler counts in.
const STEP: Duration = Duration::from_millis(10);

/// How long this thread has run. Time that other programs took from it is not its own.
fn on_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// The median and the worst of some times.
fn summary(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() - 1])
}

/// Keys one after the other, each with the update and the frame after it.
fn frames(mut state: State, keys: &[Key], count: usize) -> (Duration, Duration) {
    let (width, height) = state.size();
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut times = Vec::new();
    for key in keys.iter().cycle().take(count) {
        let (began, ran) = (Instant::now(), on_cpu());
        state = update(state, Action::Key(*key)).0;
        terminal.draw(|frame| draw(&state, frame)).unwrap();
        // The scheduler counts in steps of some milliseconds, the clock counts what others took as well.
        times.push(began.elapsed().min(on_cpu().saturating_sub(ran).max(STEP)));
    }
    summary(times)
}

// The bound is that of the program as it is shipped: a development build draws several times slower and would say nothing about it.
#[test]
#[cfg_attr(debug_assertions, ignore = "a bound of release builds: cargo test --release -p netdiag-views --lib speed")]
fn a_frame_of_ten_thousand_rows_is_drawn_in_time() {
    let look = Arc::new(docker((200, 60)).look().unwrap().multiplied(ROWS));
    let began = Instant::now();
    let state = State::new(Settings::default(), Origin::Live, (200, 60), NOW);
    let state = update(state, Action::Look(look)).0;
    say(&format!("a look with {ROWS} instances is taken in {:?}", began.elapsed()));
    // Some have two interfaces.
    assert!(state.view().entries.len() >= ROWS);
    let scroll = [Key::char('j'), Key::ctrl('f'), Key::ctrl('f'), Key::char('k')];
    for tab in [Tab::Instances, Tab::Flows] {
        let state = press(state.clone(), if tab == Tab::Flows { "4 t" } else { "" });
        assert!(state.view().entries.len() >= ROWS);
        let (median, worst) = frames(state.clone(), &scroll, 1000);
        say(&format!("{}: scrolling, a frame takes {median:?}, at most {worst:?}", tab.title()));
        assert!(worst <= BUDGET, "{worst:?}");
        let (median, worst) = frames(state.clone(), &[Key::char('s')], 22);
        say(&format!("{}: sorting anew and the frame take {median:?}, at most {worst:?}", tab.title()));
        let began = Instant::now();
        let filtered = enter_text(press(state, "/"), "inst:web");
        say(&format!("{}: a letter of a filter takes {:?}", tab.title(), began.elapsed() / 8));
        assert!(filtered.view().entries.len() < ROWS);
    }
}

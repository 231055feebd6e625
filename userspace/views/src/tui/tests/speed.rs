//! What a frame costs with ten thousand rows, on every tab: scrolling, sorting, each letter of a filter, putting together,
//! another size. The numbers are those of a release build:
//! `cargo test --release -p netdiag-views --lib tui::tests::speed -- --nocapture`.
//!
//! A development build does the same several times slower and is held to a bound that is so much wider: what grows with the
//! square of the rows is found there too.

use std::{io::Write as _, sync::Arc, time::Duration};

use ratatui::{Terminal, backend::TestBackend};
use rustix::time::{ClockId, clock_gettime};

use super::{NOW, Settings, docker, events, host, rates};
use crate::tui::{
    Action, Origin, Request, State, Tab, Traced, draw,
    keymap::Key,
    state::{Entry, Stream},
    update,
};

/// How many rows.
const ROWS: usize = 10_000;

/// What a frame may take: 60 a second.
const BUDGET: Duration = Duration::from_millis(if cfg!(debug_assertions) { 480 } else { 16 });

/// How often something is tried before it counts as too slow: what others on this machine do makes it slower, never faster.
const TRIES: usize = if cfg!(debug_assertions) { 2 } else { 5 };

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").unwrap();
}

/// How long this thread has run. Time that other programs took from it is not its own.
fn on_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// The terminal, and how long each kind of frame took at worst.
struct Watch {
    terminal: Terminal<TestBackend>,
    told: Vec<(Tab, &'static str, Duration)>,
}

impl Watch {
    /// An action with the frame after it.
    fn step(&mut self, state: State, action: &Action) -> (State, Duration) {
        if let Action::Resize(width, height) = action {
            self.terminal.backend_mut().resize(*width, *height);
        }
        let before = on_cpu();
        let (state, request) = update(state, action.clone());
        self.terminal.draw(|frame| draw(&state, frame)).unwrap();
        let took = on_cpu().saturating_sub(before);
        let Some(Request::Watch { id, .. }) = request else { return (state, took) };
        // The path is explained elsewhere, and not anew each time here.
        let traced = state.traced.clone().filter(|traced| traced.id == id);
        (traced.map_or(state.clone(), |traced| update(state, Action::Traced(traced)).0), took)
    }

    /// Actions one after the other, each as fast as it is at best.
    fn steps(&mut self, state: &State, what: &'static str, actions: &[Action]) -> State {
        let mut state = state.clone();
        let mut worst = Duration::ZERO;
        for action in actions {
            let tries = (0..TRIES).map(|_| self.step(state.clone(), action)).collect::<Vec<_>>();
            worst = worst.max(tries.iter().map(|(_, took)| *took).min().unwrap());
            state = tries.into_iter().next().unwrap().0;
        }
        self.told.push((state.tab(), what, worst));
        state
    }
}

fn keys(text: &str) -> Vec<Action> {
    text.split(' ').map(|key| Action::Key(Key::parse(key).unwrap())).collect()
}

fn letters(text: &str) -> Vec<Action> {
    text.chars().map(|letter| Action::Key(Key::char(letter))).collect()
}

/// A path with as many hops as there may be rows.
fn long_path() -> Traced {
    let snapshot = host("neutron-ovs-compute-1");
    let inventory = netdiag_model::inventory::Inventory::build(&snapshot);
    let mut trace = netdiag_model::trace::explain(&inventory, &inventory.instances[0]);
    let hops = &mut trace.interfaces[0].hops;
    let all = hops.iter().cloned().cycle().take(ROWS).enumerate();
    *hops = all
        .map(|(place, mut hop)| {
            hop.number = place;
            hop
        })
        .collect();
    hops.sort_by_key(|hop| hop.direction);
    Traced::new("x".to_owned(), NOW, trace)
}

/// A host with ten thousand of everything.
fn crowded() -> State {
    let look = docker((200, 60)).look().unwrap().multiplied(ROWS);
    let mut state = State::new(Settings::default(), Origin::Live, (200, 60), NOW);
    state.watched = Some("x".to_owned());
    let verdicts = events().into_iter().cycle().take(ROWS).collect();
    let actions = [
        Action::Look(Arc::new(look)),
        Action::Traced(Arc::new(long_path())),
        Action::Stream(Stream::Open),
        Action::Events(verdicts),
    ];
    actions.into_iter().fold(state, |state, action| update(state, action).0)
}

#[test]
fn a_frame_of_ten_thousand_rows_is_drawn_in_time_on_every_tab() {
    let crowded = crowded();
    let mut watch = Watch { terminal: Terminal::new(TestBackend::new(200, 60)).unwrap(), told: Vec::new() };
    let rates = Action::Rates(rates::rates(&docker((200, 60)), 0));
    for tab in Tab::ALL {
        let mut state = crowded.clone();
        state.tab = tab;
        let state = update(state, Action::Resize(200, 60)).0;
        let state = update(state, rates.clone()).0;
        // A flow that is over is shown too.
        let state = watch.step(state, &Action::Key(Key::char('t'))).0;
        assert!(state.view().entries.len() >= ROWS, "{tab:?}: {}", state.view().entries.len());
        watch.steps(&state, "scrolling", &keys("j ctrl-f ctrl-f k G ctrl-b g"));
        watch.steps(&state, "sorting", &keys("s s s s s s s s S"));
        if tab == Tab::Flows {
            let sorted = watch.steps(&state, "sorting", &keys("s s s s s s s"));
            watch.steps(&sorted, "what passes", std::slice::from_ref(&rates));
        }
        watch.steps(&state, "a letter that all are asked for", &[keys("/"), letters("nowhere")].concat());
        let filtered = watch.steps(&state, "a letter of one thing", &[keys("/"), letters("verdict:ok x")].concat());
        assert!(filtered.view().entries.len() < ROWS, "{tab:?}");
        watch.steps(&state, "only problems", &keys("z z"));
        watch.steps(&state, "putting together", &keys("a right a a"));
        let sizes = [(60, 15), (132, 43), (80, 24), (200, 60)];
        let resized = sizes.map(|(width, height)| Action::Resize(width, height));
        watch.steps(&state, "another size", &resized);
        let look = Action::Look(Arc::clone(state.newest.as_ref().unwrap()));
        watch.steps(&state, "a look", &[look]);
    }
    for (tab, what, took) in &watch.told {
        say(&format!("{:9} {what:32} {:6.2} ms at most", tab.title(), took.as_secs_f64() * 1000.0));
    }
    let slow: Vec<_> = watch.told.iter().filter(|(.., took)| *took > BUDGET).collect();
    assert!(slow.is_empty(), "more than {BUDGET:?}: {slow:?}");
    assert!(matches!(crowded.views[0].entries[0], Entry::Row(0)));
}

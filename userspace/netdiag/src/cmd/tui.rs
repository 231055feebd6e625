//! `netdiag tui`: owns the terminal, turns keys and looks into actions, draws, carries out what is requested.

use std::{
    env,
    fs::OpenOptions,
    io::{self, IsTerminal as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use netdiag_views::tui::{Action, Origin, Replay, Request, State, Traced, draw, update};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{
    cli::tui::Tui,
    config::tui::{Chosen, choose},
    exit::{Bad, Exit},
};

/// Looks and events as actions.
mod feed;
/// Keys and the mouse as actions.
mod keys;
/// What netdiag itself costs.
mod own;
/// Looks and events in a file.
mod recording;
/// The terminal, given back however this ends.
mod terminal;

use self::{feed::Feed, terminal::Screen};

/// How many actions may wait.
const WAITING: usize = 1024;

/// How often the time on the screen goes on.
const TICK: Duration = Duration::from_secs(1);

/// Shows a host until somebody has seen enough.
pub(crate) async fn run(asked: &Tui) -> anyhow::Result<Exit> {
    let mut chosen = choose(asked)?;
    if asked.print_keys {
        super::print(|out| out.write_all(chosen.settings.keys.print().as_bytes()))?;
        return Ok(Exit::Works);
    }
    // What can be found wrong before the terminal is taken is said on the terminal as it was.
    let source = feed::open(asked)?;
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        let why = "netdiag tui draws on a terminal, and standard input or output is none";
        return Err(Bad::usage(format!("{why}: use netdiag list, trace or watch in a pipe")));
    }
    let record = feed::record(asked.record.as_deref())?;
    // Whether there is any is decided: what the terminal's library reads in the environment is not what was asked for.
    crossterm::style::force_color_output(true);
    let mut screen = Screen::take(!asked.no_mouse).context("take the terminal")?;
    let deaf_for = ground(&mut chosen, &mut screen);
    let (actions, mut waiting) = mpsc::channel(WAITING);
    let size = screen.size()?;
    let origin = match &source {
        feed::Source::Live => Origin::Live,
        feed::Source::Snapshot(..) => Origin::Snapshot(name(asked)),
        feed::Source::Recording(frames) => {
            Origin::Recording(Replay { file: name(asked), speed: 1.0, at: 0, of: frames.looks() })
        }
    };
    let mut state = State::new(chosen.settings, origin, size, now_ms());
    if let Some(remark) = chosen.remark {
        state = update(state, Action::Say(remark)).0;
    }
    let feed = Feed::start(asked, source, record, actions.clone());
    keys::start(actions.clone(), deaf_for);
    let app = App { screen, feed, actions };
    app.go(state, &mut waiting).await
}

/// Name of the file that is shown.
fn name(asked: &Tui) -> String {
    asked.from.as_deref().map(|path| path.display().to_string()).unwrap_or_default()
}

/// Finds out whether the ground is light, where nobody said. How long keys are not to be taken for such: an answer may be late.
fn ground(chosen: &mut Chosen, screen: &mut Screen) -> Duration {
    if !chosen.ask_ground {
        return Duration::ZERO;
    }
    let (ground, deaf_for) = screen.ground();
    if let Some(ground) = ground {
        chosen.settings.theme.background = ground;
    }
    chosen.warn();
    deaf_for
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// The signals that end or interrupt.
struct Signals {
    term: Signal,
    hup: Signal,
    quit: Signal,
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("listen for signals");
        Ok(Self {
            term: on(SignalKind::terminate())?,
            hup: on(SignalKind::hangup())?,
            quit: on(SignalKind::quit())?,
            stop: on(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))?,
            go_on: on(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))?,
        })
    }
}

/// What is done next.
enum Next {
    /// What is on the screen is right.
    Wait,
    /// The state may have changed.
    Draw,
    /// The terminal was somebody else's for a while.
    DrawAll,
    /// Enough.
    End(Exit),
}

/// The terminal and what feeds it.
struct App {
    screen: Screen,
    feed: Feed,
    actions: mpsc::Sender<Action>,
}

impl App {
    /// Draws and waits, until the end.
    async fn go(mut self, state: State, waiting: &mut mpsc::Receiver<Action>) -> anyhow::Result<Exit> {
        let mut signals = Signals::new()?;
        let mut tick = tokio::time::interval(TICK);
        let mut own = own::Meter::start();
        let mut state = Held(Some(state));
        self.screen.draw(|frame| state.draw(frame))?;
        loop {
            let next = tokio::select! {
                Some(action) = waiting.recv() => {
                    let mut next = self.act(&mut state, action)?;
                    // Whatever has come meanwhile is drawn together.
                    while matches!(next, Next::Draw) && let Ok(action) = waiting.try_recv() {
                        next = self.act(&mut state, action)?;
                    }
                    next
                }
                _ = tick.tick() => self.tick(&mut state, &mut own)?,
                _ = signals.term.recv() => Next::End(Exit::Interrupted),
                _ = signals.hup.recv() => Next::End(Exit::Interrupted),
                _ = signals.quit.recv() => Next::End(Exit::Interrupted),
                _ = signals.stop.recv() => self.suspend()?,
                _ = signals.go_on.recv() => Next::DrawAll,
            };
            if terminal::panicked() {
                // A worker's; what it said is on the terminal, which was given back.
                return Err(anyhow::anyhow!("a part of netdiag has failed; this is a defect, please report it"));
            }
            self.feed.count(state.counted(), &self.actions);
            match next {
                Next::Wait => continue,
                Next::Draw => {}
                Next::DrawAll => {
                    self.screen.take_again()?;
                    let (width, height) = self.screen.size()?;
                    state.step(Action::Resize(width, height));
                }
                Next::End(exit) => return Ok(exit),
            }
            self.screen.draw(|frame| state.draw(frame))?;
        }
    }

    /// One action, and what it requests.
    fn act(&mut self, state: &mut Held, action: Action) -> anyhow::Result<Next> {
        if matches!(action, Action::Key(_) | Action::Mouse(_)) {
            self.feed.somebody_is_here();
            state.step(Action::Tick(now_ms()));
        }
        #[cfg(debug_assertions)]
        terminal::panic_if_asked(&action);
        match state.step(action) {
            None => Ok(Next::Draw),
            Some(request) => self.carry_out(state, request),
        }
    }

    fn tick(&mut self, state: &mut Held, own: &mut own::Meter) -> anyhow::Result<Next> {
        let before = state.shows_time();
        self.act(state, Action::Tick(now_ms()))?;
        let share = own.share();
        if let Some(share) = share {
            self.act(state, Action::Cpu(share))?;
        }
        // A screen on which nothing moves costs nothing.
        Ok(if before || share.is_some_and(|share| own.is_news(share)) { Next::Draw } else { Next::Wait })
    }

    fn carry_out(&mut self, state: &mut Held, request: Request) -> anyhow::Result<Next> {
        match request {
            Request::Quit { keep: false } => return Ok(Next::End(Exit::Works)),
            Request::Quit { keep: true } => {
                self.screen.keep();
                return Ok(Next::End(Exit::Works));
            }
            Request::Suspend => return self.suspend(),
            Request::Watch { id, snapshot, at_ms } => {
                let actions = self.actions.clone();
                tokio::task::spawn_blocking(move || {
                    let traced = Traced::explain(&snapshot, &id, at_ms).map(Arc::new);
                    if let Some(traced) = traced {
                        // Without anybody to tell, all is over.
                        drop(actions.blocking_send(Action::Traced(traced)));
                    }
                });
            }
            Request::Write { name, bytes } => {
                let said = match write_new(&name, &bytes) {
                    Ok(path) => format!("written to {path}"),
                    Err(error) => format!("{error:#}"),
                };
                state.step(Action::Say(said));
            }
            Request::LookNow => self.feed.look_now(),
            Request::Packets { id, snapshot } => self.feed.watch_packets(id, snapshot, self.actions.clone()),
            Request::NoPackets => self.feed.watch_no_packets(),
            Request::Replay(order) => self.feed.order(order),
            Request::Copy(text) => self.screen.copy(&text)?,
        }
        Ok(Next::Draw)
    }

    /// Gives the terminal to the shell until it says to go on.
    fn suspend(&mut self) -> anyhow::Result<Next> {
        self.screen.give_back()?;
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::STOP).context("stop")?;
        Ok(Next::DrawAll)
    }
}

/// The state, which is moved into the update and out of it.
struct Held(Option<State>);

impl Held {
    /// The next state, and what it requests.
    fn step(&mut self, action: Action) -> Option<Request> {
        let (next, request) = update(self.0.take()?, action);
        self.0 = Some(next);
        request
    }

    /// Whether the screen changes because time goes on.
    fn shows_time(&self) -> bool {
        self.0.as_ref().is_some_and(State::shows_time)
    }

    /// The look in whose flows it is to be counted what passes.
    fn counted(&self) -> Option<&Arc<netdiag_model::snapshot::Snapshot>> {
        self.0.as_ref().and_then(State::counted)
    }

    fn draw(&self, frame: &mut ratatui::Frame<'_>) {
        if let Some(state) = &self.0 {
            draw(state, frame);
        }
    }
}

/// Writes a file that is not there yet: nobody's file is overwritten, and no link is followed.
fn write_new(name: &str, bytes: &[u8]) -> anyhow::Result<String> {
    let directory = env::current_dir().unwrap_or_else(|_| Path::new(".").to_owned());
    let path = directory.join(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("write {}", path.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", path.display()))?;
    Ok(path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::write_new;

    #[test]
    fn no_file_is_overwritten_and_no_link_is_followed() {
        let directory = std::env::temp_dir().join(format!("netdiag-tui-write-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        assert_eq!(write_new(&path("new"), b"one").unwrap(), path("new"));
        let again = format!("{:#}", write_new(&path("new"), b"two").unwrap_err());
        assert!(again.contains(&path("new")) && again.contains("exists"), "{again}");
        assert_eq!(fs::read(path("new")).unwrap(), b"one");
        symlink(path("elsewhere"), path("link")).unwrap();
        assert!(write_new(&path("link"), b"three").is_err());
        assert!(!fs::exists(path("elsewhere")).unwrap());
        fs::remove_dir_all(directory).unwrap();
    }
}

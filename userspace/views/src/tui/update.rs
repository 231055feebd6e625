//! An action turned into the next state, and at most one thing for whoever owns the terminal to do.

use std::sync::Arc;

use netdiag_model::{event::Event, live::rates::Rates, snapshot::Snapshot};

use super::{
    followed::Followed,
    keymap::{Command, Key},
    look::{Look, Traced},
    packet::Packet,
    sheet::{self, Health, Order, Sheet},
    state::{Entry, Frozen, Overlay, Replay, Seen, State, Stream, Tab, Trouble, View},
};

/// What is typed into the command bar.
mod command;
/// Text that is being typed.
mod input;
/// Clicks and the wheel.
mod mouse;
/// Moving about in a table.
mod moves;
/// What covers the table.
mod overlay;

/// How long a message stays.
const MESSAGE_MS: u64 = 6_000;

/// What happened.
#[derive(Clone, Debug)]
pub enum Action {
    /// A key was pressed.
    Key(Key),
    /// The mouse did something.
    Mouse(Mouse),
    /// The terminal has this many columns and rows.
    Resize(u16, u16),
    /// Time went on: milliseconds since 1970-01-01 UTC.
    Tick(u64),
    /// The host was looked at.
    Look(Arc<Look>),
    /// The host will be looked at again at this time, in milliseconds since 1970-01-01 UTC.
    NextLook(u64),
    /// A path was explained.
    Traced(Arc<Traced>),
    /// Packets met their verdicts.
    Events(Vec<Event>),
    /// Packets were watched.
    Packets(Vec<Packet>),
    /// What packets did on a path so far.
    Followed(Arc<Followed>),
    /// What passes in flows.
    Rates(Arc<Rates>),
    /// What passes in flows is not counted; why.
    Uncounted(String),
    /// What packets are watched, in words; none any more.
    Watching(Option<String>),
    /// Events come, or do not.
    Stream(Stream),
    /// The share of a core netdiag itself uses, in thousandths.
    Cpu(u32),
    /// Something keeps the screen from being right; nothing does any more.
    Trouble(Option<Trouble>),
    /// The replay is at another place, or another speed.
    Replay(Replay),
    /// Something is to be said.
    Say(String),
}

/// What the mouse did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mouse {
    /// What.
    pub kind: MouseKind,
    /// Column.
    pub x: u16,
    /// Row.
    pub y: u16,
}

/// What a mouse can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MouseKind {
    /// The left button was pressed.
    Click,
    /// The wheel went up.
    WheelUp,
    /// The wheel went down.
    WheelDown,
}

/// What whoever owns the terminal is to do.
#[derive(Clone, Debug)]
pub enum Request {
    /// End.
    Quit {
        /// Leave the last screen on the terminal.
        keep: bool,
    },
    /// Leave the terminal to the shell for a while.
    Suspend,
    /// Explain the path of an instance of this look.
    Watch {
        /// Whose.
        id: String,
        /// The look.
        snapshot: Arc<Snapshot>,
        /// When it was.
        at_ms: u64,
    },
    /// Write a file, and say how that went.
    Write {
        /// Its name, made of harmless characters.
        name: String,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// Look at the host now.
    LookNow,
    /// Watch packets, in place of those that are watched.
    Packets {
        /// Of this instance; of none, what the whole host drops.
        id: Option<String>,
        /// The look.
        snapshot: Arc<Snapshot>,
    },
    /// Watch no packets any more.
    NoPackets,
    /// Something about the replay.
    Replay(ReplayOrder),
    /// Put a text into the terminal's clipboard.
    Copy(String),
}

/// What a replay can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOrder {
    /// Twice as fast.
    Faster,
    /// Half as fast.
    Slower,
    /// One look back.
    Back,
    /// One look on.
    On,
}

/// The next state.
pub fn update(mut state: State, action: Action) -> (State, Option<Request>) {
    let request = take(&mut state, action);
    refresh(&mut state);
    (state, request)
}

/// Takes what happened.
fn take(state: &mut State, action: Action) -> Option<Request> {
    match action {
        Action::Key(key) => {
            touch(state);
            return self::key(state, key);
        }
        Action::Mouse(mouse) => {
            touch(state);
            return mouse::mouse(state, mouse);
        }
        Action::Look(look) => return take_look(state, look),
        Action::Resize(width, height) => {
            state.size = (width, height);
            moves::keep_in_sight(state);
        }
        Action::Tick(now_ms) => tick(state, now_ms),
        Action::NextLook(at_ms) => state.next_look_ms = at_ms,
        Action::Traced(traced) => take_path(state, traced),
        Action::Events(events) => take_seen(state, events.into_iter().map(Seen::Event).collect()),
        Action::Packets(packets) => {
            take_seen(state, packets.into_iter().map(|packet| Seen::Packet(Box::new(packet))).collect());
        }
        Action::Followed(followed) => take_followed(state, followed),
        Action::Rates(rates) => take_rates(state, rates),
        Action::Uncounted(why) => state.uncounted = Some(why),
        Action::Watching(words) => state.watching = words,
        Action::Stream(stream) => state.stream = stream,
        Action::Cpu(share) => state.own_cpu = Some(share),
        Action::Trouble(trouble) => state.trouble = trouble,
        Action::Replay(replay) => state.origin = super::Origin::Recording(replay),
        Action::Say(text) => say(state, text),
    }
    None
}

/// Time goes on: messages go away, and rates that nobody has looked at for long.
fn tick(state: &mut State, now_ms: u64) {
    let counted = state.counts();
    state.now_ms = now_ms;
    state.message.take_if(|(_, until)| *until <= now_ms);
    if counted && !state.counts() {
        forget_rates(state);
    }
}

/// Somebody is at the keys.
const fn touch(state: &mut State) {
    state.touched_ms = state.now_ms;
}

/// Takes what passes in flows, while somebody looks at them.
fn take_rates(state: &mut State, rates: Arc<Rates>) {
    if !state.counts() {
        return;
    }
    state.newest_rates = Some(rates);
    if state.frozen.is_none() {
        stale(state, &[Tab::Flows]);
    }
}

fn forget_rates(state: &mut State) {
    state.newest_rates = None;
    state.uncounted = None;
    stale(state, &[Tab::Flows]);
}

/// Takes what packets did on a path. Its table has other columns while they are followed.
fn take_followed(state: &mut State, followed: Arc<Followed>) {
    if state.watching.is_none() {
        return;
    }
    let other = state.newest_followed.as_ref().is_none_or(|before| before.id != followed.id);
    state.newest_followed = Some(followed);
    if state.frozen.is_none() {
        if other {
            state.views[Tab::Path.place()].sort = None;
        }
        stale(state, &[Tab::Path]);
    }
}

/// Takes what was seen.
fn take_seen(state: &mut State, seen: Vec<Seen>) {
    let now_ms = state.now_ms;
    state.all_events.take(seen, now_ms);
    if state.frozen.is_none() {
        stale(state, &[Tab::Live]);
    }
}

/// Begins to watch packets, or stops. Of the instance that is selected or whose path is seen; else what the host drops.
fn packets(state: &mut State) -> Option<Request> {
    if state.watching.take().is_some() {
        say(state, "no packets are watched any more");
        state.newest_followed = None;
        state.views[Tab::Path.place()].sort = None;
        stale(state, &[Tab::Path]);
        return Some(Request::NoPackets);
    }
    let id = match state.tab {
        Tab::Instances if selected_instance(state).is_none() => {
            say(state, "whose packets? select an instance first");
            return None;
        }
        Tab::Instances => selected_instance(state),
        Tab::Path => state.watched.clone(),
        Tab::Live | Tab::Flows | Tab::Policy | Tab::Agent | Tab::Doctor => None,
    };
    let snapshot = Arc::clone(&state.look()?.snapshot);
    state.newest_followed = None;
    state.watching = Some("beginning to watch packets …".to_owned());
    Some(Request::Packets { id, snapshot })
}

/// Says something in the last line for a while.
fn say(state: &mut State, text: impl Into<String>) {
    state.message = Some((text.into(), state.now_ms + MESSAGE_MS));
}

/// Marks what tabs show as to be made anew.
fn stale(state: &mut State, tabs: &[Tab]) {
    for tab in tabs {
        state.views[tab.place()].stale = true;
    }
}

fn take_look(state: &mut State, look: Arc<Look>) -> Option<Request> {
    state.newest = Some(look);
    state.trouble = None;
    if let Some(frozen) = &mut state.frozen {
        frozen.behind += 1;
        return None;
    }
    stale(state, &[Tab::Instances, Tab::Flows, Tab::Policy, Tab::Agent, Tab::Doctor]);
    follow(state)
}

/// Takes a path, and keeps the one of the look before beside it for rates.
fn take_path(state: &mut State, traced: Arc<Traced>) {
    if state.watched.as_ref() != Some(&traced.id) {
        return;
    }
    let earlier = state.traced.take().filter(|before| before.id == traced.id);
    match earlier {
        // The same look again says nothing new about rates.
        Some(before) if before.at_ms == traced.at_ms => {}
        earlier => state.traced_before = earlier,
    }
    state.traced = Some(traced);
    stale(state, &[Tab::Path]);
}

/// Asks for the path that is seen, where it is not of the look that is shown.
fn follow(state: &mut State) -> Option<Request> {
    if state.tab != Tab::Path {
        return None;
    }
    if state.watched.is_none() {
        state.watched = selected_instance(state);
    }
    let (look, id) = (state.look()?, state.watched.as_ref()?);
    if state.traced.as_ref().is_some_and(|traced| traced.id == *id && traced.at_ms == look.at_ms) {
        return None;
    }
    if look.instance(id).is_none() {
        let text = "that instance is gone; this is its path when it was last seen";
        let known = state.traced.is_some();
        say(state, if known { text } else { "that instance is gone" });
        return None;
    }
    Some(Request::Watch { id: id.clone(), snapshot: Arc::clone(&look.snapshot), at_ms: look.at_ms })
}

/// The instance that is selected in the list of instances; none where a group of them is, or none is listed.
fn selected_instance(state: &State) -> Option<String> {
    let look = state.look()?;
    let selected = state.views[Tab::Instances.place()].selected.as_ref()?;
    let chosen = look.interfaces.iter().find(|line| line.id == *selected)?;
    let row = look.listing.instances.get(chosen.instance)?;
    Some(super::look::id(&row.identity))
}

/// Shows another tab.
fn show(state: &mut State, tab: Tab) -> Option<Request> {
    state.tab = tab;
    if tab != Tab::Flows {
        forget_rates(state);
    }
    state.views[tab.place()].stale = true;
    follow(state)
}

fn key(state: &mut State, key: Key) -> Option<Request> {
    if key == Key::ctrl('c') {
        return Some(Request::Quit { keep: false });
    }
    if state.input.is_some() {
        return input::key(state, key);
    }
    if state.overlay.is_some() {
        return overlay::key(state, key);
    }
    let Some(command) = state.settings.keys.command(key, state.tab, &state.origin) else {
        let (keys, help) = (&state.settings.keys, state.settings.keys.hint(Command::Help));
        let elsewhere =
            keys.elsewhere(key).map_or_else(|| "nothing here".to_owned(), |place| format!("something {place} only"));
        let words = format!("{key} does {elsewhere}; {help} lists the keys");
        say(state, words);
        return None;
    };
    run(state, command)
}

/// Does what a key asks for.
fn run(state: &mut State, command: Command) -> Option<Request> {
    match command {
        Command::Up
        | Command::Down
        | Command::PageUp
        | Command::PageDown
        | Command::First
        | Command::Last
        | Command::Left
        | Command::Right => moves::go(state, command),
        Command::Tab(tab) => return switch(state, tab),
        Command::NextTab => return switch(state, Tab::ALL[(state.tab.place() + 1) % Tab::ALL.len()]),
        Command::PreviousTab => {
            return switch(state, Tab::ALL[(state.tab.place() + Tab::ALL.len() - 1) % Tab::ALL.len()]);
        }
        Command::Enter => return enter(state),
        Command::Back => return back(state),
        Command::Filter | Command::CommandBar => input::open(state, command),
        Command::SortNext | Command::SortPrevious | Command::SortReverse => moves::sort(state, command),
        Command::Freeze => return freeze(state),
        Command::Problems | Command::Wide | Command::Past | Command::Group => option(state, command),
        Command::Help | Command::Columns | Command::Describe | Command::Json | Command::Export => {
            overlay::open(state, command);
        }
        Command::Quit | Command::QuitKeep if state.settings.recording => state.overlay = Some(Overlay::Quit),
        Command::Quit => return Some(Request::Quit { keep: false }),
        Command::QuitKeep => return Some(Request::Quit { keep: true }),
        Command::Suspend => return Some(Request::Suspend),
        Command::LookNow => return Some(Request::LookNow),
        Command::Packets => return packets(state),
        Command::Faster => return Some(Request::Replay(ReplayOrder::Faster)),
        Command::Slower => return Some(Request::Replay(ReplayOrder::Slower)),
        Command::StepBack => return Some(Request::Replay(ReplayOrder::Back)),
        Command::StepOn => return Some(Request::Replay(ReplayOrder::On)),
    }
    None
}

/// To another tab by its key: the way back begins anew.
fn switch(state: &mut State, tab: Tab) -> Option<Request> {
    if state.tab == tab {
        say(state, format!("this is {}", tab.title()));
        return None;
    }
    state.trail.clear();
    if tab == Tab::Path && state.tab == Tab::Instances {
        state.watched = selected_instance(state).or(state.watched.take());
    }
    show(state, tab)
}

/// Into the row: the path of an instance, the rows of a group, everything about anything else.
fn enter(state: &mut State) -> Option<Request> {
    let view = state.view();
    match view.entries.get(view.cursor) {
        None => say(state, "there is no row here"),
        Some(Entry::Group { label, .. }) => {
            let label = label.clone();
            moves::unfold(state, label, None);
        }
        Some(Entry::Row(_)) if state.tab == Tab::Instances => {
            state.watched = selected_instance(state);
            state.trail.push(Tab::Instances);
            return show(state, Tab::Path);
        }
        Some(Entry::Row(_)) => overlay::open(state, Command::Describe),
    }
    None
}

/// Back: clears the filter, then leaves the tab the way one came.
fn back(state: &mut State) -> Option<Request> {
    let view = &mut state.views[state.tab.place()];
    if !view.filter.is_empty() {
        view.filter = super::filter::Filter::default();
        view.stale = true;
        return None;
    }
    if let Some(tab) = state.trail.pop() {
        return show(state, tab);
    }
    let quit = state.settings.keys.hint(Command::Quit);
    say(state, format!("there is nothing to go back to; {quit} quits"));
    None
}

/// Freezes, or shows what has come since.
fn freeze(state: &mut State) -> Option<Request> {
    if state.frozen.take().is_none() {
        let (look, events) = (state.newest.clone(), state.all_events.clone());
        let (followed, rates) = (state.newest_followed.clone(), state.newest_rates.clone());
        state.frozen = Some(Frozen { look, events, followed, rates, behind: 0 });
        return None;
    }
    stale(state, &Tab::ALL);
    follow(state)
}

/// Switches something about the rows on or off.
#[expect(clippy::wildcard_enum_match_arm, reason = "the caller passes switches only")]
fn option(state: &mut State, command: Command) {
    let groups = sheet::of(state, state.tab).groups().len();
    let view = &mut state.views[state.tab.place()];
    match command {
        Command::Problems => view.problems = !view.problems,
        Command::Past => view.past = !view.past,
        Command::Wide => {
            view.wide = !view.wide;
            view.scroll = 0;
        }
        // One after the other, then none.
        Command::Group => {
            view.group = view.group.map_or(Some(0), |group| Some(group + 1)).filter(|group| *group < groups);
            view.selected = None;
        }
        _ => {}
    }
    view.stale = true;
}

/// Makes the rows of the tab that is seen, where what they are made of has changed.
fn refresh(state: &mut State) {
    let tab = state.tab;
    if !state.views[tab.place()].stale {
        return;
    }
    let mut view = std::mem::take(&mut state.views[tab.place()]);
    fill(&mut view, sheet::of(state, tab).as_ref(), tab == Tab::Live);
    state.views[tab.place()] = view;
    moves::keep_in_sight(state);
}

/// Filters, sorts and puts together; what was selected stays selected, wherever it is now.
fn fill(view: &mut View, sheet: &dyn Sheet, follows: bool) {
    let was_last = view.entries.is_empty() || view.cursor + 1 >= view.entries.len();
    let same = same_row(view, sheet);
    let mut asked = view.filter.asked();
    let wanted = |row: &usize| {
        let healthy = view.problems && sheet.health(*row) == Health::Ok;
        !healthy && asked.wants(|asked| sheet.fields(*row, asked))
    };
    let mut rows: Vec<usize> = (0..sheet.len()).filter(wanted).collect();
    let all = rows.len();
    if !view.past {
        rows.retain(|row| !sheet.past(*row));
    }
    (view.total, view.hidden_past, view.stale) = (sheet.len(), all - rows.len(), false);
    if let Some((column, backwards)) = view.sort {
        let mut keyed: Vec<(Order, usize)> = rows.iter().map(|row| (sheet.order(*row, column), *row)).collect();
        keyed.sort();
        if backwards {
            keyed.reverse();
        }
        rows = keyed.into_iter().map(|(_, row)| row).collect();
    }
    view.entries = match view.group.and_then(|group| sheet.groups().get(group)) {
        Some((_, column)) => together(view, sheet, &rows, *column),
        None => rows.iter().copied().map(Entry::Row).collect(),
    };
    view.rows = rows;
    let last = view.entries.len().saturating_sub(1);
    let found = match &view.selected {
        Some(_) if same.is_some() => view.entries.iter().position(|entry| Some(entry) == same.as_ref()),
        Some(selected) => view.entries.iter().position(|entry| entry_id(sheet, entry) == *selected),
        None => None,
    };
    view.cursor = match found {
        _ if follows && was_last => last,
        Some(place) => place,
        None => view.cursor.min(last),
    };
    view.selected = view.entries.get(view.cursor).map(|entry| entry_id(sheet, entry));
}

/// The row that was selected, where it still has its place among the rows: then no other has to say what it is.
fn same_row(view: &View, sheet: &dyn Sheet) -> Option<Entry> {
    let row = match view.entries.get(view.cursor)? {
        Entry::Row(row) => Some(*row).filter(|row| *row < sheet.len()),
        Entry::Group { .. } => None,
    }?;
    (view.selected.as_ref() == Some(&sheet.id(row))).then_some(Entry::Row(row))
}

/// Rows put together by what a column says, the worst first.
fn together(view: &View, sheet: &dyn Sheet, rows: &[usize], column: usize) -> Vec<Entry> {
    let mut groups: std::collections::BTreeMap<String, Vec<usize>> = std::collections::BTreeMap::new();
    for row in rows {
        groups.entry(sheet.cell(*row, column).text).or_default().push(*row);
    }
    let worst = |rows: &[usize]| rows.iter().map(|row| sheet.health(*row)).max().unwrap_or_default();
    let mut groups: Vec<_> = groups.into_iter().map(|(label, rows)| (worst(&rows), label, rows)).collect();
    groups.sort_by_key(|(worst, ..)| std::cmp::Reverse(*worst));
    let mut entries = Vec::new();
    for (worst, label, rows) in groups {
        let open = view.open.contains(&label);
        entries.push(Entry::Group { label, count: rows.len(), worst });
        if open {
            entries.extend(rows.into_iter().map(Entry::Row));
        }
    }
    entries
}

/// What a line is, whatever place it has.
fn entry_id(sheet: &dyn Sheet, entry: &Entry) -> String {
    match entry {
        Entry::Row(row) => sheet.id(*row),
        Entry::Group { label, .. } => format!("group {label}"),
    }
}

//! Everything the screen is a function of: plain data, changed by `update` alone.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use netdiag_model::{
    event::{Decision, Event},
    live::rates::Rates,
    snapshot::Snapshot,
};

use super::{
    filter::Filter,
    followed::Followed,
    keymap::Keymap,
    look::{Look, Traced},
    packet::Packet,
    sheet::{self, Health},
    theme::Theme,
};

/// How many events are kept.
pub(crate) const KEPT: usize = 10_000;

/// How long rates of flows are counted while nobody is at the keys: a screen that is left alone costs next to nothing.
const PATIENCE_MS: u64 = 300_000;

/// Over how many seconds a rate of events is taken.
const SPAN: u64 = 10;

/// A tab.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tab {
    /// Instances of the host.
    #[default]
    Instances,
    /// The path of one of them.
    Path,
    /// Verdicts as they come.
    Live,
    /// Tracked connections.
    Flows,
    /// Groups and rules.
    Policy,
    /// The agent.
    Agent,
    /// What the host can and cannot do.
    Doctor,
}

impl Tab {
    /// All, in their order.
    pub const ALL: [Self; 7] =
        [Self::Instances, Self::Path, Self::Live, Self::Flows, Self::Policy, Self::Agent, Self::Doctor];

    /// Its place.
    pub(crate) const fn place(self) -> usize {
        self as usize
    }

    /// Its title.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Instances => "Instances",
            Self::Path => "Path",
            Self::Live => "Live",
            Self::Flows => "Flows",
            Self::Policy => "Policy",
            Self::Agent => "Agent",
            Self::Doctor => "Doctor",
        }
    }

    /// Its title on a narrow screen.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Instances => "Inst",
            Self::Path => "Path",
            Self::Live => "Live",
            Self::Flows => "Flows",
            Self::Policy => "Policy",
            Self::Agent => "Agent",
            Self::Doctor => "Doctor",
        }
    }

    /// The word of its key in a configuration.
    pub(crate) const fn binding(self) -> &'static str {
        match self {
            Self::Instances => "tab-instances",
            Self::Path => "tab-path",
            Self::Live => "tab-live",
            Self::Flows => "tab-flows",
            Self::Policy => "tab-policy",
            Self::Agent => "tab-agent",
            Self::Doctor => "tab-doctor",
        }
    }

    /// What it shows.
    pub(crate) const fn purpose(self) -> &'static str {
        match self {
            Self::Instances => "tab: instances of this host",
            Self::Path => "tab: the path of the selected instance",
            Self::Live => "tab: packets and verdicts as they come",
            Self::Flows => "tab: tracked connections",
            Self::Policy => "tab: security groups, rules and hits",
            Self::Agent => "tab: the agent, its maps and hooks",
            Self::Doctor => "tab: what this host can and cannot do",
        }
    }
}

/// How it looks and what the keys are; chosen at the start.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Colours.
    pub theme: Theme,
    /// Only ASCII.
    pub ascii: bool,
    /// Ids in full.
    pub full_ids: bool,
    /// Keys.
    pub keys: Keymap,
    /// Quitting is asked twice: something is being recorded.
    pub recording: bool,
    /// Columns that are switched on or off from the start, by their letters.
    pub columns: BTreeMap<Tab, BTreeSet<char>>,
}

impl Settings {
    /// Switches columns of a tab on or off, by the letters the tab lists them with.
    ///
    /// # Errors
    /// There is no such tab or column; says which there are.
    pub fn switch_columns(&mut self, tab: &str, letters: &str) -> Result<(), String> {
        let Some(tab) = Tab::ALL.into_iter().find(|known| known.title().eq_ignore_ascii_case(tab)) else {
            let titles = Tab::ALL.map(|tab| tab.title().to_lowercase());
            return Err(format!("\"{tab}\" is no tab; there are {}", titles.join(", ")));
        };
        // The first column is what a row is called, and stays.
        let known = || sheet::columns(tab).iter().skip(1);
        if let Some(letter) = letters.chars().find(|letter| known().all(|column| column.code != *letter)) {
            let all: Vec<String> = known().map(|column| format!("{} {}", column.code, column.title)).collect();
            return Err(format!("\"{letter}\" is no column of {}; there are {}", tab.title(), all.join(", ")));
        }
        self.columns.insert(tab, letters.chars().collect());
        Ok(())
    }
}

/// Where looks come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    /// This host, as it is now.
    Live,
    /// A snapshot, by the name of its file.
    Snapshot(String),
    /// A recording.
    Recording(Replay),
}

/// A recording that is replayed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// Name of the file.
    pub file: String,
    /// How many times as fast as it was.
    pub speed: f64,
    /// Which look is shown, from 1.
    pub at: usize,
    /// How many there are.
    pub of: usize,
}

/// Whether events come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stream {
    /// Nobody has been asked yet.
    #[default]
    Unasked,
    /// They come.
    Open,
    /// They do not; why, and what to do.
    Absent(String),
}

/// Something that keeps the screen from being right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What failed.
    pub what: String,
    /// Why.
    pub cause: String,
    /// What to do.
    pub advice: String,
}

/// Something that was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// A verdict of netdiag's own, or that some are missing.
    Event(Event),
    /// A packet that was watched.
    Packet(Box<Packet>),
}

/// An event with its place in all that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Its number, from 1.
    pub(crate) number: u64,
    /// The event.
    pub(crate) seen: Seen,
}

/// The last events, and counts of all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events {
    /// The last ones, the newest at the end.
    pub(crate) lines: VecDeque<Arc<Line>>,
    /// How many came.
    pub(crate) total: u64,
    /// How many of them were refused.
    pub(crate) denied: u64,
    /// Events of which there is no record.
    pub(crate) lost: u64,
    /// How many came in each of the last seconds: second and number.
    recent: VecDeque<(u64, u64)>,
}

impl Events {
    /// Takes what came.
    pub(crate) fn take(&mut self, events: Vec<Seen>, now_ms: u64) {
        let second = now_ms / 1000;
        let count = u64::try_from(events.len()).unwrap_or(u64::MAX);
        match self.recent.back_mut() {
            Some((at, number)) if *at == second => *number += count,
            _ => self.recent.push_back((second, count)),
        }
        while self.recent.front().is_some_and(|(at, _)| at + SPAN <= second) {
            self.recent.pop_front();
        }
        for seen in events {
            self.total += 1;
            match &seen {
                Seen::Event(Event::Verdict(verdict)) => self.denied += u64::from(verdict.verdict == Decision::Deny),
                Seen::Packet(packet) => self.denied += u64::from(packet.health == Health::Broken),
                Seen::Event(Event::Lost(loss)) => self.lost += loss.suppressed + loss.lost + loss.skipped,
            }
            self.lines.push_back(Arc::new(Line { number: self.total, seen }));
        }
        let over = self.lines.len().saturating_sub(KEPT);
        self.lines.drain(..over);
    }

    /// Events a second, over the last seconds.
    pub(crate) fn rate(&self, now_ms: u64) -> u64 {
        let second = now_ms / 1000;
        let recent = self.recent.iter().filter(|(at, _)| at + SPAN > second);
        recent.map(|(_, number)| number).sum::<u64>().div_ceil(SPAN)
    }
}

/// A line of a table: a row, or rows that were put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// A row of the sheet.
    Row(usize),
    /// Several rows.
    Group {
        /// What they have in common.
        label: String,
        /// How many they are.
        count: usize,
        /// How the worst of them is.
        worst: Health,
    },
}

/// What a tab shows of its rows.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own, with a key of its own")]
pub(crate) struct View {
    /// The lines, filtered, sorted and put together.
    pub(crate) entries: Vec<Entry>,
    /// The rows that are wanted, in their order, whether groups of them are folded or not.
    pub(crate) rows: Vec<usize>,
    /// How many rows there are.
    pub(crate) total: usize,
    /// How many are hidden because they are over.
    pub(crate) hidden_past: usize,
    /// Place of the selected line.
    pub(crate) cursor: usize,
    /// What is selected, whatever place it has.
    pub(crate) selected: Option<String>,
    /// The first line that is seen.
    pub(crate) offset: usize,
    /// How many columns are scrolled away at the left.
    pub(crate) scroll: usize,
    /// Column it is sorted by, and whether backwards.
    pub(crate) sort: Option<(usize, bool)>,
    /// Which rows are wanted.
    pub(crate) filter: Filter,
    /// Only problems.
    pub(crate) problems: bool,
    /// All columns, as wide as they are good for.
    pub(crate) wide: bool,
    /// Show what is over.
    pub(crate) past: bool,
    /// Columns that were switched on or off by their letters.
    pub(crate) toggled: BTreeSet<char>,
    /// Which of the sheet's groups rows are put together by.
    pub(crate) group: Option<usize>,
    /// Groups that are unfolded.
    pub(crate) open: BTreeSet<String>,
    /// It has to be made anew before it is shown.
    pub(crate) stale: bool,
}

/// Text that is being typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// The filter.
    Filter(String),
    /// A command.
    Command(String),
}

/// What covers the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    /// Keys.
    Help,
    /// Columns of this tab.
    Columns,
    /// Forms the view can be written in.
    Export,
    /// Text that can be scrolled: everything about a row, or a row in JSON.
    Text {
        /// What it is.
        title: String,
        /// Its lines: a name, which may be empty, and a value.
        lines: Vec<(String, String)>,
        /// Whether a click copies a value.
        exact: bool,
    },
    /// Quitting is to be confirmed.
    Quit,
}

/// The screen as it was when it was frozen.
#[derive(Clone, Debug)]
pub(crate) struct Frozen {
    /// The look.
    pub(crate) look: Option<Arc<Look>>,
    /// The events.
    pub(crate) events: Events,
    /// What packets did on the path.
    pub(crate) followed: Option<Arc<Followed>>,
    /// What passed in the flows.
    pub(crate) rates: Option<Arc<Rates>>,
    /// How many looks came since.
    pub(crate) behind: u64,
}

/// Everything the screen is a function of.
#[derive(Clone, Debug)]
pub struct State {
    /// Chosen at the start.
    pub(crate) settings: Settings,
    /// Where looks come from.
    pub(crate) origin: Origin,
    /// Columns and rows of the terminal.
    pub(crate) size: (u16, u16),
    /// Milliseconds since 1970-01-01 UTC.
    pub(crate) now_ms: u64,
    /// The newest look.
    pub(crate) newest: Option<Arc<Look>>,
    /// When the next look is meant to be: where nobody is at the keys they are seldom, and the last one is not stale.
    pub(crate) next_look_ms: u64,
    /// The path that is followed, and how it was before.
    pub(crate) traced: Option<Arc<Traced>>,
    /// How that path was at the look before.
    pub(crate) traced_before: Option<Arc<Traced>>,
    /// Whose path is followed.
    pub(crate) watched: Option<String>,
    /// What packets did on a path while they were watched.
    pub(crate) newest_followed: Option<Arc<Followed>>,
    /// What passes in the flows, while that is counted.
    pub(crate) newest_rates: Option<Arc<Rates>>,
    /// Why that is not counted.
    pub(crate) uncounted: Option<String>,
    /// When somebody was at the keys: milliseconds since 1970-01-01 UTC.
    pub(crate) touched_ms: u64,
    /// Events.
    pub(crate) stream: Stream,
    /// What packets are watched, in words.
    pub(crate) watching: Option<String>,
    /// The events themselves.
    pub(crate) all_events: Events,
    /// Frozen.
    pub(crate) frozen: Option<Frozen>,
    /// The tab that is seen.
    pub(crate) tab: Tab,
    /// What each tab shows.
    pub(crate) views: [View; 7],
    /// The tabs one came from.
    pub(crate) trail: Vec<Tab>,
    /// What covers the table.
    pub(crate) overlay: Option<Overlay>,
    /// The first line of it that is seen.
    pub(crate) overlay_offset: usize,
    /// Text that is being typed.
    pub(crate) input: Option<Input>,
    /// What is to be said in the last line: text, and until when.
    pub(crate) message: Option<(String, u64)>,
    /// What keeps the screen from being right.
    pub(crate) trouble: Option<Trouble>,
    /// Share of a core netdiag itself uses, in thousandths.
    pub(crate) own_cpu: Option<u32>,
    /// The last click: when, and at which line.
    pub(crate) clicked: Option<(u64, usize)>,
}

impl State {
    /// Before the first look.
    pub fn new(settings: Settings, origin: Origin, size: (u16, u16), now_ms: u64) -> Self {
        let toggled = |tab| settings.columns.get(tab).cloned().unwrap_or_default();
        let views = Tab::ALL.each_ref().map(|tab| View { stale: true, toggled: toggled(tab), ..View::default() });
        Self {
            settings,
            origin,
            size,
            now_ms,
            newest: None,
            next_look_ms: 0,
            traced: None,
            traced_before: None,
            watched: None,
            newest_followed: None,
            newest_rates: None,
            uncounted: None,
            touched_ms: now_ms,
            stream: Stream::Unasked,
            watching: None,
            all_events: Events::default(),
            frozen: None,
            tab: Tab::Instances,
            views,
            trail: Vec::new(),
            overlay: None,
            overlay_offset: 0,
            input: None,
            message: None,
            trouble: None,
            own_cpu: None,
            clicked: None,
        }
    }

    /// The look that is shown.
    pub(crate) fn look(&self) -> Option<&Arc<Look>> {
        self.frozen.as_ref().map_or(self.newest.as_ref(), |frozen| frozen.look.as_ref())
    }

    /// The events that are shown.
    pub(crate) fn events(&self) -> &Events {
        self.frozen.as_ref().map_or(&self.all_events, |frozen| &frozen.events)
    }

    /// What packets did on the path that is shown.
    pub(crate) fn followed(&self) -> Option<&Followed> {
        let followed = self.frozen.as_ref().map_or(self.newest_followed.as_ref(), |frozen| frozen.followed.as_ref())?;
        (self.watched.as_ref() == Some(&followed.id)).then_some(followed)
    }

    /// What passes in the flows that are shown.
    pub(crate) fn rates(&self) -> Option<&Rates> {
        let newest = self.newest_rates.as_ref().filter(|_| self.counts());
        self.frozen.as_ref().map_or(newest, |frozen| frozen.rates.as_ref()).map(Arc::as_ref)
    }

    /// Whether what passes in flows is to be counted: somebody looks at them.
    pub(crate) fn counts(&self) -> bool {
        self.wants_rates() && self.now_ms < self.touched_ms.saturating_add(PATIENCE_MS)
    }

    /// The same, if only somebody were at the keys.
    pub(crate) fn wants_rates(&self) -> bool {
        self.tab == Tab::Flows && matches!(self.origin, Origin::Live)
    }

    /// The look of whose flows it is to be counted what passes in them; none while nobody looks at any.
    pub fn counted(&self) -> Option<&Arc<Snapshot>> {
        self.newest.as_ref().filter(|_| self.counts()).map(|look| &look.snapshot)
    }

    /// What the tab that is seen shows.
    pub(crate) const fn view(&self) -> &View {
        &self.views[self.tab.place()]
    }

    /// Events that came since the screen was frozen.
    pub(crate) fn events_behind(&self) -> u64 {
        self.frozen.as_ref().map_or(0, |frozen| self.all_events.total - frozen.events.total)
    }

    /// Columns and rows of the terminal this state is drawn for.
    pub const fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The tab that is seen.
    pub const fn tab(&self) -> Tab {
        self.tab
    }

    /// Whether the screen changes because time goes on: a live look gets older, a message goes away.
    pub const fn shows_time(&self) -> bool {
        matches!(self.origin, Origin::Live) || self.message.is_some()
    }

    /// Whether colours, signs and keys are these.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }
}

#[cfg(test)]
mod tests {
    use netdiag_model::event::{Event, LossEvent};

    use super::{Events, KEPT, SPAN, Seen};

    fn lost(number: u64) -> Seen {
        Seen::Event(Event::Lost(LossEvent { lost: number, ..LossEvent::default() }))
    }

    #[test]
    fn the_last_events_are_kept_and_all_are_counted() {
        let mut events = Events::default();
        events.take(vec![lost(1); KEPT], 1000);
        events.take(vec![lost(2); 3], 2000);
        assert_eq!((events.lines.len(), events.total), (KEPT, KEPT as u64 + 3));
        assert_eq!(events.lost, KEPT as u64 + 6);
        assert_eq!(events.lines.back().unwrap().number, events.total);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut events = Events::default();
        events.take(vec![lost(1); 100], 5_000);
        assert_eq!(events.rate(5_900), 10);
        assert_eq!(events.rate(5_000 + SPAN * 1000), 0);
    }
}

//! Rows and columns, one kind for each tab: what a table shows, sorts and filters.
//!
//! Cells are made when they are drawn, so that a table of any length costs no more than the part of it that is seen.

use std::sync::Arc;

use netdiag_model::trace::HopState;

use super::{
    filter::{Asked, Field},
    look::Look,
    state::{State, Tab},
};
use crate::text::words;

/// What the agent says and does.
mod agent;
/// What the host can and cannot do.
mod doctor;
/// Tracked connections.
mod flows;
/// The hops of a path.
pub(super) mod hops;
/// Instances.
pub(super) mod instances;
/// Verdicts of packets as they come.
mod live;
/// Security groups and their rules.
pub(super) mod policy;

/// How something is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Health {
    /// Nothing to say against it.
    #[default]
    Ok,
    /// Most likely harmless, and worth a look.
    Warning,
    /// Nothing says how it is.
    Unknown,
    /// Most likely a problem.
    Broken,
}

impl Health {
    /// The word for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Unknown => "unknown",
            Self::Broken => "BROKEN",
        }
    }

    /// The sign for it.
    pub(crate) const fn glyph(self, ascii: bool) -> &'static str {
        match (self, ascii) {
            (Self::Ok, true) => "+",
            (Self::Warning, true) => "!",
            (Self::Unknown, _) => "?",
            (Self::Broken, true) => "X",
            (Self::Ok, false) => "●",
            (Self::Warning, false) => "▲",
            (Self::Broken, false) => "✗",
        }
    }

    /// How it is painted.
    pub(crate) const fn paint(self) -> Paint {
        match self {
            Self::Ok => Paint::Good,
            Self::Warning => Paint::Warning,
            Self::Unknown => Paint::Unknown,
            Self::Broken => Paint::Bad,
        }
    }
}

impl From<HopState> for Health {
    fn from(state: HopState) -> Self {
        match state {
            HopState::Ok => Self::Ok,
            HopState::Warning => Self::Warning,
            HopState::Unknown => Self::Unknown,
            HopState::Broken => Self::Broken,
        }
    }
}

/// What a piece of text means, for the theme to paint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) enum Paint {
    /// Nothing in particular.
    #[default]
    Plain,
    /// What the eye looks for.
    Strong,
    /// What it may pass over.
    Dim,
    /// All is well.
    Good,
    /// Worth a look.
    Warning,
    /// A problem.
    Bad,
    /// Not known.
    Unknown,
    /// Titles and frames.
    Heading,
}

/// A cell. The text comes from outside: whoever draws makes it harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cell {
    /// What it says.
    pub(crate) text: String,
    /// How it is painted.
    pub(crate) paint: Paint,
    /// It is an address with a port, which is what tells such addresses apart.
    pub(crate) endpoint: bool,
}

impl Cell {
    /// A cell with a meaning.
    pub(crate) fn new(paint: Paint, text: impl Into<String>) -> Self {
        Self { text: text.into(), paint, endpoint: false }
    }

    /// An address with a port.
    pub(crate) fn endpoint(text: impl Into<String>) -> Self {
        Self { endpoint: true, ..Self::plain(text) }
    }

    /// A plain cell.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Self::new(Paint::Plain, text)
    }

    /// A cell that may be unknown.
    pub(crate) fn maybe(text: Option<impl ToString>) -> Self {
        text.map_or_else(|| Self::new(Paint::Dim, "-"), |text| Self::plain(text.to_string()))
    }

    /// How something is, as sign and word.
    pub(crate) fn health(health: Health, ascii: bool) -> Self {
        Self::new(health.paint(), format!("{} {}", health.glyph(ascii), health.word()))
    }
}

/// A column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    /// Its letter, in the list of columns.
    pub(crate) code: char,
    /// Its title.
    pub(crate) title: &'static str,
    /// The narrowest it can be.
    pub(crate) least: u16,
    /// The widest it is good for.
    pub(crate) most: u16,
    /// How wide the terminal has to be for it; [`Column::WIDE`] for those that only a wide view has.
    pub(crate) from: u16,
    /// Numbers stand at the right.
    pub(crate) right: bool,
}

impl Column {
    /// Only in a wide view.
    pub(crate) const WIDE: u16 = u16::MAX;

    /// A column of text.
    pub(crate) const fn new(code: char, title: &'static str, (least, most): (u16, u16), from: u16) -> Self {
        Self { code, title, least, most, from, right: false }
    }

    /// A column of numbers.
    pub(crate) const fn number(code: char, title: &'static str, width: u16, from: u16) -> Self {
        Self { code, title, least: width, most: width, from, right: true }
    }
}

/// A value to sort by; what is not known comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    /// A number, an address.
    Number(u128),
    /// A text.
    Text(String),
    /// Not known.
    Absent,
}

impl Order {
    /// A number that may be unknown.
    pub(crate) fn maybe(number: Option<impl Into<u128>>) -> Self {
        number.map_or(Self::Absent, |number| Self::Number(number.into()))
    }

    /// An address that may be unknown; the families do not mix.
    pub(crate) fn address(address: Option<std::net::IpAddr>) -> Self {
        match address {
            None => Self::Absent,
            Some(std::net::IpAddr::V4(address)) => Self::Number(u32::from(address).into()),
            Some(std::net::IpAddr::V6(address)) => Self::Number(u128::from(address).saturating_add(1 << 32)),
        }
    }
}

/// Lines of a description: a name and a value; a line without a name is a heading.
pub(crate) type Details = Vec<(String, String)>;

/// The rows of a tab.
pub(crate) trait Sheet {
    /// Its columns, in the order they are given room.
    fn columns(&self) -> &'static [Column];

    /// How many rows there are.
    fn len(&self) -> usize;

    /// What a row is, whatever place it has.
    fn id(&self, row: usize) -> String;

    /// What a cell says.
    fn cell(&self, row: usize, column: usize) -> Cell;

    /// What a cell is sorted by.
    fn order(&self, row: usize, column: usize) -> Order {
        Order::Text(self.cell(row, column).text)
    }

    /// How a row is.
    fn health(&self, row: usize) -> Health;

    /// Whether it is over: closed, dead.
    fn past(&self, _row: usize) -> bool {
        false
    }

    /// What a filter can ask of a row.
    fn fields(&self, row: usize, asked: &mut Asked<'_>);

    /// What a row is called.
    fn called(&self, row: usize) -> String {
        self.cell(row, 0).text
    }

    /// Everything about a row.
    fn details(&self, row: usize) -> Details {
        let columns = self.columns().iter().enumerate();
        columns.map(|(place, column)| (column.title.to_lowercase(), self.cell(row, place).text)).collect()
    }

    /// What rows can be put together by: a word, and the column that has it.
    fn groups(&self) -> &'static [(&'static str, usize)] {
        &[]
    }
}

/// Says the groups that have a rule.
fn groups_of(look: Option<&Arc<Look>>, rule: Option<&str>, asked: &mut Asked<'_>) {
    for line in look.zip(rule).into_iter().flat_map(|(look, id)| look.rules_of(id)) {
        asked.say(Field::Group, &line.group);
        asked.say(Field::Group, &line.group_id);
    }
}

/// A rule in the words of whoever wrote it; none where nobody says them.
fn rule_words(look: Option<&Arc<Look>>, rule: Option<&str>) -> Option<String> {
    let mut lines = look?.rules_of(rule?);
    lines.find_map(|line| Some(format!("{}: {}", line.group, words::rule(line.rule.as_ref()?.rule.as_ref()?))))
}

/// The columns of a tab.
pub(crate) const fn columns(tab: Tab) -> &'static [Column] {
    match tab {
        Tab::Instances => &instances::COLUMNS,
        Tab::Path => &hops::COLUMNS,
        Tab::Live => &live::COLUMNS,
        Tab::Flows => &flows::COLUMNS,
        Tab::Policy => &policy::COLUMNS,
        Tab::Agent => &agent::COLUMNS,
        Tab::Doctor => &doctor::COLUMNS,
    }
}

/// The rows of a tab in a state.
pub(crate) fn of(state: &State, tab: Tab) -> Box<dyn Sheet + '_> {
    let ascii = state.settings.ascii;
    match tab {
        Tab::Instances => Box::new(instances::Instances { look: state.look(), ascii }),
        Tab::Path => Box::new(hops::PathRows::of(state)),
        Tab::Live => Box::new(live::Live { events: state.events(), look: state.look(), ascii }),
        Tab::Flows => Box::new(flows::Flows { look: state.look(), rates: state.rates(), ascii }),
        Tab::Policy => Box::new(policy::Policy { look: state.look(), ascii }),
        Tab::Agent => Box::new(agent::Agent { look: state.look(), ascii }),
        Tab::Doctor => Box::new(doctor::Doctor { look: state.look(), ascii }),
    }
}

//! The hops of one direction, as a table with what belongs to each hop below it.
//!
//! On a page of a terminal's width a heading says where the hops below it live, and what a hop says about itself fills
//! the end of its line and goes on below. A wide page has a column for each fact.

/// The facts of a hop, as cells and as words.
mod facts;

use netdiag_model::trace::{Direction, Hop, InterfaceTrace, RuleRef};

use self::facts::Fact;
use super::{
    page::{Page, Paint, Span, atom, width},
    table::{Column, Layout},
    units,
};
use crate::{
    place,
    tunnels::{self, Entry},
};

/// Columns in front of what stands below a hop: under its state.
const BELOW: usize = 5;
/// The narrowest page with a column for each fact.
const ROOMY: usize = 140;
/// Columns a compact table leaves for what a hop says about itself: `UP, 10.0.0.2/24`.
const WORDS: usize = 15;
/// Spaces in front of these words.
const BETWEEN: usize = 2;
/// Columns of the compact table in front of these words.
const COMPACT: usize = 7;

/// The columns, in the order they are given room.
const COLUMNS: [Column; 12] = [
    Column::new(" #", 2, 3).essential().right(),
    Column::new("STATE", 9, 9).essential(),
    Column::new("HOP", 12, 14).essential(),
    Column::new("NAME", 17, 32).essential(),
    Column::new("MTU", 4, 5).right().blank(),
    Column::new("RX", 5, 5).right().blank(),
    Column::new("TX", 5, 5).right().blank(),
    Column::new("WHERE", 17, 28),
    Column::new("STATUS", 10, 36).blank(),
    Column::new("ADDRESSES", 14, 44).blank(),
    Column::new("MEANING", 24, 70).blank(),
    Column::new("RX / TX BYTES", 17, 20).blank(),
];

/// The table of an interface: one for all directions, so that they read as one.
pub(super) struct Table<'a> {
    interface: &'a InterfaceTrace,
    layout: Layout<'static>,
    /// Columns for words behind the table; none where each fact has its own column.
    words: Option<usize>,
}

impl<'a> Table<'a> {
    /// Fits the table to the page.
    pub(super) fn fit(page: &Page<'_>, interface: &'a InterfaceTrace) -> Self {
        let rows = interface.hops.iter().map(|hop| facts::cells(page, interface, hop));
        if page.width() >= ROOMY {
            let layout = Layout::fit(&COLUMNS, &rows.collect::<Vec<_>>(), page.width());
            return Self { interface, layout, words: None };
        }
        let rows: Vec<_> = rows.map(|cells| cells[..COMPACT].to_vec()).collect();
        let layout = Layout::fit(&COLUMNS[..COMPACT], &rows, page.width() - WORDS - BETWEEN);
        let words = page.width().saturating_sub(layout.total() + BETWEEN);
        Self { interface, layout, words: Some(words) }
    }

    /// Draws the hops of a direction.
    pub(super) fn draw(&self, page: &mut Page<'_>, direction: Direction) {
        let hops: Vec<&Hop> = self.interface.hops.iter().filter(|hop| hop.direction == direction).collect();
        if hops.is_empty() {
            return;
        }
        page.gap();
        page.line(vec![Span::new(Paint::Heading, title(direction))]);
        self.titles(page);
        let entries =
            if page.style.detail > 0 { hops.into_iter().map(Entry::Hop).collect() } else { tunnels::summary(hops) };
        let mut here = None;
        for entry in entries {
            let (Entry::Hop(hop) | Entry::More(hop, _)) = entry;
            let place = self.place(hop);
            if self.words.is_some() && here.as_ref() != Some(&place) {
                heading(page, &place);
            }
            here = Some(place);
            match entry {
                Entry::Hop(hop) => self.hop(page, hop),
                Entry::More(_, more) => {
                    let text = format!("and {more} more tunnels that are ok; -v names them");
                    page.hang(vec![Span::space(BELOW)], &Span::new(Paint::Dim, text));
                }
            }
        }
    }

    /// Where a hop lives, with the identity of the namespace.
    fn place(&self, hop: &Hop) -> String {
        let place = place::of(self.interface, hop);
        let known = [hop.netns.as_ref(), self.interface.netns.as_ref()];
        match known.into_iter().flatten().find(|netns| netns.label == place) {
            Some(netns) => format!("{place}  {}", netns.id),
            None => place,
        }
    }

    /// The line of titles.
    fn titles(&self, page: &mut Page<'_>) {
        let mut line = self.layout.titles(page);
        if let Some(room) = self.words {
            line.push(Span::new(Paint::Dim, page.cut_end("STATUS", room)));
        }
        page.line(line);
    }

    /// One hop with what belongs to it.
    fn hop(&self, page: &mut Page<'_>, hop: &Hop) {
        let cells = facts::cells(page, self.interface, hop);
        let mut line = self.layout.line(page, &cells);
        let mut facts: Vec<Fact> =
            self.layout.left_over(&cells).filter_map(|(title, cell)| Fact::left_over(title, cell)).collect();
        if let Some(room) = self.words {
            let mut words = facts::words(page, hop);
            let shown = fitting(&words, room);
            for (place, fact) in words.drain(..shown).enumerate() {
                line.extend([Span::plain(if place > 0 { ", " } else { "" }), fact.span]);
            }
            facts.extend(words);
        }
        facts.extend(facts::losses(hop));
        page.line(line);
        below(page, facts);
        hop.rules.iter().for_each(|hop_rule| rule(page, hop_rule));
        self.details(page, hop);
    }

    /// What `-v` and `-vv` add.
    fn details(&self, page: &mut Page<'_>, hop: &Hop) {
        if page.style.detail == 0 {
            return;
        }
        let mut things = facts::details(page, hop);
        if self.words.is_none() {
            things.splice(0..0, hop.netns.as_ref().map(|netns| format!("netns {}", netns.id)));
        }
        if !things.is_empty() {
            page.list(vec![Span::space(BELOW)], &things, Paint::Dim);
        }
        if page.style.detail > 1 {
            for command in &hop.verify {
                page.command(vec![Span::space(BELOW), Span::new(Paint::Dim, "$ ")], command);
            }
        }
    }
}

/// What a direction is called.
const fn title(direction: Direction) -> &'static str {
    match direction {
        Direction::Outward => "OUTWARD  from the instance",
        Direction::Lateral => "ASIDE  to this network on other hosts",
        Direction::Inward => "INWARD  to the instance",
    }
}

/// Where the hops below live, whole: a reader pastes it behind `ip netns exec`.
fn heading(page: &mut Page<'_>, place: &str) {
    let line = Span::new(Paint::Dim, page.glyph("── ", "-- "));
    let place = page.exact(place);
    page.hang(vec![line], &Span::plain(place));
}

/// How many facts, from the first on, fit the room beside one another.
fn fitting(facts: &[Fact], room: usize) -> usize {
    let mut taken = 0;
    let fits = |fact: &&Fact| {
        taken += width(&fact.span.text) + if taken > 0 { width(", ") } else { 0 };
        taken <= room && !fact.alone
    };
    facts.iter().take_while(fits).count()
}

/// What the line had no room for: in one list, and what deserves a line of its own.
fn below(page: &mut Page<'_>, facts: Vec<Fact>) {
    let lead = || vec![Span::space(BELOW)];
    let (alone, together): (Vec<Fact>, Vec<Fact>) = facts.into_iter().partition(|fact| fact.alone);
    let together: Vec<String> = together.into_iter().map(|fact| fact.span.text).collect();
    if !together.is_empty() {
        page.list(lead(), &together, Paint::Plain);
    }
    for fact in &alone {
        page.hang(lead(), &fact.span);
    }
}

/// A rule: what it does to this path, what it has counted, and the rule as its own tool prints it.
pub(super) fn rule(page: &mut Page<'_>, rule: &RuleRef) {
    let meaning = if rule.meaning.is_empty() { "meaning unknown".to_owned() } else { page.say(&rule.meaning) };
    let counted = atom(&format!("({})", units::counted(rule.counters)));
    let branch = page.glyph("└ ", "` ");
    page.hang(
        vec![Span::space(BELOW), Span::new(Paint::Dim, branch)],
        &Span::new(Paint::Strong, format!("{meaning} {counted}")),
    );
    let lead = || vec![Span::space(BELOW + 2)];
    let text = page.exact(&rule.rule);
    page.hang(lead(), &Span::new(Paint::Dim, text));
    if page.style.detail > 0 {
        let RuleRef { table, chain, number, backend, netns, .. } = rule;
        let place = format!("rule {number} of {chain} in {table}, {}, {} {}", backend.name(), netns.label, netns.id);
        let place = page.exact(&place);
        page.hang(lead(), &Span::new(Paint::Dim, place));
    }
}

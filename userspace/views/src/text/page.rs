//! Lines of painted text, wrapped to the width.
//!
//! A view builds a page line by line out of painted spans and writes it at the end. Widths are display widths. Words of the
//! model come in through `say` or `exact`, which make them harmless; the writer does it once more, so
//! that a view that forgets shows an ugly line and never a dangerous one.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use anstyle::{AnsiColor, Effects};
use netdiag_model::trace::HopState;
use unicode_width::UnicodeWidthStr;

use super::Style;
use crate::{escape, shorten, wrap};

/// Stands for a space inside something that is not to be broken. [`escape`] lets none through, so none is a word's own.
const HARD_SPACE: char = '\u{a0}';

/// Columns of the name of a value, with the space behind it.
const LABEL: usize = 11;

/// Fewest columns a text is given beside its lead.
const LEAST: usize = 20;

/// What a piece of text is, for its colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paint {
    /// Nothing special.
    Plain,
    /// A heading.
    Heading,
    /// What the eye looks for: names.
    Strong,
    /// What the eye may skip.
    Dim,
    /// Works.
    Good,
    /// Deserves a look.
    Warning,
    /// Nobody knows.
    Unknown,
    /// Does not work.
    Bad,
}

impl Paint {
    /// The paint of a state.
    pub(super) const fn of(state: HopState) -> Self {
        match state {
            HopState::Ok => Self::Good,
            HopState::Warning => Self::Warning,
            HopState::Unknown => Self::Unknown,
            HopState::Broken => Self::Bad,
        }
    }

    /// The paint as the sixteen basic colours have it, which every theme of a terminal keeps readable.
    const fn ansi(self) -> anstyle::Style {
        let plain = anstyle::Style::new();
        match self {
            Self::Plain => plain,
            Self::Heading => plain.effects(Effects::BOLD).fg_color(Some(anstyle::Color::Ansi(AnsiColor::Cyan))),
            Self::Strong => plain.effects(Effects::BOLD),
            Self::Dim => plain.effects(Effects::DIMMED),
            Self::Good => plain.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Green))),
            Self::Warning => plain.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Yellow))),
            Self::Unknown => plain.fg_color(Some(anstyle::Color::Ansi(AnsiColor::Magenta))),
            Self::Bad => plain.effects(Effects::BOLD).fg_color(Some(anstyle::Color::Ansi(AnsiColor::Red))),
        }
    }
}

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// What it is.
    pub(super) paint: Paint,
    /// Its text.
    pub(super) text: String,
}

impl Span {
    /// A piece of a line.
    pub(super) fn new(paint: Paint, text: impl Into<String>) -> Self {
        Self { paint, text: text.into() }
    }

    /// Unpainted.
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self::new(Paint::Plain, text)
    }

    /// So many spaces.
    pub(super) fn space(columns: usize) -> Self {
        Self::plain(" ".repeat(columns))
    }
}

/// A line.
pub(super) type Line = Vec<Span>;

/// Display width of a text.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// Something that stays on one line if it can: its spaces do not break.
pub(super) fn atom(text: &str) -> String {
    text.replace(' ', "\u{a0}")
}

/// A text under construction.
pub(super) struct Page<'a> {
    /// How it is to look.
    pub(super) style: &'a Style,
    lines: Vec<Line>,
}

impl<'a> Page<'a> {
    /// An empty page.
    pub(super) const fn new(style: &'a Style) -> Self {
        Self { style, lines: Vec::new() }
    }

    /// Columns there are.
    pub(super) fn width(&self) -> usize {
        self.style.width.max(Style::NARROWEST)
    }

    /// A text of the model made harmless, its ids shortened unless the reader wants them in full.
    pub(super) fn say(&self, text: &str) -> String {
        // One column even in ASCII, so that a shortened id fits where a device's name does.
        let sign = if self.style.ascii { '~' } else { '…' };
        if self.style.full_ids { self.exact(text) } else { self.exact(&shorten::ids_ending_in(sign, text)) }
    }

    /// A text of the model made harmless, otherwise as it is.
    pub(super) fn exact(&self, text: &str) -> String {
        escape::terminal(text, self.style.ascii)
    }

    /// The first of the two, or the second where only ASCII is wanted.
    pub(super) const fn glyph(&self, glyph: &'static str, ascii: &'static str) -> &'static str {
        if self.style.ascii { ascii } else { glyph }
    }

    /// The mark of a state.
    pub(super) const fn mark(&self, state: HopState) -> &'static str {
        match state {
            HopState::Ok => self.glyph("✓", "+"),
            HopState::Warning => "!",
            HopState::Unknown => "?",
            HopState::Broken => self.glyph("✗", "x"),
        }
    }

    /// A state as mark and word. The word carries it; the mark finds it.
    pub(super) fn state(&self, state: HopState) -> Span {
        let word = if state == HopState::Broken { "BROKEN" } else { state.name() };
        Span::new(Paint::of(state), format!("{} {word}", self.mark(state)))
    }

    /// A text cut in its middle to so many columns: both ends tell names apart.
    pub(super) fn cut(&self, text: &str, columns: usize) -> String {
        if width(text) <= columns {
            return text.to_owned();
        }
        let ellipsis = self.glyph("…", "~");
        let kept = columns.saturating_sub(width(ellipsis));
        let tail = kept / 3;
        let head = take(text.chars(), kept - tail);
        let tail: String = take(text.chars().rev(), tail).chars().rev().collect();
        format!("{head}{ellipsis}{tail}")
    }

    /// A text cut at its end to so many columns: prose is read from its beginning.
    pub(super) fn cut_end(&self, text: &str, columns: usize) -> String {
        if width(text) <= columns {
            return text.to_owned();
        }
        let ellipsis = self.glyph("…", "~");
        let head = take(text.chars(), columns.saturating_sub(width(ellipsis)));
        format!("{}{ellipsis}", head.trim_end())
    }

    /// Adds a line as it is.
    pub(super) fn line(&mut self, line: Line) {
        self.lines.push(line);
    }

    /// Adds an empty line, but never two.
    pub(super) fn gap(&mut self) {
        if self.lines.last().is_some_and(|line| !line.is_empty()) {
            self.lines.push(Line::new());
        }
    }

    /// Adds text after a lead, wrapped, its further lines under its first.
    pub(super) fn hang(&mut self, lead: Line, body: &Span) {
        let indent: usize = lead.iter().map(|span| width(&span.text)).sum();
        if indent + LEAST > self.width() {
            return self.stack(&lead, body);
        }
        let room = self.width().saturating_sub(indent).max(1);
        let mut lead = Some(lead);
        for text in wrap(&body.text, room) {
            let mut line = lead.take().unwrap_or_else(|| vec![Span::space(indent)]);
            line.push(Span::new(body.paint, text));
            self.lines.push(line);
        }
        self.lines.extend(lead);
    }

    /// The same for a lead that leaves no room beside it: the text goes below.
    fn stack(&mut self, lead: &[Span], body: &Span) {
        for span in lead.iter().filter(|span| !span.text.trim().is_empty()) {
            let lines = wrap(&span.text, self.width());
            self.lines.extend(lines.into_iter().map(|text| vec![Span::new(span.paint, text)]));
        }
        self.hang(vec![Span::space(4)], body);
    }

    /// Adds things separated by commas after a lead; each thing stays on one line where it fits at all. Where one fills
    /// a line, each has its own.
    pub(super) fn list(&mut self, mut lead: Line, things: &[String], paint: Paint) {
        let indent: usize = lead.iter().map(|span| width(&span.text)).sum();
        let room = self.width().saturating_sub(indent);
        if things.iter().all(|thing| width(thing) < room) {
            let things: Vec<String> = things.iter().map(|thing| atom(thing)).collect();
            return self.hang(lead, &Span::new(paint, things.join(", ")));
        }
        for thing in things {
            let further = vec![Span::space(indent)];
            self.hang(std::mem::replace(&mut lead, further), &Span::new(paint, thing));
        }
    }

    /// Adds a named value of several things, exactly as they are; nothing where there is nothing.
    pub(super) fn field(&mut self, name: &str, things: &[String]) {
        let things: Vec<String> = things.iter().map(|thing| self.exact(thing)).collect();
        self.harmless_field(name, &things);
    }

    /// The same with ids shortened.
    pub(super) fn field_short(&mut self, name: &str, things: &[String]) {
        let things: Vec<String> = things.iter().map(|thing| self.say(thing)).collect();
        self.harmless_field(name, &things);
    }

    /// A named value of things that are harmless already.
    fn harmless_field(&mut self, name: &str, things: &[String]) {
        if !things.is_empty() {
            self.list(Self::label(name), things, Paint::Plain);
        }
    }

    /// The lead of a named value.
    pub(super) fn label(name: &str) -> Line {
        vec![Span::space(2), Span::new(Paint::Dim, format!("{name:<LABEL$}"))]
    }

    /// Adds a shell command after a lead. Where it has to be broken, the shell joins it again: a reader pastes it whole.
    pub(super) fn command(&mut self, mut lead: Line, command: &str) {
        let indent: usize = lead.iter().map(|span| width(&span.text)).sum();
        let room = self.width().saturating_sub(indent + 2).max(1);
        let lines = wrap(&keep_quoted(&self.exact(command)), room);
        let last = lines.len().saturating_sub(1);
        for (number, text) in lines.into_iter().enumerate() {
            let end = if number == last { "" } else { " \\" };
            let mut line = if number == 0 { std::mem::take(&mut lead) } else { vec![Span::space(indent)] };
            line.push(Span::new(Paint::Plain, format!("{text}{end}")));
            self.lines.push(line);
        }
    }

    /// Writes the page.
    pub(super) fn write(self, out: &mut impl Write) -> io::Result<()> {
        for line in &self.lines {
            let end = line.iter().rposition(|span| !span.text.trim_end().is_empty()).map_or(0, |last| last + 1);
            for (place, span) in line[..end].iter().enumerate() {
                let text = if place + 1 == end { span.text.trim_end() } else { &span.text };
                self.write_span(span.paint, text, out)?;
            }
            out.write_all(b"\n")?;
        }
        Ok(())
    }

    /// Writes one piece of a line.
    fn write_span(&self, paint: Paint, text: &str, out: &mut impl Write) -> io::Result<()> {
        let text = if escape::is_plain(text) {
            Cow::Borrowed(text)
        } else {
            Cow::Owned(escape::terminal(&text.replace(HARD_SPACE, " "), self.style.ascii))
        };
        if self.style.colour && paint != Paint::Plain && !text.trim().is_empty() {
            let ansi = paint.ansi();
            write!(out, "{ansi}{text}{ansi:#}")
        } else {
            out.write_all(text.as_bytes())
        }
    }
}

/// Makes the spaces inside quotes hard: a shell joins no line that was broken there.
fn keep_quoted(command: &str) -> String {
    let mut open = None;
    let keep = |character: char| {
        match open {
            Some(quote) if quote == character => open = None,
            None if matches!(character, '\'' | '"') => open = Some(character),
            Some(_) | None => {}
        }
        if open.is_some() && character == ' ' { HARD_SPACE } else { character }
    };
    command.chars().map(keep).collect()
}

/// As many characters as fit the columns.
fn take(characters: impl Iterator<Item = char>, columns: usize) -> String {
    let mut taken = String::new();
    for character in characters {
        taken.push(character);
        if width(&taken) > columns {
            taken.pop();
            break;
        }
    }
    taken
}

/// Lines of at most so many columns, things kept together where they fit at all.
fn wrap(text: &str, columns: usize) -> Vec<String> {
    if text.split(' ').all(|word| width(word) <= columns) {
        return wrap::lines(text, columns).into_iter().map(|line| line.replace(HARD_SPACE, " ")).collect();
    }
    // Something does not fit as a whole, so its own spaces may break after all.
    wrap::lines(&text.replace(HARD_SPACE, " "), columns)
}

#[cfg(test)]
mod tests {
    use super::{Page, Paint, Span, atom, wrap};
    use crate::text::Style;

    /// What a page shows.
    fn shown(page: Page<'_>) -> String {
        let mut out = Vec::new();
        page.write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_thing_stays_on_its_line() {
        let text = format!("{}, {}", atom("rx 12 pkts 1.0 kB"), atom("tx 9 pkts 800 B"));
        assert_eq!(wrap(&text, 20), ["rx 12 pkts 1.0 kB,", "tx 9 pkts 800 B"]);
    }

    #[test]
    fn a_word_longer_than_the_line_is_broken_not_lost() {
        let lines = wrap("aaaaaaaaaa数据库数据库 end", 5);
        assert_eq!(lines.concat().replace(' ', ""), "aaaaaaaaaa数据库数据库end");
        assert!(lines.iter().all(|line| super::width(line) <= 5), "{lines:?}");
    }

    #[test]
    fn a_cut_name_keeps_both_ends() {
        let style = Style::default();
        let page = Page::new(&style);
        assert_eq!(page.cut("abcdefghijklmnopqrstuvwxyz", 10), "abcdef…xyz");
        assert_eq!(page.cut("数据库数据库", 6), "数据…");
    }

    #[test]
    fn a_forgotten_escape_shows_instead_of_acting() {
        let style = Style::default();
        let mut page = Page::new(&style);
        page.line(vec![Span::plain("a\u{1b}[31mb\u{202e}")]);
        assert_eq!(shown(page), "a\\u{1b}[31mb\\u{202e}\n");
    }

    #[test]
    fn colour_ends_where_it_began() {
        let style = Style { colour: true, ..Style::default() };
        let mut page = Page::new(&style);
        page.line(vec![Span::new(Paint::Good, "ok"), Span::space(3)]);
        assert_eq!(shown(page), "\u{1b}[32mok\u{1b}[0m\n");
    }

    #[test]
    fn a_broken_command_can_be_pasted_whole() {
        let style = Style::default();
        let mut page = Page::new(&style);
        let command = format!("ip netns exec {} iptables-save -t nat -c {}", "x".repeat(40), "y".repeat(30));
        page.command(vec![Span::plain("$ ")], &command);
        let pasted = shown(page).replace(" \\\n", " ");
        assert_eq!(pasted.split_whitespace().collect::<Vec<_>>().join(" "), format!("$ {command}"));
    }
}

//! Where the parts of the screen are: the same for whoever draws and for whoever asks what was clicked.

use ratatui::layout::Rect;

use super::{
    draw::head,
    sheet::{Column, Sheet},
    state::{Entry, State, Stream, Tab, View},
};

/// The least a screen can be.
pub(crate) const LEAST: (u16, u16) = (60, 15);

/// From this width on a path is drawn as boxes.
const ROOMY: u16 = 90;

/// From this width on a line has room for where rates come from.
const WORDY: u16 = 80;

/// From this height on there is room for a second line of a sentence.
const TALL: u16 = 20;

/// From this height on the selected row has lines of its own.
const LOW: u16 = 24;

/// The most lines it has.
const PANE: u16 = 14;

/// Lines above and below the body: header, tabs, crumbs; status.
const AROUND: u16 = 4;

/// The parts of a screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Areas {
    /// Host, age, counts.
    pub(crate) header: Rect,
    /// The tabs.
    pub(crate) tabs: Rect,
    /// Where one is, the filter.
    pub(crate) crumbs: Rect,
    /// A sentence above the table; no line where there is none.
    pub(crate) banner: Rect,
    /// Titles of columns; no line where a path is drawn as boxes.
    pub(crate) titles: Rect,
    /// Rows.
    pub(crate) rows: Rect,
    /// What there is to say of the selected row; no line where the screen is low.
    pub(crate) pane: Rect,
    /// Messages, input, hints.
    pub(crate) status: Rect,
}

impl Areas {
    /// The parts of the screen of a state; none where there is no room.
    pub(crate) fn of(state: &State) -> Option<Self> {
        let (width, height) = state.size;
        if width < LEAST.0 || height < LEAST.1 {
            return None;
        }
        let line = |y, height| Rect { x: 0, y, width, height };
        let banner = banner(state);
        let titles = u16::from(!is_picture(state));
        let body = height - AROUND - banner - titles;
        let pane = pane(state, body);
        let rows = body - pane;
        Some(Self {
            header: line(0, 1),
            tabs: line(1, 1),
            crumbs: line(2, 1),
            banner: line(3, banner),
            titles: line(3 + banner, titles),
            rows: line(3 + banner + titles, rows),
            pane: line(3 + banner + titles + rows, pane),
            status: line(height - 1, 1),
        })
    }
}

/// How many lines there are for the selected row: more where there are many, none while rows are looked for.
fn pane(state: &State, body: u16) -> u16 {
    let view = state.view();
    if state.size.1 < LOW || !matches!(view.entries.get(view.cursor), Some(Entry::Row(_))) {
        return 0;
    }
    // Where rows leave room, all of it; else a share.
    let left = body.saturating_sub(u16::try_from(view.entries.len()).unwrap_or(u16::MAX));
    let share = (body / 5).clamp(4, 9);
    if is_picture(state) { 4 } else { share.max(left.min(PANE)) }
}

/// How many lines the sentence above the table has.
fn banner(state: &State) -> u16 {
    match state.tab {
        // The answer matters more than one more hop; that it grows and shrinks would be worse than a line that is empty.
        Tab::Path if state.traced.is_some() => {
            let needed = head::banner_lines(state, state.size.0);
            needed.clamp(2, if state.size.1 >= TALL { 4 } else { 2 })
        }
        Tab::Live if state.watching.is_some() => head::banner_lines(state, state.size.0).clamp(1, 2),
        Tab::Live if state.stream == Stream::Open => 0,
        Tab::Live if state.size.1 >= TALL => head::banner_lines(state, state.size.0).clamp(2, 4),
        Tab::Live => 1,
        // Its words come and go with the traffic, and rows shall not go up and down with them.
        Tab::Flows => 1 + u16::from(state.wants_rates() && state.size.0 < WORDY),
        Tab::Doctor if state.look().is_some_and(|look| look.doctor_partial) => {
            head::banner_lines(state, state.size.0).clamp(1, 2)
        }
        Tab::Doctor | Tab::Path | Tab::Instances | Tab::Policy | Tab::Agent => 0,
    }
}

/// Whether the path is drawn as boxes and links: where there is room, and nothing asks for a table.
pub(crate) fn is_picture(state: &State) -> bool {
    let view = &state.views[Tab::Path.place()];
    let plain = view.filter.is_empty() && view.sort.is_none() && view.group.is_none();
    state.tab == Tab::Path && state.size.0 >= ROOMY && plain && !view.problems && !view.wide && view.scroll == 0
}

/// How many rows are seen.
pub(crate) fn page(state: &State) -> usize {
    Areas::of(state).map_or(1, |areas| usize::from(areas.rows.height).max(1))
}

/// The tabs with the columns they take: first, and behind the last.
pub(crate) fn tabs(width: u16) -> Vec<(Tab, u16, u16, String)> {
    let label = |tab: Tab| format!(" {} {} ", tab.place() + 1, tab.title());
    let all: u16 = Tab::ALL.iter().map(|tab| columns(&label(*tab))).sum();
    let mut at = 0;
    let mut places = Vec::new();
    for tab in Tab::ALL {
        let label = if all <= width { label(tab) } else { format!("{} {} ", tab.place() + 1, tab.short()) };
        let end = at + columns(&label);
        places.push((tab, at, end, label));
        at = end;
    }
    places
}

/// Columns a text of ASCII takes.
fn columns(text: &str) -> u16 {
    u16::try_from(text.len()).unwrap_or(u16::MAX)
}

/// The columns that are shown and their widths.
pub(crate) fn layout(sheet: &dyn Sheet, view: &View, width: u16) -> Vec<(usize, u16)> {
    let all = sheet.columns();
    let free = view.wide || view.scroll > 0;
    let shown = |place: &usize| *place == 0 || (*place > view.scroll && is_on(&all[*place], view, width, free));
    let mut chosen: Vec<(usize, u16)> = Vec::new();
    let mut left = width;
    for place in (0..all.len()).filter(shown) {
        let column = &all[place];
        let needed = column.least + u16::from(!chosen.is_empty());
        if needed > left {
            // What comes later may be narrower, but columns that jump about cannot be read.
            break;
        }
        left -= needed;
        chosen.push((place, column.least));
    }
    // What is left goes to all that can use it alike.
    while left > 0 && chosen.iter().any(|(place, width)| *width < all[*place].most) {
        for (place, width) in &mut chosen {
            let more = u16::from(left > 0 && *width < all[*place].most);
            *width += more;
            left -= more;
        }
    }
    if let Some((place, last)) = chosen.last_mut()
        && !all[*place].right
    {
        *last += left;
    }
    chosen
}

/// Whether a column is shown where there is room for it.
pub(crate) fn is_on(column: &Column, view: &View, width: u16, free: bool) -> bool {
    let usually = free || (column.from != Column::WIDE && width >= column.from);
    usually != view.toggled.contains(&column.code)
}

//! What is typed into the command bar: `inst web`, `path web-1`, `sg default`, `hop br-int`, `tab flows`, `sort hits`,
//! `filter …`, `export json`, `quit`.

use super::{overlay, say, show, switch};
use crate::tui::{
    Request, export,
    filter::Filter,
    keymap::Command,
    look, sheet,
    state::{State, Tab},
};

/// The commands.
const COMMANDS: [&str; 9] = ["inst", "path", "sg", "hop", "tab", "sort", "filter", "export", "quit"];

/// Does a command.
pub(super) fn run(state: &mut State, text: &str) -> Option<Request> {
    let (word, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
    let rest = rest.trim();
    match word {
        "" => None,
        "quit" | "q" => super::run(state, Command::Quit),
        "inst" => jump(state, Tab::Instances, &format!("inst:{rest}")),
        "sg" => jump(state, Tab::Policy, &format!("sg:{rest}")),
        "path" => path(state, rest),
        "hop" => hop(state, rest),
        "tab" => tab(state, rest),
        "sort" => {
            sort(state, rest);
            None
        }
        "filter" => jump(state, state.tab, rest),
        "export" => overlay::export(state, rest),
        _ => {
            say(state, format!("no command \"{word}\"; there are {}", COMMANDS.join(", ")));
            None
        }
    }
}

/// To a tab, with a filter; nothing asked for clears it.
fn jump(state: &mut State, tab: Tab, filter: &str) -> Option<Request> {
    let filter = match Filter::parse(filter) {
        Ok(filter) => filter,
        Err(why) => {
            say(state, why);
            return None;
        }
    };
    leave_way_back(state, tab);
    let view = &mut state.views[tab.place()];
    (view.filter, view.selected, view.cursor) = (filter, None, 0);
    show(state, tab)
}

/// Remembers the tab one leaves.
fn leave_way_back(state: &mut State, tab: Tab) {
    if state.tab != tab {
        state.trail.push(state.tab);
    }
}

/// The path of the instance of this name, or of the only one that begins so; of none, the one that is selected.
fn path(state: &mut State, name: &str) -> Option<Request> {
    match called(state, name) {
        Ok(id) => state.watched = Some(id),
        Err(why) => {
            say(state, why);
            return None;
        }
    }
    leave_way_back(state, Tab::Path);
    show(state, Tab::Path)
}

/// The instance of a name.
fn called(state: &State, name: &str) -> Result<String, String> {
    if name.is_empty() {
        return super::selected_instance(state).ok_or_else(|| "whose path? say a name after it".to_owned());
    }
    let rows = state.look().map_or(&[][..], |look| &look.listing.instances);
    let begin: Vec<_> = rows.iter().filter(|row| row.identity.name.starts_with(name)).collect();
    let exact = begin.iter().find(|row| row.identity.name == name);
    match (exact, begin.as_slice()) {
        (Some(row), _) | (None, [row]) => Ok(look::id(&row.identity)),
        (None, []) => Err(format!("no instance is called {name}")),
        (None, several) => {
            let names: Vec<&str> = several.iter().map(|row| &*row.identity.name).collect();
            Err(format!("several begin so: {}", names.join("  ")))
        }
    }
}

/// The first hop whose name has this in it.
fn hop(state: &mut State, name: &str) -> Option<Request> {
    let found = {
        let hops = sheet::hops::PathRows::of(state);
        let place = hops.hops.iter().position(|(_, _, hop)| hop.name.contains(name));
        place.map(|place| sheet::Sheet::id(&hops, place))
    };
    let Some(id) = found else {
        say(state, format!("no hop of this path is called {name}"));
        return None;
    };
    leave_way_back(state, Tab::Path);
    state.views[Tab::Path.place()].selected = Some(id);
    show(state, Tab::Path)
}

fn tab(state: &mut State, name: &str) -> Option<Request> {
    let found =
        Tab::ALL.iter().find(|tab| !name.is_empty() && tab.title().to_lowercase().starts_with(&name.to_lowercase()));
    if let Some(tab) = found {
        return switch(state, *tab);
    }
    let titles: Vec<&str> = Tab::ALL.iter().map(|tab| tab.title()).collect();
    say(state, format!("no tab \"{name}\"; there are {}", titles.join(", ")));
    None
}

/// Sorts by a column; by the same once more, backwards.
fn sort(state: &mut State, name: &str) {
    let columns = sheet::of(state, state.tab).columns();
    let found = columns.iter().position(|column| column.title.to_lowercase().starts_with(&name.to_lowercase()));
    let Some(column) = found.filter(|_| !name.is_empty()) else {
        let titles: Vec<String> = columns.iter().map(|column| column.title.to_lowercase()).collect();
        return say(state, format!("no column \"{name}\"; there are {}", titles.join(", ")));
    };
    let view = &mut state.views[state.tab.place()];
    view.sort = Some((column, view.sort == Some((column, false))));
    view.stale = true;
}

/// Commands that begin like this, in full.
pub(super) fn complete(state: &State, text: &str) -> Vec<String> {
    let Some((word, beginning)) = text.split_once(' ') else {
        return COMMANDS
            .iter()
            .filter(|command| command.starts_with(text))
            .map(|&command| command.to_owned())
            .collect();
    };
    let mut names = names(state, word);
    names.sort();
    names.dedup();
    names.into_iter().filter(|name| name.starts_with(beginning)).map(|name| format!("{word} {name}")).collect()
}

/// What a command can be about.
fn names(state: &State, word: &str) -> Vec<String> {
    let look = state.look();
    match word {
        "inst" | "path" => {
            let rows = look.map_or(&[][..], |look| &look.listing.instances);
            rows.iter().map(|row| row.identity.name.clone()).collect()
        }
        "sg" => look.map_or_else(Vec::new, |look| look.rules.iter().map(|rule| rule.group.clone()).collect()),
        "hop" => sheet::hops::PathRows::of(state).hops.iter().map(|(_, _, hop)| hop.name.clone()).collect(),
        "tab" => Tab::ALL.iter().map(|tab| tab.title().to_lowercase()).collect(),
        "sort" => sheet::of(state, state.tab).columns().iter().map(|column| column.title.to_lowercase()).collect(),
        "export" => export::forms(state.tab).map(|(form, ..)| form.to_owned()).collect(),
        _ => Vec::new(),
    }
}

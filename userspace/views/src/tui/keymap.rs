//! Which key does what: one table for lookup, for help and for `--print-keys`, and the words keys have in a
//! configuration.

use std::fmt;

use self::Scope::{Everywhere, Live, On, Replay};
use super::state::{Origin, Tab};

/// A key with what is held down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The key.
    pub code: Code,
    /// Ctrl is held down.
    pub ctrl: bool,
}

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// A character, as typed: shift is in it.
    Char(char),
    /// Enter.
    Enter,
    /// Escape.
    Esc,
    /// Tab.
    Tab,
    /// Shift and Tab.
    BackTab,
    /// Backspace.
    Backspace,
    /// Delete.
    Delete,
    /// Arrow up.
    Up,
    /// Arrow down.
    Down,
    /// Arrow left.
    Left,
    /// Arrow right.
    Right,
    /// Page up.
    PageUp,
    /// Page down.
    PageDown,
    /// Home.
    Home,
    /// End.
    End,
}

/// Keys without a character, by their words.
const NAMED: [(&str, Code); 15] = [
    ("space", Code::Char(' ')),
    ("enter", Code::Enter),
    ("esc", Code::Esc),
    ("tab", Code::Tab),
    ("backtab", Code::BackTab),
    ("backspace", Code::Backspace),
    ("delete", Code::Delete),
    ("up", Code::Up),
    ("down", Code::Down),
    ("left", Code::Left),
    ("right", Code::Right),
    ("pageup", Code::PageUp),
    ("pagedown", Code::PageDown),
    ("home", Code::Home),
    ("end", Code::End),
];

impl Key {
    /// A key alone.
    pub const fn plain(code: Code) -> Self {
        Self { code, ctrl: false }
    }

    /// A character.
    pub const fn char(character: char) -> Self {
        Self::plain(Code::Char(character))
    }

    /// A character with Ctrl.
    pub const fn ctrl(character: char) -> Self {
        Self { code: Code::Char(character), ctrl: true }
    }

    /// Reads a key: `q`, `Q`, `ctrl-b`, `pagedown`, `space`.
    ///
    /// # Errors
    /// There is no such key; says which there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (ctrl, word) = text.strip_prefix("ctrl-").map_or((false, text), |word| (true, word));
        let mut characters = word.chars();
        let code = match (characters.next(), characters.next()) {
            (Some(only), None) => Some(Code::Char(only)),
            _ => NAMED.iter().find(|(name, _)| *name == word).map(|(_, code)| *code),
        };
        code.map(|code| Self { code, ctrl }).ok_or_else(|| {
            let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
            format!("\"{text}\" is no key: say one character, or {}, with ctrl- before it if so", names.join(", "))
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = NAMED.iter().find(|(_, code)| *code == self.code).map(|(name, _)| *name);
        let ctrl = if self.ctrl { "ctrl-" } else { "" };
        match (named, self.code) {
            (Some(name), _) => write!(f, "{ctrl}{name}"),
            (None, Code::Char(character)) => write!(f, "{ctrl}{character}"),
            (None, _) => write!(f, "{ctrl}?"),
        }
    }
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Command {
    /// Help.
    Help,
    /// Quit.
    Quit,
    /// Quit and leave the last screen on the terminal.
    QuitKeep,
    /// One row up.
    Up,
    /// One row down.
    Down,
    /// To the left: fold a group, scroll a wide view.
    Left,
    /// To the right: unfold a group, scroll a wide view.
    Right,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// First row.
    First,
    /// Last row.
    Last,
    /// The next tab.
    NextTab,
    /// The tab before.
    PreviousTab,
    /// A tab.
    Tab(Tab),
    /// Into the row.
    Enter,
    /// Back: closes, clears the filter, then the way one came.
    Back,
    /// Edit the filter.
    Filter,
    /// Command bar.
    CommandBar,
    /// Sort by the next column.
    SortNext,
    /// Sort by the column before.
    SortPrevious,
    /// Turn the order around.
    SortReverse,
    /// Freeze the screen.
    Freeze,
    /// Only problems.
    Problems,
    /// Wide view.
    Wide,
    /// Choose columns.
    Columns,
    /// Everything about the row.
    Describe,
    /// The row in JSON.
    Json,
    /// Write the view to a file.
    Export,
    /// Show what is over.
    Past,
    /// Put rows together.
    Group,
    /// Look at the host now.
    LookNow,
    /// Watch packets, or stop.
    Packets,
    /// Replay faster.
    Faster,
    /// Replay slower.
    Slower,
    /// Replay: one look back.
    StepBack,
    /// Replay: one look on.
    StepOn,
    /// Leave the terminal to the shell for a while.
    Suspend,
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Binding {
    /// What is asked for.
    pub command: Command,
    /// Its word in a configuration.
    pub name: &'static str,
    /// The keys.
    pub keys: Vec<Key>,
    /// Where it does something.
    pub scope: Scope,
    /// What it does, for a reader.
    pub words: &'static str,
}

/// Where a key does something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Everywhere.
    Everywhere,
    /// On these tabs.
    On(&'static [Tab]),
    /// Where a host is looked at as it is now.
    Live,
    /// Where a recording is replayed.
    Replay,
}

impl Scope {
    /// Whether it does something on a tab that shows this.
    fn holds(self, tab: Tab, origin: &Origin) -> bool {
        match self {
            Self::Everywhere => true,
            Self::On(tabs) => tabs.contains(&tab),
            Self::Live => matches!(origin, Origin::Live),
            Self::Replay => matches!(origin, Origin::Recording(_)),
        }
    }

    /// In words; empty for everywhere.
    fn words(self) -> String {
        match self {
            Self::Everywhere => String::new(),
            Self::On(tabs) => {
                let tabs: Vec<&str> = tabs.iter().map(|tab| tab.title()).collect();
                format!("on {}", tabs.join(", "))
            }
            Self::Live => "on a live host".to_owned(),
            Self::Replay => "on a recording".to_owned(),
        }
    }
}

/// The table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keymap {
    bindings: Vec<Binding>,
}

/// What watching packets does, for a reader.
const PACKETS: &str = "watch packets in Live: of the instance, elsewhere what this host drops; once more: stop";

/// Tabs whose rows can be put together.
const GROUPED: &[Tab] = &[Tab::Instances, Tab::Path, Tab::Live, Tab::Flows, Tab::Policy, Tab::Agent];

impl Default for Keymap {
    fn default() -> Self {
        let bind =
            |command, name, keys: &[Key], scope, words| Binding { command, name, keys: keys.to_vec(), scope, words };
        let (plain, char) = (Key::plain, Key::char);
        let mut bindings = vec![
            bind(Command::Help, "help", &[char('?'), char('h')], Everywhere, "this help"),
            bind(Command::Quit, "quit", &[char('q')], Everywhere, "quit (Ctrl-C always does)"),
            bind(
                Command::QuitKeep,
                "quit-keep",
                &[char('Q')],
                Everywhere,
                "quit and leave this screen on the terminal",
            ),
            bind(Command::Up, "up", &[plain(Code::Up), char('k')], Everywhere, "up"),
            bind(Command::Down, "down", &[plain(Code::Down), char('j')], Everywhere, "down"),
            bind(Command::PageUp, "page-up", &[plain(Code::PageUp), Key::ctrl('b')], Everywhere, "a page up"),
            bind(Command::PageDown, "page-down", &[plain(Code::PageDown), Key::ctrl('f')], Everywhere, "a page down"),
            bind(Command::First, "first", &[char('g'), plain(Code::Home)], Everywhere, "first row"),
            bind(Command::Last, "last", &[char('G'), plain(Code::End)], Everywhere, "last row"),
            bind(Command::Left, "left", &[plain(Code::Left)], Everywhere, "fold a group; columns to the left"),
            bind(Command::Right, "right", &[plain(Code::Right)], Everywhere, "unfold a group; columns to the right"),
            bind(Command::NextTab, "next-tab", &[plain(Code::Tab)], Everywhere, "next tab"),
            bind(
                Command::PreviousTab,
                "previous-tab",
                &[plain(Code::BackTab)],
                Everywhere,
                "tab before (shift and tab)",
            ),
            bind(
                Command::Enter,
                "enter",
                &[plain(Code::Enter)],
                Everywhere,
                "into the row: its path, its group, everything about it",
            ),
            bind(Command::Back, "back", &[plain(Code::Esc)], Everywhere, "close; clear the filter; go back"),
            bind(Command::Filter, "filter", &[char('/')], Everywhere, "filter"),
            bind(Command::CommandBar, "command", &[char(':')], Everywhere, "command: inst, path, sg, hop, tab, sort …"),
            bind(Command::SortNext, "sort-next", &[char('s'), char('>')], Everywhere, "sort by the next column"),
            bind(Command::SortPrevious, "sort-previous", &[char('<')], Everywhere, "sort by the column before"),
            bind(Command::SortReverse, "sort-reverse", &[char('S')], Everywhere, "turn the order around"),
            bind(Command::Freeze, "freeze", &[char(' ')], Everywhere, "freeze; what comes in is kept"),
            bind(Command::Problems, "problems", &[char('z')], Everywhere, "only problems"),
            bind(Command::Wide, "wide", &[char('w')], Everywhere, "wide: all columns, scroll with left and right"),
            bind(Command::Columns, "columns", &[char('c')], Everywhere, "choose columns"),
            bind(Command::Describe, "describe", &[char('d')], Everywhere, "everything about the row"),
            bind(Command::Json, "json", &[char('y')], Everywhere, "the row in JSON, as the command prints it"),
            bind(Command::Export, "export", &[char('e')], Everywhere, "write the view to a file"),
            bind(Command::Past, "past", &[char('t')], On(&[Tab::Flows]), "show flows that are over"),
            bind(Command::Group, "group", &[char('a')], On(GROUPED), "put rows together"),
            bind(Command::LookNow, "look", &[char('r')], Live, "look at the host now"),
            bind(Command::Packets, "packets", &[char('l')], Live, PACKETS),
            bind(Command::Suspend, "suspend", &[Key::ctrl('z')], Everywhere, "to the shell and back (fg)"),
        ];
        bindings.extend(replay().into_iter().chain(tabs()));
        Self { bindings }
    }
}

/// The keys of a recording.
fn replay() -> [Binding; 4] {
    [
        (Command::Faster, "faster", '+', "replay: faster"),
        (Command::Slower, "slower", '-', "replay: slower"),
        (Command::StepBack, "step-back", ',', "replay: one look back"),
        (Command::StepOn, "step-on", '.', "replay: one look on"),
    ]
    .map(|(command, name, key, words)| Binding { command, name, keys: vec![Key::char(key)], scope: Replay, words })
}

/// The keys of the tabs.
fn tabs() -> impl Iterator<Item = Binding> {
    Tab::ALL.iter().zip('1'..).map(|(tab, digit)| Binding {
        command: Command::Tab(*tab),
        name: tab.binding(),
        keys: vec![Key::char(digit)],
        scope: Everywhere,
        words: tab.purpose(),
    })
}

impl Keymap {
    /// What a key asks for in a tab.
    pub fn command(&self, key: Key, tab: Tab, origin: &Origin) -> Option<Command> {
        self.on(tab, origin).find(|binding| binding.keys.contains(&key)).map(|binding| binding.command)
    }

    /// Where a key does something, in words; none where it does nowhere.
    pub(crate) fn elsewhere(&self, key: Key) -> Option<String> {
        let binding = self.bindings.iter().find(|binding| binding.keys.contains(&key))?;
        Some(binding.scope.words()).filter(|words| !words.is_empty())
    }

    /// The lines of the table that hold in a tab.
    pub fn on<'a>(&'a self, tab: Tab, origin: &'a Origin) -> impl Iterator<Item = &'a Binding> {
        self.bindings.iter().filter(move |binding| binding.scope.holds(tab, origin))
    }

    /// All lines of the table.
    pub fn all(&self) -> &[Binding] {
        &self.bindings
    }

    /// The first key of a command, for hints; empty where it has none.
    pub fn hint(&self, command: Command) -> String {
        let keys = self.bindings.iter().find(|binding| binding.command == command);
        keys.and_then(|binding| binding.keys.first()).map(Key::to_string).unwrap_or_default()
    }

    /// Gives a command other keys.
    ///
    /// # Errors
    /// There is no such command or key; says which there are.
    pub fn rebind(&mut self, name: &str, keys: &[String]) -> Result<(), String> {
        let keys = keys.iter().map(|key| Key::parse(key)).collect::<Result<Vec<_>, _>>()?;
        let Some(place) = self.bindings.iter().position(|binding| binding.name == name) else {
            let names: Vec<&str> = self.bindings.iter().map(|binding| binding.name).collect();
            return Err(format!("\"{name}\" is no command; there are {}", names.join(", ")));
        };
        if keys.contains(&Key::ctrl('c')) {
            return Err("ctrl-c always quits".to_owned());
        }
        self.bindings[place].keys = keys;
        Ok(())
    }

    /// Sees to it that every key asks for one thing.
    ///
    /// # Errors
    /// Two commands have the same key; says which.
    pub fn check(&self) -> Result<(), String> {
        let mut seen: Vec<(Key, &str)> = Vec::new();
        for (key, name) in self.bindings.iter().flat_map(|one| one.keys.iter().map(|key| (*key, one.name))) {
            if let Some((_, other)) = seen.iter().find(|(taken, _)| *taken == key) {
                return Err(format!("key {key} is given to {other} and to {name}"));
            }
            seen.push((key, name));
        }
        Ok(())
    }

    /// The table as text: command, keys, what it does; in the form of a configuration.
    pub fn print(&self) -> String {
        let mut lines = vec!["keys:".to_owned()];
        for binding in &self.bindings {
            let keys: Vec<String> = binding.keys.iter().map(|key| format!("\"{}\"", escaped(*key))).collect();
            let place = Some(binding.scope.words()).filter(|words| !words.is_empty());
            let place = place.map(|words| format!(" ({words})")).unwrap_or_default();
            let left = format!("  {}: [{}]", binding.name, keys.join(", "));
            lines.push(format!("{left:<36}# {}{place}", binding.words));
        }
        lines.push(String::new());
        lines.join("\n")
    }
}

/// A key inside the quotes of YAML.
fn escaped(key: Key) -> String {
    key.to_string().replace('\\', "\\\\").replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::{Code, Command, Key, Keymap};
    use crate::tui::state::{Origin, Replay, Tab};

    #[test]
    fn every_key_reads_back_as_it_is_written() {
        for binding in Keymap::default().all() {
            for key in &binding.keys {
                assert_eq!(Key::parse(&key.to_string()), Ok(*key));
            }
        }
        assert_eq!(Key::parse("ctrl-pageup"), Ok(Key { code: Code::PageUp, ctrl: true }));
        assert!(Key::parse("hyper").unwrap_err().contains("pagedown"));
    }

    #[test]
    fn no_key_is_given_twice() {
        Keymap::default().check().unwrap();
        let mut twice = Keymap::default();
        twice.rebind("freeze", &["q".to_owned()]).unwrap();
        assert_eq!(twice.check().unwrap_err(), "key q is given to quit and to freeze");
    }

    #[test]
    fn a_command_takes_other_keys_and_loses_its_old_ones() {
        let mut keys = Keymap::default();
        keys.rebind("freeze", &["f".to_owned(), "ctrl-s".to_owned()]).unwrap();
        assert_eq!(keys.command(Key::ctrl('s'), Tab::Live, &Origin::Live), Some(Command::Freeze));
        assert_eq!(keys.command(Key::char(' '), Tab::Live, &Origin::Live), None);
        assert!(keys.rebind("fly", &[]).unwrap_err().contains("freeze"));
        assert!(keys.rebind("freeze", &["ctrl-c".to_owned()]).is_err());
        assert!(keys.print().contains("freeze: [\"f\", \"ctrl-s\"]"), "{}", keys.print());
    }

    #[test]
    fn a_key_of_some_tabs_asks_for_nothing_on_others() {
        let keys = Keymap::default();
        assert_eq!(keys.command(Key::char('t'), Tab::Flows, &Origin::Live), Some(Command::Past));
        assert_eq!(keys.command(Key::char('t'), Tab::Doctor, &Origin::Live), None);
        assert_eq!(keys.command(Key::char('+'), Tab::Doctor, &Origin::Live), None);
        let recording = Origin::Recording(Replay::default());
        assert_eq!(keys.command(Key::char('+'), Tab::Doctor, &recording), Some(Command::Faster));
        assert_eq!(keys.command(Key::char('r'), Tab::Doctor, &recording), None);
    }
}

//! How the live view looks, what its keys and columns are: options, then a file, then defaults.

use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use netdiag_views::tui::{
    Settings,
    keymap::Keymap,
    theme::{Background, Theme as Colours},
};
use serde::Deserialize;

use crate::{
    cli::{
        Colour,
        tui::{Theme, Tui},
    },
    exit::Bad,
};

/// Where the host's own file is.
const SYSTEM: &str = "/etc/netdiag/tui.yaml";

/// Settings of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    /// `auto`, `dark` or `light`.
    theme: Option<String>,
    /// Commands and their keys.
    keys: BTreeMap<String, Vec<String>>,
    /// Meanings and their colours.
    colors: BTreeMap<String, String>,
    /// Tabs, and letters of columns that are switched on or off.
    columns: BTreeMap<String, String>,
}

/// Settings, whether the terminal has to be asked for its ground, and what is to be said about them.
#[derive(Debug)]
pub(crate) struct Chosen {
    /// The settings.
    pub(crate) settings: Settings,
    /// Nobody said what the ground is.
    pub(crate) ask_ground: bool,
    /// What deserves a word.
    pub(crate) remark: Option<String>,
}

impl Chosen {
    /// Warns of a chosen colour that can hardly be read, once the ground is known.
    pub(crate) fn warn(&mut self) {
        let theme = &self.settings.theme;
        if let Some(hard) = theme.hard_to_read().filter(|_| theme.colour) {
            self.remark.get_or_insert(hard);
        }
    }
}

/// Everything together, checked.
///
/// # Errors
/// The file cannot be read, or sets something that there is not.
pub(crate) fn choose(asked: &Tui) -> anyhow::Result<Chosen> {
    let (file, path, remark) = file(asked)?;
    let wrong = |why: String| Bad::usage(format!("{}: {why}", path.display()));
    let mut keys = Keymap::default();
    for (name, chosen) in &file.keys {
        keys.rebind(name, chosen).map_err(wrong)?;
    }
    keys.check().map_err(wrong)?;
    let theme = match (asked.theme, file.theme.as_deref()) {
        (Some(theme), _) => theme,
        (None, None | Some("auto")) => Theme::Auto,
        (None, Some("dark")) => Theme::Dark,
        (None, Some("light")) => Theme::Light,
        (None, Some(other)) => return Err(wrong(format!("theme \"{other}\": say auto, dark or light"))),
    };
    let colour = match asked.color {
        Colour::Always => true,
        Colour::Never => false,
        Colour::Auto => super::colour_wanted(io::stdout().is_terminal()),
    };
    let background = if theme == Theme::Light { Background::Light } else { Background::Dark };
    let mut colours = Colours { background, colour, ..Colours::default() };
    for (meaning, chosen) in &file.colors {
        colours.choose(meaning, chosen).map_err(wrong)?;
    }
    let mut settings = Settings {
        theme: colours,
        ascii: asked.ascii || !super::locale_is_utf8(),
        full_ids: asked.full_ids,
        keys,
        recording: asked.record.is_some(),
        ..Settings::default()
    };
    for (tab, letters) in &file.columns {
        settings.switch_columns(tab, letters).map_err(wrong)?;
    }
    let mut chosen = Chosen { settings, ask_ground: theme == Theme::Auto && colour, remark };
    if !chosen.ask_ground {
        chosen.warn();
    }
    Ok(chosen)
}

/// The file that was named, the user's, or the host's; what it says, where it is, and a remark.
fn file(asked: &Tui) -> anyhow::Result<(File, PathBuf, Option<String>)> {
    if let Some(path) = &asked.config {
        return Ok((read(path)?, path.clone(), None));
    }
    let own = user().filter(|path| path.exists());
    let remark = own
        .as_ref()
        .filter(|path| !is_trusted(path))
        .map(|path| format!("{} belongs to somebody else and was not read", path.display()));
    let own = own.filter(|path| is_trusted(path));
    let system = Some(PathBuf::from(SYSTEM)).filter(|path| path.exists());
    match own.or(system) {
        Some(path) => Ok((read(&path)?, path, remark)),
        None => Ok((File::default(), PathBuf::from(SYSTEM), remark)),
    }
}

fn user() -> Option<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(base.join("netdiag/tui.yaml"))
}

/// Whether a file belongs to whoever runs this, or, under sudo, to whoever called it.
fn is_trusted(path: &Path) -> bool {
    let caller = env::var("SUDO_UID").ok().and_then(|uid| uid.parse::<u32>().ok());
    let own = rustix::process::geteuid().as_raw();
    fs::metadata(path).is_ok_and(|file| file.uid() == own || file.uid() == 0 || Some(file.uid()) == caller)
}

fn read(path: &Path) -> anyhow::Result<File> {
    let text = fs::read_to_string(path)
        .map_err(|error| Bad::usage(format!("read keys and colours from {}: {error}", path.display())))?;
    serde_norway::from_str(&text).map_err(|error| Bad::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::choose;
    use crate::cli::{Cli, Command, tui::Tui};

    fn asked(words: &[&str]) -> Box<Tui> {
        let words = [&["netdiag", "tui"], words].concat();
        let Command::Tui(asked) = Cli::try_parse_from(words).unwrap().command else { panic!("not tui") };
        asked
    }

    fn with_file(text: &str) -> Result<super::Chosen, String> {
        with_file_and(text, &[])
    }

    fn with_file_and(text: &str, words: &[&str]) -> Result<super::Chosen, String> {
        let directory = std::env::temp_dir().join(format!("netdiag-tui-{}-{}", std::process::id(), text.len()));
        std::fs::create_dir_all(&directory).unwrap();
        let file = directory.join("tui.yaml");
        std::fs::write(&file, text).unwrap();
        let chosen =
            choose(&asked(&[words, &["--config", file.to_str().unwrap()]].concat())).map_err(|error| error.to_string());
        std::fs::remove_dir_all(directory).unwrap();
        chosen
    }

    #[test]
    fn the_printed_keys_are_a_file_that_sets_them() {
        let printed = netdiag_views::tui::keymap::Keymap::default().print();
        let chosen = with_file(&printed).unwrap();
        assert_eq!(chosen.settings.keys, netdiag_views::tui::keymap::Keymap::default());
    }

    #[test]
    fn a_colour_that_can_hardly_be_read_is_warned_of_whoever_chose_the_ground() {
        let remark = |text: &str, words: &[&str]| with_file_and(text, words).unwrap().remark;
        let always = ["--color", "always"];
        assert!(remark("{theme: dark, colors: {good: blue}}", &always).unwrap().starts_with("blue for good"));
        assert_eq!(remark("{theme: light, colors: {good: blue}}", &always), None);
        assert_eq!(remark("{colors: {good: blue},  theme: dark}", &["--color", "never"]), None, "nothing is coloured");
        assert_eq!(remark("{colors: {good: blue}}", &always), None, "the terminal is asked for its ground first");
    }

    #[test]
    fn a_file_with_a_mistake_is_named_with_it() {
        assert!(with_file("keys: {fly: [f]}").unwrap_err().contains("\"fly\" is no command"));
        assert!(with_file("keys: {freeze: [q], }").unwrap_err().contains("given to quit and to freeze"));
        assert!(with_file("colors: {bad: pink}").unwrap_err().contains("pink"));
        assert!(with_file("theme: blue  ").unwrap_err().contains("say auto, dark or light"));
        assert!(with_file("columns: {flow: x}").unwrap_err().contains("\"flow\" is no tab"));
        assert!(with_file("columns: {flows: xz}").unwrap_err().contains("\"z\" is no column of Flows"));
        assert!(with_file("columns: {flows: xu, instances: m}").is_ok());
        assert!(with_file("nonsense: 1").unwrap_err().contains("tui.yaml: "));
    }
}

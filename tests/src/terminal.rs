//! A terminal of its own (tmux) with a shell in it, for whoever meets the live view as people do: keys are pressed, screens
//! are read back, and afterwards the terminal is as it was.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tempfile::TempDir;

use crate::{require, require_programs};

/// The most anything may take to appear on the screen.
const PATIENCE: Duration = Duration::from_mins(1);

/// A terminal of its own, with a shell in it.
#[derive(Debug)]
pub struct Terminal {
    directory: TempDir,
    netdiag: PathBuf,
}

/// The program that is tested; none where the test must be skipped.
///
/// # Panics
/// It is missing and `NETDIAG_CI` is `1`.
#[must_use]
pub fn binary() -> Option<PathBuf> {
    let binary = env::var_os("NETDIAG_BIN").map(PathBuf::from);
    require("the program that cargo xtask test builds", binary.is_some()).then_some(binary).flatten()
}

impl Terminal {
    /// A terminal of 100 columns and 30 rows; none where the test must be skipped.
    ///
    /// # Panics
    /// The terminal does not start.
    #[must_use]
    pub fn open() -> Option<Self> {
        let netdiag = binary()?;
        if !require_programs(&["tmux", "stty"]) {
            return None;
        }
        let terminal = Self { directory: tempfile::tempdir().expect("make a directory"), netdiag };
        let directory = terminal.directory.path().display().to_string();
        let shell = "env -u NO_COLOR LC_ALL=C.UTF-8 PS1='ready> ' HISTFILE= sh -i";
        terminal.tmux(&["new-session", "-d", "-x", "100", "-y", "30", "-c", &directory, shell]);
        terminal.until("ready>");
        terminal.line("stty -a | tail -n +2 > before");
        Some(terminal)
    }

    /// A command of tmux's.
    ///
    /// # Panics
    /// It failed.
    pub fn tmux(&self, words: &[&str]) -> Output {
        let socket = self.directory.path().join("tmux");
        let output = Command::new("tmux")
            .arg("-S")
            .arg(socket)
            .args(["-f", "/dev/null"])
            .args(words)
            .env_remove("TMUX")
            .env("TERM", "xterm-256color")
            .output()
            .expect("start tmux");
        assert!(output.status.success(), "tmux {words:?}: {output:?}");
        output
    }

    /// What is on the screen.
    ///
    /// # Panics
    /// There is no terminal any more.
    #[must_use]
    pub fn screen(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p"]).stdout).expect("a screen is text")
    }

    /// What is on the screen, with the colours that are said.
    ///
    /// # Panics
    /// There is no terminal any more.
    #[must_use]
    pub fn styled(&self) -> String {
        String::from_utf8(self.tmux(&["capture-pane", "-p", "-e"]).stdout).expect("a screen is text")
    }

    /// Waits until something is on the screen.
    ///
    /// # Panics
    /// It never appears.
    #[track_caller]
    pub fn until(&self, text: &str) -> String {
        self.until_true(text, |screen| screen.contains(text))
    }

    /// Waits until the screen is as it has to be.
    ///
    /// # Panics
    /// It never is.
    #[track_caller]
    pub fn until_true(&self, what: &str, there: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen();
            if there(&screen) {
                return screen;
            }
            assert!(Instant::now() < end, "{what} never appeared:\n{screen}");
            sleep(Duration::from_millis(50));
        }
    }

    /// Where its shell is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program that is tested.
    #[must_use]
    pub fn netdiag(&self) -> &Path {
        &self.netdiag
    }

    /// Presses keys, by the names tmux has for them.
    ///
    /// # Panics
    /// There is no terminal any more.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Types a text as it is.
    ///
    /// # Panics
    /// There is no terminal any more.
    pub fn text(&self, text: &str) {
        self.tmux(&["send-keys", "-l", text]);
    }

    /// Types a line into the shell.
    ///
    /// # Panics
    /// There is no terminal any more.
    pub fn line(&self, text: &str) {
        self.text(text);
        self.press(&["Enter"]);
    }

    /// Makes it another size.
    ///
    /// # Panics
    /// There is no terminal any more.
    pub fn resize(&self, width: u16, height: u16) {
        self.tmux(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
    }

    /// Starts the live view; says afterwards how it ended.
    ///
    /// # Panics
    /// There is no terminal any more.
    pub fn start(&self, words: &str) {
        let netdiag = self.netdiag.display();
        self.line(&format!("{netdiag} tui {words}; echo \"ended $?\""));
    }

    /// Waits for its end, and sees to it that the terminal is as it was.
    ///
    /// # Panics
    /// It does not end, or ends otherwise, or leaves the terminal in another state.
    #[track_caller]
    pub fn ended(&self, code: i32) -> String {
        let screen = self.until(&format!("ended {code}"));
        self.line("stty -a | tail -n +2 > after; cmp before after && echo the same as before");
        self.until("the same as before\n");
        let shown = self.tmux(&["display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}"]);
        assert_eq!(String::from_utf8_lossy(&shown.stdout).trim(), "0 1 0", "alternate screen, cursor, mouse");
        screen
    }

    /// Its process.
    ///
    /// # Panics
    /// It never says which it is.
    #[must_use]
    pub fn pid(&self) -> Pid {
        let file = self.directory.path().join("pid");
        let end = Instant::now() + PATIENCE;
        loop {
            let read = fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok());
            if let Some(pid) = read.and_then(Pid::from_raw) {
                return pid;
            }
            assert!(Instant::now() < end, "it never said its pid");
            sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let socket = self.directory.path().join("tmux");
        Command::new("tmux").arg("-S").arg(socket).arg("kill-server").output().ok();
    }
}

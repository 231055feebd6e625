//! The terminal: taken, drawn on, and given back however this ends: at the end, by a signal, by a panic.

use std::{
    io::{self, Stdout, Write as _},
    os::fd::AsFd as _,
    panic,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use crossterm::{
    cursor::{Hide, Show},
    event::{DisableMouseCapture, EnableMouseCapture},
    execute,
    terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
};
use netdiag_views::tui::theme::{Background, luminance};
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    buffer::{Buffer, Cell},
    layout::Rect,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A frame in the colours every terminal has.
mod sixteen;

use self::sixteen::Sixteen;

/// The terminal is taken.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// Something has panicked.
static PANICKED: AtomicBool = AtomicBool::new(false);

/// How long a terminal may take to say what its ground is.
const PATIENCE: Duration = Duration::from_millis(150);

/// How long keys are not taken for keys where the answer may still come.
const DEAF: Duration = Duration::from_secs(1);

/// Asks for the colour of the ground (OSC 11), and then what every terminal answers (DA1), so that one that does not know the
/// first is not waited for.
const QUESTION: &[u8] = b"\x1b]11;?\x1b\\\x1b[c";

/// The terminal, while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<Sixteen<Stdout>>>,
    mouse: bool,
    /// What was drawn last.
    last: Buffer,
    /// Text of the last screen, to be left behind.
    kept: Option<String>,
}

/// Whether something has panicked.
pub(super) fn panicked() -> bool {
    PANICKED.load(Ordering::Relaxed)
}

impl Screen {
    /// Takes the terminal.
    pub(super) fn take(mouse: bool) -> anyhow::Result<Self> {
        let earlier = panic::take_hook();
        panic::set_hook(Box::new(move |what| {
            PANICKED.store(true, Ordering::Relaxed);
            restore();
            earlier(what);
        }));
        let terminal = Terminal::new(CrosstermBackend::new(Sixteen::new(io::stdout())))?;
        let screen = Self { terminal, mouse, last: Buffer::default(), kept: None };
        screen.enter()?;
        Ok(screen)
    }

    fn enter(&self) -> anyhow::Result<()> {
        TAKEN.store(true, Ordering::Relaxed);
        enable_raw_mode().context("set raw mode")?;
        execute!(io::stdout(), EnterAlternateScreen, Hide).context("write to the terminal")?;
        if self.mouse {
            execute!(io::stdout(), EnableMouseCapture).context("write to the terminal")?;
        }
        Ok(())
    }

    /// Takes it again after somebody else had it, and forgets what was on it.
    pub(super) fn take_again(&mut self) -> anyhow::Result<()> {
        self.enter()?;
        // Not `clear`, which asks the terminal where its cursor is: the answer would go to whoever reads the keys.
        let (width, height) = self.size()?;
        self.terminal.resize(Rect::new(0, 0, width, height)).context("clear the terminal")
    }

    /// Gives it back for a while.
    #[expect(clippy::unused_self, reason = "only who has the terminal can give it back")]
    pub(super) fn give_back(&mut self) -> anyhow::Result<()> {
        restore();
        io::stdout().flush().context("write to the terminal")
    }

    /// Columns and rows.
    pub(super) fn size(&self) -> anyhow::Result<(u16, u16)> {
        let size = self.terminal.size().context("ask the terminal for its size")?;
        Ok((size.width, size.height))
    }

    /// Draws.
    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> anyhow::Result<()> {
        let drawn = self.terminal.draw(draw).context("write to the terminal")?;
        self.last.clone_from(drawn.buffer);
        Ok(())
    }

    /// Keeps what is on the screen, to leave it behind.
    pub(super) fn keep(&mut self) {
        let buffer = &self.last;
        let width = usize::from(buffer.area.width).max(1);
        let mut text = String::new();
        for row in buffer.content().chunks(width) {
            let line: String = row.iter().map(Cell::symbol).collect();
            text.push_str(line.trim_end());
            text.push('\n');
        }
        self.kept = Some(text);
    }

    /// Puts a text into the terminal's clipboard (OSC 52).
    #[expect(clippy::unused_self, reason = "only who has the terminal can write to it")]
    pub(super) fn copy(&mut self, text: &str) -> anyhow::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b]52;c;{}\x07", base64(text.as_bytes()))
            .and_then(|()| out.flush())
            .context("write to the terminal")
    }

    /// What the ground is, if the terminal says so; and how long its answer may still come.
    #[expect(clippy::unused_self, reason = "only who has the terminal can ask it")]
    pub(super) fn ground(&mut self) -> (Option<Background>, Duration) {
        let mut out = io::stdout();
        if out.write_all(QUESTION).and_then(|()| out.flush()).is_err() {
            return (None, Duration::ZERO);
        }
        let answer = answer();
        let deaf_for = if answer.ends_with(b"c") { Duration::ZERO } else { DEAF };
        let ground = colour(&answer).map(|rgb| if luminance(rgb) > 0.5 { Background::Light } else { Background::Dark });
        (ground, deaf_for)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
        if let Some(text) = self.kept.take() {
            // There is nobody to tell that it could not be left behind.
            drop(io::stdout().write_all(text.as_bytes()));
        }
    }
}

/// Gives the terminal back, once. Errors are nobody's: whoever could be told has no terminal.
fn restore() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        drop(execute!(io::stdout(), DisableMouseCapture, Show, LeaveAlternateScreen));
        drop(disable_raw_mode());
    }
}

/// What the terminal answers within a short time, up to the end of the answer every terminal gives.
fn answer() -> Vec<u8> {
    let mut answer = Vec::new();
    let end = Instant::now() + PATIENCE;
    let stdin = io::stdin();
    let fd = stdin.as_fd();
    while !answer.ends_with(b"c") && answer.len() < 200 {
        let left = end.saturating_duration_since(Instant::now());
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        if !matches!(poll(&mut fds, Some(&wait)), Ok(ready) if ready > 0) {
            break;
        }
        let mut byte = [0];
        match rustix::io::read(fd, &mut byte) {
            Ok(1) => answer.push(byte[0]),
            Ok(_) | Err(_) => break,
        }
    }
    answer
}

/// The colour in an answer: `]11;rgb:ffff/ffff/ffff`.
fn colour(answer: &[u8]) -> Option<[u8; 3]> {
    let text = String::from_utf8_lossy(answer);
    let (_, rgb) = text.split_once("]11;rgb:")?;
    let mut parts = rgb.split(['/', '\x1b', '\x07']).map(|part| {
        let digits = part.get(..2)?;
        u8::from_str_radix(digits, 16).ok()
    });
    Some([parts.next()??, parts.next()??, parts.next()??])
}

/// Base64 (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = u32::from_be_bytes([0, chunk[0], *chunk.get(1).unwrap_or(&0), *chunk.get(2).unwrap_or(&0)]);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// Panics at a key, for the test that sees whether the terminal is given back. Not in what is shipped.
#[cfg(debug_assertions)]
pub(super) fn panic_if_asked(action: &netdiag_views::tui::Action) {
    use netdiag_views::tui::{Action, keymap::Key};
    let wanted = std::env::var_os("NETDIAG_TEST_PANIC").is_some();
    assert!(!wanted || !matches!(action, Action::Key(key) if *key == Key::ctrl('x')), "asked to panic");
}

#[cfg(test)]
mod tests {
    use super::{base64, colour};

    #[test]
    fn the_ground_is_read_in_the_forms_terminals_say_it() {
        assert_eq!(colour(b"\x1b]11;rgb:ffff/fefe/0000\x1b\\\x1b[?1;2c"), Some([255, 254, 0]));
        assert_eq!(colour(b"\x1b]11;rgb:00/80/ff\x07"), Some([0, 128, 255]));
        assert_eq!(colour(b"\x1b[?1;2c"), None);
        assert_eq!(colour(b"\x1b]11;rgb:f"), None);
    }

    #[test]
    fn base64_is_that_of_the_rfc() {
        let pairs = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (text, coded) in pairs {
            assert_eq!(base64(text.as_bytes()), coded);
        }
    }
}

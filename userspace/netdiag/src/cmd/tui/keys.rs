//! Keys and the mouse as actions, on a thread of its own: reading a terminal waits.

use std::time::{Duration, Instant};

use crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers, MouseButton, MouseEventKind, read};
use netdiag_views::tui::{
    Action, Mouse, MouseKind,
    keymap::{Code, Key},
};
use tokio::sync::mpsc;

/// Reads until nobody wants to know any more. For a while keys are let go by: a late answer of the terminal looks like some.
pub(super) fn start(actions: mpsc::Sender<Action>, deaf_for: Duration) {
    let deaf_until = Instant::now() + deaf_for;
    std::thread::spawn(move || {
        while let Ok(event) = read() {
            let deaf = Instant::now() < deaf_until && !matches!(event, Event::Resize(..));
            let Some(action) = action(&event).filter(|_| !deaf) else { continue };
            if actions.blocking_send(action).is_err() {
                return;
            }
        }
        // The terminal is gone: there is nobody to show anything to.
        drop(actions.blocking_send(Action::Key(Key::ctrl('c'))));
    });
}

#[expect(clippy::wildcard_enum_match_arm, reason = "whatever else a terminal can say is nothing to us")]
fn action(event: &Event) -> Option<Action> {
    match event {
        Event::Key(event) => key(event).map(Action::Key),
        Event::Resize(width, height) => Some(Action::Resize(*width, *height)),
        Event::Mouse(event) => {
            let kind = match event.kind {
                MouseEventKind::Down(MouseButton::Left) => MouseKind::Click,
                MouseEventKind::ScrollUp => MouseKind::WheelUp,
                MouseEventKind::ScrollDown => MouseKind::WheelDown,
                _ => return None,
            };
            Some(Action::Mouse(Mouse { kind, x: event.column, y: event.row }))
        }
        _ => None,
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "no other key does anything")]
fn key(event: &KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let code = match event.code {
        KeyCode::Char(character) => Code::Char(character),
        KeyCode::Enter => Code::Enter,
        KeyCode::Esc => Code::Esc,
        KeyCode::Tab => Code::Tab,
        KeyCode::BackTab => Code::BackTab,
        KeyCode::Backspace => Code::Backspace,
        KeyCode::Delete => Code::Delete,
        KeyCode::Up => Code::Up,
        KeyCode::Down => Code::Down,
        KeyCode::Left => Code::Left,
        KeyCode::Right => Code::Right,
        KeyCode::PageUp => Code::PageUp,
        KeyCode::PageDown => Code::PageDown,
        KeyCode::Home => Code::Home,
        KeyCode::End => Code::End,
        _ => return None,
    };
    Some(Key { code, ctrl: event.modifiers.contains(KeyModifiers::CONTROL) })
}

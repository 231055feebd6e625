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
            // Esc and a key right after it are the same bytes as Alt and that key, and Alt means nothing here.
            let escape = is_after_escape(&event).then_some(Action::Key(Key::plain(Code::Esc)));
            for action in escape.into_iter().chain([action]) {
                if actions.blocking_send(action).is_err() {
                    return;
                }
            }
        }
        // The terminal is gone: there is nobody to show anything to.
        drop(actions.blocking_send(Action::Key(Key::ctrl('c'))));
    });
}

/// Whether a key came right after Esc.
fn is_after_escape(event: &Event) -> bool {
    matches!(event, Event::Key(event) if event.modifiers.contains(KeyModifiers::ALT))
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

#[cfg(test)]
mod tests {
    use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers};
    use netdiag_views::tui::{
        Action,
        keymap::{Code, Key},
    };

    use super::{action, is_after_escape};

    #[test]
    fn keys_are_told_with_ctrl_and_with_the_esc_before_them() {
        let event = |code, modifiers| Event::Key(KeyEvent::new(code, modifiers));
        let told = |event: &Event| match action(event) {
            Some(Action::Key(key)) => Some((is_after_escape(event), key)),
            _ => None,
        };
        let seven = event(KeyCode::Char('7'), KeyModifiers::ALT);
        assert_eq!(told(&seven), Some((true, Key::char('7'))));
        assert_eq!(told(&event(KeyCode::Char('b'), KeyModifiers::CONTROL)), Some((false, Key::ctrl('b'))));
        assert_eq!(told(&event(KeyCode::BackTab, KeyModifiers::SHIFT)), Some((false, Key::plain(Code::BackTab))));
        assert_eq!(told(&event(KeyCode::F(1), KeyModifiers::NONE)), None);
    }
}

//! Text that is being typed: the filter, which acts at once, and commands.

use super::{command, say};
use crate::tui::{
    Request,
    filter::Filter,
    keymap::{Code, Command, Key},
    state::{Input, State},
};

/// The most that is taken.
const LONGEST: usize = 200;

/// Begins to type. What was said before would be taken for something about it.
#[expect(clippy::wildcard_enum_match_arm, reason = "only two commands begin to type")]
pub(super) fn open(state: &mut State, command: Command) {
    state.message = None;
    state.input = Some(match command {
        Command::Filter => Input::Filter(state.view().filter.text().to_owned()),
        _ => Input::Command(String::new()),
    });
}

/// A key while typing.
pub(super) fn key(state: &mut State, key: Key) -> Option<Request> {
    let input = state.input.take()?;
    match input {
        Input::Filter(text) => {
            filter(state, text, key);
            None
        }
        Input::Command(text) => type_command(state, text, key),
    }
}

/// The filter: each key acts at once; Enter ends typing if it makes sense, Esc takes it back.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys edit")]
fn filter(state: &mut State, mut text: String, key: Key) {
    match key.code {
        Code::Enter => {}
        Code::Esc => text.clear(),
        _ => edit(&mut text, key),
    }
    state.message = None;
    let mut ends = matches!(key.code, Code::Enter | Code::Esc);
    match Filter::parse(&text) {
        Ok(filter) => {
            filter.remark().into_iter().for_each(|remark| say(state, remark));
            let view = &mut state.views[state.tab.place()];
            view.filter = filter;
            view.stale = true;
        }
        // What was wanted before stays until this makes sense.
        Err(why) => {
            say(state, why);
            ends = false;
        }
    }
    state.input = (!ends).then_some(Input::Filter(text));
}

/// A command: Enter does it, Tab completes it.
#[expect(clippy::wildcard_enum_match_arm, reason = "all other keys edit")]
fn type_command(state: &mut State, mut text: String, key: Key) -> Option<Request> {
    match key.code {
        Code::Enter => {
            state.message = None;
            return command::run(state, &text);
        }
        Code::Esc => {
            state.message = None;
            return None;
        }
        Code::Tab => match command::complete(state, &text).as_slice() {
            [] => say(state, "nothing completes this"),
            [only] => text = format!("{only} "),
            several => {
                let common = common_beginning(several);
                if common.len() > text.len() {
                    common.clone_into(&mut text);
                }
                let words: Vec<&str> = several.iter().map(|one| one.rsplit(' ').next().unwrap_or(one)).collect();
                say(state, words.join("  "));
            }
        },
        _ => {
            state.message = None;
            edit(&mut text, key);
        }
    }
    state.input = Some(Input::Command(text));
    None
}

/// What several texts begin with.
fn common_beginning(texts: &[String]) -> &str {
    let Some(first) = texts.first() else { return "" };
    let shared =
        |other: &String| first.chars().zip(other.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    let length = texts.iter().map(shared).min().unwrap_or(0);
    &first[..length]
}

fn edit(text: &mut String, key: Key) {
    match (key.code, key.ctrl) {
        (Code::Backspace, _) | (Code::Char('h'), true) => {
            text.pop();
        }
        (Code::Char('u'), true) => text.clear(),
        (Code::Char('w'), true) => {
            let kept = text.trim_end().rfind(' ').map_or(0, |space| space + 1);
            text.truncate(kept);
        }
        (Code::Char(character), false) if text.len() < LONGEST => text.push(character),
        _ => {}
    }
}

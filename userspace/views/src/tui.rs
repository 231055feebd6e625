//! The live view of a host: plain state, a pure update, drawing into a frame. No IO, no clock, no terminal.
//!
//! ```text
//! keys, mouse, looks, events --Action--> update(State) --> State, at most one Request
//!                                                  draw(State) --> Frame
//! ```
//!
//! Whoever owns the terminal turns its keys into `Action`s, draws after each batch of them, and carries out what is
//! `Request`ed: so every screen and every key is a function of data, and is tested as one.

/// Where the parts of the screen are.
mod area;
/// A state into a frame.
mod draw;
/// What a row, or a view, is in JSON; the picture of a path.
mod export;
/// Which rows are wanted.
pub mod filter;
/// What packets did at the hops of a path.
mod followed;
/// Which key does what.
pub mod keymap;
/// What one look at a host gave, in the shape the tabs show.
mod look;
/// Packets as they are watched.
mod packet;
/// Rows and columns, one kind for each tab.
mod sheet;
/// Everything the screen is a function of.
mod state;
/// Colours.
pub mod theme;
/// An action turned into the next state.
mod update;

#[cfg(test)]
mod tests;

pub use self::{
    draw::draw,
    followed::{Followed, Follower},
    look::{Agent, Extra, Look, Rates, Traced},
    packet::Packet,
    state::{Origin, Replay, Settings, State, Stream, Tab, Trouble},
    update::{Action, Mouse, MouseKind, ReplayOrder, Request, update},
};

//! The model as text for a terminal: what an operator reads at 3 a.m. at 80 columns.
//!
//! Every line fits the width asked for; a state is always a word, colour only underlines it; with ASCII asked for no
//! character is outside of ASCII. What the table of a trace has no room for moves to the line below its hop, never away;
//! a listing leaves columns out, and [`crate::wide`] has them all.

/// Whether this host can do what netdiag needs.
pub mod doctor;
/// Packets that were given up anywhere on the host.
pub mod drops;
/// What the datapath says about single packets.
pub mod event;
/// What would become of a packet.
pub mod explain;
/// Findings and gaps.
mod findings;
/// Floating IPs and the ways they take.
pub mod floating;
/// The flows the datapath tracks.
pub mod flows;
/// What is enforced at the ports of an instance.
pub mod groups;
/// The hops of one direction, as a table with what belongs to each hop below it.
mod hops;
/// One interface: its heading, its hops, its services.
mod interface;
/// Every instance of the host.
pub mod list;
/// Packets as they are seen live.
pub mod live;
/// Lines of painted text, wrapped to the width.
mod page;
/// How the agent is.
pub mod status;
/// Columns that fit the width, and what is left over.
mod table;
/// The paths of one instance.
pub mod trace;
/// Numbers in compact units.
pub(crate) mod units;
/// Candidates, where nothing was resolved.
pub mod unresolved;
/// What changes while an instance is watched.
pub mod watch;
/// Words for what packets carry.
pub(crate) mod words;

/// How text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; fewer than [`Style::NARROWEST`] are taken for that many.
    pub width: usize,
    /// Colour by ANSI escape sequences of the sixteen basic colours.
    pub colour: bool,
    /// Only ASCII.
    pub ascii: bool,
    /// 0 for the answer, 1 (`-v`) adds details and exact names, 2 (`-vv`) adds commands that show the same by hand.
    pub detail: u8,
    /// UUIDs in full in tables too.
    pub full_ids: bool,
}

impl Style {
    /// The narrowest page there is a layout for.
    pub const NARROWEST: usize = 60;
    /// Wide enough for any table, and still a number to calculate with.
    pub(crate) const UNLIMITED: usize = 1 << 20;
}

impl Default for Style {
    /// 80 columns, no colour, no details.
    fn default() -> Self {
        Self { width: 80, colour: false, ascii: false, detail: 0, full_ids: false }
    }
}

#[cfg(test)]
mod tests;

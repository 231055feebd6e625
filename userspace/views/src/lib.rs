//! The model as text, JSON, YAML, DOT, Mermaid, SVG and frames of a terminal. No IO.
//!
//! Every view is one function from a model type to bytes, into a writer: the same bytes for users and for tests. A view
//! shows what the model says and nothing else; what is not known shows as a dash or as the word "unknown". Text from
//! outside is made harmless in [`escape`] and nowhere else.
#![forbid(unsafe_code)]

/// Which addresses of a device say something.
mod address;
/// A trace as a Graphviz graph.
pub mod dot;
/// The one place where text from outside is made harmless.
pub mod escape;
/// The model as JSON.
pub mod json;
/// The published shape of JSON and YAML, apart from the model.
pub mod json_schema;
/// A trace as a Mermaid flowchart.
pub mod mermaid;
/// Packets as a capture file.
pub mod pcapng;
/// What a picture of a trace shows, whatever draws it.
mod picture;
/// Where a hop stands, in words.
mod place;
/// The JSON schemas of the published shapes.
pub mod schema;
/// Long ids cut to what tells them apart.
mod shorten;
/// A trace as an SVG picture, laid out here.
pub mod svg;
/// The model as text for a terminal.
pub mod text;
/// Instants in words.
mod time;
/// The live view of a host.
pub mod tui;
/// Many tunnels as a few.
mod tunnels;
/// Text without a limit to its width, one line per thing.
pub mod wide;
/// Text broken into lines.
mod wrap;
/// The model as YAML.
pub mod yaml;

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;

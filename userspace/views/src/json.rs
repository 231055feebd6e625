//! The model as JSON: everything, versioned, in the shape [`crate::schema`] publishes.
//!
//! The data is exact. A character that a terminal could be fooled with is written as an escape of JSON, which any
//! parser gives back unchanged, so that looking at the file is safe too.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::{escape, json_schema::Published};

/// Writes a trace, a listing or a report as indented JSON with a newline at its end.
pub fn render(model: &impl Published, out: &mut impl Write) -> io::Result<()> {
    write(&model.document(), out)
}

/// Writes one thing of a stream as JSON on a line of its own.
pub fn line(model: &impl Published, out: &mut impl Write) -> io::Result<()> {
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, VisibleLine);
    model.document().serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// Writes anything as indented JSON with a newline at its end.
pub(crate) fn write(document: &impl Serialize, out: &mut impl Write) -> io::Result<()> {
    let formatter = Visible { pretty: PrettyFormatter::new() };
    let mut serializer = serde_json::Serializer::with_formatter(&mut *out, formatter);
    document.serialize(&mut serializer)?;
    out.write_all(b"\n")
}

/// JSON on one line in which every character can be seen.
struct VisibleLine;

impl Formatter for VisibleLine {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        visible(fragment, writer)
    }
}

/// A piece of a string of JSON, characters that cannot be trusted as escapes.
fn visible<W: ?Sized + Write>(fragment: &str, writer: &mut W) -> io::Result<()> {
    for character in fragment.chars() {
        if escape::is_hostile(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                write!(writer, "\\u{unit:04x}")?;
            }
        } else {
            writer.write_all(character.encode_utf8(&mut [0; 4]).as_bytes())?;
        }
    }
    Ok(())
}

/// Indented JSON in which every character can be seen.
struct Visible<'a> {
    pretty: PrettyFormatter<'a>,
}

impl Formatter for Visible<'_> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        visible(fragment, writer)
    }

    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.pretty.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.begin_object_value(writer)
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.pretty.end_object_value(writer)
    }
}

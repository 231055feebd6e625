//! A frame in the colours every terminal has.
//!
//! crossterm says red as the second of 256 colours (`38;5;1`). A terminal that has sixteen, as those of serial consoles, takes that
//! for three things: one it does not know, blinking, and bold. So it is said as such terminals know it: `31`.

use std::io::{self, Write};

/// Collects what is written until it is flushed, and then writes it at once.
#[derive(Debug)]
pub(super) struct Sixteen<W> {
    out: W,
    frame: Vec<u8>,
}

impl<W> Sixteen<W> {
    pub(super) const fn new(out: W) -> Self {
        Self { out, frame: Vec::new() }
    }
}

impl<W: Write> Write for Sixteen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.frame.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let frame = std::mem::take(&mut self.frame);
        self.out.write_all(&plain(&frame))?;
        self.out.flush()
    }
}

/// The same with the first sixteen of 256 colours as the sixteen.
fn plain(frame: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(frame.len());
    let mut rest = frame;
    while let Some(place) = rest.windows(2).position(|two| two == b"\x1b[") {
        let (before, from) = rest.split_at(place + 2);
        plain.extend_from_slice(before);
        let end = from.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b';')).unwrap_or(from.len());
        let (numbers, after) = from.split_at(end);
        match after.first() {
            Some(b'm') => plain.extend(said(numbers)),
            _ => plain.extend_from_slice(numbers),
        }
        rest = after;
    }
    plain.extend_from_slice(rest);
    plain
}

/// Numbers of a style.
fn said(numbers: &[u8]) -> Vec<u8> {
    let numbers: Vec<&[u8]> = numbers.split(|byte| *byte == b';').collect();
    let mut said: Vec<Vec<u8>> = Vec::new();
    let mut place = 0;
    while let Some(number) = numbers.get(place) {
        let colour = numbers.get(place..place + 3).and_then(colour);
        place += if colour.is_some() { 3 } else { 1 };
        said.push(colour.unwrap_or_else(|| number.to_vec()));
    }
    said.join(&b';')
}

/// One of the sixteen, where three numbers say such a one.
fn colour(numbers: &[&[u8]]) -> Option<Vec<u8>> {
    let [what, b"5", number] = numbers else { return None };
    let number: u8 = std::str::from_utf8(number).ok()?.parse().ok()?;
    // Dark ones, and light ones; of the text, and of the ground.
    let first = match (*what, number) {
        (b"38", 0..8) => 30,
        (b"38", 8..16) => 90 - 8,
        (b"48", 0..8) => 40,
        (b"48", 8..16) => 100 - 8,
        _ => return None,
    };
    Some((first + number).to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::Sixteen;

    fn written(parts: &[&str]) -> String {
        let mut out = Vec::new();
        let mut sixteen = Sixteen::new(&mut out);
        for part in parts {
            sixteen.write_all(part.as_bytes()).unwrap();
        }
        sixteen.flush().unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_first_sixteen_of_256_colours_are_said_as_the_sixteen() {
        assert_eq!(written(&["\x1b[38;5;1;49mx\x1b[38;5;7m"]), "\x1b[31;49mx\x1b[37m");
        assert_eq!(written(&["\x1b[1;38;5;9;48;5;15m"]), "\x1b[1;91;107m");
        assert_eq!(written(&["\x1b[48;5;8m\x1b[38;5;15m"]), "\x1b[100m\x1b[97m");
    }

    #[test]
    fn a_colour_may_be_written_in_parts() {
        assert_eq!(written(&["a\x1b", "[", "38;", "5;", "1", "0m", "b"]), "a\x1b[92mb");
    }

    #[test]
    fn everything_else_stays_as_it_is() {
        for text in [
            "",
            "\x1b",
            "\x1b[",
            "\x1b[m",
            "\x1b[0m",
            "\x1b[38;5;16m",
            "\x1b[38;5;m",
            "\x1b[38;5m",
            "\x1b[38;2;1;2;3m",
            "\x1b[5;38H",
            "\x1b[38;5;1H",
            "\x1b[?25l",
            "38;5;1m",
            "数据\x1b[39;49m库",
        ] {
            assert_eq!(written(&[text]), text, "{text:?}");
        }
    }
}

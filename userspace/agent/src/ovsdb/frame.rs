//! Cuts a byte stream into JSON values; OVSDB puts nothing between them, not even a newline. Flow: discover.
//!
//! It finds where a value ends by counting brackets outside strings, once per byte however small the pieces are it
//! comes in. Whether the value is JSON is for the parser to say.

use std::mem;

/// Why a byte stream cannot be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A value begins with something else than `{`.
    #[error("a message begins with byte 0x{0:02x} instead of an opening brace")]
    NotAnObject(u8),
    /// A value grows beyond the limit.
    #[error("a message is longer than {0} bytes")]
    TooLong(usize),
}

/// Bytes that came in, and how far they have been looked at.
#[derive(Debug)]
pub(super) struct Framer {
    buffer: Vec<u8>,
    scanned: usize,
    depth: usize,
    text: Text,
    limit: usize,
}

/// Where in a string the scan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Framer {
    /// A framer that refuses values longer than `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { buffer: Vec::new(), scanned: 0, depth: 0, text: Text::Outside, limit }
    }

    /// Takes bytes in.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// True while part of a value is there.
    pub(super) const fn midway(&self) -> bool {
        self.depth > 0
    }

    /// The next whole value; none until more bytes come.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, FrameError> {
        while let Some(&byte) = self.buffer.get(self.scanned) {
            self.scanned += 1;
            if self.depth == 0 && byte != b'{' {
                if !byte.is_ascii_whitespace() {
                    return Err(FrameError::NotAnObject(byte));
                }
                continue;
            }
            if self.step(byte) {
                let rest = self.buffer.split_off(self.scanned);
                self.scanned = 0;
                return Ok(Some(mem::replace(&mut self.buffer, rest)));
            }
            if self.scanned > self.limit {
                return Err(FrameError::TooLong(self.limit));
            }
        }
        Ok(None)
    }

    /// True where the byte ends a value.
    const fn step(&mut self, byte: u8) -> bool {
        match (self.text, byte) {
            (Text::Escaped, _) | (Text::Outside, b'"') => self.text = Text::Inside,
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Inside, b'"') => self.text = Text::Outside,
            (Text::Outside, b'{' | b'[') => self.depth += 1,
            (Text::Outside, b'}' | b']') => {
                self.depth -= 1;
                return self.depth == 0;
            }
            (Text::Inside | Text::Outside, _) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::{FrameError, Framer};

    fn all(framer: &mut Framer) -> Vec<String> {
        std::iter::from_fn(|| framer.next().unwrap()).map(|frame| String::from_utf8(frame).unwrap()).collect()
    }

    #[test]
    fn values_that_follow_each_other_without_a_gap_come_out_one_by_one() {
        let mut framer = Framer::new(100);
        framer.push(br#"{"a":[1,{}]}{"b":"}{\"]"} {}"#);
        assert_eq!(all(&mut framer), [r#"{"a":[1,{}]}"#, r#"{"b":"}{\"]"}"#, " {}"]);
        assert!(!framer.midway());
    }

    #[test]
    fn a_value_may_come_byte_by_byte() {
        let text = r#"{"backslash":"\\","quote":"\""}"#;
        let mut framer = Framer::new(100);
        let (last, first) = text.as_bytes().split_last().unwrap();
        for byte in first {
            framer.push(&[*byte]);
            assert_eq!(framer.next(), Ok(None));
            assert!(framer.midway());
        }
        framer.push(&[*last]);
        assert_eq!(all(&mut framer), [text]);
    }

    #[test]
    fn a_value_that_is_no_object_is_refused() {
        for text in ["HTTP/1.1 400", "[]", "1", "}", "\u{0}"] {
            let mut framer = Framer::new(100);
            framer.push(text.as_bytes());
            assert_eq!(framer.next(), Err(FrameError::NotAnObject(text.as_bytes()[0])), "{text}");
        }
    }

    #[test]
    fn a_value_longer_than_the_limit_is_refused_before_it_ends() {
        let mut framer = Framer::new(10);
        framer.push(br#"{"a":"0123456789"#);
        assert_eq!(framer.next(), Err(FrameError::TooLong(10)));
    }

    #[test]
    fn the_limit_is_for_each_value_and_not_for_all_of_them() {
        let mut framer = Framer::new(10);
        framer.push(&b"{\"a\":1}".repeat(5));
        assert_eq!(all(&mut framer).len(), 5);
    }
}

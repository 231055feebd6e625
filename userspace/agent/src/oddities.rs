//! What of an answer did not fit, counted, and said in few words however much it is. Flow: discover.

use std::fmt;

/// What did not fit: how much, and the first few of it in words.
#[derive(Debug, Default)]
pub(crate) struct Oddities {
    first: Vec<String>,
    count: usize,
}

impl Oddities {
    /// How many are kept in words.
    const KEPT: usize = 3;
    /// How many characters are kept of one: it may quote the server.
    const LENGTH: usize = 200;

    /// Adds one.
    pub(crate) fn note(&mut self, what: impl fmt::Display) {
        self.count += 1;
        if self.first.len() < Self::KEPT {
            self.first.push(what.to_string().chars().take(Self::LENGTH).collect());
        }
    }

    /// True where all fitted.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Oddities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.first.join("; "))?;
        match self.count - self.first.len() {
            0 => Ok(()),
            more => write!(f, "; and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Oddities;

    #[test]
    fn a_note_that_quotes_the_server_is_cut() {
        let mut odd = Oddities::default();
        odd.note("ä".repeat(1_000_000));
        assert_eq!(odd.to_string().chars().count(), Oddities::LENGTH);
    }

    #[test]
    fn notes_beyond_the_first_few_are_counted() {
        let mut odd = Oddities::default();
        for note in 1..=5 {
            odd.note(note);
        }
        assert_eq!(odd.to_string(), "1; 2; 3; and 2 more");
    }
}

//! Splits a rule into words as `iptables-restore` does, and remembers where each came from. Flow: explain.

/// A word of a rule.
#[derive(Debug)]
struct Word {
    /// With quotes and escapes undone.
    text: String,
    /// Was in quotes, so it is a value and never an option.
    quoted: bool,
    /// Where it starts in the rule.
    start: usize,
    /// Where it ends.
    end: usize,
}

/// The words of a rule, taken from the front.
#[derive(Debug)]
pub(super) struct Words<'a> {
    raw: &'a str,
    all: Vec<Word>,
    at: usize,
}

impl<'a> Words<'a> {
    /// Splits at blanks outside of double quotes; a backslash inside quotes takes the next character as it is.
    pub(super) fn split(raw: &'a str) -> Self {
        let mut words: Vec<Word> = Vec::new();
        let mut open: Option<Word> = None;
        let mut inside = false;
        let mut escaped = false;
        for (place, character) in raw.char_indices() {
            if !inside && character.is_whitespace() {
                words.extend(open.take());
                continue;
            }
            let word =
                open.get_or_insert_with(|| Word { text: String::new(), quoted: false, start: place, end: place });
            word.end = place + character.len_utf8();
            match character {
                _ if escaped => {
                    word.text.push(character);
                    escaped = false;
                }
                '\\' if inside => escaped = true,
                '"' => {
                    inside = !inside;
                    word.quoted = true;
                }
                _ => word.text.push(character),
            }
        }
        words.extend(open);
        Self { raw, all: words, at: 0 }
    }

    /// Whether there is a word left.
    pub(super) const fn more(&self) -> bool {
        self.at < self.all.len()
    }

    /// The next word, taken.
    pub(super) fn take(&mut self) -> Option<String> {
        let word = self.all.get(self.at)?;
        self.at += 1;
        Some(word.text.clone())
    }

    /// The next word where it can be an option: not in quotes. Not taken.
    pub(super) fn option(&self) -> Option<&str> {
        self.all.get(self.at).filter(|word| !word.quoted).map(|word| word.text.as_str())
    }

    /// Takes the next word where it is this option.
    pub(super) fn take_option(&mut self, option: &str) -> bool {
        let found = self.option() == Some(option);
        self.at += usize::from(found);
        found
    }

    /// Skips words up to the next one that is an option for which `stop` holds.
    pub(super) fn skip_until(&mut self, stop: impl Fn(&str) -> bool) {
        while self.more() && !self.option().is_some_and(&stop) {
            self.at += 1;
        }
    }

    /// Where the next word is, to come back to with [`Self::rewind`] or [`Self::text_since`].
    pub(super) const fn place(&self) -> usize {
        self.at
    }

    /// Goes back to a place.
    pub(super) const fn rewind(&mut self, place: usize) {
        self.at = place;
    }

    /// The rule's text from a place up to here, as it was printed.
    pub(super) fn text_since(&self, place: usize) -> String {
        let taken = self.all.get(place..self.at).unwrap_or_default();
        match (taken.first(), taken.last()) {
            (Some(first), Some(last)) => self.raw[first.start..last.end].to_owned(),
            _ => String::new(),
        }
    }
}

//! Which rows are wanted: `inst:web port:22 !reason:no-rule /10\.0\.[01]\./`.
//!
//! Words are joined by AND. A word with a keyword asks one thing, a bare word anything; `!` turns a word around; `/…/` is a
//! regular expression over everything. Ports are matched exactly, the rest by what it contains, whatever the case.

use std::fmt::{self, Write as _};

use regex_lite::{Regex, RegexBuilder};

/// What a row can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// Name or id of the instance.
    Instance,
    /// Security group.
    Group,
    /// A port of either end.
    Port,
    /// An address.
    Address,
    /// What became of it: `allow`, `deny`, `ok`, `broken`.
    Verdict,
    /// A device or another place on a path.
    Hop,
    /// Why.
    Reason,
    /// Network namespace.
    Netns,
    /// Anything else.
    Other,
}

impl Field {
    /// Those with a keyword.
    pub const KEYWORDS: [(&'static str, Self); 8] = [
        ("inst", Self::Instance),
        ("sg", Self::Group),
        ("port", Self::Port),
        ("ip", Self::Address),
        ("verdict", Self::Verdict),
        ("hop", Self::Hop),
        ("reason", Self::Reason),
        ("netns", Self::Netns),
    ];
}

/// A filter, compiled.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    text: String,
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    wanted: bool,
    field: Option<Field>,
    pattern: Pattern,
}

#[derive(Clone, Debug)]
enum Pattern {
    /// Contains this, in lower case.
    Part(String),
    /// Is this.
    Whole(String),
    /// Matches.
    Regex(Regex),
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// A regular expression makes no sense; says which and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let terms = words(text).into_iter().map(term).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { text: text.trim().to_owned(), terms: terms.into_iter().flatten().collect() })
    }

    /// What looks like a keyword and is none: it was taken for text.
    pub fn remark(&self) -> Option<String> {
        let looks = |name: &&str| {
            let letters = |is: fn(&char) -> bool| name.chars().all(|letter| is(&letter));
            // Addresses have colons too.
            name.len() > 1 && letters(char::is_ascii_alphabetic) && !letters(char::is_ascii_hexdigit)
        };
        let words = words(&self.text).into_iter().map(|word| word.strip_prefix('!').unwrap_or(word));
        let before_colon = words.filter(|word| !word.starts_with('/')).filter_map(|word| Some(word.split_once(':')?.0));
        let known = |name: &str| Field::KEYWORDS.iter().any(|(keyword, _)| keyword.eq_ignore_ascii_case(name));
        let word = before_colon.filter(looks).find(|name| !known(name))?;
        let keywords = Field::KEYWORDS.map(|(keyword, _)| keyword).join(" ");
        Some(format!("{word}: is text; keywords: {keywords}"))
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether it lets everything through.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// What asks one row after the other.
    pub fn asked(&self) -> Asked<'_> {
        Asked { terms: &self.terms, met: vec![false; self.terms.len()], decided: None, text: String::new() }
    }
}

/// A row that is being asked. Text is made only where the answer still depends on it.
#[derive(Debug)]
pub struct Asked<'f> {
    terms: &'f [Term],
    /// Which of them were met.
    met: Vec<bool>,
    /// The answer, as soon as nothing can change it.
    decided: Option<bool>,
    /// Room for text that is made.
    text: String,
}

impl Asked<'_> {
    /// Whether a row is wanted. `fields` says each thing that can be asked of it.
    pub fn wants(&mut self, fields: impl FnOnce(&mut Self)) -> bool {
        self.met.fill(false);
        self.decided = self.terms.is_empty().then_some(true);
        fields(self);
        self.decided.unwrap_or_else(|| self.terms.iter().zip(&self.met).all(|(term, met)| term.wanted == *met))
    }

    /// Says something of the row.
    pub fn say(&mut self, field: Field, text: &str) {
        if self.decided.is_some() {
            return;
        }
        for (term, met) in self.terms.iter().zip(&mut self.met) {
            if !*met && term.asks(field) && term.pattern.covers(text) {
                *met = true;
                if !term.wanted {
                    self.decided = Some(false);
                    return;
                }
            }
        }
        // A word that is turned around may be met by whatever follows.
        if self.terms.iter().zip(&self.met).all(|(term, met)| term.wanted && *met) {
            self.decided = Some(true);
        }
    }

    /// Says something that is not text yet.
    pub fn show(&mut self, field: Field, value: impl fmt::Display) {
        if !self.needs(field) {
            return;
        }
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        // Writing to a string fails only where a value cannot say itself; what it did say is asked.
        write!(text, "{value}").ok();
        self.say(field, &text);
        self.text = text;
    }

    /// Says something that has to be put together.
    pub fn made(&mut self, field: Field, make: impl FnOnce() -> String) {
        if self.needs(field) {
            self.say(field, &make());
        }
    }

    /// Whether the answer still depends on this.
    fn needs(&self, field: Field) -> bool {
        self.decided.is_none() && self.terms.iter().zip(&self.met).any(|(term, met)| !met && term.asks(field))
    }
}

impl Term {
    /// Whether it is about this.
    fn asks(&self, field: Field) -> bool {
        self.field.is_none_or(|asked| asked == field)
    }
}

impl Pattern {
    fn covers(&self, text: &str) -> bool {
        match self {
            Self::Part(part) => contains(text, part),
            Self::Whole(whole) => text.eq_ignore_ascii_case(whole),
            Self::Regex(regex) => regex.is_match(text),
        }
    }
}

/// Whether a text contains another, which is in lower case.
fn contains(text: &str, part: &str) -> bool {
    if text.is_ascii() {
        let Some((first, rest)) = part.as_bytes().split_first() else { return true };
        let text = text.as_bytes();
        let last = text.len().saturating_sub(rest.len());
        let begins = |at: usize| text[at].eq_ignore_ascii_case(first);
        return (0..last).any(|at| begins(at) && text[at + 1..=at + rest.len()].eq_ignore_ascii_case(rest));
    }
    text.to_lowercase().contains(part)
}

/// Words between spaces; a regular expression may hold some.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let body = rest.strip_prefix('!').unwrap_or(rest);
        let lead = rest.len() - body.len();
        let end = match body.strip_prefix('/') {
            Some(regex) => regex.find('/').map_or(rest.len(), |end| lead + end + 2),
            None => rest.find(' ').unwrap_or(rest.len()),
        };
        words.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    words
}

/// A word; none where it asks for nothing yet, as `inst:` does while it is being typed.
fn term(word: &str) -> Result<Option<Term>, String> {
    let (wanted, body) = word.strip_prefix('!').map_or((true, word), |body| (false, body));
    if let Some(regex) = body.strip_prefix('/') {
        let regex = regex.strip_suffix('/').unwrap_or(regex);
        let made = RegexBuilder::new(regex).case_insensitive(true).build();
        let pattern = Pattern::Regex(made.map_err(|error| format!("/{regex}/: {error}"))?);
        return Ok((!regex.is_empty()).then_some(Term { wanted, field: None, pattern }));
    }
    let keyword = body.split_once(':').and_then(|(name, value)| {
        let known = Field::KEYWORDS.iter().find(|(keyword, _)| *keyword == name.to_ascii_lowercase())?;
        Some((known.1, value))
    });
    let (field, value) = keyword.map_or((None, body), |(field, value)| (Some(field), value));
    let pattern = match field {
        Some(Field::Port) => Pattern::Whole(value.to_owned()),
        _ => Pattern::Part(value.to_lowercase()),
    };
    Ok((!value.is_empty()).then_some(Term { wanted, field, pattern }))
}

#[cfg(test)]
mod tests {
    use super::{Field, Filter};

    const ROW: [(Field, &str); 5] = [
        (Field::Instance, "Web-1"),
        (Field::Address, "10.0.0.2"),
        (Field::Port, "22"),
        (Field::Port, "51512"),
        (Field::Reason, "no-rule"),
    ];

    fn wants(filter: &str) -> bool {
        let filter = Filter::parse(filter).unwrap();
        let wanted = filter.asked().wants(|asked| ROW.iter().for_each(|(field, text)| asked.say(*field, text)));
        let made = filter.asked().wants(|asked| ROW.iter().for_each(|(field, text)| asked.show(*field, text)));
        assert_eq!(wanted, made, "text that is made is asked like text that is there");
        wanted
    }

    #[test]
    fn a_keyword_asks_one_thing_and_a_bare_word_anything() {
        assert!(wants("inst:web") && wants("web") && wants("ip:10.0") && wants("reason:rule"));
        assert!(!wants("inst:10.0") && !wants("sg:web") && !wants("db"));
    }

    #[test]
    fn ports_are_matched_as_a_whole_and_the_case_does_not_matter() {
        assert!(wants("port:22") && !wants("port:2") && wants("port:51512"));
        assert!(wants("WEB") && wants("INST:wEb"));
    }

    #[test]
    fn words_are_joined_by_and_and_turned_around_by_a_bang() {
        assert!(wants("inst:web port:22") && !wants("inst:web port:80") && wants("!port:80") && !wants("!web"));
    }

    #[test]
    fn a_regular_expression_may_hold_spaces_and_one_that_makes_no_sense_is_named() {
        assert!(wants("/^10\\.0\\.[01]/") && !wants("/^0/") && wants("!/a b/ web"));
        assert!(Filter::parse("/(/").unwrap_err().starts_with("/(/: "), "{:?}", Filter::parse("/(/"));
    }

    #[test]
    fn what_looks_like_a_keyword_and_is_none_is_named_and_an_address_is_not() {
        let remark = |text: &str| Filter::parse(text).unwrap().remark();
        assert_eq!(
            remark("instance:web").unwrap(),
            "instance: is text; keywords: inst sg port ip verdict hop reason netns"
        );
        assert!(remark("port:22 !Host:a").unwrap().starts_with("Host: is text"));
        for text in
            ["", "web", "INST:web", "!sg:", "fa:16:3e:00:00:02", "fe80::1", "dead:beef::", "::1", "/host:a/", "x:"]
        {
            assert_eq!(remark(text), None, "{text}");
        }
    }

    #[test]
    fn text_is_made_only_where_the_answer_depends_on_it() {
        let made = |filter: &str| {
            let filter = Filter::parse(filter).unwrap();
            let mut made = 0;
            let mut count = |text: &str| {
                made += 1;
                text.to_owned()
            };
            filter.asked().wants(|asked| ROW.iter().for_each(|(field, text)| asked.made(*field, || count(text))));
            made
        };
        assert_eq!((made("inst:web"), made("port:80"), made("sg:x")), (1, 2, 0));
        assert_eq!((made("web"), made("nowhere"), made("!web"), made("")), (1, 5, 1, 0));
        assert_eq!(made("inst:web !port:22"), 2, "it is decided by the first port");
    }

    #[test]
    fn what_is_being_typed_does_not_empty_the_screen() {
        for beginning in ["", " ", "inst:", "!", "!port:", "/", "//"] {
            assert!(wants(beginning), "{beginning:?}");
            assert!(Filter::parse(beginning).unwrap().is_empty(), "{beginning:?}");
        }
        assert!(!wants("unknown:web"), "a word with a colon that is no keyword is text");
    }
}

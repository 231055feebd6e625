//! Text broken into lines.
//!
//! At spaces only: names are full of hyphens, and half a name is another name.

use textwrap::{Options, WordSeparator, WordSplitter, WrapAlgorithm};

/// Lines of at most so many columns; what is longer than a line is broken where it must be.
pub(crate) fn lines(text: &str, columns: usize) -> Vec<String> {
    let options = Options::new(columns)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .wrap_algorithm(WrapAlgorithm::FirstFit);
    textwrap::wrap(text, options).into_iter().map(std::borrow::Cow::into_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::lines;

    #[test]
    fn a_name_is_not_broken_at_its_hyphens() {
        assert_eq!(lines("ageing 0, bridge-nf-call-iptables 1", 25), ["ageing 0,", "bridge-nf-call-iptables 1"]);
    }
}

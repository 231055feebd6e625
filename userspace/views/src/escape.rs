//! The one place where text from outside is made harmless.
//!
//! Container names, labels, external ids and what tools print can hold anything a tenant likes: escape sequences that
//! rewrite the terminal, newlines that forge a line, bidirectional overrides that turn a name around, characters
//! without width that make two names look alike. Each output has its own function here; no view escapes by itself.
//!
//! A character that cannot be trusted is shown as Rust writes it (`\n`, `\u{1b}`, `\u{202e}`), so nothing is hidden. A
//! plain backslash stays as it is: this is for reading, not for reading back; JSON is exact.

use unicode_width::UnicodeWidthChar;

/// True for a character that a reader could not see, or that would do something to whatever displays it.
///
/// Controls (C0, DEL, C1), everything without width (joiners, combining marks, bidirectional marks, tags, variation
/// selectors), bidirectional and annotation format characters whatever their width, and white space that only looks
/// like a space.
pub fn is_hostile(character: char) -> bool {
    // Nearly all there is, and a packet's line has a hundred of it.
    if character.is_ascii() {
        return character.is_ascii_control();
    }
    let format = matches!(character,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    let space = character.is_whitespace() && character != ' ';
    format || space || character.is_control() || character.width().is_none_or(|width| width == 0)
}

/// For a terminal: one line of visible characters; with `ascii`, none outside of ASCII.
pub fn terminal(text: &str, ascii: bool) -> String {
    if is_plain(text) {
        return text.to_owned();
    }
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match ascii_spelling(character) {
            Some(spelling) if ascii => safe.push_str(spelling),
            _ if is_hostile(character) || (ascii && !character.is_ascii()) => push_visible(&mut safe, character),
            _ => safe.push(character),
        }
    }
    safe
}

/// Whether there is nothing to do: as for most lines of a busy view.
pub(crate) fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

/// For the inside of a quoted string of the DOT language, where a backslash starts an escape and `&` an entity.
pub fn dot(text: &str) -> String {
    replace(text, |character| match character {
        '"' => Some("\\\""),
        '\\' => Some("\\\\"),
        '&' => Some("&amp;"),
        _ => None,
    })
}

/// For the inside of a quoted label of Mermaid, which knows entities by `#`, and reads HTML, Markdown and `%%`
/// directives wherever they stand.
pub fn mermaid(text: &str) -> String {
    replace(text, |character| match character {
        '"' => Some("#quot;"),
        '#' => Some("#35;"),
        '&' => Some("#amp;"),
        '<' => Some("#lt;"),
        '>' => Some("#gt;"),
        '`' => Some("#96;"),
        '%' => Some("#37;"),
        '\\' => Some("#92;"),
        '*' => Some("#42;"),
        '_' => Some("#95;"),
        ';' => Some("#59;"),
        _ => None,
    })
}

/// For text and attributes of XML.
pub fn xml(text: &str) -> String {
    replace(text, |character| match character {
        '&' => Some("&amp;"),
        '<' => Some("&lt;"),
        '>' => Some("&gt;"),
        '"' => Some("&quot;"),
        '\'' => Some("&#39;"),
        _ => None,
    })
}

/// Makes text visible first, then spells what the language gives a meaning.
fn replace(text: &str, spelling: impl Fn(char) -> Option<&'static str>) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in terminal(text, false).chars() {
        match spelling(character) {
            Some(spelling) => safe.push_str(spelling),
            // XML 1.0 knows neither of these (section 2.2), not even as a reference.
            None if matches!(character, '\u{fffe}' | '\u{ffff}') => push_visible(&mut safe, character),
            None => safe.push(character),
        }
    }
    safe
}

/// Writes a character as Rust would in a string literal.
fn push_visible(safe: &mut String, character: char) {
    safe.extend(character.escape_default());
}

/// Typographic characters the model's own sentences use, and how ASCII spells them.
fn ascii_spelling(character: char) -> Option<&'static str> {
    Some(match character {
        '…' => "...",
        '→' => "->",
        '←' => "<-",
        '–' | '—' | '·' => "-",
        '‘' | '’' => "'",
        '“' | '”' => "\"",
        '×' => "x",
        '≠' => "!=",
        '≤' => "<=",
        '≥' => ">=",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::{dot, is_hostile, mermaid, terminal, xml};

    const HOSTILE: [&str; 10] = [
        "\u{1b}[31mred\u{1b}[0m",
        "\u{9b}2J",
        "a\nb\r\tc",
        "abc\u{202e}txt.exe",
        "zero\u{200b}width\u{200d}joiner\u{feff}",
        "\u{7f}del\0nul",
        "tag\u{e0041}\u{e007f}",
        "za\u{301}lgo",
        "\u{2066}isolate\u{2069}\u{2028}line",
        "nbsp\u{a0}space\u{3000}",
    ];

    #[test]
    fn no_output_lets_a_hostile_character_through() {
        for text in HOSTILE {
            for safe in [terminal(text, false), terminal(text, true), dot(text), mermaid(text), xml(text)] {
                assert!(!safe.chars().any(is_hostile), "{safe:?}");
            }
        }
    }

    #[test]
    fn each_of_the_known_tricks_is_hostile_and_no_letter_is() {
        let tricks = "\u{0}\u{7}\u{8}\u{1b}\u{7f}\u{85}\u{9b}\u{9d}\u{a0}\u{ad}\u{300}\u{34f}\u{61c}\u{180e}\u{200b}\u{200d}\
                      \u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202d}\u{202e}\u{2060}\u{2066}\u{2069}\u{206f}\u{3000}\u{fe0f}\
                      \u{feff}\u{fff9}\u{e0001}\u{e007f}";
        let tame: Vec<char> = tricks.chars().filter(|trick| !is_hostile(*trick)).collect();
        assert!(tame.is_empty(), "{tame:?}");
        let letters = "az AZ 09 ~!@#$%^&*()_+ äöüß ñ ł 数据库 한국 שלום العربية привет …→✓";
        let refused: Vec<char> = letters.chars().filter(|letter| is_hostile(*letter)).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn what_is_hidden_becomes_visible() {
        assert_eq!(terminal("a\u{1b}[2Jb\n\u{202e}", false), r"a\u{1b}[2Jb\n\u{202e}");
    }

    #[test]
    fn names_of_the_world_stay_as_they_are() {
        assert_eq!(terminal("größe-数据库-שלום", false), "größe-数据库-שלום");
    }

    #[test]
    fn ascii_spells_typography_and_escapes_the_rest() {
        assert_eq!(terminal("5c1b… → größe", true), r"5c1b... -> gr\u{f6}\u{df}e");
    }

    #[test]
    fn escaping_twice_changes_nothing() {
        for text in HOSTILE {
            let once = terminal(text, true);
            assert_eq!(terminal(&once, true), once);
        }
    }

    #[test]
    fn dot_string_cannot_be_closed() {
        assert_eq!(dot(r#"a"];x\"&amp;"#), r#"a\"];x\\\"&amp;amp;"#);
    }

    #[test]
    fn mermaid_label_cannot_be_closed_nor_carry_html_or_directives() {
        assert_eq!(mermaid(r#""]--><b>%%{init}`#1;"#), "#quot;]--#gt;#lt;b#gt;#37;#37;{init}#96;#35;1#59;");
    }

    #[test]
    fn xml_text_cannot_open_an_element() {
        assert_eq!(xml(r#"<script a="b">'&"#), "&lt;script a=&quot;b&quot;&gt;&#39;&amp;");
    }
}

//! Candidates, where what was typed means no instance or several.

use std::io::{self, Write};

use netdiag_model::{fact::Gap, resolve::Unresolved};

use crate::escape;

/// Says what is wrong with the query and lists the candidates, each with a word that means only it. What could not be read may
/// hide an instance: "not read" is not "there is none", and the gaps are named behind the candidates.
pub fn render(unresolved: &Unresolved, gaps: &[&Gap], ascii: bool, out: &mut impl Write) -> io::Result<()> {
    candidates(unresolved, gaps, ascii, out)?;
    for gap in gaps {
        let line = format!("not read: {}: {}; {}", gap.object, gap.why, gap.fix);
        writeln!(out, "{}", escape::terminal(&line, ascii))?;
    }
    Ok(())
}

fn candidates(unresolved: &Unresolved, gaps: &[&Gap], ascii: bool, out: &mut impl Write) -> io::Result<()> {
    let say = |text: &str| escape::terminal(text, ascii);
    let Unresolved { query, ambiguous, candidates, total } = unresolved;
    let query = say(query);
    if *ambiguous {
        writeln!(out, "netdiag: \"{query}\" means {total} instances; say which:")?;
    } else {
        let known = if gaps.is_empty() { "" } else { " in what could be read" };
        if candidates.is_empty() {
            return writeln!(out, "netdiag: no instance \"{query}\": none was found{known} on this host at all");
        }
        writeln!(out, "netdiag: no instance \"{query}\"{known}; there are:")?;
    }
    let names: Vec<String> = candidates.iter().map(|candidate| say(&candidate.unique)).collect();
    let widest = names.iter().map(|name| unicode_width::UnicodeWidthStr::width(name.as_str())).max().unwrap_or(0);
    for (name, candidate) in names.iter().zip(candidates) {
        let pad = " ".repeat(widest - unicode_width::UnicodeWidthStr::width(name.as_str()));
        writeln!(out, "  {name}{pad}  {}  ({})", say(&candidate.name), say(&candidate.by))?;
    }
    if *total > candidates.len() {
        writeln!(out, "  and {} more: see netdiag list", total - candidates.len())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use netdiag_model::{
        fact::{Gap, SourceKind},
        resolve::{Candidate, Unresolved},
    };

    fn text(unresolved: &Unresolved, gaps: &[&Gap]) -> String {
        let mut out = Vec::new();
        super::render(unresolved, gaps, true, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_ambiguous_address_lists_a_word_for_each_instance() {
        let candidate = |name: &str, unique: &str| Candidate {
            name: name.to_owned(),
            by: "fixed IP 10.0.0.2".to_owned(),
            unique: unique.to_owned(),
        };
        let unresolved = Unresolved {
            query: "10.0.0.2".to_owned(),
            ambiguous: true,
            candidates: vec![candidate("web-1", "1f0c2d3e4a5b"), candidate("db", "99")],
            total: 2,
        };
        insta::assert_snapshot!(text(&unresolved, &[]), @r#"
        netdiag: "10.0.0.2" means 2 instances; say which:
          1f0c2d3e4a5b  web-1  (fixed IP 10.0.0.2)
          99            db  (fixed IP 10.0.0.2)
        "#);
    }

    #[test]
    fn where_something_was_not_read_it_is_not_said_that_there_is_none() {
        let gap = Gap {
            source: SourceKind::Docker,
            netns: None,
            object: "unix:/run/docker.sock".to_owned(),
            why: "no answer within 3000 ms".to_owned(),
            fix: "see whether `docker version` answers".to_owned(),
            absent: false,
        };
        let nobody = Unresolved { query: "web".to_owned(), ambiguous: false, candidates: vec![], total: 0 };
        insta::assert_snapshot!(text(&nobody, &[&gap]), @r#"
        netdiag: no instance "web": none was found in what could be read on this host at all
        not read: unix:/run/docker.sock: no answer within 3000 ms; see whether `docker version` answers
        "#);
        insta::assert_snapshot!(text(&nobody, &[]), @r#"netdiag: no instance "web": none was found on this host at all"#);
    }

    #[test]
    fn a_hostile_query_is_printed_harmlessly() {
        let unresolved = Unresolved { query: "\u{1b}[2J".to_owned(), ambiguous: false, candidates: vec![], total: 0 };
        assert!(!text(&unresolved, &[]).contains('\u{1b}'));
    }
}

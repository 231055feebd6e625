//! Long ids cut to what tells them apart.
//!
//! Tables have no room for `qrouter-1a2b3c4d-5e6f-4a1b-8c2d-000000000001`; people tell ids apart by their first eight
//! characters, as Neutron's own device names do. Works on text, because ids hide inside names and sentences.

/// Groups of a UUID, in hexadecimal digits.
const UUID_GROUPS: [usize; 5] = [8, 4, 4, 4, 12];
/// Length of a UUID, the shortest of all ids.
const UUID: usize = 36;
/// Length of a container id or another SHA-256 sum.
const DIGEST: usize = 64;
/// What Docker prints of a container id.
const DIGEST_SHOWN: usize = 12;

/// Replaces each UUID in the text by its first eight digits and `…`, and each 64-digit id by its first twelve.
pub(crate) fn ids(text: &str) -> String {
    ids_ending_in('…', text)
}

/// The same with another sign for what was left out.
pub(crate) fn ids_ending_in(sign: char, text: &str) -> String {
    if text.len() < UUID {
        return text.to_owned();
    }
    let mut short = String::with_capacity(text.len());
    let mut rest = text;
    let mut after_digit = false;
    while let Some(character) = rest.chars().next() {
        let found = if after_digit { None } else { id_at_start(rest) };
        if let Some((length, shown)) = found {
            short.push_str(&rest[..shown]);
            short.push(sign);
            rest = &rest[length..];
        } else {
            short.push(character);
            after_digit = character.is_ascii_alphanumeric();
            rest = &rest[character.len_utf8()..];
        }
    }
    short
}

/// Length of the id the text starts with, and how much of it to show.
fn id_at_start(text: &str) -> Option<(usize, usize)> {
    let (length, shown) = if let Some(length) = uuid_length(text) {
        (length, UUID_GROUPS[0])
    } else if digits(text) == DIGEST {
        (DIGEST, DIGEST_SHOWN)
    } else {
        return None;
    };
    let ends = text[length..].chars().next().is_none_or(|next| !next.is_ascii_alphanumeric());
    ends.then_some((length, shown))
}

/// Length of the UUID the text starts with.
fn uuid_length(text: &str) -> Option<usize> {
    let mut at = 0;
    for (place, group) in UUID_GROUPS.into_iter().enumerate() {
        if place > 0 {
            text[at..].starts_with('-').then_some(())?;
            at += 1;
        }
        (digits(&text[at..]) >= group).then_some(())?;
        at += group;
    }
    Some(at)
}

/// How many hexadecimal digits the text starts with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_hexdigit).count()
}

#[cfg(test)]
mod tests {
    use super::ids;

    #[test]
    fn uuid_inside_a_name_keeps_the_name() {
        assert_eq!(ids("qrouter-1a2b3c4d-5e6f-4a1b-8c2d-000000000001"), "qrouter-1a2b3c4d…");
    }

    #[test]
    fn every_uuid_of_a_sentence_is_cut() {
        let text = "port 1a2b3c4d-5e6f-4a1b-8c2d-000000000001 of network 5c1b9d2e-5e6f-4a1b-8c2d-00000000000a, dead";
        assert_eq!(ids(text), "port 1a2b3c4d… of network 5c1b9d2e…, dead");
    }

    #[test]
    fn container_id_is_cut_as_docker_cuts_it() {
        assert_eq!(ids(&"0123456789abcdef".repeat(4)), "0123456789ab…");
    }

    #[test]
    fn what_only_looks_like_an_id_stays() {
        for text in [
            "tap1a2b3c4d-5e",
            "x1a2b3c4d-5e6f-4a1b-8c2d-000000000001",
            "1a2b3c4d-5e6f-4a1b-8c2d-0000000000012",
            "fa:16:3e:00:00:02",
            "größe-数据库",
        ] {
            assert_eq!(ids(text), text);
        }
    }
}

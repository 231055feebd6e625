//! Names beside numbers, by which numbers are found again after a restart. Flow: policy.

use netdiag_common::abi::policy::Label;

use crate::policy::types::GroupId;

/// Bytes of a label that an id may take; the last byte of those that are cut is not 0, so no id has the label of another.
const ROOM: usize = 63;
/// Bytes of a long id that are kept in front of its hash.
const KEPT: usize = 31;

/// The label of an id.
pub(super) fn label(id: &str) -> Label {
    let bytes = id.as_bytes();
    let mut label = Label::default();
    if bytes.len() <= ROOM && !bytes.contains(&0) {
        label.0[..bytes.len()].copy_from_slice(bytes);
        return label;
    }
    // The kept part must not end within a character, and what a zero follows would seem shorter than it is.
    let kept: String = id.chars().map(|c| if c == '\0' { '.' } else { c }).collect();
    let kept = &kept.as_bytes()[..kept.floor_char_boundary(KEPT)];
    label.0 = [b'~'; 64];
    label.0[..kept.len()].copy_from_slice(kept);
    label.0[64 - 32..].copy_from_slice(format!("{:032x}", hash(bytes)).as_bytes());
    label
}

/// The groups a policy's label names. Of a long row it keeps the beginning: the last one named then ends with an ellipsis, and
/// there may be more.
pub fn groups(label: &Label) -> Vec<String> {
    let whole = label.0[63] == 0;
    let kept = if whole { &label.0[..] } else { &label.0[..64 - 32] };
    let text = String::from_utf8_lossy(kept);
    let text = if whole { text.trim_end_matches('\0') } else { text.trim_end_matches('~') };
    let mut groups: Vec<String> = text
        .split(' ')
        .map(|name| name.replace("%20", " ").replace("%25", "%"))
        .filter(|name| !name.is_empty())
        .collect();
    if !whole && let Some(last) = groups.last_mut() {
        last.push('…');
    }
    groups
}

/// Ids in a row, which no other row gives.
pub(super) fn names<'a>(groups: impl IntoIterator<Item = &'a GroupId>) -> String {
    let escaped = |group: &GroupId| group.0.replace('%', "%25").replace(' ', "%20");
    groups.into_iter().map(escaped).collect::<Vec<_>>().join(" ")
}

/// FNV-1a of 128 bits. It must never change: numbers in pinned maps are found by it.
pub(super) fn hash(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::{groups, label, names};
    use crate::policy::types::GroupId;

    #[test]
    fn an_id_that_fits_is_its_own_label() {
        let label = label("6f5b4a39-2817-4605-8f4e-3d2c1b0a9f8e");
        assert_eq!(&label.0[..36], b"6f5b4a39-2817-4605-8f4e-3d2c1b0a9f8e");
        assert_eq!(label.0[36..], [0; 28]);
    }

    #[test]
    fn ids_that_do_not_fit_have_different_labels_even_if_they_begin_alike() {
        let (one, other) = ("ä".repeat(40) + "1", "ä".repeat(40) + "2");
        assert_ne!(label(&one), label(&other));
        assert!(label(&one).0.starts_with("ä".repeat(15).as_bytes()));
        assert_ne!(label(&one).0[63], 0);
    }

    #[test]
    fn rows_of_ids_that_contain_the_separator_differ() {
        let row = |ids: &[&str]| names(&ids.iter().map(|id| GroupId((*id).to_owned())).collect::<Vec<_>>());
        assert_ne!(row(&["a b"]), row(&["a", "b"]));
        assert_ne!(row(&["a%20b"]), row(&["a b"]));
        assert_ne!(row(&[""]), row(&["", ""]));
    }

    #[test]
    fn a_label_names_the_groups_it_was_made_of_as_far_as_it_has_room() {
        let row =
            |ids: &[&str]| groups(&label(&names(&ids.iter().map(|id| GroupId((*id).to_owned())).collect::<Vec<_>>())));
        assert_eq!(row(&["web", "d b", "100%"]), ["web", "d b", "100%"]);
        assert_eq!(row(&[]), [""; 0]);
        let uuid = "6f5b4a39-2817-4605-8f4e-3d2c1b0a9f8e";
        assert_eq!(row(&[uuid]), [uuid]);
        assert_eq!(row(&["web", uuid, uuid]), ["web", "6f5b4a39-2817-4605-8f4e-3d2…"]);
    }

    #[test]
    fn an_id_with_a_zero_byte_has_not_the_label_of_one_without() {
        assert_ne!(label("a\0"), label("a"));
        assert!(!label("a\0").0.contains(&0));
    }
}

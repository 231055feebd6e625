//! Instants in words.

use jiff::Timestamp;

/// An instant as RFC 3339 in UTC; none where the number is no instant of the years the calendar covers.
pub(crate) fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Timestamp::from_second(seconds).ok().map(|instant| instant.to_string())
}

/// An instant for a reader: `2026-11-20 16:30:39 UTC`.
pub(crate) fn words(seconds: u64) -> String {
    match rfc3339(seconds) {
        Some(text) => text.replace('T', " ").replace('Z', " UTC"),
        None => "unknown time".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{rfc3339, words};

    #[test]
    fn instant_is_given_in_utc() {
        assert_eq!(words(1_793_204_439), "2026-10-28 16:20:39 UTC");
    }

    #[test]
    fn number_beyond_the_calendar_is_unknown() {
        assert_eq!(rfc3339(u64::MAX), None);
        assert_eq!(words(u64::MAX), "unknown time");
    }
}

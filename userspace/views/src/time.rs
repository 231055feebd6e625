//! Instants in words.

use jiff::Timestamp;

/// An instant as RFC 3339 in UTC; none where the number is no instant of the years the calendar covers.
pub(crate) fn rfc3339(seconds: u64) -> Option<String> {
    let seconds = i64::try_from(seconds).ok()?;
    Timestamp::from_second(seconds).ok().map(|instant| instant.to_string())
}

/// An instant in nanoseconds since 1970 as RFC 3339 in UTC, to the nanosecond.
pub(crate) fn rfc3339_exact(nanoseconds: u64) -> Option<String> {
    Timestamp::from_nanosecond(nanoseconds.into()).ok().map(|instant| format!("{instant:.9}"))
}

/// The time of day for a reader of a stream: `16:20:39.123Z`.
pub(crate) fn of_day(nanoseconds: u64) -> String {
    let instant = Timestamp::from_nanosecond(nanoseconds.into()).ok().map(|instant| format!("{instant:.3}"));
    let time = instant.and_then(|text| Some(text.split_once('T')?.1.to_owned()));
    time.unwrap_or_else(|| "unknown time".to_owned())
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
    use super::{of_day, rfc3339, rfc3339_exact, words};

    #[test]
    fn an_event_has_its_time_to_the_nanosecond_and_a_reader_to_the_millisecond() {
        assert_eq!(rfc3339_exact(1_793_204_439_120_000_007).as_deref(), Some("2026-10-28T16:20:39.120000007Z"));
        assert_eq!(of_day(1_793_204_439_120_000_007), "16:20:39.120Z");
    }

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

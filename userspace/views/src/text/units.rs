//! Numbers in compact units, as an eye compares them: `987`, `12.3k`, `4.5 MB`.

use netdiag_model::netfilter::RuleCounters;

/// Prefixes of the powers of a thousand.
const PREFIXES: [&str; 7] = ["", "k", "M", "G", "T", "P", "E"];

/// A count of things: exact below a thousand, three digits above.
pub(crate) fn count(number: u64) -> String {
    let (digits, prefix) = scale(number);
    format!("{digits}{prefix}")
}

/// Things and how many they are: `1 port`, `2 ports`.
pub(crate) fn things(number: usize, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {thing}{plural}")
}

/// A count of bytes, in decimal units as `ip -s -h` prints them.
pub(crate) fn bytes(number: u64) -> String {
    let (digits, prefix) = scale(number);
    format!("{digits} {prefix}B")
}

/// Packets and bytes.
pub(crate) fn traffic(packets: u64, octets: u64) -> String {
    let unit = if packets == 1 { "pkt" } else { "pkts" };
    format!("{} {unit} {}", count(packets), bytes(octets))
}

/// What a rule has counted.
pub(crate) fn counted(counters: RuleCounters) -> String {
    traffic(counters.packets, counters.bytes)
}

/// A span of time in its largest whole unit, at most four columns: `59s`, `12m`, `3h`, `9d`.
pub(crate) fn duration(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..60 => (seconds, 's'),
        60..3600 => (seconds / 60, 'm'),
        3600..86_400 => (seconds / 3600, 'h'),
        _ => (seconds / 86_400, 'd'),
    };
    format!("{number}{unit}")
}

/// Three significant digits and the prefix of their power of a thousand.
fn scale(number: u64) -> (String, &'static str) {
    let mut unit = 1;
    for prefix in PREFIXES {
        let whole = number / unit;
        if whole < 1000 {
            let tenth = if unit == 1 { 0 } else { number % unit / (unit / 10) };
            let exact = unit == 1 || whole >= 100;
            return (if exact { whole.to_string() } else { format!("{whole}.{tenth}") }, prefix);
        }
        unit *= 1000;
    }
    (number.to_string(), "")
}

#[cfg(test)]
mod tests {
    use super::{bytes, count, duration, things, traffic};

    #[test]
    fn a_span_of_time_is_rounded_down_to_its_unit() {
        let shown: Vec<String> = [0, 59, 60, 3599, 3600, 86_399, 86_400, 999 * 86_400].map(duration).into();
        assert_eq!(shown, ["0s", "59s", "1m", "59m", "1h", "23h", "1d", "999d"]);
    }

    #[test]
    fn counts_keep_three_digits() {
        let shown: Vec<String> = [0, 999, 1000, 1234, 99_999, 123_456, 1_000_000, u64::MAX].map(count).into();
        assert_eq!(shown, ["0", "999", "1.0k", "1.2k", "99.9k", "123k", "1.0M", "18.4E"]);
    }

    #[test]
    fn bytes_carry_their_unit() {
        assert_eq!([0, 84, 1008].map(bytes), ["0 B", "84 B", "1.0 kB"]);
    }

    #[test]
    fn one_thing_is_singular() {
        assert_eq!([0, 1, 2].map(|number| things(number, "port")), ["0 ports", "1 port", "2 ports"]);
    }

    #[test]
    fn one_packet_is_singular() {
        assert_eq!(traffic(1, 84), "1 pkt 84 B");
    }
}

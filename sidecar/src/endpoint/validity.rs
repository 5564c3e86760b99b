//! The validity that a token is asked for with: a duration as Go writes one (`time.ParseDuration`), such as `10m`, `1h30m` or `1.5h`. Pure.

/// The longest text of a duration, in bytes.
const LONGEST: usize = 20;
/// The units, the longer ones before those that they begin with, and their nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];
const SECOND: u128 = 1_000_000_000;

/// The whole seconds of a duration; `None` if the text is none, has a sign, or is more than Go can state.
pub(super) fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() || text.len() > LONGEST {
        return None;
    }
    let mut rest = text;
    let mut nanoseconds = 0_u128;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        let (unit, factor) = UNITS.into_iter().find(|(unit, _)| after.starts_with(unit))?;
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        // At most 20 digits in all, and an hour has 13: a u128 has room for 38.
        let parsed = |digits: &str| {
            if digits.is_empty() {
                Some(0)
            } else {
                digits.parse::<u128>().ok()
            }
        };
        let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
        nanoseconds += parsed(whole)? * factor + parsed(fraction)? * factor / scale;
        rest = after.strip_prefix(unit)?;
    }
    // Go keeps nanoseconds in 63 bits: 292 years.
    i64::try_from(nanoseconds).ok()?;
    u64::try_from(nanoseconds / SECOND).ok()
}

/// The digits at the beginning, and what follows.
fn digits(text: &str) -> (&str, &str) {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_reads_them() {
        for (text, expected) in [
            ("1h", 3600),
            ("10m", 600),
            ("90s", 90),
            ("1h30m", 5400),
            ("1.5h", 5400),
            (".5h", 1800),
            ("1.h", 3600),
            ("1h0m0s", 3600),
            ("0s", 0),
            ("900000ms", 900),
            ("999999999µs", 999),
            ("1m1m", 120),
            ("2562047h", 9_223_369_200),
        ] {
            assert_eq!(seconds(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "1",
            "h",
            "-1h",
            "+1h",
            " 1h",
            "1h ",
            "1 h",
            "1H",
            "1d",
            ".h",
            "1..5h",
            "1e3s",
            "１h",
            "1h-1m",
            "2562048h",
            "9999999999999999999h",
            "00000000000000000000h",
        ] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9.hmsnuµ-]{0,24}|.{0,24}") {
            let _ = seconds(&text);
        }
    }
}

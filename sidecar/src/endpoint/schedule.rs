//! The time at which credentials are renewed. Pure: the time and the random number are arguments.

use jiff::{SignedDuration, Timestamp};

use crate::clock::later;

/// The time that is left at the latest regular renewal. SDKs ask on each use once less than 15 minutes are left (botocore), and four
/// more than twenty are for an STS that doesn't answer at once.
const LEFT: SignedDuration = SignedDuration::from_mins(24);
/// From which part of the time before it a renewal may come, so that pods that started together don't ask together.
const EARLIEST: f64 = 2.0 / 3.0;
/// The shortest wait, whatever an answer says.
const SHORTEST: SignedDuration = SignedDuration::from_secs(10);

/// The time at which credentials that came at `now` are renewed. `draw`, from 0 to 1, chooses within the spread.
///
/// Of an hour 24 to 36 minutes are left then, of twelve hours 24 minutes to 4 hours 16; of a session that is shorter than 48
/// minutes half of it or more.
pub(crate) fn renewal(now: Timestamp, expires_at: Timestamp, draw: f64) -> Timestamp {
    let life = expires_at.duration_since(now).max(SignedDuration::ZERO);
    let latest = life - LEFT.min(life / 2);
    let wait = latest.mul_f64(EARLIEST + (1.0 - EARLIEST) * draw.clamp(0.0, 1.0));
    later(now, wait.max(SHORTEST))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn credentials_of_an_hour_are_renewed_when_24_to_36_minutes_are_left() {
        assert_eq!(renewal(at(0), at(3600), 0.0), at(24 * 60));
        assert_eq!(renewal(at(0), at(3600), 1.0), at(36 * 60));
        assert_eq!(renewal(at(0), at(43_200), 1.0), at(43_200 - 24 * 60));
        assert_eq!(renewal(at(0), at(900), 1.0), at(450));
        assert_eq!(
            renewal(at(100), at(0), 1.0),
            at(110),
            "what has ended is not asked for all the time"
        );
    }

    /// A thousand pods whose credentials all came in the same second, for six hours: the calls in each ten seconds.
    #[test]
    fn a_thousand_pods_that_start_together_do_not_ask_together_again() {
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut draw = || {
            // xorshift64: any sequence without a pattern will do.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as f64 / u64::MAX as f64
        };
        let mut calls = vec![0_u32; 6 * 360];
        for _ in 0..1000 {
            let mut now = at(0);
            while now < at(6 * 3600) {
                calls[usize::try_from(now.as_second() / 10).unwrap()] += 1;
                now = renewal(now, now + SignedDuration::from_hours(1), draw());
            }
        }
        assert_eq!(calls[0], 1000, "they start together");
        let most = calls[1..].iter().max().unwrap();
        assert!(
            *most <= 32,
            "{most} calls in ten seconds, and evenly spread they would be 14"
        );
        let hours = 6.0 * 1000.0;
        let in_an_hour = f64::from(calls.iter().sum::<u32>()) / hours;
        assert!(
            (1.6..=2.3).contains(&in_an_hour),
            "{in_an_hour} calls for a pod in an hour"
        );
    }

    proptest! {
        #[test]
        fn of_an_hour_or_more_twenty_minutes_are_left_at_every_renewal(life in 3600..43_200_i64, draw in 0.0..=1.0) {
            let left = at(life).duration_since(renewal(at(0), at(life), draw));
            prop_assert!(left >= SignedDuration::from_mins(20), "{left}");
        }

        #[test]
        fn no_time_makes_it_panic(now in -62_135_596_800..253_402_207_200_i64, end in -62_135_596_800..253_402_207_200_i64, draw in 0.0..=1.0) {
            let _ = renewal(at(now), at(end), draw);
        }
    }
}

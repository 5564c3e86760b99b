//! The time of the next request to AWS for a token for a third party. Pure: the time and the random number are arguments.
//!
//! A token never outlasts the session that asks for it, so one that ends with its session is renewed with the next session and not before:
//! the same session gives none that lasts longer.

use jiff::{SignedDuration, Timestamp};
use tokenscope_aws::GetWebIdentityToken;

use super::schedule::renewal;

/// By so much a token has to outlast the one that is there to be worth a call.
const GAIN: SignedDuration = SignedDuration::from_secs(10);

/// The time of the next question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// This one.
    At(Timestamp),
    /// This one, or that of another session, whichever comes first.
    AtOrWithNextSession(Timestamp),
    /// That of another session.
    WithNextSession,
}

/// The seconds to ask for at `now`, by a session that ends at `session_ends`; `None` where it gives no token that outlasts the one that
/// is there until `held`.
pub(super) fn lifetime(wanted: u32, session_ends: Timestamp, held: Option<Timestamp>, now: Timestamp) -> Option<u32> {
    let seconds = GetWebIdentityToken::lifetime(wanted, session_ends, now)?;
    let end = now.checked_add(SignedDuration::from_secs(i64::from(seconds))).ok()?;
    let is_better = held.is_none_or(|held| end.duration_since(held) > GAIN);
    is_better.then_some(seconds)
}

/// The margin between the ends of a token and of its session after AWS has found the last one too small, which it does where the clock of the
/// node is slow: half a minute, and then twice as much each time, up to five minutes.
pub(super) fn wider(margin: SignedDuration) -> SignedDuration {
    let (least, most) = (SignedDuration::from_secs(30), SignedDuration::from_mins(5));
    margin.saturating_add(margin).clamp(least, most)
}

/// The next question after a token that came at `now` and is valid until `end`. `draw`, from 0 to 1, chooses within the spread.
pub(super) fn next(now: Timestamp, end: Timestamp, session_ends: Timestamp, draw: f64) -> Due {
    if session_ends.duration_since(end) <= GAIN {
        return Due::WithNextSession;
    }
    Due::At(renewal(now, end, draw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_as_long_as_its_session_is_renewed_with_the_next_session_and_a_shorter_one_before_its_end() {
        assert_eq!(lifetime(3600, at(3600), None, at(0)), Some(3595));
        assert_eq!(next(at(0), at(3595), at(3600), 1.0), Due::WithNextSession);
        assert_eq!(lifetime(900, at(3600), None, at(0)), Some(900));
        assert_eq!(next(at(0), at(900), at(3600), 1.0), Due::At(at(450)));
        // Near the session's end it gives one that ends with it, and then no more.
        assert_eq!(lifetime(900, at(3600), Some(at(3100)), at(2900)), Some(695));
        assert_eq!(lifetime(900, at(3600), Some(at(3595)), at(2900)), None);
        assert_eq!(
            lifetime(900, at(3600), None, at(3550)),
            None,
            "AWS gives none for less than a minute"
        );
    }

    #[test]
    fn where_the_clock_is_slow_the_margin_grows_up_to_five_minutes() {
        let mut margin = SignedDuration::ZERO;
        let grown: Vec<i64> = std::iter::repeat_with(|| {
            margin = wider(margin);
            margin.as_secs()
        })
        .take(6)
        .collect();
        assert_eq!(grown, [30, 60, 120, 240, 300, 300]);
    }

    proptest! {
        #[test]
        fn what_is_asked_for_never_outlasts_the_session_and_is_what_aws_takes(
            wanted in 60..3601_u32, ends in 0..43_200_i64, held in proptest::option::of(0..43_200_i64), now in 0..43_200_i64,
        ) {
            if let Some(seconds) = lifetime(wanted, at(ends), held.map(at), at(now)) {
                prop_assert!((60..=wanted).contains(&seconds));
                prop_assert!(now + i64::from(seconds) < ends);
                prop_assert!(held.is_none_or(|held| now + i64::from(seconds) > held));
            }
        }

        #[test]
        fn no_time_makes_it_panic(now in -62_135_596_800..253_402_207_200_i64, end in -62_135_596_800..253_402_207_200_i64, draw in 0.0..=1.0) {
            let _ = next(at(now), at(end), at(now), draw);
            let _ = lifetime(3600, at(end), Some(at(now)), at(now));
        }
    }
}

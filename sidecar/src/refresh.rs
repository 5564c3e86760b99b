//! The time of the next request for a token.
//!
//! SPIRE's agent answers from its cache until half of a token's life, give or take a tenth of that half, is over. A client that asks at
//! half of the life gets the same token back every second time; from 55 % on it is a new one.

use jiff::{SignedDuration, Timestamp};

use crate::clock::later;
use crate::token::Token;

/// From which part of a token's life on a new one is asked for.
const REFRESH_FROM: f64 = 0.55;
/// The further part over which the asking is spread, so that pods that started together don't ask together.
const REFRESH_SPREAD: f64 = 0.10;
/// The longest wait, whatever a token says: AWS takes none that is older than a day.
const LONGEST: SignedDuration = SignedDuration::from_hours(12);
/// The shortest wait, whatever a token says.
const SHORTEST: SignedDuration = SignedDuration::from_millis(250);
/// The bounds of the wait after an answer that brought nothing new.
const AGAIN: (SignedDuration, SignedDuration) = (SignedDuration::from_secs(1), SignedDuration::from_secs(30));

/// A token that is in its file, and when it should be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedToken {
    /// The token.
    pub token: Token,
    /// The time from which a new one is wanted.
    pub due: Timestamp,
}

impl CachedToken {
    /// Takes a token that came at `now`. `draw`, from 0 to 1, chooses within the spread.
    ///
    /// The answer may come from the agent's cache, so the token's own `iat` counts, and not when it came. One without `iat`
    /// is taken as new. One that is issued in the future (the clock was set back, or is behind the server's) counts from now:
    /// its whole life is known, and is not waited for longer than that.
    pub fn new(token: Token, now: Timestamp, draw: f64) -> Self {
        let issued_at = token.issued_at.unwrap_or(now);
        let life = token.expires_at.duration_since(issued_at).max(SignedDuration::ZERO);
        let wait = life.mul_f64(REFRESH_FROM + REFRESH_SPREAD * draw.clamp(0.0, 1.0));
        let due = later(issued_at.min(now), wait);
        Self { token, due }
    }

    /// Takes an answer in place of this: the same token again changes nothing, so the time to replace it stays.
    pub fn answered(self, token: Token, now: Timestamp, draw: f64) -> Self {
        if token == self.token {
            return self;
        }
        Self::new(token, now, draw)
    }

    /// The time of the next question, after an answer at `now`.
    ///
    /// A token that should have been replaced by that answer, and was not, is asked for again soon, but not so often that the
    /// agent suffers: each question makes it attest the pod. So is one whose key was `withdrawn`.
    pub fn next(&self, now: Timestamp, withdrawn: bool) -> Timestamp {
        if self.due > now && !withdrawn {
            return self.due.clamp(later(now, SHORTEST), later(now, LONGEST));
        }
        let left = self.token.expires_at.duration_since(now);
        later(now, (left / 4).clamp(AGAIN.0, AGAIN.1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::token::tests::{token, token_with};

    const NOW: i64 = 1_700_000_000;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn without_iat(expires_at: i64) -> Token {
        let claims = json!({"iss": "https://a", "sub": "spiffe://a/b", "aud": ["x"], "exp": expires_at});
        Token::parse(&token_with(&json!({"alg": "ES256"}), &claims)).unwrap()
    }

    #[test]
    fn a_new_token_is_replaced_between_55_and_65_percent_of_its_life() {
        let of = |draw| CachedToken::new(token("k", NOW, NOW + 300), at(NOW), draw).next(at(NOW), false);

        assert_eq!(of(0.0), at(NOW + 165));
        assert_eq!(of(1.0), at(NOW + 195));
    }

    #[test]
    fn the_cached_token_that_comes_first_counts_from_when_it_was_issued() {
        let held = CachedToken::new(token("k", NOW - 140, NOW + 160), at(NOW), 0.0);

        assert_eq!(held.next(at(NOW), false), at(NOW + 25));
    }

    #[test]
    fn a_token_without_iat_counts_from_when_it_came() {
        let held = CachedToken::new(without_iat(NOW + 200), at(NOW), 0.0);

        assert_eq!(held.next(at(NOW), false), at(NOW + 110));
        let same = held.answered(without_iat(NOW + 200), at(NOW + 60), 0.0);
        assert_eq!(same.due, at(NOW + 110), "the same one again is no newer");
    }

    #[test]
    fn the_same_token_again_is_asked_for_soon_but_not_at_once() {
        let held = CachedToken::new(token("k", NOW, NOW + 300), at(NOW), 0.0);
        let same = held.answered(token("k", NOW, NOW + 300), at(NOW + 170), 0.9);

        assert_eq!(same.next(at(NOW + 170), false), at(NOW + 200), "half a minute at most");
        assert_eq!(
            same.next(at(NOW + 260), false),
            at(NOW + 270),
            "a quarter of what is left"
        );
        assert_eq!(same.next(at(NOW + 299), false), at(NOW + 300), "a second at least");
        assert_eq!(same.next(at(NOW + 900), false), at(NOW + 901), "after its end, too");
    }

    #[test]
    fn a_token_whose_key_was_withdrawn_is_not_waited_for() {
        let held = CachedToken::new(token("k", NOW, NOW + 300), at(NOW), 0.0);

        assert_eq!(held.next(at(NOW), true), at(NOW + 30));
    }

    #[test]
    fn with_the_clock_set_back_no_wait_is_longer_than_without() {
        let hour_behind = at(NOW - 3600);
        let held = CachedToken::new(token("k", NOW, NOW + 300), hour_behind, 0.0);

        assert_eq!(held.next(hour_behind, false), at(NOW - 3600 + 165));
    }

    #[test]
    fn with_the_clock_set_forward_the_token_is_due() {
        let held = CachedToken::new(token("k", NOW, NOW + 300), at(NOW), 0.0);

        assert_eq!(held.next(at(NOW + 200), false), at(NOW + 225));
    }

    #[test]
    fn a_token_for_a_century_is_replaced_in_half_a_day() {
        let held = CachedToken::new(token("k", NOW, NOW + 3_000_000_000), at(NOW), 0.5);

        assert_eq!(held.next(at(NOW), false), at(NOW + 43_200));
    }

    proptest! {
        #[test]
        fn the_next_question_is_soon_enough_and_never_at_once(
            issued in -100_000..100_000_i64, life in 1..200_000_i64, now in -100_000..300_000_i64, draw in 0.0..1.0, withdrawn: bool,
        ) {
            let held = CachedToken::new(token("k", NOW + issued, NOW + issued + life), at(NOW + now), draw);
            let wait = held.next(at(NOW + now), withdrawn).duration_since(at(NOW + now));

            prop_assert!(wait >= SHORTEST, "{wait}");
            prop_assert!(wait <= LONGEST, "{wait}");
            let left = SignedDuration::from_secs(issued + life - now);
            if left > SignedDuration::from_secs(2) {
                prop_assert!(wait < left, "{wait} of {left}");
                // One that was withdrawn is asked for within half a minute, also where it lives for seconds only and is issued in the future.
                prop_assert!(withdrawn || wait < SignedDuration::from_secs(life), "{wait}");
            }
        }

        #[test]
        fn no_time_makes_it_panic(issued in -62_135_596_800..253_402_207_200_i64, expires in -62_135_596_800..253_402_207_200_i64, now in -62_135_596_800..253_402_207_200_i64, draw in 0.0..=1.0) {
            let held = CachedToken::new(token("k", issued, expires), at(now), draw);
            let _ = held.next(at(now), false);
        }
    }
}

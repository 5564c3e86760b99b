//! The wait after a failure.

use std::time::Duration;

use jiff::SignedDuration;

/// The bound of the first wait; that of each further one is twice as long.
const FIRST: Duration = Duration::from_millis(250);
/// The bound of the first wait after an answer of a server that has too much to do. A thousand clients that it sent away together would
/// ask it nearly three times more each within the first second with [`FIRST`], and ask half a time more with this.
const FIRST_BUSY: Duration = Duration::from_secs(2);
/// The shortest wait.
const SHORTEST: Duration = Duration::from_millis(50);
/// The bound while there is no token that is valid: a workload waits for it.
const CAP_WITHOUT_TOKEN: Duration = Duration::from_secs(10);
/// The bound while there is one.
const CAP_WITH_TOKEN: Duration = Duration::from_secs(30);
/// The shortest wait after an answer that the same question will always get, and how much is added at most.
const REJECTED: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(30));

/// The longest wait that is granted to whoever asks for one.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

/// The kind of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asking again may help: the agent restarts, the entry isn't there yet, the disk is full just now.
    Passing,
    /// The same, of a server that answers: it has too much to do, or fails just now. Whoever asks again at once makes it worse.
    Busy,
    /// Asking again can't help, unless somebody changes something elsewhere: the question itself is wrong, or a policy says no.
    Rejected,
}

/// The wait after the `failures`-th failure in a row, counted from 1.
///
/// `left` is how long the token in the file is still valid, if it is. `draw`, from 0 to 1, chooses between nothing and the
/// bound ("full jitter"), so that pods which failed together don't ask together.
pub fn wait(kind: Kind, failures: u32, left: Option<SignedDuration>, draw: f64) -> Duration {
    let draw = draw.clamp(0.0, 1.0);
    if kind == Kind::Rejected {
        return REJECTED.0 + REJECTED.1.mul_f64(draw);
    }
    let left = left.and_then(|left| Duration::try_from(left).ok());
    let cap = if left.is_some() {
        CAP_WITH_TOKEN
    } else {
        CAP_WITHOUT_TOKEN
    };
    let doublings = failures.saturating_sub(1).min(10);
    let first = if kind == Kind::Busy { FIRST_BUSY } else { FIRST };
    let bound = (first * 2_u32.pow(doublings)).min(cap);
    let wait = bound.mul_f64(draw);
    // A try should be left before the token ends.
    let wait = left.map_or(wait, |left| wait.min(left / 2));
    wait.max(SHORTEST)
}

/// A wait that was [chosen](wait), and before it the one that was asked for (`Retry-After`): who was sent away together does not
/// come back together.
pub fn after(asked: Option<Duration>, chosen: Duration) -> Duration {
    asked.unwrap_or_default().min(LONGEST_ASKED) + chosen
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_bound_doubles_up_to_ten_seconds_without_a_token_and_thirty_with_one() {
        let longest = |failures, left| wait(Kind::Passing, failures, left, 1.0);
        let hour = Some(SignedDuration::from_hours(1));

        assert_eq!(longest(1, None), Duration::from_millis(250));
        assert_eq!(longest(2, None), Duration::from_millis(500));
        assert_eq!(longest(6, None), Duration::from_secs(8));
        assert_eq!(longest(7, None), Duration::from_secs(10));
        assert_eq!(longest(u32::MAX, None), Duration::from_secs(10));
        assert_eq!(longest(7, hour), Duration::from_secs(16));
        assert_eq!(longest(8, hour), Duration::from_secs(30));
    }

    #[test]
    fn a_server_that_has_too_much_to_do_is_left_alone_for_longer_at_first() {
        let longest = |failures| wait(Kind::Busy, failures, None, 1.0);

        assert_eq!(longest(1), Duration::from_secs(2));
        assert_eq!(longest(2), Duration::from_secs(4));
        assert_eq!(longest(4), Duration::from_secs(10));
        assert_eq!(longest(u32::MAX), Duration::from_secs(10));
    }

    #[test]
    fn a_try_is_left_before_the_token_ends() {
        let left = Some(SignedDuration::from_secs(8));

        assert_eq!(wait(Kind::Passing, 20, left, 1.0), Duration::from_secs(4));
    }

    #[test]
    fn a_question_that_is_wrong_is_not_asked_again_soon() {
        for failures in [1, 100] {
            assert!(wait(Kind::Rejected, failures, None, 0.0) >= Duration::from_secs(60));
        }
    }

    #[test]
    fn what_is_asked_for_is_waited_for_within_bounds() {
        let chosen = Duration::from_millis(300);

        assert_eq!(after(None, chosen), chosen);
        assert_eq!(after(Some(Duration::from_secs(7)), chosen), Duration::from_millis(7300));
        assert_eq!(
            after(Some(Duration::from_secs(86_400)), chosen),
            Duration::from_millis(60_300)
        );
    }

    proptest! {
        #[test]
        fn no_wait_is_too_long_or_none(busy: bool, failures: u32, left in -1000..100_000_i64, draw in 0.0..=1.0) {
            let kind = if busy { Kind::Busy } else { Kind::Passing };
            let waited = wait(kind, failures, Some(SignedDuration::from_secs(left)), draw);

            prop_assert!(waited >= SHORTEST && waited <= CAP_WITH_TOKEN);
            if left > 0 {
                prop_assert!(waited < Duration::from_secs(left as u64));
            }
        }
    }
}

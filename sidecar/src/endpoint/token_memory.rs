//! The tokens that were given, and the number of further ones that may be asked for. Pure: times are arguments.
//!
//! Whoever is in the pod may ask, and the issuer gives a pod 60 tokens at once and 2 a second, so what is asked of it here leaves room for the
//! tokens that the sidecar itself keeps.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokenscope_core::{Audience, TokenExpiration};

use super::token_request::{TokenCaller, TokenRequest};
use crate::token::Token;

/// The time that a token is given again to whoever asks for the same. As long as the issuer's word on a grant counts elsewhere.
const AGAIN: Duration = Duration::from_secs(60);
/// The time that a failure is answered from memory.
const FAILED: Duration = Duration::from_secs(5);
/// The most tokens that are remembered.
const MOST: usize = 32;
/// The tokens that one caller may have at once, and the time in which it gets one more.
const OF_CALLER: (f64, Duration) = (6.0, Duration::from_secs(10));
/// The same of all callers together.
const OF_ALL: (f64, Duration) = (30.0, Duration::from_secs(1));

/// The memory.
pub(super) struct TokenMemory {
    given: VecDeque<Given>,
    failure: Option<Failure>,
    all: Pace,
    /// One for each container, and the last for whoever doesn't say who it is.
    callers: Vec<Pace>,
}

/// A token that was given. No `Debug`: it is a secret.
struct Given {
    audience: Audience,
    lifetime: TokenExpiration,
    token: Token,
    at: Instant,
}

/// The reason why a token could not be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotGiven {
    /// True if the issuer has looked at the request and refuses it.
    pub(super) is_refused: bool,
    pub(super) message: Box<str>,
}

struct Failure {
    /// The audience, where the failure is about it alone.
    audience: Option<Audience>,
    why: NotGiven,
    at: Instant,
}

impl TokenMemory {
    /// Nothing is known yet of a pod with so many containers.
    pub(super) fn new(containers: usize, now: Instant) -> Self {
        Self {
            given: VecDeque::new(),
            failure: None,
            all: Pace::new(OF_ALL, now),
            callers: (0..=containers).map(|_| Pace::new(OF_CALLER, now)).collect(),
        }
    }

    /// The answer that needs no request to the issuer: a token, or the reason why there is none.
    pub(super) fn known(
        &self,
        request: &TokenRequest,
        now: Instant,
        today: Timestamp,
    ) -> Option<Result<&Token, NotGiven>> {
        let is_young = |at: Instant, most| now.saturating_duration_since(at) < most;
        let fits = |given: &&Given| {
            given.audience == request.audience
                && given.lifetime == request.lifetime
                && is_young(given.at, AGAIN)
                && given.token.expires_at > today
        };
        if let Some(given) = self.given.iter().find(fits) {
            return Some(Ok(&given.token));
        }
        let failure = self.failure.as_ref().filter(|failure| {
            let is_about = failure
                .audience
                .as_ref()
                .is_none_or(|audience| *audience == request.audience);
            is_about && is_young(failure.at, FAILED)
        })?;
        Some(Err(failure.why.clone()))
    }

    /// True if the issuer may be asked for one more, which is counted.
    pub(super) fn may_ask(&mut self, caller: TokenCaller, now: Instant) -> bool {
        let last = self.callers.len().saturating_sub(1);
        let place = match caller {
            TokenCaller::Container(place) => place.min(last),
            TokenCaller::Anybody => last,
        };
        let Some(own) = self.callers.get_mut(place) else {
            return false;
        };
        own.has_one(now) && self.all.has_one(now) && {
            own.tokens -= 1.0;
            self.all.tokens -= 1.0;
            true
        }
    }

    /// A token was given.
    pub(super) fn remember(&mut self, request: &TokenRequest, token: Token, now: Instant) {
        self.given.retain(|given| {
            let is_same = given.audience == request.audience && given.lifetime == request.lifetime;
            !is_same && now.saturating_duration_since(given.at) < AGAIN
        });
        if self.given.len() >= MOST {
            self.given.pop_front();
        }
        self.failure = None;
        self.given.push_back(Given {
            audience: request.audience.clone(),
            lifetime: request.lifetime,
            token,
            at: now,
        });
    }

    /// None could be given.
    pub(super) fn failed(&mut self, request: &TokenRequest, why: NotGiven, now: Instant) {
        let audience = why.is_refused.then(|| request.audience.clone());
        if why.is_refused {
            // What was granted a moment ago isn't any more.
            self.given.retain(|given| given.audience != request.audience);
        }
        self.failure = Some(Failure { audience, why, at: now });
    }
}

/// A bucket that fills by one in a time.
struct Pace {
    most: f64,
    time: Duration,
    tokens: f64,
    at: Instant,
}

impl Pace {
    fn new((most, time): (f64, Duration), now: Instant) -> Self {
        Self {
            most,
            time,
            tokens: most,
            at: now,
        }
    }

    fn has_one(&mut self, now: Instant) -> bool {
        let more = now.saturating_duration_since(self.at).as_secs_f64() / self.time.as_secs_f64();
        self.tokens = (self.tokens + more).min(self.most);
        self.at = now.max(self.at);
        self.tokens >= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::token;

    fn request(audience: &str, seconds: i64) -> TokenRequest {
        TokenRequest {
            caller: TokenCaller::Anybody,
            audience: audience.parse().unwrap(),
            lifetime: TokenExpiration::from_seconds(seconds).unwrap(),
        }
    }

    fn today(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_token_is_given_again_for_a_minute_to_whoever_asks_for_the_same() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut memory = TokenMemory::new(1, start);
        let asked = request("a", 600);
        assert!(memory.known(&asked, start, today(0)).is_none());
        memory.remember(&asked, token("k", 0, 600), start);
        assert!(
            memory
                .known(&asked, at(59), today(59))
                .is_some_and(|known| known.is_ok())
        );
        assert!(memory.known(&asked, at(60), today(60)).is_none());
        assert!(
            memory.known(&asked, at(1), today(600)).is_none(),
            "the clock says that it has ended"
        );
        assert!(memory.known(&request("b", 600), start, today(0)).is_none());
        assert!(memory.known(&request("a", 601), start, today(0)).is_none());
        for seconds in 600..700 {
            memory.remember(&request("a", seconds), token("k", 0, 600), start);
        }
        assert_eq!(memory.given.len(), MOST);
    }

    #[test]
    fn a_failure_is_answered_from_memory_for_seconds_and_a_refusal_for_its_audience_alone() {
        let start = Instant::now();
        let mut memory = TokenMemory::new(1, start);
        let why = |is_refused| NotGiven {
            is_refused,
            message: "no".into(),
        };
        memory.remember(&request("a", 600), token("k", 0, 600), start);
        memory.failed(&request("a", 900), why(true), start);
        for seconds in [600, 900] {
            assert!(memory.known(&request("a", seconds), start, today(0)) == Some(Err(why(true))));
        }
        assert!(memory.known(&request("b", 600), start, today(0)).is_none());
        memory.failed(&request("a", 600), why(false), start);
        assert!(memory.known(&request("b", 600), start, today(0)) == Some(Err(why(false))));
        assert!(memory.known(&request("b", 600), start + FAILED, today(0)).is_none());
    }

    #[test]
    fn each_caller_has_its_pace_and_all_together_have_half_of_the_pods() {
        let start = Instant::now();
        let mut memory = TokenMemory::new(300, start);
        let mut asked = |caller, now| (0..100).filter(|_| memory.may_ask(caller, now)).count();
        assert_eq!(asked(TokenCaller::Anybody, start), 6);
        assert_eq!(asked(TokenCaller::Container(0), start), 6, "others are not touched");
        assert_eq!(
            (1..300)
                .map(|place| asked(TokenCaller::Container(place), start))
                .sum::<usize>(),
            18
        );
        let later = start + Duration::from_secs(20);
        assert_eq!(asked(TokenCaller::Anybody, later), 2);
    }
}

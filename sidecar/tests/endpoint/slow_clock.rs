//! The clock of the node is behind that of AWS.

use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokenscope_sidecar::clock::{Clock, Woken};

use super::account::{Account, NEAR};
use super::faulty_sts::{Fault, FaultySts};
use super::lab::Lab;
use super::outages::run_until;
use super::outbound::{claims, with_token};

/// A clock that is behind by so much. Waits for a second try, of a minute or two, are over at once and bring it no further; longer ones never end.
#[derive(Clone)]
struct Slow(SignedDuration);

impl Clock for Slow {
    fn now(&self) -> Timestamp {
        Timestamp::now() - self.0
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        if time.duration_since(self.now()) > SignedDuration::from_mins(2) {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        Woken::Due
    }
}

/// By a clock that is three minutes slow the session lasts three minutes longer than by that of AWS, which signs no token that outlasts it.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_clock_is_slow_less_is_asked_for_until_aws_signs_the_token() {
    let account = Account::start().await;
    // Within the second in which the session began an hour would be just as long as the session.
    let passing = FaultySts::start(Fault::PassesSlowly(account.sts.addr())).await;
    let mut lab = Lab::new("outbound-slow", &["app"], &passing.url(), NEAR);
    let file = with_token(&mut lab, |_| ());
    lab.write_token(&account.token());
    let state = lab.path("authorization/app/.state-claude");
    let read = |file: &Path| fs::read_to_string(file).unwrap_or_default();
    // The state is written right after the token: its end, and no trouble.
    let is_there = || {
        let state = read(&state);
        !state.is_empty() && !state.starts_with('-') && state.lines().nth(1) == Some("")
    };
    let clock = Slow(SignedDuration::from_mins(3));
    run_until(&lab, &[passing.url()], clock, is_there).await;

    let token = claims(&read(&file));
    let life = token["exp"].as_i64().unwrap() - token["iat"].as_i64().unwrap();
    // The session lasts 3,780 s by this clock. Margins of 0, 30, 60 and 120 s leave more than an hour, and one of 240 s doesn't.
    assert!((3450..3540).contains(&life), "{life}");
    assert_eq!(passing.asked(), 1 + 5, "for the role, and for the token");
}

//! The waits after each kind of answer, by a clock that does not make anybody wait.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokenscope_sidecar::clock::{Clock, Woken};
use tokenscope_sidecar::run::run;

use super::lab::{Lab, PATIENCE};
use super::server::{Reply, TestIssuer, token, value};

/// Stands still but for waits: each is over at once, and has brought the clock forward.
#[derive(Clone)]
struct Hasty(Arc<Mutex<Waited>>);

struct Waited {
    now: Timestamp,
    waits: Vec<Duration>,
}

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().now
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        let wait = time.duration_since(self.now()).max(SignedDuration::ZERO);
        {
            let mut waited = self.0.lock().unwrap();
            waited.now += wait;
            waited.waits.push(wait.unsigned_abs());
        }
        // Who is not waited for any more must not be asked without end.
        tokio::time::sleep(Duration::from_millis(5)).await;
        Woken::Due
    }
}

/// Runs until the issuer was asked `count` times; gives the waits.
async fn waits(lab: &Lab, issuer: &TestIssuer, count: usize) -> Vec<Duration> {
    let clock = Hasty(Arc::new(Mutex::new(Waited {
        now: Timestamp::now(),
        waits: Vec::new(),
    })));
    let asked = async {
        while issuer.requests().len() < count {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(PATIENCE, run(lab.config(), clock.clone(), asked))
        .await
        .unwrap()
        .unwrap();
    clock.0.lock().unwrap().waits.clone()
}

#[tokio::test]
async fn a_definite_refusal_is_followed_by_a_long_wait_and_then_by_the_grant() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::refusal("invalid_grant", "there is no pod shop/orders with this UID"),
        1 => Reply::refusal("invalid_target", "no policy grants this pod a token for the audience"),
        2 => Reply::refusal("invalid_request", "expires_in should be at least 600"),
        _ => Reply::token(&token(value(form, "audience"), 86_400)),
    })
    .await;
    let lab = Lab::new("definite", &issuer);
    let waits = waits(&lab, &issuer, 5).await;

    let long = Duration::from_secs(60)..=Duration::from_secs(90);
    assert!(waits[..3].iter().all(|wait| long.contains(wait)), "{waits:?}");
    assert!(waits[3] > Duration::from_secs(12 * 3600 - 1), "{waits:?}");
    assert!(lab.token().is_some());
}

#[tokio::test]
async fn a_wait_that_is_asked_for_is_kept_within_bounds_and_all_else_is_tried_again_soon() {
    let busy = |status, wait: &str| {
        let body = serde_json::json!({"error": "temporarily_unavailable", "error_description": "try again later"});
        Reply::json(status, &format!("retry-after: {wait}\r\n"), &body)
    };
    let issuer = TestIssuer::start(move |form, before| match before {
        0 => busy(503, "7"),
        1 => busy(429, "20"),
        2 => busy(503, "86400"),
        3 => busy(503, "soon"),
        4 => busy(500, "20"),
        5 => Reply::json(404, "", &serde_json::json!({})),
        _ => Reply::token(&token(value(form, "audience"), 86_400)),
    })
    .await;
    let lab = Lab::new("busy", &issuer);
    let waits = waits(&lab, &issuer, 7).await;

    let seconds = |from, to| Duration::from_secs(from)..=Duration::from_secs(to);
    // What is added of our own is at most 250 ms, and twice as much each time.
    for (wait, expected) in waits.iter().zip([
        seconds(7, 8),
        seconds(20, 21),
        seconds(60, 61),
        seconds(0, 2),
        seconds(0, 4),
        seconds(0, 8),
    ]) {
        assert!(expected.contains(wait), "{expected:?} of {waits:?}");
    }
}

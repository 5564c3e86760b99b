//! What the agent answers: which tokens are used, and when the next one is asked for.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use jiff::{SignedDuration, Timestamp};
use tokenscope_e2e::eventually;
use tokenscope_e2e::sidecar::FILE;
use tokenscope_e2e::workload_api::{Answer, fresh, svid, token};
use tokenscope_sidecar::token::Token;

use crate::{Lab, PATIENCE};

/// True for the token of an hour that follows the short ones.
fn is_next(token: &Token) -> bool {
    token.expires_at > Timestamp::now() + SignedDuration::from_mins(10)
}

#[tokio::test]
async fn the_half_spent_token_of_a_cache_is_replaced_by_its_own_times() {
    let lab = Lab::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let agent = lab.agent(move |question, before| {
        noted.lock().unwrap().push(Instant::now());
        match before {
            0 => {
                let now = Timestamp::now().as_second();
                Answer::Svids(vec![svid(
                    token("sts.amazonaws.com", "k1", Some(now - 16), now + 24),
                    "",
                )])
            }
            _ => fresh(question, 3600),
        }
    });
    let sidecar = lab.sidecar(&[]);
    sidecar
        .wait_for(PATIENCE, "there is the next one", is_next)
        .await
        .unwrap();

    // 55 to 65 % of 40 s, of which 16 are over: a little less than 6, for times have whole seconds here. A machine that stands still makes it
    // longer, and never shorter.
    let waited = {
        let asked = asked.lock().unwrap();
        asked[1] - asked[0]
    };
    assert!(waited > Duration::from_millis(4500), "{waited:?}");
    assert!(
        waited < Duration::from_secs(24),
        "not before the first ends: {waited:?}"
    );
    assert_eq!(agent.questions(), 2);
}

#[tokio::test]
async fn an_agent_that_gives_the_same_token_again_is_asked_now_and_then_until_there_is_a_new_one() {
    let lab = Lab::new();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = Arc::clone(&asked);
    let agent = lab.agent(move |question, before| {
        let mut asked = noted.lock().unwrap();
        asked.push(Timestamp::now());
        let first = asked[0].as_second();
        match before {
            // It is to be replaced already. Each question comes after a quarter of what is left, so the fourth with 17 of 40 s left, in which
            // the machine may stand still.
            0..3 => Answer::Svids(vec![svid(
                token("sts.amazonaws.com", "k1", Some(first - 60), first + 40),
                "",
            )]),
            _ => fresh(question, 3600),
        }
    });
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    sidecar
        .wait_for(PATIENCE, "there is the next one", is_next)
        .await
        .unwrap();

    assert_eq!(agent.questions(), 4);
    let last = asked.lock().unwrap()[3];
    assert!(last < first.expires_at, "not in time: {last}");
}

#[tokio::test]
async fn a_token_without_iat_is_used() {
    let lab = Lab::new();
    let agent = lab.agent(|_, before| {
        let life = if before == 0 { 8 } else { 3600 };
        let now = Timestamp::now().as_second();
        Answer::Svids(vec![svid(token("sts.amazonaws.com", "k1", None, now + life), "")])
    });
    let sidecar = lab.sidecar(&[]);
    let first = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();
    sidecar
        .wait_for(PATIENCE, "there is the next one", is_next)
        .await
        .unwrap();

    assert_eq!(first.issued_at, None);
    assert_eq!(agent.questions(), 2);
}

/// An answer of the agent, and what the probe says of it.
type UselessAnswer = (fn() -> Answer, &'static str);

fn useless_answers() -> [UselessAnswer; 8] {
    fn usual(audience: &str) -> String {
        let now = Timestamp::now().as_second();
        token(audience, "k1", Some(now), now + 3600)
    }
    fn of(spiffe_id: &str) -> Answer {
        let mut svid = svid(usual("sts.amazonaws.com"), "");
        spiffe_id.clone_into(&mut svid.spiffe_id);
        Answer::Svids(vec![svid])
    }
    fn expired() -> Answer {
        let now = Timestamp::now().as_second();
        Answer::Svids(vec![svid(
            token("sts.amazonaws.com", "k1", Some(now - 90), now - 30),
            "",
        )])
    }
    [
        (expired, "gave a token that ended"),
        (|| Answer::Svids(Vec::new()), "it has no identity"),
        (|| Answer::Bytes(b"\xff\xff\xff"), "the SPIFFE agent answered INTERNAL"),
        (
            || Answer::Svids(vec![svid("no.token".to_owned(), "")]),
            "no JWS in compact form",
        ),
        (
            || Answer::Svids(vec![svid(String::new(), "")]),
            "no JWS in compact form",
        ),
        (
            || Answer::Svids(vec![svid(usual("another"), "")]),
            "for another audience",
        ),
        (|| of("spiffe://example.test/other"), "of another identity"),
        (|| of(""), "an identity has no SPIFFE ID"),
    ]
}

#[tokio::test]
async fn useless_answers_never_reach_the_file() {
    // Long enough that eight sidecars, which start together, have read the answer before it ends.
    const LIFE: i64 = 15;
    let running = useless_answers().map(|(useless, part)| {
        let lab = Lab::new();
        let well = Arc::new(AtomicBool::new(false));
        let is_well = Arc::clone(&well);
        let agent = lab.agent(move |question, before| {
            if before == 0 {
                fresh(question, LIFE)
            } else if is_well.load(Ordering::Relaxed) {
                fresh(question, 3600)
            } else {
                useless()
            }
        });
        let sidecar = lab.sidecar(&[]);
        (sidecar, agent, well, part, lab)
    });
    for (sidecar, _agent, well, part, _lab) in &running {
        let expired = async || {
            let why = sidecar.probe()?.err().unwrap_or_default();
            ensure!(why.starts_with("token expired ") && why.contains(part), "{why}");
            Ok(())
        };
        eventually(PATIENCE, format!("the probe says {part:?}"), expired)
            .await
            .unwrap();
        let still = sidecar.token(FILE).unwrap();
        let life = still.expires_at.duration_since(still.issued_at.unwrap());
        assert_eq!(
            life,
            SignedDuration::from_secs(LIFE),
            "{part}: the first token is there"
        );

        well.store(true, Ordering::Relaxed);
    }
    for (sidecar, _agent, _well, part, _lab) in &running {
        let long = |token: &Token| token.expires_at > Timestamp::now() + SignedDuration::from_mins(10);
        sidecar.wait_for(PATIENCE, part, long).await.unwrap();
        assert_eq!(sidecar.probe().unwrap(), Ok(()));
    }
}

#[tokio::test]
async fn of_two_identities_with_the_same_hint_the_first_is_taken() {
    let lab = Lab::new();
    let _agent = lab.agent(|_, _| {
        let now = Timestamp::now().as_second();
        let with = |key_id, hint| svid(token("sts.amazonaws.com", key_id, Some(now), now + 3600), hint);
        Answer::Svids(vec![with("other", "web"), with("first", "aws"), with("second", "aws")])
    });
    let sidecar = lab.sidecar(&[("TOKENSCOPE_HINT", "aws")]);
    let token = sidecar.wait_for(PATIENCE, "there is a token", |_| true).await.unwrap();

    assert_eq!(token.key_id.as_deref(), Some("first"));
}

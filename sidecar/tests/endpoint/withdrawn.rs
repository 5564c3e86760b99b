//! The source is tokenscope's issuer, and its grant ends.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::sync::watch;

use super::account::NEAR;
use super::faulty_sts::{Fault, FaultySts, credentials, unsigned_token, web_identity_token};
use super::lab::Lab;
use super::outages::{Hasty, run_until};
use super::outbound::{CLAUDE, claims, with_token};
use super::token_issuer::{Form, Reply, TestIssuer, token, value};

/// A container whose role STS gives, by tokens of this issuer.
async fn served(name: &str, issuer: &TestIssuer) -> (FaultySts, Lab) {
    let (status, body) = credentials("t");
    let sts = FaultySts::start(Fault::Answers(status, body)).await;
    let lab = Lab::new(name, &["app"], &sts.url(), NEAR);
    let lab = lab.with_issuer(issuer.url(), &issuer.authority, &token("https://tokens.example", 3600));
    (sts, lab)
}

/// An issuer whose tokens are valid for so many seconds, and that gives no more of them once this is true.
async fn issuer_until_withdrawn(seconds: i64) -> (TestIssuer, Arc<AtomicBool>) {
    let is_withdrawn = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_withdrawn);
    let script = move |form: &Form, _| {
        if seen.load(Ordering::Relaxed) {
            Reply::refusal("invalid_grant", "TokenScopePolicy shop/orders has expired")
        } else {
            Reply::token(&token(value(form, "audience"), seconds))
        }
    };
    (TestIssuer::start(script).await, is_withdrawn)
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_dropped_when_the_issuer_refuses_the_exchange_and_the_containers_hear_its_words() {
    let (issuer, is_withdrawn) = issuer_until_withdrawn(6).await;
    let (sts, lab) = served("withdrawn", &issuer).await;
    let sidecar = lab.start();
    sidecar.credentials("app");
    sidecar.until("it is ready", || lab.not_ready().is_none().then_some(()));
    is_withdrawn.store(true, Ordering::Relaxed);

    // At 55 % of the token's life it asks again.
    let refused = sidecar.until("the grant is withdrawn", || {
        let answer = lab.ask("app");
        (answer.status != 200).then_some(answer)
    });
    let message = "the issuer refuses (invalid_grant): TokenScopePolicy shop/orders has expired";
    assert_eq!((refused.status, &refused.body["Code"]), (403, &json!("GrantWithdrawn")));
    assert_eq!(refused.body["Message"], message);
    let said = lab.not_ready().unwrap();
    assert!(said.contains("TokenScopePolicy shop/orders has expired"), "{said}");
    assert_eq!(sts.asked(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_that_says_come_again_withdraws_nothing_and_the_credentials_are_served_while_they_are_valid() {
    let sentence =
        "the TokenScopePolicies of namespace shop take more than is left of the 16384 KiB for all namespaces";
    let issuer = TestIssuer::start(move |form, before| match before {
        0 => Reply::token(&token(value(form, "audience"), 6)),
        _ => Reply::json(
            503,
            "retry-after: 1\r\n",
            &json!({"error": "temporarily_unavailable", "error_description": sentence}),
        ),
    })
    .await;
    let (_sts, lab) = served("come-again", &issuer).await;
    let sidecar = lab.start();
    let before = sidecar.credentials("app");
    sidecar.until("the issuer has been asked again and again", || {
        (issuer.requests().len() > 4).then_some(())
    });
    sidecar.logs(sentence);
    assert_eq!(sidecar.credentials("app"), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_is_ready_by_its_credentials_where_the_token_that_they_were_taken_with_has_ended_and_no_issuer_answers() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::token(&token(value(form, "audience"), 4)),
        _ => Reply::Bytes(Vec::new()),
    })
    .await;
    let (_sts, lab) = served("outlived", &issuer).await;
    let sidecar = lab.start();
    let before = sidecar.credentials("app");
    sidecar.until("the token has ended", || {
        let token = fs::read_to_string(lab.path("tokens/token")).unwrap();
        let end = claims(&token)["exp"].as_i64().unwrap();
        (Timestamp::now().as_second() > end).then_some(())
    });
    assert_eq!(lab.not_ready(), None);
    assert_eq!(sidecar.credentials("app"), before);
    drop(sidecar);

    // Without credentials the probe says why there are none.
    let _sidecar = lab.start();
    let said = lab.not_ready().unwrap();
    assert!(said.starts_with("token expired "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_aws_signs_while_the_grant_is_withdrawn_is_not_written() {
    let (issuer, is_withdrawn) = issuer_until_withdrawn(4).await;
    let (tell, told) = watch::channel(false);
    let signed = web_identity_token(&unsigned_token(CLAUDE, 600));
    let sts = FaultySts::start(Fault::AnswersAndThenWhenTold(credentials("t"), signed, told)).await;
    let mut lab = Lab::new("withdrawn-meanwhile", &["app"], &sts.url(), NEAR);
    let file = with_token(&mut lab, |token| token["durationSeconds"] = json!(600));
    let lab = lab.with_issuer(issuer.url(), &issuer.authority, &token("https://tokens.example", 3600));
    let sidecar = lab.start();
    sidecar.until("AWS is asked for the token", || (sts.asked() == 2).then_some(()));
    is_withdrawn.store(true, Ordering::Relaxed);
    sidecar.until("the grant is withdrawn", || {
        (lab.ask("app").body["Code"] == "GrantWithdrawn").then_some(())
    });
    tell.send_replace(true);
    sidecar.logs("the grant was withdrawn meanwhile");
    assert!(!file.exists());
    let said = lab.not_ready().unwrap();
    assert!(said.contains("TokenScopePolicy shop/orders has expired"), "{said}");
    assert_eq!(sts.asked(), 2, "without a grant nothing is asked for");
}

/// An issuer that gives a token for an hour, refuses the next one, and then gives no answer.
async fn issuer_that_withdraws() -> TestIssuer {
    TestIssuer::start(|form, before| match before {
        0 => Reply::token(&token(value(form, "audience"), 3600)),
        1 => Reply::refusal("invalid_grant", "TokenScopePolicy shop/orders has expired"),
        _ => Reply::Bytes(Vec::new()),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_issuer_is_asked_every_minute_however_long_its_token_is_valid() {
    let issuer = issuer_that_withdraws().await;
    let (sts, lab) = served("withdrawn-in-a-minute", &issuer).await;
    // A minute, and what a first call that failed on a busy machine waits before the second.
    let clock = Hasty::up_to(SignedDuration::from_secs(75));
    run_until(&lab, &[sts.url()], clock, || {
        lab.state().is_some_and(|state| state.contains("has expired"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_that_was_withdrawn_is_not_restored_by_an_issuer_that_gives_no_answer() {
    let issuer = issuer_that_withdraws().await;
    let (sts, lab) = served("withdrawn-and-silent", &issuer).await;
    let (at_withdrawal, last) = (Mutex::new(None), Mutex::new(None));
    run_until(&lab, &[sts.url()], Hasty::up_to(SignedDuration::from_mins(50)), || {
        if lab.state().is_some_and(|state| state.contains("has expired")) {
            at_withdrawal.lock().unwrap().get_or_insert(sts.asked());
        }
        let is_over = issuer.requests().len() > 5;
        if is_over {
            let answer = lab.ask("app");
            *last.lock().unwrap() = Some((answer.status, answer.body["Code"].clone(), sts.asked()));
        }
        is_over
    })
    .await;
    let (status, code, asked) = last.into_inner().unwrap().unwrap();
    assert_eq!((status, code), (403, json!("GrantWithdrawn")));
    let before = at_withdrawal.into_inner().unwrap().unwrap();
    assert_eq!(asked, before, "the token that is still valid is not used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_a_process_before_has_left_is_used_only_once_the_issuer_grants_it_again() {
    let issuer = TestIssuer::start(|form, before| match before {
        0 => Reply::token(&token(value(form, "audience"), 3600)),
        _ => Reply::Bytes(Vec::new()),
    })
    .await;
    let (sts, lab) = served("withdrawn-and-started-again", &issuer).await;
    let sidecar = lab.start();
    sidecar.credentials("app");
    drop(sidecar);
    let sidecar = lab.start();
    // The credentials' keeper looks for a token at least once a second, and between two of the exchange's tries passes more and more time.
    sidecar.until("the issuer is asked again and again", || {
        (issuer.requests().len() > 4).then_some(())
    });
    assert_eq!(lab.ask("app").status, 503);
    assert_eq!(sts.asked(), 1);
}

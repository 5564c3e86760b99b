//! Tokens that a key signed which is not known yet: the API server is asked again, and not for each of them.

use std::sync::atomic::Ordering;
use std::time::Instant;

use http::StatusCode;
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_issuer::cluster_keys::LEAST_GAP;

use crate::fixtures::{Cluster, claims};
use crate::setup::Setup;

#[tokio::test]
async fn tokens_of_unknown_keys_make_the_api_server_be_asked_once_and_not_for_each() {
    let began = Instant::now();
    let setup = Setup::new().await;
    let before = setup.asked.load(Ordering::Relaxed);
    let other = Cluster::new(Algorithm::ES256);
    for _ in 0..20 {
        let (error, _) = setup
            .refused_for(&other.token(&claims(&json!({}))), "sts.amazonaws.com")
            .await;
        assert_eq!(error, "invalid_grant");
    }
    // Two documents each time, and none where the tokens came within the gap after the first time, as they do unless the machine stalls.
    let gaps = began.elapsed().as_secs() / LEAST_GAP.as_secs();
    let asked = setup.asked.load(Ordering::Relaxed) - before;
    assert!(
        asked as u64 <= 2 * gaps,
        "it was asked a moment ago, and {asked} times since"
    );
}

/// The installation, and a token of a key that its API server publishes since, after the token was refused within the gap.
async fn refused_within_the_gap() -> (Setup, String) {
    // A machine that stalls for the whole gap lets it pass before the token comes.
    loop {
        let began = Instant::now();
        let setup = Setup::new().await;
        let later = Cluster::new(Algorithm::ES256);
        setup.publish_key_of(&later);
        let subject = later.token(&claims(&json!({})));
        let before = setup.asked.load(Ordering::Relaxed);
        let (status, body) = setup.exchange(&subject, "sts.amazonaws.com").await;
        if began.elapsed() < LEAST_GAP {
            assert_eq!(
                (status, &body["error"]),
                (StatusCode::BAD_REQUEST, &json!("invalid_grant")),
                "{body}"
            );
            assert_eq!(setup.asked.load(Ordering::Relaxed), before, "it was asked a moment ago");
            return (setup, subject);
        }
    }
}

#[tokio::test]
async fn a_key_that_the_cluster_signs_with_later_is_fetched_once_after_the_gap_and_its_tokens_are_exchanged() {
    let (setup, subject) = refused_within_the_gap().await;
    let before = setup.asked.load(Ordering::Relaxed);
    tokio::time::sleep(LEAST_GAP).await;
    for subject in [&subject, &subject, &setup.subject()] {
        let (status, body) = setup.exchange(subject, "sts.amazonaws.com").await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    assert_eq!(
        setup.asked.load(Ordering::Relaxed),
        before + 2,
        "one fetch of two documents"
    );
}

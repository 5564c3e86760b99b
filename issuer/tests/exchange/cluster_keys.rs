//! Tokens that a key signed which is not known yet: the API server is asked again, and not for each of them.

use std::sync::atomic::Ordering;

use http::StatusCode;
use serde_json::json;
use tokenscope_core::Algorithm;
use tokenscope_issuer::cluster_keys::LEAST_GAP;

use crate::setup::Setup;
use crate::world::{Cluster, claims};

#[tokio::test]
async fn tokens_of_unknown_keys_make_the_api_server_be_asked_once_and_not_for_each() {
    let setup = Setup::new().await;
    let before = setup.asked.load(Ordering::Relaxed);
    let other = Cluster::new(Algorithm::ES256);
    for _ in 0..20 {
        let (error, _) = setup
            .refused_for(&other.token(&claims(&json!({}))), "sts.amazonaws.com")
            .await;
        assert_eq!(error, "invalid_grant");
    }
    assert_eq!(setup.asked.load(Ordering::Relaxed), before, "it was asked a moment ago");
}

#[tokio::test]
async fn a_key_that_the_cluster_signs_with_later_is_fetched_once_after_the_gap_and_its_tokens_are_exchanged() {
    let setup = Setup::new().await;
    let later = Cluster::new(Algorithm::ES256);
    setup.publish_key_of(&later);
    let subject = later.token(&claims(&json!({})));
    let before = setup.asked.load(Ordering::Relaxed);
    assert_eq!(
        setup.refused_for(&subject, "sts.amazonaws.com").await.0,
        "invalid_grant"
    );
    assert_eq!(setup.asked.load(Ordering::Relaxed), before, "it was asked a moment ago");
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

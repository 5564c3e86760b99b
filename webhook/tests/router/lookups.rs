//! Service accounts that no watch told of, and an API server that does not answer.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;
use tokenscope_webhook::deadlines::ReviewDeadlines;

use super::{HOUR, Harness, PATIENT, failure, nothing};
use crate::fixtures::{ROLE, ReviewFixture, app, asking, plain};

#[tokio::test]
async fn a_service_account_that_no_watch_told_of_is_asked_for_once_for_all_who_wait() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let harness = Harness::new(|path| {
        assert_eq!(path, "/api/v1/namespaces/shop/serviceaccounts/orders");
        ASKED.fetch_add(1, Ordering::Relaxed);
        let account = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
            "metadata": {"name": "orders", "namespace": "shop", "annotations": {"tokenscope.io/role-arn": ROLE}}});
        (StatusCode::OK, account, Duration::from_millis(50))
    });
    let pod = plain(app());
    let reviews = (0..20).map(|_| harness.review(&pod));
    for response in futures::future::join_all(reviews).await {
        assert_eq!(response["auditAnnotations"]["role"], ROLE);
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 1);
    assert_eq!(
        harness.metric("tokenscope_webhook_live_lookups_total{result=\"found\"}"),
        1
    );
    harness.review(&pod).await;
    assert_eq!(
        ASKED.load(Ordering::Relaxed),
        2,
        "an answer is not kept: only a watch tells of changes"
    );
}

#[tokio::test]
async fn a_service_account_that_does_not_exist_asks_for_nothing_and_is_warned_of() {
    let harness = Harness::new(nothing);
    let response = harness.review(&plain(app())).await;
    assert_eq!(response["allowed"], true);
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("service account orders was not found")
    );
    assert_eq!(
        harness.metric("tokenscope_webhook_live_lookups_total{result=\"missing\"}"),
        1
    );
}

#[tokio::test]
async fn where_the_api_server_does_not_answer_the_failure_policy_decides() {
    let usual = ReviewDeadlines::default();
    assert!(
        usual.lookup * 2 < usual.review,
        "both lookups end before the review does"
    );
    let deadlines = ReviewDeadlines {
        lookup: usual.lookup,
        ..PATIENT
    };
    let slow = Harness::within(deadlines, |_| (StatusCode::OK, json!({}), HOUR));
    let began = std::time::Instant::now();
    let (status, body) = slow
        .post(ReviewFixture::new().request(&asking(app())).to_string())
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("what is around the pod is not known"), "{body}");
    assert!(began.elapsed() >= usual.lookup, "{:?}", began.elapsed());

    let broken = Harness::new(|_| (StatusCode::FORBIDDEN, failure(403, "Forbidden"), Duration::ZERO));
    let (status, body) = broken
        .post(ReviewFixture::new().request(&asking(app())).to_string())
        .await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(body.contains("the API server could not be asked"), "{body}");
    assert_eq!(
        broken.metric("tokenscope_webhook_live_lookups_total{result=\"failed\"}"),
        1
    );
}

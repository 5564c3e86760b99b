//! Exchanges of an issuer that asks the API server about each token.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_issuer::token_review::TokenReviews;

use crate::setup::{POD_UID, Setup};
use crate::world::{EXCHANGE, claims};

/// An API server with this answer, which counts how often it was asked.
fn reviews(status: u16, answer: Value) -> (TokenReviews, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        counted.fetch_add(1, Ordering::Relaxed);
        let body = kube::client::Body::from(answer.to_string().into_bytes());
        let response = Response::builder().status(status).body(body).unwrap();
        async move { Ok::<_, Infallible>(response) }
    });
    (TokenReviews::new(Client::new(service, "default"), EXCHANGE), asked)
}

fn review(authenticated: bool) -> Value {
    let user = json!({
        "username": "system:serviceaccount:shop:orders", "uid": "1c2d3e4f-0000-4f57-8d1c-63c4c2f8f8d1",
        "extra": {"authentication.kubernetes.io/pod-uid": [POD_UID]},
    });
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {},
        "status": {"authenticated": authenticated, "audiences": [EXCHANGE], "user": user},
    })
}

#[tokio::test]
async fn a_token_is_issued_where_the_api_server_confirms_the_subject_and_only_there() {
    let (confirms, asked) = reviews(201, review(true));
    let setup = Setup::with_reviews(confirms).await;
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!((status, asked.load(Ordering::Relaxed)), (StatusCode::OK, 1), "{body}");

    let (denies, _) = reviews(201, review(false));
    let (error, description) = Setup::with_reviews(denies).await.refused().await;
    assert_eq!(error, "invalid_grant", "{description}");

    let forbidden =
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Forbidden", "code": 403});
    let (fails, _) = reviews(403, forbidden);
    let setup = Setup::with_reviews(fails).await;
    assert_eq!(setup.refused().await.0, "temporarily_unavailable");
    assert!(setup.told.next_notice().is_none(), "no author of a pod can change that");
}

#[tokio::test]
async fn the_api_server_is_asked_about_nothing_that_the_keys_do_not_prove() {
    let (confirms, asked) = reviews(201, review(true));
    let setup = Setup::with_reviews(confirms).await;
    let expired = setup.cluster.token(&claims(&json!({"exp": 1})));
    for token in ["no token", &expired] {
        setup.refused_for(token, "sts.amazonaws.com").await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

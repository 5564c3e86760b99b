//! Exchanges of an issuer that asks the API server about each token.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_issuer::token_review::TokenReviews;

use crate::fixtures::{EXCHANGE, claims};
use crate::setup::{PATIENCE, POD_UID, Setup, pod, policy_with};

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
    let reviews = TokenReviews::new(Client::new(service, "default"), EXCHANGE, PATIENCE);
    (reviews, asked)
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

#[tokio::test]
async fn the_api_server_is_asked_about_nothing_that_is_refused_here_anyway() {
    let (confirms, asked) = reviews(201, review(true));
    let setup = Setup::with_reviews(confirms).await;
    let (error, _) = setup.refused_for(&setup.subject(), "nobody.example.com").await;
    assert_eq!(error, "invalid_target");
    setup.put_policy(policy_with("a", &json!({"disabled": true})));
    assert_eq!(setup.refused().await.0, "unauthorized_client");
    setup.put_policy(policy_with("a", &json!({})));
    for (pointer, value) in [("/status/phase", "Succeeded"), ("/metadata/uid", "another")] {
        let mut over = pod("a", "a");
        *over.pointer_mut(pointer).unwrap() = json!(value);
        setup.put_pod(over);
        assert_eq!(setup.refused().await.0, "invalid_grant");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    setup.put_pod(pod("a", "a"));
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!((status, asked.load(Ordering::Relaxed)), (StatusCode::OK, 1), "{body}");
}

#[tokio::test]
async fn what_ends_while_the_api_server_is_asked_gets_no_token() {
    let (asking, asked) = tokio::sync::mpsc::unbounded_channel::<()>();
    let mut asked = asked;
    let answers = Arc::new(tokio::sync::Notify::new());
    let waiting = answers.clone();
    let service = tower::service_fn(move |_: Request<kube::client::Body>| {
        let (asking, waiting) = (asking.clone(), waiting.clone());
        async move {
            asking.send(()).unwrap();
            waiting.notified().await;
            let body = kube::client::Body::from(review(true).to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(201).body(body).unwrap())
        }
    });
    let reviews = TokenReviews::new(Client::new(service, "default"), EXCHANGE, PATIENCE);
    let setup = Setup::with_reviews(reviews).await;
    let ends = async {
        asked.recv().await.unwrap();
        setup.put_policy(policy_with("a", &json!({"disabled": true})));
        answers.notify_one();
    };
    let ((error, _), ()) = tokio::join!(setup.refused(), ends);
    assert_eq!(error, "unauthorized_client");
}

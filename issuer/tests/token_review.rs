//! The API server's word on a subject token.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod fixtures;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fixtures::{Cluster, EXCHANGE, claims};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_issuer::deadlines::ExchangeDeadlines;
use tokenscope_issuer::subject_token::Caller;
use tokenscope_issuer::token_review::{MOST_AT_A_TIME, MOST_OF_A_NAMESPACE, NotConfirmed, TokenReviews};
use tokio::task::JoinHandle;

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(3600);

/// An API server that gives this status as its answer, and what it was asked.
fn api_server(status: Value) -> (Client, Arc<Mutex<Vec<Value>>>) {
    let asked: Arc<Mutex<Vec<Value>>> = Arc::default();
    let noted = asked.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (noted, status) = (noted.clone(), status.clone());
        async move {
            assert_eq!(request.uri().path(), "/apis/authentication.k8s.io/v1/tokenreviews");
            let body = request.into_body().collect().await.unwrap().to_bytes();
            noted.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            let answer =
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {}, "status": status});
            Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
        }
    });
    (Client::new(service, "default"), asked)
}

fn caller() -> Caller {
    let cluster = Cluster::new(Algorithm::ES256);
    cluster.verify(&cluster.token(&claims(&json!({})))).unwrap()
}

fn confirmed() -> Value {
    let caller = caller();
    json!({
        "authenticated": true, "audiences": [EXCHANGE],
        "user": {
            "username": format!("system:serviceaccount:{}:{}", caller.namespace, caller.service_account),
            "uid": caller.service_account_uid,
            "extra": {"authentication.kubernetes.io/pod-uid": [caller.pod_uid]},
        },
    })
}

async fn answer(status: Value) -> Result<(), NotConfirmed> {
    let (client, _) = api_server(status);
    TokenReviews::new(client, EXCHANGE, PATIENCE)
        .confirm("token", &caller())
        .await
}

#[tokio::test]
async fn a_token_that_the_api_server_takes_as_this_pods_is_confirmed() {
    let (client, asked) = api_server(confirmed());
    TokenReviews::new(client, EXCHANGE, PATIENCE)
        .confirm("token", &caller())
        .await
        .unwrap();
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0]["spec"], json!({"audiences": [EXCHANGE], "token": "token"}));
}

#[tokio::test]
async fn what_the_api_server_does_not_take_or_takes_for_another_is_refused() {
    for (member, value) in [
        ("/authenticated", json!(false)),
        ("/audiences", json!([])),
        ("/audiences", json!(["https://kubernetes.default.svc"])),
        ("/user/username", json!("system:serviceaccount:shop:admin")),
        ("/user/uid", json!("another")),
        ("/user/extra", json!({})),
        ("/user/extra/authentication.kubernetes.io~1pod-uid", json!(["another"])),
        (
            "/user/extra/authentication.kubernetes.io~1pod-uid",
            json!([caller().pod_uid, "another"]),
        ),
        ("/user", Value::Null),
    ] {
        let mut status = confirmed();
        *status.pointer_mut(member).unwrap() = value;
        assert!(matches!(answer(status).await, Err(NotConfirmed::Refused)), "{member}");
    }
    assert!(matches!(answer(json!({})).await, Err(NotConfirmed::Refused)));
}

/// Asks an API server that never answers.
fn stalling(deadline: Duration) -> TokenReviews {
    let stalls = |_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>();
    TokenReviews::new(Client::new(tower::service_fn(stalls), "default"), EXCHANGE, deadline)
}

/// Asks about as many tokens of a namespace as may wait, and goes on without an answer once each of them waits or was refused.
async fn crowd(reviews: &Arc<TokenReviews>, namespace: &str) -> Vec<JoinHandle<Result<(), NotConfirmed>>> {
    let asking = (0..MOST_OF_A_NAMESPACE).map(|_| {
        let (reviews, caller) = (reviews.clone(), of_namespace(namespace));
        tokio::spawn(async move { reviews.confirm("token", &caller).await })
    });
    let asking = asking.collect();
    // There is one thread, which has polled all of them by then.
    tokio::time::sleep(Duration::from_millis(100)).await;
    asking
}

fn of_namespace(namespace: &str) -> Caller {
    Caller {
        namespace: namespace.into(),
        ..caller()
    }
}

#[tokio::test]
async fn an_api_server_that_stalls_costs_two_seconds() {
    let usual = ExchangeDeadlines::default().token_review;
    let reviews = Arc::new(stalling(usual));
    // The second time each of them has a place again.
    for _ in 0..2 {
        let began = Instant::now();
        for task in crowd(&reviews, "greedy").await {
            let answer = task.await.unwrap();
            assert!(matches!(answer, Err(NotConfirmed::Late)), "{answer:?}");
        }
        assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_api_server_that_stalls_costs_a_bounded_number_of_questions_of_which_each_namespace_has_a_share() {
    // None of them is over before the test is.
    let reviews = Arc::new(stalling(PATIENCE));
    let mut waiting = crowd(&reviews, "greedy").await;
    let one_more = reviews.confirm("token", &of_namespace("greedy")).await;
    assert!(
        matches!(&one_more, Err(NotConfirmed::NamespaceFull(namespace)) if **namespace == *"greedy"),
        "{one_more:?}"
    );
    for number in 1..MOST_AT_A_TIME / MOST_OF_A_NAMESPACE {
        waiting.extend(crowd(&reviews, &format!("n{number}")).await);
    }
    let one_more = reviews.confirm("token", &of_namespace("late")).await;
    assert!(matches!(one_more, Err(NotConfirmed::Full)), "{one_more:?}");
    waiting.iter().for_each(JoinHandle::abort);
    for task in waiting {
        assert!(task.await.unwrap_err().is_cancelled(), "all of them had a place");
    }
    // Each place is given back.
    let again = crowd(&reviews, "greedy").await;
    again.iter().for_each(JoinHandle::abort);
    for task in again {
        assert!(task.await.unwrap_err().is_cancelled(), "all of them had a place");
    }
}

#[tokio::test]
async fn no_error_repeats_the_token() {
    let service = tower::service_fn(|_: Request<Body>| async {
        let error = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "secret-token", "reason": "Forbidden", "code": 403});
        let answer = Response::builder()
            .status(403)
            .body(Body::from(error.to_string().into_bytes()));
        Ok::<_, Infallible>(answer.unwrap())
    });
    let reviews = TokenReviews::new(Client::new(service, "default"), EXCHANGE, PATIENCE);
    let error = reviews.confirm("secret-token", &caller()).await.unwrap_err();
    assert!(!error.to_string().contains("secret-token"), "{error}");
    assert!(!format!("{reviews:?}").contains("secret-token"));
}

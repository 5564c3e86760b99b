//! Reviews that are answered, and what is no review.

use std::fs;
use std::sync::Mutex;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use super::{Harness, failure, nothing, object, policy};
use crate::fixtures::{ROLE, ReviewFixture, ReviewedPod, app, asking, plain};

#[tokio::test]
async fn recorded_reviews_are_granted_and_their_patches_fit() {
    let harness = Harness::knowing(nothing);
    for (file, containers) in [("one-container", 1), ("three-containers", 3), ("ten-containers", 10)] {
        let body = fs::read_to_string(format!("{}/tests/data/{file}.json", env!("CARGO_MANIFEST_DIR"))).unwrap();
        let pod = serde_json::from_str::<Value>(&body).unwrap()["request"]["object"].clone();
        let (status, answer) = harness.post(body.clone()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let reviewed = ReviewedPod::of_body(&answer, &pod);
        for container in reviewed.pod["spec"]["containers"].as_array().unwrap() {
            let name = container["name"].as_str().unwrap();
            assert_eq!(reviewed.value(name, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
        }
        assert_eq!(
            reviewed.record()["grants"][0]["containers"].as_array().unwrap().len(),
            containers
        );
        assert_eq!(
            reviewed.pod["metadata"]["managedFields"],
            pod["metadata"]["managedFields"]
        );
        if containers == 1 {
            let bytes = Value::Array(reviewed.patch).to_string().len();
            assert!(bytes < 1500, "{bytes} bytes");
        }
    }
    assert_eq!(harness.reviews("granted"), 3);
    assert_eq!(harness.metric("tokenscope_webhook_review_duration_seconds_count"), 3);
}

#[tokio::test]
async fn tokens_that_pods_bring_and_no_policy_grants_are_counted_also_where_the_lock_only_tells() {
    const COUNTED: &str = "tokenscope_webhook_ungranted_tokens_total";
    let harness = Harness::knowing(nothing);
    let source = |path| json!({"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": path}});
    let mut by_hand = plain(app());
    by_hand["spec"]["volumes"] = json!([
        {"name": "one", "projected": {"sources": [source("token")]}},
        {"name": "two", "projected": {"sources": [source("token"), {"serviceAccountToken": {"audience": "vault", "path": "other"}}]}},
    ]);
    assert_eq!(harness.review(&by_hand).await["allowed"], true);
    assert_eq!(harness.metric(COUNTED), 0, "a policy grants them");

    let orders = policy("orders", &json!([]));
    harness.cache.apply_policy(false, Event::Delete(orders));
    let answer = harness.review(&by_hand).await;
    assert_eq!(answer["allowed"], true, "{answer}");
    let audited = answer["auditAnnotations"]["ungranted-tokens"].to_string();
    assert!(
        audited.contains("volume one") && audited.contains("volume two"),
        "{audited}"
    );
    assert_eq!(
        harness.metric(COUNTED),
        2,
        "the one for another audience is nobody's business"
    );

    harness.review(&plain(app())).await;
    assert_eq!(harness.metric(COUNTED), 2);
}

#[tokio::test]
async fn a_review_that_very_many_policies_make_slow_lets_those_of_other_namespaces_pass() {
    let harness = Harness::knowing(nothing);
    let crowd = object(json!({"metadata": {"name": "crowd"}}));
    harness.cache.apply_namespace(Event::Apply(crowd));
    let account = object::<ServiceAccount>(json!({"metadata": {"namespace": "crowd", "name": "orders"}}));
    harness.cache.apply_service_account(Event::Apply(account));
    let role = |path: &str, name: &str| format!("arn:aws:iam::111122223333:role/{path}/{name}");
    let pattern = |number: usize| role(&"a*".repeat(120), &format!("{}b{number}*", "a*".repeat(28)));
    let allowed: Vec<_> = (0..4).map(pattern).collect();
    for number in 0..100 {
        let mut policy = policy(&format!("p{number}"), &json!(allowed));
        policy.metadata.namespace = Some("crowd".to_owned());
        harness.cache.apply_policy(false, Event::Apply(policy));
    }
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = role(&"a".repeat(400), &"a".repeat(60)).into();
    let mut slow = ReviewFixture::new().request(&pod);
    slow["request"]["namespace"] = "crowd".into();

    let done = Mutex::new(Vec::new());
    let of_crowd = async {
        let (status, answer) = harness.post(slow.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert!(answer.contains("does not allow"), "{answer}");
        done.lock().unwrap().push("crowd");
    };
    let of_shop = async {
        harness.review(&plain(app())).await;
        done.lock().unwrap().push("shop");
    };
    futures::future::join(of_crowd, of_shop).await;
    assert_eq!(*done.lock().unwrap(), ["shop", "crowd"]);
}

#[tokio::test]
async fn what_is_no_review_is_a_failed_call_with_a_clear_text() {
    let harness = Harness::knowing(nothing);
    let review = |change: fn(&mut Value)| {
        let mut review = ReviewFixture::new().request(&plain(app()));
        change(&mut review);
        review.to_string()
    };
    let cases = [
        (String::new(), "not an AdmissionReview"),
        ("{".to_owned(), "not an AdmissionReview"),
        ("[]".to_owned(), "not an AdmissionReview"),
        (
            review(|review| review["apiVersion"] = json!("admission.k8s.io/v1beta1")),
            "not an AdmissionReview of",
        ),
        (
            review(|review| review["kind"] = json!("Pod")),
            "not an AdmissionReview of",
        ),
        (review(|review| review["request"] = Value::Null), "has no request"),
        (
            review(|review| review["request"]["uid"] = json!("")),
            "has no request.uid",
        ),
        (
            review(|review| review["request"]["object"] = Value::Null),
            "has no object",
        ),
        (
            review(|review| review["request"]["namespace"] = Value::Null),
            "has no namespace",
        ),
        (
            review(|review| review["request"]["object"]["spec"] = json!(7)),
            "pod of the AdmissionReview can't be read",
        ),
    ];
    let count = cases.len() as u64;
    for (body, text) in cases {
        let (status, answer) = harness.post(body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
        assert!(
            answer.starts_with("tokenscope: ") && answer.contains(text),
            "{text}: {answer}"
        );
    }
    assert_eq!(harness.post(vec![b'"', 0xff, b'"']).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(harness.reviews("failed"), count + 1);
}

#[tokio::test]
async fn other_objects_and_operations_pass_untouched() {
    let harness = Harness::knowing(nothing);
    let mut update = ReviewFixture::new().request(&asking(app()));
    update["request"]["operation"] = json!("UPDATE");
    let mut delete = ReviewFixture::new().request(&Value::Null);
    delete["request"]["operation"] = json!("DELETE");
    let mut service =
        ReviewFixture::new().request(&json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": 1}}));
    service["request"]["kind"]["kind"] = json!("Service");
    let mut ephemeral = ReviewFixture::new().request(&asking(app()));
    ephemeral["request"]["subResource"] = json!("ephemeralcontainers");
    for review in [update, delete, service, ephemeral] {
        let (status, body) = harness.post(review.to_string()).await;
        assert_eq!(status, StatusCode::OK);
        let response = serde_json::from_str::<Value>(&body).unwrap()["response"].clone();
        assert_eq!(
            response,
            json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true})
        );
    }
}

#[tokio::test]
async fn the_answer_to_a_failed_review_repeats_nothing_of_the_body_or_the_api_server() {
    let secret = "words-that-somebody-else-said";
    let mut review = ReviewFixture::new().request(&asking(app()));
    review["apiVersion"] = json!(secret);
    let mut unreadable = ReviewFixture::new().request(&asking(app()));
    unreadable["request"]["object"]["spec"] = json!(secret);
    let forbidden = Harness::new(|_| {
        let said = failure(403, "words-that-somebody-else-said");
        (StatusCode::FORBIDDEN, said, Duration::ZERO)
    });
    let lookup = ReviewFixture::new().request(&asking(app()));
    for body in [review, unreadable, lookup] {
        let (status, answer) = forbidden.post(body.to_string()).await;
        assert!(status.is_client_error() || status.is_server_error(), "{status}");
        assert!(!answer.contains(secret), "{answer}");
        assert!(answer.len() < 200, "{answer}");
    }
}

#[tokio::test]
async fn other_paths_and_methods_are_not_served() {
    let harness = Harness::knowing(nothing);
    for (request, status) in [
        (Request::get("/mutate"), StatusCode::METHOD_NOT_ALLOWED),
        (Request::post("/"), StatusCode::NOT_FOUND),
    ] {
        let response = harness
            .router
            .clone()
            .oneshot(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), status);
    }
}

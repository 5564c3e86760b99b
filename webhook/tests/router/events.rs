//! Events about refusals.

use std::net::IpAddr;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::json;

use super::{Harness, nothing, owned, owners, refused};
use crate::fixtures::{ReviewFixture, app, asking};

#[tokio::test]
async fn a_refusal_is_written_on_the_owner_once() {
    let mut harness = Harness::knowing(owners);
    for _ in 0..3 {
        assert_eq!(harness.review(&refused()).await["allowed"], false);
    }
    let mut other = refused();
    other["metadata"]["ownerReferences"][0]["name"] = json!("orders-2");
    other["metadata"]["ownerReferences"][0]["uid"] = json!("u-2");
    harness.review(&other).await;
    harness.review(&owned(asking(app()))).await;

    let events = harness.events_of(2).await;
    assert_eq!(events.len(), 2, "the same is not written again: {events:?}");
    let event = &events[0];
    assert_eq!(event["reason"], "CredentialsRefused");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["kind"], "ReplicaSet");
    assert_eq!(event["involvedObject"]["name"], "orders-1");
    assert_eq!(event["reportingInstance"], "webhook-0");
    let message = event["message"].as_str().unwrap();
    assert!(
        message.starts_with("A pod was refused: ") && message.len() <= 1024,
        "{message}"
    );
    assert_eq!(events[1]["involvedObject"]["uid"], "u-2");
}

#[tokio::test]
async fn no_event_is_written_about_an_owner_that_does_not_exist() {
    let mut harness = Harness::knowing(owners);
    for (kind, name, uid) in [
        ("ReplicaSet", "orders-1", "another"),
        ("ReplicaSet", "invented", "u-1"),
        ("Deployment", "orders-1", "u-1"),
        ("Node", "orders-1", "u-1"),
        ("ReplicaSet", "../../../v1/namespaces/kube-system/configmaps/x", "u-1"),
    ] {
        let mut pod = refused();
        let owner = &mut pod["metadata"]["ownerReferences"][0];
        owner["kind"] = json!(kind);
        owner["name"] = json!(name);
        owner["uid"] = json!(uid);
        assert_eq!(harness.review(&pod).await["allowed"], false);
    }
    harness.review(&refused()).await;
    let without_owner = |harness: &Harness| harness.metric("tokenscope_webhook_events_without_owner_total");
    harness.until_at_least(5, without_owner).await;
    assert_eq!(harness.events_of(1).await.len(), 1, "only the owner that exists");
    assert_eq!(without_owner(&harness), 5);
}

#[tokio::test]
async fn a_neighbour_who_makes_up_refusals_of_a_namespace_silences_none_of_its_own() {
    let mut harness = Harness::knowing(owners);
    for number in 0..100 {
        let mut pod = refused();
        pod["metadata"]["ownerReferences"][0]["uid"] = json!(format!("invented-{number}"));
        let body = ReviewFixture::new().request(&pod).to_string();
        let answer = harness.respond_to(IpAddr::from([10, 9, 9, 9]), "/mutate", body).await;
        assert_eq!(answer.status(), StatusCode::OK);
    }
    harness.review(&refused()).await;
    // No other one can come: the owners of the rest are invented.
    assert_eq!(harness.events_of(1).await.len(), 1, "that of the API server's review");
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let mut harness = Harness::knowing(nothing);
    let fixture = ReviewFixture {
        dry_run: true,
        ..ReviewFixture::new()
    };
    let (_, body) = harness.post(fixture.request(&refused()).to_string()).await;
    assert!(body.contains("\"allowed\":false"), "{body}");
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(harness.requests.try_recv().is_err());
}

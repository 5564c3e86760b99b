//! What the watches tell of, and what is not listed yet.

use axum::http::StatusCode;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::core::DynamicObject;
use kube::runtime::watcher::Event;
use serde_json::json;
use tokenscope_webhook::cache::Cache;

use super::{Harness, PATIENT, list_policies, nothing, object, policy};
use crate::fixtures::{ROLE, ReviewFixture, app, asking, plain};

#[tokio::test]
async fn changes_that_the_watches_tell_of_count_at_once() {
    let harness = Harness::knowing(nothing);
    let account = |role: &str| {
        object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders",
        "annotations": {"tokenscope.io/role-arn": role, "irrelevant": "x".repeat(1000)}}}))
    };
    harness.cache.apply_service_account(Event::Apply(account(ROLE)));
    assert_eq!(harness.review(&plain(app())).await["auditAnnotations"]["role"], ROLE);

    harness
        .cache
        .apply_policy(false, Event::Delete(policy("orders", &json!([]))));
    assert_eq!(harness.review(&plain(app())).await["allowed"], false);

    harness
        .cache
        .apply_policy(false, Event::Apply(policy("orders", &json!(["nonsense"]))));
    let message = harness.review(&plain(app())).await["status"]["message"].to_string();
    assert!(
        message.contains("TokenScopePolicy shop/orders can't be used"),
        "{message}"
    );

    let namespace =
        object::<Namespace>(json!({"metadata": {"name": "shop", "labels": {"tokenscope.io/inject": "false"}}}));
    harness.cache.apply_namespace(Event::Apply(namespace));
    assert_eq!(harness.review(&plain(app())).await["allowed"], true);
    assert_eq!(
        harness.metric("tokenscope_webhook_cache_size{kind=\"serviceaccounts\"}"),
        1
    );
}

#[tokio::test]
async fn until_policies_cluster_policies_and_boundaries_were_all_listed_a_review_is_an_error() {
    let harness = Harness::unlisted(PATIENT, nothing);
    let cache = &harness.cache;
    let account = object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": "orders"}}));
    cache.apply_service_account(Event::Apply(account));
    let body = ReviewFixture::new().request(&asking(app())).to_string();
    let boundary: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "core"},
        "spec": {"roles": ["arn:aws:iam::111122223333:role/none"]},
    }))
    .unwrap();

    cache.apply_policy(false, Event::Init);
    cache.apply_policy(false, Event::InitApply(policy("orders", &json!([ROLE]))));
    cache.apply_policy(false, Event::InitDone);
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    cache.apply_policy(true, Event::Init);
    cache.apply_policy(true, Event::InitDone);
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    cache.apply_boundary(Event::Init);
    cache.apply_boundary(Event::InitApply(boundary));
    assert_eq!(harness.post(body.clone()).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(harness.reviews("failed"), 3);

    cache.apply_boundary(Event::InitDone);
    let answer = harness.review(&asking(app())).await;
    let message = answer["status"]["message"].to_string();
    assert!(message.contains("TokenScopeBoundary core does not allow"), "{message}");
}

#[tokio::test]
async fn a_new_list_takes_away_what_it_does_not_name_and_nothing_before_it_ends() {
    let cache = Cache::default();
    list_policies(&cache);
    let account = |name: &str| object::<ServiceAccount>(json!({"metadata": {"namespace": "shop", "name": name}}));
    cache.apply_service_account(Event::Apply(account("old")));
    cache.apply_service_account(Event::Apply(account("kept")));
    cache.apply_policy(false, Event::Apply(policy("old", &json!([]))));
    cache.apply_policy(false, Event::Apply(policy("kept", &json!([]))));

    cache.apply_service_account(Event::Init);
    cache.apply_service_account(Event::InitApply(account("kept")));
    cache.apply_service_account(Event::InitApply(account("new")));
    cache.apply_policy(false, Event::Init);
    cache.apply_policy(false, Event::InitApply(policy("kept", &json!([]))));
    assert!(cache.annotations("shop", "old").is_some());
    assert_eq!(cache.policies().unwrap().len(), 2);
    cache.apply_policy(true, Event::Init);
    cache.apply_policy(true, Event::InitDone);

    cache.apply_service_account(Event::InitDone);
    cache.apply_policy(false, Event::InitDone);
    assert!(cache.annotations("shop", "old").is_none());
    assert!(cache.annotations("shop", "kept").is_some() && cache.annotations("shop", "new").is_some());
    assert_eq!(cache.policies().unwrap().len(), 1);
    cache.apply_service_account(Event::Delete(account("new")));
    assert!(cache.annotations("shop", "new").is_none());
}

#[tokio::test]
async fn a_role_on_a_service_account_that_is_too_long_is_refused_with_the_bound() {
    let harness = Harness::knowing(nothing);
    let role = format!("{ROLE}{}", "r".repeat(200_000));
    let account =
        json!({"metadata": {"namespace": "shop", "name": "orders", "annotations": {"tokenscope.io/role-arn": role}}});
    harness
        .cache
        .apply_service_account(Event::Apply(object::<ServiceAccount>(account)));
    let message = harness.review(&plain(app())).await["status"]["message"].to_string();
    assert!(
        message.contains("tokenscope.io/role-arn") && message.contains("2048") && message.len() < 1000,
        "{message}"
    );
}

//! The bounds of the cache and of each namespace's share.

use kube::runtime::watcher::Event;
use serde_json::json;
use tokenscope_index::WebhookBounds;
use tokenscope_webhook::cache::Cache;

use super::{Asked, account, all, list_policies, namespace, object, policy};

#[test]
fn fifty_thousand_annotated_service_accounts_of_one_namespace_are_kept() {
    let cache = Cache::default();
    for number in 0..50_000 {
        let name = format!("service-account-{number:06}");
        let role = format!("arn:aws:iam::111122223333:role/applications/{name}");
        cache.apply_service_account(account("shop", &name, &json!({"eks.amazonaws.com/role-arn": role})));
    }
    assert_eq!(cache.service_accounts_over_share("shop"), None);
    assert!(cache.annotations("shop", "service-account-049999").is_some());
}

#[tokio::test]
async fn a_crowd_of_service_accounts_takes_its_share_and_no_more() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    asked.cache.apply_namespace(namespace("crowd"));
    asked.cache.apply_namespace(namespace("shop"));
    // Of these, nothing is kept but the name.
    for number in 0..50 {
        let annotations = json!({"tokenscope.io/x": "x".repeat(260_000), "note": "x".repeat(260_000)});
        asked
            .cache
            .apply_service_account(account("crowd", &format!("irrelevant-{number}"), &annotations));
    }
    assert_eq!(asked.cache.service_accounts_over_share("crowd"), None);

    for number in 0..6_500 {
        let annotations = json!({"tokenscope.io/role-arn": "r".repeat(5_000)});
        asked
            .cache
            .apply_service_account(account("crowd", &format!("long-{number}"), &annotations));
    }
    let why = asked.cache.service_accounts_over_share("crowd").unwrap().to_string();
    assert!(
        why.contains("service accounts of namespace crowd") && why.contains("12288 KiB") && why.contains("delete"),
        "{why}"
    );
    assert!(asked.shows("tokenscope_namespaces_over_share 1"));

    // The others are kept, and what is not kept is looked up.
    asked
        .cache
        .apply_service_account(account("shop", "orders", &json!({"tokenscope.io/audience": "kept"})));
    assert!(asked.cache.annotations("crowd", "long-6499").is_none());
    let known = asked.around("shop", "orders").await.unwrap();
    assert_eq!(
        known.annotations.unwrap().pairs().value("tokenscope.io/audience"),
        Some("kept")
    );
    assert_eq!(asked.requests(), 0);
    let known = asked.around("crowd", "long-6499").await.unwrap();
    assert_eq!(
        known.annotations.unwrap().pairs().value("tokenscope.io/audience"),
        Some("live")
    );
    assert_eq!(known.over_share, None);
}

#[tokio::test]
async fn pods_of_a_namespace_whose_policies_overflow_can_not_be_judged_until_some_go() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    for namespace_name in ["crowd", "shop"] {
        asked.cache.apply_namespace(namespace(namespace_name));
        asked
            .cache
            .apply_service_account(account(namespace_name, "orders", &json!({})));
    }
    for number in 0..1001 {
        let policy = policy(Some("crowd"), &format!("policy-{number}"));
        asked.cache.apply_policy(false, Event::Apply(policy));
    }
    asked
        .cache
        .apply_policy(false, Event::Apply(policy(Some("shop"), "orders")));

    let known = asked.around("crowd", "orders").await.unwrap();
    let why = known.over_share.unwrap().to_string();
    assert!(
        why.contains("TokenScopePolicies of namespace crowd") && why.contains("1000") && why.contains("delete"),
        "{why}"
    );
    assert!(known.lacks_policies);
    let known = asked.around("shop", "orders").await.unwrap();
    assert_eq!((known.over_share, known.policies.about("shop").count()), (None, 1));
    assert!(asked.shows("tokenscope_namespaces_over_share 1"));

    let wants_list = asked
        .cache
        .apply_policy(false, Event::Delete(policy(Some("crowd"), "policy-7")));
    assert!(wants_list, "only a list knows what was left out");
    asked.cache.apply_policy(false, Event::Init);
    for number in (0..1001).filter(|&number| number != 7) {
        let policy = policy(Some("crowd"), &format!("policy-{number}"));
        asked.cache.apply_policy(false, Event::InitApply(policy));
    }
    assert!(asked.cache.over_share("crowd").is_some(), "the list has not ended");
    asked.cache.apply_policy(false, Event::InitDone);
    let known = asked.around("crowd", "orders").await.unwrap();
    assert_eq!((known.over_share, known.policies.about("crowd").count()), (None, 1000));
    assert_eq!(known.policies.about("shop").count(), 0, "the list did not name it");
    assert!(asked.shows("tokenscope_namespaces_over_share 0"));
}

#[test]
fn too_many_cluster_policies_concern_every_namespace() {
    let cache = Cache::default();
    list_policies(&cache);
    for number in 0..1001 {
        cache.apply_policy(true, Event::Apply(policy(None, &format!("policy-{number}"))));
    }
    let why = cache.over_share("shop").unwrap().to_string();
    assert!(why.contains("ClusterTokenScopePolicies take more"), "{why}");
}

#[test]
fn a_policy_that_is_too_long_is_invalid_in_few_words() {
    let cache = Cache::default();
    list_policies(&cache);
    let mut long = policy(Some("shop"), "long");
    let arn = format!("arn:aws:iam::111122223333:role/{}", "r".repeat(64));
    long.data["spec"]["roles"]["allowed"] = json!(vec![arn; 400]);
    cache.apply_policy(false, Event::Apply(long));
    let mut wordy = policy(Some("shop"), "wordy");
    wordy.data["spec"]["subjects"] = json!("s".repeat(30_000));
    cache.apply_policy(false, Event::Apply(wordy));

    let policies = cache.policies().unwrap();
    let invalid: Vec<_> = policies.unusable_about("shop").collect();
    assert!(
        invalid[0]
            .why()
            .contains("spec: should have at most 32768 bytes of JSON"),
        "{}",
        invalid[0].why()
    );
    assert!(invalid.len() == 2 && invalid.iter().all(|policy| policy.why().len() <= 1024));
}

#[tokio::test]
async fn a_namespace_with_too_many_labels_can_not_be_judged() {
    let asked = Asked::new(&WebhookBounds::default(), all);
    let labels: serde_json::Map<_, _> = (0..300).map(|n| (format!("l{n}"), json!("v"))).collect();
    let metadata = json!({"name": "crowd", "labels": labels});
    asked.cache.apply_namespace(Event::Apply(object(&metadata)));
    let known = asked.around("crowd", "orders").await.unwrap();
    let why = known.over_share.unwrap().to_string();
    assert!(
        why.contains("labels of namespace crowd") && why.contains("256") && why.contains("remove labels"),
        "{why}"
    );
    assert!(
        known.lacks_policies,
        "a boundary that selects by a label may be missing"
    );
}

#[test]
fn beyond_the_bound_of_the_whole_cache_the_newest_namespaces_are_not_kept_and_known() {
    let bounds = WebhookBounds {
        service_account_room: 1 << 20,
        policy_room: 8 << 10,
        ..WebhookBounds::default()
    };
    let cache = Cache::new(&bounds);
    list_policies(&cache);
    for number in 0..10_000 {
        let (namespace, name) = (format!("namespace-{}", number / 100), format!("account-{number}"));
        cache.apply_service_account(account(&namespace, &name, &json!({})));
    }
    assert_eq!(cache.service_accounts_over_share("namespace-0"), None);
    let why = cache.service_accounts_over_share("namespace-99").unwrap().to_string();
    assert!(why.contains("left of the 1024 KiB for all namespaces"), "{why}");
    // Policies have a room of their own, which no service account takes.
    cache.apply_policy(false, Event::Apply(policy(Some("namespace-99"), "policy")));
    assert_eq!(cache.over_share("namespace-99"), None);
    // Where it is full, the namespace's pods are refused.
    for number in 0..10 {
        cache.apply_policy(false, Event::Apply(policy(Some("new"), &format!("policy-{number}"))));
    }
    assert!(cache.over_share("new").unwrap().to_string().contains("namespace new"));
    assert_eq!(cache.over_share("namespace-0"), None);
}

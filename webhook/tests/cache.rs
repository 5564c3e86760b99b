//! The cache's bounds and the lookups' bounds, as reviews meet them.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, also outside the tests themselves"
)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::Client;
use kube::client::Body;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokenscope_index::Share;
use tokenscope_platform::metrics::Registry;
use tokenscope_webhook::cache::{Cache, CacheBounds};
use tokenscope_webhook::lookup::{AdmissionContext, LiveLookups, LookupError};
use tokenscope_webhook::metrics::Metrics;

fn object<K>(metadata: &Value) -> PartialObjectMeta<K>
where
    PartialObjectMeta<K>: DeserializeOwned,
{
    serde_json::from_value(json!({ "metadata": metadata })).unwrap()
}

fn account(namespace: &str, name: &str, annotations: &Value) -> Event<PartialObjectMeta<ServiceAccount>> {
    let metadata = json!({"namespace": namespace, "name": name, "annotations": annotations});
    Event::Apply(object(&metadata))
}

fn namespace(name: &str) -> Event<PartialObjectMeta<Namespace>> {
    Event::Apply(object(&json!({ "name": name })))
}

fn policy(namespace: Option<&str>, name: &str) -> DynamicObject {
    let kind = namespace.map_or("ClusterTokenScopePolicy", |_| "TokenScopePolicy");
    serde_json::from_value(json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"subjects": [{}], "roles": {"allowed": ["arn:aws:iam::111122223333:role/shop/*"]}},
    }))
    .unwrap()
}

/// Lists policies, cluster policies and boundaries: there are none.
fn list_policies(cache: &Cache) {
    for cluster in [false, true] {
        cache.apply_policy(cluster, Event::Init);
        cache.apply_policy(cluster, Event::InitDone);
    }
    cache.apply_boundary(Event::Init);
    cache.apply_boundary(Event::InitDone);
}

/// LiveLookups at an API server that has what `has` says, each answered after a while, and how often it was asked.
struct Asked {
    lookups: Arc<LiveLookups>,
    cache: Arc<Cache>,
    requests: Arc<AtomicUsize>,
    at_a_time: Arc<AtomicUsize>,
    registry: Registry,
}

const TAKES: Duration = Duration::from_millis(20);

impl Asked {
    fn new(bounds: &CacheBounds, has: fn(&str) -> bool) -> Self {
        let (requests, running, at_a_time) = <(Arc<AtomicUsize>, Arc<AtomicUsize>, Arc<AtomicUsize>)>::default();
        let counts = (requests.clone(), at_a_time.clone());
        let api_server = tower::service_fn(move |request: http::Request<Body>| {
            let (requests, at_a_time) = counts.clone();
            let running = running.clone();
            async move {
                requests.fetch_add(1, Ordering::Relaxed);
                at_a_time.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                tokio::time::sleep(TAKES).await;
                running.fetch_sub(1, Ordering::Relaxed);
                let (status, body) = if has(request.uri().path()) {
                    let metadata = json!({"name": "found", "annotations": {"tokenscope.io/audience": "live"}});
                    let kind =
                        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
                    (200, kind)
                } else {
                    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound",
                        "message": "not found", "code": 404});
                    (404, status)
                };
                let body = Body::from(body.to_string().into_bytes());
                Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
            }
        });
        let registry = Registry::new();
        let cache = Arc::new(Cache::new(bounds));
        list_policies(&cache);
        let metrics = Metrics::new(&registry);
        metrics.show_sizes(&registry, &cache);
        Self {
            lookups: LiveLookups::new(cache.clone(), Client::new(api_server, "default"), metrics),
            cache,
            requests,
            at_a_time,
            registry,
        }
    }

    async fn around(&self, namespace: &str, service_account: &str) -> Result<AdmissionContext, LookupError> {
        self.lookups.around(namespace, service_account).await
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }

    fn shows(&self, line: &str) -> bool {
        self.registry.encode().unwrap().lines().any(|found| found == line)
    }
}

fn all(_: &str) -> bool {
    true
}

fn none(_: &str) -> bool {
    false
}

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
    let asked = Asked::new(&CacheBounds::default(), all);
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
    let asked = Asked::new(&CacheBounds::default(), all);
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
    let invalid: Vec<_> = policies.invalid_about("shop").collect();
    assert!(
        invalid[0].1.contains("spec: should have at most 32768 bytes of JSON"),
        "{}",
        invalid[0].1
    );
    assert!(invalid.len() == 2 && invalid.iter().all(|(_, why)| why.len() <= 1024));
}

#[tokio::test]
async fn a_namespace_with_too_many_labels_can_not_be_judged() {
    let asked = Asked::new(&CacheBounds::default(), all);
    let labels: serde_json::Map<_, _> = (0..300).map(|n| (format!("l{n}"), json!("v"))).collect();
    let metadata = json!({"name": "crowd", "labels": labels});
    asked.cache.apply_namespace(Event::Apply(object(&metadata)));
    let known = asked.around("crowd", "orders").await.unwrap();
    let why = known.over_share.unwrap().to_string();
    assert!(
        why.contains("labels of namespace crowd") && why.contains("256") && why.contains("remove labels"),
        "{why}"
    );
}

#[test]
fn beyond_the_bound_of_the_whole_cache_the_newest_namespaces_are_not_kept_and_known() {
    let bounds = CacheBounds {
        service_account_room: 1 << 20,
        policy_room: 8 << 10,
        ..CacheBounds::default()
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

#[tokio::test]
async fn a_name_that_does_not_exist_is_not_asked_for_again_at_once() {
    let asked = Asked::new(&CacheBounds::default(), none);
    asked.cache.apply_namespace(namespace("shop"));
    for _ in 0..50 {
        let known = asked.around("shop", "missing").await.unwrap();
        assert!(known.annotations.is_none());
    }
    assert_eq!(asked.requests(), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    asked.around("shop", "missing").await.unwrap();
    assert_eq!(asked.requests(), 2);
}

#[tokio::test]
async fn names_that_kubernetes_does_not_allow_are_never_asked_for() {
    let asked = Asked::new(&CacheBounds::default(), all);
    asked.cache.apply_namespace(namespace("shop"));
    let long = "a".repeat(254);
    for name in ["", "..", "A", "a/b", "a?b", "ä", &long] {
        let known = asked.around("shop", name).await.unwrap();
        assert!(known.annotations.is_none(), "{name:?}");
    }
    let long_namespace = "n".repeat(1 << 20);
    for name in ["", "..", "a.b", &long_namespace] {
        let why = asked.around(name, "orders").await.unwrap_err().to_string();
        assert!(why.contains("knows none of that name") && why.len() < 1024, "{why}");
    }
    assert_eq!(asked.requests(), 0);
}

#[tokio::test]
async fn a_namespace_that_asks_for_much_fails_alone() {
    let asked = Asked::new(&CacheBounds::default(), all);
    asked.cache.apply_namespace(namespace("noisy"));
    asked.cache.apply_namespace(namespace("shop"));
    let mut unknown = 0;
    for burst in 0..20 {
        let names: Vec<_> = (0..20).map(|number| format!("account-{burst}-{number}")).collect();
        let around = futures::future::join_all(names.iter().map(|name| asked.around("noisy", name)));
        let (answers, other) = futures::join!(around, asked.around("shop", "orders"));
        assert!(other.is_ok(), "{other:?}");
        for answer in answers.into_iter().filter_map(Result::err) {
            assert!(
                answer.to_string().contains("at most 20 such things a second"),
                "{answer}"
            );
            unknown += 1;
        }
    }
    assert!(asked.at_a_time.load(Ordering::Relaxed) <= 9);
    // The burst, what its seconds allow, and the other namespace's.
    assert!((30..100).contains(&asked.requests()), "{}", asked.requests());
    assert!(unknown > 300, "{unknown}");
    assert!(asked.shows(&format!(
        "tokenscope_webhook_live_lookups_total{{result=\"limited\"}} {unknown}"
    )));
}

#[tokio::test]
async fn whoever_invents_namespaces_takes_nothing_from_those_that_exist() {
    let asked = Asked::new(&CacheBounds::default(), |path| path.contains("/shop/"));
    asked.cache.apply_namespace(namespace("shop"));
    let names: Vec<_> = (0..500).map(|number| format!("invented-{number}")).collect();
    let around = futures::future::join_all(names.iter().map(|name| asked.around(name, "orders")));
    let (invented, real) = futures::join!(around, asked.around("shop", "orders"));
    assert!(real.unwrap().annotations.is_some());
    assert!(invented.iter().all(Result::is_err));
    assert!(asked.requests() <= 10, "{}", asked.requests());
}

#[tokio::test]
async fn over_the_share_and_the_rate_the_reason_is_the_share() {
    let bounds = CacheBounds {
        service_accounts: Share {
            objects: 1,
            bytes: usize::MAX,
        },
        ..CacheBounds::default()
    };
    let asked = Asked::new(&bounds, all);
    asked.cache.apply_namespace(namespace("crowd"));
    for number in 0..200 {
        asked
            .cache
            .apply_service_account(account("crowd", &format!("account-{number}"), &json!({})));
    }
    let names: Vec<_> = (0..200).map(|number| format!("account-{number}")).collect();
    let around = futures::future::join_all(names.iter().map(|name| asked.around("crowd", name))).await;
    let (refused, known): (Vec<_>, Vec<_>) = around
        .into_iter()
        .map(Result::unwrap)
        .partition(|known| known.over_share.is_some());
    assert!(known.iter().all(|known| known.annotations.is_some()) && known.len() >= 8);
    assert!(refused.len() > 150);
    for known in refused {
        let why = known.over_share.unwrap().to_string();
        assert!(
            why.contains("service accounts of namespace crowd take more than"),
            "{why}"
        );
        assert!(known.annotations.is_none());
    }
}

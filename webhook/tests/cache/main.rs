//! The cache's bounds and the lookups' bounds, as reviews meet them.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "this is test code, also outside the tests themselves"
)]

mod lookups;
mod shares;

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
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
use tokenscope_index::WebhookBounds;
use tokenscope_platform::metrics::Registry;
use tokenscope_webhook::cache::Cache;
use tokenscope_webhook::lookup::{AdmissionContext, LiveLookups, LookupError};
use tokenscope_webhook::metrics::WebhookMetrics;

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

/// Where reviews come from, and where a neighbour's come from.
const API_SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
const NEIGHBOUR: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 9, 9));

/// Longer than any test takes.
const HOUR: Duration = Duration::from_secs(3600);

const TAKES: Duration = Duration::from_millis(20);

impl Asked {
    fn new(bounds: &WebhookBounds, has: fn(&str) -> bool) -> Self {
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
        let metrics = WebhookMetrics::new(&registry);
        metrics.show_sizes(&registry, &cache);
        Self {
            lookups: LiveLookups::new(cache.clone(), Client::new(api_server, "default"), metrics, HOUR),
            cache,
            requests,
            at_a_time,
            registry,
        }
    }

    async fn around(&self, namespace: &str, service_account: &str) -> Result<AdmissionContext, LookupError> {
        self.around_for(API_SERVER, namespace, service_account).await
    }

    async fn around_for(
        &self,
        peer: IpAddr,
        namespace: &str,
        service_account: &str,
    ) -> Result<AdmissionContext, LookupError> {
        self.lookups.around(peer, namespace, service_account).await
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

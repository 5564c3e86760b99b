//! When the loop asks the webhook and evicts a pod; no API server is asked.

use jiff::SignedDuration;
use kube::Config;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_core::Settings;
use tokenscope_fixtures::ORDERS as ROLE;
use tokenscope_platform::health::Gates;
use tokenscope_platform::lease::Claim;
use tokio::sync::watch;

use super::*;
use crate::events::{self, EventWriter};
use crate::index::{IndexEvent, Installation};
use crate::issuer::Issuer;
use crate::spiffe_ids::SpiffeIds;

fn now() -> Timestamp {
    "2026-11-22T10:00:00Z".parse().unwrap()
}

fn pod(name: &str, created: &str, labels: &Value, annotations: &Value) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": name, "creationTimestamp": created, "labels": labels,
            "annotations": annotations,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}],
        },
        "spec": {"serviceAccountName": "orders", "containers": [{"name": "app"}]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

/// An index with a policy since six o'clock and these pods.
fn index(pods: &[Value]) -> Index {
    let installation = Installation {
        settings: Settings::default(),
        own_namespace: "tokenscope-system".into(),
        evicts_expired: false,
        review_margin: SignedDuration::from_mins(2),
        spiffe_issuer: None,
        cluster_name: None,
    };
    let mut index = Index::new(installation, SpiffeIds::default());
    let policy = json!({
        "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
        "metadata": {"name": "orders", "namespace": "shop", "uid": "u", "generation": 1, "creationTimestamp": "2026-11-22T06:00:00Z"},
        "spec": {"subjects": [{}], "roles": {"default": ROLE}},
    });
    let namespace = json!({"metadata": {"name": "shop"}});
    let lists = [
        IndexEvent::Namespace(Event::InitApply(serde_json::from_value(namespace).unwrap())),
        IndexEvent::Namespace(Event::InitDone),
        IndexEvent::ServiceAccount(Event::InitDone),
        IndexEvent::Policy(Event::InitDone),
        IndexEvent::ClusterPolicy(Event::InitDone),
        IndexEvent::Boundary(Event::InitDone),
    ];
    let midnight = "2026-11-22T00:00:00Z".parse().unwrap();
    for event in lists {
        index.apply(event, midnight);
    }
    let mut events = vec![
        IndexEvent::Policy(Event::Apply(serde_json::from_value(policy).unwrap())),
        IndexEvent::Issuer(Issuer::Unknown),
    ];
    let pods = pods.iter().map(|pod| serde_json::from_value(pod.clone()).unwrap());
    events.extend(pods.map(|pod| IndexEvent::Pod(Event::Apply(pod))));
    for event in events {
        index.apply(event, now());
    }
    while index.is_dirty(now()) {
        index.reassess(now());
    }
    index
}

fn controller(index: Index) -> (PodController, EventWriter) {
    let (_, claim) = watch::channel(Claim::default());
    let (_, bundles) = watch::channel(None);
    let gates = Gates::default();
    let metrics = Arc::new(OperatorMetrics::default());
    let client = Client::try_from(Config::new("http://127.0.0.1:9".parse().unwrap())).unwrap();
    let leader = Leader::new(claim);
    let (sender, notices) = events::queue(client.clone(), leader.clone(), "operator-0", metrics.clone());
    let controller = PodController {
        client,
        leader,
        index: SharedIndex::new(index),
        events: sender,
        evictions: Evictions {
            missed: true,
            expired: false,
        },
        probe: Probe {
            address: "127.0.0.1:9".into(),
            bundles,
            client_certificate: None,
        },
        heartbeat: gates.heartbeat("pods", Duration::from_secs(300)),
        metrics,
    };
    (controller, notices)
}

#[tokio::test]
async fn a_pod_is_evicted_only_after_the_webhook_itself_has_answered_whatever_pods_say() {
    let missed = pod("missed", "2026-11-22T07:00:00Z", &json!({}), &json!({}));
    let record = json!({"grants": [], "hash": "0", "labels": {}, "annotations": {}}).to_string();
    let forged = [
        pod(
            "a",
            "2026-11-22T09:59:00Z",
            &json!({"tokenscope.io/reviewed": "granted"}),
            &json!({"tokenscope.io/grant": record}),
        ),
        pod(
            "b",
            "2026-11-22T09:59:00Z",
            &json!({"tokenscope.io/reviewed": "untouched"}),
            &json!({}),
        ),
        pod(
            "c",
            "2026-11-22T09:59:00Z",
            &json!({}),
            &json!({"tokenscope.io/reviewed": "granted"}),
        ),
    ];
    let (controller, _notices) = controller(index(&[&[missed], &forged[..]].concat()));
    let index = controller.index.lock().await;
    let (running, mut progress) = (RunningRequests::new(), PodProgress::default());
    let settled = now() + SignedDuration::from_secs(10);

    controller.deal_with(&index, &running, &mut progress, settled);
    assert_eq!(running.len(), 1, "the webhook is asked");
    let later = settled + SignedDuration::from_hours(1);
    controller.deal_with(&index, &running, &mut progress, later);
    assert_eq!(running.len(), 1, "and nothing else is done until it answers");

    PodController::note_answer(&Err(probe::Error::NoAuthority), &mut progress.evidence);
    controller.deal_with(&index, &running, &mut progress, later);
    assert_eq!(running.len(), 1);
    PodController::note_answer(&Ok(()), &mut progress.evidence);
    controller.deal_with(&index, &running, &mut progress, later);
    assert_eq!(running.len(), 2, "a pod is evicted");
    controller.deal_with(&index, &running, &mut progress, later);
    assert_eq!(running.len(), 2, "and the next one later");
}

#[tokio::test]
async fn the_webhook_is_not_asked_where_nothing_is_to_be_evicted() {
    let (mut controller, notices) = controller(index(&[pod("missed", "2026-11-22T07:00:00Z", &json!({}), &json!({}))]));
    controller.evictions.missed = false;
    let index = controller.index.lock().await;
    let (running, mut progress) = (RunningRequests::new(), PodProgress::default());
    controller.deal_with(&index, &running, &mut progress, now() + SignedDuration::from_secs(10));
    assert_eq!(running.len(), 0);
    assert!(notices.next_notice().is_some(), "it is told of all the same");
}

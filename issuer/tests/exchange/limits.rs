//! Limits of pods, addresses and namespaces, beyond which callers are held back.

use std::time::Instant;

use axum::body::Body;
use http::{Request, StatusCode, header};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_index::{PodObject, pod_identity};
use tokenscope_issuer::pods::WatchedPod;
use tokenscope_platform::tls::Peer;

use crate::fixtures::{Cluster, claims, with_header};
use crate::setup::{POD_UID, Setup, form, pod, policy};

/// How many tokens a bucket has got back since: one a second.
fn back_since(began: Instant) -> usize {
    began.elapsed().as_secs() as usize + 1
}

#[tokio::test]
async fn an_address_that_brings_forged_tokens_is_held_back_and_others_are_not() {
    let setup = Setup::new().await;
    let from = |address: &str, subject: &str| {
        let mut request = Request::post("/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form(subject, "sts.amazonaws.com")))
            .unwrap();
        request.extensions_mut().insert(Peer(address.parse().unwrap()));
        request
    };
    let attacker = Cluster::new(Algorithm::ES256);
    let header = json!({"alg": "ES256", "kid": setup.cluster.key.kid()});
    let forged = with_header(&attacker.token(&claims(&json!({}))), &header);
    let (mut held_back, began) = (0, Instant::now());
    for _ in 0..200 {
        let (status, _) = setup.send(from("10.0.0.66", &forged)).await;
        held_back += usize::from(status == StatusCode::SERVICE_UNAVAILABLE);
    }
    let most = 50 + back_since(began);
    assert!(
        held_back + most >= 200,
        "{held_back} are held back, and {most} may be let through"
    );
    let (status, body) = setup.send(from("10.0.0.7", &setup.subject())).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_exchanges_total{outcome=\"issued\"} 1"),
        "{counted}"
    );
    assert!(counted.contains(&format!(
        "tokenscope_issuer_exchanges_total{{outcome=\"limited\"}} {held_back}"
    )));
}

#[tokio::test]
async fn a_pod_that_asks_without_end_is_held_back() {
    let setup = Setup::new().await;
    let (mut issued, began) = (0, Instant::now());
    for _ in 0..40 {
        let (status, _) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
        issued += usize::from(status == StatusCode::OK);
    }
    assert!((20..=20 + back_since(began)).contains(&issued), "{issued}");
}

#[tokio::test]
async fn a_pod_beyond_its_limit_is_counted_by_its_address_too_and_costs_no_signature_then() {
    let setup = Setup::new().await;
    let subject = setup.subject();
    let from = |address: &str| {
        let mut request = Request::post("/token")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Body::from(form(&subject, "sts.amazonaws.com")))
            .unwrap();
        request.extensions_mut().insert(Peer(address.parse().unwrap()));
        request
    };
    let (mut by_address, began) = (0, Instant::now());
    for _ in 0..150 {
        let (_, body) = setup.send(from("10.0.0.8")).await;
        let text = body["error_description"].as_str().unwrap_or_default();
        by_address += usize::from(text.contains("this address"));
    }
    assert!(
        by_address + 2 * back_since(began) >= 60,
        "{by_address}: its own limit of 20 and its address's of 50 are used up"
    );
}

#[tokio::test]
async fn the_pods_of_a_namespace_have_a_limit_together_and_other_namespaces_are_not_touched() {
    let setup = Setup::new().await;
    let uid = |number: usize| format!("5f2c9a10-2c9f-4f57-8d1c-{number:012}");
    let mut refused = String::new();
    // Tokens come back meanwhile, the fewer the faster it goes.
    for number in 0..1000 {
        let mut own = pod("a", "a");
        own["metadata"]["name"] = json!(format!("orders-{number}"));
        own["metadata"]["uid"] = json!(uid(number));
        setup.put_pod(own);
        let bound = json!({"kubernetes.io": {
            "namespace": "shop", "serviceaccount": {"name": "orders", "uid": "account"},
            "pod": {"name": format!("orders-{number}"), "uid": uid(number)},
        }});
        let subject = setup.cluster.token(&claims(&bound));
        let (status, body) = setup.exchange(&subject, "sts.amazonaws.com").await;
        if status != StatusCode::OK {
            refused = body["error_description"].as_str().unwrap().to_owned();
            assert!(number >= 50, "{number}: {refused}");
            break;
        }
    }
    assert!(refused.contains("the pods of namespace shop"), "{refused}");
    let other = of_another_namespace(&setup);
    let (status, body) = setup.exchange(&other, "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

/// The token of a pod of namespace `web`, which has such a policy as the first one.
pub(crate) fn of_another_namespace(setup: &Setup) -> String {
    setup.put_namespace_named("web", &json!({}));
    let mut granting = policy("a");
    granting["metadata"]["namespace"] = json!("web");
    granting["metadata"]["uid"] = json!("policy-uid-of-web");
    setup.put_policy(granting);
    setup.put_pod(pod_of_another_namespace());
    setup.cluster.token(&claims(&json!({
        "sub": "system:serviceaccount:web:orders",
        "kubernetes.io": {
            "namespace": "web", "serviceaccount": {"name": "orders", "uid": "account"},
            "pod": {"name": "orders-1", "uid": "1f2c9a10-2c9f-4f57-8d1c-000000000000"},
        },
    })))
}

pub(crate) fn pod_of_another_namespace() -> Value {
    let mut own = pod("a", "a");
    own["metadata"]["namespace"] = json!("web");
    own["metadata"]["uid"] = json!("1f2c9a10-2c9f-4f57-8d1c-000000000000");
    own
}

/// A pod whose record has about 60 kB of labels, in a phase.
pub(crate) fn heavy(phase: &str) -> WatchedPod {
    let mut heavy = pod("a", "a");
    let record = heavy["metadata"]["annotations"]["tokenscope.io/grant"]
        .as_str()
        .unwrap();
    let mut record: Value = serde_json::from_str(record).unwrap();
    for number in 0..100 {
        record["labels"][format!("example.com/{}-{number}", "k".repeat(250))] = json!("v".repeat(250));
    }
    heavy["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record.to_string());
    heavy["status"]["phase"] = json!(phase);
    serde_json::from_value::<PodObject<WatchedPod>>(heavy).unwrap().kept
}

#[tokio::test]
async fn five_namespaces_that_take_their_whole_share_leave_room_and_beyond_all_room_pods_are_told_to_come_again() {
    let setup = Setup::new().await;
    let heavy = heavy("Running");
    let bytes = heavy.admitted.as_ref().unwrap().bytes();
    assert!(bytes > 40_000, "{bytes}");
    let fill = |namespace: usize| {
        for number in 0..(20 << 20) / bytes {
            let identity = pod_identity(&format!("heavy-{number}"), &format!("heavy-{namespace}"), None);
            setup
                .index
                .apply_pod(Event::Apply(PodObject::new(identity, heavy.clone())));
        }
    };
    (0..5).for_each(fill);
    let later = of_another_namespace(&setup);
    let (status, body) = setup.exchange(&later, "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "{body}");

    (5..11).for_each(fill);
    let identity = pod_identity("orders-2", "shop", None);
    setup
        .index
        .apply_pod(Event::Apply(PodObject::new(identity, heavy.clone())));
    let bound = json!({"kubernetes.io": {
        "namespace": "shop", "serviceaccount": {"name": "orders", "uid": "account"},
        "pod": {"name": "orders-2", "uid": POD_UID},
    }});
    let (error, description) = setup
        .refused_for(&setup.cluster.token(&claims(&bound)), "sts.amazonaws.com")
        .await;
    assert_eq!(error, "temporarily_unavailable", "{description}");
    assert!(
        description.contains("the pods of all namespaces take more than the 200 MiB"),
        "{description}"
    );
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "those that are known are not touched: {body}");
}

#[test]
fn a_pod_that_has_ended_takes_next_to_no_memory() {
    for phase in ["Succeeded", "Failed"] {
        let ended = heavy(phase).admitted.unwrap();
        assert!(ended.finished && ended.bytes() < 400, "{}", ended.bytes());
    }
}

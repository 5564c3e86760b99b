//! Exchanges through the router: who gets a token, who doesn't, and what stays standing under attack.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod events;
mod exhaustion;
mod reviews;
mod setup;
mod token_claims;
#[path = "../world/mod.rs"]
mod world;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::Body;
use http::{Request, StatusCode, header};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use setup::{POD_UID, Setup, URL, form, pod, policy, policy_with};
use tokenscope_core::Algorithm;
use tokenscope_issuer::signers::Signers;
use tokenscope_platform::tls::Peer;
use world::{Cluster, EXCHANGE, NOW, claims, with_header};

#[tokio::test]
async fn a_pod_gets_the_token_that_its_policy_grants_and_the_published_key_verifies_it() {
    let setup = Setup::new().await;
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["token_type"], &body["expires_in"]),
        (&json!("N_A"), &json!(3600))
    );
    let (_, discovery) = setup
        .send(
            Request::get("/a/.well-known/openid-configuration")
                .body(Body::empty())
                .unwrap(),
        )
        .await;
    assert_eq!(
        (&discovery["issuer"], &discovery["jwks_uri"]),
        (&json!(URL), &json!(format!("{URL}/keys")))
    );
    let (_, published) = setup.send(Request::get("/a/keys").body(Body::empty()).unwrap()).await;
    let published: JwkSet = serde_json::from_value(published).unwrap();
    let token = body["access_token"].as_str().unwrap();
    let header = decode_header(token).unwrap();
    let key = DecodingKey::try_from(published.find(header.kid.as_deref().unwrap()).unwrap()).unwrap();
    let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
    validation.set_audience(&["sts.amazonaws.com"]);
    validation.set_issuer(&[URL]);
    validation.validate_exp = false;
    let read = decode::<Value>(token, &key, &validation).unwrap().claims;
    assert_eq!(read["sub"], "system:serviceaccount:shop:orders");
    assert_eq!(read["tokenscope.io/policy"]["uid"], "policy-uid");
    let (_, again) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_ne!(
        again["access_token"], body["access_token"],
        "each token has its own jti"
    );
}

#[tokio::test]
async fn a_label_that_was_patched_onto_a_running_pod_changes_nothing() {
    let setup = Setup::new().await;
    setup.put_pod(pod("a", "b"));
    assert_eq!(
        setup.exchange(&setup.subject(), "sts.amazonaws.com").await.0,
        StatusCode::OK
    );
    setup.put_pod(pod("b", "a"));
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client", "{description}");
}

#[tokio::test]
async fn a_pod_that_is_over_or_another_one_gets_nothing() {
    let setup = Setup::new().await;
    for (member, value, text) in [
        ("/status/phase", json!("Succeeded"), "has ended"),
        ("/status/phase", json!("Failed"), "has ended"),
        ("/metadata/uid", json!("another"), "no pod shop/orders-1 with this UID"),
        (
            "/spec/serviceAccountName",
            json!("admin"),
            "no pod shop/orders-1 with this UID",
        ),
        (
            "/metadata/labels",
            json!({"team": "a"}),
            "no pod shop/orders-1 with this UID",
        ),
        ("/metadata/annotations", json!({}), "no pod shop/orders-1 with this UID"),
    ] {
        let mut changed = pod("a", "a");
        *changed.pointer_mut(member).unwrap() = value;
        setup.put_pod(changed);
        let (error, description) = setup.refused().await;
        assert!(
            error == "invalid_grant" && description.contains(text),
            "{member}: {description}"
        );
    }
    let mut going = pod("a", "a");
    going["metadata"]["deletionTimestamp"] = json!("2001-01-01T00:00:00Z");
    setup.put_pod(going);
    assert_eq!(setup.refused().await.0, "invalid_grant");
}

#[tokio::test]
async fn a_pod_that_the_watch_has_not_told_of_yet_is_asked_to_come_again() {
    let setup = Setup::new().await;
    let mut other = pod("a", "a");
    other["metadata"]["uid"] = json!("of the pod before");
    setup.put_pod(other);
    let fresh = setup.cluster.token(&claims(&json!({"iat": NOW - 1})));
    let (error, description) = setup.refused_for(&fresh, "sts.amazonaws.com").await;
    assert_eq!(error, "temporarily_unavailable", "{description}");
}

#[tokio::test]
async fn an_audience_that_no_policy_grants_is_refused_and_the_granted_ones_are_named() {
    let setup = Setup::new().await;
    let (error, description) = setup.refused_for(&setup.subject(), "https://evil.example").await;
    assert_eq!(error, "invalid_target");
    assert!(description.contains("granted are: sts.amazonaws.com"), "{description}");
    assert_eq!(setup.refused_for(&setup.subject(), EXCHANGE).await.0, "invalid_target");
}

#[tokio::test]
async fn a_policy_that_is_disabled_expired_or_gone_ends_exchanges_at_once() {
    let setup = Setup::new().await;
    for change in [
        json!({"disabled": true}),
        json!({"expiresAt": "2001-01-01T00:00:00Z"}),
        json!({"subjects": []}),
    ] {
        setup.put_policy(policy_with("a", &change));
        assert_eq!(setup.refused().await.0, "unauthorized_client");
    }
    setup.put_policy(policy("a"));
    assert_eq!(
        setup.exchange(&setup.subject(), "sts.amazonaws.com").await.0,
        StatusCode::OK
    );
    let gone = serde_json::from_value(policy("a")).unwrap();
    setup.index.apply_policy(false, Event::Delete(gone));
    assert_eq!(setup.refused().await.0, "unauthorized_client");
}

#[tokio::test]
async fn a_pod_whose_grant_is_not_the_issuers_gets_nothing_from_it() {
    let setup = Setup::new().await;
    setup.put_policy(policy_with("a", &json!({"token": {"source": "ServiceAccount"}})));
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client");
    assert!(description.contains("token.source Issuer"), "{description}");
}

#[tokio::test]
async fn neither_host_nor_forwarded_headers_choose_the_issuer() {
    let setup = Setup::new().await;
    let request = Request::get("/a/.well-known/openid-configuration")
        .header(header::HOST, "evil.example")
        .header("x-forwarded-host", "evil.example")
        .header("x-forwarded-proto", "http")
        .header("forwarded", "host=evil.example");
    let (status, document) = setup.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!((status, &document["issuer"]), (StatusCode::OK, &json!(URL)));
    assert!(!document.to_string().contains("evil"));
    for path in [
        "/.well-known/openid-configuration",
        "/keys",
        "/a/token",
        "/A/keys",
        "/a/keys/",
        "/a//keys",
    ] {
        let (status, _) = setup.send(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn documents_can_be_cached_and_tokens_can_not() {
    use tower::ServiceExt as _;
    let setup = Setup::new().await;
    let get = |tag: Option<&str>| {
        let mut request = Request::get("/a/keys");
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        setup.app.clone().oneshot(request.body(Body::empty()).unwrap())
    };
    let first = get(None).await.unwrap();
    assert_eq!(first.headers()[header::CACHE_CONTROL], "public, max-age=300");
    let tag = first.headers()[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(get(Some(&tag)).await.unwrap().status(), StatusCode::NOT_MODIFIED);
    assert_eq!(get(Some("\"other\"")).await.unwrap().status(), StatusCode::OK);
    let request = Request::post("/token").header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    let body = Body::from(form(&setup.subject(), "sts.amazonaws.com"));
    let issued = setup.app.clone().oneshot(request.body(body).unwrap()).await.unwrap();
    assert_eq!(issued.headers()[header::CACHE_CONTROL], "no-store");
}

#[tokio::test]
async fn what_is_no_form_or_too_long_is_refused_as_rfc_6749_says() {
    let setup = Setup::new().await;
    let json = Request::post("/token").header(header::CONTENT_TYPE, "application/json");
    let (status, body) = setup.send(json.body(Body::from("{}")).unwrap()).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_request"))
    );
    let (status, body) = setup.post(&"a".repeat(1 << 20)).await;
    assert_eq!(
        (status, &body["error"]),
        (StatusCode::BAD_REQUEST, &json!("invalid_request"))
    );
    let (status, _) = setup.send(Request::get("/token").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
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
    let mut held_back = 0;
    for _ in 0..200 {
        let (status, _) = setup.send(from("10.0.0.66", &forged)).await;
        held_back += usize::from(status == StatusCode::SERVICE_UNAVAILABLE);
    }
    assert!(held_back > 140, "{held_back}");
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
    let mut issued = 0;
    for _ in 0..40 {
        let (status, _) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
        issued += usize::from(status == StatusCode::OK);
    }
    assert!((20..30).contains(&issued), "{issued}");
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
    let mut by_address = 0;
    for _ in 0..150 {
        let (_, body) = setup.send(from("10.0.0.8")).await;
        let text = body["error_description"].as_str().unwrap_or_default();
        by_address += usize::from(text.contains("this address"));
    }
    assert!(
        by_address >= 60,
        "{by_address}: its own limit of 20 and its address's of 50 are used up"
    );
}

#[tokio::test]
async fn the_pods_of_a_namespace_have_a_limit_together_and_other_namespaces_are_not_touched() {
    let setup = Setup::new().await;
    let uid = |number: usize| format!("5f2c9a10-2c9f-4f57-8d1c-{number:012}");
    let mut refused = String::new();
    for number in 0..100 {
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
}

#[tokio::test]
async fn labels_and_annotations_that_are_patched_onto_a_pod_by_the_hundred_change_nothing() {
    let setup = Setup::new().await;
    let mut patched = pod("a", "a");
    for number in 0..400 {
        patched["metadata"]["labels"][format!("example.com/l{number}")] = json!("");
        patched["metadata"]["annotations"][format!("tokenscope.io/role-arn.c{number}")] = json!("x");
    }
    setup.put_pod(patched);
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn tokens_of_unknown_keys_make_the_api_server_be_asked_once_and_not_for_each() {
    let setup = Setup::new().await;
    let before = setup.asked.load(Ordering::Relaxed);
    let other = Cluster::new(Algorithm::ES256);
    for _ in 0..20 {
        let (error, _) = setup
            .refused_for(&other.token(&claims(&json!({}))), "sts.amazonaws.com")
            .await;
        assert_eq!(error, "invalid_grant");
    }
    assert_eq!(setup.asked.load(Ordering::Relaxed), before, "it was asked a moment ago");
}

#[tokio::test]
async fn without_keys_nothing_is_signed_and_nothing_published() {
    let setup = Setup::new().await;
    setup.signers.store(None);
    let (error, description) = setup.refused().await;
    assert_eq!(error, "temporarily_unavailable", "{description}");
    let (status, _) = setup.send(Request::get("/a/keys").body(Body::empty()).unwrap()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let keys = tokenscope_issuer::keys::SigningKey::generate(Algorithm::ES256).unwrap();
    let ring = tokenscope_issuer::rotation::KeyRing::of_signing_keys([keys], jiff::Timestamp::UNIX_EPOCH).unwrap();
    let silent = Signers::new(ring, &URL.parse().unwrap()).silenced();
    setup.signers.store(Some(Arc::new(silent)));
    assert_eq!(setup.refused().await.0, "temporarily_unavailable");
    let (status, _) = setup.send(Request::get("/a/keys").body(Body::empty()).unwrap()).await;
    assert_eq!(
        status,
        StatusCode::OK,
        "keys that sign no more are published all the same"
    );
    let empty = Signers::new(tokenscope_issuer::rotation::KeyRing::default(), &URL.parse().unwrap());
    setup.signers.store(Some(Arc::new(empty)));
    assert_eq!(setup.refused().await.0, "temporarily_unavailable");
}

#[tokio::test]
async fn no_answer_to_a_refused_exchange_repeats_the_token() {
    let setup = Setup::new().await;
    let subject = setup.cluster.token(&claims(&json!({"exp": NOW - 100})));
    let (status, body) = setup.exchange(&subject, "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let part = subject.split('.').nth(1).unwrap();
    assert!(
        !body.to_string().contains(part) && !body.to_string().contains(POD_UID),
        "{body}"
    );
}

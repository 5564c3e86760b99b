//! Exchanges through the router: who gets a token, who doesn't, and what stays standing under attack.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

mod cluster_keys;
mod documents;
mod events;
mod exhaustion;
#[path = "../fixtures/mod.rs"]
mod fixtures;
mod forms;
mod limits;
mod reviews;
mod service_accounts;
mod setup;
mod shares;
mod token_claims;

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fixtures::{EXCHANGE, NOW, claims};
use http::{Request, StatusCode, header};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation, decode, decode_header};
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use setup::{POD_UID, Setup, URL, form, pod, policy, policy_with};
use tokenscope_core::Algorithm;
use tokenscope_issuer::signers::Signers;

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
async fn a_policy_that_is_disabled_expired_closed_or_gone_ends_exchanges_at_once() {
    let setup = Setup::new().await;
    for change in [
        json!({"disabled": true}),
        json!({"expiresAt": "2001-01-01T00:00:00Z"}),
        // It is 8 o'clock.
        json!({"activeSchedule": {"cron": "0 6 * * *", "duration": "1h", "timeZone": "UTC"}}),
        json!({"subjects": []}),
    ] {
        setup.put_policy(policy_with("a", &change));
        assert_eq!(setup.refused().await.0, "unauthorized_client");
    }
    let open = json!({"activeSchedule": {"cron": "0 7 * * *", "duration": "2h", "timeZone": "UTC"}});
    for granting in [policy_with("a", &open), policy("a")] {
        setup.put_policy(granting);
        assert_eq!(
            setup.exchange(&setup.subject(), "sts.amazonaws.com").await.0,
            StatusCode::OK
        );
    }
    let gone = serde_json::from_value(policy("a")).unwrap();
    setup.index.apply_policy(false, Event::Delete(gone));
    assert_eq!(setup.refused().await.0, "unauthorized_client");
}

#[tokio::test]
async fn a_policy_with_an_algorithm_that_the_installation_does_not_have_is_refused_in_words_and_told_of() {
    let setup = Setup::new().await;
    setup.put_policy(policy_with(
        "a",
        &json!({"token": {"source": "Issuer", "algorithm": "ES384"}}),
    ));
    let (error, description) = setup.refused().await;
    // The sidecars of pods that have a token go on with it: nobody withdrew anything.
    assert_eq!(error, "temporarily_unavailable", "{description}");
    for word in [
        "TokenScopePolicy shop/orders",
        "ES384 (spec.token.algorithm)",
        "signs with ES256 alone",
        "issuer.keys.algorithms",
    ] {
        assert!(description.contains(word), "{word}: {description}");
    }
    assert!(setup.told.next_notice().unwrap().message.contains(&description));
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_exchanges_total{outcome=\"not_granted\"} 1"),
        "{counted}"
    );
    // A key that is published and waits will sign: then the pod comes again, and nobody is told of a mistake.
    let ring = setup.signers.load_full().unwrap().ring().clone();
    let waiting = tokenscope_issuer::keys::SigningKey::generate(Algorithm::ES384).unwrap();
    let ring = ring.with_published(waiting, jiff::Timestamp::UNIX_EPOCH).unwrap();
    setup
        .signers
        .store(Some(Arc::new(Signers::new(ring, &URL.parse().unwrap()))));
    assert_eq!(setup.refused().await.0, "temporarily_unavailable");
    assert!(setup.told.next_notice().is_none());
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
async fn a_pod_whose_role_an_association_of_eks_pod_identity_decides_gets_nothing_even_if_a_policy_would_grant_it() {
    let setup = Setup::new().await;
    let mut associated = pod("a", "a");
    let record = associated["metadata"]["annotations"]["tokenscope.io/grant"]
        .as_str()
        .unwrap();
    let mut record: Value = serde_json::from_str(record).unwrap();
    record["grants"][0]["role"] = json!("EKS Pod Identity association");
    record["association"] = json!({});
    associated["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record.to_string());
    setup.put_pod(associated);
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
async fn the_discovery_document_lists_the_claims_of_tokens_with_the_context_keys_that_policies_have_now() {
    let setup = Setup::new().await;
    let listed = async || {
        let request = Request::get("/a/.well-known/openid-configuration");
        let (status, discovery) = setup.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        let claims = discovery["claims_supported"].as_array().unwrap().clone();
        claims
            .iter()
            .map(|claim| claim.as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let plain = listed().await;
    assert!(plain.contains(&"https://aws.amazon.com/tags".to_owned()), "{plain:?}");
    assert!(!plain.iter().any(|claim| claim.starts_with("tokenscope_")), "{plain:?}");
    let context = json!({"claims": {"context": {"team": "${pod.labels['team']}", "stage": "test"}}});
    setup.put_policy(policy_with("a", &context));
    let added = ["tokenscope_stage".to_owned(), "tokenscope_team".to_owned()];
    assert_eq!(listed().await, [plain.clone(), added.to_vec()].concat());
    // What a token has is what is listed.
    let (status, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    let listed_now = listed().await;
    for claim in claims.as_object().unwrap().keys() {
        assert!(listed_now.contains(claim), "{claim} is not in {listed_now:?}");
    }
    setup.put_policy(policy("a"));
    assert_eq!(listed().await, plain);
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
    assert_eq!(issued.headers()[header::PRAGMA], "no-cache");
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

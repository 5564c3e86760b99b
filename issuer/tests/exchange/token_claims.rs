//! What the tokens of an exchange say: exactly what the policy grants, filled from the record of admission.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};
use tokenscope_issuer::cluster_index::ClusterIndex;

use crate::fixtures::{NOW, claims};
use crate::setup::{POD_UID, ROLE, Setup, URL, earlier, form, pod, policy, policy_with, recorded};

const STS: &str = "sts.amazonaws.com";

/// The claims of the token that `subject` is exchanged for.
pub(crate) async fn issued_for(setup: &Setup, subject: &str) -> Value {
    let (status, body) = setup.exchange(subject, STS).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

pub(crate) async fn issued(setup: &Setup) -> Value {
    issued_for(setup, &setup.subject()).await
}

/// A policy whose tokens have one session tag, with this template.
fn tagged(template: &str) -> Value {
    policy_with("a", &json!({"claims": {"principalTags": {"Team": template}}}))
}

/// A pod with these labels in its record of admission.
fn admitted_with(labels: &Value) -> Value {
    recorded(pod("a", "a"), "labels", labels)
}

#[tokio::test]
async fn a_token_says_exactly_what_its_policy_grants() {
    let setup = Setup::new().await;
    setup.put_namespace(&json!({"cost-center": "42"}));
    setup.put_policy(policy_with(
        "a",
        &json!({
            "token": {"source": "Issuer", "algorithm": "ES256", "subjectFormat": "Policy", "expirationSeconds": 900},
            "claims": {
                "principalTags": {"Team": "${pod.labels['team']}", "Where": "${namespace}/${pod.name}"},
                "transitiveTagKeys": ["Team"],
                "sourceIdentity": "${namespace}.${serviceAccount}",
                "context": {"cost": "${namespace.labels['cost-center']}", "pod": "${pod.uid}"},
            },
        }),
    ));
    let mut token = issued(&setup).await;
    let id = token.as_object_mut().unwrap().remove("jti").unwrap();
    assert_eq!(id.as_str().unwrap().len(), 22, "128 bits in base64url");
    assert_eq!(
        token,
        json!({
            "iss": URL, "aud": STS, "sub": "tokenscope:tsp:shop:orders:orders",
            "iat": NOW, "nbf": NOW, "exp": NOW + 900,
            "https://aws.amazon.com/tags": {
                "principal_tags": {"Team": ["a"], "Where": ["shop/orders-1"]},
                "transitive_tag_keys": ["Team"],
            },
            "https://aws.amazon.com/source_identity": "shop.orders",
            "tokenscope_cost": "42", "tokenscope_pod": POD_UID,
            "tokenscope.io/policy":
                {"kind": "TokenScopePolicy", "namespace": "shop", "name": "orders", "uid": "policy-uid"},
        })
    );
}

#[tokio::test]
async fn a_token_ends_with_its_subject_token_and_no_later_than_what_is_granted_and_asked_for() {
    let setup = Setup::new().await;
    let until = |end: i64| setup.cluster.token(&claims(&json!({"exp": NOW + end})));
    for (end, lifetime) in [(86_400, 3600), (3600, 3600), (1000, 1000), (60, 60)] {
        assert_eq!(issued_for(&setup, &until(end)).await["exp"], NOW + lifetime);
    }
    // The clocks may differ, but a token that is over brings no other.
    for end in [59, 1, 0, -5] {
        let (error, description) = setup.refused_for(&until(end), STS).await;
        assert_eq!(error, "invalid_grant");
        let ends = format!("the subject token ends in {end} s");
        assert!(description.contains(&ends), "{description}");
    }
    let asking = async |seconds: &str| {
        let body = format!("{}&expires_in={seconds}", form(&setup.subject(), STS));
        setup.post(&body).await.1
    };
    for (asked, given) in [("600", 600), ("60", 60), ("86400", 3600), ("4294967295", 3600)] {
        assert_eq!(asking(asked).await["expires_in"], given, "{asked}");
    }
    for asked in ["59", "0", "4294967296"] {
        assert_eq!(asking(asked).await["error"], "invalid_request", "{asked}");
    }
}

#[tokio::test]
async fn a_token_for_a_third_party_is_signed_only_where_the_policy_gives_one_and_says_nothing_to_aws() {
    const CLAUDE: &str = "https://api.anthropic.com";
    let setup = Setup::new().await;
    let claims_for_aws = json!({"principalTags": {"Team": "${pod.labels['team']}"}, "sourceIdentity": "${namespace}.a", "context": {"x": "y"}});
    let giving = |source: &str, more: &Value| {
        let mut spec = json!({
            "token": {"source": "Issuer", "algorithm": "ES256"}, "claims": claims_for_aws,
            "outboundTokens": [{"name": "claude", "audience": CLAUDE, "source": source, "expirationSeconds": 900}],
        });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        policy_with("a", &spec)
    };
    setup.put_policy(giving("Issuer", &json!({})));
    let (status, body) = setup.exchange(&setup.subject(), CLAUDE).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let payload = body["access_token"].as_str().unwrap().split('.').nth(1).unwrap();
    let mut token: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
    token.as_object_mut().unwrap().remove("jti");
    assert_eq!(
        token,
        json!({
            "iss": URL, "aud": CLAUDE, "sub": "system:serviceaccount:shop:orders",
            "iat": NOW, "nbf": NOW, "exp": NOW + 900,
            "tokenscope.io/policy":
                {"kind": "TokenScopePolicy", "namespace": "shop", "name": "orders", "uid": "policy-uid"},
        })
    );
    // That of the role still says all of it.
    assert_eq!(issued(&setup).await["https://aws.amazon.com/source_identity"], "shop.a");

    // What the cluster signs for the pod, the issuer doesn't; and a policy that gives nothing gives nothing.
    for policy in [
        giving("ServiceAccount", &json!({})),
        policy_with("a", &json!({"token": {"source": "Issuer", "algorithm": "ES256"}})),
        giving("Issuer", &json!({"disabled": true})),
    ] {
        setup.put_policy(policy);
        let (status, body) = setup.exchange(&setup.subject(), CLAUDE).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    }
}

#[tokio::test]
async fn a_tag_has_the_label_of_admission_and_not_the_one_that_was_patched_on() {
    let setup = Setup::new().await;
    setup.put_policy(tagged("${pod.labels['team']}"));
    setup.put_pod(pod("a", "b"));
    let tags = &issued(&setup).await["https://aws.amazon.com/tags"];
    assert_eq!(tags["principal_tags"], json!({"Team": ["a"]}));
}

#[tokio::test]
async fn a_label_that_the_pod_was_admitted_without_refuses_the_token_though_it_bears_it_now() {
    let setup = Setup::new().await;
    setup.put_policy(tagged("${pod.labels['late']}"));
    let mut patched = pod("a", "a");
    patched["metadata"]["labels"]["late"] = json!("x");
    setup.put_pod(patched);
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client");
    assert!(
        description.starts_with(
            "TokenScopePolicy shop/orders: spec.claims.principalTags[Team] needs ${pod.labels['late']}, which this pod does not have"
        ),
        "{description}"
    );
}

#[tokio::test]
async fn a_label_that_breaks_a_rule_of_aws_refuses_the_token_and_is_named() {
    let setup = Setup::new().await;
    setup.put_policy(tagged("${pod.labels['l']}"));
    for label in ["a;b", "e\u{301}", "\"},\"admin\":[\"true", "aws:x"] {
        setup.put_pod(admitted_with(&json!({"team": "a", "l": label})));
        let (error, description) = setup.refused().await;
        assert_eq!(error, "unauthorized_client");
        let named = "TokenScopePolicy shop/orders: spec.claims.principalTags[Team] would be";
        assert!(
            description.starts_with(named) && description.contains("by ${pod.labels['l']}"),
            "{description}"
        );
    }
    setup.put_policy(policy_with(
        "a",
        &json!({"claims": {"sourceIdentity": "${pod.labels['team']}"}}),
    ));
    setup.put_pod(pod("a", "a"));
    let (_, description) = setup.refused().await;
    assert!(
        description.starts_with("TokenScopePolicy shop/orders: spec.claims.sourceIdentity would be")
            && description.contains("by ${pod.labels['team']}"),
        "{description}"
    );
    let counted = setup.registry.encode().unwrap();
    assert!(
        counted.contains("tokenscope_issuer_exchanges_total{outcome=\"invalid_claims\"} 5"),
        "{counted}"
    );
}

#[tokio::test]
async fn a_service_account_with_a_name_too_long_for_a_subject_gets_the_hashed_one() {
    let setup = Setup::new().await;
    let name = "s".repeat(240);
    let mut changed = pod("a", "a");
    changed["spec"]["serviceAccountName"] = json!(name);
    setup.put_pod(changed);
    setup.put_policy(policy_with("a", &json!({"subjects": [{"serviceAccounts": ["*"]}]})));
    let mut subject = claims(&json!({"sub": format!("system:serviceaccount:shop:{name}")}));
    subject["kubernetes.io"]["serviceaccount"]["name"] = json!(name);
    let token = issued_for(&setup, &setup.cluster.token(&subject)).await;
    let hash = token["sub"]
        .as_str()
        .unwrap()
        .strip_prefix("tokenscope:sha256:")
        .unwrap();
    assert_eq!(hash.len(), 64);
}

#[tokio::test]
async fn the_name_of_the_cluster_stands_before_the_subject() {
    let setup = Setup::of_cluster(Some("eu-1".parse().unwrap())).await;
    assert_eq!(issued(&setup).await["sub"], "eu-1/system:serviceaccount:shop:orders");
}

#[tokio::test]
async fn a_policy_whose_uid_is_not_known_grants_nothing_yet() {
    let setup = Setup::new().await;
    let mut unknown = policy("a");
    unknown["metadata"].as_object_mut().unwrap().remove("uid");
    setup.put_policy(unknown);
    let (error, description) = setup.refused().await;
    assert_eq!(error, "temporarily_unavailable", "{description}");
}

#[tokio::test]
async fn claims_that_a_policy_got_after_admission_are_refused_beyond_a_boundary_and_granted_inside() {
    let setup = Setup::new().await;
    let boundary = |template: &str| json!({"roles": [ROLE], "claims": {"principalTags": {"Team": template}}});
    setup.list_boundaries(&[boundary("${namespace.labels['team']}")]);
    setup.put_policy(tagged("admin"));
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client");
    assert!(description.contains("spec.claims.principalTags[Team]"), "{description}");

    setup.list_boundaries(&[boundary("admin")]);
    let tags = &issued(&setup).await["https://aws.amazon.com/tags"];
    assert_eq!(tags["principal_tags"], json!({"Team": ["admin"]}));

    setup.list_boundaries(&[json!({"roles": []})]);
    assert_eq!(
        setup.refused().await.0,
        "unauthorized_client",
        "a boundary that can't be read allows nothing"
    );
}

#[tokio::test]
async fn nothing_is_granted_before_policies_and_boundaries_were_listed() {
    let index = ClusterIndex::default();
    let stored = |object: Value| serde_json::from_value(object).unwrap();
    index.apply_policy(false, Event::Init);
    index.apply_policy(false, Event::InitApply(stored(policy("a"))));
    index.apply_policy(false, Event::InitDone);
    index.apply_policy(true, Event::Init);
    index.apply_policy(true, Event::InitDone);
    index.apply_boundary(Event::Init);
    assert!(index.policies().is_none());
    index.apply_boundary(Event::InitDone);
    assert_eq!(index.policies().unwrap().iter().count(), 1);
}

#[tokio::test]
async fn after_a_start_nobody_is_refused_for_what_was_not_listed_yet() {
    let setup = Setup::just_started().await;
    let long_ago = NOW - 600;
    let unknown = json!({"iat": long_ago, "nbf": long_ago, "kubernetes.io": {
        "namespace": "shop", "serviceaccount": {"name": "orders", "uid": "account"},
        "pod": {"name": "orders-2", "uid": "5f2c9a10-2c9f-4f57-8d1c-000000000002"},
    }});
    let unknown = setup.cluster.token(&claims(&unknown));
    // The record of its admission says what its service account said.
    issued(&setup).await;
    // Without that, the service account may have annotations that decide.
    setup.put_pod(earlier(pod("a", "a")));
    assert_eq!(setup.refused().await.0, "temporarily_unavailable");
    setup.list_service_accounts();
    issued(&setup).await;
    assert_eq!(setup.refused_for(&unknown, STS).await.0, "temporarily_unavailable");
    setup.list_pods(vec![pod("a", "a")]);
    assert_eq!(setup.refused_for(&unknown, STS).await.0, "invalid_grant");
    issued(&setup).await;
}

#[tokio::test]
async fn containers_whose_policies_demand_different_tokens_of_one_audience_get_none() {
    const OTHER: &str = "arn:aws:iam::111122223333:role/shop/side";
    let setup = Setup::new().await;
    let roles = json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/role-arn.side": OTHER});
    let record = json!({
        "grants": [
            {"policy": "TokenScopePolicy shop/orders", "role": ROLE, "containers": ["app"], "env": []},
            {"policy": "TokenScopePolicy shop/side", "role": OTHER, "containers": ["side"], "env": []},
        ],
        "hash": "0011223344556677", "labels": {"team": "a"}, "annotations": roles, "service_account_annotations": {},
    });
    let mut two = pod("a", "a");
    two["spec"]["containers"] = json!([{"name": "app"}, {"name": "side"}]);
    two["metadata"]["annotations"] = roles;
    two["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record.to_string());
    setup.put_pod(two);
    let mut other = policy_with("a", &json!({"roles": {"allowed": [OTHER]}}));
    other["metadata"]["name"] = json!("side");
    setup.put_policy(other);
    let (error, description) = setup.refused().await;
    assert_eq!(error, "unauthorized_client");
    assert!(
        description.contains("shop/orders grants container app")
            && description.contains("shop/side grants container side a token"),
        "{description}"
    );
}

#[tokio::test]
async fn a_token_of_the_issuer_itself_is_exchanged_for_nothing() {
    let setup = Setup::new().await;
    let (_, body) = setup.exchange(&setup.subject(), "sts.amazonaws.com").await;
    let issued = body["access_token"].as_str().unwrap();
    let (error, description) = setup.refused_for(issued, "sts.amazonaws.com").await;
    assert_eq!(error, "invalid_grant", "{description}");
}

#[tokio::test]
async fn two_hundred_kilobytes_of_labels_or_annotations_are_no_claim_and_make_no_long_answer() {
    let setup = Setup::new().await;
    setup.put_policy(tagged("${pod.labels['l']}"));
    let long = "x\u{1F980}\"".repeat(40_000);
    // A record that no admission writes: whoever wrote it could write any.
    setup.put_pod(admitted_with(&json!({"team": "a", "l": long})));
    let (_, description) = setup.refused().await;
    assert!(description.len() <= 1024, "{} bytes", description.len());

    let mut patched = admitted_with(&json!({"team": "a", "l": "blue"}));
    patched["metadata"]["labels"]["l"] = json!(long);
    patched["metadata"]["annotations"]["example.com/note"] = json!(long);
    setup.put_pod(patched);
    let claims = issued(&setup).await;
    assert_eq!(
        claims["https://aws.amazon.com/tags"]["principal_tags"],
        json!({"Team": ["blue"]})
    );
}

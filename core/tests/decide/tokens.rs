//! The token of a grant: how long it is valid, for whom it is, and who signs it.

use std::sync::LazyLock;

use jiff::Timestamp;
use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{Workload, asking, container, now, policy};

#[test]
fn a_workload_may_shorten_its_token_but_not_lengthen_it() {
    let granted = asking(ORDERS)
        .with(annotations::TOKEN_EXPIRATION, "600")
        .granted([policy("p")]);
    assert_eq!(granted.containers[0].grant.expiration.seconds(), 600);

    let refusal = asking(ORDERS)
        .with(annotations::TOKEN_EXPIRATION, "7200")
        .refused([policy("p")]);
    assert!(
        refusal.contains("at most 3600 seconds and the workload asks for 7200"),
        "{refusal}"
    );
}

#[test]
fn an_audience_outside_the_policy_is_denied_and_its_default_is_used_otherwise() {
    let audiences = Audiences {
        allowed: vec!["one".parse().unwrap(), "two".parse().unwrap()],
        default: Some("two".parse().unwrap()),
    };
    let policy = Policy {
        audiences,
        ..policy("p")
    };

    assert_eq!(
        asking(ORDERS).granted([policy.clone()]).containers[0]
            .grant
            .audience
            .as_str(),
        "two"
    );
    let asked = asking(ORDERS)
        .with(annotations::AUDIENCE, "one")
        .granted([policy.clone()]);
    assert_eq!(asked.containers[0].grant.audience.as_str(), "one");
    let refusal = asking(ORDERS).with(annotations::AUDIENCE, "three").refused([policy]);
    assert!(
        refusal.contains("does not allow audience three: its audiences.allowed has one, two"),
        "{refusal}"
    );
}

#[test]
fn a_source_of_a_later_version_is_refused_in_plain_words() {
    let mut policy = policy("p");
    policy.token.source = TokenSource::Issuer;
    let refusal = asking(ORDERS).refused([policy]);
    assert!(
        refusal.contains("wants tokens from Issuer, which is not available in this version: set its token.source to ServiceAccount or SPIFFE"),
        "{refusal}"
    );
}

fn from_spiffe(name: &str) -> Policy {
    let mut policy = policy(name);
    policy.token.source = TokenSource::Spiffe;
    policy
}

#[test]
fn a_spiffe_provider_decides_how_long_its_tokens_are_valid() {
    let mut pinned = from_spiffe("p");
    pinned.token.spiffe.id = Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap());
    let asking_longer = asking(ORDERS).with(annotations::TOKEN_EXPIRATION, "86400");

    let granted = asking_longer.granted([pinned.clone()]);
    let grant = &granted.containers[0].grant;
    assert_eq!(grant.source, TokenSource::Spiffe);
    assert_eq!(grant.spiffe, pinned.token.spiffe);
    assert!(
        granted.warnings[0].contains("the SPIFFE provider decides"),
        "{:?}",
        granted.warnings
    );
    assert!(asking(ORDERS).granted([pinned]).warnings.is_empty());

    let hash = |grant: &Grant| Fingerprint::of("orders", [("app", grant)]);
    let mut longer = Grant::clone(grant);
    longer.expiration = TokenExpiration::DAY;
    assert_eq!(hash(grant), hash(&longer), "what changes nothing makes no pod outdated");
    let mut other = Grant::clone(grant);
    other.spiffe.hint = Some("aws".parse().unwrap());
    assert_ne!(hash(grant), hash(&other));
}

#[test]
fn one_pod_has_one_kind_of_token_and_one_identity() {
    let of = |name: &str, container: &str, mut policy: Policy| {
        policy.name = PolicyName::namespaced("shop", name);
        policy.containers.include = vec![Glob::new(container)];
        policy
    };
    let two = || Workload {
        containers: vec![container("app"), container("web")],
        ..asking(ORDERS)
    };

    let refusal = two().refused([of("a", "app", from_spiffe("a")), of("b", "web", policy("b"))]);
    assert!(
        refusal.contains("container app would get its token from SPIFFE and container web from ServiceAccount"),
        "{refusal}"
    );
    let mut hinted = from_spiffe("b");
    hinted.token.spiffe.hint = Some("aws".parse().unwrap());
    let refusal = two().refused([of("a", "app", from_spiffe("a")), of("b", "web", hinted)]);
    assert!(
        refusal.contains("containers app and web would get tokens of different SPIFFE identities"),
        "{refusal}"
    );
    assert_eq!(two().granted([from_spiffe("a")]).containers.len(), 2);
}

fn trust_context(issuer: &str) -> TrustContext<'_> {
    static STS: LazyLock<Audience> = LazyLock::new(Audience::sts);
    static NONE: LazyLock<Unserved<'static>> = LazyLock::new(Unserved::default);
    TrustContext {
        issuer,
        default_audience: &STS,
        cluster: None,
        namespaces: Vec::new(),
        unserved: &NONE,
        now: now(),
    }
}

#[test]
fn a_trust_policy_for_spiffe_is_about_one_identity_or_there_is_none() {
    let role: RoleArn = ORDERS.parse().unwrap();
    let trust = |policy: &Policy| trust_policy(policy, &role, &trust_context("https://oidc.example.org"));
    let mut policy = from_spiffe("p");
    policy.token.spiffe.trust_domain = Some("example.org".parse().unwrap());
    assert_eq!(trust(&policy), None, "all of a trust domain is too much");

    policy.token.spiffe.id = Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap());
    let trust = trust(&policy).unwrap();
    assert_eq!(
        serde_json::to_value(&trust.document).unwrap()["Statement"][0]["Condition"],
        serde_json::json!({"StringEquals": {
            "oidc.example.org:aud": "sts.amazonaws.com",
            "oidc.example.org:sub": "spiffe://example.org/ns/shop/sa/orders",
        }})
    );
    assert_eq!(trust.notes.len(), 1);
}

#[test]
fn a_policy_whose_context_keys_have_no_room_beside_older_ones_grants_nothing() {
    let with_context = |name: &str, created: i64, keys: std::ops::Range<usize>| {
        let mut policy = policy(name);
        policy.created = Some(Timestamp::from_second(created).unwrap());
        policy.token.source = TokenSource::Issuer;
        let context = keys.map(|key| (format!("k{key}").into(), "x".parse().unwrap()));
        policy.claims = std::sync::Arc::new(Claims {
            context: context.collect(),
            ..Claims::default()
        });
        policy
    };
    let settings = Settings {
        issuer: Some("https://tokens.example.com".into()),
        policy_required: false,
        ..Settings::default()
    };
    let mut other = with_context("a", 2, 0..10);
    other.subjects = vec![Subject {
        service_accounts: vec![Glob::new("another")],
        pod_selector: None,
    }];
    let workload = asking(ORDERS);
    let decision = |created: i64| {
        let policies: PolicySet = [other.clone(), with_context("z", created, 9..11)].into_iter().collect();
        decide(&workload.request(), &policies, &settings, now())
    };

    let Decision::Denied(denied) = decision(3) else {
        panic!("not denied")
    };
    let message = denied.to_string();
    assert!(
        message.contains("shop/z grants nothing: spec.claims.context[k10] would be one key too many"),
        "{message}"
    );
    assert!(
        matches!(decision(2), Decision::Denied(_)),
        "of the same second the names decide"
    );
    assert!(
        matches!(decision(1), Decision::Granted(_)),
        "the older one has its keys"
    );
}

#[test]
fn a_session_name_is_left_out_where_sts_would_refuse_it() {
    let named = |template: &str, label| {
        let aws = AwsSettings {
            role_session_name: Some(template.parse().unwrap()),
            ..AwsSettings::default()
        };
        let workload = Workload {
            pod_labels: vec![("team", label)],
            ..asking(ORDERS)
        };
        workload.granted([Policy { aws, ..policy("p") }]).containers[0]
            .grant
            .session_name
            .clone()
    };

    assert_eq!(named("${pod.name}", "core"), Some(SessionName::PodName));
    assert_eq!(
        named("${namespace}.${pod.labels['team']}", "core"),
        Some(SessionName::Text("shop.core".into()))
    );
    assert_eq!(named("${pod.labels['team']}", "c"), None, "too short");
    assert_eq!(named("${pod.labels['tier']}", "core"), None, "no such label");
}

#[test]
fn a_trust_policy_says_what_iam_can_and_notes_what_it_can_not() {
    let mut policy = policy("orders");
    policy.subjects.push(Subject {
        service_accounts: vec![Glob::new("orders-*")],
        pod_selector: Some(Selector(vec![Requirement {
            key: "app".into(),
            operator: SelectorOperator::Exists,
        }])),
    });
    let role: RoleArn = "arn:aws-cn:iam::111122223333:role/shop/orders".parse().unwrap();
    let trust = trust_policy(&policy, &role, &trust_context("https://oidc.example.com/cluster")).unwrap();

    assert_eq!(
        serde_json::to_value(&trust.document).unwrap(),
        serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"Federated": "arn:aws-cn:iam::111122223333:oidc-provider/oidc.example.com/cluster"},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {"oidc.example.com/cluster:aud": "sts.amazonaws.com"},
                    "StringLike": {"oidc.example.com/cluster:sub": [
                        "system:serviceaccount:shop:orders", "system:serviceaccount:shop:orders-*"]},
                },
            }],
        })
    );
    assert_eq!(
        trust.notes,
        ["a trust policy can't express podSelector, so every pod of these service accounts is trusted"]
    );
}

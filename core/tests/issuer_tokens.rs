//! Policies whose tokens tokenscope's own issuer signs: a pod has one such token for each audience, and it says what one policy grants.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use jiff::Timestamp;
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, policy};

const CARTS: &str = "arn:aws:iam::111122223333:role/shop/carts";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn decided(annotations: &[(&str, &str)], policies: &[Policy]) -> Decision {
    let container = |name| ContainerFacts {
        name,
        own_role: OwnRole::Absent,
        own_token_file: false,
        own_agent: false,
        own_configuration: tokenscope_core::OwnConfiguration::Absent,
    };
    let request = Request {
        pod: PodFacts {
            annotation_count: annotations.len(),
            annotations: annotations.iter().copied().collect(),
            containers: ["app", "worker"].map(container).into(),
            ..PodFacts::default()
        },
        namespace: "shop",
        namespace_labels: Pairs::default(),
        service_account: "orders",
        service_account_annotations: Pairs::default(),
    };
    let settings = Settings {
        issuer: Some("https://tokens.example.com".into()),
        ..Settings::default()
    };
    decide(&request, &policies.iter().cloned().collect(), &settings, now())
}

fn granted(annotations: &[(&str, &str)], policies: &[Policy]) -> Granted {
    match decided(annotations, policies) {
        Decision::Granted(granted) => granted,
        other => unreachable!("{other:?}"),
    }
}

fn refused(annotations: &[(&str, &str)], policies: &[Policy]) -> String {
    match decided(annotations, policies) {
        Decision::Denied(denied) => denied.to_string(),
        other => unreachable!("{other:?}"),
    }
}

/// A policy with source Issuer that allows a role.
fn from_issuer(name: &str, role: &str) -> Policy {
    let mut policy = policy(name);
    policy.roles.allowed = vec![role.parse().unwrap()];
    policy.token.source = TokenSource::Issuer;
    policy
}

/// The same with the role as its default.
fn assigning(name: &str, role: &str) -> Policy {
    let mut policy = from_issuer(name, role);
    policy.roles.default = Some(role.parse().unwrap());
    policy
}

fn with_tag(mut policy: Policy, value: &str) -> Policy {
    let tags = [("tenant".into(), value.parse().unwrap())].into();
    policy.claims = Claims {
        principal_tags: tags,
        ..Claims::default()
    }
    .into();
    policy
}

const TWO_ROLES: [(&str, &str); 2] = [
    ("tokenscope.io/role-arn.app", ORDERS),
    ("tokenscope.io/role-arn.worker", CARTS),
];

#[test]
fn two_containers_with_one_audience_and_tokens_by_two_policies_are_refused_and_both_policies_are_named() {
    let (orders, carts) = (from_issuer("orders", ORDERS), from_issuer("carts", CARTS));
    let refusal = refused(&TWO_ROLES, &[orders.clone(), carts.clone()]);
    assert!(
        refusal.starts_with(
            "TokenScopePolicy shop/orders grants container app and TokenScopePolicy shop/carts grants container worker \
             a token of tokenscope's issuer for audience sts.amazonaws.com"
        ),
        "{refusal}"
    );

    let mut both = orders.clone();
    both.roles.allowed.extend(carts.roles.allowed.clone());
    assert_eq!(granted(&TWO_ROLES, &[both]).containers.len(), 2, "one policy for both");

    let mut elsewhere = carts.clone();
    elsewhere.audiences.default = Some("sts.amazonaws.com.cn".parse().unwrap());
    assert_eq!(
        granted(&TWO_ROLES, &[orders.clone(), elsewhere]).containers.len(),
        2,
        "another audience"
    );

    let of_the_cluster = [orders, carts].map(|mut policy| {
        policy.token.source = TokenSource::ServiceAccount;
        policy
    });
    assert_eq!(
        granted(&TWO_ROLES, &of_the_cluster).containers.len(),
        2,
        "the cluster's own tokens say nothing of policies"
    );
}

#[test]
fn one_default_role_with_different_claims_or_sources_is_a_conflict_and_with_the_same_it_is_none() {
    let plain = || assigning("a", ORDERS);
    let mut by_policy = assigning("b", ORDERS);
    by_policy.token.subject_format = SubjectFormat::Policy;
    let mut of_the_cluster = assigning("b", ORDERS);
    of_the_cluster.token.source = TokenSource::ServiceAccount;
    let mut elsewhere = assigning("b", ORDERS);
    elsewhere.audiences.default = Some("sts.amazonaws.com.cn".parse().unwrap());
    let tagged = with_tag(assigning("b", ORDERS), "b");
    for other in [by_policy, of_the_cluster, elsewhere, tagged] {
        let both = [plain(), other];
        let refusal = refused(&[], &both);
        assert!(
            refusal.starts_with(&format!(
                "TokenScopePolicy shop/a and TokenScopePolicy shop/b assign {ORDERS} as default role to this pod with different tokens"
            )),
            "{refusal}"
        );
        let set: PolicySet = both.iter().cloned().collect();
        for policy in &both {
            assert_eq!(DefaultConflicts::new(&set, now()).of(policy).with.len(), 1);
        }
        // Whoever names the role is told which policy came first, as with any other two.
        let granted = granted(&[("tokenscope.io/role-arn", ORDERS)], &both);
        assert!(granted.containers[0].reason.contains("before TokenScopePolicy shop/b"));
    }

    let same = [with_tag(plain(), "x"), with_tag(assigning("b", ORDERS), "x")];
    assert_eq!(granted(&[], &same).containers.len(), 2);
    let set: PolicySet = same.iter().cloned().collect();
    assert_eq!(DefaultConflicts::new(&set, now()).of(&same[0]).with.len(), 0);
}

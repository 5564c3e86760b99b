//! Tokens for third parties that come with a role.

use std::sync::Arc;

use tokenscope_core::outbound::{
    AwsAlgorithm, AwsSubject, AwsToken, OutboundSource, OutboundToken, OutboundValue, OutboundVariable,
};
use tokenscope_fixtures::ORDERS;

use super::*;

const CLAUDE: &str = "https://api.anthropic.com";
const ISSUER: &str = "https://tokens.example.com";

fn token(name: &str, audience: &str) -> OutboundToken {
    OutboundToken {
        name: name.parse().unwrap(),
        audience: audience.parse().unwrap(),
        source: OutboundSource::ServiceAccount,
        expiration: TokenExpiration::HOUR,
        variables: vec![OutboundVariable {
            name: "ANTHROPIC_IDENTITY_TOKEN_FILE".parse().unwrap(),
            value: OutboundValue::File,
        }],
    }
}

/// A policy that gives one token for a third party.
fn giving(name: &str, audience: &str) -> Policy {
    Policy {
        outbound: [token("claude", audience)].into(),
        ..policy(name)
    }
}

fn issued(name: &str, audience: &str) -> Policy {
    let mut policy = policy(name);
    policy.token.source = TokenSource::Issuer;
    let token = OutboundToken {
        source: OutboundSource::Issuer,
        ..token("claude", audience)
    };
    policy.outbound = [token].into();
    policy
}

fn with_issuer() -> Settings {
    Settings {
        issuer: Some(ISSUER.into()),
        ..Settings::default()
    }
}

fn refused_with(policy: Policy, settings: &Settings) -> String {
    match asking(ORDERS).decided_with([policy], settings) {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn they_come_with_the_role_of_the_policy_that_grants_it_and_with_no_other() {
    let mut other = policy("other");
    other.roles.allowed = vec![CARTS.parse().unwrap()];
    let mut orders = giving("orders", CLAUDE);
    orders.roles.allowed = vec![ORDERS.parse().unwrap()];
    let mut workload = workload().with("tokenscope.io/role-arn.app", ORDERS);
    workload = workload.with("tokenscope.io/role-arn.web", CARTS);
    workload.containers.push(container("web"));
    workload.containers.push(container("proxy"));
    let granted = workload.granted([orders, other]);

    let [app, web] = &*granted.containers else {
        panic!("{granted:?}")
    };
    assert_eq!(*app.grant.outbound, [token("claude", CLAUDE)]);
    assert!(web.grant.outbound.is_empty());
}

#[test]
fn an_audience_that_is_no_third_partys_is_refused_with_whose_it_is() {
    let settings = Settings {
        api_audiences: vec!["https://api.cluster.example".into()],
        lock: lock::Lock {
            audiences: vec!["aws.example.com".parse().unwrap()],
            ..lock::Lock::default()
        },
        ..with_issuer()
    };
    for (audience, why) in [
        ("sts.amazonaws.com", "is one that AWS STS takes"),
        ("https://sts.eu-central-1.amazonaws.com/", "is one that AWS STS takes"),
        ("https://kubernetes.default.svc", "is that of the API server itself"),
        ("https://api.cluster.example", "is that of the API server itself"),
        (ISSUER, "is the URL of tokenscope's own issuer"),
        ("aws.example.com", "is locked (lock.audiences)"),
    ] {
        let refusal = refused_with(giving("orders", audience), &settings);
        assert!(
            refusal.contains("spec.outboundTokens[0].audience") && refusal.contains(why),
            "{audience}: {refusal}"
        );
    }
    let mut own = giving("orders", CLAUDE);
    own.audiences.allowed = vec![Audience::sts(), CLAUDE.parse().unwrap()];
    assert!(refused_with(own, &settings).contains("is one of spec.audiences"));
    let granted = asking(ORDERS).decided_with([giving("orders", CLAUDE)], &settings);
    assert!(matches!(granted, Decision::Granted(_)), "{granted:?}");
}

#[test]
fn one_token_of_the_issuer_for_an_audience_comes_from_one_policy() {
    let containers = |policies: [Policy; 2]| {
        let mut workload = workload().with("tokenscope.io/role-arn.app", ORDERS);
        workload = workload.with("tokenscope.io/role-arn.web", CARTS);
        workload.containers.push(container("web"));
        workload.decided_with(policies, &with_issuer())
    };
    let of = |name: &str, role: &str, audience: &str, roles_audience: &str| {
        let mut policy = issued(name, audience);
        policy.roles.allowed = vec![role.parse().unwrap()];
        policy.audiences.default = Some(roles_audience.parse().unwrap());
        policy
    };
    let decision = containers([of("a", ORDERS, CLAUDE, "a"), of("b", CARTS, CLAUDE, "b")]);
    let Decision::Denied(denied) = decision else {
        panic!("{decision:?}")
    };
    assert!(
        denied.to_string().contains("for audience https://api.anthropic.com"),
        "{denied}"
    );
    // What one policy gives for its role can't be another's for a third party.
    let decision = containers([of("a", ORDERS, CLAUDE, "a"), of("b", CARTS, "x", CLAUDE)]);
    assert!(matches!(decision, Decision::Denied(_)), "{decision:?}");
    let decision = containers([of("a", ORDERS, CLAUDE, "a"), of("b", CARTS, "x", "b")]);
    assert!(matches!(decision, Decision::Granted(_)), "{decision:?}");
}

#[test]
fn two_policies_that_assign_one_role_with_different_tokens_are_in_conflict() {
    let refusal = workload().refused([assigning(ORDERS, giving("a", CLAUDE)), assigning(ORDERS, policy("b"))]);
    assert!(refusal.contains("outboundTokens"), "{refusal}");
    let both = ["a", "b"].map(|name| assigning(ORDERS, giving(name, CLAUDE)));
    assert_eq!(workload().granted(both).containers.len(), 1);
}

#[test]
fn whatever_changes_what_the_pod_gets_changes_the_fingerprint_and_none_is_as_before() {
    let print = |tokens: Vec<OutboundToken>| {
        let mut granted = asking(ORDERS).granted([policy("orders")]);
        let grant = Arc::make_mut(&mut granted.containers[0].grant);
        grant.outbound = tokens.into();
        Fingerprint::of("orders", [("app", &*granted.containers[0].grant)]).to_string()
    };
    let with = |change: fn(&mut OutboundToken)| {
        let mut token = token("claude", CLAUDE);
        change(&mut token);
        print(vec![token])
    };
    let prints = [
        print(Vec::new()),
        with(|_| {}),
        with(|token| token.name = "other".parse().unwrap()),
        with(|token| token.audience = "other".parse().unwrap()),
        with(|token| token.source = OutboundSource::Issuer),
        with(|token| token.source = OutboundSource::Aws(AwsToken::default())),
        with(|token| {
            token.source = OutboundSource::Aws(AwsToken {
                algorithm: AwsAlgorithm::ES384,
                ..AwsToken::default()
            });
        }),
        with(|token| {
            token.source = OutboundSource::Aws(AwsToken {
                subject: AwsSubject::Origin { scope: None },
                ..AwsToken::default()
            });
        }),
        with(|token| token.expiration = TokenExpiration::DAY),
        with(|token| token.variables.clear()),
        with(|token| token.variables[0].value = OutboundValue::Audience),
        with(|token| token.variables[0].value = OutboundValue::Text("audience".into())),
        with(|token| token.variables[0].name = "A".parse().unwrap()),
        print(vec![token("claude", CLAUDE), token("other", CLAUDE)]),
    ];
    for (index, print) in prints.iter().enumerate() {
        assert!(!prints[..index].contains(print), "{index}");
    }
}

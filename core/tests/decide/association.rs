//! Service accounts of EKS Pod Identity: whose role the association decides, and what policies say of it.

use std::sync::Arc;

use tokenscope_core::delivery::{Delivery, EndpointDelivery};
use tokenscope_core::outbound::{OutboundSource, OutboundToken};
use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, CARTS, Workload, asking, assigning, cluster_policy, container, now, policy, workload};

const EKS_ROLE: &str = "eks.amazonaws.com/role-arn";

/// An installation whose configuration lists `shop/orders`.
fn settings(policy_required: bool) -> Settings {
    let config = r#"{"identities": [{"namespace": "shop", "serviceAccount": "orders"}]}"#;
    Settings {
        policy_required,
        pod_identity: Some(Arc::new(
            PodIdentity::parse(config, PodIdentityAgent::default()).unwrap(),
        )),
        ..Settings::eks_compatible()
    }
}

/// A policy that lists the audiences that it allows.
fn closed(name: &str, audiences: &[&str]) -> Policy {
    let allowed = audiences.iter().map(|audience| audience.parse().unwrap()).collect();
    Policy {
        audiences: Audiences { allowed, default: None },
        ..policy(name)
    }
}

fn decided(workload: &Workload, policies: impl IntoIterator<Item = Policy>) -> Decision {
    workload.decided_with(policies, &settings(true))
}

fn associated(decision: Decision) -> Associated {
    match decision {
        Decision::Associated(associated) => associated,
        other => panic!("not associated: {other:?}"),
    }
}

fn refused(decision: Decision) -> String {
    match decision {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("not denied: {other:?}"),
    }
}

#[test]
fn a_listed_service_account_gets_the_agents_token_where_a_policy_allows_its_audience() {
    for allowing in [
        policy("open"),
        closed("closed", &["sts.amazonaws.com", "pods.eks.amazonaws.com"]),
    ] {
        let name = allowing.name.clone();
        let found = associated(decided(&workload(), [allowing]));
        let [only] = &found.containers[..] else {
            panic!("{found:?}")
        };
        assert_eq!(only.association.policy, Some(name.clone()));
        assert_eq!(only.association.audience.as_str(), "pods.eks.amazonaws.com");
        assert_eq!(
            &*only.reason,
            format!(
                "the role of the EKS Pod Identity association of shop/orders: {name} allows audience pods.eks.amazonaws.com"
            )
        );
        assert_eq!(found.warnings, Vec::<String>::new());
    }
}

#[test]
fn others_are_decided_about_as_ever() {
    let mut other = settings(true);
    let config = r#"{"identities": [{"namespace": "orders", "serviceAccount": "shop"}, {"namespace": "shop", "serviceAccount": "carts"}]}"#;
    other.pod_identity = Some(Arc::new(
        PodIdentity::parse(config, PodIdentityAgent::default()).unwrap(),
    ));
    let mut without_eks = settings(true);
    without_eks.eks_compatible = false;
    for settings in [other, without_eks] {
        let assigned = workload().decided_with([assigning(ORDERS, policy("p"))], &settings);
        assert!(matches!(assigned, Decision::Granted(_)), "{assigned:?}");
        let plain = workload().decided_with([policy("p")], &settings);
        assert_eq!(plain, Decision::Untouched(Untouched::NothingAsked));
    }
}

#[test]
fn a_policy_that_allows_other_audiences_stays_closed() {
    for required in [true, false] {
        let decision = workload().decided_with([closed("sts", &["sts.amazonaws.com"])], &settings(required));
        let text = refused(decision);
        assert!(text.contains("TokenScopePolicy shop/sts does not allow"), "{text}");
        assert!(text.contains("pods.eks.amazonaws.com"), "{text}");
    }
    // One that allows it is enough, as it is for roles.
    let both = [
        closed("a", &["sts.amazonaws.com"]),
        closed("b", &["pods.eks.amazonaws.com"]),
    ];
    let found = associated(decided(&workload(), both));
    assert_eq!(
        found.containers[0].association.policy,
        Some(PolicyName::namespaced("shop", "b"))
    );
}

#[test]
fn without_a_policy_the_token_needs_that_none_is_required() {
    let text = refused(decided(&workload(), []));
    assert!(
        text.contains("service account orders stands in the configuration of EKS Pod Identity, but no policy"),
        "{text}"
    );
    assert!(text.contains("audiences.allowed has pods.eks.amazonaws.com"), "{text}");

    let found = associated(workload().decided_with([], &settings(false)));
    assert_eq!(found.containers[0].association.policy, None);
    assert_eq!(found.expiration, TokenExpiration::DAY);
}

#[test]
fn where_none_is_required_a_policy_that_is_not_in_force_still_decides() {
    let changes: [fn(&mut Policy); 2] = [
        |policy| policy.disabled = true,
        |policy| policy.expires_at = Some("2026-01-01T00:00:00Z".parse().unwrap()),
    ];
    for change in changes {
        let mut over = policy("over");
        change(&mut over);
        let text = refused(workload().decided_with([over], &settings(false)));
        assert!(text.contains("TokenScopePolicy shop/over"), "{text}");
    }
}

#[test]
fn a_boundary_holds_the_token_of_policies_and_of_pods_without_one() {
    let boundary = |audiences: &[&str], most: Option<i64>| Boundary {
        name: "core".into(),
        namespace_selector: Selector::default(),
        roles: vec!["arn:aws:iam::111122223333:role/shop/*".parse().unwrap()],
        audiences: audiences.iter().map(|audience| audience.parse().unwrap()).collect(),
        max_expiration: most.map(|seconds| TokenExpiration::from_seconds(seconds).unwrap()),
        outbound_audiences: None,
        session_policy: None,
        sources: Vec::new(),
        claims: None,
    };
    let decided = |policies: Vec<Policy>, boundary: Boundary, settings: &Settings| {
        let mut set: PolicySet = policies.into_iter().collect();
        set.insert_boundary(Arc::new(boundary));
        decide(&workload().request(), &set, settings, now())
    };
    let sts = || boundary(&["sts.amazonaws.com"], None);
    for policies in [
        vec![],
        vec![policy("open")],
        vec![closed("own", &["pods.eks.amazonaws.com"])],
    ] {
        let text = refused(decided(policies, sts(), &settings(false)));
        assert!(text.contains("TokenScopeBoundary core does not allow"), "{text}");
    }
    let text = refused(decided(vec![], boundary(&[], Some(3600)), &settings(false)));
    assert!(
        text.contains("TokenScopeBoundary core does not allow the token's seconds"),
        "{text}"
    );
    associated(decided(
        vec![],
        boundary(&["pods.eks.amazonaws.com"], None),
        &settings(false),
    ));
}

#[test]
fn policies_with_tokens_from_elsewhere_give_none() {
    let mut spiffe = policy("spiffe");
    spiffe.token.source = TokenSource::Spiffe;
    let text = refused(decided(&workload(), [spiffe]));
    assert!(
        text.contains("TokenScopePolicy shop/spiffe has token.source SPIFFE"),
        "{text}"
    );
}

#[test]
fn a_pod_that_asks_for_a_role_is_refused_even_if_a_policy_allows_it() {
    for (asks, place) in [
        (asking(ORDERS), "annotation tokenscope.io/role-arn of the pod"),
        (
            workload().with("tokenscope.io/role-arn.app", ADMIN),
            "annotation tokenscope.io/role-arn.app",
        ),
        (
            Workload {
                service_account: vec![(annotations::ROLE_ARN, CARTS)],
                ..workload()
            },
            "annotation tokenscope.io/role-arn of the service account",
        ),
    ] {
        let text = refused(decided(&asks, [policy("open")]));
        assert!(text.contains(place), "{text}");
        assert!(text.contains("it would get the role of the association"), "{text}");
    }
}

#[test]
fn a_role_that_the_association_displaces_is_told() {
    let policies = [
        assigning(ORDERS, policy("own")),
        assigning(CARTS, cluster_policy("all")),
    ];
    let found = associated(decided(&workload(), policies));
    assert_eq!(
        found.warnings,
        [
            "the pod gets the role of the EKS Pod Identity association of service account orders, which no policy chooses, and not the default \
          role of TokenScopePolicy shop/own, ClusterTokenScopePolicy all"
        ]
    );
    // Whatever the value, as for the EKS webhook.
    for role in [ORDERS, ADMIN, "no role"] {
        let annotated = Workload {
            service_account: vec![(EKS_ROLE, role)],
            ..workload()
        };
        let found = associated(decided(&annotated, [policy("open")]));
        assert_eq!(
            found.warnings,
            [
                "annotation eks.amazonaws.com/role-arn of service account orders has no effect: the pod gets the role of the EKS Pod Identity association"
            ]
        );
    }
}

/// The policy with a token for a third party.
fn giving(audience: &str, mut policy: Policy) -> Policy {
    let token = OutboundToken {
        name: "claude".parse().unwrap(),
        audience: audience.parse().unwrap(),
        source: OutboundSource::ServiceAccount,
        expiration: TokenExpiration::HOUR,
        variables: Vec::new(),
    };
    policy.outbound = [token].into();
    policy
}

#[test]
fn a_policy_that_can_not_be_used_here_gives_no_token_of_the_agent_either() {
    let mut exchange = policy("p");
    exchange.audiences.default = Some("https://tokens.example.com".parse().unwrap());
    let mut placeless = policy("p");
    placeless.delivery = Delivery::Endpoint(EndpointDelivery::default());
    let settings = Settings {
        issuer: Some("https://tokens.example.com".into()),
        ..settings(true)
    };
    for (unusable, why) in [
        (exchange, "TokenScopePolicy shop/p grants nothing"),
        (
            giving("sts.amazonaws.com", policy("p")),
            "spec.outboundTokens[0].audience: sts.amazonaws.com is one that AWS STS takes",
        ),
        (placeless, "TokenScopePolicy shop/p"),
    ] {
        let text = refused(workload().decided_with([unusable], &settings));
        assert!(text.contains(why), "{text}");
    }
}

#[test]
fn tokens_for_third_parties_that_the_association_displaces_are_told() {
    let policies = [giving("https://api.anthropic.com", policy("own")), policy("other")];
    let found = associated(decided(&workload(), policies));
    assert_eq!(
        found.warnings,
        [
            "the pod gets no outboundTokens of TokenScopePolicy shop/own: they come with a role of the policy, and the pod has that of an EKS Pod Identity association"
        ]
    );
}

#[test]
fn who_opts_out_gets_nothing() {
    let out = workload().with(annotations::INJECT, "false");
    assert_eq!(
        decided(&out, [policy("open")]),
        Decision::Untouched(Untouched::OptedOut)
    );
    let skipping = Workload {
        pod_labels: vec![("eks.amazonaws.com/skip-pod-identity-webhook", "true")],
        ..workload()
    };
    assert_eq!(
        decided(&skipping, [policy("open")]),
        Decision::Untouched(Untouched::SkippedByLabel)
    );
}

#[test]
fn lifetimes_stay_within_the_policy() {
    let found = associated(decided(&workload(), [policy("hour")]));
    assert_eq!(found.expiration, TokenExpiration::HOUR);
    let longer = workload().with("eks.amazonaws.com/token-expiration", "7200");
    let text = refused(decided(&longer, [policy("hour")]));
    assert!(text.contains("7200") && text.contains("3600"), "{text}");
    let broken = workload().with("eks.amazonaws.com/token-expiration", "soon");
    let text = refused(decided(&broken, [policy("hour")]));
    assert!(
        text.contains("annotation eks.amazonaws.com/token-expiration of the pod"),
        "{text}"
    );
}

#[test]
fn containers_get_what_a_policy_that_covers_them_allows() {
    let two = Workload {
        containers: vec![container("app"), container("proxy"), container("log")],
        ..workload()
    }
    .with("eks.amazonaws.com/skip-containers", "log");
    let mut only_app = policy("a");
    only_app.containers.include = vec![Glob::new("app")];
    only_app.token.expiration = TokenExpiration::DAY;
    let found = associated(decided(&two, [only_app.clone()]));
    assert_eq!(
        found.containers.iter().map(|found| found.container).collect::<Vec<_>>(),
        [0]
    );
    assert_eq!(found.left_alone.len(), 2);

    // One token for all has the shortest lifetime.
    let found = associated(decided(&two, [only_app, policy("b")]));
    assert_eq!(
        found.containers.iter().map(|found| found.container).collect::<Vec<_>>(),
        [0, 1]
    );
    assert_eq!(found.expiration, TokenExpiration::HOUR);
    assert!(
        found.containers[0].reason.ends_with(
            "TokenScopePolicy shop/a allows audience pods.eks.amazonaws.com, before TokenScopePolicy shop/b"
        )
    );
}

#[test]
fn a_pod_beyond_the_bounds_is_refused() {
    let mut request_of = workload();
    request_of.annotations.push(("tokenscope.io/token-expiration", LONG));
    let text = refused(decided(&request_of, [policy("open")]));
    assert!(text.contains("has more than 2048 bytes"), "{text}");
}

const LONG: &str = {
    const BYTES: [u8; 2049] = [b'1'; 2049];
    match str::from_utf8(&BYTES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

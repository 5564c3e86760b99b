//! The audience of tokenscope's own issuer: no policy grants a workload a token of it, and no pod may bring one.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use jiff::Timestamp;
use tokenscope_core::bounds::Beyond;
use tokenscope_core::delivery::Delivery;
use tokenscope_core::lock::{LockMode, MissingGrant, refuses, unexamined, ungranted};
use tokenscope_core::outbound::{OutboundSource, OutboundToken};
use tokenscope_core::{
    ContainerFacts, Decision, HeldToken, OwnRole, Pairs, PodFacts, Policy, PolicySet, Request, Settings,
    TokenExpiration, TokenSource, TokenVolume, decide,
};
use tokenscope_fixtures::{ORDERS, policy};

const ISSUER: &str = "https://tokens.example.com";
const STS: &str = "sts.amazonaws.com";

fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn settings(mode: LockMode) -> Settings {
    let mut settings = Settings {
        issuer: Some(ISSUER.into()),
        ..Settings::default()
    };
    settings.lock.mode = mode;
    settings
}

fn set(change: impl FnOnce(&mut Policy)) -> PolicySet {
    let mut policy = policy("orders");
    policy.roles.allowed = vec![ORDERS.parse().unwrap()];
    change(&mut policy);
    [policy].into_iter().collect()
}

/// A pod of one container that asks for a role, with these annotations beside, and mounts a token of this audience.
fn request<'a>(audience: Option<&'a str>, driver: Option<&'a str>, annotations: &[(&'a str, &'a str)]) -> Request<'a> {
    let asking = [("tokenscope.io/role-arn", ORDERS)];
    let annotations: Pairs<&str> = asking.iter().chain(annotations).copied().collect();
    let volume = TokenVolume {
        name: "mine",
        csi_driver: driver,
        tokens: vec![HeldToken {
            audience,
            expiration_seconds: Some(600),
        }],
        containers: vec!["app"],
    };
    let container = ContainerFacts {
        name: "app",
        own_role: OwnRole::Absent,
        own_token_file: false,
        own_agent: false,
        own_configuration: tokenscope_core::OwnConfiguration::Absent,
    };
    Request {
        pod: PodFacts {
            annotation_count: annotations.iter().count(),
            annotations,
            containers: vec![container],
            token_volumes: vec![volume],
            ..PodFacts::default()
        },
        namespace: "shop",
        namespace_labels: Pairs::default(),
        service_account: "orders",
        service_account_annotations: Pairs::default(),
    }
}

fn remedies(audience: &str, policies: &PolicySet, settings: &Settings) -> Vec<MissingGrant> {
    let request = request(Some(audience), None, &[]);
    let found = ungranted(&request, policies, settings, now());
    found.into_iter().map(|token| token.remedy).collect()
}

#[test]
fn a_token_of_it_is_refused_whatever_mode_namespaces_audiences_and_policies_are() {
    for mode in [LockMode::Off, LockMode::Audit, LockMode::Warn, LockMode::Deny] {
        for source in [TokenSource::ServiceAccount, TokenSource::Spiffe, TokenSource::Issuer] {
            for exempt in ["kube-system", "shop"] {
                for listed in [STS, ISSUER] {
                    let policies = set(|policy| {
                        policy.token.source = source;
                        policy.audiences.allowed = vec![ISSUER.parse().unwrap()];
                    });
                    let mut settings = settings(mode);
                    settings.lock.exempt_namespaces = vec![exempt.into()];
                    settings.lock.audiences = vec![listed.parse().unwrap()];
                    settings.lock.policy_audiences = true;
                    assert_eq!(
                        remedies(ISSUER, &policies, &settings),
                        [MissingGrant::Exchange],
                        "{mode} {source:?} {exempt} {listed}"
                    );
                    let request = request(Some(ISSUER), Some("secrets.example.com"), &[]);
                    assert!(refuses(&ungranted(&request, &policies, &settings, now()), &settings));
                }
            }
        }
    }
}

#[test]
fn without_an_issuer_there_is_no_such_audience() {
    let mut settings = settings(LockMode::Deny);
    settings.issuer = None;
    assert_eq!(remedies(ISSUER, &PolicySet::default(), &settings), []);
    // An audience is another one with any other byte, as the issuer and the API server compare it.
    let settings = self::settings(LockMode::Off);
    assert_eq!(
        remedies("https://tokens.example.com/", &PolicySet::default(), &settings),
        []
    );
    let without = request(None, None, &[]);
    assert_eq!(ungranted(&without, &PolicySet::default(), &settings, now()), []);
}

#[test]
fn a_policy_grants_projected_tokens_of_its_own_source_only() {
    let settings = settings(LockMode::Deny);
    for (source, missing) in [
        (TokenSource::ServiceAccount, vec![]),
        (TokenSource::Spiffe, vec![MissingGrant::Policy]),
        (TokenSource::Issuer, vec![MissingGrant::Policy]),
    ] {
        let policies = set(|policy| {
            policy.token.source = source;
            policy.audiences.allowed = vec![STS.parse().unwrap()];
        });
        assert_eq!(remedies(STS, &policies, &settings), missing, "{source:?}");
    }
}

#[test]
fn a_policy_that_can_not_be_used_here_grants_no_projected_tokens() {
    let settings = settings(LockMode::Deny);
    let unusable: [fn(&mut Policy); 3] = [
        |policy| policy.audiences.default = Some(ISSUER.parse().unwrap()),
        |policy| {
            let token = OutboundToken {
                name: "sts".parse().unwrap(),
                audience: "https://sts.amazonaws.com".parse().unwrap(),
                source: OutboundSource::ServiceAccount,
                expiration: TokenExpiration::HOUR,
                variables: Vec::new(),
            };
            policy.outbound = [token].into();
        },
        |policy| policy.delivery = Delivery::Profile(Vec::new()),
    ];
    assert_eq!(remedies(STS, &set(|_| {}), &settings), []);
    for change in unusable {
        assert_eq!(remedies(STS, &set(change), &settings), [MissingGrant::Policy]);
        let asking = request(None, None, &[]);
        refusal(&decide(&asking, &set(change), &settings, now()));
    }
}

#[test]
fn a_pod_whose_tokens_can_not_all_be_looked_at_is_refused_where_there_is_an_issuer() {
    let mut large = request(None, None, &[]);
    large.pod.beyond = vec![Beyond::Labels, Beyond::Volumes];
    let is_refused = |settings: &Settings| unexamined(&large, settings).next().is_some();
    let mut settings = settings(LockMode::Off);
    settings.lock.exempt_namespaces = vec!["shop".into()];
    assert!(is_refused(&settings));
    settings.issuer = None;
    assert!(!is_refused(&settings));
    settings.lock.mode = LockMode::Deny;
    assert!(!is_refused(&settings), "the namespace is exempt");
    settings.lock.exempt_namespaces.clear();
    assert!(is_refused(&settings));
    large.pod.beyond = vec![Beyond::Labels];
    assert_eq!(unexamined(&large, &settings).count(), 0);
}

fn refusal(decision: &Decision) -> String {
    match decision {
        Decision::Denied(denied) => denied.to_string(),
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn no_workload_gets_a_token_of_it_by_asking_by_a_policy_or_by_default() {
    let settings = settings(LockMode::Off);
    for source in [TokenSource::ServiceAccount, TokenSource::Spiffe, TokenSource::Issuer] {
        // A policy without audiences allows every one that is asked for, but not this one.
        let asking = request(None, None, &[("tokenscope.io/audience", ISSUER)]);
        let policies = set(|policy| policy.token.source = source);
        let message = refusal(&decide(&asking, &policies, &settings, now()));
        assert!(message.contains("is that of tokenscope's own issuer"), "{message}");

        let plain = request(None, None, &[]);
        for named_by_default in [false, true] {
            let policies = set(|policy| {
                policy.token.source = source;
                if named_by_default {
                    policy.audiences.default = Some(ISSUER.parse().unwrap());
                } else {
                    policy.audiences.allowed = vec![STS.parse().unwrap(), ISSUER.parse().unwrap()];
                }
            });
            let message = refusal(&decide(&plain, &policies, &settings, now()));
            assert!(
                message.contains("TokenScopePolicy shop/orders grants nothing: its audiences have"),
                "{message}"
            );
        }
    }
    let mut without_policies = settings;
    without_policies.policy_required = false;
    let asking = request(None, None, &[("tokenscope.io/audience", ISSUER)]);
    refusal(&decide(&asking, &PolicySet::default(), &without_policies, now()));
    without_policies.default_audience = ISSUER.parse().unwrap();
    let plain = request(None, None, &[]);
    refusal(&decide(&plain, &PolicySet::default(), &without_policies, now()));
}

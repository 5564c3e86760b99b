//! The trust policies that the status of a policy shows, judged by the strict stand-in for AWS with the claims that the issuer signs.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Map, Value};
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, policy};
use tokenscope_issuer::claims::{self, Issuance};
use tokenscope_issuer::grant::{GrantingPolicy, TokenGrant};
use tokenscope_sts::{Provider, Role, judge};

const ISSUER: &str = "https://tokens.example.com/eu";
const NOW: i64 = 1_800_000_000;
/// Names of namespaces, and the value of their label `team`.
const NAMESPACES: [(&str, &str); 3] = [("shop", "a"), ("shop-b", "b"), ("evil", "b")];
const ACCOUNTS: [&str; 4] = ["orders", "orders-a", "carts", "default"];

fn labels(team: &str) -> Pairs<String> {
    [("team".to_owned(), team.to_owned())].into_iter().collect()
}

/// A pod as far as it counts.
#[derive(Clone, Debug)]
struct Workload {
    namespace: (&'static str, &'static str),
    service_account: &'static str,
    team: &'static str,
}

impl Workload {
    fn is_meant(&self, policy: &Policy) -> bool {
        let (namespace, team) = self.namespace;
        let now = Timestamp::from_second(NOW).unwrap();
        policy.standing(namespace, &labels(team), self.service_account, &labels(self.team), now) == Standing::Candidate
    }

    /// What the issuer signs for it by a policy.
    fn claims(&self, policy: &Policy, cluster: Option<&ClusterName>) -> Map<String, Value> {
        let (namespace, team) = self.namespace;
        let wanted = TokenClaims::of(policy);
        let filled = wanted.fill(&WorkloadFacts {
            namespace,
            namespace_labels: &labels(team),
            service_account: self.service_account,
            pod_name: "pod-1",
            pod_uid: "u-1",
            pod_labels: &labels(self.team),
        });
        let audiences = &policy.audiences;
        let grant = TokenGrant {
            audience: audiences.default.clone().unwrap_or_else(Audience::sts),
            subject: wanted.subject(namespace, self.service_account, cluster).into(),
            lifetime: 3600,
            algorithm: Algorithm::RS256,
            claims: filled.unwrap(),
            policy: GrantingPolicy {
                name: policy.name.clone(),
                uid: "u".into(),
            },
        };
        let issuer = ISSUER.parse().unwrap();
        let issuance = Issuance {
            issuer: &issuer,
            id: "id",
            issued_at: NOW,
            lifetime: 3600,
        };
        serde_json::from_str(&claims::payload(&grant, issuance)).unwrap()
    }
}

fn trust(policy: &Policy, cluster: Option<&ClusterName>) -> Option<TrustPolicy> {
    let selected = NAMESPACES
        .into_iter()
        .filter(|(_, team)| policy.namespace_selector.matches(&labels(team)));
    let context = TrustContext {
        issuer: ISSUER,
        default_audience: &Audience::sts(),
        cluster,
        namespaces: selected.map(|(name, _)| name).collect(),
        unserved: &Unserved::default(),
        now: Timestamp::from_second(NOW).unwrap(),
    };
    trust_policy(policy, &ORDERS.parse().unwrap(), &context)
}

fn verdict(trust: &TrustPolicy, claims: &Map<String, Value>) -> Result<(), String> {
    verdict_with(trust, claims, None)
}

fn verdict_with(
    trust: &TrustPolicy,
    claims: &Map<String, Value>,
    context_provider: Option<Value>,
) -> Result<(), String> {
    let provider = Provider {
        url: ISSUER.into(),
        client_ids: vec!["sts.amazonaws.com".into(), "other".into()],
        account: "111122223333".into(),
        partition: "aws".into(),
        context_provider,
    };
    let role = Role {
        arn: ORDERS.into(),
        trust_policy: serde_json::to_value(&trust.document).unwrap(),
        max_session_duration: 3600,
    };
    judge(&provider, &role, claims, Timestamp::from_second(NOW).unwrap())
}

fn own(policy: Policy) -> Policy {
    let mut policy = policy;
    policy.token.source = TokenSource::Issuer;
    policy
}

fn subject(service_accounts: &[&str]) -> Subject {
    Subject {
        service_accounts: service_accounts.iter().map(|name| Glob::new(name)).collect(),
        pod_selector: None,
    }
}

fn tags(pairs: &[(&str, &str)]) -> Claims {
    Claims {
        principal_tags: pairs
            .iter()
            .map(|(key, text)| ((*key).into(), text.parse().unwrap()))
            .collect(),
        ..Claims::default()
    }
}

fn statement(policy: &Policy) -> Value {
    let trust = trust(policy, None).unwrap();
    serde_json::to_value(&trust.document).unwrap()["Statement"][0].clone()
}

#[test]
fn the_document_asks_for_tags_and_source_identity_exactly_where_tokens_have_them() {
    let mut plain = own(policy("orders"));
    plain.subjects = vec![subject(&["orders"])];
    assert_eq!(
        statement(&plain),
        serde_json::json!({
            "Effect": "Allow",
            "Principal": {"Federated": "arn:aws:iam::111122223333:oidc-provider/tokens.example.com/eu"},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {
                "tokens.example.com/eu:aud": "sts.amazonaws.com",
                "tokens.example.com/eu:sub": "system:serviceaccount:shop:orders",
            }},
        })
    );

    let mut tagged = plain;
    tagged.token.subject_format = SubjectFormat::Policy;
    tagged.claims = Arc::new(Claims {
        transitive_tag_keys: vec!["tenant".into()],
        source_identity: Some("${serviceAccount}.x".parse().unwrap()),
        ..tags(&[
            ("tenant", "${namespace}"),
            ("team", "t-${pod.labels['team']}"),
            ("env", "prod"),
        ])
    });
    let found = statement(&tagged);
    assert_eq!(
        found["Action"],
        serde_json::json!([
            "sts:AssumeRoleWithWebIdentity",
            "sts:TagSession",
            "sts:SetSourceIdentity"
        ])
    );
    assert_eq!(
        found["Condition"],
        serde_json::json!({
            "StringEquals": {
                "tokens.example.com/eu:aud": "sts.amazonaws.com",
                "tokens.example.com/eu:sub": "tokenscope:tsp:shop:orders:orders",
                "aws:RequestTag/env": "prod",
                "aws:RequestTag/tenant": "shop",
                "sts:SourceIdentity": "orders.x",
            },
            "StringLike": {"aws:RequestTag/team": "t-*"},
            "ForAllValues:StringEquals": {
                "aws:TagKeys": ["env", "team", "tenant"],
                "sts:TransitiveTagKeys": "tenant",
            },
        })
    );
    assert_eq!(trust(&tagged, None).unwrap().notes, Vec::<String>::new());
}

#[test]
fn a_token_with_another_tenants_tags_is_refused() {
    let mut tenant = own(policy("tenant"));
    tenant.claims = Arc::new(tags(&[("tenant", "${namespace}")]));
    let trust = trust(&tenant, None).unwrap();
    let workload = Workload {
        namespace: NAMESPACES[0],
        service_account: "orders",
        team: "a",
    };
    assert_eq!(verdict(&trust, &workload.claims(&tenant, None)), Ok(()));

    let transitive = |keys: &[&str]| Claims {
        transitive_tag_keys: keys.iter().map(|key| (*key).into()).collect(),
        ..tags(&[("tenant", "${namespace}")])
    };
    for other in [
        tags(&[("tenant", "evil")]),
        tags(&[("tenant", "${namespace}"), ("admin", "yes")]),
        tags(&[]),
        transitive(&["tenant"]),
    ] {
        let mut forged = tenant.clone();
        forged.claims = Arc::new(other);
        assert!(verdict(&trust, &workload.claims(&forged, None)).is_err(), "{forged:?}");
    }
}

#[test]
fn where_no_namespace_or_too_many_would_have_to_be_named_there_is_no_document() {
    let mut open = own(policy("open"));
    open.name = PolicyName::cluster("open");
    open.namespace_selector = Selector(vec![Requirement {
        key: "team".into(),
        operator: SelectorOperator::In(vec!["c".into()]),
    }]);
    assert_eq!(trust(&open, None), None);
    open.token.subject_format = SubjectFormat::Policy;
    let document = statement(&open);
    assert_eq!(
        document["Condition"]["StringLike"]["tokens.example.com/eu:sub"],
        "tokenscope:ctsp:open:*:*"
    );
}

#[test]
fn the_context_document_takes_the_claims_of_every_policy() {
    let mut first = own(policy("a"));
    let context = |keys: &[&str]| Claims {
        context: keys.iter().map(|key| ((*key).into(), "x".parse().unwrap())).collect(),
        ..Claims::default()
    };
    first.claims = Arc::new(context(&["team", "stage"]));
    let mut second = own(policy("b"));
    second.claims = Arc::new(context(&["cost"]));
    let policies: PolicySet = [first.clone(), second.clone()].into_iter().collect();
    let document = policies.context_keys().provider_document();
    assert_eq!(
        document["KeyDefinitionList"][0],
        serde_json::json!({"SourceKey": "tokenscope_cost", "TargetKey": "cost"})
    );
    let workload = Workload {
        namespace: NAMESPACES[0],
        service_account: "orders",
        team: "a",
    };
    for policy in [first, second] {
        let found = verdict_with(
            &trust(&policy, None).unwrap(),
            &workload.claims(&policy, None),
            Some(document.clone()),
        );
        assert_eq!(found, Ok(()));
    }
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let accounts = prop::sample::select(vec![
        vec![],
        vec!["orders"],
        vec!["orders", "carts"],
        vec!["orders*"],
        vec!["*s", "default"],
    ]);
    let tag = prop::sample::select(vec![
        "${namespace}",
        "${serviceAccount}",
        "a",
        "x-${pod.labels['team']}",
        "${namespace.labels['team']}-",
    ]);
    (
        (0..2usize, 0..4usize, any::<bool>(), any::<bool>()),
        accounts,
        prop::collection::btree_map("(tenant|team|Env)", tag.clone(), 0..3),
        prop::option::of(prop::sample::select(vec!["sam", "${namespace}.${serviceAccount}"])),
        any::<[bool; 2]>(),
    )
        .prop_map(
            |((name, place, by_policy, other_audience), accounts, pairs, identity, [selects, transitive])| {
                let mut policy = own(policy("p"));
                let name = ["p", "q"][name];
                policy.name = match NAMESPACES.get(place) {
                    Some((namespace, _)) => PolicyName::namespaced(namespace, name),
                    None => PolicyName::cluster(name),
                };
                if selects && policy.name.is_cluster() {
                    policy.namespace_selector = Selector(vec![Requirement {
                        key: "team".into(),
                        operator: SelectorOperator::In(vec!["a".into()]),
                    }]);
                }
                if by_policy {
                    policy.token.subject_format = SubjectFormat::Policy;
                }
                policy.subjects = vec![subject(&accounts)];
                policy.audiences.default = other_audience.then(|| "other".parse().unwrap());
                let pairs: Vec<_> = pairs.iter().map(|(key, text)| (key.as_str(), *text)).collect();
                policy.claims = Arc::new(Claims {
                    transitive_tag_keys: pairs
                        .iter()
                        .take(usize::from(transitive))
                        .map(|(key, _)| (*key).into())
                        .collect(),
                    source_identity: identity.map(|text| text.parse().unwrap()),
                    ..tags(&pairs)
                });
                policy
            },
        )
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let teams = prop::sample::select(vec!["a", "b"]);
    (
        prop::sample::select(NAMESPACES.to_vec()),
        prop::sample::select(ACCOUNTS.to_vec()),
        teams,
    )
        .prop_map(|(namespace, service_account, team)| Workload {
            namespace,
            service_account,
            team,
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn sts_admits_every_token_of_the_policy_and_no_token_of_a_workload_that_it_does_not_mean(
        shown in any_policy(),
        other in any_policy(),
        workload in any_workload(),
        cluster in prop::option::of(prop::sample::select(vec!["eu-1", "eu-2"])),
        other_cluster in prop::option::of(prop::sample::select(vec!["eu-1", "eu-2"])),
    ) {
        let [cluster, other_cluster] = [cluster, other_cluster].map(|name| name.map(|name| name.parse().unwrap()));
        // In one cluster a name is one policy.
        let is_own = shown.name == other.name && cluster == other_cluster;
        let other = if is_own { shown.clone() } else { other };
        let Some(trust) = trust(&shown, cluster.as_ref()) else {
            return Err(TestCaseError::fail("a policy of these always has a document"));
        };
        if workload.is_meant(&shown) {
            let claims = workload.claims(&shown, cluster.as_ref());
            prop_assert_eq!(verdict(&trust, &claims), Ok(()), "{:?}", trust.document);
        }
        if workload.is_meant(&other) {
            let claims = workload.claims(&other, other_cluster.as_ref());
            if verdict(&trust, &claims).is_ok() {
                prop_assert!(workload.is_meant(&shown), "{:?}", trust.document);
                prop_assert_eq!(&cluster, &other_cluster);
                prop_assert!(is_own || shown.token.subject_format == SubjectFormat::ServiceAccount);
                prop_assert!(is_own || trust.notes.iter().any(|note| note.contains("tokens that other policies")));
                let keys = |policy: &Policy| policy.claims.principal_tags.keys().cloned().collect::<Vec<_>>();
                prop_assert_eq!(keys(&shown), keys(&other));
                let transitive = &shown.claims.transitive_tag_keys;
                let passes_on = other.claims.transitive_tag_keys.iter().find(|key| !transitive.contains(key));
                prop_assert_eq!(passes_on, None, "{:?}", trust.document);
            }
        }
    }
}

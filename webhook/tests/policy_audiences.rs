//! `lock.policyAudiences`: the audiences of policies are locked too, each where its policy counts.

mod fixtures;

use fixtures::{ReviewFixture, app, policy};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::{PolicyName, Requirement, Selector, SelectorOperator};
use tokenscope_webhook::metrics::ReviewOutcome;

/// A pod with a token of this audience in a volume of its own.
fn with_token(audience: &str) -> Value {
    let token = json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": 3600, "path": "token"}});
    let mut containers = app();
    containers[0]["volumeMounts"] = json!([{"name": "mine", "mountPath": "/var/run/mine"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "orders-0", "namespace": "shop"}, "spec": {
        "serviceAccountName": "orders", "containers": containers,
        "volumes": [{"name": "mine", "projected": {"sources": [token]}}]}})
}

fn denying() -> ReviewFixture {
    let mut fixture = ReviewFixture::new();
    fixture.settings.lock.mode = LockMode::Deny;
    fixture
}

#[test]
fn audiences_that_policies_allow_are_locked_only_if_the_installation_says_so() {
    let mut fixture = denying();
    let mut other = policy("other");
    other.audiences.allowed = vec!["vault".parse().unwrap()];
    other.disabled = true;
    fixture.policies = [other].into_iter().collect();
    assert_eq!(fixture.review(&with_token("vault")).outcome(), ReviewOutcome::Untouched);
    fixture.settings.lock.policy_audiences = true;
    assert_eq!(fixture.review(&with_token("vault")).outcome(), ReviewOutcome::Denied);
}

#[test]
fn the_audience_of_a_policy_is_locked_in_its_own_namespace_and_of_a_cluster_policy_where_it_selects_the_namespace() {
    let mut fixture = denying();
    fixture.settings.lock.policy_audiences = true;
    fixture.namespace_labels = vec![("team", "shop".into())];
    let allowing = |name: PolicyName, audience: &str| {
        let mut policy = policy("any");
        policy.name = name;
        policy.audiences.allowed = vec![audience.parse().unwrap()];
        // It grants nothing, so that what is refused is refused by the lock.
        policy.disabled = true;
        policy
    };
    let selecting = |name: &str, audience: &str, team: &str| {
        let mut policy = allowing(PolicyName::cluster(name), audience);
        policy.namespace_selector = Selector(vec![Requirement {
            key: "team".into(),
            operator: SelectorOperator::In(vec![team.into()]),
        }]);
        policy
    };
    fixture.policies = [
        allowing(PolicyName::namespaced("shop", "own"), "of-shop"),
        allowing(PolicyName::namespaced("bank", "other"), "of-bank"),
        allowing(PolicyName::cluster("all"), "of-all"),
        selecting("shops", "of-shops", "shop"),
        selecting("banks", "of-banks", "bank"),
    ]
    .into_iter()
    .collect();
    for (audience, is_locked) in [
        ("of-shop", true),
        ("of-bank", false),
        ("of-all", true),
        ("of-shops", true),
        ("of-banks", false),
    ] {
        let reviewed = fixture.review(&with_token(audience));
        let outcome = if is_locked {
            ReviewOutcome::Denied
        } else {
            ReviewOutcome::Untouched
        };
        assert_eq!(reviewed.outcome(), outcome, "{audience}: {}", reviewed.message());
    }
}

#[test]
fn where_labels_are_missing_the_audiences_of_every_cluster_policy_are_locked() {
    let mut fixture = denying();
    fixture.settings.lock.policy_audiences = true;
    let mut banks = policy("any");
    banks.name = PolicyName::cluster("banks");
    banks.audiences.allowed = vec!["of-banks".parse().unwrap()];
    banks.namespace_selector = Selector(vec![Requirement {
        key: "team".into(),
        operator: SelectorOperator::In(vec!["bank".into()]),
    }]);
    fixture.policies = [banks].into_iter().collect();
    let mut pod = with_token("of-banks");
    pod["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched);
    fixture.lacks_policies = Some("the labels of namespace shop take more than their share");
    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Denied);
}

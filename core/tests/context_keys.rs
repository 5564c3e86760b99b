//! Which policies have context keys in the one document of the issuer, and which have no room.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::{
    Boundary, Claims, ContainerFilter, Glob, Policy, PolicyName, PolicySet, Requirement, Selector, SelectorOperator,
    TokenSource,
};
use tokenscope_fixtures::policy;

fn with_keys(name: PolicyName, created: i64, keys: &[&str]) -> Policy {
    let mut policy = policy("p");
    policy.name = name;
    policy.created = Some(Timestamp::from_second(created).unwrap());
    policy.token.source = TokenSource::Issuer;
    policy.claims = Arc::new(Claims {
        context: keys.iter().map(|key| ((*key).into(), "x".parse().unwrap())).collect(),
        ..Claims::default()
    });
    policy
}

const NAME: &str = "kubernetes.io/metadata.name";
const TEN: [&str; 10] = ["k0", "k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8", "k9"];

/// Why the policy of this name has no room, or nothing.
fn without_room(set: &PolicySet, name: &PolicyName) -> String {
    let keys = set.context_keys();
    keys.without_room()
        .get(name)
        .map(ToString::to_string)
        .unwrap_or_default()
}

fn keys(set: &PolicySet) -> Vec<&str> {
    set.context_keys().keys().collect()
}

#[test]
fn a_cluster_policy_has_its_keys_before_older_policies_of_namespaces() {
    let tenant = PolicyName::namespaced("shop", "a");
    let cluster = PolicyName::cluster("z");
    let set: PolicySet = [
        with_keys(tenant.clone(), 1, &TEN),
        with_keys(cluster.clone(), 2, &["team"]),
    ]
    .into_iter()
    .collect();
    assert_eq!(without_room(&set, &cluster), "");
    let why = without_room(&set, &tenant);
    assert!(
        why.starts_with("spec.claims.context[k9] would be one key too many") && why.contains("have team;"),
        "{why}"
    );
    assert_eq!(keys(&set), ["team"]);
}

#[test]
fn among_policies_of_namespaces_the_older_one_has_its_keys() {
    let [older, newer] = ["bank", "shop"].map(|namespace| PolicyName::namespaced(namespace, "p"));
    for (first, second) in [(1, 2), (2, 1)] {
        let set: PolicySet = [
            with_keys(older.clone(), first, &TEN),
            with_keys(newer.clone(), second, &["team"]),
        ]
        .into_iter()
        .collect();
        assert_eq!(without_room(&set, &older).is_empty(), first < second);
        assert_eq!(without_room(&set, &newer).is_empty(), second < first);
    }
}

#[test]
fn a_key_that_differs_by_case_alone_is_refused_to_the_later_policy_and_the_other_one_is_named() {
    let [older, newer] = ["a", "b"].map(|name| PolicyName::namespaced("shop", name));
    let set: PolicySet = [
        with_keys(older.clone(), 1, &["team"]),
        with_keys(newer.clone(), 2, &["Team", "stage"]),
    ]
    .into_iter()
    .collect();
    assert_eq!(without_room(&set, &older), "");
    let why = without_room(&set, &newer);
    assert!(
        why.starts_with("spec.claims.context[Team] differs from the key team by upper and lower case alone"),
        "{why}"
    );
    assert!(why.contains("Write team here too"), "{why}");
    assert_eq!(keys(&set), ["team"]);

    let alone: PolicySet = [with_keys(older.clone(), 1, &["Team", "team"])].into_iter().collect();
    assert!(without_room(&alone, &older).contains("[team] differs from the key Team"));
    assert_eq!(keys(&alone), Vec::<&str>::new());
}

#[test]
fn a_policy_that_can_grant_nothing_takes_no_room() {
    let [older, newer] = ["a", "b"].map(|name| PolicyName::namespaced("shop", name));
    let of = |change: fn(&mut Policy)| {
        let mut first = with_keys(older.clone(), 1, &TEN);
        change(&mut first);
        let set: PolicySet = [first, with_keys(newer.clone(), 2, &["team"])].into_iter().collect();
        without_room(&set, &newer)
    };
    assert!(of(|_| {}).contains("context[team] would be one key too many"));
    assert_eq!(of(|policy| policy.disabled = true), "");
    assert_eq!(of(|policy| policy.subjects.clear()), "");
    let nowhere = |policy: &mut Policy| {
        policy.containers = ContainerFilter {
            exclude: vec![Glob::new("*")],
            ..ContainerFilter::default()
        };
    };
    assert_eq!(of(nowhere), "");
    // Neither the time nor what an installation takes is known here.
    assert_ne!(of(|policy| policy.expires_at = Some(Timestamp::UNIX_EPOCH)), "");
}

#[test]
fn a_policy_outside_a_boundary_that_surely_selects_its_namespace_takes_no_room() {
    let [outside, newer] = ["shop", "bank"].map(|namespace| PolicyName::namespaced(namespace, "p"));
    let mut set: PolicySet = [with_keys(outside, 1, &TEN), with_keys(newer.clone(), 2, &["team"])]
        .into_iter()
        .collect();
    let mut put = |requirements: &[(&str, &str)]| {
        let requirement = |(key, value): &(&str, &str)| Requirement {
            key: (*key).into(),
            operator: SelectorOperator::In(vec![(*value).into()]),
        };
        set.insert_boundary(Arc::new(Boundary {
            name: "b".into(),
            namespace_selector: Selector(requirements.iter().map(requirement).collect()),
            roles: Vec::new(),
            audiences: Vec::new(),
            max_expiration: None,
            sources: Vec::new(),
            claims: Some(Claims {
                context: [("team".into(), "x".parse().unwrap())].into(),
                ..Claims::default()
            }),
            outbound_audiences: None,
            session_policy: None,
        }));
        without_room(&set, &newer)
    };
    assert_eq!(put(&[(NAME, "shop")]), "");
    assert_ne!(put(&[(NAME, "bank")]), "", "it is for another namespace");
    assert_ne!(put(&[("tenant", "yes")]), "", "labels are not known here");
    assert_ne!(put(&[(NAME, "shop"), ("tenant", "yes")]), "");
    set.remove_boundary("b");
    assert_ne!(without_room(&set, &newer), "");
    set.insert_unusable_boundary("b", "it can't be read");
    assert_ne!(without_room(&set, &newer), "", "nobody knows what it allows");
}

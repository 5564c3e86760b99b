//! Pods and policies of any size: what a decision costs, where its bounds are, and that neither changes who gets what.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tokenscope_core::lock::{self, MissingGrant};
use tokenscope_core::pod::Pod;
use tokenscope_core::*;
use tokenscope_fixtures::{ORDERS, ProcessorTime};

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// A policy of namespace `shop` for all its pods that allows `shop/*`.
fn policy(name: &str) -> Policy {
    Policy {
        roles: Roles {
            allowed: vec!["arn:aws:iam::111122223333:role/shop/*".parse().unwrap()],
            default: None,
        },
        ..tokenscope_fixtures::policy(name)
    }
}

fn pod(annotations: &[(String, String)], containers: usize) -> Pod<String> {
    let annotations: BTreeMap<_, _> = annotations.iter().cloned().collect();
    let containers: Vec<_> = (0..containers)
        .map(|index| serde_json::json!({"name": format!("c{index}")}))
        .collect();
    let pod = serde_json::json!({"metadata": {"annotations": annotations}, "spec": {"containers": containers}});
    serde_json::from_value(pod).unwrap()
}

fn request<'a>(pod: &'a Pod<String>, service_account_annotations: &[(&'a str, &'a str)]) -> Request<'a> {
    Request {
        namespace: "shop",
        namespace_labels: Pairs::default(),
        service_account: "orders",
        service_account_annotations: service_account_annotations.iter().copied().collect(),
        pod: pod.facts(None),
    }
}

fn decided(pod: &Pod<String>, policies: impl IntoIterator<Item = Policy>) -> Decision {
    decide(
        &request(pod, &[]),
        &policies.into_iter().collect(),
        &Settings::default(),
        now(),
    )
}

fn refused(decision: Decision) -> String {
    match decision {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("not denied: {other:?}"),
    }
}

fn annotation(key: &str, value: impl Into<String>) -> (String, String) {
    (key.into(), value.into())
}

fn names(count: usize) -> String {
    let names: Vec<_> = (0..count).map(|index| format!("c{index}")).collect();
    names.join(",")
}

#[test]
fn a_pod_beyond_a_bound_is_refused_where_it_asks_or_would_be_granted_and_passes_otherwise() {
    let many = 257;
    let asking = pod(&[annotation(annotations::ROLE_ARN, ORDERS)], many);
    let silent = pod(&[], many);
    let mut assigning = policy("p");
    assigning.roles.default = Some(ORDERS.parse().unwrap());
    let expected = "the pod has more than 256 containers";

    assert!(refused(decided(&asking, [policy("p")])).starts_with(expected));
    assert!(refused(decided(&asking, [])).starts_with(expected));
    assert!(refused(decided(&silent, [assigning])).starts_with(expected));
    assert_eq!(
        decided(&silent, [policy("p")]),
        Decision::Untouched(Untouched::NothingAsked)
    );
    let opted_out = pod(
        &[
            annotation(annotations::ROLE_ARN, ORDERS),
            annotation(annotations::INJECT, "false"),
        ],
        many,
    );
    assert_eq!(
        decided(&opted_out, [policy("p")]),
        Decision::Untouched(Untouched::OptedOut)
    );
}

#[test]
fn a_pod_at_its_bounds_is_decided_in_full() {
    let annotations = [
        annotation(annotations::ROLE_ARN, ORDERS),
        annotation(annotations::CONTAINERS, names(256)),
        annotation(annotations::SKIP_CONTAINERS, "c255"),
    ];
    let Decision::Granted(granted) = decided(&pod(&annotations, 256), [policy("p")]) else {
        panic!("not granted")
    };
    assert_eq!(granted.containers.len(), 255);
    assert_eq!(granted.left_alone.len(), 1);
}

#[test]
fn a_value_or_list_that_is_too_long_is_refused_and_the_message_names_the_annotation_and_the_bound() {
    for (key, value, expected) in [
        (
            annotations::SKIP_CONTAINERS,
            names(257),
            "annotation tokenscope.io/skip-containers lists more than 256 containers",
        ),
        (
            annotations::CONTAINERS,
            names(20_000),
            "the value of annotation tokenscope.io/containers has more than 16640 bytes",
        ),
        (
            annotations::ROLE_ARN,
            "a".repeat(3000),
            "the value of annotation tokenscope.io/role-arn has more than 2048 bytes",
        ),
        (
            annotations::INJECT,
            "a".repeat(3000),
            "the value of annotation tokenscope.io/inject has more than 2048 bytes",
        ),
        (
            "tokenscope.io/role-arn.c0",
            "a".repeat(300_000),
            "the value of annotation tokenscope.io/role-arn.c0 has more than 2048 bytes",
        ),
    ] {
        let pod = pod(
            &[
                annotation(annotations::ROLE_ARN, ORDERS),
                annotation(key, value.as_str()),
            ],
            1,
        );
        let message = refused(decided(&pod, [policy("p")]));
        assert!(message.starts_with(expected), "{message}");
    }
    let long = "x".repeat(20_000);
    let asking = pod(&[annotation(annotations::ROLE_ARN, ORDERS)], 1);
    let request = request(&asking, &[(annotations::AUDIENCE, &long)]);
    let policies = [policy("p")].into_iter().collect();
    let message = refused(decide(&request, &policies, &Settings::default(), now()));
    assert!(
        message.starts_with("the value of annotation tokenscope.io/audience has more than 2048 bytes"),
        "{message}"
    );
}

#[test]
fn a_refusal_has_a_bounded_length_and_counts_what_it_leaves_out() {
    let other = |index: usize| {
        let mut policy = policy(&format!("{index:0>200}"));
        policy.roles.allowed = (0..20)
            .map(|role| {
                format!("arn:aws:iam::111122223333:role/{}/{role}", "p".repeat(450))
                    .parse()
                    .unwrap()
            })
            .collect();
        policy
    };
    let asking = pod(&[annotation(annotations::ROLE_ARN, ORDERS)], 256);
    let Decision::Denied(denied) = decided(&asking, (0..300).map(other)) else {
        panic!("not denied")
    };
    let message = denied.to_string();

    assert_eq!(denied.refusals.len() + denied.more, 300);
    assert!(denied.refusals.len() <= 16);
    assert!(message.len() <= 4096, "{} bytes", message.len());
    assert!(denied.sentences().iter().all(|sentence| sentence.len() <= 1024));
    let said = denied.sentences().len() - 1;
    assert!(message.ends_with(&format!("; and {} more", 300 - said)), "{message}");
}

#[test]
fn only_a_pod_that_asks_must_be_reviewed_or_is_too_large_for_the_guard_needs_the_mark() {
    let needs_mark = |pod: &Pod<String>| request(pod, &[]).needs_mark();
    let others = |count: usize| -> Vec<_> {
        (0..count)
            .map(|index| annotation(&format!("example.com/{index}"), "x"))
            .collect()
    };
    let volumes = |volumes: String| -> Pod<String> {
        serde_json::from_str(&format!(r#"{{"spec":{{"volumes":[{volumes}]}}}}"#)).unwrap()
    };
    let projected = |sources: usize| {
        let sources = vec![r#"{"configMap":{}}"#; sources].join(",");
        volumes(format!(r#"{{"name":"v","projected":{{"sources":[{sources}]}}}}"#))
    };
    let empty = |count: usize| volumes(vec![r#"{"name":"v"}"#; count].join(","));

    assert!(needs_mark(&pod(&[annotation(annotations::ROLE_ARN, "")], 1)));
    assert!(!needs_mark(&pod(&others(256), 1)) && needs_mark(&pod(&others(257), 1)));
    // Where the lock is in mode deny, these are refused.
    let is_large = |pod: &Pod<String>| pod.facts(None).volumes_beyond().next().is_some();
    assert!(!is_large(&empty(256)) && is_large(&empty(257)));
    assert!(!is_large(&projected(32)) && is_large(&projected(33)));
    assert!(!needs_mark(&pod(&[], 300)), "no rule of the guard looks at containers");
}

/// A pod with 256 containers, of which so many are named a role of their own.
fn naming(roles: usize) -> Pod<String> {
    let roles: Vec<_> = (0..roles)
        .map(|index| annotation(&format!("tokenscope.io/role-arn.c{index}"), format!("{ORDERS}/{index}")))
        .collect();
    pod(&roles, 256)
}

/// A hundred policies, each with so many patterns of roles and of containers that are half stars.
fn full_of_stars(roles: usize, containers: usize) -> PolicySet {
    let policy = |index: usize| {
        let mut policy = policy(&format!("p{index}"));
        let pattern = |role| format!("arn:aws:iam::111122223333:role/shop/*{}x{role}", "o*".repeat(16));
        policy.roles.allowed = (0..roles).map(|role| pattern(role).parse().unwrap()).collect();
        let pattern = |name| Glob::new(&format!("{}x{name}", "c*".repeat(10)));
        policy.containers.include = (0..containers).map(pattern).collect();
        policy
    };
    (0..100).map(policy).collect()
}

fn is_about_comparisons(decision: &Decision) -> bool {
    let Decision::Denied(denied) = decision else {
        return false;
    };
    denied.refusals == [Refusal::Beyond(bounds::Beyond::Comparisons)]
}

#[test]
fn roles_and_containers_times_the_patterns_about_them_have_a_bound() {
    let decided = |pod: &Pod<String>, policies: &PolicySet| {
        is_about_comparisons(&decide(&request(pod, &[]), policies, &Settings::default(), now()))
    };
    for (roles, of_roles, of_containers, is_beyond) in [
        (250, 2, 1, false),
        (250, 3, 1, true),
        (1, 20, 1, false),
        (1, 1, 7, false),
        (1, 1, 8, true),
    ] {
        let policies = full_of_stars(of_roles, of_containers);
        let case = format!("{roles} roles, {of_roles} patterns of roles and {of_containers} of containers");
        assert_eq!(decided(&naming(roles), &policies), is_beyond, "{case}");
    }
    let silent = pod(&[], 256);
    assert!(!decided(&silent, &full_of_stars(20, 20)), "it asks for nothing");
}

#[test]
fn tokens_times_the_containers_that_mount_them_and_the_policies_about_them_have_a_bound() {
    let mounting = |count: usize| -> Pod<String> {
        let containers: Vec<_> = (0..count)
            .map(|index| serde_json::json!({"name": format!("c{index}"), "volumeMounts": [{"name": "t", "mountPath": "/t"}]}))
            .collect();
        let token = serde_json::json!({"audience": "sts.amazonaws.com", "expirationSeconds": 600, "path": "token"});
        let volume = serde_json::json!({"name": "t", "projected": {"sources": [{"serviceAccountToken": token}]}});
        serde_json::from_value(serde_json::json!({"spec": {"containers": containers, "volumes": [volume]}})).unwrap()
    };
    let policies: PolicySet = (0..100)
        .map(|index| {
            let mut policy = policy(&format!("p{index}"));
            policy.containers.include = vec![Glob::new("c*")];
            policy
                .containers
                .include
                .extend((0..7).map(|name| Glob::new(&format!("{}x{name}", "c*".repeat(10)))));
            policy
        })
        .collect();
    for (containers, expected) in [(1, None), (240, None), (256, Some(MissingGrant::Comparisons))] {
        let pod = mounting(containers);
        let ungranted = lock::ungranted(&request(&pod, &[]), &policies, &Settings::default(), now());
        let remedies: Vec<_> = ungranted.into_iter().map(|token| token.remedy).collect();
        assert_eq!(remedies, Vec::from_iter(expected), "{containers}");
    }
}

#[test]
fn the_most_expensive_pod_within_the_bounds_is_decided_in_less_than_a_second() {
    let (asking, policies) = (naming(250), full_of_stars(2, 1));
    let request = request(&asking, &[]);
    let once = || {
        let began = ProcessorTime::now();
        std::hint::black_box(decide(&request, &policies, &Settings::default(), now()));
        began.elapsed()
    };
    // Tests are built without optimisation, which makes them about ten times as slow; a busy machine makes some slower again.
    let most = Duration::from_secs(if cfg!(debug_assertions) { 10 } else { 1 });
    let took = (0..3).map(|_| once()).min().unwrap();
    assert!(took < most, "{took:?}");
}

fn is_about_names(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::UnknownContainers { .. } | Refusal::NamedContainersLeftOut { .. }
    )
}

/// The rule about lists and roles of containers, as the documentation has it, with every name looked up anew.
fn plainly_granted(
    containers: &[String],
    only: Option<&[String]>,
    skip: &[String],
    role: Option<&str>,
    roles: &BTreeMap<&str, &str>,
) -> Vec<(usize, String)> {
    let mut granted = Vec::new();
    for (index, name) in containers.iter().enumerate() {
        let is_left_out =
            skip.iter().any(|other| other == name) || only.is_some_and(|only| !only.iter().any(|other| other == name));
        let own = roles.iter().find(|(other, _)| **other == *name).map(|(_, role)| *role);
        if let Some(role) = own.or(role).filter(|_| !is_left_out) {
            granted.push((index, role.to_owned()));
        }
    }
    granted
}

proptest! {
    #[test]
    fn lists_and_roles_of_containers_mean_what_the_documentation_says(
        containers in prop::collection::vec("[a-d]", 0..6),
        only in prop::option::of(prop::collection::vec("[a-e]", 1..4)),
        skip in prop::collection::vec("[a-e]", 0..3),
        role in prop::option::of(0..3usize),
        roles in prop::collection::btree_map("[a-e]", 0..3usize, 0..4),
    ) {
        let arns: Vec<_> = (0..3).map(|index| format!("arn:aws:iam::111122223333:role/shop/r{index}")).collect();
        let mut annotations: Vec<_> = roles
            .iter()
            .map(|(name, role)| annotation(&format!("tokenscope.io/role-arn.{name}"), arns[*role].as_str()))
            .collect();
        annotations.extend(role.map(|role| annotation(annotations::ROLE_ARN, arns[role].as_str())));
        annotations.extend(only.as_ref().map(|only| annotation(annotations::CONTAINERS, only.join(", "))));
        annotations.extend((!skip.is_empty()).then(|| annotation(annotations::SKIP_CONTAINERS, skip.join(","))));
        let list: Vec<_> = containers.iter().map(|name| serde_json::json!({"name": name})).collect();
        let annotations: BTreeMap<_, _> = annotations.into_iter().collect();
        let pod: Pod<String> = serde_json::from_value(
            serde_json::json!({"metadata": {"annotations": annotations}, "spec": {"containers": list}})
        ).unwrap();

        let granted = match decided(&pod, [policy("p")]) {
            Decision::Granted(granted) => granted.containers,
            Decision::Untouched(_) | Decision::Associated(_) => Vec::new(),
            // Who names only containers that are not there, or that lists leave out, gets nothing, and hears of it.
            Decision::Denied(denied) if denied.refusals.iter().all(is_about_names) => Vec::new(),
            Decision::Denied(denied) => panic!("{denied}"),
        };
        let granted: Vec<_> = granted.iter().map(|granted| (granted.container, granted.grant.role.to_string())).collect();
        let roles = roles.iter().map(|(name, role)| (name.as_str(), arns[*role].as_str())).collect();
        let expected = plainly_granted(&containers, only.as_deref(), &skip, role.map(|role| arns[role].as_str()), &roles);
        prop_assert_eq!(granted, expected);
    }
}

//! Conflicts of default roles: which are found, and what finding them costs.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

use std::time::Duration;

use jiff::Timestamp;
use proptest::prelude::*;
use tokenscope_core::*;
use tokenscope_fixtures::ProcessorTime;

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// A policy that assigns role `role` to service accounts of these names.
fn assigning(name: PolicyName, role: &str, subjects: Vec<Vec<String>>) -> Policy {
    let subjects = subjects.into_iter().map(|names| Subject {
        service_accounts: names.iter().map(|name| Glob::new(name)).collect(),
        pod_selector: None,
    });
    Policy {
        name,
        subjects: subjects.collect(),
        roles: Roles {
            allowed: Vec::new(),
            default: Some(format!("arn:aws:iam::111122223333:role/{role}").parse().unwrap()),
        },
        ..tokenscope_fixtures::policy("")
    }
}

/// Times are of the processor. Tests are built without optimisation, which makes them about ten times as slow, and a busy machine makes
/// them slower again at moments.
fn within(most: Duration, took: Duration) -> bool {
    took < if cfg!(debug_assertions) { most * 40 } else { most }
}

/// 32 subjects of 32 names of 253 characters.
fn longest(name: impl Fn(usize) -> String) -> Vec<Vec<String>> {
    let subject = |subject: usize| (0..32).map(|index| name(subject * 32 + index)).collect();
    (0..32).map(subject).collect()
}

#[test]
fn two_of_the_longest_policies_are_compared_in_milliseconds_whatever_their_names() {
    type Name = fn(usize, char) -> String;
    let shapes: [(&str, Name); 5] = [
        ("exact names", |n, end| format!("{n:0>252}{end}")),
        ("patterns that differ in the end only", |n, end| {
            format!("*{n:0>250}*{end}")
        }),
        ("patterns that differ before a long suffix", |n, end| {
            format!("*{end}{}", format!("{n:0>4}") + &"a".repeat(247))
        }),
        ("many stars", |n, end| format!("{}{n:0>4}*b{end}", "*a".repeat(123))),
        ("patterns of one policy and names of the other", |n, end| {
            if end == 'x' {
                format!("{}{n:0>4}x", "a*".repeat(124))
            } else {
                format!("{}{n:0>4}y", "a".repeat(248))
            }
        }),
    ];
    for (what, shape) in shapes {
        let policies: PolicySet = [('x', "one"), ('y', "two")]
            .into_iter()
            .map(|(end, name)| {
                let subjects = longest(|n| shape(n, end));
                assigning(PolicyName::namespaced("shop", name), name, subjects)
            })
            .collect();
        let once = || {
            let began = ProcessorTime::now();
            for policy in policies.iter() {
                DefaultConflicts::new(&policies, now()).of(policy);
            }
            began.elapsed() / 2
        };
        // A busy machine disturbs some of the measurements.
        let took = (0..5).map(|_| once()).min().unwrap();
        assert!(within(Duration::from_millis(10), took), "{what}: {took:?}");
    }
}

#[test]
fn ten_thousand_policies_of_the_cluster_are_compared_in_a_second() {
    let policies: PolicySet = (0..10_000)
        .map(|n| {
            let names = vec![vec![format!("app-{n}"), format!("app-{n}-*")]];
            assigning(PolicyName::cluster(&format!("p{n}")), &format!("r{n}"), names)
        })
        .collect();
    let began = ProcessorTime::now();
    let mut conflicts = DefaultConflicts::new(&policies, now());
    let found: Vec<_> = policies.iter().map(|policy| conflicts.of(policy)).collect();
    let took = began.elapsed();

    assert!(found.iter().all(|found| found.complete && found.with.is_empty()));
    assert!(within(Duration::from_secs(1), took), "{took:?}");
}

#[test]
fn what_the_budget_does_not_reach_is_said_and_other_namespaces_do_not_suffer() {
    let hostile = |namespace: &str, n: usize| {
        let names = longest(|index| format!("*{index:0>4}{n:0>4}{}", "a".repeat(200)));
        assigning(
            PolicyName::namespaced(namespace, &format!("p{n}")),
            &format!("r{n}"),
            names,
        )
    };
    let mut policies: PolicySet = (0..40).map(|n| hostile("bad", n)).collect();
    for name in ["one", "two"] {
        let policy = assigning(PolicyName::namespaced("shop", name), name, vec![vec!["orders".into()]]);
        policies.insert(policy.into());
    }
    let began = ProcessorTime::now();
    let mut conflicts = DefaultConflicts::new(&policies, now());
    let bad: Vec<_> = policies.about("bad").map(|policy| conflicts.of(policy)).collect();
    let good: Vec<_> = policies.about("shop").map(|policy| conflicts.of(policy)).collect();
    let took = began.elapsed();

    assert!(bad.iter().any(|found| !found.complete));
    assert!(good.iter().all(|found| found.complete && found.with.len() == 1));
    assert!(within(Duration::from_secs(2), took), "{took:?}");
}

#[test]
fn of_many_conflicts_some_are_named_and_it_is_said_that_there_are_more() {
    let policies: PolicySet = (0..100)
        .map(|n| {
            assigning(
                PolicyName::namespaced("shop", &format!("p{n}")),
                &format!("r{n}"),
                vec![vec![]],
            )
        })
        .collect();
    let first = policies.iter().next().unwrap();
    let found = DefaultConflicts::new(&policies, now()).of(first);

    assert_eq!(found.with.len(), 16);
    assert!(!found.complete);
}

fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    let names = prop::collection::vec("[ab*]{1,3}", 0..3);
    let source = prop::sample::select(vec![
        TokenSource::ServiceAccount,
        TokenSource::Spiffe,
        TokenSource::Issuer,
    ]);
    let policy = (prop::collection::vec(names, 0..3), 0..3usize, any::<bool>(), source);
    prop::collection::vec(policy, 0..8).prop_map(|policies| {
        let policies = policies.into_iter().enumerate();
        policies
            .map(|(index, (subjects, role, cluster, source))| {
                let name = format!("p{index}");
                let name = if cluster {
                    PolicyName::cluster(&name)
                } else {
                    PolicyName::namespaced("shop", &name)
                };
                let mut policy = assigning(name, &format!("r{role}"), subjects);
                policy.token.source = source;
                policy
            })
            .collect()
    })
}

/// Whether they assign different roles, or one role with tokens of different kinds of which one is the issuer's.
fn contradict(one: &Policy, other: &Policy) -> bool {
    let (source, others) = (one.token.source, other.token.source);
    one.roles.default != other.roles.default || (source == TokenSource::Issuer) != (others == TokenSource::Issuer)
}

/// All texts of up to four letters that a policy of [`any_policies`] can tell apart.
fn names() -> Vec<String> {
    let mut names = vec![String::new()];
    for length in 0..6 {
        let longer: Vec<_> = names.iter().filter(|name| name.len() == length).cloned().collect();
        names.extend(longer.iter().flat_map(|name| [format!("{name}a"), format!("{name}b")]));
    }
    names
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn two_policies_are_in_conflict_if_some_service_account_gets_both_roles(policies in any_policies()) {
        let set: PolicySet = policies.iter().cloned().collect();
        let names = names();
        let mut conflicts = DefaultConflicts::new(&set, now());
        for one in &policies {
            let found = conflicts.of(one);
            prop_assert!(found.complete);
            let found: Vec<_> = found.with.iter().map(|policy| policy.name.clone()).collect();
            let matches = |policy: &Policy, name: &str| policy.subjects.iter().any(|subject| subject.matches_service_account(name));
            let mut expected: Vec<_> = policies
                .iter()
                .filter(|other| other.name != one.name && other.name.is_cluster() == one.name.is_cluster())
                .filter(|other| contradict(one, other))
                .filter(|other| names.iter().any(|name| matches(one, name) && matches(other, name)))
                .map(|other| other.name.clone())
                .collect();
            expected.sort();
            prop_assert_eq!(found, expected);
        }
    }
}

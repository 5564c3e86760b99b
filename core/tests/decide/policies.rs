//! Policies that select a pod or not, and policies beside each other.

use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, CARTS, Workload, asking, assigning, cluster_policy, now, policy, roles, workload};

#[test]
fn a_policy_without_subjects_matches_nothing() {
    let mut nobody = assigning(ORDERS, policy("nobody"));
    nobody.subjects.clear();

    assert_eq!(
        workload().decided([nobody]),
        Decision::Untouched(Untouched::NothingAsked)
    );
}

#[test]
fn subjects_are_alternatives_and_inside_one_everything_must_match() {
    let app = |value: &str| {
        Selector(vec![Requirement {
            key: "app".into(),
            operator: SelectorOperator::In(vec![value.into()]),
        }])
    };
    let subject = |name: &str, selector| Subject {
        service_accounts: vec![Glob::new(name)],
        pod_selector: selector,
    };
    let with = |subjects| Policy {
        subjects,
        ..policy("p")
    };

    asking(ORDERS).granted([with(vec![subject("carts", None), subject("ord*", Some(app("orders")))])]);
    let refusal = asking(ORDERS).refused([with(vec![subject("orders", Some(app("carts")))])]);
    assert!(
        refusal.contains("it is about service account orders with pod labels app=carts"),
        "{refusal}"
    );
}

#[test]
fn a_default_is_assigned_to_a_matching_pod_that_names_none() {
    let granted = workload().granted([assigning(ORDERS, policy("orders"))]);

    assert_eq!(roles(&granted), [(0, ORDERS)]);
    assert!(
        granted.containers[0]
            .reason
            .contains("assigned as its default by TokenScopePolicy shop/orders")
    );
}

#[test]
fn two_different_defaults_on_one_level_are_a_conflict_that_names_both() {
    let refusal = workload().refused([assigning(ORDERS, policy("a")), assigning(CARTS, policy("b"))]);

    assert!(
        refusal.starts_with("TokenScopePolicy shop/a and TokenScopePolicy shop/b assign different default roles"),
        "{refusal}"
    );
    asking(ORDERS).granted([assigning(ORDERS, policy("a")), assigning(CARTS, policy("b"))]);
}

#[test]
fn a_namespaced_default_beats_a_cluster_one_and_equal_ones_agree() {
    let set = [
        assigning(CARTS, cluster_policy("a")),
        assigning(ORDERS, policy("z")),
        assigning(ORDERS, policy("y")),
    ];
    let granted = workload().granted(set);

    assert_eq!(roles(&granted), [(0, ORDERS)]);
    assert_eq!(
        granted.containers[0].grant.policy,
        Some(PolicyName::namespaced("shop", "y"))
    );
    assert!(
        granted.containers[0].reason.contains("before TokenScopePolicy shop/z"),
        "{}",
        granted.containers[0].reason
    );
}

#[test]
fn a_fallback_is_looked_at_only_where_no_other_policy_grants() {
    let fallback = Policy {
        fallback: true,
        ..policy("a")
    };
    let by = |granted: Granted| granted.containers[0].grant.policy.clone().unwrap();

    assert_eq!(
        by(asking(ORDERS).granted([fallback.clone(), cluster_policy("z")])),
        PolicyName::cluster("z")
    );
    let only = asking(ORDERS).granted([fallback.clone()]);
    assert!(only.containers[0].reason.contains("a fallback"));
    let wide = Policy {
        roles: Roles {
            allowed: vec![ADMIN.parse().unwrap()],
            default: None,
        },
        ..fallback
    };
    assert_eq!(
        by(asking(ADMIN).granted([wide, policy("z")])),
        PolicyName::namespaced("shop", "a")
    );
}

#[test]
fn a_policy_out_of_force_says_so() {
    let at = |text: &str| Some(text.parse().unwrap());
    let schedule = |cron| Some(Schedule::parse(cron, "2h", "Europe/Berlin").unwrap());

    let refusal = asking(ORDERS).refused([Policy {
        disabled: true,
        ..policy("p")
    }]);
    assert!(refusal.contains("TokenScopePolicy shop/p is disabled"), "{refusal}");
    let refusal = asking(ORDERS).refused([Policy {
        expires_at: at("2026-11-23T10:00:00Z"),
        ..policy("p")
    }]);
    assert!(refusal.contains("expired at 2026-11-23T10:00:00Z"), "{refusal}");
    asking(ORDERS).granted([Policy {
        expires_at: at("2026-11-23T10:00:01Z"),
        ..policy("p")
    }]);
    let refusal = asking(ORDERS).refused([Policy {
        active_schedule: schedule("0 13 * * *"),
        ..policy("p")
    }]);
    assert!(refusal.contains("next at 2026-11-23T12:00:00Z"), "{refusal}");
    asking(ORDERS).granted([Policy {
        active_schedule: schedule("0 11 * * *"),
        ..policy("p")
    }]);
}

#[test]
fn a_cluster_policy_is_about_the_namespaces_that_it_selects() {
    let selector = Selector(vec![Requirement {
        key: "team".into(),
        operator: SelectorOperator::Exists,
    }]);
    let cluster = Policy {
        namespace_selector: selector,
        ..cluster_policy("teams")
    };

    assert!(asking(ORDERS).refused([cluster.clone()]).contains("no policy selects"));
    Workload {
        namespace_labels: vec![("team", "core")],
        ..asking(ORDERS)
    }
    .granted([cluster]);
}

#[test]
fn an_unusable_policy_grants_nothing_and_the_denied_pod_hears_of_it() {
    let mut policies = PolicySet::default();
    policies.insert_unusable(
        PolicyName::namespaced("shop", "broken"),
        &InvalidPolicy::new("spec.roles.allowed[0]", "not a role"),
    );
    let workload = asking(ORDERS);

    let Decision::Denied(denied) = decide(&workload.request(), &policies, &Settings::default(), now()) else {
        panic!("not denied")
    };
    assert!(
        denied
            .to_string()
            .contains("TokenScopePolicy shop/broken can't be used: spec.roles.allowed[0]"),
        "{denied}"
    );
    policies.insert(policy("good").into());
    assert!(matches!(
        decide(&workload.request(), &policies, &Settings::default(), now()),
        Decision::Granted(_)
    ));
}

#[test]
fn colliding_defaults_are_seen_before_a_pod_meets_them() {
    let subject = |name: &str, app: Option<&str>| Subject {
        service_accounts: vec![Glob::new(name)],
        pod_selector: app.map(|app| {
            Selector(vec![Requirement {
                key: "app".into(),
                operator: SelectorOperator::In(vec![app.into()]),
            }])
        }),
    };
    let about = |name: &str, role: &str, subject| Policy {
        subjects: vec![subject],
        ..assigning(role, policy(name))
    };
    let conflicts = |one: Policy, other: Policy| {
        let set: PolicySet = [one.clone(), other].into_iter().collect();
        DefaultConflicts::new(&set, now()).of(&one).with.len()
    };

    assert_eq!(
        conflicts(
            about("a", ORDERS, subject("or*", None)),
            about("b", CARTS, subject("*rs", None))
        ),
        1
    );
    assert_eq!(
        conflicts(
            about("a", ORDERS, subject("or*", None)),
            about("b", ORDERS, subject("*", None))
        ),
        0,
        "the same role"
    );
    assert_eq!(
        conflicts(
            about("a", ORDERS, subject("or*", None)),
            about("b", CARTS, subject("ca*", None))
        ),
        0,
        "no common name"
    );
    assert_eq!(
        conflicts(
            about("a", ORDERS, subject("*", Some("x"))),
            about("b", CARTS, subject("*", Some("y")))
        ),
        0,
        "no common pod"
    );
    assert_eq!(
        conflicts(
            about("a", ORDERS, subject("*", Some("x"))),
            about("b", CARTS, subject("*", None))
        ),
        1
    );
    let disabled = Policy {
        disabled: true,
        ..about("b", CARTS, subject("*", None))
    };
    assert_eq!(conflicts(about("a", ORDERS, subject("*", None)), disabled), 0);
}

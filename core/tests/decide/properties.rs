//! Properties of any policies and any pod.

use proptest::prelude::*;
use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, CARTS, Workload, cluster_policy, container, now, policy, workload};

fn any_policy() -> impl Strategy<Value = Policy> {
    let role = prop::sample::select(vec![ORDERS, CARTS, ADMIN]);
    (
        0..6usize,
        any::<[bool; 5]>(),
        prop::option::of(role.clone()),
        role,
        0..3i64,
    )
        .prop_map(
            |(name, [cluster, disabled, fallback, other_subject, expired], default, allowed, expiration)| {
                let name = format!("p{name}");
                let mut policy = if cluster { cluster_policy(&name) } else { policy(&name) };
                policy.roles.allowed = vec![allowed.parse().unwrap()];
                policy.roles.default = default.map(|role| role.parse().unwrap());
                policy.disabled = disabled;
                policy.fallback = fallback;
                policy.expires_at = expired.then(now);
                policy.token.expiration = TokenExpiration::from_seconds(600 * (expiration + 1)).unwrap();
                if other_subject {
                    policy.subjects = vec![Subject {
                        service_accounts: vec![Glob::new("carts")],
                        pod_selector: None,
                    }];
                }
                policy
            },
        )
}

/// At most one policy of each name, as in a cluster.
fn any_policies() -> impl Strategy<Value = Vec<Policy>> {
    prop::collection::vec(any_policy(), 0..6).prop_map(|mut policies| {
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        policies.dedup_by(|a, b| a.name == b.name);
        policies
    })
}

fn any_workload() -> impl Strategy<Value = Workload> {
    let role = prop::sample::select(vec![None, Some(ORDERS), Some(ADMIN)]);
    (
        role.clone(),
        role,
        prop::option::of(prop::sample::select(vec!["600", "1200", "1800", "x"])),
    )
        .prop_map(|(pod, app, expiration)| {
            let annotations = [
                (annotations::ROLE_ARN, pod),
                ("tokenscope.io/role-arn.app", app),
                (annotations::TOKEN_EXPIRATION, expiration),
            ];
            Workload {
                annotations: annotations
                    .into_iter()
                    .filter_map(|(key, value)| Some((key, value?)))
                    .collect(),
                containers: vec![container("init"), container("app")],
                ..workload()
            }
        })
}

proptest! {
    #[test]
    fn the_order_of_policies_changes_nothing((policies, shuffled) in any_policies().prop_flat_map(|p| (Just(p.clone()), Just(p).prop_shuffle())), workload in any_workload()) {
        prop_assert_eq!(workload.decided(policies), workload.decided(shuffled));
    }

    #[test]
    fn a_disabled_policy_is_as_good_as_absent(policies in any_policies(), workload in any_workload()) {
        let without: Vec<_> = policies.iter().filter(|policy| !policy.disabled).cloned().collect();
        match (workload.decided(policies), workload.decided(without)) {
            // A denied pod hears of it, and of nothing else that it would not hear otherwise.
            (Decision::Denied(mut with), Decision::Denied(without)) => {
                with.refusals.retain(|refusal| !matches!(refusal, Refusal::Disabled { .. }));
                prop_assert_eq!(with, without);
            }
            (with, without) => prop_assert_eq!(with, without),
        }
    }

    #[test]
    fn a_policy_more_never_changes_a_grant_silently(mut policies in any_policies(), more in any_policy(), workload in any_workload()) {
        policies.retain(|policy| policy.name != more.name);
        let before = workload.decided(policies.clone());
        let after = workload.decided(policies.into_iter().chain([more.clone()]));
        let Decision::Granted(before) = before else { return Ok(()) };
        match after {
            Decision::Granted(after) => for was in &before.containers {
                let is = after.containers.iter().find(|is| is.container == was.container).unwrap();
                if was.grant.policy == is.grant.policy {
                    prop_assert_eq!(&was.grant, &is.grant);
                } else {
                    prop_assert_eq!(is.grant.policy.as_ref(), Some(&more.name));
                    let displaced = was.grant.policy.as_ref().unwrap();
                    prop_assert!(is.reason.contains(&displaced.to_string()), "{} -> {}", was.reason, is.reason);
                }
            },
            Decision::Denied(denied) => prop_assert!(denied.to_string().contains(&more.name.to_string()), "{}", denied),
            Decision::Untouched(_) | Decision::Associated(_) => prop_assert!(false, "a policy more took a grant away"),
        }
    }
}

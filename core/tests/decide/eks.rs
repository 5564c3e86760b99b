//! Annotations of the EKS webhook, and policies that are not required.

use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, Workload, asking, container, granted, policy, roles, workload};

#[test]
fn eks_annotations_count_in_eks_compatible_mode_only() {
    let eks = Workload {
        service_account: vec![("eks.amazonaws.com/role-arn", ORDERS)],
        ..workload()
    };

    assert_eq!(eks.decided([policy("p")]), Decision::Untouched(Untouched::NothingAsked));
    let granted = granted(eks.decided_with(
        [],
        &Settings {
            policy_required: false,
            ..Settings::eks_compatible()
        },
    ));
    assert_eq!(granted.containers[0].grant.expiration, TokenExpiration::DAY);
    assert_eq!(granted.containers[0].grant.policy, None);
}

#[test]
fn eks_annotations_keep_their_meaning() {
    let eks = Workload {
        service_account: vec![
            ("eks.amazonaws.com/role-arn", ORDERS),
            ("eks.amazonaws.com/audience", "other"),
            ("eks.amazonaws.com/sts-regional-endpoints", "T"),
            ("eks.amazonaws.com/token-expiration", "700"),
        ],
        containers: vec![container("a"), container("b"), container("c")],
        ..workload()
    }
    .with("eks.amazonaws.com/token-expiration", "800")
    .with("eks.amazonaws.com/skip-containers", "a, b");

    let granted = granted(eks.decided_with(
        [],
        &Settings {
            policy_required: false,
            ..Settings::eks_compatible()
        },
    ));
    assert_eq!(
        roles(&granted),
        [(2, ORDERS)],
        "both a and b are skipped, the space is not part of a name"
    );
    let grant = &granted.containers[0].grant;
    assert_eq!(
        (
            grant.audience.as_str(),
            grant.expiration.seconds(),
            grant.sts_regional_endpoints
        ),
        ("other", 800, true)
    );
}

#[test]
fn without_a_required_policy_one_that_selects_the_pod_still_decides() {
    let settings = Settings {
        policy_required: false,
        ..Settings::default()
    };

    assert!(matches!(
        asking(ADMIN).decided_with([], &settings),
        Decision::Granted(_)
    ));
    assert!(matches!(
        asking(ADMIN).decided_with([policy("p")], &settings),
        Decision::Denied(_)
    ));
}

//! The role of a pod that asks for one, and the words of a refusal.

use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, CARTS, Workload, asking, container, policy, roles, workload};

#[test]
fn a_pod_that_asks_for_nothing_is_untouched_whatever_it_brings() {
    let own = ContainerFacts {
        own_role: OwnRole::Literal("nonsense"),
        ..container("app")
    };
    for workload in [
        workload(),
        Workload {
            containers: vec![own],
            ..workload()
        },
    ] {
        assert_eq!(
            workload.decided([policy("orders")]),
            Decision::Untouched(Untouched::NothingAsked)
        );
    }
}

#[test]
fn a_role_that_a_policy_allows_is_granted_and_the_reason_names_both() {
    let granted = asking(ORDERS).granted([policy("orders")]);

    assert_eq!(roles(&granted), [(0, ORDERS)]);
    let ContainerGrant { grant, reason, .. } = &granted.containers[0];
    assert_eq!(grant.policy, Some(PolicyName::namespaced("shop", "orders")));
    assert_eq!(
        &**reason,
        format!("{ORDERS} named by pod, allowed by TokenScopePolicy shop/orders")
    );
}

#[test]
fn a_role_outside_the_policy_is_denied_and_says_why() {
    assert_eq!(
        asking(ADMIN).refused([policy("orders")]),
        format!(
            "TokenScopePolicy shop/orders does not allow {ADMIN}: its roles.allowed has arn:aws:iam::111122223333:role/shop/*"
        )
    );
}

#[test]
fn without_any_policy_the_refusal_says_what_would_help() {
    let refusal = asking(ORDERS).refused([]);

    assert!(
        refusal.starts_with("no policy selects service account orders of namespace shop"),
        "{refusal}"
    );
    assert!(refusal.contains("a TokenScopePolicy in this namespace"), "{refusal}");
}

#[test]
fn the_order_of_asking_is_container_pod_service_account() {
    let both = Workload {
        service_account: vec![(annotations::ROLE_ARN, CARTS)],
        containers: vec![container("init"), container("app")],
        ..workload()
    };
    assert_eq!(roles(&both.granted([policy("p")])), [(0, CARTS), (1, CARTS)]);

    let both = both
        .with(annotations::ROLE_ARN, ORDERS)
        .with("tokenscope.io/role-arn.app", CARTS);
    assert_eq!(roles(&both.granted([policy("p")])), [(0, ORDERS), (1, CARTS)]);
}

#[test]
fn every_value_that_can_not_be_parsed_is_denied_with_the_annotation_and_the_remedy() {
    for (key, value, part) in [
        (
            annotations::ROLE_ARN,
            "orders",
            "it should read arn:aws:iam::<account>:role/<name>",
        ),
        ("tokenscope.io/role-arn.app", "", "it should read arn"),
        (annotations::AUDIENCE, "a b", "no spaces"),
        (annotations::TOKEN_EXPIRATION, "0", "600 to 86400"),
        (annotations::INJECT, "no", "should be \"true\" or \"false\""),
    ] {
        let workload = if key == annotations::ROLE_ARN {
            workload()
        } else {
            asking(ORDERS)
        };
        let refusal = workload.with(key, value).refused([policy("p")]);
        assert!(
            refusal.starts_with(&format!("annotation {key} of the pod: ")) && refusal.contains(part),
            "{refusal}"
        );
    }
}

#[test]
fn a_bad_side_annotation_alone_asks_for_nothing() {
    let workload = workload().with(annotations::TOKEN_EXPIRATION, "soon");

    assert_eq!(
        workload.decided([policy("p")]),
        Decision::Untouched(Untouched::NothingAsked)
    );
}

#[test]
fn opting_out_beats_asking() {
    let out = asking(ORDERS).with(annotations::INJECT, "false");
    assert_eq!(out.decided([policy("p")]), Decision::Untouched(Untouched::OptedOut));

    let out = Workload {
        namespace_labels: vec![(annotations::INJECT, "false")],
        ..asking(ORDERS)
    };
    assert_eq!(out.decided([policy("p")]), Decision::Untouched(Untouched::OptedOut));

    let back_in = Workload {
        service_account: vec![(annotations::INJECT, "false")],
        ..asking(ORDERS)
    }
    .with(annotations::INJECT, "true");
    back_in.granted([policy("p")]);
}

#[test]
fn a_record_of_our_own_edits_hides_them_from_the_facts() {
    let json = r#"{"metadata":{"annotations":{"tokenscope.io/grant":
        "{\"grants\":[{\"policy\":\"TokenScopePolicy shop/orders\",\"role\":\"r\",\"containers\":[\"app\"],\"env\":[\"AWS_ROLE_ARN\"]}],\"hash\":\"0\"}"}},
        "spec":{"containers":[{"name":"app","env":[{"name":"AWS_ROLE_ARN","value":"r"},{"name":"AWS_WEB_IDENTITY_TOKEN_FILE","value":"f"}]}]}}"#;
    let pod: pod::Pod<String> = serde_json::from_str(json).unwrap();
    let record = pod.grant_record();
    let facts = pod.facts(record.as_ref());

    assert_eq!(facts.containers[0].own_role, OwnRole::Absent);
    assert!(
        facts.containers[0].own_token_file,
        "the record doesn't say that this one is ours"
    );
    assert_eq!(
        record.unwrap().grants[0].policy.as_ref().unwrap().parse(),
        Ok(PolicyName::namespaced("shop", "orders"))
    );
}

//! The containers of a pod that get a role.

use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{ADMIN, CARTS, Workload, asking, container, policy, roles, workload};

#[test]
fn only_the_named_container_gets_a_role_where_nothing_else_is_named() {
    let workload = Workload {
        containers: vec![container("init"), container("app")],
        ..workload()
    }
    .with("tokenscope.io/role-arn.app", ORDERS);

    assert_eq!(roles(&workload.granted([policy("p")])), [(1, ORDERS)]);
}

#[test]
fn lists_name_the_containers_that_get_a_role() {
    let three = || Workload {
        containers: vec![container("a"), container("b"), container("c")],
        ..asking(ORDERS)
    };

    assert_eq!(
        roles(&three().with(annotations::CONTAINERS, " a ,c").granted([policy("p")])),
        [(0, ORDERS), (2, ORDERS)]
    );
    assert_eq!(
        roles(&three().with(annotations::SKIP_CONTAINERS, "a,b").granted([policy("p")])),
        [(2, ORDERS)]
    );
    let all = three().with(annotations::SKIP_CONTAINERS, "a,b,c");
    assert_eq!(
        all.decided([policy("p")]),
        Decision::Untouched(Untouched::NoContainer { warnings: vec![] })
    );
    assert_eq!(
        workload()
            .with("tokenscope.io/role-arn.aap", ORDERS)
            .refused([policy("p")]),
        "annotations name the containers aap, of which this pod has none: it has app. Correct the names; for a container that another \
         webhook adds later, name the role by tokenscope.io/role-arn and in tokenscope.io/skip-containers those that should get none",
        "it asked, and would otherwise not hear why it gets nothing"
    );
    let typo = three().with(annotations::SKIP_CONTAINERS, "aa").granted([policy("p")]);
    assert_eq!(
        typo.warnings,
        ["an annotation names container aa, which this pod does not have"]
    );
}

#[test]
fn a_policy_leaves_containers_out_unless_they_ask_by_name() {
    let containers = ContainerFilter {
        include: vec![],
        exclude: vec![Glob::new("istio-*")],
    };
    let policy = Policy {
        containers,
        ..policy("p")
    };
    let pod = || Workload {
        containers: vec![container("istio-proxy"), container("app")],
        ..asking(ORDERS)
    };

    assert_eq!(roles(&pod().granted([policy.clone()])), [(1, ORDERS)]);
    let refusal = pod()
        .with("tokenscope.io/role-arn.istio-proxy", ORDERS)
        .refused([policy]);
    assert!(refusal.contains("does not cover container istio-proxy"), "{refusal}");
}

#[test]
fn a_pod_whose_containers_are_all_left_out_by_policy_hears_of_it() {
    let containers = ContainerFilter {
        include: vec![],
        exclude: vec![Glob::new("*")],
    };

    let Decision::Untouched(Untouched::NoContainer { warnings }) = asking(ORDERS).decided([Policy {
        containers,
        ..policy("p")
    }]) else {
        panic!("touched")
    };
    assert!(
        warnings[0].contains("cover none of this pod's containers"),
        "{warnings:?}"
    );
}

#[test]
fn a_containers_own_role_must_be_allowed_once_its_pod_asks() {
    let with_own = |own, own_token_file, workload: Workload| Workload {
        containers: vec![
            ContainerFacts {
                own_role: own,
                own_token_file,
                ..container("own")
            },
            container("app"),
        ],
        ..workload
    };

    let granted = with_own(OwnRole::Literal(CARTS), false, asking(ORDERS)).granted([policy("p")]);
    assert_eq!(roles(&granted), [(0, CARTS), (1, ORDERS)]);
    let refusal = with_own(OwnRole::Literal(ADMIN), false, asking(ORDERS)).refused([policy("p")]);
    assert!(
        refusal.contains("does not allow arn:aws:iam::111122223333:role/admin"),
        "{refusal}"
    );
    let refusal = with_own(OwnRole::Literal("x"), false, asking(ORDERS)).refused([policy("p")]);
    assert!(
        refusal.starts_with("AWS_ROLE_ARN of container own: \"x\" is not an IAM role ARN"),
        "{refusal}"
    );
    let both = with_own(OwnRole::Literal(ADMIN), true, asking(ORDERS)).granted([policy("p")]);
    assert_eq!(roles(&both), [(1, ORDERS)], "who brings both is left alone");
    let half = with_own(OwnRole::Absent, true, asking(ORDERS)).granted([policy("p")]);
    assert_eq!(
        roles(&half),
        [(0, ORDERS), (1, ORDERS)],
        "a token file alone is completed"
    );
    let indirect = with_own(OwnRole::Indirect, false, asking(ORDERS)).granted([policy("p")]);
    assert_eq!(roles(&indirect), [(1, ORDERS)]);
    assert!(indirect.warnings[0].contains("container own takes AWS_ROLE_ARN from elsewhere"));
    let contradicting =
        with_own(OwnRole::Literal(CARTS), false, asking(ORDERS)).with("tokenscope.io/role-arn.own", ORDERS);
    assert!(contradicting.refused([policy("p")]).contains("remove one of them"));
}

#[test]
fn one_denied_container_denies_the_pod() {
    let workload = Workload {
        containers: vec![container("a"), container("b")],
        ..asking(ORDERS)
    }
    .with("tokenscope.io/role-arn.b", ADMIN);

    assert!(workload.refused([policy("p")]).contains("does not allow"));
}

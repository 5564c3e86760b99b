//! Containers that a pod asks for by name and that get nothing (F2 of e2e/tests/cases).

use tokenscope_core::pod_identity::{PodIdentity, PodIdentityAgent};
use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{Workload, asking, assigning, container, policy, roles, workload};

/// A policy that allows the role and does not cover these containers.
fn without(containers: &[&str]) -> Policy {
    let exclude = containers.iter().map(|name| Glob::new(name)).collect();
    Policy {
        containers: ContainerFilter {
            include: vec![],
            exclude,
        },
        ..policy("p")
    }
}

fn untouched(decision: Decision) -> Vec<String> {
    match decision {
        Decision::Untouched(Untouched::NoContainer { warnings }) => warnings,
        other => panic!("{other:?}"),
    }
}

fn two(workload: Workload) -> Workload {
    Workload {
        containers: vec![container("app"), container("web")],
        ..workload
    }
}

#[test]
fn f02_a_pod_whose_named_containers_are_all_left_out_is_refused_with_what_leaves_each_out() {
    let skipped = "app (it is listed in annotation tokenscope.io/skip-containers of the pod)";
    let list = || asking(ORDERS).with(annotations::CONTAINERS, "app");
    let own = || workload().with("tokenscope.io/role-arn.app", ORDERS);
    let of_account = Workload {
        service_account: vec![(annotations::SKIP_CONTAINERS, "app")],
        ..list()
    };
    for (workload, policy, expected) in [
        (list().with(annotations::SKIP_CONTAINERS, "app"), policy("p"), skipped),
        (own().with(annotations::SKIP_CONTAINERS, "app"), policy("p"), skipped),
        (
            of_account,
            policy("p"),
            "app (it is listed in annotation tokenscope.io/skip-containers of the service account)",
        ),
        (
            list(),
            without(&["*"]),
            "app (spec.containers of TokenScopePolicy shop/p leaves it out)",
        ),
        (
            two(own()).with(annotations::CONTAINERS, "web"),
            policy("p"),
            "app (it is not listed in annotation tokenscope.io/containers of the pod), \
             web (no annotation names a role for it, and no policy assigns one)",
        ),
    ] {
        assert_eq!(
            workload.refused([policy]),
            format!(
                "annotations of the pod name containers, and none of them gets anything: {expected}. \
                 Change what leaves them out, or remove the annotations that name them"
            )
        );
    }
}

#[test]
fn f02_the_list_of_eks_that_leaves_a_named_container_out_is_named() {
    let workload = asking(ORDERS)
        .with(annotations::CONTAINERS, "app")
        .with("eks.amazonaws.com/skip-containers", "app");
    let Decision::Denied(denied) = workload.decided_with([policy("p")], &Settings::eks_compatible()) else {
        panic!("admitted");
    };
    let expected = "app (it is listed in annotation eks.amazonaws.com/skip-containers of the pod)";
    assert!(denied.to_string().contains(expected), "{denied}");
    assert_eq!(
        workload.granted([policy("p")]).containers.len(),
        1,
        "without EKS's annotations"
    );
}

#[test]
fn f02_a_named_container_that_is_left_out_beside_others_is_warned_of() {
    let granted = two(asking(ORDERS))
        .with(annotations::CONTAINERS, "app,web")
        .granted([without(&["web"])]);
    assert_eq!(roles(&granted), [(0, ORDERS)]);
    assert_eq!(
        granted.warnings,
        [
            "an annotation names container web, which gets nothing: spec.containers of TokenScopePolicy shop/p leaves it out"
        ]
    );
    let granted = two(asking(ORDERS))
        .with("tokenscope.io/role-arn.web", ORDERS)
        .with(annotations::SKIP_CONTAINERS, "web")
        .granted([policy("p")]);
    assert_eq!(
        granted.warnings,
        [
            "an annotation names container web, which gets nothing: it is listed in annotation tokenscope.io/skip-containers of the pod"
        ]
    );
}

#[test]
fn f02_a_pod_that_names_a_container_which_another_webhook_may_add_is_reviewed_again_and_not_refused() {
    let late = asking(ORDERS)
        .with(annotations::CONTAINERS, "app late")
        .with(annotations::SKIP_CONTAINERS, "app");
    let warnings = untouched(late.decided([policy("p")]));
    for expected in [
        "container app, which gets nothing: it is listed in annotation tokenscope.io/skip-containers of the pod",
        "container late, which",
    ] {
        assert!(
            warnings.iter().any(|warning| warning.contains(expected)),
            "{warnings:?}"
        );
    }
}

#[test]
fn f02_a_list_of_the_service_account_refuses_no_pod_whose_policies_leave_its_containers_out() {
    let shared = Workload {
        service_account: vec![(annotations::CONTAINERS, "app"), (annotations::ROLE_ARN, ORDERS)],
        ..workload()
    };
    let warnings = untouched(shared.decided([without(&["app"])]));
    let expected = "names container app, which gets nothing: spec.containers of TokenScopePolicy shop/p";
    assert!(warnings[0].contains(expected), "{warnings:?}");
}

#[test]
fn f02_a_named_container_with_credentials_of_its_own_keeps_them_and_its_owner_hears_so() {
    let own = Workload {
        containers: vec![ContainerFacts {
            own_role: OwnRole::Literal(ORDERS),
            own_token_file: true,
            ..container("app")
        }],
        ..asking(ORDERS)
    };
    assert_eq!(untouched(own.decided([policy("p")])), Vec::<String>::new());
    let warnings = untouched(own.with(annotations::CONTAINERS, "app").decided([policy("p")]));
    assert_eq!(
        warnings,
        ["an annotation names container app, which gets nothing: it brings its own role and token file"]
    );
}

#[test]
fn f02_annotations_that_can_not_be_used_are_told_also_where_no_container_gets_a_role() {
    for (key, value) in [
        (annotations::AUDIENCE, "two words"),
        (annotations::TOKEN_EXPIRATION, "an hour"),
        (annotations::TOKEN_EXPIRATION, "1"),
    ] {
        let all_skipped = asking(ORDERS).with(annotations::SKIP_CONTAINERS, "app");
        let on_account = Workload {
            service_account: vec![(key, value)],
            ..asking(ORDERS).with(annotations::SKIP_CONTAINERS, "app")
        };
        for (workload, place) in [(all_skipped.with(key, value), "pod"), (on_account, "service account")] {
            let warnings = untouched(workload.decided([policy("p")]));
            let expected = format!("annotation {key} of the {place}: ");
            assert!(warnings[0].starts_with(&expected), "{warnings:?}");
            assert!(warnings[0].contains("has no effect here"), "{warnings:?}");
        }
    }
    for (key, value) in [
        (annotations::CONTAINERS, ""),
        (annotations::CONTAINERS, "app;web"),
        (annotations::SKIP_CONTAINERS, "app;web"),
    ] {
        let refusal = asking(ORDERS).with(key, value).refused([without(&["*"])]);
        assert!(refusal.contains(&format!("annotation {key} of the pod: ")), "{refusal}");
    }
}

/// The settings of an installation that lists `shop/orders` as associated.
fn listing() -> Settings {
    let file = r#"{"identities": [{"namespace": "shop", "serviceAccount": "orders"}]}"#;
    Settings {
        pod_identity: Some(PodIdentity::parse(file, PodIdentityAgent::default()).unwrap().into()),
        ..Settings::eks_compatible()
    }
}

#[test]
fn f02_the_same_holds_where_an_association_decides_the_role() {
    let decided = |workload: Workload, policy| workload.decided_with([policy], &listing());
    let all = || Policy {
        audiences: Audiences::default(),
        ..without(&["app"])
    };
    let Decision::Denied(denied) = decided(workload().with(annotations::CONTAINERS, "app"), all()) else {
        panic!("admitted");
    };
    let expected = "app (spec.containers of TokenScopePolicy shop/p leaves it out)";
    assert!(denied.to_string().contains(expected), "{denied}");
    let broken = workload().with(annotations::TOKEN_EXPIRATION, "soon");
    let warnings = untouched(decided(broken, all()));
    let expected = "annotation tokenscope.io/token-expiration of the pod";
    assert!(
        warnings.iter().any(|warning| warning.contains(expected)),
        "{warnings:?}"
    );
}

/// The pods of all combinations of these annotations.
fn combinations() -> Vec<Workload> {
    const LISTS: [&str; 5] = ["app", "web", "app web", "late", "app late"];
    let mut workloads = Vec::new();
    let values = |key: &'static str, values: &[&'static str]| {
        let some = values.iter().map(|value| Some((key, *value)));
        some.chain([None]).collect::<Vec<_>>()
    };
    for role in values(annotations::ROLE_ARN, &[ORDERS]) {
        for only in values(annotations::CONTAINERS, &LISTS) {
            for skip in values(annotations::SKIP_CONTAINERS, &LISTS) {
                for of_app in values("tokenscope.io/role-arn.app", &[ORDERS]) {
                    workloads.push(Workload {
                        annotations: [role, only, skip, of_app].into_iter().flatten().collect(),
                        ..two(workload())
                    });
                }
            }
        }
    }
    workloads
}

#[test]
fn f02_whoever_names_a_container_that_gets_nothing_is_refused_or_hears_its_name() {
    let mut checked = 0;
    let policies = [
        policy("p"),
        without(&["app"]),
        without(&["*"]),
        assigning(ORDERS, without(&["web"])),
    ];
    for workload in combinations() {
        let listed = workload
            .annotations
            .iter()
            .find(|(key, _)| *key == annotations::CONTAINERS);
        let mut named: Vec<&str> = listed.map_or("", |(_, list)| list).split_whitespace().collect();
        let of_app = workload
            .annotations
            .iter()
            .any(|(key, _)| *key == "tokenscope.io/role-arn.app");
        named.extend(of_app.then_some("app"));
        for policy in &policies {
            let (equipped, warnings) = match workload.decided([policy.clone()]) {
                Decision::Granted(granted) => {
                    let equipped = granted.containers.iter().map(|found| found.container).collect();
                    (equipped, granted.warnings)
                }
                Decision::Untouched(Untouched::NoContainer { warnings }) => (Vec::new(), warnings),
                Decision::Denied(_) | Decision::Untouched(_) => continue,
                Decision::Associated(found) => panic!("{found:?}"),
            };
            assert!(
                named.is_empty() || !equipped.is_empty() || named.contains(&"late"),
                "admitted with nothing: {workload:?}"
            );
            for name in &named {
                checked += 1;
                let index = workload.containers.iter().position(|container| container.name == *name);
                let is_equipped = index.is_some_and(|index| equipped.contains(&index));
                let is_told = warnings
                    .iter()
                    .any(|warning| warning.contains(&format!("container {name}, which")));
                assert!(is_equipped || is_told, "{name} of {workload:?}: {warnings:?}");
            }
        }
    }
    assert!(checked > 200, "{checked} are too few");
}

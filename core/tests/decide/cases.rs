//! Cases that people who do this job met elsewhere (e2e/tests/cases), decided here.

use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

use super::{Workload, asking, container, granted, now, policy, workload};

fn not_required() -> Settings {
    Settings {
        policy_required: false,
        ..Settings::default()
    }
}

fn audience(text: &str) -> Audience {
    text.parse().unwrap()
}

fn with_audiences(allowed: &[&str], default: Option<&str>) -> Policy {
    let mut policy = policy("p");
    policy.audiences = Audiences {
        allowed: allowed.iter().map(|text| audience(text)).collect(),
        default: default.map(audience),
    };
    policy
}

#[test]
fn f02_a_pod_that_names_only_containers_that_it_does_not_have_is_refused() {
    for list in ["ap", "ap, sidecar", "ap\tb"] {
        let refusal = asking(ORDERS)
            .with(annotations::CONTAINERS, list)
            .refused([policy("p")]);
        assert!(refusal.contains("ap"), "{refusal}");
        assert!(refusal.contains("this pod has none: it has app"), "{refusal}");
    }
    let refusal = workload()
        .with("tokenscope.io/role-arn.ap", ORDERS)
        .refused([policy("p")]);
    assert!(refusal.contains("name the containers ap"), "{refusal}");
    let by_default = super::assigning(ORDERS, policy("p"));
    let refusal = workload().with(annotations::CONTAINERS, "ap").refused([by_default]);
    assert!(refusal.contains("name the containers ap"), "{refusal}");
}

#[test]
fn f02_a_name_that_is_unknown_beside_a_known_one_is_warned_of() {
    let granted = asking(ORDERS)
        .with(annotations::CONTAINERS, "app late")
        .granted([policy("p")]);
    assert_eq!(granted.containers.len(), 1);
    assert!(
        granted.warnings[0].contains("names container late"),
        "{:?}",
        granted.warnings
    );
}

#[test]
fn f02_lists_are_split_at_commas_and_white_space() {
    for list in ["a,b", "a b", "a, b", " a\n b ,", "a\tb"] {
        let workload = Workload {
            containers: vec![container("a"), container("b"), container("c")],
            ..asking(ORDERS)
        };
        let granted = workload.with(annotations::CONTAINERS, list).granted([policy("p")]);
        assert_eq!(granted.containers.len(), 2, "{list:?}");
    }
}

#[test]
fn f02_a_list_of_containers_that_is_empty_is_an_error() {
    for list in ["", " ", ",", " , "] {
        let refusal = asking(ORDERS)
            .with(annotations::CONTAINERS, list)
            .refused([policy("p")]);
        assert!(refusal.contains("it names no container"), "{list:?}: {refusal}");
    }
}

#[test]
fn a_list_that_skips_nobody_is_as_none() {
    const EKS: &str = "eks.amazonaws.com/skip-containers";
    let settings = Settings::eks_compatible();
    let granted = |workload: Workload| {
        let decision = workload.decided_with([policy("p")], &settings);
        let Decision::Granted(granted) = decision else {
            panic!("{decision:?}");
        };
        let containers = granted.containers.iter().map(|granted| granted.container);
        containers.collect::<Vec<_>>()
    };
    for list in ["", " ", ",", " , "] {
        let two = || Workload {
            containers: vec![container("a"), container("b")],
            ..asking(ORDERS)
        };
        for key in [annotations::SKIP_CONTAINERS, EKS] {
            assert_eq!(granted(two().with(key, list)), [0, 1], "{key} {list:?}");
        }
        let on_account = Workload {
            service_account: vec![(annotations::SKIP_CONTAINERS, "a")],
            ..two()
        };
        assert_eq!(
            granted(on_account.with(annotations::SKIP_CONTAINERS, list)),
            [1],
            "{list:?}"
        );
        let of_eks = two().with(annotations::SKIP_CONTAINERS, list).with(EKS, "b");
        assert_eq!(granted(of_eks), [0], "{list:?}");
    }
}

#[test]
fn f03_the_only_audience_that_is_allowed_is_the_default() {
    let granted = asking(ORDERS).granted([with_audiences(&["sts.amazonaws.com.cn"], None)]);
    assert_eq!(granted.containers[0].grant.audience, audience("sts.amazonaws.com.cn"));
}

#[test]
fn f03_of_several_audiences_the_default_must_be_one() {
    let several = ["sts.amazonaws.com.cn", "other"];
    let refusal = asking(ORDERS).refused([with_audiences(&several, None)]);
    assert!(refusal.contains("spec.audiences.default: is needed"), "{refusal}");
    let granted = asking(ORDERS).granted([with_audiences(&several, Some("other"))]);
    assert_eq!(granted.containers[0].grant.audience, audience("other"));
    let with_installations = ["sts.amazonaws.com", "other"];
    let granted = asking(ORDERS).granted([with_audiences(&with_installations, None)]);
    assert_eq!(granted.containers[0].grant.audience, Audience::sts());
}

#[test]
fn f10_the_label_that_keeps_eks_away_keeps_this_webhook_away_in_eks_mode_only() {
    for value in ["true", "", "false"] {
        let skipped = Workload {
            service_account: vec![("eks.amazonaws.com/role-arn", ORDERS)],
            pod_labels: vec![("eks.amazonaws.com/skip-pod-identity-webhook", value)],
            ..workload()
        };
        let decision = skipped.decided_with([policy("p")], &Settings::eks_compatible());
        assert_eq!(decision, Decision::Untouched(Untouched::SkippedByLabel), "{value:?}");
    }
    let own = Workload {
        pod_labels: vec![("eks.amazonaws.com/skip-pod-identity-webhook", "true")],
        ..asking(ORDERS)
    };
    assert_eq!(own.granted([policy("p")]).containers.len(), 1);
}

#[test]
fn f11_a_container_with_an_agents_credentials_keeps_them_unless_its_pod_asks_itself() {
    let with = |service_account: &[(&'static str, &'static str)]| Workload {
        service_account: service_account.to_vec(),
        containers: vec![
            ContainerFacts {
                own_role: OwnRole::Agent,
                ..container("own")
            },
            container("app"),
        ],
        ..workload()
    };
    let left_alone = |decision: Decision| {
        let granted = granted(decision);
        assert_eq!(super::roles(&granted), [(1, ORDERS)]);
        assert!(granted.left_alone[0].reason.contains("from an agent"), "{granted:?}");
    };
    let eks = with(&[("eks.amazonaws.com/role-arn", ORDERS)]);
    left_alone(eks.decided_with([policy("p")], &Settings::eks_compatible()));
    left_alone(with(&[]).decided([super::assigning(ORDERS, policy("p"))]));
    for asking in [
        with(&[(annotations::ROLE_ARN, ORDERS)]),
        with(&[]).with(annotations::ROLE_ARN, ORDERS),
    ] {
        assert_eq!(asking.granted([policy("p")]).containers.len(), 2);
    }
    let named = with(&[]).with("tokenscope.io/role-arn.own", ORDERS);
    assert_eq!(super::roles(&named.granted([policy("p")])), [(0, ORDERS)]);
}

#[test]
fn f12_a_session_name_that_is_too_long_is_left_out_with_a_warning() {
    let mut long = policy("p");
    long.aws.role_session_name = Some("${namespace}-${pod.labels['team']}-session".parse().unwrap());
    let of = |team: &'static str| {
        let workload = Workload {
            pod_labels: vec![("team", team)],
            ..asking(ORDERS)
        };
        workload.granted([long.clone()])
    };
    assert!(of("core").warnings.is_empty());
    for team in ["a-team-with-a-name-that-takes-all-of-the-sixty-three-characters", ""] {
        let granted = of(team);
        assert_eq!(granted.containers[0].grant.session_name.is_none(), !team.is_empty());
        let warned = granted
            .warnings
            .iter()
            .any(|warning| warning.contains("AWS_ROLE_SESSION_NAME is left out"));
        assert_eq!(warned, !team.is_empty(), "{:?}", granted.warnings);
    }
    let absent = asking(ORDERS).granted([long.clone()]);
    assert!(
        absent.warnings[0].contains("names a label that is absent"),
        "{:?}",
        absent.warnings
    );
    assert_eq!(least_session_name(&long), Some("shop--session".len()));
}

#[test]
fn f12_what_every_pod_of_a_policy_has_in_its_session_name_is_counted_beforehand() {
    let mut named = policy("p");
    named.aws.role_session_name = Some("${serviceAccount}.${namespace}".parse().unwrap());
    assert_eq!(least_session_name(&named), Some("orders.shop".len()));
    named.subjects[0].service_accounts.push(Glob::new("or*"));
    assert_eq!(least_session_name(&named), Some("or.shop".len()));
    named.subjects.push(Subject::default());
    assert_eq!(least_session_name(&named), Some(".shop".len()));
    named.name = PolicyName::cluster("p");
    assert_eq!(least_session_name(&named), Some(".".len()));
    assert_eq!(least_session_name(&policy("p")), None);
}

#[test]
fn f14_a_policy_that_selects_the_pod_decides_in_whatever_state() {
    let expired = |policy: &mut Policy| policy.expires_at = Some(now());
    let inactive = |policy: &mut Policy| {
        policy.active_schedule = Some(Schedule::parse("0 0 31 2 *", "1h", "UTC").unwrap());
    };
    let disabled = |policy: &mut Policy| policy.disabled = true;
    let changes: [&dyn Fn(&mut Policy); 3] = [&expired, &inactive, &disabled];
    for change in changes {
        for cluster in [false, true] {
            let mut over = policy("over");
            change(&mut over);
            if cluster {
                over.name = PolicyName::cluster("over");
            }
            let decision = asking(super::ADMIN).decided_with([over], &not_required());
            assert!(matches!(decision, Decision::Denied(_)), "{decision:?}");
        }
    }
    let mut other = policy("other");
    other.disabled = true;
    other.subjects = vec![Subject {
        service_accounts: vec![Glob::new("another")],
        pod_selector: None,
    }];
    granted(asking(super::ADMIN).decided_with([other], &not_required()));
}

#[test]
fn f14_a_policy_that_can_not_be_used_may_select_the_pod() {
    let mut policies = PolicySet::default();
    let why = InvalidPolicy::new("spec.subjects", "nonsense");
    policies.insert_unusable(PolicyName::namespaced("shop", "bad"), &why);
    let workload = asking(ORDERS);
    let decision = decide(&workload.request(), &policies, &not_required(), now());
    let Decision::Denied(denied) = decision else {
        panic!("{decision:?}");
    };
    assert!(denied.to_string().contains("nonsense"), "{denied}");
}

/// A policy that can't be used, about these service accounts of these namespaces, with or without a default role.
fn unusable(change: impl Fn(&mut PolicyScope)) -> InvalidPolicy {
    let mut scope = PolicyScope {
        subjects: vec![Subject::default()],
        ..PolicyScope::default()
    };
    change(&mut scope);
    InvalidPolicy {
        scope: Some(scope.into()),
        ..InvalidPolicy::new("spec.aws.region", "write eu-central-1")
    }
}

fn of_other_account(scope: &mut PolicyScope) {
    scope.subjects[0].service_accounts = vec![Glob::new("another")];
}

fn in_other_namespaces(scope: &mut PolicyScope) {
    scope.namespace_selector = Selector(vec![Requirement {
        key: "team".into(),
        operator: SelectorOperator::Exists,
    }]);
}

fn decided_beside(name: PolicyName, why: &InvalidPolicy, workload: &Workload, settings: &Settings) -> Decision {
    let mut policies = PolicySet::default();
    policies.insert_unusable(name, why);
    decide(&workload.request(), &policies, settings, now())
}

#[test]
fn where_no_policy_is_required_one_that_can_not_be_used_refuses_only_what_it_may_select() {
    let of_cluster = || PolicyName::cluster("bad");
    let decided = |name, why: &InvalidPolicy| decided_beside(name, why, &asking(ORDERS), &not_required());
    for change in [of_other_account as fn(&mut PolicyScope), in_other_namespaces] {
        granted(decided(of_cluster(), &unusable(change)));
    }
    granted(decided(
        PolicyName::namespaced("shop", "bad"),
        &unusable(of_other_account),
    ));
    let unreadable = InvalidPolicy::new("spec.subjects", "nonsense");
    for why in [
        &unusable(|_| {}),
        &unusable(|scope| scope.disabled = true),
        &unusable(|scope| scope.expires_at = Some(now())),
        &unreadable,
    ] {
        assert!(matches!(decided(of_cluster(), why), Decision::Denied(_)), "{why:?}");
    }
    // Of what nobody can read, no pod hears that asks for nothing.
    let silent = workload();
    let decision = decided_beside(of_cluster(), &unreadable, &silent, &not_required());
    assert!(matches!(decision, Decision::Untouched(_)), "{decision:?}");
}

#[test]
fn a_pod_to_which_a_policy_that_can_not_be_used_assigns_a_role_is_refused_and_hears_what_to_change() {
    let assigning = |change: fn(&mut PolicyScope)| {
        unusable(move |scope| {
            scope.assigns_role = true;
            change(scope);
        })
    };
    let silent = workload();
    for settings in [Settings::default(), not_required()] {
        for name in [PolicyName::cluster("bad"), PolicyName::namespaced("shop", "bad")] {
            let decided = |change| decided_beside(name.clone(), &assigning(change), &silent, &settings);
            let Decision::Denied(denied) = decided(|_| {}) else {
                panic!("{name}");
            };
            let expected = format!("{name} can't be used: spec.aws.region: write eu-central-1");
            assert!(denied.to_string().contains(&expected), "{denied}");
            for change in [
                of_other_account as fn(&mut PolicyScope),
                |scope| scope.disabled = true,
                |scope| scope.expires_at = Some(now()),
                |scope| scope.assigns_role = false,
            ] {
                assert!(matches!(decided(change), Decision::Untouched(_)), "{name}");
            }
        }
        let decided = decided_beside(
            PolicyName::cluster("bad"),
            &assigning(in_other_namespaces),
            &silent,
            &settings,
        );
        assert!(matches!(decided, Decision::Untouched(_)), "{decided:?}");
    }
}

#[test]
fn a_farther_policy_does_not_give_its_default_in_the_place_of_a_nearer_one_that_can_not_be_used() {
    let why = unusable(|scope| scope.assigns_role = true);
    let mut farther = policy("farther");
    farther.name = PolicyName::cluster("farther");
    farther.roles.default = Some(ORDERS.parse().unwrap());
    let mut beside = policy("beside");
    beside.roles.default = Some(ORDERS.parse().unwrap());
    for (other, is_granted) in [(farther, false), (beside, true)] {
        let mut policies: PolicySet = [other].into_iter().collect();
        policies.insert_unusable(PolicyName::namespaced("shop", "bad"), &why);
        let workload = workload();
        let decision = decide(&workload.request(), &policies, &Settings::default(), now());
        assert_eq!(matches!(decision, Decision::Granted(_)), is_granted, "{decision:?}");
    }
}

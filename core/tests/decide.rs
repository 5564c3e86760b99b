//! The rule from outside: who gets which role by which policy, and in which words it is refused.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use jiff::Timestamp;
use proptest::prelude::*;
use std::sync::LazyLock;
use tokenscope_core::*;
use tokenscope_fixtures::ORDERS;

const CARTS: &str = "arn:aws:iam::111122223333:role/shop/carts";
const ADMIN: &str = "arn:aws:iam::111122223333:role/admin";

fn now() -> Timestamp {
    "2026-11-23T10:00:00Z".parse().unwrap()
}

/// A policy of namespace `shop` for service account `orders` that allows `shop/*` and assigns nothing.
fn policy(name: &str) -> Policy {
    Policy {
        subjects: vec![Subject {
            service_accounts: vec![Glob::new("orders")],
            pod_selector: None,
        }],
        roles: Roles {
            allowed: vec!["arn:aws:iam::111122223333:role/shop/*".parse().unwrap()],
            default: None,
        },
        ..tokenscope_fixtures::policy(name)
    }
}

fn cluster_policy(name: &str) -> Policy {
    Policy {
        name: PolicyName::cluster(name),
        ..policy(name)
    }
}

fn assigning(role: &str, mut policy: Policy) -> Policy {
    policy.roles.default = Some(role.parse().unwrap());
    policy
}

/// A pod of service account `orders` in namespace `shop`, with container `app`.
#[derive(Debug)]
struct Workload {
    annotations: Vec<(&'static str, &'static str)>,
    service_account: Vec<(&'static str, &'static str)>,
    namespace_labels: Vec<(&'static str, &'static str)>,
    pod_labels: Vec<(&'static str, &'static str)>,
    containers: Vec<ContainerFacts<&'static str>>,
}

fn container(name: &'static str) -> ContainerFacts<&'static str> {
    ContainerFacts {
        name,
        own_role: OwnRole::Absent,
        own_token_file: false,
    }
}

fn workload() -> Workload {
    Workload {
        annotations: vec![],
        service_account: vec![],
        namespace_labels: vec![],
        pod_labels: vec![("app", "orders")],
        containers: vec![container("app")],
    }
}

fn asking(role: &'static str) -> Workload {
    Workload {
        annotations: vec![(annotations::ROLE_ARN, role)],
        ..workload()
    }
}

impl Workload {
    fn request(&self) -> Request<'_> {
        let pairs = |pairs: &[(&'static str, &'static str)]| pairs.iter().copied().collect::<Pairs<_>>();
        Request {
            namespace: "shop",
            namespace_labels: pairs(&self.namespace_labels),
            service_account: "orders",
            service_account_annotations: pairs(&self.service_account),
            pod: PodFacts {
                token_volumes: Vec::new(),
                labels: pairs(&self.pod_labels),
                annotations: pairs(&self.annotations),
                containers: self.containers.clone(),
                ..PodFacts::default()
            },
        }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.annotations.push((key, value));
        self
    }

    fn decided(&self, policies: impl IntoIterator<Item = Policy>) -> Decision {
        self.decided_with(policies, &Settings::default())
    }

    fn decided_with(&self, policies: impl IntoIterator<Item = Policy>, settings: &Settings) -> Decision {
        decide(&self.request(), &policies.into_iter().collect(), settings, now())
    }

    fn refused(&self, policies: impl IntoIterator<Item = Policy>) -> String {
        match self.decided(policies) {
            Decision::Denied(denied) => denied.to_string(),
            other => panic!("not denied: {other:?}"),
        }
    }

    fn granted(&self, policies: impl IntoIterator<Item = Policy>) -> Granted {
        granted(self.decided(policies))
    }
}

fn granted(decision: Decision) -> Granted {
    match decision {
        Decision::Granted(granted) => granted,
        other => panic!("not granted: {other:?}"),
    }
}

fn roles(granted: &Granted) -> Vec<(usize, &str)> {
    granted
        .containers
        .iter()
        .map(|container| (container.container, container.grant.role.as_str()))
        .collect()
}

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
fn only_the_named_container_gets_a_role_where_nothing_else_is_named() {
    let workload = Workload {
        containers: vec![container("init"), container("app")],
        ..workload()
    }
    .with("tokenscope.io/role-arn.app", ORDERS);

    assert_eq!(roles(&workload.granted([policy("p")])), [(1, ORDERS)]);
}

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
fn a_workload_may_shorten_its_token_but_not_lengthen_it() {
    let granted = asking(ORDERS)
        .with(annotations::TOKEN_EXPIRATION, "600")
        .granted([policy("p")]);
    assert_eq!(granted.containers[0].grant.expiration.seconds(), 600);

    let refusal = asking(ORDERS)
        .with(annotations::TOKEN_EXPIRATION, "7200")
        .refused([policy("p")]);
    assert!(
        refusal.contains("at most 3600 seconds and the workload asks for 7200"),
        "{refusal}"
    );
}

#[test]
fn an_audience_outside_the_policy_is_denied_and_its_default_is_used_otherwise() {
    let audiences = Audiences {
        allowed: vec!["one".parse().unwrap(), "two".parse().unwrap()],
        default: Some("two".parse().unwrap()),
    };
    let policy = Policy {
        audiences,
        ..policy("p")
    };

    assert_eq!(
        asking(ORDERS).granted([policy.clone()]).containers[0]
            .grant
            .audience
            .as_str(),
        "two"
    );
    let asked = asking(ORDERS)
        .with(annotations::AUDIENCE, "one")
        .granted([policy.clone()]);
    assert_eq!(asked.containers[0].grant.audience.as_str(), "one");
    let refusal = asking(ORDERS).with(annotations::AUDIENCE, "three").refused([policy]);
    assert!(
        refusal.contains("does not allow audience three: its audiences.allowed has one, two"),
        "{refusal}"
    );
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
    let nobody = workload()
        .with("tokenscope.io/role-arn.aap", ORDERS)
        .decided([policy("p")]);
    let Decision::Untouched(Untouched::NoContainer { warnings }) = nobody else {
        panic!("{nobody:?}")
    };
    assert_eq!(
        warnings,
        ["an annotation names container aap, which this pod does not have"],
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

#[test]
fn a_source_of_a_later_version_is_refused_in_plain_words() {
    let mut policy = policy("p");
    policy.token.source = TokenSource::Issuer;
    let refusal = asking(ORDERS).refused([policy]);
    assert!(
        refusal.contains("wants tokens from Issuer, which is not available in this version: set its token.source to ServiceAccount or SPIFFE"),
        "{refusal}"
    );
}

fn from_spiffe(name: &str) -> Policy {
    let mut policy = policy(name);
    policy.token.source = TokenSource::Spiffe;
    policy
}

#[test]
fn a_spiffe_provider_decides_how_long_its_tokens_are_valid() {
    let mut pinned = from_spiffe("p");
    pinned.token.spiffe.id = Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap());
    let asking_longer = asking(ORDERS).with(annotations::TOKEN_EXPIRATION, "86400");

    let granted = asking_longer.granted([pinned.clone()]);
    let grant = &granted.containers[0].grant;
    assert_eq!(grant.source, TokenSource::Spiffe);
    assert_eq!(grant.spiffe, pinned.token.spiffe);
    assert!(
        granted.warnings[0].contains("the SPIFFE provider decides"),
        "{:?}",
        granted.warnings
    );
    assert!(asking(ORDERS).granted([pinned]).warnings.is_empty());

    let hash = |grant: &Grant| Fingerprint::of("orders", [("app", grant)]);
    let mut longer = grant.clone();
    longer.expiration = TokenExpiration::DAY;
    assert_eq!(hash(grant), hash(&longer), "what changes nothing makes no pod outdated");
    let mut other = grant.clone();
    other.spiffe.hint = Some("aws".parse().unwrap());
    assert_ne!(hash(grant), hash(&other));
}

#[test]
fn one_pod_has_one_kind_of_token_and_one_identity() {
    let of = |name: &str, container: &str, mut policy: Policy| {
        policy.name = PolicyName::namespaced("shop", name);
        policy.containers.include = vec![Glob::new(container)];
        policy
    };
    let two = || Workload {
        containers: vec![container("app"), container("web")],
        ..asking(ORDERS)
    };

    let refusal = two().refused([of("a", "app", from_spiffe("a")), of("b", "web", policy("b"))]);
    assert!(
        refusal.contains("container app would get its token from SPIFFE and container web from ServiceAccount"),
        "{refusal}"
    );
    let mut hinted = from_spiffe("b");
    hinted.token.spiffe.hint = Some("aws".parse().unwrap());
    let refusal = two().refused([of("a", "app", from_spiffe("a")), of("b", "web", hinted)]);
    assert!(
        refusal.contains("containers app and web would get tokens of different SPIFFE identities"),
        "{refusal}"
    );
    assert_eq!(two().granted([from_spiffe("a")]).containers.len(), 2);
}

fn trust_context(issuer: &str) -> TrustContext<'_> {
    static STS: LazyLock<Audience> = LazyLock::new(Audience::sts);
    TrustContext {
        issuer,
        default_audience: &STS,
        cluster: None,
        namespaces: Vec::new(),
    }
}

#[test]
fn a_trust_policy_for_spiffe_is_about_one_identity_or_there_is_none() {
    let role: RoleArn = ORDERS.parse().unwrap();
    let trust = |policy: &Policy| trust_policy(policy, &role, &trust_context("https://oidc.example.org"));
    let mut policy = from_spiffe("p");
    policy.token.spiffe.trust_domain = Some("example.org".parse().unwrap());
    assert_eq!(trust(&policy), None, "all of a trust domain is too much");

    policy.token.spiffe.id = Some("spiffe://example.org/ns/shop/sa/orders".parse().unwrap());
    let trust = trust(&policy).unwrap();
    assert_eq!(
        serde_json::to_value(&trust.document).unwrap()["Statement"][0]["Condition"],
        serde_json::json!({"StringEquals": {
            "oidc.example.org:aud": "sts.amazonaws.com",
            "oidc.example.org:sub": "spiffe://example.org/ns/shop/sa/orders",
        }})
    );
    assert_eq!(trust.notes.len(), 1);
}

#[test]
fn a_policy_whose_context_keys_have_no_room_beside_older_ones_grants_nothing() {
    let with_context = |name: &str, created: i64, keys: std::ops::Range<usize>| {
        let mut policy = policy(name);
        policy.created = Some(Timestamp::from_second(created).unwrap());
        policy.token.source = TokenSource::Issuer;
        let context = keys.map(|key| (format!("k{key}").into(), "x".parse().unwrap()));
        policy.claims = std::sync::Arc::new(Claims {
            context: context.collect(),
            ..Claims::default()
        });
        policy
    };
    let settings = Settings {
        issuer: Some("https://tokens.example.com".into()),
        policy_required: false,
        ..Settings::default()
    };
    let mut other = with_context("a", 2, 0..10);
    other.subjects = vec![Subject {
        service_accounts: vec![Glob::new("another")],
        pod_selector: None,
    }];
    let workload = asking(ORDERS);
    let decision = |created: i64| {
        let policies: PolicySet = [other.clone(), with_context("z", created, 9..11)].into_iter().collect();
        decide(&workload.request(), &policies, &settings, now())
    };

    let Decision::Denied(denied) = decision(3) else {
        panic!("not denied")
    };
    let message = denied.to_string();
    assert!(
        message.contains("shop/z grants nothing: spec.claims.context[k10] would be one key too many"),
        "{message}"
    );
    assert!(
        matches!(decision(2), Decision::Denied(_)),
        "of the same second the names decide"
    );
    assert!(
        matches!(decision(1), Decision::Granted(_)),
        "the older one has its keys"
    );
}

#[test]
fn an_unusable_policy_grants_nothing_and_the_denied_pod_hears_of_it() {
    let mut policies = PolicySet::default();
    policies.insert_invalid(
        PolicyName::namespaced("shop", "broken"),
        "spec.roles.allowed[0]: not a role",
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
fn a_session_name_is_left_out_where_sts_would_refuse_it() {
    let named = |template: &str, label| {
        let aws = AwsSettings {
            role_session_name: Some(template.parse().unwrap()),
            ..AwsSettings::default()
        };
        let workload = Workload {
            pod_labels: vec![("team", label)],
            ..asking(ORDERS)
        };
        workload.granted([Policy { aws, ..policy("p") }]).containers[0]
            .grant
            .session_name
            .clone()
    };

    assert_eq!(named("${pod.name}", "core"), Some(SessionName::PodName));
    assert_eq!(
        named("${namespace}.${pod.labels['team']}", "core"),
        Some(SessionName::Text("shop.core".into()))
    );
    assert_eq!(named("${pod.labels['team']}", "c"), None, "too short");
    assert_eq!(named("${pod.labels['tier']}", "core"), None, "no such label");
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

#[test]
fn a_trust_policy_says_what_iam_can_and_notes_what_it_can_not() {
    let mut policy = policy("orders");
    policy.subjects.push(Subject {
        service_accounts: vec![Glob::new("orders-*")],
        pod_selector: Some(Selector(vec![Requirement {
            key: "app".into(),
            operator: SelectorOperator::Exists,
        }])),
    });
    let role: RoleArn = "arn:aws-cn:iam::111122223333:role/shop/orders".parse().unwrap();
    let trust = trust_policy(&policy, &role, &trust_context("https://oidc.example.com/cluster")).unwrap();

    assert_eq!(
        serde_json::to_value(&trust.document).unwrap(),
        serde_json::json!({
            "Version": "2012-10-17",
            "Statement": [{
                "Effect": "Allow",
                "Principal": {"Federated": "arn:aws-cn:iam::111122223333:oidc-provider/oidc.example.com/cluster"},
                "Action": "sts:AssumeRoleWithWebIdentity",
                "Condition": {
                    "StringEquals": {"oidc.example.com/cluster:aud": "sts.amazonaws.com"},
                    "StringLike": {"oidc.example.com/cluster:sub": [
                        "system:serviceaccount:shop:orders", "system:serviceaccount:shop:orders-*"]},
                },
            }],
        })
    );
    assert_eq!(
        trust.notes,
        ["a trust policy can't express podSelector, so every pod of these service accounts is trusted"]
    );
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
            Decision::Untouched(_) => prop_assert!(false, "a policy more took a grant away"),
        }
    }
}

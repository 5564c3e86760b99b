//! Boundaries: the most that policies of a namespace may grant.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may fail as tests do")]

use jiff::Timestamp;
use proptest::prelude::*;
use std::sync::Arc;
use tokenscope_core::*;
use tokenscope_fixtures::policy;

const ROLES: &str = "arn:aws:iam::111122223333:role/";

fn role(name: &str) -> RolePattern {
    format!("{ROLES}{name}").parse().unwrap()
}

fn boundary(name: &str) -> Boundary {
    Boundary {
        name: name.into(),
        namespace_selector: Selector::default(),
        roles: vec![role("shop/*")],
        audiences: Vec::new(),
        max_expiration: None,
        sources: Vec::new(),
        claims: None,
    }
}

fn inside(name: &str) -> Policy {
    Policy {
        roles: Roles {
            allowed: vec![role("shop/orders")],
            default: None,
        },
        ..policy(name)
    }
}

/// What becomes of a pod of namespace shop, whose label team is core, that asks for a role.
fn decided(policies: &PolicySet, name: &str, settings: &Settings) -> Decision {
    let pairs = |pairs: &[(&'static str, &'static str)]| -> Pairs<&'static str> { pairs.iter().copied().collect() };
    let wanted = format!("{ROLES}{name}");
    let annotations = [(annotations::ROLE_ARN, &*wanted)].into_iter().collect();
    let request = Request {
        namespace: "shop",
        namespace_labels: pairs(&[("team", "core")]),
        service_account: "orders",
        service_account_annotations: Pairs::default(),
        pod: PodFacts {
            annotations,
            containers: vec![ContainerFacts {
                name: "app",
                own_role: OwnRole::Absent,
                own_token_file: false,
            }],
            ..PodFacts::default()
        },
    };
    decide(&request, policies, settings, Timestamp::UNIX_EPOCH)
}

fn set(policies: impl IntoIterator<Item = Policy>, boundaries: impl IntoIterator<Item = Boundary>) -> PolicySet {
    let mut set: PolicySet = policies.into_iter().collect();
    for boundary in boundaries {
        set.insert_boundary(Arc::new(boundary));
    }
    set
}

fn is_granted(set: &PolicySet) -> bool {
    matches!(decided(set, "shop/orders", &Settings::default()), Decision::Granted(_))
}

fn refused(set: &PolicySet) -> String {
    match decided(set, "shop/orders", &Settings::default()) {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_policy_inside_its_boundary_grants_as_without_one() {
    assert!(is_granted(&set([inside("orders")], [])));
    assert!(is_granted(&set([inside("orders")], [boundary("core")])));
}

#[test]
fn a_policy_beyond_its_boundary_grants_nothing_also_not_what_is_inside_and_the_refusal_says_why() {
    let mut wide = inside("orders");
    wide.roles.allowed.push(role("*"));

    assert_eq!(
        refused(&set([wide], [boundary("core")])),
        "TokenScopePolicy shop/orders grants nothing: TokenScopeBoundary core does not allow spec.roles.allowed[1] to be arn:aws:iam::111122223333:role/*: it allows arn:aws:iam::111122223333:role/shop/*"
    );
}

#[test]
fn a_cluster_policy_has_no_boundary() {
    let mut cluster = inside("orders");
    cluster.name = PolicyName::cluster("orders");
    let nothing = Boundary {
        roles: vec![role("none")],
        ..boundary("core")
    };

    assert!(is_granted(&set([cluster], [nothing])));
}

#[test]
fn a_boundary_counts_in_the_namespaces_that_it_selects() {
    let of = |team: &str| Boundary {
        roles: vec![role("none")],
        namespace_selector: Selector(vec![Requirement {
            key: "team".into(),
            operator: SelectorOperator::In(vec![team.into()]),
        }]),
        ..boundary("core")
    };

    assert!(is_granted(&set([inside("orders")], [of("web")])));
    assert!(!is_granted(&set([inside("orders")], [of("core")])));
}

#[test]
fn of_several_boundaries_all_count() {
    let narrow = Boundary {
        roles: vec![role("shop/carts")],
        ..boundary("narrow")
    };

    assert!(refused(&set([inside("orders")], [boundary("core"), narrow])).contains("TokenScopeBoundary narrow"));
}

#[test]
fn a_boundary_that_can_not_be_used_keeps_every_policy_of_a_namespace_from_granting() {
    let mut set = set([inside("orders")], []);
    set.insert_invalid_boundary("core", "spec.roles: Required value");

    assert_eq!(
        refused(&set),
        "TokenScopePolicy shop/orders grants nothing: TokenScopeBoundary core can't be used, so policies of no namespace grant anything until it is corrected: spec.roles: Required value"
    );
    set.remove_boundary("core");
    assert!(is_granted(&set));
}

#[test]
fn every_field_of_a_boundary_counts() {
    let message = |policy: Policy, boundary: Boundary| boundary.outside(&policy).map(|why| why.to_string());
    let field = |policy: Policy, boundary: Boundary| {
        let message = message(policy, boundary).unwrap();
        let field = message
            .split(" allow ")
            .nth(1)
            .unwrap()
            .split(" to be ")
            .next()
            .unwrap();
        field.to_owned()
    };
    let changed = |change: fn(&mut Policy)| {
        let mut policy = inside("orders");
        change(&mut policy);
        policy
    };

    let default = changed(|policy| policy.roles.default = Some(format!("{ROLES}admin").parse().unwrap()));
    assert_eq!(field(default, boundary("b")), "spec.roles.default");

    let sources = || Boundary {
        sources: vec![TokenSource::Issuer],
        ..boundary("b")
    };
    assert_eq!(field(inside("p"), sources()), "spec.token.source");

    let audiences = || Boundary {
        audiences: vec![Audience::sts()],
        ..boundary("b")
    };
    assert_eq!(field(inside("p"), audiences()), "spec.audiences.allowed");
    let other = changed(|policy| policy.audiences.allowed = vec![Audience::sts(), "other".parse().unwrap()]);
    assert_eq!(field(other, audiences()), "spec.audiences.allowed[1]");
    let no_default = changed(|policy| policy.audiences.allowed = vec![Audience::sts()]);
    assert_eq!(field(no_default, audiences()), "spec.audiences.default");
    let good = changed(|policy| {
        policy.audiences.allowed = vec![Audience::sts()];
        policy.audiences.default = Some(Audience::sts());
    });
    assert_eq!(message(good, audiences()), None);

    let short = |seconds| Boundary {
        max_expiration: Some(TokenExpiration::from_seconds(seconds).unwrap()),
        ..boundary("b")
    };
    assert_eq!(field(inside("p"), short(3599)), "spec.token.expirationSeconds");
    assert_eq!(message(inside("p"), short(3600)), None);
}

#[test]
fn claims_are_inside_only_with_exactly_the_template_of_the_boundary() {
    let claims = |tags: &[(&str, &str)]| Claims {
        principal_tags: tags
            .iter()
            .map(|(key, text)| ((*key).into(), text.parse().unwrap()))
            .collect(),
        ..Claims::default()
    };
    let most = Boundary {
        claims: Some(Claims {
            source_identity: Some("${serviceAccount}".parse().unwrap()),
            ..claims(&[("Team", "${namespace.labels['team']}"), ("Stage", "x")])
        }),
        ..boundary("b")
    };
    let outside = |claims: Claims| {
        let policy = Policy {
            claims: Arc::new(claims),
            ..inside("orders")
        };
        most.outside(&policy).map(|why| why.to_string())
    };

    assert_eq!(outside(Claims::default()), None);
    assert_eq!(outside(claims(&[("Team", "${namespace.labels['team']}")])), None);
    assert_eq!(
        outside(claims(&[("Team", "admins")])).unwrap(),
        "TokenScopeBoundary b does not allow spec.claims.principalTags[Team] to be admins: it allows ${namespace.labels['team']}"
    );
    assert_eq!(
        outside(claims(&[("team", "${namespace.labels['team']}")])).unwrap(),
        "TokenScopeBoundary b does not allow spec.claims.principalTags[team] to be set: it allows only the keys Stage, Team"
    );
    let with = |change: fn(&mut Claims)| {
        let mut changed = claims(&[("Stage", "x")]);
        change(&mut changed);
        outside(changed).unwrap_or_default()
    };
    assert!(
        with(|claims| claims.transitive_tag_keys = vec!["Stage".into()]).contains("spec.claims.transitiveTagKeys[0]")
    );
    assert!(
        with(|claims| claims.source_identity = Some("root".parse().unwrap())).contains("spec.claims.sourceIdentity")
    );
    assert!(with(|claims| claims.context = claims.principal_tags.clone()).contains("spec.claims.context[Stage]"));
    assert_eq!(
        with(|claims| claims.source_identity = Some("${serviceAccount}".parse().unwrap())),
        ""
    );
}

#[test]
fn where_no_policy_is_required_one_beyond_its_boundary_still_keeps_the_pod_from_any_role() {
    let settings = Settings {
        policy_required: false,
        ..Settings::default()
    };
    let mut wide = inside("orders");
    wide.roles.allowed.push(role("*"));
    let set = set([wide], [boundary("core")]);

    for name in ["shop/orders", "admin"] {
        assert!(matches!(decided(&set, name, &settings), Decision::Denied(_)), "{name}");
    }
}

#[test]
fn where_no_policy_is_required_a_role_without_one_must_be_inside_every_boundary_of_its_namespace() {
    let settings = Settings {
        policy_required: false,
        ..Settings::default()
    };
    let of = |boundaries: Vec<Boundary>, name: &str| decided(&set([], boundaries), name, &settings);
    let refused = |boundaries: Vec<Boundary>, name: &str| match of(boundaries, name) {
        Decision::Denied(denied) => denied.to_string(),
        other => panic!("{other:?}"),
    };
    let is_granted = |boundaries| matches!(of(boundaries, "shop/orders"), Decision::Granted(_));
    let changed = |change: fn(&mut Boundary)| {
        let mut boundary = boundary("narrow");
        change(&mut boundary);
        vec![self::boundary("core"), boundary]
    };

    assert!(matches!(of(Vec::new(), "admin"), Decision::Granted(_)));
    assert!(is_granted(vec![boundary("core")]));
    assert_eq!(
        refused(vec![boundary("core")], "admin"),
        "no policy selects the pod, and without one it may not have arn:aws:iam::111122223333:role/admin: TokenScopeBoundary core does not allow the role to be arn:aws:iam::111122223333:role/admin: it allows arn:aws:iam::111122223333:role/shop/*"
    );
    for (boundaries, what) in [
        (changed(|narrow| narrow.roles = vec![role("shop/carts")]), "the role"),
        (
            changed(|narrow| narrow.audiences = vec!["other".parse().unwrap()]),
            "the audience to be sts.amazonaws.com: it allows other",
        ),
        (
            changed(|narrow| narrow.max_expiration = Some(TokenExpiration::from_seconds(3599).unwrap())),
            "the token's seconds to be 3600: it allows at most 3599",
        ),
        (
            changed(|narrow| narrow.sources = vec![TokenSource::Issuer]),
            "the token's source to be ServiceAccount: it allows Issuer",
        ),
    ] {
        let why = refused(boundaries, "shop/orders");
        assert!(
            why.contains("TokenScopeBoundary narrow does not allow ") && why.contains(what),
            "{why}"
        );
    }
    assert!(is_granted(changed(|narrow| {
        narrow.audiences = vec![Audience::sts()];
        narrow.max_expiration = Some(TokenExpiration::from_seconds(3600).unwrap());
        narrow.sources = vec![TokenSource::ServiceAccount];
    })));
    let of_others = Requirement {
        key: "team".into(),
        operator: SelectorOperator::In(vec!["web".into()]),
    };
    let elsewhere = Boundary {
        roles: vec![role("none")],
        namespace_selector: Selector(vec![of_others]),
        ..boundary("elsewhere")
    };
    assert!(is_granted(vec![elsewhere]));
}

#[test]
fn where_no_policy_is_required_a_boundary_that_can_not_be_used_refuses_every_role_without_one() {
    let settings = Settings {
        policy_required: false,
        ..Settings::default()
    };
    let mut set = set([], []);
    set.insert_invalid_boundary("core", "spec.roles: Required value");

    let Decision::Denied(denied) = decided(&set, "shop/orders", &settings) else {
        panic!("granted");
    };
    let why = denied.to_string();
    assert!(why.contains("TokenScopeBoundary core can't be used"), "{why}");
}

#[test]
fn a_policy_with_source_issuer_is_refused_until_the_installation_has_an_issuer() {
    let mut issued = inside("orders");
    issued.token.source = TokenSource::Issuer;
    let set = set([issued], []);
    assert!(refused(&set).contains("not available"));

    let settings = Settings {
        issuer: Some("https://issuer.example".into()),
        ..Settings::default()
    };
    match decided(&set, "shop/orders", &settings) {
        Decision::Granted(granted) => {
            let claims = granted.containers[0].grant.claims.as_ref().unwrap();
            assert_eq!(claims.policy, PolicyName::namespaced("shop", "orders"));
        }
        other => panic!("{other:?}"),
    }
}

/// Every text of up to five of these characters.
fn texts() -> Vec<String> {
    let mut all = vec![String::new()];
    let mut last = all.clone();
    for _ in 0..5 {
        last = last
            .iter()
            .flat_map(|text| ["a", "b", "/"].map(|c| format!("{text}{c}")))
            .collect();
        all.extend(last.iter().cloned());
    }
    all
}

proptest! {
    #[test]
    fn a_pattern_that_is_inside_another_allows_nothing_that_the_other_does_not(
        wide in "([ab*]{1,4}/)?[ab*]{1,4}",
        narrow in "([ab*]{1,4}/)?[ab*]{1,4}",
    ) {
        let (wide, narrow) = (role(&wide), role(&narrow));
        if wide.contains(&narrow) {
            for text in texts() {
                if let Ok(role) = format!("{ROLES}{text}").parse::<RoleArn>() {
                    prop_assert!(!narrow.matches(&role) || wide.matches(&role), "{} {} {}", wide, narrow, role);
                }
            }
        }
    }

    #[test]
    fn a_pattern_is_inside_itself_and_inside_what_has_a_star_for_any_part_of_it(
        pattern in "[ab*/]{1,8}[ab]", from in 0usize..9, to in 0usize..9,
    ) {
        let (from, to) = (from.min(to).min(pattern.len() - 1), from.max(to).min(pattern.len() - 1));
        let wider = format!("{}*{}", &pattern[..from], &pattern[to..]);
        if let (Ok(pattern), Ok(wider)) = (
            format!("{ROLES}{pattern}").parse::<RolePattern>(),
            format!("{ROLES}{wider}").parse::<RolePattern>(),
        ) {
            prop_assert!(pattern.contains(&pattern) && wider.contains(&pattern), "{} {}", wider, pattern);
        }
    }
}

#[test]
fn a_pattern_of_another_account_is_outside() {
    let other: RolePattern = "arn:aws:iam::999922223333:role/shop/x".parse().unwrap();
    assert!(!role("*").contains(&other));
    assert!(role("*").contains(&role("shop/*")) && !role("shop/*").contains(&role("shop*")));
}

#[test]
fn what_is_inside_follows_every_change_in_whatever_order_policies_and_boundaries_come() {
    let wide = || Boundary {
        roles: vec![role("*")],
        ..boundary("team")
    };
    let mut set = PolicySet::default();
    set.insert_boundary(Arc::new(boundary("team")));
    let admin = Policy {
        roles: Roles {
            allowed: vec![role("admin"), role("shop/orders")],
            default: None,
        },
        ..policy("orders")
    };
    set.insert(Arc::new(admin.clone()));
    assert!(!is_granted(&set), "the boundary came first");
    let before = set.clone();
    set.insert_boundary(Arc::new(wide()));
    assert!(is_granted(&set) && !is_granted(&before), "a copy is what it was");
    set.insert_boundary(Arc::new(boundary("team")));
    assert!(!is_granted(&set));
    set.insert(Arc::new(inside("orders")));
    assert!(is_granted(&set), "the policy was narrowed");
    set.insert(Arc::new(admin.clone()));
    set.insert_invalid_boundary("team", "it is broken");
    assert!(!is_granted(&set));
    set.remove_boundary("team");
    assert!(is_granted(&set));
    // A policy that is not this one of the set is compared itself.
    set.insert_boundary(Arc::new(boundary("team")));
    let labels: Pairs<&str> = Pairs::default();
    assert!(set.outside_boundary(&admin, &labels).is_some());
    assert!(set.outside_boundary(&inside("orders"), &labels).is_none());
}

//! Policies inside and outside of boundaries.

use std::sync::Arc;

use tokenscope_core::*;
use tokenscope_fixtures::policy;

use super::{ROLES, boundary, decided, inside, is_granted, refused, role, set};

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
    set.insert_unusable_boundary("core", "spec.roles: Required value");

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
        sources: vec![TokenSource::Issuer.into()],
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
    set.insert_unusable_boundary("team", "it is broken");
    assert!(!is_granted(&set));
    set.remove_boundary("team");
    assert!(is_granted(&set));
    // A policy that is not this one of the set is compared itself.
    set.insert_boundary(Arc::new(boundary("team")));
    let labels: Pairs<&str> = Pairs::default();
    assert!(set.outside_boundary(&admin, &labels).is_some());
    assert!(set.outside_boundary(&inside("orders"), &labels).is_none());
}

#[test]
fn a_session_may_not_last_longer_than_a_token_may() {
    let with = |seconds: Option<i64>, most: Option<u32>| {
        let mut policy = inside("orders");
        policy.aws.region = Some("eu-central-1".parse().unwrap());
        policy.token.expiration = TokenExpiration::from_seconds(600).unwrap();
        policy.delivery = delivery::Delivery::Endpoint(delivery::EndpointDelivery {
            duration: seconds.map(|seconds| delivery::SessionDuration::from_seconds(seconds).unwrap()),
            ..delivery::EndpointDelivery::default()
        });
        let most = most.map(|most| TokenExpiration::from_seconds(most.into()).unwrap());
        set(
            [policy],
            [Boundary {
                max_expiration: most,
                ..boundary("core")
            }],
        )
    };
    for (seconds, most) in [(None, Some(600)), (Some(7200), None), (Some(7200), Some(7200))] {
        assert!(is_granted(&with(seconds, most)), "{seconds:?} {most:?}");
    }
    let refusal = refused(&with(Some(7200), Some(3600)));
    assert!(
        refusal.contains("does not allow spec.aws.sessionDurationSeconds to be 7200: it allows at most 3600"),
        "{refusal}"
    );
}

#[test]
fn the_roles_of_chains_and_profiles_must_be_inside_too() {
    let hop = |name: &str| delivery::RoleHop {
        role: format!("{ROLES}{name}").parse().unwrap(),
        external_id: None,
        session_name: None,
    };
    let profile = |first: Option<&str>, chain: Vec<delivery::RoleHop>| delivery::NamedProfile {
        name: "reports".parse().unwrap(),
        region: "eu-central-1".parse().unwrap(),
        role: first.map(|name| format!("{ROLES}{name}").parse().unwrap()),
        chain,
    };
    let with = |chain: Vec<delivery::RoleHop>, profiles: Vec<delivery::NamedProfile>| {
        let mut policy = inside("orders");
        policy.aws.region = Some("eu-central-1".parse().unwrap());
        policy.aws.role_chain = chain;
        policy.delivery = delivery::Delivery::Profile(profiles);
        set([policy], [boundary("core")])
    };
    assert!(is_granted(&with(
        vec![hop("shop/b")],
        vec![profile(Some("shop/c"), vec![hop("shop/d")])]
    )));
    for (chain, profiles, field) in [
        (
            vec![hop("shop/b"), hop("admin")],
            vec![],
            "spec.aws.roleChain[1].roleArn",
        ),
        (
            vec![],
            vec![profile(Some("admin"), vec![])],
            "spec.delivery.profile.profiles[0].roleArn",
        ),
        (
            vec![],
            vec![profile(None, vec![hop("admin")])],
            "spec.delivery.profile.profiles[0].roleChain[0].roleArn",
        ),
    ] {
        let refusal = refused(&with(chain, profiles));
        assert!(
            refusal.contains(&format!("does not allow {field} to be {ROLES}admin")),
            "{refusal}"
        );
    }
}

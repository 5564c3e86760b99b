//! Installations where no policy is required.

use tokenscope_core::*;

use super::{boundary, decided, inside, role, set};

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
            changed(|narrow| narrow.sources = vec![TokenSource::Issuer.into()]),
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
        narrow.sources = vec![TokenSource::ServiceAccount.into()];
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
    set.insert_unusable_boundary("core", "spec.roles: Required value");

    let Decision::Denied(denied) = decided(&set, "shop/orders", &settings) else {
        panic!("granted");
    };
    let why = denied.to_string();
    assert!(why.contains("TokenScopeBoundary core can't be used"), "{why}");
}

//! The lock as a review applies it: tokens that a pod brings itself.

mod fixtures;

use fixtures::{
    ISSUER, ROLE, ReviewFixture, SUBJECT_TOKEN_VOLUME, app, asking, by_hand, issuer, locked, refused, run_issuer,
};
use kube::runtime::watcher::Event;
use serde_json::json;
use tokenscope_core::TokenExpiration;
use tokenscope_core::lock::LockMode;
use tokenscope_webhook::metrics::ReviewOutcome;

#[test]
fn a_token_mounted_by_hand_is_refused_where_no_policy_grants_it() {
    let mut fixture = locked(LockMode::Deny);
    fixture.policies = tokenscope_core::PolicySet::default();
    let reviewed = fixture.review(&by_hand("sts.amazonaws.com", 3600));
    let message = refused(&reviewed);
    for part in [
        "volume mine holds a token for audience sts.amazonaws.com",
        "no policy in force grants it",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn disabled_and_expired_policies_grant_no_token() {
    for change in [
        (|policy: &mut tokenscope_core::Policy| policy.disabled = true) as fn(&mut tokenscope_core::Policy),
        |policy| policy.expires_at = Some("2026-01-01T00:00:00Z".parse().unwrap()),
    ] {
        let mut fixture = ReviewFixture::with_policy(change);
        fixture.settings.lock.mode = LockMode::Deny;
        refused(&fixture.review(&by_hand("sts.amazonaws.com", 3600)));
    }
}

#[test]
fn f03_a_policy_without_an_audience_for_pods_that_name_none_grants_no_token_either() {
    let audience = |text: &str| text.parse::<tokenscope_core::Audience>().unwrap();
    let with = |default: Option<&str>| {
        let mut fixture = ReviewFixture::with_policy(|policy| {
            policy.audiences.allowed = ["sts.amazonaws.com", "vault"].map(audience).to_vec();
            policy.audiences.default = default.map(audience);
        });
        fixture.settings.lock.mode = LockMode::Deny;
        fixture.settings.default_audience = audience("other");
        fixture.review(&by_hand("sts.amazonaws.com", 3600))
    };
    assert!(refused(&with(None)).contains("no policy in force grants it"));
    assert_eq!(with(Some("vault")).outcome(), ReviewOutcome::Untouched);
}

#[test]
fn a_token_that_lives_longer_than_the_policy_allows_is_refused_even_if_the_role_is_granted() {
    let mut fixture =
        ReviewFixture::with_policy(|policy| policy.token.expiration = TokenExpiration::from_seconds(600).unwrap());
    fixture.settings.lock.mode = LockMode::Deny;
    let mut pod = by_hand("sts.amazonaws.com", 86_400);
    pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let reviewed = fixture.review(&pod);
    let message = refused(&reviewed);
    assert!(
        message.contains("86400 seconds") && message.contains("at most 600 seconds"),
        "{message}"
    );
    pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] = json!(600);
    assert_ne!(fixture.review(&pod).outcome(), ReviewOutcome::Denied);
}

#[test]
fn a_token_that_a_policy_grants_is_adopted_and_the_pod_bears_the_mark() {
    let reviewed = locked(LockMode::Deny).review(&by_hand("sts.amazonaws.com", 3600));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert_eq!(reviewed.mark(), Some("untouched"));
}

#[test]
fn opting_out_of_credentials_is_not_opting_out_of_the_lock() {
    let mut fixture = locked(LockMode::Deny);
    fixture.policies = tokenscope_core::PolicySet::default();
    let mut pod = by_hand("sts.amazonaws.com", 3600);
    pod["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    refused(&fixture.review(&pod));
}

#[test]
fn where_policies_boundaries_or_labels_are_missing_no_token_counts_as_granted_whether_the_pod_opts_out_or_is_only_warned()
 {
    const WHY: &str = "the labels of namespace shop take more than their share";
    let mut opted_out = by_hand("sts.amazonaws.com", 3600);
    opted_out["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    let mut warned = by_hand("sts.amazonaws.com", 3600);
    warned["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let mut fixture = locked(LockMode::Deny);
    fixture.settings.enforcement = tokenscope_core::Enforcement::Warn;
    for pod in [&opted_out, &warned] {
        fixture.lacks_policies = None;
        assert_ne!(fixture.review(pod).outcome(), ReviewOutcome::Denied);
        fixture.lacks_policies = Some(WHY);
        let reviewed = fixture.review(pod);
        let message = refused(&reviewed);
        let expected = format!("it is not known whether a policy grants it to this pod, since {WHY}");
        assert!(message.contains(&expected), "{message}");
    }
    // A pod without such a token opts out as before.
    let mut pod = fixtures::plain(app());
    pod["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched);
}

#[test]
fn a_container_that_no_policy_covers_may_not_mount_the_token() {
    let mut fixture =
        ReviewFixture::with_policy(|policy| policy.containers.include = vec![tokenscope_core::Glob::new("admin")]);
    fixture.settings.lock.mode = LockMode::Deny;
    let reviewed = fixture.review(&by_hand("sts.amazonaws.com", 3600));
    assert!(
        refused(&reviewed).contains("covers container app"),
        "{}",
        reviewed.message()
    );
}

#[test]
fn audit_and_warn_admit_the_pod_and_say_so() {
    let mut fixture = locked(LockMode::Audit);
    fixture.policies = tokenscope_core::PolicySet::default();
    let pod = by_hand("sts.amazonaws.com", 3600);
    let reviewed = fixture.review(&pod);
    assert_eq!(
        (reviewed.outcome(), reviewed.patch.len()),
        (ReviewOutcome::Untouched, 0)
    );
    assert!(reviewed.warnings().is_empty());
    let audited = reviewed.response["auditAnnotations"]["ungranted-tokens"]
        .as_str()
        .unwrap();
    assert!(audited.contains("sts.amazonaws.com"), "{audited}");

    fixture.settings.lock.mode = LockMode::Warn;
    let reviewed = fixture.review(&pod);
    assert!(
        reviewed.warnings().contains("volume mine holds a token"),
        "{}",
        reviewed.warnings()
    );
    // For the guard that acts as soon as the lock is turned to deny, while this webhook still answers.
    assert_eq!(reviewed.mark(), Some("untouched"));

    fixture.settings.lock.mode = LockMode::Off;
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.response.get("auditAnnotations"), None);
}

#[test]
fn tokens_of_other_audiences_and_of_the_api_server_itself_are_nobodys_business() {
    let mut fixture = locked(LockMode::Deny);
    fixture.policies = tokenscope_core::PolicySet::default();
    assert_eq!(
        fixture.review(&by_hand("vault", 3600)).outcome(),
        ReviewOutcome::Untouched
    );
    let mut pod = by_hand("sts.amazonaws.com", 3600);
    let token = &mut pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"];
    token.as_object_mut().unwrap().remove("audience");
    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched);
}

#[test]
fn exempt_namespaces_and_those_that_are_never_denied_are_let_through() {
    let mut fixture = locked(LockMode::Deny);
    fixture.policies = tokenscope_core::PolicySet::default();
    fixture.settings.lock.exempt_namespaces = vec!["shop".into()];
    assert_eq!(
        fixture.review(&by_hand("sts.amazonaws.com", 3600)).outcome(),
        ReviewOutcome::Untouched
    );
    fixture.settings.lock.exempt_namespaces.clear();
    fixture.settings.never_denied = vec!["shop".into()];
    let reviewed = fixture.review(&by_hand("sts.amazonaws.com", 3600));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert!(reviewed.warnings().contains("volume mine"), "{}", reviewed.warnings());
}

#[test]
fn what_the_review_itself_added_is_granted_in_the_next_round_too() {
    let fixture = locked(LockMode::Deny);
    let mut pod = by_hand("vault", 3600);
    pod["spec"]["containers"][0].as_object_mut().unwrap().remove("env");
    pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let once = fixture.review(&pod);
    assert_eq!(once.outcome(), ReviewOutcome::Granted);
    let twice = fixture.review(&once.pod);
    assert_eq!((twice.outcome(), twice.patch.len()), (ReviewOutcome::Granted, 0));
}

#[test]
fn an_inline_volume_of_a_csi_driver_that_gets_such_tokens_needs_a_grant_where_the_lock_denies_and_is_told_of_where_it_looks()
 {
    let mut pod = by_hand("vault", 3600);
    pod["spec"]["volumes"][0] = json!({"name": "mine", "csi": {"driver": "secrets.example.com"}});
    let mut fixture = locked(LockMode::Deny);
    fixture.policies = tokenscope_core::PolicySet::default();
    assert_eq!(fixture.review(&pod).outcome(), ReviewOutcome::Untouched);
    fixture.csi_drivers.apply(Event::Apply(
        serde_json::from_value(json!({"metadata": {"name": "secrets.example.com"},
            "spec": {"tokenRequests": [{"audience": "sts.amazonaws.com"}]}}))
        .unwrap(),
    ));
    let said = "volume mine gives CSI driver secrets.example.com a token";
    for mode in [LockMode::Off, LockMode::Audit, LockMode::Warn, LockMode::Deny] {
        fixture.settings.lock.mode = mode;
        let reviewed = fixture.review(&pod);
        if mode == LockMode::Deny {
            let message = refused(&reviewed);
            assert!(message.contains(said), "{message}");
            continue;
        }
        assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched, "{mode}");
        let warned = reviewed.warnings().contains(said);
        assert_eq!(warned, mode == LockMode::Warn, "{mode}: {}", reviewed.warnings());
        let audited = reviewed.response["auditAnnotations"]["ungranted-tokens"].as_str();
        assert_eq!(
            audited.is_some_and(|audited| audited.contains("secrets.example.com")),
            mode != LockMode::Off,
            "{mode}: {audited:?}"
        );
    }
}

#[test]
fn a_pod_with_an_inline_volume_of_a_listed_driver_bears_the_mark_where_the_guard_looks_for_it() {
    let mut pod = by_hand("vault", 3600);
    pod["spec"]["volumes"][0] = json!({"name": "mine", "csi": {"driver": "secrets.example.com"}});
    for (mode, drivers, exempt, mark) in [
        (LockMode::Deny, "secrets.example.com", "kube-system", Some("untouched")),
        (LockMode::Deny, "other.example.com", "kube-system", None),
        (LockMode::Deny, "secrets.example.com", "shop", None),
        (LockMode::Audit, "secrets.example.com", "kube-system", None),
        (LockMode::Warn, "secrets.example.com", "kube-system", Some("untouched")),
    ] {
        let mut fixture = locked(mode);
        fixture.settings.lock.csi_drivers = vec![drivers.into()];
        fixture.settings.lock.exempt_namespaces = vec![exempt.into()];
        let reviewed = fixture.review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
        assert_eq!(reviewed.mark(), mark, "{mode} {drivers} {exempt}");
    }
}

/// Every installation in which the lock itself would let such a token pass.
fn lenient() -> Vec<ReviewFixture> {
    let with = |change: &dyn Fn(&mut ReviewFixture)| {
        let mut fixture = ReviewFixture::new();
        run_issuer(&mut fixture);
        change(&mut fixture);
        fixture
    };
    vec![
        with(&|fixture| fixture.settings.lock.mode = LockMode::Off),
        with(&|fixture| fixture.settings.lock.mode = LockMode::Audit),
        with(&|fixture| fixture.settings.lock.mode = LockMode::Warn),
        with(&|fixture| fixture.settings.lock.exempt_namespaces = vec!["shop".into()]),
        with(&|fixture| fixture.settings.enforcement = tokenscope_core::Enforcement::Audit),
        with(&|fixture| fixture.settings.policy_required = false),
        with(&|fixture| fixture.namespace_labels = vec![("tokenscope.io/inject", "false".into())]),
    ]
}

#[test]
fn a_token_for_our_own_issuer_is_refused_in_every_mode_namespace_and_place() {
    let mut opted_out = by_hand(ISSUER, 600);
    opted_out["metadata"]["annotations"] = json!({"tokenscope.io/inject": "false"});
    let mut asking = by_hand(ISSUER, 600);
    asking["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let mut unmounted = by_hand(ISSUER, 600);
    unmounted["spec"]["containers"][0]["volumeMounts"] = json!([]);
    let mut second = by_hand("vault", 600);
    let source = by_hand(ISSUER, 600)["spec"]["volumes"][0]["projected"]["sources"][0].clone();
    let sources = &mut second["spec"]["volumes"][0]["projected"]["sources"];
    sources.as_array_mut().unwrap().push(source);
    let mut our_name = by_hand(ISSUER, 600);
    our_name["spec"]["volumes"][0]["name"] = json!(SUBJECT_TOKEN_VOLUME);
    our_name["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!(SUBJECT_TOKEN_VOLUME);
    for fixture in lenient() {
        for pod in [
            &by_hand(ISSUER, 600),
            &opted_out,
            &asking,
            &unmounted,
            &second,
            &our_name,
        ] {
            let reviewed = fixture.review(pod);
            let message = refused(&reviewed);
            assert!(message.contains("only tokenscope gives a pod a token"), "{message}");
        }
    }
}

#[test]
fn a_csi_driver_that_gets_tokens_for_our_own_issuer_serves_no_pod() {
    let mut pod = by_hand("vault", 600);
    pod["spec"]["volumes"][0] = json!({"name": "mine", "csi": {"driver": "secrets.example.com"}});
    for fixture in lenient() {
        fixture.csi_drivers.apply(Event::Apply(
            serde_json::from_value(json!({"metadata": {"name": "secrets.example.com"},
                "spec": {"tokenRequests": [{"audience": ISSUER}]}}))
            .unwrap(),
        ));
        assert!(refused(&fixture.review(&pod)).contains("gives CSI driver secrets.example.com a token"));
    }
}

#[test]
fn a_granted_pod_may_hold_no_second_token_for_our_own_issuer() {
    let mut pod = issuer().review(&asking(app())).pod;
    let volume = by_hand(ISSUER, 600)["spec"]["volumes"][0].clone();
    pod["spec"]["volumes"].as_array_mut().unwrap().push(volume);
    assert!(refused(&issuer().review(&pod)).contains("volume mine holds a token for audience https://tokens"));
}

#[test]
fn a_copy_of_a_granted_pod_that_gets_nothing_any_more_may_not_keep_its_subject_token() {
    let granted = issuer().review(&asking(app())).pod;
    let mut copy = granted.clone();
    copy["metadata"] = json!({"name": "copy", "namespace": "shop"});
    let message = issuer().review(&copy).message().to_owned();
    assert!(message.contains("--keep-annotations"), "{message}");
    // With its record, what is ours goes, and the pod with it where the policy does.
    let mut fixture = issuer();
    fixture.policies = tokenscope_core::PolicySet::default();
    refused(&fixture.review(&granted));
    fixture.settings.enforcement = tokenscope_core::Enforcement::Warn;
    let left = fixture.review(&granted);
    assert_eq!(left.outcome(), ReviewOutcome::Warned);
    assert!(!left.pod["spec"].to_string().contains(ISSUER), "{}", left.pod);
}

#[test]
fn where_pods_are_never_refused_the_webhook_warns_and_the_api_servers_policy_refuses() {
    let mut fixture = issuer();
    fixture.settings.lock.mode = LockMode::Off;
    fixture.settings.never_denied = vec!["shop".into()];
    let reviewed = fixture.review(&by_hand(ISSUER, 600));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert!(
        reviewed.warnings().contains("volume mine holds a token"),
        "{}",
        reviewed.warnings()
    );
}

#[test]
fn the_subject_token_of_a_granted_pod_passes_in_every_mode_and_every_later_review() {
    for mode in [LockMode::Off, LockMode::Deny] {
        let mut fixture = issuer();
        fixture.settings.lock.mode = mode;
        fixture.settings.lock.audiences.push(ISSUER.parse().unwrap());
        let once = fixture.review(&asking(app()));
        assert_eq!(once.outcome(), ReviewOutcome::Granted);
        let twice = fixture.review(&once.pod);
        assert_eq!((twice.outcome(), twice.patch.len()), (ReviewOutcome::Granted, 0));
    }
}

#[test]
fn a_policy_of_source_issuer_grants_no_token_of_the_cluster_for_its_audience() {
    for source in [
        tokenscope_core::TokenSource::Issuer,
        tokenscope_core::TokenSource::Spiffe,
    ] {
        let mut fixture = ReviewFixture::with_policy(|policy| policy.token.source = source);
        run_issuer(&mut fixture);
        fixture.settings.lock.mode = LockMode::Deny;
        let mut pod = asking(app());
        pod["spec"]["volumes"] = by_hand("sts.amazonaws.com", 600)["spec"]["volumes"].clone();
        pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "mine", "mountPath": "/mine"}]);
        assert!(refused(&fixture.review(&pod)).contains("no policy in force grants it"));
    }
}

//! What the webhook can't keep of the cluster: the status of policies says so, and no pod is evicted that it would refuse.

use super::*;

/// As many policies as the webhook keeps of one namespace.
const KEPT_BY_WEBHOOK: usize = 1000;

fn about_nobody() -> Value {
    json!({"subjects": [{"serviceAccounts": ["nobody"]}], "roles": {"allowed": [ROLE]}})
}

#[test]
fn where_the_webhook_keeps_not_all_policies_of_a_namespace_their_status_says_so_and_pods_are_counted_all_the_same() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let everywhere = test.cluster_policy("all", &about_nobody());
    test.pod("missed", at("07:00"), &json!({}));
    let others: Vec<_> = (1..KEPT_BY_WEBHOOK)
        .map(|number| test.policy(&format!("policy-{number}"), &about_nobody()))
        .collect();
    assert_eq!(test.ready_reason(&policy), "MissedPods");
    assert!(test.index.findings().all(|(_, finding)| finding.evictable));

    let last = test.policy("one-more", &about_nobody());
    for name in [&policy, &others[0], &last] {
        assert_eq!(test.ready_reason(name), "NamespaceOverShare", "{name}");
        let message = test.ready_message(name);
        for part in [
            "the webhook does not keep all policies of this namespace",
            "the TokenScopePolicies of namespace shop take more than their share, which is 1000 in number and 3072 KiB in size",
            "delete policies that are not needed, or make them smaller",
            "it can judge no new pod here, and refuses those that don't opt out",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message:?}");
        }
    }
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
    assert_eq!(
        test.ready_reason(&everywhere),
        "UpToDate",
        "another namespace has what it had"
    );
    let evictable: Vec<bool> = test.index.findings().map(|(_, finding)| finding.evictable).collect();
    assert_eq!(evictable, [false], "it would not come back");

    test.delete_policy(&others[0]);
    assert_eq!(test.ready_reason(&policy), "MissedPods");
    assert_eq!(test.ready_reason(&last), "UpToDate");
    assert!(!test.index.wants_lists(), "no list was needed to know it");
}

impl Test {
    /// Goes on to this moment, and looks at what is due then.
    fn goes_on_to(&mut self, now: Timestamp) {
        self.now = now;
        self.reassess();
    }

    /// True if all missed pods may be evicted, and false if none may.
    fn evicts(&mut self) -> bool {
        self.reassess();
        let mut findings = self.index.findings().map(|(_, finding)| finding.evictable);
        let first = findings.next().unwrap();
        assert!(findings.all(|other| other == first));
        first
    }
}

#[test]
fn a_missed_pod_is_not_evicted_before_each_replica_of_the_webhook_has_read_again_what_it_left_out() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.pod("missed", at("07:00"), &json!({}));
    assert!(test.evicts());
    let others: Vec<_> = (0..KEPT_BY_WEBHOOK)
        .map(|number| test.policy(&format!("policy-{number}"), &about_nobody()))
        .collect();
    assert!(!test.evicts());
    assert_eq!(
        test.index.next_change(),
        None,
        "it lasts as long as the policies are too many"
    );
    test.goes_on_to(at("11:00"));

    test.delete_policy(&others[0]);
    assert!(!test.evicts());
    assert_eq!(
        test.index.next_change(),
        Some(at("11:15")),
        "ten minutes is the longest pause before a list"
    );
    test.goes_on_to(at("11:10"));
    test.delete_policy(&others[1]);
    assert_eq!(
        test.index.next_change(),
        Some(at("11:15")),
        "it was within the share already"
    );

    test.policy("one-more", &about_nobody());
    test.policy("two-more", &about_nobody());
    test.goes_on_to(at("11:30"));
    assert!(!test.evicts(), "it was beyond it again");
    test.delete_policy(&others[2]);
    test.goes_on_to("2026-11-22T11:44:59Z".parse().unwrap());
    assert!(!test.evicts());
    assert!(test.index.is_dirty(at("11:45")));
    test.goes_on_to(at("11:45"));
    assert!(test.evicts());
    assert_eq!(test.index.next_change(), None);
}

#[test]
fn after_too_many_policies_of_the_cluster_missed_pods_of_every_namespace_wait() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.pod("missed", at("07:00"), &json!({}));
    for number in 0..=KEPT_BY_WEBHOOK {
        test.cluster_policy(&format!("policy-{number}"), &about_nobody());
    }
    assert!(!test.evicts());
    let gone: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "policy-7"}})).unwrap();
    test.apply(IndexEvent::ClusterPolicy(Event::Delete(gone)));
    assert!(!test.evicts());
    test.goes_on_to(at("10:15"));
    assert!(test.evicts());
}

#[test]
fn a_pod_of_an_expired_policy_does_not_wait_for_the_webhook() {
    let mut test = Test::with(Settings::default());
    let mut spec = default_role(ROLE);
    spec["expiresAt"] = at("11:00").to_string().into();
    spec["onExpiry"] = "Evict".into();
    test.policy("orders", &spec);
    test.injected_pod("expired", at("07:00"));
    for number in 0..KEPT_BY_WEBHOOK {
        test.policy(&format!("policy-{number}"), &about_nobody());
    }
    test.goes_on_to(at("11:00"));
    assert!(test.evicts(), "it is to lose what it has");
}

#[test]
fn where_a_namespace_is_beyond_the_webhooks_share_only_its_own_policies_are_looked_at_again() {
    let mut test = Test::new();
    let mut names: Vec<_> = (0..KEPT_BY_WEBHOOK)
        .map(|number| test.policy(&format!("policy-{number}"), &about_nobody()))
        .collect();
    for namespace in ["sho", "shop-2", "shoq"] {
        let object = json!({"metadata": {"name": "near", "namespace": namespace}, "spec": about_nobody()});
        let object = serde_json::from_value(object).unwrap();
        test.apply(IndexEvent::Policy(Event::Apply(object)));
    }
    test.cluster_policy("all", &about_nobody());
    test.written();
    names.push(test.policy("one-more", &about_nobody()));
    let mut written = test.written();
    written.sort();
    names.sort();
    assert_eq!(written, names);
}

#[test]
fn large_policies_use_up_the_webhooks_share_before_they_are_many() {
    let mut test = Test::new();
    let mut spec = about_nobody();
    spec["description"] = "x".repeat(30_000).into();
    let policies: Vec<_> = (0..120)
        .map(|number| test.policy(&format!("policy-{number}"), &spec))
        .collect();
    assert_eq!(test.ready_reason(&policies[0]), "NamespaceOverShare");
    assert_eq!(test.index.namespaces_over_share(), 0, "the operator keeps them");
    for policy in &policies[90..] {
        test.delete_policy(policy);
    }
    assert_eq!(test.ready_reason(&policies[0]), "UpToDate");
}

#[test]
fn policies_of_the_cluster_that_the_webhook_can_not_keep_are_in_the_status_of_every_policy() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let mut last = test.cluster_policy("all", &about_nobody());
    for number in 0..KEPT_BY_WEBHOOK {
        last = test.cluster_policy(&format!("policy-{number}"), &about_nobody());
    }
    for name in [&policy, &last] {
        assert_eq!(test.ready_reason(name), "ClusterOverShare");
        let message = test.ready_message(name);
        assert!(
            message.contains(
                "the ClusterTokenScopePolicies take more than their share, which is 1000 in number and 4096 KiB in size"
            ),
            "{message}"
        );
    }
    let gone: DynamicObject = serde_json::from_value(json!({"metadata": {"name": "all"}})).unwrap();
    test.apply(IndexEvent::ClusterPolicy(Event::Delete(gone)));
    for name in [&policy, &last] {
        assert_eq!(test.ready_reason(name), "UpToDate");
    }
}

#[test]
fn service_accounts_that_the_webhook_can_not_keep_are_in_the_status_too() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    for number in 0..6_000 {
        test.account(&format!("account-{number}"), &"r".repeat(3_000), at("01:00"));
    }
    assert_eq!(test.ready_reason(&policy), "NamespaceOverShare");
    let message = test.ready_message(&policy);
    for part in [
        "the webhook does not keep all service accounts of this namespace",
        "12288 KiB",
        "delete service accounts that are not needed; until then few pods a second can be reviewed there",
    ] {
        assert!(message.contains(part), "{part:?} is not in {message:?}");
    }
    assert_eq!(test.index.namespaces_over_share(), 0, "the operator keeps them");
    // Reviews there are only slower, so whatever else is wrong comes first.
    test.pod("missed", at("07:00"), &json!({}));
    assert_eq!(test.ready_reason(&policy), "MissedPods");
    assert!(test.evicts());
    let invalid = test.policy("invalid", &json!({"subjects": [], "roles": {}}));
    assert_eq!(test.ready_reason(&invalid), "NotAccepted");
}

//! How running pods stand to what policies give them.

use super::*;

#[test]
fn a_pod_with_what_it_should_have_is_injected() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));

    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    assert_eq!(test.reasons(&policy), ["Valid", "InForce", "UpToDate"]);
    assert_eq!(test.totals(), [1, 1, 0, 0]);
}

#[test]
fn a_pod_without_a_grant_is_missed_if_the_policy_was_there_first() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.pod("before", at("05:59"), &json!({}));
    test.pod("same", at("06:00"), &json!({}));
    test.pod("after", at("06:03"), &json!({}));

    assert_eq!(test.counts(&policy), [3, 0, 1, 2]);
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
    let missed: Vec<_> = test.index.findings().map(|(key, _)| key.1.to_string()).collect();
    assert_eq!(missed, ["after"]);
    let report = test.index.report(&("shop".into(), "after".into()), test.now).unwrap();
    assert!(report.message.contains("TokenScopePolicy shop/orders"), "{report:?}");
}

#[test]
fn where_very_many_policies_have_schedules_a_pod_is_not_missed_for_certain() {
    let schedule = json!({"cron": "0 0 30 2 *", "duration": "1h", "timeZone": "UTC"});
    for (count, counts) in [(64, [1, 0, 1, 0]), (65, [1, 0, 0, 1])] {
        let mut test = Test::new();
        let policy = test.policy("orders", &default_role(ROLE));
        for number in 0..count {
            let spec = json!({"subjects": [{"serviceAccounts": ["other"]}], "roles": {"allowed": [ROLE]}, "activeSchedule": schedule});
            test.policy(&format!("p{number}"), &spec);
        }
        test.pod("after", at("06:03"), &json!({}));
        assert_eq!(test.counts(&policy), counts, "{count}");
    }
}

/// Pods of these namespaces that are all to be assessed, so many of each.
fn crowds(namespaces: &[(&str, usize)]) -> Test {
    let namespace = |(name, _): &(&str, usize)| {
        let object = json!({"metadata": {"name": name}});
        IndexEvent::Namespace(Event::InitApply(serde_json::from_value(object).unwrap()))
    };
    let lists: Vec<_> = namespaces.iter().map(namespace).collect();
    let mut test = Test::listing(&lists, at("00:30"));
    test.now = at("10:00");
    test.cluster_policy("orders", &default_role(ROLE));
    for (namespace, count) in namespaces {
        for number in 0..*count {
            let object = pod(namespace, &format!("p{number}"), at("07:00"), &json!({}));
            test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        }
    }
    test
}

fn missed_in(test: &Test, namespace: &str) -> usize {
    let findings = test.index.findings();
    findings.filter(|((found, _), _)| **found == *namespace).count()
}

#[test]
fn a_namespace_with_very_many_pods_keeps_no_other_one_waiting() {
    let mut test = crowds(&[("crowd", 600), ("shop", 1), ("bank", 1)]);
    test.index.reassess(test.now);
    assert_eq!((missed_in(&test, "shop"), missed_in(&test, "bank")), (1, 1));
    assert!(test.index.is_dirty(test.now), "the crowd has more");
    test.reassess();
    assert_eq!(missed_in(&test, "crowd"), 600);
}

#[test]
fn a_step_has_fewer_pods_where_the_policies_about_them_are_very_many() {
    let mut test = crowds(&[("shop", 300)]);
    for number in 0..100 {
        let role = |at| format!("arn:aws:iam::111122223333:role/{}/{at}*", "p".repeat(440));
        let allowed: Vec<_> = (0..4).map(role).collect();
        let spec = json!({"subjects": [{"serviceAccounts": ["other"]}], "roles": {"allowed": allowed}});
        test.policy(&format!("p{number}"), &spec);
    }
    test.index.reassess(test.now);
    let found = missed_in(&test, "shop");
    assert!((1..100).contains(&found), "{found}");
    test.reassess();
    assert_eq!(missed_in(&test, "shop"), 300);
}

#[test]
fn a_pod_with_another_grant_is_outdated() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));
    test.policy_object("orders", 2, &default_role(OTHER_ROLE));

    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
    assert_eq!(test.reasons(&policy)[2], "OutdatedPods");
}

/// An upgrade must not make every running pod count as outdated.
#[test]
fn a_record_with_a_fingerprint_of_another_version_counts_by_the_roles_in_it() {
    for other in ["0011223344556677", "v3-0011223344556677"] {
        let mut test = Test::new();
        let policy = test.policy("orders", &default_role(ROLE));
        test.injected_pod("a", at("07:00"));
        let annotations = &mut test.last["metadata"]["annotations"];
        let record = annotations["tokenscope.io/grant"].as_str().unwrap();
        let mut record: Value = serde_json::from_str(record).unwrap();
        assert!(record["hash"].as_str().unwrap().starts_with("v2-"), "{record}");
        record["hash"] = other.into();
        annotations["tokenscope.io/grant"] = record.to_string().into();
        let object = test.last.clone();
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));

        assert_eq!(test.counts(&policy), [1, 1, 0, 0], "{other}");
        test.policy_object("orders", 2, &default_role(OTHER_ROLE));
        assert_eq!(test.counts(&policy), [1, 0, 0, 1], "{other}");
    }
}

#[test]
fn a_new_generation_counts_from_when_it_was_seen() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    test.pod("old", at("07:00"), &json!({}));
    test.written();
    test.policy_object("orders", 2, &default_role(ROLE));
    test.pod("new", at("10:03"), &json!({}));

    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
    let noted = test.status(&policy).generation_observed_at.unwrap();
    assert_eq!(noted, Time(at("10:00")));

    // Another operator that starts later believes what was noted.
    test.now = at("12:00");
    let status = test.status(&policy);
    let mut later = Test::new();
    later.now = at("12:00");
    later.policy_object("orders", 2, &default_role(ROLE));
    later.index.objects.get_mut(&policy).unwrap().status = status;
    let age = later.index.age_of(&policy);
    assert_eq!((age.told, age.seen), (at("10:00"), at("12:00")));
    later.pod("new", at("10:03"), &json!({}));
    assert_eq!(later.counts(&policy), [1, 0, 0, 1]);
    assert_eq!(later.ready_reason(&policy), "MaybeMissedPods");
}

#[test]
fn a_pod_whose_policy_no_longer_grants_is_outdated_for_it() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.injected_pod("a", at("07:00"));
    let mut disabled = default_role(ROLE);
    disabled["disabled"] = true.into();
    test.policy_object("orders", 2, &disabled);

    assert_eq!(test.counts(&policy), [0, 0, 0, 1]);
    assert_eq!(test.reasons(&policy), ["Valid", "Disabled", "NotInForce"]);
}

#[test]
fn pods_that_are_reviewed_and_refused_are_not_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [OTHER_ROLE]}}));
    test.pod(
        "warned",
        at("07:00"),
        &json!({"tokenscope.io/role-arn": ROLE, "tokenscope.io/reviewed": "refused"}),
    );
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.totals(), [0; 4]);

    test.policy_object("orders", 2, &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1], "a restart would help it now");
}

#[test]
fn pods_that_ask_and_were_never_reviewed_are_missed_also_where_nothing_is_granted() {
    let mut test = Test::new();
    test.pod("asks", at("07:00"), &json!({"tokenscope.io/role-arn": ROLE}));
    test.reassess();

    assert_eq!(test.totals(), [1, 0, 1, 0]);
    let report = test.index.report(&("shop".into(), "asks".into()), test.now).unwrap();
    assert!(report.message.contains("a new pod would be refused"), "{report:?}");
}

#[test]
fn pods_older_than_the_annotation_of_their_service_account_are_not_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    test.account("orders", ROLE, at("08:00"));
    test.pod("before", at("07:00"), &json!({}));
    test.pod("after", at("09:00"), &json!({}));

    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);
}

#[test]
fn pods_created_outside_the_schedule_are_not_missed() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["activeSchedule"] = json!({"cron": "0 8 * * *", "duration": "4h", "timeZone": "UTC"});
    let policy = test.policy("orders", &spec);
    test.pod("early", at("07:00"), &json!({}));
    test.pod("inside", at("09:00"), &json!({}));
    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);

    assert_eq!(test.index.next_change(), Some(at("12:00")));
    test.now = at("12:00");
    assert!(test.index.is_dirty(test.now));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.reasons(&policy), ["Valid", "OutsideSchedule", "NotInForce"]);
}

#[test]
fn finished_pods_and_those_of_namespaces_that_are_left_out_do_not_count() {
    let mut test = Test::new();
    let everywhere = json!({"subjects": [{}], "roles": {"default": ROLE}});
    let policy = test.cluster_policy("all", &everywhere);
    test.namespace("tokenscope-system", &json!({}));
    test.namespace("out", &json!({"tokenscope.io/inject": "false"}));
    for namespace in ["tokenscope-system", "out"] {
        let object = pod(namespace, "a", at("07:00"), &json!({}));
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    }
    test.pod("runs", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);

    let mut finished = pod("shop", "runs", at("07:00"), &json!({}));
    finished["status"]["phase"] = "Succeeded".into();
    test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(finished).unwrap())));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.index.findings().count(), 0);
    test.namespace("out", &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1], "the pod is older than the change");
}

#[test]
fn a_deleted_pod_leaves_no_trace_also_where_only_a_new_list_shows_it() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    for name in ["a", "b"] {
        test.pod(name, at("07:00"), &json!({}));
    }
    assert_eq!(test.counts(&policy), [2, 0, 2, 0]);
    test.apply(IndexEvent::Pod(Event::Init));
    let left = pod("shop", "b", at("07:00"), &json!({}));
    test.apply(IndexEvent::Pod(Event::InitApply(
        serde_json::from_value(left.clone()).unwrap(),
    )));
    test.apply(IndexEvent::Pod(Event::InitDone));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
    test.apply(IndexEvent::Pod(Event::Delete(serde_json::from_value(left).unwrap())));
    assert_eq!(test.counts(&policy), [0; 4]);
    assert_eq!(test.totals(), [0; 4]);
}

#[test]
fn every_pod_of_many_is_judged_and_every_policy_of_many_has_its_status() {
    let mut test = Test::new();
    for namespace in 0..20 {
        let name = format!("n{namespace}");
        test.namespace(&name, &json!({"team": name}));
        for policy in 0..50 {
            let object = json!({
                "metadata": {"name": format!("p{policy}"), "namespace": name, "uid": "u", "generation": 1},
                "spec": {"subjects": [{"serviceAccounts": [format!("a{policy}")]}], "roles": {"default": ROLE}},
            });
            let mut object = object;
            object["apiVersion"] = "tokenscope.io/v1alpha1".into();
            object["kind"] = "TokenScopePolicy".into();
            test.apply(IndexEvent::Policy(Event::InitApply(
                serde_json::from_value(object).unwrap(),
            )));
        }
        for number in 0..250 {
            let mut object = pod(&name, &format!("pod-{number}"), at("07:00"), &json!({}));
            object["spec"]["serviceAccountName"] = format!("a{}", number % 50).into();
            test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        }
    }
    assert_eq!(test.written().len(), 1_000);
    assert_eq!(test.totals(), [5_000, 0, 5_000, 0]);
    for name in test.index.objects.keys().cloned().collect::<Vec<_>>() {
        assert_eq!(test.counts(&name), [5, 0, 5, 0]);
    }
}

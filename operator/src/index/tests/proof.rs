//! A pod is called missed only where all that its grant rests on is older for certain, and so is the absence of what could have kept it
//! away (F5 of e2e/tests/cases).

use super::simulated_cluster::*;
use super::*;

/// What kept the grant away when the pod was created, and what stands there in its place later, if anything.
fn obstacles() -> Vec<(&'static str, Object, Option<Object>)> {
    let opted_out = json!({"tokenscope.io/inject": "false"});
    let other_default = policy("other", 1, &json!({"subjects": [{}], "roles": {"default": OTHER_ROLE}}));
    let no_default = policy(
        "other",
        2,
        &json!({"subjects": [{}], "roles": {"allowed": [OTHER_ROLE]}}),
    );
    let elsewhere = policy(
        "other",
        2,
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"default": OTHER_ROLE}}),
    );
    vec![
        ("a policy that went", other_default.clone(), None),
        ("a policy's default that went", other_default.clone(), Some(no_default)),
        ("a policy's subjects that went", other_default, Some(elsewhere)),
        ("a boundary that went", boundary(&json!({})), None),
        (
            "a boundary that selects others",
            boundary(&json!({})),
            Some(boundary(&json!({"matchLabels": {"a": "b"}}))),
        ),
        (
            "an account's annotation",
            account("02:00", &opted_out),
            Some(account("02:00", &json!({}))),
        ),
        ("an account that went", account("02:00", &opted_out), None),
        (
            "an account that was made anew",
            account("02:00", &opted_out),
            Some(account("08:00", &json!({}))),
        ),
        (
            "a namespace's label",
            namespace(&opted_out),
            Some(namespace(&json!({}))),
        ),
        (
            "the pod's own annotation",
            running("a", "07:00", &opted_out),
            Some(running("a", "07:00", &json!({}))),
        ),
    ]
}

/// With a pod of seven o'clock that this keeps the grant from.
fn cluster_with_pod(obstacle: &Object) -> SimulatedCluster {
    let mut cluster = SimulatedCluster::with(std::slice::from_ref(obstacle));
    let pod = running("a", "07:00", &json!({}));
    let is_pod = matches!(obstacle, Object::Pod(_));
    cluster.at("07:00").put(if is_pod { obstacle } else { &pod });
    cluster
}

/// Its generation is another one where it says something else.
fn as_changed(mut object: Object) -> Object {
    if let Object::Boundary(value) = &mut object {
        value["metadata"]["generation"] = 2.into();
    }
    object
}

/// Now it is gone, or something else stands in its place.
fn goes(cluster: &mut SimulatedCluster, obstacle: &Object, after: Option<Object>) {
    match after.map(as_changed) {
        Some(after) => cluster.put(&after),
        None => cluster.delete(obstacle),
    };
}

#[test]
fn f05_a_pod_is_not_missed_where_something_kept_the_grant_away_that_went_before_the_operators_eyes() {
    for (what, obstacle, after) in obstacles() {
        let mut cluster = cluster_with_pod(&obstacle);
        assert_eq!(cluster.found().0, 0, "{what} is there");
        goes(cluster.at("09:00"), &obstacle, after);
        assert_eq!(cluster.found(), (0, 1, 0), "{what} is gone");
    }
}

#[test]
fn f05_a_pod_is_not_missed_where_the_operator_has_not_seen_what_kept_the_grant_away() {
    for (what, obstacle, after) in obstacles() {
        let mut cluster = cluster_with_pod(&obstacle);
        let after = after.map(as_changed);
        cluster.unseen(Some(&obstacle), after.as_ref()).restart("09:00");
        assert_eq!(cluster.found(), (0, 1, 0), "{what} is gone");
    }
}

#[test]
fn f05_a_pod_is_not_missed_where_the_operator_was_restarted_before_what_kept_the_grant_away_went() {
    for (what, obstacle, after) in obstacles() {
        let mut cluster = cluster_with_pod(&obstacle);
        cluster.restart("08:00");
        assert_eq!(cluster.found().0, 0, "{what} is there");
        goes(cluster.at("09:00"), &obstacle, after);
        assert_eq!(cluster.found(), (0, 1, 0), "{what} is gone");
    }
}

#[test]
fn f05_a_pod_that_came_after_what_had_kept_the_grant_away_is_missed() {
    for (what, obstacle, after) in obstacles() {
        if matches!(obstacle, Object::Pod(_)) {
            continue;
        }
        let mut cluster = SimulatedCluster::with(std::slice::from_ref(&obstacle));
        goes(cluster.at("06:00"), &obstacle, after);
        cluster.at("10:00").put(&running("a", "10:00", &json!({})));
        assert_eq!(cluster.found(), (1, 0, 1), "{what}");
    }
}

#[test]
fn f05_a_missed_pod_may_be_missed_after_the_operator_was_restarted_and_is_evicted_no_more() {
    let mut cluster = SimulatedCluster::with(&[]);
    cluster.at("07:00").put(&running("a", "07:00", &json!({})));
    assert_eq!(
        (cluster.found(), cluster.reason()),
        ((1, 0, 1), "MissedPods".to_owned())
    );

    cluster.restart("08:00");
    assert_eq!(
        (cluster.found(), cluster.reason()),
        ((0, 1, 0), "MaybeMissedPods".to_owned())
    );
    let message = cluster.test.ready_message(&PolicyName::namespaced("shop", "orders"));
    assert!(
        message.starts_with("1 of 1 pods run without what the policy grants, and may"),
        "{message}"
    );

    cluster.at("09:00").put(&running("b", "09:00", &json!({})));
    assert_eq!(
        (cluster.found(), cluster.reason()),
        ((1, 1, 1), "MissedPods".to_owned())
    );
}

#[test]
fn f05_a_pod_that_is_older_than_its_policy_is_outdated_and_not_maybe_missed() {
    let mut cluster = SimulatedCluster::with(&[running("a", "01:30", &json!({}))]);
    assert_eq!(
        (cluster.found(), cluster.reason()),
        ((0, 1, 0), "OutdatedPods".to_owned())
    );
}

#[test]
fn f05_what_has_nothing_to_do_with_a_pod_may_go_and_it_stays_missed() {
    let of_others = policy(
        "others",
        1,
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"default": OTHER_ROLE}}),
    );
    let in_others = cluster_policy(
        "elsewhere",
        &json!({"namespaceSelector": {"matchLabels": {"team": "x"}}, "subjects": [{}], "roles": {"default": OTHER_ROLE}}),
    );
    let mut other_account = in_shop("carts", "02:00");
    other_account["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    let other_account = Object::Account(json!({"metadata": other_account}));
    let of_boundary = boundary(&json!({"matchLabels": {"team": "x"}}));
    let all = [of_others, in_others, other_account, of_boundary];
    let mut cluster = SimulatedCluster::with(&all);
    cluster.at("07:00").put(&running("a", "07:00", &json!({})));
    for object in &all {
        cluster.at("09:00").delete(object);
        assert_eq!(cluster.found(), (1, 0, 1));
    }
    cluster.put(&namespace(&json!({"unrelated": "label"})));
    assert_eq!(cluster.found(), (1, 0, 1));
}

#[test]
fn f05_a_label_by_which_a_policy_selected_the_namespace_once_makes_its_pods_not_missed() {
    let spec = json!({"namespaceSelector": {"matchLabels": {"team": "x"}}, "subjects": [{}], "roles": {"default": OTHER_ROLE}});
    let mut orders = default_role(ROLE);
    orders["roles"] = json!({"default": ROLE});
    let selecting = cluster_policy("x", &spec);
    let grants = cluster_policy("orders", &json!({"subjects": [{}], "roles": {"default": ROLE}}));
    let mut cluster = SimulatedCluster::with(&[selecting, grants, namespace(&json!({"team": "x"}))]);
    cluster.delete(&policy("orders", 1, &orders));
    cluster.at("07:00").put(&running("a", "07:00", &json!({})));
    cluster.at("09:00").put(&namespace(&json!({})));
    assert_eq!(cluster.test.counts(&PolicyName::cluster("orders")), [1, 0, 0, 1]);
}

#[test]
fn f05_a_policy_that_is_over_by_now_may_have_kept_the_grant_away() {
    let other = json!({"subjects": [{}], "roles": {"default": OTHER_ROLE}, "expiresAt": at("08:00").to_string()});
    let mut cluster = SimulatedCluster::with(&[policy("other", 1, &other)]);
    cluster.at("07:00").put(&running("a", "07:00", &json!({})));
    cluster.at("09:00").put(&running("b", "08:30", &json!({})));
    assert_eq!(cluster.found(), (1, 1, 1));
}

#[test]
fn f05_a_pod_of_the_second_in_which_a_window_opens_or_another_policy_ends_is_not_missed() {
    let mut in_hours = default_role(ROLE);
    in_hours["activeSchedule"] = json!({"cron": "0 7 * * *", "duration": "10h", "timeZone": "UTC"});
    let ending = json!({"subjects": [{}], "roles": {"default": OTHER_ROLE}, "expiresAt": at("07:00").to_string()});
    for object in [policy("orders", 1, &in_hours), policy("other", 1, &ending)] {
        let mut cluster = SimulatedCluster::with(&[object]);
        cluster.at("07:00").put(&running("a", "07:00", &json!({})));
        assert_eq!(cluster.found(), (0, 1, 0));
        cluster.at("07:03").put(&running("b", "07:03", &json!({})));
        assert_eq!(cluster.found(), (1, 1, 1));
    }
}

#[test]
fn f05_of_pods_that_came_while_a_watch_was_interrupted_nothing_is_certain() {
    let mut cluster = SimulatedCluster::with(&[]);
    cluster.at("05:00").put(&running("before", "05:00", &json!({})));
    cluster.at("06:00").put(&policy(
        "other",
        1,
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"allowed": [ROLE]}}),
    ));
    cluster.at("07:00").put(&running("while", "07:00", &json!({})));
    assert_eq!(cluster.found().0, 2);
    cluster.test.apply(IndexEvent::Policy(Event::Init));
    for object in cluster.present.clone() {
        if matches!(object, Object::Policy(_)) {
            cluster.test.apply(object.told(Told::InList));
        }
    }
    cluster.at("08:00").test.apply(IndexEvent::Policy(Event::InitDone));
    cluster.at("09:00").put(&running("after", "09:00", &json!({})));
    assert_eq!(
        cluster.found(),
        (2, 1, 2),
        "{:?}",
        cluster.test.index.findings().collect::<Vec<_>>()
    );
}

#[test]
fn f05_a_pod_that_only_a_list_has_shown_is_not_missed() {
    let mut cluster = SimulatedCluster::with(&[]);
    cluster.at("07:00").test.apply(IndexEvent::Pod(Event::Init));
    let pod = running("a", "06:00", &json!({}));
    cluster.test.apply(pod.told(Told::InList));
    cluster.test.apply(IndexEvent::Pod(Event::InitDone));
    assert_eq!(
        (cluster.found(), cluster.reason()),
        ((0, 1, 0), "MaybeMissedPods".to_owned())
    );
}

#[test]
fn f05_times_that_somebody_wrote_into_managed_fields_prove_nothing() {
    let mut forged = account("02:00", &json!({"tokenscope.io/role-arn": ROLE}));
    if let Object::Account(value) = &mut forged {
        value["metadata"]["managedFields"] = json!([{"manager": "a", "operation": "Update", "time": at("02:00").to_string(),
            "fieldsV1": {"f:metadata": {"f:annotations": {"f:tokenscope.io/role-arn": {}}}}}]);
    }
    let mut cluster = SimulatedCluster::with(&[policy(
        "orders",
        1,
        &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}),
    )]);
    cluster.at("07:00").put(&running("a", "07:00", &json!({})));
    cluster.at("09:00").put(&forged);
    assert_eq!(cluster.found(), (0, 1, 0));
}

#[test]
fn f05_a_mark_or_record_that_was_taken_from_a_running_pod_makes_it_not_missed() {
    let mut cluster = SimulatedCluster::with(&[]);
    let mut marked = running("a", "07:00", &json!({}));
    let Object::Pod(value) = &mut marked else {
        unreachable!()
    };
    value["metadata"]["labels"] = json!({"tokenscope.io/reviewed": "granted"});
    cluster.at("07:00").put(&marked);
    let before = cluster.found();
    cluster.at("09:00").put(&running("a", "07:00", &json!({})));
    assert_eq!((before.0, cluster.found()), (1, (0, 1, 0)));
}

#[test]
fn f05_a_pod_that_was_reviewed_and_given_nothing_is_not_missed_although_the_policy_is_older() {
    for mark in ["untouched", "holds-nothing", "asks-nothing"] {
        let mut cluster = SimulatedCluster::with(&[]);
        let mut marked = running("a", "07:00", &json!({}));
        let Object::Pod(value) = &mut marked else {
            unreachable!()
        };
        value["metadata"]["labels"] = json!({"tokenscope.io/reviewed": mark});
        cluster.at("07:00").put(&marked);
        assert_eq!(cluster.found(), (0, 1, 0), "{mark}");
        assert_eq!(cluster.reason(), "OutdatedPods", "{mark}");
        cluster.put(&running("b", "07:00", &json!({})));
        assert_eq!(cluster.found(), (1, 1, 1), "{mark}: another one that nobody reviewed");
    }
}

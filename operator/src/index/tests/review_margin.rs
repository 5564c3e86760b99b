//! A pod is created some time after its review, so what is younger than that time proves nothing (F5 of e2e/tests/cases).

use super::simulated_cluster::*;
use super::*;

/// A moment of seven o'clock.
fn at_second(second: i64) -> Timestamp {
    at("07:00") + SignedDuration::from_secs(second)
}

fn running_since(created: Timestamp) -> Object {
    let mut object = running("a", "07:00", &json!({}));
    if let Object::Pod(value) = &mut object {
        value["metadata"]["creationTimestamp"] = created.to_string().into();
        value["metadata"]["managedFields"][0]["time"] = created.to_string().into();
    }
    object
}

/// Found of a pod that is created so many seconds after something has changed.
fn found_after(
    mut cluster: SimulatedCluster,
    change: impl FnOnce(&mut SimulatedCluster),
    seconds: i64,
) -> ((i64, i64, usize), String) {
    cluster.test.now = at_second(0);
    change(&mut cluster);
    cluster.test.now = at_second(seconds);
    cluster.put(&running_since(at_second(seconds)));
    (cluster.found(), cluster.reason())
}

/// The API server takes the time of creation after all mutating webhooks have answered, and they take up to a minute together.
#[test]
fn f05_a_pod_whose_review_may_be_older_than_what_grants_it_a_role_may_be_missed_and_is_not_evicted() {
    type Change = fn(&mut SimulatedCluster);
    let without_role = || policy("orders", 1, &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    let asks = || account("02:00", &json!({"tokenscope.io/role-arn": ROLE}));
    let opted_out = || namespace(&json!({"tokenscope.io/inject": "false"}));
    let changes: [(&str, Vec<Object>, Change); 4] = [
        ("a policy's role", vec![without_role()], |cluster| {
            cluster.put(&policy("orders", 2, &default_role(ROLE)));
        }),
        ("an account's annotation", vec![without_role()], |cluster| {
            cluster.put(&account("02:00", &json!({"tokenscope.io/role-arn": ROLE})));
        }),
        ("a namespace's label", vec![opted_out()], |cluster| {
            cluster.put(&namespace(&json!({})));
        }),
        ("a boundary that went", vec![boundary(&json!({}))], |cluster| {
            cluster.delete(&boundary(&json!({})));
        }),
    ];
    let maybe = ((0, 1, 0), "MaybeMissedPods".to_owned());
    let missed = ((1, 0, 1), "MissedPods".to_owned());
    for (what, objects, change) in changes {
        for (seconds, expected) in [(1, &maybe), (30, &maybe), (120, &maybe), (121, &missed)] {
            let found = found_after(SimulatedCluster::with(&objects), change, seconds);
            assert_eq!(found, *expected, "{what}, {seconds} seconds before");
        }
    }
    // What was so before is not younger for it.
    let found = found_after(SimulatedCluster::with(&[without_role(), asks()]), |_| {}, 1);
    assert_eq!(found, missed);
}

#[test]
fn f05_a_pod_whose_review_may_be_older_than_a_windows_opening_or_another_policys_end_is_not_missed() {
    let mut in_hours = default_role(ROLE);
    in_hours["activeSchedule"] = json!({"cron": "0 7 * * *", "duration": "10h", "timeZone": "UTC"});
    let ending = json!({"subjects": [{}], "roles": {"default": OTHER_ROLE}, "expiresAt": at("07:00").to_string()});
    // It is open for a minute that begins and ends between the earliest moment of the review and the latest.
    let mut shortly = json!({"subjects": [{}], "roles": {"default": OTHER_ROLE}});
    shortly["activeSchedule"] = json!({"cron": "59 6 * * *", "duration": "1m", "timeZone": "UTC"});
    for (name, spec) in [("orders", in_hours), ("other", ending), ("other", shortly)] {
        for (seconds, expected) in [(30, (0, 1, 0)), (119, (0, 1, 0)), (122, (1, 0, 1))] {
            let (found, _) = found_after(SimulatedCluster::with(&[policy(name, 1, &spec)]), |_| {}, seconds);
            assert_eq!(found, expected, "{spec}, {seconds} seconds later");
        }
    }
}

/// Nobody reviews a pod of a namespace that is not there yet, so the namespace's labels have no need to be older than its first pods.
#[test]
fn f05_the_first_pod_of_a_new_namespace_is_missed_where_an_older_policy_of_the_cluster_grants_it_a_role() {
    for (relabelled, counts) in [(false, [1, 0, 1, 0]), (true, [1, 0, 0, 1])] {
        let grants = cluster_policy(
            "all",
            &json!({"namespaceSelector": {"matchLabels": {"team": "x"}}, "subjects": [{}], "roles": {"default": ROLE}}),
        );
        let mut cluster = SimulatedCluster::with(&[grants]);
        cluster.test.now = at_second(0);
        let bank = |team: &str| {
            let mut metadata = metadata("bank", "07:00");
            metadata["labels"] = json!({"team": team});
            Object::Namespace(json!({"metadata": metadata}))
        };
        cluster.put(&bank(if relabelled { "y" } else { "x" })).put(&bank("x"));
        let pod = super::pod("bank", "a", at_second(10), &json!({}));
        cluster.test.now = at_second(10);
        cluster.put(&Object::Pod(pod));
        assert_eq!(cluster.test.counts(&PolicyName::cluster("all")), counts, "{relabelled}");
    }
}

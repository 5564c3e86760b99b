//! Which pods may be evicted, and what nobody can make the operator evict.

use super::*;

fn owned(mut pod: Value) -> Value {
    let controller =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders", "uid": "rs", "controller": true});
    pod["metadata"]["ownerReferences"] = json!([controller]);
    pod
}

impl Test {
    fn put(&mut self, pod: Value) {
        self.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(pod).unwrap())));
        self.reassess();
    }

    fn findings(&self) -> Vec<(&str, &Cause, bool)> {
        let findings = self.index.findings();
        findings
            .map(|((_, pod), finding)| (&**pod, &finding.cause, finding.evictable))
            .collect()
    }

    /// An injected pod with a controller, whose record says that it had these labels.
    fn granted_pod(&mut self, name: &str, labels: &Value) -> Value {
        self.injected_pod(name, at("07:00"));
        let object = self.last.clone();
        let mut object = owned(object);
        let mut record: Value = serde_json::from_str(
            object["metadata"]["annotations"]["tokenscope.io/grant"]
                .as_str()
                .unwrap(),
        )
        .unwrap();
        record["labels"] = labels.clone();
        object["metadata"]["annotations"]["tokenscope.io/grant"] = record.to_string().into();
        self.put(object.clone());
        object
    }
}

fn evicting(spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["onExpiry"] = "Evict".into();
    spec
}

#[test]
fn a_missed_pod_with_a_controller_is_evictable_if_the_policy_is_about_it_whatever_its_labels() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.put(owned(pod("shop", "a", at("07:00"), &json!({}))));
    assert_eq!(test.findings(), [("a", &Cause::Missed, true)]);
}

/// Else one that is never ready would keep the ready pods of somebody else's controller from being evicted.
#[test]
fn a_pod_of_another_namespace_is_no_sibling_whatever_controller_it_names() {
    let namespace = |name: &str| {
        let object = json!({"metadata": {"name": name}});
        IndexEvent::Namespace(Event::InitApply(serde_json::from_value(object).unwrap()))
    };
    let mut test = Test::listing(&[namespace("shop"), namespace("hostile")], at("00:30"));
    test.now = at("10:00");
    test.cluster_policy("orders", &default_role(ROLE));
    for namespace in ["shop", "hostile"] {
        test.put(owned(pod(namespace, "a", at("07:00"), &json!({}))));
    }
    assert_eq!(test.findings().len(), 2, "{:?}", test.findings());
    assert_eq!(test.index.siblings()[&("shop", "rs")].unready, 1);
}

#[test]
fn labels_that_are_written_on_a_running_pod_make_nobody_evict_it() {
    for selector in [
        json!({"matchLabels": {"app": "orders"}}),
        json!({"matchExpressions": [{"key": "old", "operator": "DoesNotExist"}]}),
    ] {
        let mut test = Test::new();
        let spec = json!({"subjects": [{"podSelector": selector}], "roles": {"default": ROLE}});
        test.policy("orders", &spec);
        let mut object = owned(pod("shop", "a", at("07:00"), &json!({})));
        object["metadata"]["labels"] = json!({"app": "orders"});
        test.put(object);
        assert_eq!(test.findings(), [("a", &Cause::Missed, false)], "{selector}");
    }
}

#[test]
fn an_annotation_that_is_written_on_a_running_pod_makes_nobody_evict_it() {
    let mut test = Test::new();
    test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    let asks = json!({"tokenscope.io/role-arn": ROLE});
    test.put(owned(pod("shop", "a", at("07:00"), &asks)));
    assert_eq!(test.findings(), [("a", &Cause::Missed, false)]);
}

#[test]
fn a_forged_mark_or_record_makes_no_pod_evictable_and_hides_none_that_is() {
    let mut test = Test::new();
    test.policy("orders", &default_role(ROLE));
    test.put(owned(pod("shop", "missed", at("07:00"), &json!({}))));
    let record = json!({"grants": [], "hash": "0", "labels": {}, "annotations": {}}).to_string();
    let older = json!({"grants": [], "hash": "0"}).to_string();
    for (number, annotations) in [
        json!({"tokenscope.io/reviewed": "granted"}),
        json!({"tokenscope.io/grant": record}),
        json!({"tokenscope.io/grant": older, "tokenscope.io/reviewed": "granted"}),
    ]
    .iter()
    .enumerate()
    {
        test.put(pod("shop", &format!("forged-{number}"), at("09:59"), annotations));
    }
    let evictable: Vec<_> = test
        .findings()
        .into_iter()
        .filter(|(_, _, evictable)| *evictable)
        .collect();
    assert_eq!(evictable.len(), 3, "{evictable:?}");
    assert!(evictable.iter().any(|(name, ..)| *name == "missed"));
    assert!(
        evictable.iter().all(|(name, ..)| *name != "forged-2"),
        "a record as older versions wrote it is judged as they did, and decides no eviction"
    );
}

#[test]
fn pods_of_a_policy_that_is_over_are_found_if_it_says_so_and_only_then() {
    let over = [
        json!({"expiresAt": at("09:00").to_string()}),
        json!({"disabled": true}),
        json!({"activeSchedule": {"cron": "0 20 * * *", "duration": "1h", "timeZone": "UTC"}}),
    ];
    for change in over {
        for (spec, is_found) in [(default_role(ROLE), false), (evicting(&default_role(ROLE)), true)] {
            let mut test = Test::new();
            let policy = test.policy("orders", &spec);
            test.granted_pod("a", &json!({"app": "orders"}));
            assert_eq!(test.findings(), []);
            let mut spec = spec;
            let (key, value) = change.as_object().unwrap().iter().next().unwrap();
            spec[key] = value.clone();
            test.policy_object("orders", 2, &spec);
            test.reassess();
            let cause = Cause::Expired(policy);
            let expected = if is_found { vec![("a", &cause, true)] } else { vec![] };
            assert_eq!(test.findings(), expected, "{change}");
        }
    }
}

#[test]
fn a_pod_stays_if_another_policy_grants_the_same_and_goes_if_it_grants_something_else() {
    for (role, stays) in [(ROLE, true), (OTHER_ROLE, false)] {
        let mut test = Test::new();
        let spec = evicting(&default_role(ROLE));
        test.policy("orders", &spec);
        test.granted_pod("a", &json!({"app": "orders"}));
        let mut over = spec.clone();
        over["disabled"] = true.into();
        test.policy_object("orders", 2, &over);
        test.policy("other", &default_role(role));
        test.reassess();
        assert_eq!(test.findings().is_empty(), stays, "{role}");
    }
}

#[test]
fn a_record_that_nothing_proves_makes_nobody_evict_the_pod_of_an_expired_policy() {
    let mut test = Test::new();
    let mut spec = evicting(&default_role(ROLE));
    test.policy("orders", &spec);
    let mut object = test.granted_pod("a", &json!({"app": "orders"}));
    object["metadata"]["labels"] = json!({"app": "orders"});
    object["metadata"]["annotations"]["tokenscope.io/reviewed"] = "granted".into();
    test.put(object);
    spec["disabled"] = true.into();
    test.policy_object("orders", 2, &spec);
    test.reassess();
    assert_eq!(test.findings(), []);
}

#[test]
fn a_policy_whose_eviction_the_installation_does_not_allow_says_which_value_does() {
    let mut test = Test::new();
    let policy = test.policy("orders", &evicting(&default_role(ROLE)));
    let message = test.ready_message(&policy);
    assert!(message.contains("operator.evictExpired to true"), "{message}");
    test.index.installation.evicts_expired = true;
    test.index.enqueue_all_statuses();
    let message = test.ready_message(&policy);
    assert!(!message.contains("evictExpired"), "{message}");
}

#[test]
fn drift_decides_from_the_labels_and_annotations_at_admission() {
    let mut test = Test::new();
    let spec = json!({
        "subjects": [{"serviceAccounts": ["orders"], "podSelector": {"matchLabels": {"app": "orders"}}}],
        "roles": {"default": ROLE},
    });
    let without = json!({"subjects": [{"serviceAccounts": ["orders"]}], "roles": {"default": ROLE}});
    let policy = test.policy("orders", &without);
    let mut object = test.granted_pod("a", &json!({"app": "orders"}));
    test.policy_object("orders", 2, &spec);
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);

    object["metadata"]["labels"] = json!({"app": "carts", "tokenscope.io/reviewed": "granted"});
    object["metadata"]["annotations"]["tokenscope.io/role-arn"] = OTHER_ROLE.into();
    test.put(object);
    assert_eq!(
        test.counts(&policy),
        [1, 1, 0, 0],
        "what the running pod says now does not count"
    );
}

#[test]
fn a_pod_whose_service_account_has_changed_is_outdated_and_stays_while_a_policy_gives_it_the_same_by_its_record() {
    for stays in [true, false] {
        let mut test = Test::new();
        let allowed = json!({"subjects": [{}], "roles": {"allowed": [ROLE]}});
        let policy = test.policy("orders", &evicting(&allowed));
        test.account("orders", ROLE, at("02:00"));
        let mut object = test.granted_pod("a", &json!({"app": "orders"}));
        if stays {
            let grant = &mut object["metadata"]["annotations"]["tokenscope.io/grant"];
            let mut record: Value = serde_json::from_str(grant.as_str().unwrap()).unwrap();
            record["service_account_annotations"] = json!({"tokenscope.io/role-arn": ROLE});
            *grant = record.to_string().into();
            test.put(object);
        }
        assert_eq!(test.counts(&policy), [1, 1, 0, 0]);

        let account = json!({"metadata": {"name": "orders", "namespace": "shop"}});
        test.apply(IndexEvent::ServiceAccount(Event::Apply(
            serde_json::from_value(account).unwrap(),
        )));
        test.reassess();
        assert_eq!(test.counts(&policy)[1..], [0, 0, 1], "a restart would change it");
        assert_eq!(test.findings(), [], "and that is no reason to restart it");

        let mut over = evicting(&allowed);
        over["disabled"] = true.into();
        test.policy_object("orders", 2, &over);
        let other = test.policy("other", &allowed);
        test.reassess();
        assert_eq!(
            test.findings().is_empty(),
            stays,
            "the issuer goes on with it by the record alone"
        );
        test.delete_policy(&other);
        test.reassess();
        assert_eq!(test.findings(), [("a", &Cause::Expired(policy.clone()), true)]);
    }
}

#[test]
fn a_pod_whose_mark_does_not_say_granted_has_no_record() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let mut object = test.granted_pod("a", &json!({"app": "orders"}));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    for mark in ["untouched", "refused", "nonsense"] {
        object["metadata"]["labels"]["tokenscope.io/reviewed"] = mark.into();
        test.put(object.clone());
        assert_eq!(test.counts(&policy)[1], 0, "{mark}");
    }
}

#[test]
fn a_record_of_the_previous_version_is_judged_as_before() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let mut object = test.granted_pod("a", &json!({}));
    let annotations = &mut object["metadata"]["annotations"];
    let mut record: Value = serde_json::from_str(annotations["tokenscope.io/grant"].as_str().unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("labels");
    record.as_object_mut().unwrap().remove("annotations");
    annotations["tokenscope.io/grant"] = record.to_string().into();
    object["metadata"]["labels"] = json!({"app": "orders"});
    for mark in [json!("granted"), Value::Null] {
        if !mark.is_null() {
            object["metadata"]["annotations"]["tokenscope.io/reviewed"] = mark;
        }
        test.put(object.clone());
        assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    }
}

//! Cases that people who do this job met elsewhere (e2e/tests/cases), as far as the index decides them.

use super::*;

/// What changes about a pod's surroundings.
type Change = dyn Fn(&mut Test);

impl Test {
    fn labelled_namespace(&mut self, name: &str, labels: &Value, entries: &Value) {
        let object = json!({"metadata": {
            "name": name, "labels": labels, "creationTimestamp": at("01:00").to_string(), "managedFields": entries,
        }});
        self.apply(IndexEvent::Namespace(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
    }

    fn account_with(&mut self, annotations: &Value, entries: &Value) {
        let object = json!({"metadata": {
            "name": "orders", "namespace": "shop", "creationTimestamp": at("01:00").to_string(),
            "annotations": annotations, "managedFields": entries,
        }});
        self.apply(IndexEvent::ServiceAccount(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
    }
}

/// An entry of managed fields that owns a label.
fn label_entry(key: &str, time: &str) -> Value {
    json!({"manager": "kubectl-label", "operation": "Update", "time": at(time).to_string(),
        "fieldsV1": {"f:metadata": {"f:labels": {format!("f:{key}"): {}}}}})
}

pub(super) fn selecting(selector: &Value) -> Value {
    json!({"namespaceSelector": selector, "subjects": [{}], "roles": {"default": ROLE}})
}

#[test]
fn f05_a_label_of_the_namespace_that_is_younger_than_the_pod_makes_it_outdated() {
    let in_data = json!({"matchLabels": {"team": "data"}});
    let not_in_old = json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["old"]}]});
    let absent = json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]});
    for (selector, before, after) in [
        (&in_data, json!({}), json!({"team": "data"})),
        (&in_data, json!({"team": "old"}), json!({"team": "data"})),
        (&not_in_old, json!({"team": "old"}), json!({})),
        (&absent, json!({"team": "old"}), json!({})),
    ] {
        let mut test = Test::new();
        let policy = test.cluster_policy("data", &selecting(selector));
        test.labelled_namespace("shop", &before, &json!([]));
        test.pod("a", at("07:00"), &json!({}));
        assert_eq!(test.counts(&policy), [0; 4]);
        test.labelled_namespace("shop", &after, &json!([label_entry("team", "10:00")]));
        assert_eq!(test.counts(&policy), [1, 0, 0, 1], "{selector}");
        test.pod("later", at("10:03"), &json!({}));
        assert_eq!(test.counts(&policy), [2, 0, 1, 1], "{selector}");
    }
}

#[test]
fn f05_an_operator_that_starts_later_takes_hints_of_the_age_of_a_label_from_its_writers() {
    let selector = json!({"matchLabels": {"team": "data"}});
    for (entries, reason) in [
        (json!([label_entry("team", "06:30")]), "MaybeMissedPods"),
        (json!([label_entry("team", "08:00")]), "OutdatedPods"),
        (
            json!([label_entry("team", "06:30"), label_entry("team", "08:00")]),
            "OutdatedPods",
        ),
        // Nobody owns it, so that its age is not known.
        (json!([label_entry("other", "06:30")]), "OutdatedPods"),
        (json!([]), "OutdatedPods"),
    ] {
        let shop = json!({"metadata": {
            "name": "shop", "labels": {"team": "data"}, "creationTimestamp": at("01:00").to_string(), "managedFields": entries,
        }});
        let object = pod("shop", "a", at("07:00"), &json!({}));
        let lists = [
            IndexEvent::Namespace(Event::InitApply(serde_json::from_value(shop).unwrap())),
            IndexEvent::Pod(Event::InitApply(serde_json::from_value(object).unwrap())),
        ];
        let mut test = Test::listing(&lists, at("10:00"));
        let policy = test.cluster_policy("data", &selecting(&selector));
        assert_eq!(test.counts(&policy), [1, 0, 0, 1], "{entries}");
        assert_eq!(test.ready_reason(&policy), reason, "{entries}");
    }
}

#[test]
fn f05_the_label_with_the_namespaces_name_is_as_old_as_the_namespace() {
    let mut test = Test::new();
    let selector = json!({"matchLabels": {"kubernetes.io/metadata.name": "shop"}});
    let policy = test.cluster_policy("shop", &selecting(&selector));
    test.index.namespaces.remove("", "shop");
    test.labelled_namespace("shop", &json!({"kubernetes.io/metadata.name": "shop"}), &json!([]));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [1, 0, 1, 0]);
}

#[test]
fn f05_a_change_of_the_service_account_makes_older_pods_outdated_whichever_way_it_was_written() {
    let role = json!({"tokenscope.io/role-arn": ROLE});
    let opted_out = json!({"tokenscope.io/inject": "false"});
    let write = |annotations: Value, entries: Value| move |test: &mut Test| test.account_with(&annotations, &entries);
    let stripped = write(role.clone(), json!([]));
    let unowned = write(
        role,
        json!([{"manager": "a", "operation": "Apply", "time": at("02:00").to_string(), "fieldsV1": {"f:metadata": {"f:labels": {}}}}]),
    );
    for change in [&stripped as &Change, &unowned] {
        let mut test = Test::new();
        let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
        change(&mut test);
        test.pod("a", at("07:00"), &json!({}));
        assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
    }

    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    test.account_with(&opted_out, &json!([]));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [0; 4]);
    test.account_with(&json!({}), &json!([]));
    assert_eq!(
        test.counts(&policy),
        [1, 0, 0, 1],
        "it opted out when the pod was created"
    );
}

#[test]
fn f05_an_annotation_or_label_that_was_written_on_the_running_pod_makes_it_outdated() {
    let asks = json!({"tokenscope.io/role-arn": ROLE});
    let mut test = Test::new();
    let policy = test.policy("orders", &json!({"subjects": [{}], "roles": {"allowed": [ROLE]}}));
    test.pod("a", at("07:00"), &json!({}));
    let mut annotated = pod("shop", "a", at("07:00"), &asks);
    annotated["metadata"]["managedFields"] = json!([
        made_by("kubectl-create", at("07:00"), &json!({})),
        {"manager": "kubectl-annotate", "operation": "Update", "time": at("07:00").to_string(),
         "fieldsV1": {"f:metadata": {"f:annotations": {"f:tokenscope.io/role-arn": {}}}}},
    ]);
    test.apply(IndexEvent::Pod(Event::Apply(
        serde_json::from_value(annotated).unwrap(),
    )));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
    test.pod("b", at("07:00"), &asks);
    assert_eq!(test.counts(&policy), [2, 0, 1, 1]);

    let mut test = Test::new();
    let spec = json!({"subjects": [{"podSelector": {"matchLabels": {"late": "yes"}}}], "roles": {"default": ROLE}});
    let policy = test.policy("orders", &spec);
    test.pod("a", at("07:00"), &json!({}));
    let mut labelled = pod("shop", "a", at("07:00"), &json!({}));
    labelled["metadata"]["labels"] = json!({"late": "yes"});
    test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(labelled).unwrap())));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
    assert_eq!(test.index.findings().count(), 0);
}

#[test]
fn f05_a_boundary_that_went_after_the_pod_was_created_makes_it_outdated() {
    let mut test = Test::new();
    let policy = test.policy("orders", &default_role(ROLE));
    let boundary = || -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopeBoundary", "metadata": {"name": "core"},
            "spec": {"roles": ["arn:aws:iam::111122223333:role/none"]},
        }))
        .unwrap()
    };
    test.apply(IndexEvent::Boundary(Event::Apply(boundary())));
    test.pod("a", at("07:00"), &json!({}));
    assert_eq!(test.counts(&policy), [0; 4]);
    test.apply(IndexEvent::Boundary(Event::Delete(boundary())));
    assert_eq!(test.counts(&policy), [1, 0, 0, 1]);
}

#[test]
fn pods_without_a_mark_of_a_namespace_that_is_never_denied_may_be_missed_and_nobody_evicts_or_reports_them() {
    let settings = |never_denied: &[&str]| Settings {
        never_denied: never_denied.iter().map(|name| (*name).into()).collect(),
        ..Settings::default()
    };
    for (settings, missed, outdated) in [(settings(&[]), 1, 0), (settings(&["kube-system"]), 0, 1)] {
        let mut test = Test::with(settings);
        let policy = test.cluster_policy("all", &json!({"subjects": [{}], "roles": {"default": ROLE}}));
        test.namespace("kube-system", &json!({}));
        let object = pod("kube-system", "ebs", at("07:00"), &json!({}));
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        assert_eq!(test.counts(&policy), [1, 0, missed, outdated]);
        let reason = ["MaybeMissedPods", "MissedPods"][usize::from(missed == 1)];
        assert_eq!(test.ready_reason(&policy), reason);
        assert_eq!(test.index.findings().count() as i64, missed);
    }
}

#[test]
fn a_pod_that_asks_in_vain_where_pods_are_never_denied_is_as_a_review_leaves_it() {
    let mut test = Test::new();
    for (namespace, totals) in [("kube-system", [0; 4]), ("shop", [1, 0, 1, 0])] {
        test.namespace(namespace, &json!({}));
        let object = pod(namespace, "asks", at("07:00"), &json!({"tokenscope.io/role-arn": ROLE}));
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        test.reassess();
        assert_eq!(test.totals(), totals, "{namespace}");
    }
}

#[test]
fn f04_a_cluster_policy_trusts_the_namespaces_that_it_selects_and_no_other() {
    let mut test = Test::new();
    let spec =
        json!({"namespaceSelector": {"matchLabels": {"team": "a"}}, "subjects": [{}], "roles": {"default": ROLE}});
    let policy = test.cluster_policy("all", &spec);
    assert_eq!(test.status(&policy).trust_policies, []);
    let message = test.ready_message(&policy);
    assert!(message.contains("selects no namespace now"), "{message}");

    test.namespace("web", &json!({"team": "a"}));
    test.namespace("out", &json!({"team": "a", "tokenscope.io/inject": "false"}));
    test.namespace("tokenscope-system", &json!({"team": "a"}));
    let trust = test.status(&policy).trust_policies;
    assert!(
        trust[0].document.contains("system:serviceaccount:web:*"),
        "{}",
        trust[0].document
    );
    assert!(!trust[0].document.contains("out") && !trust[0].document.contains("tokenscope-system"));
    assert!(trust[0].notes[0].contains("selects now"), "{:?}", trust[0].notes);
}

#[test]
fn f13_an_issuer_that_is_not_public_gives_no_document() {
    for issuer in [
        "https://kubernetes.default.svc.cluster.local",
        "https://kubernetes.default.svc.k8s.example.com",
        "https://10.0.0.1:6443",
        "https://localhost",
    ] {
        let mut test = Test::new();
        test.apply(IndexEvent::Issuer(Issuer::Known(issuer.into())));
        let policy = test.policy("orders", &default_role(ROLE));
        assert_eq!(test.status(&policy).trust_policies, []);
        let message = test.ready_message(&policy);
        assert!(
            message.contains("AWS can't reach it") && message.contains("docs/self-hosted.md"),
            "{message}"
        );
    }
}

#[test]
fn f13_an_issuer_that_iam_makes_no_provider_of_gives_no_document() {
    let long = format!("https://oidc.example.com/{}", "a".repeat(231));
    for (issuer, what) in [
        ("https://k8s.example.com:6443", "a port"),
        ("https://oidc.example.com:443/id/1", "a port"),
        ("https://[2606:4700::1111]:6443", "a port"),
        ("https://oidc.example.com/id?cluster=1", "a query"),
        ("https://oidc.example.com/id#1", "a query or a fragment"),
        ("https://ann@oidc.example.com", "a user name"),
        (&long, "more than 255 characters"),
    ] {
        let mut test = Test::new();
        test.apply(IndexEvent::Issuer(Issuer::Known(issuer.into())));
        let policy = test.policy("orders", &default_role(ROLE));
        assert_eq!(test.status(&policy).trust_policies, [], "{issuer}");
        let message = test.ready_message(&policy);
        assert!(
            message.contains(what) && message.contains("docs/self-hosted.md"),
            "{message}"
        );
    }
    for issuer in [
        &long[..255],
        "https://[2606:4700::1111]/id",
        "https://oidc.example.com/a:b",
    ] {
        let mut test = Test::new();
        test.apply(IndexEvent::Issuer(Issuer::Known(issuer.into())));
        let policy = test.policy("orders", &default_role(ROLE));
        assert_eq!(test.status(&policy).trust_policies.len(), 1, "{issuer}");
    }
}

#[test]
fn f17_a_policy_that_is_disabled_or_over_has_no_document() {
    for change in [json!({"disabled": true}), json!({"expiresAt": at("09:00").to_string()})] {
        let mut test = Test::new();
        let mut spec = default_role(ROLE);
        let (key, value) = change.as_object().unwrap().iter().next().unwrap();
        spec[key] = value.clone();
        let policy = test.policy("orders", &spec);
        assert_eq!(test.status(&policy).trust_policies, [], "{change}");
        assert!(test.ready_message(&policy).contains("grants nothing"), "{change}");
    }
}

#[test]
fn f03_several_audiences_without_a_default_are_not_accepted() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["audiences"] = json!({"allowed": ["sts.amazonaws.com.cn", "other"]});
    let policy = test.policy("orders", &spec);
    assert_eq!(test.reasons(&policy), ["Invalid", "Unusable", "NotAccepted"]);
    let status = test.status(&policy);
    assert_eq!(status.trust_policies, []);
    let accepted = status
        .conditions
        .iter()
        .find(|found| found.type_ == "Accepted")
        .unwrap();
    assert!(
        accepted.message.contains("spec.audiences.default: is needed")
            && accepted.message.contains("name the one of pods"),
        "{}",
        accepted.message
    );
}

#[test]
fn f12_a_session_name_that_can_never_fit_is_told_in_the_status() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["aws"] = json!({"roleSessionName": format!("{}-${{pod.labels['a']}}", "x".repeat(64))});
    let policy = test.policy("orders", &spec);
    let message = test.ready_message(&policy);
    assert!(
        message.contains("spec.aws.roleSessionName"),
        "{message} {:?}",
        test.reasons(&policy)
    );
}

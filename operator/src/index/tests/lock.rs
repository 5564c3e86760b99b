//! Pods and CSI drivers that hold tokens of locked audiences.

use super::*;

fn holder(name: &str, volume: &Value) -> Value {
    let mut object = pod("shop", name, at("07:00"), &json!({}));
    object["spec"]["volumes"] = json!([volume]);
    object
}

fn projected(audience: &str) -> Value {
    json!({"name": "token", "projected": {"sources": [{"serviceAccountToken": {"audience": audience, "path": "t", "expirationSeconds": 600}}]}})
}

impl Test {
    fn hold(&mut self, name: &str, volume: &Value) {
        let object = serde_json::from_value(holder(name, volume)).unwrap();
        self.apply(IndexEvent::Pod(Event::Apply(object)));
        self.reassess();
    }

    fn driver(&mut self, name: &str, audience: &str) {
        let object = json!({"metadata": {"name": name}, "spec": {"tokenRequests": [{"audience": audience}]}});
        self.apply(IndexEvent::CsiDriver(Event::Apply(
            serde_json::from_value(object).unwrap(),
        )));
        self.reassess();
    }
}

#[test]
fn pods_with_a_locked_token_that_no_policy_grants_are_counted_and_named_in_their_namespace() {
    let mut test = Test::new();
    let policy = test.policy(
        "other",
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"default": ROLE}}),
    );
    let cluster = test.cluster_policy(
        "all",
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"default": ROLE}}),
    );
    for number in 0..7 {
        test.hold(&format!("pod-{number}"), &projected("sts.amazonaws.com"));
    }
    test.hold("vault", &projected("vault"));
    assert_eq!(test.index.pods_with_ungranted_token(), 7);
    let status = test.status(&policy);
    assert_eq!(status.ungranted_token_pods, Some(7));
    assert_eq!(
        status.ungranted_token_pod_names,
        ["pod-0", "pod-1", "pod-2", "pod-3", "pod-4"]
    );
    assert_eq!(test.status(&cluster).ungranted_token_pods, None);

    let gone = serde_json::from_value(holder("pod-0", &projected("sts.amazonaws.com"))).unwrap();
    test.apply(IndexEvent::Pod(Event::Delete(gone)));
    assert_eq!(test.status(&policy).ungranted_token_pods, Some(6));
    test.policy("orders", &default_role(ROLE));
    test.reassess();
    assert_eq!(test.index.pods_with_ungranted_token(), 0, "now a policy grants it");
    assert_eq!(test.status(&policy).ungranted_token_pods, Some(0));
}

#[test]
fn a_lock_that_is_off_says_nothing() {
    let mut settings = Settings::default();
    settings.lock.mode = LockMode::Off;
    let mut test = Test::with(settings);
    test.hold("a", &projected("sts.amazonaws.com"));
    test.driver("secrets", "sts.amazonaws.com");
    assert_eq!(test.index.pods_with_ungranted_token(), 0);
    assert_eq!(test.index.csi_drivers_with_locked_tokens().count(), 0);
}

#[test]
fn csi_drivers_with_locked_tokens_are_named_and_their_volumes_hold_tokens() {
    let mut test = Test::new();
    let policy = test.policy(
        "other",
        &json!({"subjects": [{"serviceAccounts": ["x"]}], "roles": {"default": ROLE}}),
    );
    test.hold("a", &json!({"name": "v", "csi": {"driver": "secrets"}}));
    test.driver("vault", "vault");
    assert_eq!(test.index.pods_with_ungranted_token(), 0);
    test.driver("secrets", "sts.amazonaws.com");
    assert_eq!(test.index.pods_with_ungranted_token(), 1);
    assert_eq!(test.status(&policy).locked_token_csi_drivers, ["secrets"]);
    test.driver("secrets", "vault");
    assert_eq!(test.index.pods_with_ungranted_token(), 0);
    assert_eq!(test.status(&policy).locked_token_csi_drivers, [""; 0]);
}

#[test]
fn a_volume_named_like_the_webhooks_own_is_left_out_only_with_a_proven_record() {
    let older = json!({"grants": [], "hash": "0"}).to_string();
    let proven = json!({"grants": [], "hash": "0", "labels": {}, "annotations": {}}).to_string();
    let first = "tokenscope-aws-token";
    for (name, record, mark, ungranted) in [
        (first, &older, None, 1),
        (first, &proven, None, 1),
        (first, &proven, Some("granted"), 0),
        // The volume of a further audience.
        ("tokenscope-aws-token-0123456789abcdef", &proven, Some("granted"), 0),
        ("tokenscope-aws-token-0123456789abcdef", &proven, None, 1),
        ("tokenscope-aws-token-mine", &proven, Some("granted"), 1),
        // The volume of a token for a third party.
        ("tokenscope-outbound-0123456789abcdef", &proven, Some("granted"), 0),
        ("tokenscope-outbound-0123456789abcdef", &proven, None, 1),
        ("tokenscope-outbound-mine", &proven, Some("granted"), 1),
    ] {
        let mut test = Test::new();
        let mut volume = projected("sts.amazonaws.com");
        volume["name"] = name.into();
        let mut object = holder("a", &volume);
        object["metadata"]["annotations"] = json!({"tokenscope.io/grant": record});
        object["metadata"]["labels"] = json!({"tokenscope.io/reviewed": mark});
        if mark.is_none() {
            object["metadata"]["labels"] = json!({});
        }
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        test.reassess();
        assert_eq!(test.index.pods_with_ungranted_token(), ungranted, "{record} {mark:?}");
    }
}

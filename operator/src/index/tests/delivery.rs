//! Policies that deliver by an AWS config file.

use super::*;
use tokenscope_core::hash_of_texts;

fn by_file(region: Option<&str>) -> Value {
    let mut spec = default_role(ROLE);
    spec["delivery"] = json!({"type": "Profile", "profile": {"profiles": [{"name": "other", "region": "us-east-1", "roleArn": OTHER_ROLE}]}});
    spec["aws"] = json!({"region": region, "roleChain": [{"roleArn": "arn:aws:iam::444455556666:role/target", "externalId": "e2"}]});
    spec
}

/// A pod with the record of a writer, and with such an init container.
fn pod_with_writer(test: &mut Test, name: &str, writer: Option<&Value>) {
    test.injected_pod(name, at("07:00"));
    let mut object = test.last.clone();
    let grant = &mut object["metadata"]["annotations"]["tokenscope.io/grant"];
    let mut record: Value = serde_json::from_str(grant.as_str().unwrap()).unwrap();
    record["config_writer"] = json!(hash_of_texts(["write", "/config", "text"]));
    *grant = json!(record.to_string());
    object["spec"]["initContainers"] = writer.into_iter().cloned().collect();
    test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
}

fn writer() -> Value {
    let image = Settings::default().sidecar.image;
    json!({"name": "tokenscope-aws-config", "image": &*image, "args": ["write", "/config", "text"]})
}

#[test]
fn a_pod_whose_writer_is_gone_or_writes_something_else_is_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &by_file(Some("eu-central-1")));
    pod_with_writer(&mut test, "good", Some(&writer()));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);

    let changed = |member: &str, value: Value| {
        let mut writer = writer();
        writer[member] = value;
        writer
    };
    pod_with_writer(&mut test, "image", Some(&changed("image", json!("other"))));
    assert_eq!(test.counts(&policy), [2, 1, 0, 1]);
    let message = test.ready_message(&policy);
    assert!(
        message.contains("another init container than new ones get"),
        "{message}"
    );
    let lost = [
        None,
        Some(changed("args", json!(["write", "/config", "other"]))),
        Some(changed("args", json!(["write", "/config", "text", "/more", "text"]))),
        Some(changed("args", Value::Null)),
        Some(changed("command", json!(["/bin/sh"]))),
    ];
    for (number, writer) in lost.iter().enumerate() {
        pod_with_writer(&mut test, &format!("lost-{number}"), writer.as_ref());
    }
    assert_eq!(test.counts(&policy), [7, 1, 5, 1]);
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
}

#[test]
fn the_status_has_what_iam_must_say_about_all_roles_of_the_file() {
    let mut test = Test::new();
    let policy = test.policy("orders", &by_file(Some("eu-central-1")));
    let status = test.status(&policy);
    let trusted: Vec<&str> = status
        .trust_policies
        .iter()
        .map(|found| found.role_arn.as_str())
        .collect();
    assert_eq!(trusted, [ROLE, OTHER_ROLE], "those that are taken with the pod's token");
    let [first, target] = &*status.role_chain_policies else {
        panic!("{:?}", status.role_chain_policies)
    };
    assert_eq!((first.role_arn.as_str(), first.trust_policy.as_ref()), (ROLE, None));
    assert!(
        first
            .permission_policy
            .as_ref()
            .unwrap()
            .contains("444455556666:role/target")
    );
    assert_eq!(target.permission_policy, None);
    assert!(
        target
            .trust_policy
            .as_ref()
            .unwrap()
            .contains("\"sts:ExternalId\": \"e2\"")
    );

    let without = test.policy("without", &by_file(None));
    let status = test.status(&without);
    assert_eq!(test.reasons(&without)[0], "Invalid");
    assert!(status.trust_policies.is_empty() && status.role_chain_policies.is_empty());
}

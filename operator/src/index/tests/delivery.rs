//! Policies that deliver by an AWS config file.

use tokenscope_core::hash_of_texts;

use super::*;

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

#[test]
fn f17_a_role_that_no_config_file_can_have_is_trusted_by_no_document() {
    let odd = "arn:aws:iam::111122223333:role/a#b/orders";
    for (roles, trusted) in [
        (json!({"default": odd, "allowed": [odd, ROLE]}), vec![ROLE, OTHER_ROLE]),
        (json!({"default": odd}), vec![OTHER_ROLE]),
    ] {
        let mut test = Test::new();
        let mut spec = by_file(Some("eu-central-1"));
        spec["roles"] = roles;
        let policy = test.policy("orders", &spec);
        let status = test.status(&policy);
        let found: Vec<&str> = status.trust_policies.iter().map(|found| &*found.role_arn).collect();
        assert_eq!(found, trusted);
        for found in &status.role_chain_policies {
            let trusts = found
                .trust_policy
                .as_ref()
                .is_some_and(|document| document.contains(odd));
            assert!(found.role_arn != odd && !trusts, "{found:?}");
        }
        let message = test.ready_message(&policy);
        assert!(message.contains(&format!("No trust policy for {odd}")), "{message}");
    }
}

fn served(region: Option<&str>) -> Value {
    let mut spec = by_file(region);
    spec["delivery"] = json!({"type": "Endpoint"});
    spec["aws"]["sessionPolicy"] = json!({"inline": "{}"});
    spec
}

#[test]
fn a_pod_whose_credentials_another_sidecar_serves_is_outdated_and_one_without_its_sidecar_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &served(Some("eu-central-1")));
    let image: String = Settings::default().sidecar.endpoint_image.into();
    test.injected_pod_with("good", at("07:00"), Some(&image));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    let other: String = Settings::default().sidecar.issuer_image.into();
    test.injected_pod_with("old", at("07:00"), Some(&other));
    assert_eq!(test.counts(&policy), [2, 1, 0, 1]);
    let message = test.ready_message(&policy);
    assert!(message.contains("another sidecar than new ones get"), "{message}");

    test.injected_pod_with("lost", at("07:00"), Some(&image));
    let mut object = test.last.clone();
    object["spec"]["initContainers"] = json!([]);
    test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
    assert_eq!(test.counts(&policy), [3, 1, 1, 1]);
}

#[test]
fn a_pod_whose_sidecar_another_webhook_told_to_serve_something_else_is_missed() {
    let mut test = Test::new();
    let policy = test.policy("orders", &served(Some("eu-central-1")));
    let image: String = Settings::default().sidecar.endpoint_image.into();
    let put = |test: &mut Test, name: &str, recorded: Option<&str>, environment: Value| {
        test.injected_pod_with(name, at("07:00"), Some(&image));
        let mut object = test.last.clone();
        let grant = &mut object["metadata"]["annotations"]["tokenscope.io/grant"];
        let mut record: Value = serde_json::from_str(grant.as_str().unwrap()).unwrap();
        record["endpoint"] = recorded.map(|told| hash_of_texts([told])).into();
        *grant = json!(record.to_string());
        object["spec"]["initContainers"][0]["env"] = environment;
        test.apply(IndexEvent::Pod(Event::Apply(serde_json::from_value(object).unwrap())));
        test.counts(&policy)
    };
    let told = |value: &str| json!({"name": "TOKENSCOPE_ENDPOINT", "value": value});
    let (right, wrong) = (told("{\"port\": 1}"), told("{\"port\": 2}"));
    let recorded = Some("{\"port\": 1}");
    assert_eq!(put(&mut test, "good", recorded, json!([right])), [1, 1, 0, 0]);
    let counts = put(&mut test, "before-there-were-such-records", None, json!([wrong]));
    assert_eq!(counts, [2, 2, 0, 0]);
    let others = [
        json!([wrong]),
        json!([right, wrong]),
        json!([told("")]),
        json!([{"name": "TOKENSCOPE_ENDPOINT", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]),
        json!([]),
        Value::Null,
    ];
    for (number, environment) in (1..).zip(others) {
        let counts = put(&mut test, &format!("other-{number}"), recorded, environment.clone());
        assert_eq!(counts, [2 + number, 2, number, 0], "{environment}");
    }
    assert_eq!(test.reasons(&policy)[2], "MissedPods");
}

#[test]
fn a_pod_whose_sidecar_was_told_of_other_sessions_is_outdated() {
    let mut test = Test::new();
    let image: String = Settings::default().sidecar.endpoint_image.into();
    let changes: [(&str, Value); 4] = [
        ("sessionPolicy", json!({"inline": "{\"Version\": \"2012-10-17\"}"})),
        ("sts", json!({"regions": ["eu-west-1"]})),
        (
            "roleChain",
            json!([{"roleArn": "arn:aws:iam::444455556666:role/target", "externalId": "e3"}]),
        ),
        ("roleSessionName", json!("${pod.name}")),
    ];
    let policy = test.policy("orders", &served(Some("eu-central-1")));
    test.injected_pod_with("good", at("07:00"), Some(&image));
    assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    for (field, value) in changes {
        let mut changed = served(Some("eu-central-1"));
        changed["aws"][field] = value;
        test.policy("orders", &changed);
        assert_eq!(test.counts(&policy), [1, 0, 0, 1], "{field}");
        test.policy("orders", &served(Some("eu-central-1")));
        assert_eq!(test.counts(&policy), [1, 1, 0, 0]);
    }
}

#[test]
fn the_status_of_a_policy_that_serves_credentials_has_both_sides_of_each_step_or_says_that_it_has_no_region() {
    let mut test = Test::new();
    let policy = test.policy("orders", &served(Some("eu-central-1")));
    let status = test.status(&policy);
    let chained: Vec<&str> = status
        .role_chain_policies
        .iter()
        .map(|found| found.role_arn.as_str())
        .collect();
    assert_eq!(chained, [ROLE, "arn:aws:iam::444455556666:role/target"]);
    let [trust] = &*status.trust_policies else {
        panic!("{:?}", status.trust_policies)
    };
    assert_eq!(trust.role_arn, ROLE, "it is taken with the pod's token");
    assert!(
        trust.notes.join("; ").contains("can't express sessionPolicy"),
        "{:?}",
        trust.notes
    );

    let without = test.policy("without", &served(None));
    assert_eq!(test.reasons(&without)[0], "Invalid");
    let message = test.status(&without).conditions.remove(0).message;
    assert!(message.contains("delivery.type Endpoint needs a region"), "{message}");
}

#[test]
fn the_status_has_the_permission_that_a_role_needs_for_tokens_that_aws_signs() {
    let mut spec = served(Some("eu-central-1"));
    spec["outboundTokens"] = json!([
        {"name": "claude", "audience": "https://api.anthropic.com", "source": "AWS", "expirationSeconds": 900},
        {"name": "own", "audience": "b"},
    ]);
    let mut test = Test::new();
    let policy = test.policy("orders", &spec);
    let status = test.status(&policy);
    let [last] = &*status.outbound_token_policies else {
        panic!("{:?}", status.outbound_token_policies)
    };
    assert_eq!(last.role_arn, "arn:aws:iam::444455556666:role/target");
    let document: Value = serde_json::from_str(&last.permission_policy).unwrap();
    assert_eq!(
        document["Statement"],
        json!([{"Effect": "Allow", "Action": "sts:GetWebIdentityToken", "Resource": "*", "Condition": {
            "ForAllValues:StringEquals": {"sts:IdentityTokenAudience": "https://api.anthropic.com"},
            "StringEquals": {"sts:SigningAlgorithm": "RS256"},
            "NumericLessThanEquals": {"sts:DurationSeconds": "900"}}}])
    );
    assert!(
        last.notes.join("; ").contains("sessionPolicy narrows"),
        "{:?}",
        last.notes
    );

    spec["disabled"] = json!(true);
    let disabled = test.policy("disabled", &spec);
    assert!(test.status(&disabled).outbound_token_policies.is_empty());
}

#[test]
fn where_the_status_has_no_room_for_the_documents_of_all_roles_the_last_one_says_so() {
    let mut spec = served(Some("eu-central-1"));
    spec["aws"].as_object_mut().unwrap().remove("roleChain");
    let roles = (0..25).map(|number| format!("arn:aws:iam::111122223333:role/shop-{number}"));
    spec["roles"] = json!({"allowed": roles.collect::<Vec<_>>()});
    spec["outboundTokens"] = json!([{"name": "claude", "audience": "https://api.anthropic.com", "source": "AWS"}]);
    let mut test = Test::new();
    let policy = test.policy("orders", &spec);
    let documents = test.status(&policy).outbound_token_policies;
    assert_eq!(documents.len(), 20);
    let said = |index: usize| documents[index].notes.join("; ").contains("20 of 25 roles");
    assert!(said(19) && !said(18), "{documents:?}");
}

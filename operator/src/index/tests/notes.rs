//! What the status of a policy says beside its counts (e2e/tests/cases).

use super::cases::selecting;
use super::*;

#[test]
fn a02_a_label_of_a_namespace_without_effect_stands_in_the_status_of_its_policies() {
    let mut test = Test::new();
    let own = test.policy("orders", &default_role(ROLE));
    let all = test.cluster_policy("all", &json!({"subjects": [{}], "roles": {"default": ROLE}}));
    let of_data = test.cluster_policy("data", &selecting(&json!({"matchLabels": {"team": "data"}})));
    assert!(!test.ready_message(&own).contains("has no effect"));

    test.namespace("shop", &json!({"tokenscope.io/inject": "disabled"}));
    let expected = r#"Namespace shop: label tokenscope.io/inject of the namespace is "disabled" and has no effect"#;
    for policy in [&own, &all] {
        let message = test.ready_message(policy);
        assert!(message.contains(expected), "{message}");
    }
    assert!(!test.ready_message(&of_data).contains("has no effect"));
    test.namespace("shop", &json!({"tokenscope.io/injekt": "false"}));
    let message = test.ready_message(&own);
    assert!(
        message.contains("tokenscope.io/injekt of the namespace has no effect"),
        "{message}"
    );

    for number in 0..400 {
        test.namespace(&format!("n{number}"), &json!({"tokenscope.io/warn": "y".repeat(63)}));
    }
    let message = test.ready_message(&all);
    assert!(
        message.contains("and 253 more namespaces with such labels"),
        "{message}"
    );
    assert!(message.len() < 2000, "{}", message.len());

    test.namespace("shop", &json!({"tokenscope.io/inject": "true"}));
    assert!(!test.ready_message(&own).contains("has no effect"));
}

#[test]
fn a04_a_region_of_another_partition_than_the_roles_stands_in_the_status() {
    let in_china = "arn:aws-cn:iam::111122223333:role/app";
    for (roles, region, expected) in [
        (
            json!({"default": in_china}),
            Some("eu-central-1"),
            "spec.aws.region eu-central-1 is of partition aws, whose STS knows no role of partition aws-cn",
        ),
        (
            json!({"allowed": [in_china, ROLE]}),
            Some("cn-north-1"),
            "set spec.aws.region to a region of aws",
        ),
        (
            json!({"default": in_china}),
            None,
            "no region, so SDKs ask sts.amazonaws.com",
        ),
        (
            json!({"allowed": ["arn:aws-us-gov:iam::111122223333:role/*"]}),
            Some("us-east-1"),
            "partition aws-us-gov",
        ),
        (json!({"default": in_china}), Some("cn-north-1"), ""),
        (json!({"default": ROLE}), None, ""),
        (json!({"default": in_china}), Some("garage"), ""),
    ] {
        let mut test = Test::new();
        let mut spec = json!({"subjects": [{}], "roles": roles});
        if let Some(region) = region {
            spec["aws"] = json!({"region": region});
        }
        let policy = test.policy("orders", &spec);
        let message = test.ready_message(&policy);
        assert_eq!(message.contains("partition"), !expected.is_empty(), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(test.reasons(&policy)[0], "Valid");
    }
    let mut test = Test::with(Settings {
        default_region: Some("us-east-1".parse().unwrap()),
        ..Settings::default()
    });
    let policy = test.policy("orders", &default_role(in_china));
    let message = test.ready_message(&policy);
    assert!(
        message.contains("The installation's default region us-east-1 is of partition aws"),
        "{message}"
    );
}

#[test]
fn a04_a_region_that_is_nearly_one_of_aws_stands_in_the_status() {
    for (region, is_told) in [
        ("us-east1", true),
        ("eu-central", true),
        ("garage", false),
        ("us-east-1", false),
    ] {
        let mut test = Test::new();
        let mut spec = default_role(ROLE);
        spec["aws"] = json!({"region": region});
        let policy = test.policy("orders", &spec);
        let message = test.ready_message(&policy);
        let expected = format!("spec.aws.region {region} is not written as AWS writes regions");
        assert_eq!(message.contains(&expected), is_told, "{message}");
        assert_eq!(test.reasons(&policy)[0], "Valid");
    }
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["delivery"] = json!({"type": "Endpoint"});
    spec["aws"] = json!({"region": "eu-central-1", "sts": {"regions": ["eu-central-1", "us-east1"]}});
    let policy = test.policy("orders", &spec);
    let message = test.ready_message(&policy);
    assert!(
        message.contains("spec.aws.sts.regions has us-east1, which"),
        "{message}"
    );
}

#[test]
fn a04_the_region_of_a_profile_counts_for_the_role_that_the_profile_takes() {
    let in_china = "arn:aws-cn:iam::111122223333:role/app";
    for (region, role, expected) in [
        (
            "eu-central-1",
            Some(in_china),
            "whose STS knows no role of partition aws-cn",
        ),
        ("cn-north-1", Some(in_china), ""),
        ("cn-north-1", None, "whose STS knows no role of partition aws,"),
        ("eu-central-1", None, ""),
        (
            "us-east1",
            None,
            "has region us-east1, which is not written as AWS writes regions",
        ),
        ("garage", Some(in_china), ""),
    ] {
        let mut test = Test::new();
        let mut spec = default_role(ROLE);
        let mut other = json!({"name": "other", "region": region});
        if let Some(role) = role {
            other["roleArn"] = role.into();
        }
        let good = json!({"name": "good", "region": "eu-central-1"});
        spec["delivery"] = json!({"type": "Profile", "profile": {"profiles": [good, other]}});
        spec["aws"] = json!({"region": "eu-central-1"});
        let policy = test.policy("orders", &spec);
        let message = test.ready_message(&policy);
        assert_eq!(message.contains("Profile other of"), !expected.is_empty(), "{message}");
        assert!(
            message.contains(expected) && !message.contains("Profile good"),
            "{message}"
        );
        assert_eq!(test.reasons(&policy)[0], "Valid");
    }
}

#[test]
fn a04_a_stored_policy_with_a_zone_for_a_region_says_what_to_write_and_its_pods_are_refused_with_that() {
    let mut test = Test::new();
    let mut spec = default_role(ROLE);
    spec["aws"] = json!({"region": "eu-central-1a"});
    let policy = test.policy("orders", &spec);
    let expected = r#"spec.aws.region: "eu-central-1a" is a zone, which no SDK takes for a region: write its region, eu-central-1"#;
    let status = test.status(&policy);
    let accepted = status
        .conditions
        .iter()
        .find(|found| found.type_ == "Accepted")
        .unwrap();
    assert_eq!((&*accepted.reason, &*accepted.message), ("Invalid", expected));

    test.pod("a", at("07:00"), &json!({}));
    let kept = test.index.pods.value("shop", "a").unwrap();
    let Some(Decision::Denied(denied)) = test.index.decide("shop", kept, test.now) else {
        panic!("it is not refused");
    };
    assert!(denied.to_string().contains(expected), "{denied}");
}

#[test]
fn f12_a_session_name_that_no_service_account_or_namespace_of_the_policy_fits_is_told_in_the_status() {
    let long = "a".repeat(65);
    let selecting = json!({"matchLabels": {"kubernetes.io/metadata.name": "n".repeat(63)}});
    let chain = json!({"delivery": {"type": "Endpoint"}, "aws": {"region": "eu-central-1", "roleChain": [
        {"roleArn": OTHER_ROLE, "roleSessionName": "${serviceAccount}"},
    ]}});
    let of_pods = json!({"aws": {"roleSessionName": "${serviceAccount}"}});
    for (further, accounts, selector, expected) in [
        (
            &of_pods,
            json!([&long]),
            None,
            "spec.aws.roleSessionName has 65 characters or more",
        ),
        (&of_pods, json!([&long, "orders"]), None, ""),
        (&of_pods, json!(["*"]), None, ""),
        (&of_pods, json!([]), None, ""),
        (
            &json!({"aws": {"roleSessionName": "${namespace}-x"}}),
            json!([]),
            Some(&selecting),
            "spec.aws.roleSessionName has 65 characters or more",
        ),
        (
            &chain,
            json!([&long]),
            None,
            "roleSessionName of a role chain has 65 characters or more",
        ),
        (&chain, json!(["orders"]), None, ""),
    ] {
        let mut test = Test::new();
        let mut spec = further.clone();
        spec["subjects"] = json!([{"serviceAccounts": accounts}]);
        spec["roles"] = json!({"default": ROLE});
        let policy = match selector {
            None => test.policy("orders", &spec),
            Some(selector) => {
                spec["namespaceSelector"] = selector.clone();
                test.cluster_policy("orders", &spec)
            }
        };
        let message = test.ready_message(&policy);
        assert_eq!(message.contains("oleSessionName"), !expected.is_empty(), "{message}");
        assert!(message.contains(expected), "{message}");
        assert_eq!(test.reasons(&policy)[0], "Valid");
    }
}

#[test]
fn f04_a_cluster_policy_about_too_many_namespaces_says_how_many_there_may_be_and_what_to_do() {
    let mut test = Test::new();
    let without = test.cluster_policy("all", &json!({"subjects": [{}], "roles": {"default": ROLE}}));
    let by_label = test.cluster_policy("team", &selecting(&json!({"matchLabels": {"team": "a"}})));
    let names: Vec<String> = (0..130).map(|number| format!("n{number}")).collect();
    let named =
        json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": names}]});
    let named = test.cluster_policy("named", &selecting(&named));
    for name in &names {
        test.namespace(name, &json!({"team": "a"}));
    }
    for (policy, expected) in [
        (
            &without,
            "the policy has no spec.namespaceSelector, so it is about all 131 namespaces",
        ),
        (&by_label, "spec.namespaceSelector selects 130 namespaces"),
        (&named, "spec.namespaceSelector names 130 namespaces"),
    ] {
        assert_eq!(test.status(policy).trust_policies, []);
        let message = test.ready_message(policy);
        let limit = "a trust policy has to name each of them, and at most 100 have room: have spec.namespaceSelector select fewer";
        assert!(message.contains(expected) && message.contains(limit), "{message}");
    }
}

//! Reviews of pods that are written in ways which look right and aren't: each is told so. The cases are those of
//! `e2e/tests/cases/awkward.md`.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{ROLE, ReviewFixture, app, asking, plain};
use serde_json::{Value, json};
use tokenscope_core::Settings;
use tokenscope_webhook::metrics::ReviewOutcome;

const CHINESE_ROLE: &str = "arn:aws-cn:iam::111122223333:role/app";

fn with_annotation(key: &str, value: &str) -> Value {
    let mut pod = plain(app());
    pod["metadata"]["annotations"][key] = value.into();
    pod
}

/// The warnings of a review of a container with these variables that is granted a role.
fn warnings_of(environment: &Value, role: &str, region: Option<&str>) -> String {
    let fixture = ReviewFixture::with_policy(|policy| {
        policy.roles.allowed = vec![role.parse().unwrap()];
        policy.aws.region = region.map(|region| region.parse().unwrap());
    });
    let mut pod = asking(json!([{"name": "app", "env": environment}]));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = role.into();
    let reviewed = fixture.review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    reviewed.warnings()
}

#[test]
fn an_unknown_key_of_ours_is_warned_of_and_the_nearest_is_named() {
    let fixture = ReviewFixture::new();
    for key in [
        "tokenscope.io/rolearn",
        "Tokenscope.io/role-arn",
        "tokenscope.io/role-arn-of-app",
    ] {
        let reviewed = fixture.review(&with_annotation(key, ROLE));
        assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched, "{key}");
        let warnings = reviewed.warnings();
        assert!(
            warnings.contains(&format!("annotation {key} of the pod has no effect")),
            "{warnings}"
        );
        assert_eq!(
            warnings.contains("tokenscope.io/role-arn may be meant"),
            key != "tokenscope.io/role-arn-of-app",
            "{warnings}"
        );
    }
    assert_eq!(fixture.review(&with_annotation("example.org/a", "b")).warnings(), "");
}

#[test]
fn many_unknown_keys_are_few_warnings() {
    let mut pod = plain(app());
    for number in 0..1000 {
        pod["metadata"]["annotations"][format!("tokenscope.io/{number}{}", "k".repeat(50))] = "".into();
    }
    let warnings = ReviewFixture::new().review(&pod).warnings();
    assert_eq!(warnings.matches("tokenscope has no such key").count(), 4, "{warnings}");
}

#[test]
fn a_key_on_the_wrong_object_is_told_where_it_belongs() {
    let mut fixture = ReviewFixture::new();
    let mut pod = plain(app());
    pod["metadata"]["labels"]["tokenscope.io/inject"] = "false".into();
    let warnings = fixture.review(&pod).warnings();
    assert!(
        warnings.contains("label tokenscope.io/inject of the pod has no effect"),
        "{warnings}"
    );

    let pod = with_annotation("eks.amazonaws.com/role-arn", ROLE);
    assert_eq!(
        fixture.review(&pod).warnings(),
        "",
        "without EKS's annotations it is none of our business"
    );
    fixture.settings = Settings::eks_compatible();
    let warnings = fixture.review(&pod).warnings();
    assert!(
        warnings.contains("it is an annotation of the service account"),
        "{warnings}"
    );

    fixture.service_account = vec![("eks.amazonaws.com/skip-containers", "app".into())];
    let warnings = fixture.review(&plain(app())).warnings();
    assert!(warnings.contains("it is an annotation of the pod"), "{warnings}");
}

#[test]
fn a_namespace_label_with_another_value_than_true_or_false_is_warned_of() {
    for (key, value) in [
        ("tokenscope.io/inject", "disabled"),
        ("tokenscope.io/enforce", "yes"),
        ("tokenscope.io/required", "True"),
        ("tokenscope.io/audit", ""),
    ] {
        let mut fixture = ReviewFixture::new();
        fixture.namespace_labels = vec![(key, value.into())];
        let warnings = fixture.review(&plain(app())).warnings();
        let expected = format!("label {key} of the namespace is {value:?} and has no effect");
        assert!(warnings.contains(&expected), "{warnings}");
    }
    let mut fixture = ReviewFixture::new();
    fixture.namespace_labels = vec![("tokenscope.io/enforce", "false".into()), ("team", "yes".into())];
    assert_eq!(fixture.review(&plain(app())).warnings(), "");
}

#[test]
fn a_profile_or_files_of_other_credentials_are_warned_of() {
    for name in ["AWS_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let warnings = warnings_of(&json!([{"name": name, "value": "x"}]), ROLE, None);
        assert!(warnings.contains(&format!("container app sets {name}")), "{warnings}");
        assert_eq!(warnings_of(&json!([{"name": name, "value": ""}]), ROLE, None), "");
    }
    let from_elsewhere = json!([{"name": "AWS_PROFILE", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
    assert!(warnings_of(&from_elsewhere, ROLE, None).contains("AWS_PROFILE"));
}

#[test]
fn a_region_of_another_partition_than_the_roles_is_warned_of() {
    let none = json!([]);
    let warnings = warnings_of(&none, CHINESE_ROLE, Some("eu-central-1"));
    assert!(
        warnings.contains("region eu-central-1, whose STS knows no role of partition aws-cn"),
        "{warnings}"
    );
    let warnings = warnings_of(&json!([{"name": "AWS_REGION", "value": "us-gov-west-1"}]), ROLE, None);
    assert!(warnings.contains("knows no role of partition aws"), "{warnings}");
    let warnings = warnings_of(&none, CHINESE_ROLE, None);
    assert!(warnings.contains("has no region"), "{warnings}");

    assert_eq!(warnings_of(&none, CHINESE_ROLE, Some("cn-north-1")), "");
    assert_eq!(warnings_of(&none, ROLE, Some("eu-central-1")), "");
    assert_eq!(
        warnings_of(&none, ROLE, Some("default")),
        "",
        "stores of others have regions of their own"
    );
    assert_eq!(warnings_of(&none, ROLE, None), "");
    let by_reference = json!([{"name": "AWS_REGION", "value": "$(REGION)"}]);
    assert_eq!(warnings_of(&by_reference, CHINESE_ROLE, None), "");
}

#[test]
fn a_pod_that_only_windows_can_run_gets_a_windows_path() {
    let host_process = json!({"windowsOptions": {"hostProcess": true, "runAsUserName": "NT AUTHORITY\\SYSTEM"}});
    let not_linux = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "kubernetes.io/os", "operator": "NotIn", "values": ["linux"]}]},
    ]}}});
    for (field, value) in [("securityContext", host_process), ("affinity", not_linux)] {
        let mut pod = asking(app());
        pod["spec"][field] = value;
        let file = ReviewFixture::new()
            .review(&pod)
            .value("app", "AWS_WEB_IDENTITY_TOKEN_FILE");
        assert!(
            file.as_deref().is_some_and(|file| file.starts_with("C:\\")),
            "{field}: {file:?}"
        );
    }
}

#[test]
fn a_refusal_repeats_no_control_character() {
    let mut pod = asking(json!([{"name": "app"}]));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = ROLE.into();
    pod["metadata"]["annotations"]["tokenscope.io/containers"] = "\u{1b}]0;x\u{7}".into();
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Denied);
    let message = reviewed.message();
    assert!(message.contains("\\u{1b}]0;x\\u{7}"), "{message}");
    assert!(!message.contains(char::is_control), "{message}");
}

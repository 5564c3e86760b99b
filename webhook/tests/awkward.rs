//! Reviews of pods that are written in ways which look right and aren't: each is told so. The cases are those of
//! `e2e/tests/cases/awkward.md`.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{PULL_SECRET, ROLE, ReviewFixture, app, asking, plain, spiffe};
use serde_json::{Value, json};
use tokenscope_core::pod::SIDECAR;
use tokenscope_core::sidecar::Readiness;
use tokenscope_core::{Enforcement, Settings};
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

    let skipping = with_annotation("eks.amazonaws.com/skip-pod-identity-webhook", "true");
    let warnings = fixture.review(&skipping).warnings();
    assert!(warnings.contains("it is a label of the pod"), "{warnings}");
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
    let both =
        json!([{"name": "AWS_REGION", "value": "cn-north-1"}, {"name": "AWS_DEFAULT_REGION", "value": "us-east-1"}]);
    let warnings = warnings_of(&both, CHINESE_ROLE, None);
    assert!(warnings.contains("has region us-east-1, whose STS"), "{warnings}");
    let by_reference = json!([{"name": "AWS_REGION", "value": "$(REGION)"}]);
    assert_eq!(warnings_of(&by_reference, CHINESE_ROLE, None), "");
}

#[test]
fn a04_a_region_that_is_nearly_one_of_aws_is_warned_of() {
    for (own, of_policy) in [
        (Some("us-east1"), None),
        (None, Some("us-east1")),
        (Some("eu-central-1a"), Some("eu-central-1")),
    ] {
        let environment: Value = own
            .map(|own| json!({"name": "AWS_REGION", "value": own}))
            .into_iter()
            .collect();
        let warnings = warnings_of(&environment, ROLE, of_policy);
        let expected = format!(
            "container app has region {:?}, which is not written as AWS writes regions",
            own.or(of_policy).unwrap()
        );
        assert!(warnings.contains(&expected), "{warnings}");
    }
    for region in ["garage", "eu-central-1", "us-east-1-fips"] {
        assert_eq!(warnings_of(&json!([]), ROLE, Some(region)), "", "{region}");
    }
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

#[test]
fn keys_of_eks_crowd_no_warning_of_ours_out() {
    let mut fixture = ReviewFixture::new();
    fixture.settings = Settings::eks_compatible();
    let mut pod = with_annotation("tokenscope.io/rolearn", ROLE);
    for number in 0..100 {
        pod["metadata"]["annotations"][format!("eks.amazonaws.com/{number}")] = "".into();
        pod["metadata"]["labels"][format!("eks.amazonaws.com/skip-container-{number}")] = "".into();
    }
    pod["metadata"]["labels"]["tokenscope.io/enforce"] = "true".into();
    let warnings = fixture.review(&pod).warnings();
    for ours in [
        "annotation tokenscope.io/rolearn of the pod",
        "label tokenscope.io/enforce of the pod",
    ] {
        assert!(warnings.contains(ours), "{warnings}");
    }
}

#[test]
fn a_label_of_eks_that_beats_our_own_annotation_is_warned_of() {
    const SKIP: &str = "eks.amazonaws.com/skip-pod-identity-webhook";
    let mut fixture = ReviewFixture::new();
    fixture.settings = Settings::eks_compatible();
    let skipped = |mut pod: Value| {
        pod["metadata"]["labels"][SKIP] = "true".into();
        pod
    };
    let reviewed = fixture.review(&skipped(asking(app())));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    let warnings = reviewed.warnings();
    assert!(
        warnings.contains(SKIP) && warnings.contains("remove the label"),
        "{warnings}"
    );

    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.into())];
    let warnings = fixture.review(&skipped(plain(app()))).warnings();
    assert!(warnings.contains("remove the label"), "{warnings}");
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.into())];
    assert_eq!(
        fixture.review(&skipped(plain(app()))).warnings(),
        "",
        "what EKS's annotation asks for, EKS's label takes away there too"
    );
}

#[test]
fn a_container_that_another_webhook_adds_gets_its_role_by_what_the_refusal_says() {
    let late = "tokenscope.io/containers";
    let mut pod = asking(app());
    pod["metadata"]["annotations"][late] = "late".into();
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Denied);
    let message = reviewed.message();
    assert!(
        message.contains("in tokenscope.io/skip-containers those that should get none"),
        "{message}"
    );

    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = "app".into();
    let mut before = ReviewFixture::new().review(&pod);
    assert_eq!(before.outcome(), ReviewOutcome::Untouched);
    let containers = before.pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({"name": "late", "image": "late"}));
    let after = ReviewFixture::new().review(&before.pod);
    assert_eq!(after.outcome(), ReviewOutcome::Granted);
    assert_eq!(after.mark(), Some("granted"));
    assert_eq!(after.value("late", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(after.value("app", "AWS_ROLE_ARN"), None);
}

#[test]
fn a_list_that_skips_nobody_is_as_none() {
    for list in ["", " , "] {
        let mut pod = asking(app());
        pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = list.into();
        let reviewed = ReviewFixture::new().review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
        assert_eq!(reviewed.warnings(), "");
    }
}

#[test]
fn a_value_that_eks_would_have_corrected_costs_no_pod_its_credentials_in_silence() {
    for (key, value) in [
        ("eks.amazonaws.com/role-arn", "app"),
        ("eks.amazonaws.com/token-expiration", "1"),
        ("eks.amazonaws.com/token-expiration", "90000"),
        ("eks.amazonaws.com/token-expiration", "an hour"),
        ("eks.amazonaws.com/sts-regional-endpoints", "yes"),
    ] {
        let mut fixture = ReviewFixture::new();
        fixture.settings = Settings {
            enforcement: Enforcement::Warn,
            ..Settings::eks_compatible()
        };
        let role = ("eks.amazonaws.com/role-arn", ROLE.to_owned());
        fixture.service_account = vec![role, (key, value.into())];
        let mut pod = plain(app());
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-1", "uid": "u", "controller": true}]);
        let reviewed = fixture.review(&pod);
        assert_eq!(reviewed.outcome(), ReviewOutcome::Warned, "{key}={value}");
        let warnings = reviewed.warnings();
        assert!(
            warnings.contains("the pod gets no AWS credentials") && warnings.contains(key),
            "{warnings}"
        );
        let event = &reviewed.refusal().unwrap().message;
        assert!(
            event.contains("admitted without AWS credentials") && event.contains(key),
            "{event}"
        );
    }
}

#[test]
fn the_sidecars_image_is_pulled_with_secrets_only_where_some_are_set() {
    let with = |present: Value| {
        let mut fixture = spiffe();
        fixture.settings.sidecar.pull_secrets = vec![PULL_SECRET.into()];
        let mut pod = asking(app());
        pod["spec"]["imagePullSecrets"] = present;
        fixture.review(&pod)
    };
    let ours = json!({"name": PULL_SECRET});
    for (present, after) in [
        (Value::Null, json!([ours])),
        (json!([]), json!([ours])),
        (json!([{"name": "users"}, {}]), json!([{"name": "users"}, {}, ours])),
    ] {
        let reviewed = with(present);
        assert_eq!(reviewed.pod["spec"]["imagePullSecrets"], after);
        let warnings = reviewed.warnings();
        assert!(warnings.contains("imagePullSecrets sidecar-registry"), "{warnings}");
        assert!(warnings.contains("the namespace shop must have them"), "{warnings}");
    }
    let reviewed = with(json!([ours, {"name": "users"}]));
    assert_eq!(
        reviewed.pod["spec"]["imagePullSecrets"],
        json!([ours, {"name": "users"}])
    );
    assert_eq!(reviewed.warnings(), "");

    let none = spiffe().review(&asking(app()));
    assert!(none.pod["spec"].get("imagePullSecrets").is_none_or(Value::is_null));
    let mut without_sidecar = ReviewFixture::new();
    without_sidecar.settings.sidecar.pull_secrets = vec![PULL_SECRET.into()];
    let reviewed = without_sidecar.review(&asking(app()));
    assert!(reviewed.pod["spec"].get("imagePullSecrets").is_none_or(Value::is_null));
    assert_eq!(reviewed.warnings(), "");
}

#[test]
fn the_sidecars_resources_and_its_readiness_are_as_the_installation_says() {
    let sidecar = |fixture: &ReviewFixture| fixture.review(&asking(app())).pod["spec"]["initContainers"][0].clone();
    let mut fixture = spiffe();
    let large = json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "64Mi"}});
    let resources = &mut fixture.settings.sidecar.namespace_resources;
    resources.insert("shop".into(), large.to_string().into());
    resources.insert("other".into(), "{}".into());
    fixture.settings.sidecar.readiness = Some(Readiness {
        period_seconds: 600,
        failures: 2_147_483_647,
    });
    let container = sidecar(&fixture);
    assert_eq!(container["name"], SIDECAR);
    assert_eq!(container["resources"], large);
    assert_eq!(container["readinessProbe"]["periodSeconds"], 600);
    assert_eq!(container["readinessProbe"]["failureThreshold"], 2_147_483_647);

    fixture.settings.sidecar.namespace_resources.remove("shop");
    fixture.settings.sidecar.readiness = None;
    let container = sidecar(&fixture);
    assert_eq!(container["resources"]["limits"]["memory"], "32Mi");
    assert!(container.get("readinessProbe").is_none());
    assert!(container["startupProbe"].is_object());
}

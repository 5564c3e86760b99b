//! What granted pods get: the patch is applied by a library of its own, and the pods are compared.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    EKS_MOUNT, EKS_VOLUME, MOUNT, OTHER_ROLE, ROLE, ReviewFixture, VOLUME, app, asking, plain, policy, region,
};
use serde_json::{Value, json};
use tokenscope_core::{AwsSettings, ContainerFilter, Glob, Settings, Template};
use tokenscope_webhook::metrics::ReviewOutcome;

fn token_file() -> String {
    format!("{MOUNT}/token")
}

#[test]
fn a_granted_pod_gets_volume_mount_variables_record_and_mark() {
    let fixture = ReviewFixture::with_policy(region);
    let reviewed = fixture.review(&asking(app()));

    assert_eq!(
        reviewed.env("app"),
        [
            "AWS_STS_REGIONAL_ENDPOINTS=regional",
            "AWS_DEFAULT_REGION=eu-central-1",
            "AWS_REGION=eu-central-1",
            &format!("AWS_ROLE_ARN={ROLE}"),
            &format!("AWS_WEB_IDENTITY_TOKEN_FILE={}", token_file()),
            "AWS_EC2_METADATA_DISABLED=true",
        ]
    );
    assert_eq!(
        reviewed.pod["spec"]["containers"][0]["volumeMounts"],
        json!([{"name": VOLUME, "mountPath": MOUNT, "readOnly": true}])
    );
    assert_eq!(
        reviewed.pod["spec"]["volumes"],
        json!([{"name": VOLUME, "projected": {"sources": [{"serviceAccountToken":
            {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}]}}])
    );
    assert_eq!(reviewed.mark(), Some("granted"));
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("granted"));
    let record = reviewed.record();
    assert_eq!(record["grants"][0]["policy"], "TokenScopePolicy shop/orders");
    assert_eq!(record["grants"][0]["role"], ROLE);
    assert_eq!(record["grants"][0]["containers"], json!(["app"]));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted);
    assert_eq!(reviewed.response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(reviewed.response["auditAnnotations"]["decision"], "granted");
    assert_eq!(
        reviewed.response["auditAnnotations"]["policy"],
        "TokenScopePolicy shop/orders"
    );
    assert_eq!(reviewed.response["auditAnnotations"]["role"], ROLE);
}

#[test]
fn the_volume_comes_first_and_everything_else_last() {
    let mut pod = asking(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["metadata"]["annotations"]["note"] = json!("kept");
    let reviewed = ReviewFixture::new().review(&pod);

    assert_eq!(reviewed.pod["spec"]["volumes"][0]["name"], VOLUME);
    assert_eq!(
        reviewed.pod["spec"]["volumes"][1],
        json!({"name": "data", "emptyDir": {}})
    );
    assert_eq!(reviewed.env("app")[0], "A=1");
    assert_eq!(reviewed.mounts("app"), ["data:/data", &format!("{VOLUME}:{MOUNT}")]);
    assert_eq!(reviewed.annotation("note"), Some("kept"));
}

#[test]
fn nulls_are_lists_that_are_not_there() {
    let mut pod = plain(json!([{"name": "app", "env": null, "volumeMounts": null}]));
    pod["spec"]["volumes"] = Value::Null;
    pod["spec"]["initContainers"] = Value::Null;
    pod["metadata"]["annotations"] = Value::Null;
    let mut fixture = ReviewFixture::new();
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let reviewed = fixture.review(&pod);

    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.tokens().len(), 1);
    assert!(reviewed.annotation("tokenscope.io/grant").is_some());
}

#[test]
fn the_patch_for_one_container_is_small() {
    let mut fixture = ReviewFixture::with_policy(region);
    fixture.settings.sts_regional_endpoints = true;
    let pod = asking(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    let reviewed = fixture.review(&pod);
    let bytes = Value::Array(reviewed.patch).to_string().len();
    // The record and the mark, each of which a later decision reads, are 600 of them.
    assert!(bytes < 1800, "{bytes} bytes");
}

#[test]
fn a_pod_that_asks_for_nothing_is_left_exactly_as_it_is() {
    let reviewed = ReviewFixture::new().review(&plain(app()));
    assert_eq!(reviewed.outcome(), ReviewOutcome::Untouched);
    assert_eq!(
        reviewed.response,
        json!({"uid": "705ab4f5-6393-11e8-b7cc-42010a800002", "allowed": true})
    );
}

#[test]
fn a_pod_that_must_be_reviewed_is_marked_even_if_nothing_becomes_of_it() {
    let mut fixture = ReviewFixture::new();
    fixture.namespace_labels = vec![("tokenscope.io/required", "true".into())];
    let reviewed = fixture.review(&plain(app()));
    assert_eq!(reviewed.mark(), Some("asks-nothing"));
    assert_eq!(reviewed.patch.len(), 2);
}

#[test]
fn marks_and_records_that_the_user_brought_are_set_right() {
    let mut pod = plain(app());
    pod["metadata"]["annotations"] =
        json!({"tokenscope.io/reviewed": "granted", "tokenscope.io/grant": "{\"grants\":[],\"hash\":\"\"}"});
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("asks-nothing"));
    assert_eq!(reviewed.annotation("tokenscope.io/grant"), None);

    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/grant"] = json!("nonsense");
    pod["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!("untouched");
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.annotation("tokenscope.io/reviewed"), Some("granted"));
    assert_eq!(reviewed.record()["grants"][0]["role"], ROLE);
}

#[test]
fn half_a_pair_is_completed_and_a_whole_one_left_alone() {
    let reviewed = ReviewFixture::new().review(&asking(json!([
        {"name": "role", "env": [{"name": "AWS_ROLE_ARN", "value": OTHER_ROLE}]},
        {"name": "file", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/own/token"}]},
        {"name": "ours", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": token_file()}]},
        {"name": "both", "env": [{"name": "AWS_ROLE_ARN", "value": "x"}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "y"}]},
    ])));

    assert_eq!(reviewed.value("role", "AWS_ROLE_ARN").as_deref(), Some(OTHER_ROLE));
    assert_eq!(
        reviewed.value("role", "AWS_WEB_IDENTITY_TOKEN_FILE"),
        Some(token_file())
    );
    assert_eq!(reviewed.value("file", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(
        reviewed.value("file", "AWS_WEB_IDENTITY_TOKEN_FILE").as_deref(),
        Some("/own/token")
    );
    assert!(reviewed.mounts("file").is_empty(), "its file is elsewhere");
    assert_eq!(reviewed.mounts("ours").len(), 1);
    assert_eq!(
        reviewed.env("both"),
        ["AWS_ROLE_ARN=x", "AWS_WEB_IDENTITY_TOKEN_FILE=y"]
    );
    assert!(reviewed.mounts("both").is_empty());
}

#[test]
fn both_region_variables_or_neither() {
    let fixture = ReviewFixture::with_policy(region);
    for name in ["AWS_REGION", "AWS_DEFAULT_REGION"] {
        let reviewed = fixture.review(&asking(
            json!([{"name": "app", "env": [{"name": name, "value": "us-east-1"}]}]),
        ));
        let regions: Vec<_> = reviewed
            .env("app")
            .into_iter()
            .filter(|text| text.contains("REGION="))
            .collect();
        assert_eq!(regions, [format!("{name}=us-east-1")]);
    }
}

#[test]
fn a_session_name_is_given_only_where_it_fits() {
    let named = |name: &str| {
        let fixture = ReviewFixture::with_policy(|policy| {
            policy.aws = AwsSettings {
                role_session_name: Some("${pod.name}".parse::<Template>().unwrap()),
                ..AwsSettings::default()
            };
        });
        let mut pod = asking(app());
        pod["metadata"]["name"] = json!(name);
        if name.is_empty() {
            pod["metadata"] = json!({"generateName": "g".repeat(200), "annotations": pod["metadata"]["annotations"]});
        }
        fixture.review(&pod)
    };
    for fits in ["ab", &"n".repeat(64), ""] {
        let reviewed = named(fits);
        assert_eq!(
            reviewed.value("app", "AWS_ROLE_SESSION_NAME").as_deref(),
            Some("\"metadata.name\""),
            "{fits}"
        );
        assert_eq!(reviewed.warnings(), "");
    }
    for too_long in ["a", &"n".repeat(65)] {
        let reviewed = named(too_long);
        assert_eq!(reviewed.value("app", "AWS_ROLE_SESSION_NAME"), None);
        assert!(
            reviewed.warnings().contains("STS takes 2 to 64 characters"),
            "{}",
            reviewed.warnings()
        );
    }
}

#[test]
fn init_containers_and_native_sidecars_are_equipped_too() {
    let mut pod = asking(app());
    pod["spec"]["initContainers"] = json!([{"name": "init"}, {"name": "sidecar", "restartPolicy": "Always"}]);
    let reviewed = ReviewFixture::new().review(&pod);
    for container in ["init", "sidecar", "app"] {
        assert_eq!(reviewed.value(container, "AWS_ROLE_ARN").as_deref(), Some(ROLE));
        assert_eq!(reviewed.mounts(container).len(), 1);
    }
    assert_eq!(
        reviewed.record()["grants"][0]["containers"],
        json!(["init", "sidecar", "app"])
    );
}

#[test]
fn skipped_containers_stay_as_they_are() {
    let mut pod = asking(json!([{"name": "app"}, {"name": "proxy"}]));
    pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = json!(" proxy , gone ");
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.pod["spec"]["containers"][1], json!({"name": "proxy"}));
    assert!(
        reviewed.warnings().contains("names container gone"),
        "{}",
        reviewed.warnings()
    );
}

#[test]
fn each_container_can_have_a_role_of_its_own() {
    let mut pod = asking(json!([{"name": "app"}, {"name": "other"}]));
    pod["metadata"]["annotations"]["tokenscope.io/role-arn.other"] = json!(OTHER_ROLE);
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.value("other", "AWS_ROLE_ARN").as_deref(), Some(OTHER_ROLE));
    assert_eq!(reviewed.record()["grants"].as_array().unwrap().len(), 2);
    assert_eq!(reviewed.tokens().len(), 1, "one audience, one file");
}

#[test]
fn windows_pods_get_a_windows_path_in_the_variable_only() {
    let mut pod = asking(app());
    pod["spec"]["os"] = json!({"name": "windows"});
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(
        reviewed.value("app", "AWS_WEB_IDENTITY_TOKEN_FILE").as_deref(),
        Some("C:\\var\\run\\secrets\\tokenscope.io\\aws\\token")
    );
    assert_eq!(reviewed.mounts("app"), [format!("{VOLUME}:{MOUNT}")]);

    pod["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "own", "mountPath": "c:\\VAR\\run\\secrets\\tokenscope.io\\aws\\"}]);
    assert!(
        ReviewFixture::new()
            .review(&pod)
            .message()
            .contains("where tokenscope puts the token")
    );
}

#[test]
fn two_audiences_are_two_volumes_and_those_that_share_one_get_the_shortest_life() {
    let audience = |name: &str, audience: &str, seconds: i64, only: &str| {
        let mut policy = policy(name);
        policy.audiences.default = Some(audience.parse().unwrap());
        policy.token.expiration = tokenscope_core::TokenExpiration::from_seconds(seconds).unwrap();
        policy.containers = ContainerFilter {
            include: vec![Glob::new(only)],
            exclude: Vec::new(),
        };
        policy
    };
    let fixture = ReviewFixture {
        policies: [
            audience("a", "first", 7200, "one"),
            audience("b", "second", 3600, "two"),
            audience("c", "first", 900, "three"),
        ]
        .into_iter()
        .collect(),
        ..ReviewFixture::new()
    };
    let reviewed = fixture.review(&asking(json!([{"name": "one"}, {"name": "two"}, {"name": "three"}])));
    let hash = "second".parse::<tokenscope_core::Audience>().unwrap().short_hash();
    let second = format!("{VOLUME}-{hash}");
    assert_eq!(reviewed.tokens(), ["token first 900"]);
    assert_eq!(reviewed.tokens_in(&second), ["token second 3600"]);
    for (container, volume) in [("one", VOLUME), ("two", &second), ("three", VOLUME)] {
        assert_eq!(
            reviewed.value(container, "AWS_WEB_IDENTITY_TOKEN_FILE"),
            Some(token_file())
        );
        assert_eq!(
            reviewed.mounts(container),
            [format!("{volume}:{MOUNT}")],
            "its own and no other"
        );
    }
    assert!(fixture.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn eks_compatible_mode_uses_the_names_of_eks() {
    let mut fixture = ReviewFixture::new();
    fixture.settings = Settings::eks_compatible();
    fixture.service_account = vec![("eks.amazonaws.com/role-arn", ROLE.to_owned())];
    let reviewed = fixture.review(&plain(app()));
    assert_eq!(reviewed.mounts("app"), [format!("{EKS_VOLUME}:{EKS_MOUNT}")]);
    assert_eq!(
        reviewed.env("app"),
        [
            format!("AWS_ROLE_ARN={ROLE}"),
            "AWS_WEB_IDENTITY_TOKEN_FILE=/var/run/secrets/eks.amazonaws.com/serviceaccount/token".to_owned()
        ]
    );
}

#[test]
fn a_dollar_sign_in_a_role_is_not_expanded_by_the_kubelet() {
    let role = "arn:aws:iam::111122223333:role/$(HOME)/orders";
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!(role);
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(
        reviewed.value("app", "AWS_ROLE_ARN").as_deref(),
        Some("arn:aws:iam::111122223333:role/$$(HOME)/orders")
    );
    assert!(ReviewFixture::new().review(&reviewed.pod).patch.is_empty());
}

#[test]
fn an_empty_variable_is_one_that_is_not_there() {
    let names = [
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ROLE_SESSION_NAME",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_EC2_METADATA_DISABLED",
    ];
    let mut env: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": ""})).collect();
    env.push(json!({"name": "AWS_ACCESS_KEY_ID"}));
    let fixture = ReviewFixture::with_policy(|policy| {
        region(policy);
        policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    });
    let reviewed = fixture.review(&asking(json!([{"name": "app", "env": env}])));
    assert_eq!(reviewed.warnings(), "");
    assert_eq!(
        reviewed.env("app"),
        [
            &format!("AWS_ROLE_ARN={ROLE}"),
            &format!("AWS_WEB_IDENTITY_TOKEN_FILE={}", token_file()),
            "AWS_REGION=eu-central-1",
            "AWS_DEFAULT_REGION=eu-central-1",
            "AWS_ROLE_SESSION_NAME=\"metadata.name\"",
            "AWS_STS_REGIONAL_ENDPOINTS=regional",
            "AWS_EC2_METADATA_DISABLED=true",
            "AWS_ACCESS_KEY_ID=null",
        ]
    );
    // An empty one that has no use stays as it is.
    let reviewed = ReviewFixture::new().review(&asking(
        json!([{"name": "app", "env": [{"name": "AWS_REGION", "value": ""}]}]),
    ));
    assert_eq!(reviewed.env("app")[0], "AWS_REGION=");
}

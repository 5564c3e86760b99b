//! Pods that are reviewed again: unchanged, changed by another webhook, or with a record that somebody forged.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{MOUNT, OTHER_ROLE, ROLE, ReviewFixture, app, asking, plain, region};
use serde_json::{Value, json};

fn token_file() -> String {
    format!("{MOUNT}/token")
}

#[test]
fn reviewing_our_own_output_changes_nothing() {
    let fixture = ReviewFixture::with_policy(|policy| {
        region(policy);
        policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
    });
    let mut after = fixture
        .review(&asking(
            json!([{"name": "app"}, {"name": "half", "env": [{"name": "AWS_ROLE_ARN", "value": ROLE}]}]),
        ))
        .pod;
    // What the API server fills in before it calls again.
    after["spec"]["volumes"][0]["projected"]["defaultMode"] = json!(420);
    for variable in after["spec"]["containers"][0]["env"].as_array_mut().unwrap() {
        if variable.get("valueFrom").is_some() {
            variable["valueFrom"]["fieldRef"]["apiVersion"] = json!("v1");
        }
    }
    assert!(fixture.review(&after).patch.is_empty());
}

#[test]
fn a_sidecar_that_came_later_is_equipped_and_the_others_stay() {
    let fixture = ReviewFixture::new();
    let mut pod = fixture.review(&asking(app())).pod;
    let before = pod["spec"]["containers"][0].clone();
    pod["spec"]["containers"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "late"}));
    pod["spec"]["volumes"]
        .as_array_mut()
        .unwrap()
        .insert(0, json!({"name": "late", "emptyDir": {}}));
    let reviewed = fixture.review(&pod);

    assert_eq!(reviewed.pod["spec"]["containers"][0], before);
    assert_eq!(reviewed.value("late", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
    assert_eq!(reviewed.mounts("late").len(), 1);
    assert_eq!(reviewed.record()["grants"][0]["containers"], json!(["app", "late"]));
    assert!(fixture.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn another_service_account_redoes_our_edits() {
    let mut fixture = ReviewFixture::with_policy(region);
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let mut pod = fixture
        .review(&plain(json!([{"name": "app", "env": [{"name": "A", "value": "1"}]}])))
        .pod;
    pod["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap()
        .push(json!({"name": "Z", "value": "1"}));

    let mut other =
        ReviewFixture::with_policy(|policy| policy.token.expiration = tokenscope_core::TokenExpiration::DAY);
    other.settings.sts_regional_endpoints = false;
    other.service_account = vec![
        ("tokenscope.io/role-arn", OTHER_ROLE.to_owned()),
        ("tokenscope.io/audience", "elsewhere".to_owned()),
    ];
    let reviewed = other.review(&pod);

    assert_eq!(
        reviewed.env("app"),
        [
            "A=1",
            &format!("AWS_ROLE_ARN={OTHER_ROLE}"),
            &format!("AWS_WEB_IDENTITY_TOKEN_FILE={}", token_file()),
            "Z=1"
        ]
    );
    assert_eq!(reviewed.tokens(), ["token elsewhere 86400"]);
    assert_eq!(reviewed.record()["grants"][0]["role"], OTHER_ROLE);
    assert!(other.review(&reviewed.pod).patch.is_empty());
}

#[test]
fn what_is_no_longer_granted_is_taken_back_and_nothing_else() {
    let mut fixture = ReviewFixture::with_policy(region);
    fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
    let mut pod = plain(
        json!([{"name": "app", "env": [{"name": "A", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]),
    );
    pod["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
    pod["metadata"]["annotations"] = json!({"note": "kept"});
    let granted = fixture.review(&pod).pod;
    assert_ne!(granted, pod);

    fixture.service_account.clear();
    let mut expected = pod.clone();
    let mark = |pod: &mut Value, mark: &str| {
        pod["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!(mark);
        pod["metadata"]["labels"]["tokenscope.io/reviewed"] = json!(mark);
    };
    mark(&mut expected, "asks-nothing");
    assert_eq!(fixture.review(&granted).pod, expected);

    fixture.service_account = vec![("tokenscope.io/role-arn", "nonsense".to_owned())];
    fixture.settings.enforcement = tokenscope_core::Enforcement::Warn;
    mark(&mut expected, "refused");
    assert_eq!(fixture.review(&granted).pod, expected);
}

#[test]
fn a_container_that_is_skipped_by_now_loses_what_we_gave_it() {
    let fixture = ReviewFixture::new();
    let mut pod = fixture.review(&asking(json!([{"name": "app"}, {"name": "other"}]))).pod;
    pod["metadata"]["annotations"]["tokenscope.io/skip-containers"] = json!("other");
    let reviewed = fixture.review(&pod);
    assert!(reviewed.env("other").is_empty() && reviewed.mounts("other").is_empty());
    assert_eq!(reviewed.mounts("app").len(), 1);
}

#[test]
fn a_forged_record_gives_no_role() {
    let mut pod = plain(json!([{"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": OTHER_ROLE}]}]));
    let record = json!({"grants": [{"role": OTHER_ROLE, "containers": ["app"], "env": ["AWS_ROLE_ARN"]}], "hash": "0"});
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record.to_string(), "tokenscope.io/role-arn": ROLE});
    let reviewed = ReviewFixture::new().review(&pod);
    assert_eq!(reviewed.value("app", "AWS_ROLE_ARN").as_deref(), Some(ROLE));
}

#[test]
fn a_forged_record_takes_no_other_variable_away() {
    let mut pod = plain(json!([{"name": "app", "env": [{"name": "PATH", "value": "/bin"}]}]));
    let record =
        json!({"grants": [{"role": ROLE, "containers": ["app"], "env": ["PATH", "AWS_ROLE_ARN"]}], "hash": "0"});
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record.to_string()});
    assert_eq!(ReviewFixture::new().review(&pod).env("app"), ["PATH=/bin"]);
}

#[test]
fn the_record_has_the_annotations_of_the_service_account_that_decide_as_they_are_at_the_last_review() {
    let mut fixture = ReviewFixture::new();
    let role = |role: &str| ("tokenscope.io/role-arn", role.to_owned());
    fixture.service_account = vec![
        role(ROLE),
        ("tokenscope.io/role-arn.app", OTHER_ROLE.to_owned()),
        ("eks.amazonaws.com/audience", "elsewhere".to_owned()),
        ("example.com/note", "x".to_owned()),
    ];
    let reviewed = fixture.review(&plain(app()));
    assert_eq!(
        reviewed.record()["service_account_annotations"],
        json!({"tokenscope.io/role-arn": ROLE, "eks.amazonaws.com/audience": "elsewhere"})
    );
    fixture.service_account = vec![role(OTHER_ROLE)];
    let again = fixture.review(&reviewed.pod);
    assert_eq!(
        again.record()["service_account_annotations"],
        json!({"tokenscope.io/role-arn": OTHER_ROLE})
    );
    fixture.service_account = Vec::new();
    let without = fixture.review(&asking(app()));
    assert_eq!(without.record()["service_account_annotations"], json!({}));
}

#[test]
fn a_record_that_lists_of_containers_make_too_long_is_refused_with_what_to_shorten() {
    let names = |letter: char| -> String {
        let names = (0..255).map(|number| format!("{letter}{number:062}"));
        names.chain(["app".to_owned()]).collect::<Vec<_>>().join(",")
    };
    let (only, skipped) = (names('a'), names('b').replace(",app", ""));
    let mut fixture = ReviewFixture::new();
    let mut pod = asking(app());
    for (key, list) in [
        ("tokenscope.io/containers", only),
        ("tokenscope.io/skip-containers", skipped),
    ] {
        pod["metadata"]["annotations"][key] = json!(list);
        fixture.service_account.push((key, list));
    }
    pod["metadata"]["annotations"]["tokenscope.io/role-arn.app"] = json!(ROLE);
    let reviewed = fixture.review(&pod);
    let message = reviewed.message();
    assert!(
        message.contains("the record of the grant would have")
            && message.contains("of the pod and its service account"),
        "{message}"
    );
}

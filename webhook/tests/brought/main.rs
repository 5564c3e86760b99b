//! Variables and tokens of ours that a pod brings itself: a copy of a granted pod, an earlier review's pod that was changed, and one whose author
//! set them. The cases F8 and F9 of `e2e/tests/cases`, for every delivery and for tokens for third parties of every source.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod copies;
#[path = "../fixtures/mod.rs"]
mod fixtures;

use fixtures::{
    DOCUMENT, OTHER_ROLE, ROLE, ReviewFixture, ReviewedPod, app, asking, delivery, refusal, region, served,
};
use serde_json::{Value, json};
use tokenscope_core::Policy;
use tokenscope_core::credentials_endpoint::ENDPOINT_VARIABLE;
use tokenscope_core::delivery::{Delivery, NamedProfile};
use tokenscope_core::pod::SIDECAR;
use tokenscope_webhook::metrics::ReviewOutcome;

fn by_file(policy: &mut Policy) {
    region(policy);
    policy.delivery = delivery(false);
}

/// An installation for each delivery.
fn deliveries() -> [(&'static str, ReviewFixture); 3] {
    [
        ("File", ReviewFixture::with_policy(region)),
        ("Profile", ReviewFixture::with_policy(by_file)),
        ("Endpoint", ReviewFixture::with_policy(served)),
    ]
}

/// The pod without the record of its grant and without its mark, as a copy is.
fn without_record(pod: &Value) -> Value {
    let mut copy = pod.clone();
    copy["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": ROLE});
    copy["metadata"]["labels"] = json!({});
    copy
}

/// The value of the sidecar's variable, to be changed.
fn told_in(pod: &mut Value) -> &mut Value {
    let env = pod["spec"]["initContainers"][0]["env"].as_array_mut().unwrap();
    env.iter_mut()
        .find(|variable| variable["name"] == ENDPOINT_VARIABLE)
        .unwrap()
}

fn granted(fixture: &ReviewFixture, pod: &Value) -> ReviewedPod {
    let reviewed = fixture.review(pod);
    assert_eq!(reviewed.outcome(), ReviewOutcome::Granted, "{}", reviewed.message());
    reviewed
}

#[test]
fn f09_an_empty_variable_is_one_that_is_not_there_for_every_delivery() {
    const NAMES: [&str; 16] = [
        "AWS_ROLE_ARN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ROLE_SESSION_NAME",
        "AWS_STS_REGIONAL_ENDPOINTS",
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_PROFILE",
        "AWS_DEFAULT_PROFILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_ACCESS_KEY_ID",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ];
    for (name, fixture) in deliveries() {
        let plain = granted(&fixture, &asking(app()));
        for without_value in [false, true] {
            let empty = |variable: &str| {
                if without_value {
                    json!({"name": variable})
                } else {
                    json!({"name": variable, "value": ""})
                }
            };
            let env: Value = NAMES.into_iter().map(empty).collect();
            let reviewed = granted(&fixture, &asking(json!([{"name": "app", "image": "app", "env": env}])));
            assert_eq!(reviewed.warnings(), "", "{name}");
            assert_eq!(reviewed.mounts("app"), plain.mounts("app"), "{name}");
            for variable in NAMES {
                let found = reviewed.value("app", variable).filter(|value| {
                    let is_empty = value.is_empty() || value == "null";
                    !is_empty
                });
                assert_eq!(found, plain.value("app", variable), "{name}: {variable}");
            }
        }
    }
}

#[test]
fn f09_what_is_exactly_ours_is_adopted_with_and_without_a_record() {
    for (name, fixture) in deliveries() {
        let pod = granted(&fixture, &asking(app())).pod;
        assert_eq!(fixture.review(&pod).patch, Vec::<Value>::new(), "{name}");
        let copy = without_record(&pod);
        let reviewed = fixture.review(&copy);
        assert_ne!(
            reviewed.outcome(),
            ReviewOutcome::Denied,
            "{name}: {}",
            reviewed.message()
        );
        assert_eq!(reviewed.pod["spec"], pod["spec"], "{name}");
        assert_eq!(reviewed.warnings(), "", "{name}");
        // Its record, if it gets one, says that nothing of it was added, so it is as good once more.
        assert_eq!(fixture.review(&reviewed.pod).patch, Vec::<Value>::new(), "{name}");
    }
}

#[test]
fn f09_a_variable_that_was_changed_is_made_ours_again_with_a_record_and_is_told_without_one() {
    for (name, fixture) in deliveries() {
        let pod = granted(&fixture, &asking(app())).pod;
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        for (index, variable) in env.iter().enumerate() {
            let variable = variable["name"].as_str().unwrap();
            let mut changed = pod.clone();
            changed["spec"]["containers"][0]["env"][index] = json!({"name": variable, "value": "mine"});
            assert_eq!(granted(&fixture, &changed).pod, pod, "{name}: {variable}");
            let leads_elsewhere = [
                "AWS_ROLE_ARN",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONFIG_FILE",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
            ];
            let reviewed = fixture.review_whole(&without_record(&changed));
            let what = format!("{name}: {variable}: {}", reviewed.warnings());
            match reviewed.outcome() {
                ReviewOutcome::Granted => {
                    assert_eq!(reviewed.value("app", variable).as_deref(), Some("mine"), "{what}");
                    let is_told = reviewed.warnings().contains("container app");
                    assert!(is_told || !leads_elsewhere.contains(&variable), "{what}");
                }
                ReviewOutcome::Denied => assert!(reviewed.message().contains("--keep-annotations"), "{what}"),
                // By File it brings its role and token itself, and is left as it is.
                _ => assert_eq!(reviewed.pod["spec"], changed["spec"], "{what}"),
            }
        }
    }
}

#[test]
fn f09_what_a_pod_sets_itself_stays_and_its_author_is_told_for_every_delivery() {
    const ANY: &[&str] = &["AWS_ACCESS_KEY_ID", "AWS_SHARED_CREDENTIALS_FILE"];
    const FILES: &[&str] = &["AWS_CONFIG_FILE", "AWS_PROFILE", "AWS_DEFAULT_PROFILE"];
    // By other deliveries SDKs prefer what we add to an agent: who asks for the role gets it.
    const OF_ENDPOINT: &[&str] = &[
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ];
    for (name, fixture) in deliveries() {
        let more: &[&str] = if name == "Endpoint" { OF_ENDPOINT } else { &[] };
        for variable in [ANY, FILES, more].concat() {
            for own in [
                json!({"name": variable, "value": "/mine"}),
                json!({"name": variable, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}),
                json!({"name": variable, "value": "$(OTHER)"}),
            ] {
                let pod = asking(json!([{"name": "app", "env": [own]}, {"name": "other"}]));
                let reviewed = fixture.review_whole(&pod);
                let what = format!("{name}: {own}");
                if reviewed.outcome() == ReviewOutcome::Denied {
                    assert!(reviewed.message().contains(variable), "{what}: {}", reviewed.message());
                    continue;
                }
                assert_eq!(reviewed.pod["spec"]["containers"][0]["env"][0], own, "{what}");
                assert!(
                    reviewed.warnings().contains("container app"),
                    "{what}: {}",
                    reviewed.warnings()
                );
            }
        }
    }
}

#[test]
fn a_role_of_the_container_beside_a_profile_of_another_role_is_told() {
    let fixture = ReviewFixture::with_policy(|policy| {
        region(policy);
        policy.delivery = Delivery::Profile(vec![NamedProfile {
            name: "reports".parse().unwrap(),
            region: "us-east-1".parse().unwrap(),
            role: Some(OTHER_ROLE.parse().unwrap()),
            chain: Vec::new(),
        }]);
    });
    for (profile, is_told) in [("reports", true), ("default", false)] {
        let env = json!([{"name": "AWS_ROLE_ARN", "value": ROLE}, {"name": "AWS_PROFILE", "value": profile}]);
        let warnings = granted(&fixture, &asking(json!([{"name": "app", "env": env}]))).warnings();
        let sentence = "container app sets AWS_ROLE_ARN and AWS_PROFILE: boto3 and the AWS CLI take that role";
        assert_eq!(warnings.contains(sentence), is_told, "{warnings}");
    }
}

#[test]
fn f09_sources_that_may_bring_such_variables_are_told_for_every_delivery() {
    for (name, fixture) in deliveries() {
        for source in ["secretRef", "configMapRef"] {
            let long = "n".repeat(63);
            let pod = asking(json!([{"name": long, "envFrom": [{source: {"name": "s"}}]}, {"name": "clean"}]));
            let warnings = granted(&fixture, &pod).warnings();
            let sentence = format!("container {long} has envFrom: if that brings AWS_ACCESS_KEY_ID, AWS_PROFILE");
            assert!(warnings.contains(&sentence), "{name}: {warnings}");
            assert!(warnings.ends_with("to the granted role"), "{name}: {warnings}");
            assert!(!warnings.contains("clean"), "{name}: {warnings}");
        }
    }
}

#[test]
fn whatever_the_sidecar_was_told_that_is_not_what_it_is_told_now_is_replaced_or_refused() {
    let fixture = ReviewFixture::with_policy(served);
    let pod = granted(&fixture, &asking(app())).pod;
    let text = |pod: &Value| told_in(&mut pod.clone())["value"].as_str().unwrap().to_owned();
    let right = text(&pod);
    assert!(
        right.contains(&DOCUMENT.replace('"', "\\\"").replace('$', "$$")),
        "{right}"
    );
    let other = |from: &str, to: &str| {
        let changed = right.replace(from, to);
        assert_ne!(changed, right, "{from}");
        json!({"name": ENDPOINT_VARIABLE, "value": changed})
    };
    let mut changes = vec![
        other("9912", "9913"),
        other("role/target", "role/admin"),
        other("eu-central-1", "us-east-1"),
        other("3600", "43200"),
        other("ReadOnlyAccess", "AdministratorAccess"),
        other("$$", "$"),
        other("{\"port\"", "{\"stsUrl\":\"http://127.0.0.1:1\",\"port\""),
        json!({"name": ENDPOINT_VARIABLE, "value": ""}),
        json!({"name": ENDPOINT_VARIABLE}),
        json!({"name": ENDPOINT_VARIABLE, "value": "{}"}),
        json!({"name": ENDPOINT_VARIABLE, "value": "no JSON"}),
        json!({"name": ENDPOINT_VARIABLE, "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}),
    ];
    changes.push(json!({"name": ENDPOINT_VARIABLE, "value": format!(" {right}")}));
    for change in changes {
        let mut changed = pod.clone();
        *told_in(&mut changed) = change.clone();
        assert_eq!(granted(&fixture, &changed).pod, pod, "{change}");
        // A forged record says no more than that it may be replaced.
        let mut forged = without_record(&changed);
        let record = json!({"grants": [], "hash": "", "sidecar": true}).to_string();
        forged["metadata"]["annotations"]["tokenscope.io/grant"] = record.into();
        let reviewed = fixture.review(&forged);
        if reviewed.outcome() == ReviewOutcome::Granted {
            assert_eq!(text(&reviewed.pod), right, "{change}");
        }
        let message = refusal(&fixture, &without_record(&changed));
        assert!(
            message.contains(SIDECAR) && message.contains("--keep-annotations"),
            "{change}: {message}"
        );
    }
    // Of two of one name the last would count, and a later one could name what the first one reads.
    for more in [
        json!({"name": ENDPOINT_VARIABLE, "value": right}),
        json!({"name": ENDPOINT_VARIABLE, "value": "{}"}),
        json!({"name": "TOKENSCOPE_POD_NAME", "value": "other"}),
    ] {
        let mut changed = pod.clone();
        let env = changed["spec"]["initContainers"][0]["env"].as_array_mut().unwrap();
        env.push(more.clone());
        assert_eq!(granted(&fixture, &changed).pod, pod, "{more}");
        let message = refusal(&fixture, &without_record(&changed));
        assert!(message.contains(SIDECAR), "{more}: {message}");
    }
}

//! What is answered and told beside the patch.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{ReviewFixture, app, asking, plain, policy};
use serde_json::json;
use tokenscope_webhook::metrics::Outcome;

#[test]
fn a_refusal_is_an_answer_a_warning_or_a_note_as_the_namespace_says() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!("arn:aws:iam::999999999999:role/root");
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u", "controller": true}]);
    let in_namespace = |label: &'static str| {
        let mut fixture = ReviewFixture::new();
        fixture.namespace_labels = vec![(label, "true".into())];
        fixture.review(&pod)
    };

    let enforced = in_namespace("tokenscope.io/enforce");
    assert_eq!(enforced.response["allowed"], false);
    assert!(
        enforced
            .message()
            .contains("does not allow arn:aws:iam::999999999999:role/root"),
        "{}",
        enforced.message()
    );
    assert_eq!(enforced.outcome(), Outcome::Denied);
    assert_eq!(enforced.response["auditAnnotations"]["decision"], "denied");
    assert!(enforced.patch.is_empty());
    let refusal = enforced.refusal().unwrap();
    assert_eq!(&*refusal.owner.name, "orders-1");
    assert!(refusal.message.starts_with("A pod was refused: "));

    let warned = in_namespace("tokenscope.io/warn");
    assert_eq!(warned.response["allowed"], true);
    assert!(
        warned
            .warnings()
            .contains("tokenscope: the pod gets no AWS credentials"),
        "{}",
        warned.warnings()
    );
    assert!(warned.warnings().contains("does not allow"), "{}", warned.warnings());
    assert_eq!(warned.annotation("tokenscope.io/reviewed"), Some("refused"));
    assert!(warned.refusal().is_some());

    let audited = in_namespace("tokenscope.io/audit");
    assert_eq!(audited.response["allowed"], true);
    assert_eq!(audited.warnings(), "");
    assert_eq!(audited.response["auditAnnotations"]["decision"], "audited");
    assert!(
        audited.response["auditAnnotations"]["reasons"]
            .as_str()
            .unwrap()
            .contains("does not allow")
    );
    assert!(audited.refusal().is_none());
}

#[test]
fn a_dry_run_is_answered_the_same_and_leaves_no_event() {
    let mut pod = asking(app());
    pod["metadata"]["annotations"]["tokenscope.io/role-arn"] = json!("nonsense");
    pod["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-1", "uid": "u", "controller": true}]);
    let real = ReviewFixture::new().review(&pod);
    let dry = ReviewFixture {
        dry_run: true,
        ..ReviewFixture::new()
    }
    .review(&pod);
    assert_eq!(real.response, dry.response);
    assert!(real.refusal().is_some() && dry.refusal().is_none());
}

#[test]
fn credentials_that_sdks_prefer_are_warned_of() {
    let reviewed = ReviewFixture::new().review(&asking(json!([
        {"name": "keys", "env": [{"name": "AWS_ACCESS_KEY_ID", "value": "AKIAEXAMPLE"}]},
        {"name": "from", "envFrom": [{"secretRef": {"name": "s"}}]},
        {"name": "clean", "envFrom": []},
    ])));
    assert!(reviewed.warnings().contains("container keys sets AWS_ACCESS_KEY_ID"));
    assert!(reviewed.warnings().contains("container from has envFrom"));
    assert!(!reviewed.warnings().contains("clean") && !reviewed.response.to_string().contains("AKIAEXAMPLE"));
}

#[test]
fn a_service_account_that_is_nowhere_is_warned_of() {
    let fixture = ReviewFixture::new();
    let body = fixture.request(&plain(app())).to_string();
    let tokenscope_webhook::review::Asked::Pod(asked) = tokenscope_webhook::review::read(body.as_bytes()).unwrap()
    else {
        panic!("no pod");
    };
    let surroundings = tokenscope_webhook::facts::ReviewContext::default();
    let answer = asked.answer(
        surroundings,
        &fixture.policies,
        &fixture.settings,
        jiff::Timestamp::UNIX_EPOCH,
    );
    assert!(
        answer.body.contains("service account orders was not found"),
        "{}",
        answer.body
    );
}

#[test]
fn many_and_long_reasons_stay_within_what_the_api_server_shows() {
    let mut fixture = ReviewFixture {
        policies: (0..40)
            .map(|number| {
                let mut policy = policy(&format!("policy-with-quite-a-long-name-number-{number}"));
                policy.roles.allowed = vec![
                    "arn:aws:iam::111122223333:role/somewhere/else/entirely/*"
                        .parse()
                        .unwrap(),
                ];
                policy
            })
            .collect(),
        ..ReviewFixture::new()
    };
    fixture.settings.enforcement = tokenscope_core::Enforcement::Warn;
    let reviewed = fixture.review(&asking(app()));
    let warnings = reviewed.response["warnings"].as_array().unwrap();
    assert!(warnings.len() <= 14);
    assert!(reviewed.warnings().len() <= 4096);
    assert!(reviewed.response["auditAnnotations"]["reasons"].as_str().unwrap().len() <= 2048);
}

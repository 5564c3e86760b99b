//! The replay of other people's cases: that it sees what is equal, what differs for a reason, and what just differs.

#![expect(clippy::panic, clippy::unwrap_used, reason = "this is how tests fail")]

mod container_credentials;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tokenscope_e2e::compat::{self, Case, Outcome};
use tokenscope_e2e::eks_webhook::EksWebhook;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

const ROLE: &str = "arn:aws:iam::444455556666:role/reports/reader";
const MOUNT: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";
const TOKEN: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token";

/// The folder of the recorded cases. Says that they are left out where there is none: they are the EKS webhook's own test data, which
/// is no part of this repository. The other tests here have cases of our own.
fn recorded() -> Option<PathBuf> {
    let folder = root().join("../shared/compat");
    if folder.exists() {
        return Some(folder);
    }
    say(
        "left out: the EKS webhook's recorded cases, which are no part of this repository (looked for in ../shared/compat)",
    );
    None
}

#[test]
fn the_recorded_cases_come_out_equal_or_with_a_reason() {
    let Some(folder) = recorded() else { return };
    let mut replayed = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let file = entry.unwrap().path();
        if file.extension().is_some_and(|extension| extension == "json") {
            replayed += replay(&file);
        }
    }
    assert!(replayed > 0, "{} has no cases", folder.display());
}

fn replay(file: &Path) -> usize {
    let suite = compat::read(file).unwrap();
    for case in &suite.cases {
        let outcome = case.replay();
        println!("{:<40} {outcome}", case.name);
        assert!(!matches!(outcome, Outcome::Different(_)), "{}: {outcome}", case.name);
    }
    suite.cases.len()
}

/// What stands for that webhook in other tests does what it does.
#[test]
fn the_stand_in_makes_the_recorded_pods() {
    let Some(folder) = recorded() else { return };
    let suite = compat::read(&folder.join("eks-pod-identity-webhook.json")).unwrap();
    let is_ours = |case: &&Case| !case.name.starts_with("containercredentials/");
    for case in suite.cases.iter().filter(is_ours) {
        let mut webhook = EksWebhook::default();
        let mut annotations = BTreeMap::new();
        for (key, value) in &case.webhook_state {
            let annotation = |name: &str| (format!("eks.amazonaws.com/{name}"), value.clone());
            match key.as_str() {
                "handler/region" => webhook.region.clone_from(value),
                "handler/injectSTS" => webhook.regional = value.parse().unwrap(),
                "handler/expiration" => webhook.expiration = value.parse().unwrap(),
                "handler/mountPath" => webhook.mount_path.clone_from(value),
                "serviceAccount/roleArn" => annotations.extend([annotation("role-arn")]),
                key => annotations.extend([annotation(key.strip_prefix("serviceAccount/").unwrap())]),
            }
        }
        let changed = webhook.changed(&case.pod, &annotations).unwrap();
        assert_eq!(
            significant(changed),
            significant(case.expected_pod.clone()),
            "{}",
            case.name
        );
    }
}

/// A pod without the empty objects that Go writes.
fn significant(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, significant(value)));
            Value::Object(
                members
                    .filter(|(_, value)| *value != json!({}) && !value.is_null())
                    .collect(),
            )
        }
        Value::Array(items) => items.into_iter().map(significant).collect(),
        other => other,
    }
}

#[test]
fn the_same_pod_is_equal() {
    let container = json!({"name": "app", "image": "app:1"});
    equal(&case(
        pod(std::slice::from_ref(&container), &[]),
        pod(&[injected(&container)], &[volume(86_400)]),
    ));
}

#[test]
fn all_that_a_case_can_set_is_obeyed() {
    let container = json!({"name": "app", "image": "app:1"});
    let mut expected = container.clone();
    expected["env"] = json!([
        {"name": "AWS_STS_REGIONAL_ENDPOINTS", "value": "regional"},
        {"name": "AWS_DEFAULT_REGION", "value": "eu-west-3"},
        {"name": "AWS_REGION", "value": "eu-west-3"},
        {"name": "AWS_ROLE_ARN", "value": ROLE},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": TOKEN},
    ]);
    expected["volumeMounts"] = json!([{"name": "aws-iam-token", "mountPath": MOUNT, "readOnly": true}]);
    expected["resources"] = json!({});
    let mut volume = volume(1200);
    volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] = json!("reports.example.org");
    let mut case = case(
        pod(&[container], &[json!({"name": "data"})]),
        pod(&[expected], &[volume, json!({"name": "data"})]),
    );
    for (key, value) in [
        ("serviceAccount/audience", "reports.example.org"),
        ("serviceAccount/sts-regional-endpoints", "true"),
        ("serviceAccount/token-expiration", "1200"),
        ("handler/expiration", "7200"),
        ("handler/region", "eu-west-3"),
        ("handler/injectSTS", "false"),
    ] {
        case.webhook_state.insert(key.to_owned(), value.to_owned());
    }
    equal(&case);
    case.webhook_state.remove("serviceAccount/token-expiration");
    case.expected_pod["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["expirationSeconds"] =
        json!(7200);
    equal(&case);
}

#[test]
fn a_half_pair_is_completed() {
    let role = json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": ROLE}]});
    let file = json!({"name": "other", "env": [{"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": TOKEN}]});
    let pod_before = pod(&[role, file], &[]);
    let mut expected = pod_before.clone();
    expected["spec"]["volumes"] = json!([volume(86_400)]);
    deviates(&case(pod_before, expected), &["half pair"]);
}

#[test]
fn a_container_with_its_own_credentials_is_left_alone() {
    let own = json!({"name": "app", "env": [
        {"name": "AWS_ROLE_ARN", "value": ROLE}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": "/own/token"},
    ]});
    let mut case = case(pod(std::slice::from_ref(&own), &[]), pod(&[own], &[volume(86_400)]));
    case.webhook_state
        .insert("handler/region".to_owned(), "eu-west-3".to_owned());
    let env = case.expected_pod["spec"]["containers"][0]["env"]
        .as_array_mut()
        .unwrap();
    env.push(json!({"name": "AWS_REGION", "value": "eu-west-3"}));
    deviates(&case, &["own credentials", "unused volume"]);
}

#[test]
fn an_invalid_role_is_refused() {
    let container = json!({"name": "app"});
    let mut bare = case(
        pod(std::slice::from_ref(&container), &[]),
        pod(&[injected(&container)], &[volume(86_400)]),
    );
    bare.webhook_state
        .insert("serviceAccount/roleArn".to_owned(), "reader".to_owned());
    bare.webhook_state.insert(
        "handler/baseArn".to_owned(),
        "arn:aws:iam::444455556666:role/".to_owned(),
    );
    deviates(&bare, &["invalid role"]);

    let own = json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": "there-is-one"}]});
    deviates(
        &case(pod(std::slice::from_ref(&own), &[]), pod(&[own], &[])),
        &["invalid role"],
    );
}

#[test]
fn a_lifetime_out_of_bounds_is_refused() {
    let container = json!({"name": "app"});
    let mut on_pod = case(
        pod(std::slice::from_ref(&container), &[]),
        pod(&[injected(&container)], &[volume(600)]),
    );
    for pod in [&mut on_pod.pod, &mut on_pod.expected_pod] {
        pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/token-expiration": "1"});
    }
    deviates(&on_pod, &["token lifetime"]);

    let mut flag = case(
        pod(std::slice::from_ref(&container), &[]),
        pod(&[injected(&container)], &[volume(300)]),
    );
    flag.webhook_state
        .insert("handler/expiration".to_owned(), "300".to_owned());
    deviates(&flag, &["token lifetime"]);
}

#[test]
fn a_foreign_volume_is_refused() {
    let host = json!({"name": "aws-iam-token", "hostPath": {"path": "/etc"}});
    let trusting = json!({"name": "app", "volumeMounts": [{"name": "aws-iam-token", "path": "/etc"}]});
    deviates(
        &case(
            pod(std::slice::from_ref(&trusting), std::slice::from_ref(&host)),
            pod(&[trusting], &[host]),
        ),
        &["foreign volume"],
    );

    // One that is exactly what would be added is kept, and a container that came later gets the same.
    let container = json!({"name": "app"});
    let before = pod(&[injected(&container), json!({"name": "late"})], &[volume(86_400)]);
    let after = pod(
        &[injected(&container), injected(&json!({"name": "late"}))],
        &[volume(86_400)],
    );
    equal(&case(before, after));
}

#[test]
fn another_volume_at_our_path_is_refused() {
    let container = json!({"name": "app", "volumeMounts": [{"name": "data", "mountPath": MOUNT}]});
    let data = json!({"name": "data", "emptyDir": {}});
    let expected = pod(std::slice::from_ref(&container), &[volume(86_400), data.clone()]);
    deviates(&case(pod(&[container], &[data]), expected), &["foreign mount"]);
}

#[test]
fn spaces_in_a_skip_list_mean_nothing() {
    let (app, proxy, log) = (json!({"name": "app"}), json!({"name": "proxy"}), json!({"name": "log"}));
    let before = pod(&[app.clone(), proxy.clone(), log.clone()], &[]);
    let mut exact = case(
        before.clone(),
        pod(&[injected(&app), proxy.clone(), log.clone()], &[volume(86_400)]),
    );
    skip(&mut exact, "proxy,log");
    equal(&exact);
    let mut spaced = case(before, pod(&[injected(&app), proxy, injected(&log)], &[volume(86_400)]));
    skip(&mut spaced, "proxy, log");
    deviates(&spaced, &["skip list"]);
}

#[test]
fn a_field_that_the_other_webhook_drops_is_kept() {
    let container = json!({"name": "app", "newInKubernetes": {"depth": 3}});
    let expected = pod(&[injected(&json!({"name": "app"}))], &[volume(86_400)]);
    deviates(&case(pod(&[container], &[]), expected), &["kept fields"]);
}

#[test]
fn the_mount_path_is_fixed() {
    let container = json!({"name": "app"});
    let expected = injected(&container).to_string().replace(MOUNT, "/elsewhere");
    let expected: Value = serde_json::from_str(&expected).unwrap();
    let mut case = case(pod(&[container], &[]), pod(&[expected], &[volume(86_400)]));
    case.webhook_state
        .insert("handler/mountPath".to_owned(), "/elsewhere".to_owned());
    deviates(&case, &["mount path"]);
}

#[test]
fn a_difference_without_a_reason_is_told_by_its_place() {
    let container = json!({"name": "app", "env": [{"name": "AWS_ROLE_ARN", "value": ROLE}]});
    let different = |case: &Case| match case.replay() {
        Outcome::Different(text) => text,
        other => panic!("{other}"),
    };
    let mut wrong = case(
        pod(std::slice::from_ref(&container), &[]),
        pod(std::slice::from_ref(&container), &[volume(3600)]),
    );
    let text = different(&wrong);
    assert_eq!(
        text, "/spec/volumes/0/projected/sources/0/serviceAccountToken/expirationSeconds: expected 3600, got 86400",
        "a reason for one difference is none for another"
    );
    wrong.webhook_state.insert("handler/mood".to_owned(), "good".to_owned());
    assert!(different(&wrong).contains("handler/mood"));

    // A refusal whose cause the case doesn't give.
    let mut refused = case(pod(&[json!({"name": "app"})], &[]), pod(&[], &[]));
    refused.pod["metadata"]["annotations"] = json!({"tokenscope.io/role-arn": "nonsense"});
    assert!(different(&refused).starts_with("refused: "), "{}", different(&refused));
}

fn case(pod: Value, expected_pod: Value) -> Case {
    Case {
        name: "ours".to_owned(),
        webhook_state: [("serviceAccount/roleArn".to_owned(), ROLE.to_owned())].into(),
        pod,
        expected_pod,
    }
}

fn pod(containers: &[Value], volumes: &[Value]) -> Value {
    let mut spec = json!({"serviceAccountName": "reports", "containers": containers});
    if !volumes.is_empty() {
        spec["volumes"] = json!(volumes);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reports", "namespace": "reports"}, "spec": spec})
}

/// A container as the EKS webhook leaves it.
fn injected(container: &Value) -> Value {
    let mut container = container.clone();
    container["env"] =
        json!([{"name": "AWS_ROLE_ARN", "value": ROLE}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": TOKEN}]);
    container["volumeMounts"] = json!([{"name": "aws-iam-token", "readOnly": true, "mountPath": MOUNT}]);
    container["resources"] = json!({});
    container
}

fn volume(seconds: u32) -> Value {
    json!({"name": "aws-iam-token", "projected": {"sources": [{"serviceAccountToken": {
        "audience": "sts.amazonaws.com", "expirationSeconds": seconds, "path": "token",
    }}]}})
}

fn skip(case: &mut Case, list: &str) {
    for pod in [&mut case.pod, &mut case.expected_pod] {
        pod["metadata"]["annotations"] = json!({"eks.amazonaws.com/skip-containers": list});
    }
}

fn equal(case: &Case) {
    let outcome = case.replay();
    assert!(matches!(outcome, Outcome::Equal), "{outcome}");
}

fn deviates(case: &Case, names: &[&str]) {
    match case.replay() {
        Outcome::Deviation(deviations) => {
            assert_eq!(
                deviations.iter().map(|deviation| deviation.name).collect::<Vec<_>>(),
                names
            );
        }
        outcome => panic!("{outcome}"),
    }
}

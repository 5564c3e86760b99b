//! Pods that are written to be more than they seem: forged records, and several volumes of one name.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{ReviewFixture, VOLUME, plain, refusal};
use serde_json::{Value, json};
use tokenscope_core::lock::LockMode;
use tokenscope_core::{Glob, PolicySet};

fn locked(mut fixture: ReviewFixture) -> ReviewFixture {
    fixture.settings.lock.mode = LockMode::Deny;
    fixture
}

/// A pod with two volumes of one name of ours, which its container mounts, and a record of an earlier review.
fn with_two_volumes(first: &Value, second: &Value) -> Value {
    let mut pod = plain(json!([{"name": "app", "volumeMounts": [{"name": VOLUME, "mountPath": "/mine"}]}]));
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": r#"{"grants":[],"hash":""}"#});
    pod["spec"]["volumes"] = json!([first, second]);
    for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
        volume["name"] = json!(VOLUME);
    }
    pod
}

/// A volume with a token and something else, which no review writes.
fn foreign() -> Value {
    let name = json!({"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}});
    json!({"projected": {"sources": [
        {"serviceAccountToken": {"audience": "sts.amazonaws.com", "expirationSeconds": 3600, "path": "token"}}, name]}})
}

#[test]
fn a_volume_that_goes_takes_no_other_one_of_its_name_out_of_the_locks_sight() {
    let mut fixture = locked(ReviewFixture::new());
    fixture.policies = PolicySet::default();
    let goes = json!({"emptyDir": {"medium": "Memory"}});
    for pod in [with_two_volumes(&goes, &foreign()), with_two_volumes(&foreign(), &goes)] {
        let message = refusal(&fixture, &pod);
        assert!(
            message.contains("volume tokenscope-aws-token holds a token for audience sts.amazonaws.com"),
            "{message}"
        );
    }
}

/// The API server copies a list of variables for each one that a patch takes out of it.
#[test]
fn a_record_with_more_variables_than_a_review_adds_takes_none_of_them_out_of_the_pod() {
    let names = |count: usize| -> Vec<String> { (0..count).map(|number| format!("V{number}")).collect() };
    let variables: Vec<_> = names(2000)
        .iter()
        .map(|name| json!({"name": name, "value": "own"}))
        .collect();
    let left = |recorded: usize| {
        let mut pod = plain(json!([{"name": "app", "env": variables}]));
        let grant = json!({"role": "r", "containers": ["app"], "env": names(recorded)});
        let record = json!({"grants": [grant], "hash": ""}).to_string();
        pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record});
        let mut fixture = ReviewFixture::new();
        fixture.policies = PolicySet::default();
        let reviewed = fixture.review_whole(&pod);
        assert!(reviewed.pod["metadata"]["annotations"]["tokenscope.io/grant"].is_null());
        reviewed.pod["spec"]["containers"][0]["env"].as_array().unwrap().len()
    };
    assert_eq!((left(128), left(129), left(2000)), (2000 - 128, 2000, 2000));
}

#[test]
fn nor_does_it_take_the_containers_with_it_that_mount_the_name() {
    let fixture = locked(ReviewFixture::with_policy(|policy| {
        policy.containers.include = vec![Glob::new("admin")];
    }));
    let goes = json!({"projected": {"sources": [{"serviceAccountToken": {"audience": "vault", "path": "token"}}]}});
    for pod in [with_two_volumes(&goes, &foreign()), with_two_volumes(&foreign(), &goes)] {
        let message = refusal(&fixture, &pod);
        assert!(message.contains("covers container app"), "{message}");
    }
}

/// The most memory that this process ever had, in bytes.
#[cfg(target_os = "linux")]
fn peak_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kilobytes: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    kilobytes << 10
}

#[cfg(target_os = "linux")]
#[test]
fn a_record_of_many_containers_and_many_variables_needs_memory_for_each_of_them_and_not_for_each_pair() {
    use tokenscope_core::bounds::{MOST_RECORD_BYTES, MOST_RECORDED_VARIABLES};

    let names = |letter: char, count: usize| {
        let names = (0..count).map(move |number| format!("{letter}{number:X}"));
        names.collect::<Vec<_>>()
    };
    let variables = names('V', MOST_RECORDED_VARIABLES);
    let record =
        json!({"grants": [{"role": "x", "containers": names('C', 8000), "env": variables}], "hash": ""}).to_string();
    assert!(record.len() <= MOST_RECORD_BYTES && record.len() > MOST_RECORD_BYTES * 9 / 10);
    let env: Vec<Value> = variables
        .iter()
        .map(|name| json!({"name": name, "value": "x"}))
        .collect();
    let mut pod = plain(json!([{"name": "C0", "env": env}, {"name": "other", "env": [{"name": "V0", "value": "x"}]}]));
    pod["metadata"]["annotations"] = json!({"tokenscope.io/grant": record});
    let before = peak_memory();
    let reviewed = ReviewFixture::new().review_whole(&pod);
    let grown = peak_memory() - before;
    assert_eq!(reviewed.env("C0"), Vec::<String>::new());
    assert_eq!(reviewed.env("other"), ["V0=x"]);
    // There are a million pairs.
    assert!(grown < 16 << 20, "{grown} bytes");
}

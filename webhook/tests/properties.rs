//! What holds for every pod, installation and policy.

#![allow(clippy::unwrap_used, reason = "this is test code, also outside the tests themselves")]

mod fixtures;

use fixtures::{
    EKS_VOLUME, ISSUER, MOUNT, OTHER_ROLE, OURS, ROLE, ReviewFixture, SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME, VOLUME,
    misplaced, plain, region, run_issuer, two_audiences, without_ours,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::TokenSource;
use tokenscope_core::config_file::{CONFIG_FILE, CONFIG_FOLDER};
use tokenscope_core::delivery::{Delivery, RoleHop};
use tokenscope_core::pod::{CONFIG_VOLUME, CONFIG_WRITER, SIDECAR, is_added_container};
use tokenscope_core::sidecar::WorkloadApi;
use tokenscope_webhook::metrics::ReviewOutcome;

/// Any JSON that may stand in a field which nobody here knows.
fn unknown() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~äß\"\\\\]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[a-z/~]{1,6}", inner, 0..3)
                .prop_map(|map| Value::from(serde_json::Map::from_iter(map))),
        ]
    })
}

fn variable() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("AWS_ROLE_ARN"),
        Just("AWS_WEB_IDENTITY_TOKEN_FILE"),
        Just("AWS_REGION"),
        Just("AWS_DEFAULT_REGION"),
        Just("AWS_STS_REGIONAL_ENDPOINTS"),
        Just("AWS_ROLE_SESSION_NAME"),
        Just("AWS_CONFIG_FILE"),
        Just("AWS_PROFILE"),
        Just("OTHER"),
    ];
    (
        name,
        prop_oneof![
            Just(ROLE.to_owned()),
            Just(OTHER_ROLE.to_owned()),
            Just(format!("{MOUNT}/token")),
            Just(CONFIG_FILE.to_owned()),
            Just("default".to_owned()),
            Just("x".to_owned()),
            Just(String::new()),
        ],
    )
        .prop_map(|(name, value)| json!({"name": name, "value": value}))
}

fn container() -> impl Strategy<Value = Value> {
    let env = prop::option::of(prop::collection::vec(variable(), 0..4));
    let mounts = prop::option::of(prop::collection::vec("/[a-c]{1,3}", 0..3));
    (env, mounts, unknown()).prop_map(|(env, mounts, unknown)| {
        let mut container = json!({"image": "i", "unknownField": unknown});
        if let Some(env) = env {
            container["env"] = env.into();
        }
        if let Some(mounts) = mounts {
            container["volumeMounts"] = mounts
                .into_iter()
                .map(|path| json!({"name": "data", "mountPath": path, "new": 1}))
                .collect();
        }
        container
    })
}

fn any_pod() -> impl Strategy<Value = Value> {
    let containers = prop::collection::vec(container(), 1..4);
    let init = prop::option::of(prop::collection::vec(container(), 0..3));
    let annotations = prop::option::of(prop::collection::vec(
        prop_oneof![
            Just(("tokenscope.io/role-arn".to_owned(), ROLE.to_owned())),
            Just(("tokenscope.io/role-arn.app-1".to_owned(), OTHER_ROLE.to_owned())),
            Just(("tokenscope.io/skip-containers".to_owned(), "app-0".to_owned())),
            Just(("tokenscope.io/audience".to_owned(), "elsewhere".to_owned())),
            Just(("tokenscope.io/reviewed".to_owned(), "granted".to_owned())),
            Just(("a~b/c".to_owned(), "\u{1}\"".to_owned())),
        ],
        0..5,
    ));
    let volumes = prop_oneof![
        Just(None),
        Just(Some(json!([]))),
        Just(Some(json!([{"name": "data", "emptyDir": {}, "x": [1]}]))),
        Just(Some(
            json!([{"name": "data", "csi": {"driver": "csi.spiffe.io", "readOnly": true}}])
        )),
    ];
    (containers, init, annotations, volumes, unknown(), any::<bool>()).prop_map(
        |(mut containers, init, annotations, volumes, unknown, windows)| {
            for (index, container) in containers.iter_mut().enumerate() {
                container["name"] = format!("app-{index}").into();
            }
            let mut pod = plain(containers.into());
            if let Some(mut init) = init {
                for (index, container) in init.iter_mut().enumerate() {
                    container["name"] = format!("init-{index}").into();
                }
                pod["spec"]["initContainers"] = init.into();
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = annotations
                    .into_iter()
                    .map(|(key, value)| (key, Value::from(value)))
                    .collect::<serde_json::Map<_, _>>()
                    .into();
            }
            if let Some(volumes) = volumes {
                pod["spec"]["volumes"] = volumes;
            }
            if windows {
                pod["spec"]["nodeSelector"] = json!({"kubernetes.io/os": "windows"});
            }
            pod["spec"]["unknownField"] = unknown.clone();
            pod["unknownField"] = unknown;
            pod
        },
    )
}

fn any_fixture() -> impl Strategy<Value = ReviewFixture> {
    (any::<[bool; 7]>(), 0..3u8, 0..6u8).prop_map(
        |([with_region, account, regional, by_default, session, by_file, chain], enforcement, source)| {
            let mut fixture = ReviewFixture::with_policy(|policy| {
                if with_region {
                    region(policy);
                }
                if by_default {
                    policy.roles.default = Some(OTHER_ROLE.parse().unwrap());
                }
                if session {
                    policy.aws.role_session_name = Some("${pod.name}".parse().unwrap());
                }
                if by_file {
                    region(policy);
                    policy.delivery = Delivery::Profile(Vec::new());
                    let role = OTHER_ROLE.parse().unwrap();
                    let hop = RoleHop {
                        role,
                        external_id: None,
                        session_name: None,
                    };
                    policy.aws.role_chain.extend(chain.then_some(hop));
                }
                policy.token.source = match source {
                    0 => TokenSource::ServiceAccount,
                    1..4 => TokenSource::Spiffe,
                    _ => TokenSource::Issuer,
                };
            });
            if source > 2 {
                run_issuer(&mut fixture);
            }
            if source == 5 {
                fixture.settings.sidecar.issuer_authorities = Some("others".into());
            }
            if source == 2 {
                fixture.settings.sidecar.workload_api = WorkloadApi::HostPath {
                    path: "/run/spire/agent-sockets".into(),
                };
                fixture.settings.sidecar.image = "another".into();
            }
            fixture.settings.sts_regional_endpoints = regional;
            fixture.settings.enforcement = [
                tokenscope_core::Enforcement::Enforce,
                tokenscope_core::Enforcement::Warn,
                tokenscope_core::Enforcement::Audit,
            ][usize::from(enforcement)];
            if account {
                fixture.service_account = vec![("tokenscope.io/role-arn", ROLE.to_owned())];
            }
            fixture
        },
    )
}

/// Whether it is a variable of ours without a value, which is as good as none.
fn is_empty(variable: &Value) -> bool {
    OURS.contains(&variable["name"].as_str().unwrap()) && variable["value"] == ""
}

/// The pod without what may differ: where our variables stand among others, empty variables, lists that are empty and lists that are not
/// there, and the mark, which a second review sets right but does not remove.
fn comparable(pod: &Value) -> Value {
    let mut pod = pod.clone();
    let tidy = |list: &mut Value| match list.as_array_mut() {
        Some(items) if !items.is_empty() => items.sort_by_key(ToString::to_string),
        _ => *list = Value::Null,
    };
    tidy(&mut pod["spec"]["volumes"]);
    if pod["spec"]["initContainers"].as_array().is_some_and(Vec::is_empty) {
        pod["spec"]["initContainers"] = Value::Null;
    }
    for list in ["containers", "initContainers"] {
        for container in pod["spec"][list].as_array_mut().into_iter().flatten() {
            if let Some(env) = container["env"].as_array_mut() {
                env.retain(|variable| !is_empty(variable));
            }
            tidy(&mut container["env"]);
            tidy(&mut container["volumeMounts"]);
        }
    }
    for map in ["annotations", "labels"] {
        let entries = &mut pod["metadata"][map];
        if let Some(entries) = entries.as_object_mut() {
            entries.remove("tokenscope.io/reviewed");
        }
        if entries.as_object().is_none_or(serde_json::Map::is_empty) {
            *entries = Value::Null;
        }
    }
    pod
}

/// Volumes of our names: as we write them, nearly so, and not at all so.
fn our_volume() -> impl Strategy<Value = Value> {
    let hash = "elsewhere".parse::<tokenscope_core::Audience>().unwrap().short_hash();
    let token = |audience: &str, mode: u32| {
        json!({"projected": {"defaultMode": mode, "sources": [{"serviceAccountToken":
            {"audience": audience, "expirationSeconds": 3600, "path": "token"}}]}})
    };
    let name = prop_oneof![
        3 => Just(VOLUME.to_owned()),
        1 => Just(format!("{VOLUME}-{hash}")),
        1 => Just(SOCKET_VOLUME.to_owned()),
        1 => Just(SUBJECT_TOKEN_VOLUME.to_owned()),
        1 => Just(CONFIG_VOLUME.to_owned()),
        1 => Just(EKS_VOLUME.to_owned()),
    ];
    let content = prop_oneof![
        3 => Just(token("sts.amazonaws.com", 420)),
        1 => Just(token("elsewhere", 420)),
        1 => Just(token(ISSUER, 420)),
        1 => Just(token("sts.amazonaws.com", 511)),
        1 => Just(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})),
        1 => Just(json!({"csi": {"driver": "csi.spiffe.io", "readOnly": true}})),
        1 => Just(json!({"hostPath": {"path": "/"}})),
    ];
    (name, content).prop_map(|(name, mut volume)| {
        volume["name"] = name.into();
        volume
    })
}

/// A mount of one of our volumes, or of another one somewhere around our path.
fn our_mount() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        3 => Just(MOUNT.to_owned()),
        1 => Just(MOUNT.replace("/var/run", "/run")),
        1 => Just(format!("{MOUNT}/../aws")),
        1 => Just(CONFIG_FOLDER.to_owned()),
        1 => Just("/data".to_owned()),
    ];
    let volume = prop_oneof![
        3 => Just(VOLUME), 1 => Just(SOCKET_VOLUME), 1 => Just(SUBJECT_TOKEN_VOLUME), 1 => Just(CONFIG_VOLUME), 1 => Just("data"),
    ];
    (volume, path, any::<bool>())
        .prop_map(|(volume, path, read_only)| json!({"name": volume, "mountPath": path, "readOnly": read_only}))
}

/// A pod in which something bears our names: it was reviewed before, copied, made by hand, or brings a forged record.
fn pod_with_our_names() -> impl Strategy<Value = Value> {
    let mounts = prop::collection::vec(prop::option::of(our_mount()), 1..4);
    let pair = json!([
        {"name": "AWS_ROLE_ARN", "value": ROLE},
        {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": format!("{MOUNT}/token")},
    ]);
    let with_pair = prop::collection::vec(any::<bool>(), 4);
    let record = prop::option::of(any::<[bool; 2]>().prop_map(|[sidecar, writer]| {
        let grants = json!([{"role": ROLE, "containers": ["app-1"], "env": OURS}]);
        json!({"grants": grants, "hash": "", "sidecar": sidecar, "config_writer": writer.then_some("x")}).to_string()
    }));
    let volumes = prop::collection::btree_map("[a-d]", our_volume(), 0..4);
    let added = prop::option::of(prop_oneof![Just(SIDECAR), Just(CONFIG_WRITER)]);
    (any_pod(), mounts, with_pair, record, volumes, added).prop_map(
        move |(mut pod, mounts, with_pair, record, volumes, added)| {
            let containers = pod["spec"]["containers"].as_array_mut().unwrap();
            for ((container, mount), with_pair) in containers.iter_mut().zip(mounts).zip(with_pair) {
                container["volumeMounts"] = mount.into_iter().collect();
                if with_pair {
                    container["env"] = pair.clone();
                }
            }
            let mut names = std::collections::HashSet::new();
            let volumes = volumes
                .into_values()
                .filter(|volume| names.insert(volume["name"].to_string()));
            pod["spec"]["volumes"] = volumes.chain([json!({"name": "data", "emptyDir": {}})]).collect();
            if let Some(record) = record {
                pod["metadata"]["annotations"]["tokenscope.io/grant"] = record.into();
                with_each_variable_once(&mut pod);
            }
            if let Some(name) = added {
                pod["spec"]["initContainers"] = json!([{"name": name, "image": "mine"}]);
            }
            pod
        },
    )
}

/// Of a variable that stands there twice the last counts. Where that one is taken away, by a forged record or since ours took the
/// place of an empty one, the one before it is looked at in the next review only.
fn with_each_variable_once(pod: &mut Value) {
    for list in ["containers", "initContainers"] {
        let containers = pod["spec"].get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let mut names = std::collections::HashSet::new();
            if let Some(env) = container.get_mut("env").and_then(Value::as_array_mut) {
                env.retain(|variable| names.insert(variable["name"].to_string()));
            }
        }
    }
}

proptest! {
    // Each review checks both: see `ReviewFixture::review`.
    #[test]
    fn also_where_our_names_are_taken_nothing_else_changes_and_a_second_review_finds_nothing_to_do(
        pod in pod_with_our_names(), fixture in any_fixture(), two: bool,
    ) {
        let mut fixture = fixture;
        if two {
            let policies = two_audiences(TokenSource::ServiceAccount, "elsewhere").policies;
            fixture.policies = policies;
        }
        let reviewed = fixture.review(&pod);
        if reviewed.outcome() == ReviewOutcome::Granted {
            prop_assert_eq!(misplaced(&reviewed.pod), Vec::<String>::new());
        }
        // Reviewed by another installation in between, and changed by another webhook.
        let mut copy = reviewed.pod;
        copy["metadata"] = pod["metadata"].clone();
        fixture.review(&copy);
    }

    #[test]
    fn a_review_after_another_ones_changes_nothing_of_others_either(
        pod in pod_with_our_names(), before in any_fixture(), after in any_fixture(),
    ) {
        let mut pod = pod;
        with_each_variable_once(&mut pod);
        after.review(&before.review(&pod).pod);
    }

    #[test]
    fn nothing_that_is_not_ours_changes(pod in any_pod(), fixture in any_fixture()) {
        let reviewed = fixture.review(&pod);
        prop_assert_eq!(without_ours(&reviewed.pod), without_ours(&pod));
        // Variables that were there are there still, as they were and in their order, but for empty ones.
        for list in ["containers", "initContainers"] {
            let (before, after) = (pod["spec"][list].as_array(), reviewed.pod["spec"][list].as_array());
            let after = after.into_iter().flatten().filter(|container| !is_added_container(container["name"].as_str().unwrap()));
            for (before, after) in before.into_iter().flatten().zip(after) {
                let before = before["env"].as_array().cloned().unwrap_or_default();
                let after = after["env"].as_array().cloned().unwrap_or_default();
                for (before, after) in before.iter().zip(&after) {
                    prop_assert!(before == after || (is_empty(before) && before["name"] == after["name"]));
                }
                prop_assert!(after.len() >= before.len());
            }
        }
    }

    #[test]
    fn a_second_review_finds_nothing_to_do(pod in any_pod(), fixture in any_fixture()) {
        let once = fixture.review(&pod);
        let twice = fixture.review(&once.pod);
        prop_assert_eq!(&twice.patch, &Vec::<Value>::new());
        prop_assert_eq!(twice.outcome(), once.outcome());
    }

    #[test]
    fn after_a_change_the_pod_is_as_if_it_had_been_reviewed_only_then(pod in any_pod(), before in any_fixture(), after in any_fixture()) {
        let mut pod = pod;
        with_each_variable_once(&mut pod);
        let first = before.review(&pod);
        let redone = after.review(&first.pod);
        let direct = after.review(&pod);
        prop_assert_eq!(redone.outcome(), direct.outcome());
        if redone.outcome() != ReviewOutcome::Denied {
            prop_assert_eq!(comparable(&redone.pod), comparable(&direct.pod));
        }
    }
}

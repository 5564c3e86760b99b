//! Pods at random.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::config_file::CONFIG_FILE;
use tokenscope_fixtures::fuzz::corpus;

use super::fixtures::{EKS_TOKEN, OTHER_ROLE, OURS, ROLE, plain, with_each_variable_once};

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
    const VALUES: [&str; 10] = [
        ROLE,
        OTHER_ROLE,
        CONFIG_FILE,
        "/var/run/secrets/tokenscope.io/aws/token",
        EKS_TOKEN,
        "http://127.0.0.1:9912/v1/credentials/app-0",
        "http://169.254.170.23/v1/credentials",
        "default",
        "x",
        "",
    ];
    let others = ["AWS_PROFILE", "OTHER"];
    let names: Vec<&str> = OURS.iter().copied().chain(others).collect();
    (prop::sample::select(names), prop::sample::select(&VALUES[..]))
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

pub(crate) fn any_pod() -> impl Strategy<Value = Value> {
    let containers = prop::collection::vec(container(), 1..4);
    let init = prop::option::of(prop::collection::vec(container(), 0..3));
    let annotations = prop::option::of(prop::collection::vec(
        prop_oneof![
            Just(("tokenscope.io/role-arn".to_owned(), ROLE.to_owned())),
            Just(("tokenscope.io/role-arn.app-1".to_owned(), OTHER_ROLE.to_owned())),
            Just(("tokenscope.io/skip-containers".to_owned(), "app-0".to_owned())),
            Just(("tokenscope.io/audience".to_owned(), "elsewhere".to_owned())),
            Just(("tokenscope.io/reviewed".to_owned(), "granted".to_owned())),
            Just((
                "eks.amazonaws.com/skip-containers".to_owned(),
                "app-1, app-2".to_owned()
            )),
            Just(("eks.amazonaws.com/token-expiration".to_owned(), "900".to_owned())),
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

/// The pods that once mattered.
pub(crate) fn pods() -> Vec<Value> {
    let files = corpus(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/pod_corpus"));
    files.iter().map(|file| serde_json::from_slice(file).unwrap()).collect()
}

/// A pod of these; one that once mattered; or such a one with a part of these.
pub(crate) fn or_known(made: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let part = prop::option::of(prop::sample::select(
        &["/metadata/annotations", "/spec/volumes", "/spec/initContainers"][..],
    ));
    let known = prop::option::of((prop::sample::select(pods()), part));
    (made, known).prop_map(|(made, known)| {
        let Some((mut pod, part)) = known else { return made };
        if let Some(part) = part {
            let (parent, key) = part.rsplit_once('/').unwrap();
            match made.pointer(part) {
                Some(value) => pod.pointer_mut(parent).unwrap()[key] = value.clone(),
                None => drop(pod.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key)),
            }
            with_each_variable_once(&mut pod);
        }
        pod
    })
}

//! Pods in which something bears names of ours, or those of EKS.

use proptest::prelude::*;
use serde_json::{Value, json};
use tokenscope_core::config_file::CONFIG_FOLDER;
use tokenscope_core::credentials_endpoint::AUTHORIZATION_FOLDER;
use tokenscope_core::outbound::OUTBOUND_FOLDER;
use tokenscope_core::pod::{CONFIG_VOLUME, CONFIG_WRITER, SIDECAR, SOURCE_TOKEN_VOLUME};

use super::fixtures::{
    AGENT_VOLUME, EKS_MOUNT, EKS_TOKEN, EKS_VOLUME, ISSUER, MOUNT, OURS, ROLE, SOCKET_VOLUME, SUBJECT_TOKEN_VOLUME,
    VOLUME, authorization_of, with_each_variable_once,
};
use super::inputs::any_pod;
use super::installations::{PARTY, outbound_volumes};

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
        1 => Just(SOURCE_TOKEN_VOLUME.to_owned()),
        1 => Just(authorization_of("app-1")),
        2 => Just(EKS_VOLUME.to_owned()),
        1 => Just(AGENT_VOLUME.to_owned()),
        2 => prop::sample::select(outbound_volumes()),
    ];
    let content = prop_oneof![
        3 => Just(token("sts.amazonaws.com", 420)),
        1 => Just(token("elsewhere", 420)),
        1 => Just(party_token()),
        1 => Just(token(ISSUER, 420)),
        1 => Just(token("sts.amazonaws.com", 511)),
        1 => Just(token("pods.eks.amazonaws.com", 420)),
        1 => Just(json!({"emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}})),
        1 => Just(json!({"csi": {"driver": "csi.spiffe.io", "readOnly": true}})),
        1 => Just(json!({"hostPath": {"path": "/"}})),
    ];
    (name, content).prop_map(|(name, mut volume)| {
        volume["name"] = name.into();
        volume
    })
}

/// The token of the cluster for a third party, as it is written.
fn party_token() -> Value {
    json!({"projected": {"sources": [{"serviceAccountToken":
        {"audience": PARTY, "expirationSeconds": 900, "path": "token"}}]}})
}

/// A mount of one of our volumes, or of another one somewhere around our path.
fn our_mount() -> impl Strategy<Value = Value> {
    let path = prop_oneof![
        3 => Just(MOUNT.to_owned()),
        2 => Just(EKS_MOUNT.to_owned()),
        1 => Just(MOUNT.replace("/var/run", "/run")),
        1 => Just(format!("{MOUNT}/../aws")),
        1 => Just(CONFIG_FOLDER.to_owned()),
        1 => Just(AUTHORIZATION_FOLDER.to_owned()),
        1 => Just(format!("{OUTBOUND_FOLDER}/cluster")),
        1 => Just(format!("{OUTBOUND_FOLDER}/aws/x")),
        1 => Just("/data".to_owned()),
    ];
    let volume = prop_oneof![
        3 => Just(VOLUME.to_owned()), 1 => Just(SOCKET_VOLUME.to_owned()), 1 => Just(SUBJECT_TOKEN_VOLUME.to_owned()),
        2 => Just(EKS_VOLUME.to_owned()), 1 => Just(AGENT_VOLUME.to_owned()),
        1 => Just(SOURCE_TOKEN_VOLUME.to_owned()), 1 => Just(authorization_of("app-1")), 1 => Just(CONFIG_VOLUME.to_owned()), 1 => Just("data".to_owned()),
        2 => prop::sample::select(outbound_volumes()),
    ];
    (volume, path, any::<bool>())
        .prop_map(|(volume, path, read_only)| json!({"name": volume, "mountPath": path, "readOnly": read_only}))
}

/// A pod in which something bears our names: it was reviewed before, copied, made by hand, or brings a forged record.
pub(crate) fn pod_with_our_names() -> impl Strategy<Value = Value> {
    let mounts = prop::collection::vec(prop::option::of(our_mount()), 1..4);
    let pair = prop::sample::select(vec![format!("{MOUNT}/token"), EKS_TOKEN.to_owned()]).prop_map(
        |file| json!([{"name": "AWS_ROLE_ARN", "value": ROLE}, {"name": "AWS_WEB_IDENTITY_TOKEN_FILE", "value": file}]),
    );
    let with_pair = prop::collection::vec(any::<bool>(), 4);
    let record = prop::option::of(any::<[bool; 2]>().prop_map(|[sidecar, writer]| {
        let grants = json!([{"role": ROLE, "containers": ["app-1"], "env": OURS}]);
        json!({"grants": grants, "hash": "", "sidecar": sidecar, "config_writer": writer.then_some("x")}).to_string()
    }));
    let volumes = prop::collection::btree_map("[a-d]", our_volume(), 0..4);
    let added = prop::option::of(prop_oneof![Just(SIDECAR), Just(CONFIG_WRITER)]);
    let made = (any_pod(), mounts, (pair, with_pair), record, volumes, added);
    made.prop_map(|(mut pod, mounts, (pair, with_pair), record, volumes, added)| {
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
    })
}

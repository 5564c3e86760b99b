//! Whoever may change a running pod, and what its SDK does then.

use anyhow::Result;
use serde_json::{Value, json};
use tokenscope_core::config_file::CONFIG_FILE;
use tokenscope_e2e::control_plane::NODE;
use tokenscope_e2e::fixtures::{ORDERS, WHO_AM_I, container_of};
use tokenscope_e2e::{get_json, merge, post};

use super::accounts::{AT_THE_END, ChainedPod, TwoAccounts};
use super::{WRITER, text};

/// What an SDK would run a program by, if it stood in the file.
const EVIL: &str = "x\ncredential_process = /bin/sh";

/// Who the SDK is in the container.
fn who(pod: &ChainedPod, accounts: &TwoAccounts) -> Result<String> {
    let url = accounts.url();
    let arn = tokio::task::block_in_place(|| pod.container.python(WHO_AM_I, &[("AWS_ENDPOINT_URL_STS", &*url)]))?;
    Ok(arn.trim().to_owned())
}

/// Changes and removes each label and annotation of the pod, by the pod and by its status. Returns how many of these changes were taken.
async fn change_metadata(user: &kube::Client, pod: &ChainedPod) -> usize {
    let path = pod.shop.path("pods/orders-1");
    let mut changed = 0;
    for map in ["labels", "annotations"] {
        for key in pod.stored["metadata"][map].as_object().unwrap().keys() {
            for value in [json!(if map == "labels" { "x" } else { EVIL }), Value::Null] {
                for subresource in ["", "/status"] {
                    let change = json!({"metadata": {map: {key: value}}});
                    changed += usize::from(merge(user, &format!("{path}{subresource}"), &change).await.is_ok());
                }
            }
        }
    }
    changed
}

/// Binds a pod to the node, with an annotation.
async fn bind(user: &kube::Client, pod: &ChainedPod, name: &str) -> kube::Result<Value> {
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": {"name": name, "annotations": {"example.com/note": EVIL}},
        "target": {"apiVersion": "v1", "kind": "Node", "name": NODE},
    });
    post(user, &pod.shop.path(&format!("pods/{name}/binding")), &binding).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_change_a_running_pod_changes_nothing_of_the_files_text_and_nothing_of_what_its_sdk_does() {
    let metadata = json!({"labels": {"app": "orders"}, "annotations": {"example.com/note": "a"}});
    let mut pod = ChainedPod::create("patched", &metadata).await;
    let accounts = TwoAccounts::of(&pod).await;
    let (before, file) = (pod.stored.clone(), pod.config_file());
    assert_eq!(who(&pod, &accounts).unwrap(), AT_THE_END);

    let user = pod.shop.patcher().await.unwrap();
    let path = pod.shop.path("pods/orders-1");
    let changed = change_metadata(&user, &pod).await;
    assert!(changed > 3, "what is not ours can be changed: {changed}");
    let arguments =
        json!({"spec": {"initContainers": [{"name": WRITER, "image": "evil", "args": ["write", CONFIG_FILE, EVIL]}]}});
    merge(&user, &path, &arguments).await.unwrap_err();
    bind(&user, &pod, "orders-1").await.unwrap_err(); // it has a node
    let note = json!({"metadata": {"annotations": {"example.com/note": EVIL}}});
    merge(&user, &path, &note).await.unwrap();

    // As after a restart: the container's variables and its files are made of the pod as it is now.
    pod.start_again().await;
    assert_eq!(pod.stored["metadata"]["annotations"]["example.com/note"], EVIL);
    assert_eq!(text(&pod.stored), text(&before));
    assert_eq!(pod.stored["spec"]["initContainers"], before["spec"]["initContainers"]);
    assert_eq!(
        container_of(&pod.stored, "app")["env"],
        container_of(&before, "app")["env"]
    );
    assert_eq!(pod.config_file(), file);
    assert_eq!(who(&pod, &accounts).unwrap(), AT_THE_END);

    // Of a pod that has no node yet, a binding writes annotations.
    let asking = pod.shop.asking("orders-2", ORDERS);
    let unbound = pod.shop.granted(&asking).await.unwrap().body;
    bind(&user, &pod, "orders-2").await.unwrap();
    let bound = get_json(&pod.shop.client, &pod.shop.path("pods/orders-2"))
        .await
        .unwrap();
    assert_eq!(bound["metadata"]["annotations"]["example.com/note"], EVIL);
    assert_eq!(bound["spec"]["initContainers"], unbound["spec"]["initContainers"]);
    assert_eq!(container_of(&bound, "app")["env"], container_of(&unbound, "app")["env"]);

    // An ephemeral container may read the file and not write it.
    let with = |name: &str, read_only: bool| {
        json!({"spec": {"ephemeralContainers": [{
            "name": name, "image": "i",
            "volumeMounts": [{"name": WRITER, "mountPath": "/config", "readOnly": read_only}],
        }]}})
    };
    let ephemeral = format!("{path}/ephemeralcontainers");
    let refused = merge(&user, &ephemeral, &with("writes", false))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("only with readOnly: true"), "{refused}");
    merge(&user, &ephemeral, &with("reads", true)).await.unwrap();
}

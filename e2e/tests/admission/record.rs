//! Users who may change running pods, and what admission wrote on them: nothing of it changes.

use anyhow::ensure;
use http::{HeaderValue, Method, header};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, create};
use tokenscope_e2e::fixtures::ORDERS;
use tokenscope_e2e::{delete, eventually, get_json, merge, post, put};

use crate::{Door, MARK, SOON};

/// What admission decided, and what it was asked for.
const RECORDED: [&str; 8] = [
    "grant",
    "reviewed",
    "role-arn",
    "audience",
    "token-expiration",
    "containers",
    "skip-containers",
    "inject",
];

/// Of a pod, what decisions after admission could read.
fn record_of(pod: &Value) -> Value {
    let annotations: Vec<_> = RECORDED
        .iter()
        .map(|key| pod["metadata"]["annotations"][format!("tokenscope.io/{key}")].clone())
        .collect();
    json!({"mark": pod["metadata"]["labels"][MARK], "annotations": annotations})
}

#[tokio::test]
async fn whoever_may_patch_a_pod_changes_nothing_that_is_read_of_it() {
    let door = Door::open(&Value::Null).await;
    let shop = door.shop("shop", &[]).await;
    let user = shop.patcher().await.unwrap();
    let before = accepts(&door.client, &shop.asking("asking", ORDERS)).await.unwrap();
    assert_eq!(before["metadata"]["labels"][MARK], "granted");
    let path = shop.path("pods/asking");

    let mut changes = vec![
        json!({"labels": {MARK: null}}),
        json!({"labels": {MARK: "untouched"}}),
        json!({"labels": null}),
        json!({"annotations": null}),
    ];
    for key in RECORDED {
        changes.extend(
            [json!("other"), json!(""), Value::Null]
                .map(|value| json!({"annotations": {format!("tokenscope.io/{key}"): value}})),
        );
    }
    let mut refused = 0;
    for change in &changes {
        for subresource in ["", "/status", "/resize", "/ephemeralcontainers"] {
            let answer = merge(&user, &format!("{path}{subresource}"), &json!({"metadata": change})).await;
            if let Err(kube::Error::Api(status)) = &answer {
                assert_eq!(status.code, 403, "{change} on {subresource:?}: {}", status.message);
                assert!(status.message.contains("'tokenscope-record'"), "{}", status.message);
                refused += 1;
            }
            let after = get_json(&door.client, &path).await.unwrap();
            assert_eq!(record_of(&after), record_of(&before), "{change} on {subresource:?}");
        }
    }
    assert!(
        refused > changes.len(),
        "only {refused} were refused, so they were no changes at all"
    );

    writing_the_whole_pod_is_refused(&door, &user, &path).await;
    assert_eq!(
        record_of(&get_json(&door.client, &path).await.unwrap()),
        record_of(&before)
    );

    a_pod_that_was_not_reviewed_gets_no_mark_later(&door).await;
}

/// Nor by writing the whole pod, or as JSON Patch.
async fn writing_the_whole_pod_is_refused(door: &Door, user: &Client, path: &str) {
    let mut whole = get_json(&door.client, path).await.unwrap();
    whole["metadata"]["labels"] = json!({});
    for subresource in ["", "/status"] {
        put(user, &format!("{path}{subresource}"), &whole).await.unwrap_err();
    }
    let operations = json!([{"op": "remove", "path": "/metadata/labels/tokenscope.io~1reviewed"}]);
    let mut request = http::Request::builder()
        .method(Method::PATCH)
        .uri(path)
        .body(operations.to_string().into_bytes())
        .unwrap();
    request.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json-patch+json"),
    );
    user.request::<Value>(request).await.unwrap_err();
}

async fn a_pod_that_was_not_reviewed_gets_no_mark_later(door: &Door) {
    let plain = json!({"metadata": {"name": "plain", "namespace": "kube-system"}, "spec": {"containers": [{"name": "app", "image": "app"}]}});
    door.stand_in
        .answers(crate::stand_in::Way::Status(500), crate::stand_in::Way::Status(500));
    accepts(&door.client, &plain).await.unwrap();
    for subresource in ["", "/status"] {
        let change = json!({"metadata": {"labels": {MARK: "granted"}}});
        merge(
            &door.client,
            &format!("/api/v1/namespaces/kube-system/pods/plain{subresource}"),
            &change,
        )
        .await
        .unwrap_err();
    }
}

#[tokio::test]
async fn whoever_may_bind_a_pod_to_a_node_writes_nothing_of_it_into_the_pod() {
    let door = Door::open(&Value::Null).await;
    let shop = door.shop("shop", &[]).await;
    let user = shop.patcher().await.unwrap();
    let before = accepts(&door.client, &shop.asking("asking", ORDERS)).await.unwrap();
    let binding = |metadata: Value| {
        let mut binding = json!({
            "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
            "target": {"apiVersion": "v1", "kind": "Node", "name": tokenscope_e2e::control_plane::NODE},
        });
        binding["metadata"]["name"] = json!("asking");
        binding
    };
    let mut forged = vec![json!({"labels": {MARK: "untouched"}}), json!({"labels": {MARK: ""}})];
    forged.extend(RECORDED.map(|key| json!({"annotations": {format!("tokenscope.io/{key}"): "other"}})));
    for metadata in forged {
        for path in ["pods/asking/binding", "bindings"] {
            let answer = create(&user, &shop.path(path), &binding(metadata.clone()))
                .await
                .unwrap();
            assert_eq!(answer.status, 403, "{metadata}: {}", answer.body);
            assert!(
                answer.message().contains("'tokenscope-record-binding'"),
                "{}",
                answer.message()
            );
        }
    }
    let honest = binding(json!({"annotations": {"example.com/scheduled-by": "us"}}));
    post(&user, &shop.path("pods/asking/binding"), &honest).await.unwrap();
    let after = get_json(&door.client, &shop.path("pods/asking")).await.unwrap();
    assert_eq!(after["metadata"]["annotations"]["example.com/scheduled-by"], "us");
    assert_eq!(record_of(&after), record_of(&before));
}

#[tokio::test]
async fn everything_else_of_a_reviewed_pod_may_change_and_it_may_go() {
    let door = Door::open(&Value::Null).await;
    let shop = door.shop("shop", &[]).await;
    let mut pod = shop.asking("asking", ORDERS);
    pod["metadata"]["finalizers"] = json!(["example.com/last-words"]);
    accepts(&door.client, &pod).await.unwrap();
    let path = shop.path("pods/asking");
    for change in [
        json!({"metadata": {"labels": {"app": "orders"}, "annotations": {"example.com/note": "x"}}}),
        json!({"metadata": {"annotations": {"tokenscope.io/something-else": "x"}}}),
        json!({"spec": {"activeDeadlineSeconds": 600}}),
    ] {
        merge(&door.client, &path, &change).await.unwrap();
    }
    let running = json!({"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}});
    merge(&door.client, &format!("{path}/status"), &running).await.unwrap();
    delete(&door.client, &path).await.unwrap();
    merge(&door.client, &path, &json!({"metadata": {"finalizers": null}}))
        .await
        .unwrap();
    eventually(SOON, "the pod is gone", async || {
        ensure!(get_json(&door.client, &path).await.is_err(), "it is there");
        Ok(())
    })
    .await
    .unwrap();
}

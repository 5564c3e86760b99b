//! Another webhook adds containers, or throws edits of ours away.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::admission::{accepts, try_pod};
use tokenscope_e2e::fixtures::{
    ADMIN, CARTS, ORDERS, annotation, container_of, environment, mounted_at, orders_may, reviewed, variable,
};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook};

use crate::{MOUNT, VOLUME, comparable, record_of, shop, suffix, within_rights};

#[tokio::test]
async fn sidecars_that_another_webhook_adds_get_their_own_edits_and_nothing_is_doubled() {
    let shop = shop("sidecars").await;
    shop.allow_orders().await.unwrap();
    shop.control_plane
        .create_service_account("sidecars", "annotated", &[("tokenscope.io/role-arn", CARTS)])
        .await
        .unwrap();
    let by_account = json!({
        "subjects": [{"serviceAccounts": ["annotated"]}], "roles": {"allowed": [CARTS]},
    });
    shop.policy("annotated", by_account).await.unwrap();
    let by_default = json!({
        "subjects": [{"podSelector": {"matchLabels": {"app": "by-default"}}}], "roles": {"allowed": [CARTS], "default": CARTS},
    });
    shop.policy("by-default", by_default).await.unwrap();
    let of_account = |name: &str| {
        let mut pod = shop.pod(name);
        pod["spec"]["serviceAccountName"] = json!("annotated");
        pod
    };
    let labelled = |name: &str| {
        let mut pod = shop.pod(name);
        pod["metadata"]["labels"] = json!({"app": "by-default"});
        pod
    };
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    shop.granted(&of_account("alone-of-account")).await.unwrap();
    shop.granted(&labelled("alone-by-default")).await.unwrap();

    let mut specs = Vec::new();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "sidecars", add_sidecars)
            .await
            .unwrap();
        let suffix = suffix(order);
        let asking = accepts(&shop.client, &shop.asking(&format!("asking-{suffix}"), ORDERS))
            .await
            .unwrap();
        injected(&asking, ORDERS).unwrap();
        for pod in [
            of_account(&format!("account-{suffix}")),
            labelled(&format!("default-{suffix}")),
        ] {
            let calls = second.calls();
            let pod = accepts(&shop.client, &pod).await.unwrap();
            injected(&pod, CARTS).unwrap();
            assert!(second.calls() > calls);
        }
        specs.push(comparable(&asking["spec"]));
        second.remove(shop.control_plane).await.unwrap();
    }
    assert_eq!(specs[0], specs[1], "the order of the webhooks doesn't matter");
    within_rights(&shop);
}

/// The pod has one volume of ours, all its containers have the same edits, once each, and the record names them.
fn injected(pod: &Value, role: &str) -> Result<()> {
    ensure!(reviewed(pod) == Some("granted"), "not granted: {pod}");
    let volumes = pod["spec"]["volumes"].as_array().cloned().unwrap_or_default();
    let ours = volumes.iter().filter(|volume| volume["name"] == VOLUME).count();
    ensure!(ours == 1, "{ours} volumes of ours: {volumes:?}");
    for container in ["app", "mesh", "proxy"] {
        edited_once(pod, container, role)?;
    }
    let record: Value = serde_json::from_str(annotation(pod, "tokenscope.io/grant").unwrap_or_default())?;
    let grants = record["grants"].as_array().cloned().unwrap_or_default();
    let mut containers: Vec<String> = grants
        .iter()
        .flat_map(|grant| grant["containers"].as_array().cloned().unwrap_or_default())
        .map(|name| name.as_str().unwrap_or_default().to_owned())
        .collect();
    containers.sort();
    ensure!(containers == ["app", "mesh", "proxy"], "the record is {record}");
    Ok(())
}

/// The container has the same variables as the first one, each once, and its token at one place.
fn edited_once(pod: &Value, container: &str, role: &str) -> Result<()> {
    let expected = environment(pod, "app");
    let environment = environment(pod, container);
    ensure!(
        environment == expected,
        "{container}: {environment:?} and not {expected:?}"
    );
    let mut names: Vec<_> = environment.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    ensure!(
        names.len() == environment.len(),
        "a variable is there twice: {environment:?}"
    );
    ensure!(
        variable(pod, container, "AWS_ROLE_ARN").as_deref() == Some(role),
        "{pod}"
    );
    let file = variable(pod, container, "AWS_WEB_IDENTITY_TOKEN_FILE");
    ensure!(file.as_deref() == Some(&format!("{MOUNT}/token")), "{pod}");
    ensure!(mounted_at(pod, container, VOLUME) == Some(MOUNT), "{pod}");
    let mounts = container_of(pod, container)["volumeMounts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let ours = mounts.iter().filter(|mount| mount["name"] == VOLUME).count();
    ensure!(ours == 1, "mounted {ours} times: {mounts:?}");
    Ok(())
}

#[tokio::test]
async fn edits_that_another_webhook_throws_away_are_made_again() {
    let shop = shop("careless").await;
    shop.policy("orders", orders_may(&[ORDERS])).await.unwrap();
    let expected = shop.granted(&shop.asking("expected", ORDERS)).await.unwrap().body;

    // It writes the first container anew from a template, once.
    let second = SecondWebhook::start(shop.control_plane, Order::After, "careless", |pod| {
        if pod["metadata"]["labels"]["templated"].is_string() {
            return Vec::new();
        }
        vec![
            json!({"op": "add", "path": "/metadata/labels", "value": {"templated": "yes"}}),
            json!({"op": "replace", "path": "/spec/containers/0", "value": {
                "name": "app", "image": "app", "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File", "imagePullPolicy": "Always", "resources": {},
            }}),
        ]
    })
    .await
    .unwrap();
    let pod = accepts(&shop.client, &shop.asking("templated", ORDERS)).await.unwrap();
    assert_eq!(pod["metadata"]["labels"]["templated"], "yes");
    assert_eq!(environment(&pod, "app"), environment(&expected, "app"));
    assert_eq!(mounted_at(&pod, "app", VOLUME), Some(MOUNT));
    let (record, expected) = (record_of(&pod), record_of(&expected));
    assert_eq!(
        record["labels"],
        json!({"templated": "yes"}),
        "those that the pod was admitted with"
    );
    assert_eq!(record["grants"], expected["grants"]);
    assert_eq!(record["hash"], expected["hash"]);
    second.remove(shop.control_plane).await.unwrap();

    // And a pod of its own whose record is forged: what it claims to be ours is the user's, or is refused; it is never a
    // way around the policy.
    let record = r#"{"grants":[{"role":"x","containers":["app"],"env":["AWS_ROLE_ARN"]}],"hash":"0000000000000000"}"#;
    let mut forged = shop.asking("forged", ORDERS);
    forged["metadata"]["annotations"]["tokenscope.io/grant"] = json!(record);
    forged["metadata"]["annotations"]["tokenscope.io/reviewed"] = json!("granted");
    forged["spec"]["containers"][0]["env"] = json!([{"name": "AWS_ROLE_ARN", "value": ADMIN}]);
    let answer = try_pod(&shop.client, &forged).await.unwrap();
    if answer.accepted() {
        assert_eq!(
            variable(&answer.body, "app", "AWS_ROLE_ARN").as_deref(),
            Some(ORDERS),
            "{}",
            answer.body
        );
    }
    within_rights(&shop);
}

/// As a mesh does: a container and a native sidecar, unless they are there.
fn add_sidecars(pod: &Value) -> Vec<Value> {
    let has = |list: &str, name: &str| {
        let containers = pod["spec"][list].as_array();
        containers.is_some_and(|containers| containers.iter().any(|container| container["name"] == name))
    };
    let mut operations = Vec::new();
    if !has("containers", "mesh") {
        let container = json!({"name": "mesh", "image": "mesh"});
        operations.push(json!({"op": "add", "path": "/spec/containers/-", "value": container}));
    }
    if !has("initContainers", "proxy") {
        let container = json!({"name": "proxy", "image": "proxy", "restartPolicy": "Always"});
        operations.push(json!({"op": "add", "path": "/spec/initContainers", "value": [container]}));
    }
    operations
}

//! Policies whose credentials a sidecar serves, on a real API server: what pods get, and who can change or read it.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokenscope_core::credentials_endpoint::{CredentialsEndpoint, ENDPOINT_VARIABLE};
use tokenscope_core::hash_of_texts;
use tokenscope_e2e::admission::{accepts, rejects};
use tokenscope_e2e::fixtures::{
    ORDERS, PROPAGATION, container_of, init_containers, mounted_at, orders_may, variable, volume,
};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook, put_mesh_first};
use tokenscope_e2e::{eventually, get_json, merge};

use super::{TARGET, chain, granted_without_a_warning, names_of_variables, shop};

pub(super) const SIDECAR: &str = "tokenscope-sidecar";
const SOURCE: &str = "tokenscope-source-token";

/// ServiceAccount `orders` may have a role, and a sidecar takes it, then another one, and narrows what the session may do.
pub(super) fn served() -> Value {
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({
        "region": "eu-central-1", "sts": {"regions": ["eu-central-1", "eu-west-1"]},
        "roleSessionName": "${pod.name}", "roleChain": chain(),
        "sessionPolicy": {"inline": "{\"Statement\": [{\"Resource\": \"${aws:PrincipalTag/team}\"}]}"},
    });
    spec["delivery"] = json!({"type": "Endpoint"});
    spec
}

fn authorization_of(container: &str) -> String {
    format!("tokenscope-authorization-{}", hash_of_texts([container]))
}

/// What the sidecar of a stored pod is told, as the kubelet gives it.
pub(super) fn told(pod: &Value) -> CredentialsEndpoint {
    let name = pod["metadata"]["name"].as_str().unwrap();
    let value = variable(pod, SIDECAR, ENDPOINT_VARIABLE).unwrap();
    let value = value.replace("$(TOKENSCOPE_POD_NAME)", name).replace("$$", "$");
    serde_json::from_str(&value).unwrap()
}

#[tokio::test]
async fn a_pod_gets_a_sidecar_that_has_the_token_and_containers_that_have_none() {
    let shop = shop("served").await;
    let pod = granted_without_a_warning(&shop, served()).await;

    assert_eq!(init_containers(&pod), [SIDECAR, "migrate"]);
    for name in ["migrate", "app"] {
        assert_eq!(
            names_of_variables(&pod, name),
            [
                "AWS_STS_REGIONAL_ENDPOINTS",
                "AWS_DEFAULT_REGION",
                "AWS_REGION",
                "AWS_EC2_METADATA_DISABLED",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"
            ]
        );
        let own = authorization_of(name);
        assert_eq!(
            mounted_at(&pod, name, &own),
            Some("/var/run/secrets/tokenscope.io/authorization")
        );
        assert_eq!(volume(&pod, &own).unwrap()["emptyDir"]["medium"], "Memory");
        assert_eq!(mounted_at(&pod, name, SOURCE), None);
    }
    assert_eq!(mounted_at(&pod, "app", &authorization_of("migrate")), None);
    let token = &volume(&pod, SOURCE).unwrap()["projected"]["sources"][0]["serviceAccountToken"];
    assert_eq!(token["audience"], "sts.amazonaws.com");
    assert_eq!(mounted_at(&pod, SIDECAR, SOURCE), Some("/tokenscope-source-token"));

    let told = told(&pod);
    let app = told.containers.iter().find(|served| &*served.name == "app").unwrap();
    assert_eq!(app.role.session_name.as_deref(), Some("orders-1"));
    assert_eq!(app.chain[0].role.as_str(), TARGET);
    assert_eq!(app.regions.len(), 2);
    let inline = app.session_policy.as_ref().unwrap().inline.as_ref().unwrap();
    assert!(inline.contains("${aws:PrincipalTag/team}"), "{inline}");
    assert_eq!(
        told.url_of("app"),
        variable(&pod, "app", "AWS_CONTAINER_CREDENTIALS_FULL_URI").unwrap()
    );
}

#[tokio::test]
async fn whoever_may_change_a_running_pod_changes_nothing_of_what_is_served_and_reads_no_token() {
    let shop = shop("served-patched").await;
    shop.policy("orders", served()).await.unwrap();
    let mut pod = shop.asking("orders", ORDERS);
    pod["metadata"]["labels"] = json!({"app": "orders"});
    let before = shop.granted(&pod).await.unwrap().body;
    let user = shop.patcher().await.unwrap();
    let path = shop.path("pods/orders");

    let mut changed = 0;
    for (map, key) in [
        ("labels", "app"),
        ("annotations", "tokenscope.io/role-arn"),
        ("annotations", "new"),
    ] {
        for subresource in ["", "/status"] {
            let change = json!({"metadata": {map: {key: "x"}}});
            changed += usize::from(merge(&user, &format!("{path}{subresource}"), &change).await.is_ok());
        }
    }
    assert!(changed > 1, "what is not ours can be changed: {changed}");
    let mut sidecar = container_of(&before, SIDECAR).clone();
    let env = sidecar["env"].as_array_mut().unwrap();
    env.last_mut().unwrap()["value"] = json!("{}");
    let change = json!({"spec": {"initContainers": [sidecar]}});
    merge(&user, &path, &change).await.unwrap_err();
    // The kubelet starts a sidecar anew with another image, which would have what only the sidecar mounts.
    let mut thief = container_of(&before, SIDECAR).clone();
    thief["image"] = json!("thief");
    let change = json!({"spec": {"initContainers": [thief]}});
    let refused = merge(&user, &path, &change).await.unwrap_err().to_string();
    assert!(
        refused.contains("nor can the images of the containers that it added"),
        "{refused}"
    );

    let after = get_json(&shop.client, &path).await.unwrap();
    for part in ["initContainers", "containers", "volumes"] {
        assert_eq!(after["spec"][part], before["spec"][part], "{part}");
    }

    let ephemeral = format!("{path}/ephemeralcontainers");
    let own = authorization_of("app");
    for name in [SOURCE, own.as_str()] {
        let container = json!({"name": "thief", "image": "i", "volumeMounts": [{"name": name, "mountPath": "/x", "readOnly": true}]});
        let change = json!({"spec": {"ephemeralContainers": [container]}});
        let refused = merge(&user, &ephemeral, &change).await.unwrap_err().to_string();
        assert!(
            refused.contains("may not mount a volume with a token for the sidecar"),
            "{refused}"
        );
    }
    let looking = |target: &str| json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": "i", "targetContainerName": target}]}});
    let refused = merge(&user, &ephemeral, &looking(SIDECAR))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("may not look into the container tokenscope-sidecar"),
        "{refused}"
    );
    merge(&user, &ephemeral, &looking("app")).await.unwrap();
}

#[tokio::test]
async fn a_pod_whose_port_is_not_its_own_is_refused_and_a_copy_comes_out_the_same() {
    let shop = shop("served-refused").await;
    shop.policy("orders", served()).await.unwrap();
    let good = shop.granted(&shop.asking("orders", ORDERS)).await.unwrap().body;
    let metadata =
        json!({"name": "copy", "namespace": "served-refused", "annotations": {"tokenscope.io/role-arn": ORDERS}});
    let copy = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": good["spec"]});
    let copy = accepts(&shop.client, &copy).await.unwrap();
    for part in ["initContainers", "containers", "volumes"] {
        assert_eq!(copy["spec"][part], good["spec"][part], "{part}");
    }

    let mut host = shop.asking("host", ORDERS);
    host["spec"]["hostNetwork"] = json!(true);
    let message = rejects(&shop.client, &host).await.unwrap();
    assert!(message.contains("hostNetwork: true"), "{message}");
    let mut windows = shop.asking("windows", ORDERS);
    windows["spec"]["os"] = json!({"name": "windows"});
    let message = rejects(&shop.client, &windows).await.unwrap();
    assert!(message.contains("runs on Linux only"), "{message}");
    let mut port = shop.asking("port", ORDERS);
    port["spec"]["containers"][0]["ports"] = json!([{"containerPort": 9912}]);
    let message = rejects(&shop.client, &port).await.unwrap();
    assert!(message.contains("declares port 9912"), "{message}");
}

#[tokio::test]
async fn the_sidecar_stays_first_whatever_another_webhook_puts_before_it() {
    let shop = shop("served-pushed").await;
    shop.policy("orders", served()).await.unwrap();
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "served-pushed", put_mesh_first)
            .await
            .unwrap();
        let name = format!("pod-{order:?}").to_lowercase();
        let pod = accepts(&shop.client, &shop.asking(&name, ORDERS)).await.unwrap();
        assert_eq!(init_containers(&pod), [SIDECAR, "mesh-init"], "{order:?}");
        assert_eq!(told(&pod).containers.len(), 2, "{order:?}");
        second.remove(shop.control_plane).await.unwrap();
    }
}

#[tokio::test]
async fn the_status_accepts_the_policy_and_has_both_sides_of_each_step() {
    let shop = shop("served-status").await;
    shop.policy("orders", served()).await.unwrap();
    let path = "/apis/tokenscope.io/v1alpha1/namespaces/served-status/tokenscopepolicies/orders";
    eventually(PROPAGATION, "the status has the policies of the chain", async || {
        let object = get_json(&shop.client, path).await?;
        let status = &object["status"];
        let policies = status["roleChainPolicies"].as_array().cloned().unwrap_or_default();
        let last = policies.last().with_context(|| status.to_string())?;
        ensure!(last["roleArn"] == TARGET, "{last}");
        ensure!(last["trustPolicy"].to_string().contains("sts:ExternalId"), "{last}");
        ensure!(status["trustPolicies"][0]["roleArn"] == ORDERS, "{status}");
        Ok(())
    })
    .await
    .unwrap();
    let mut spec = served();
    spec["aws"] = json!({"sessionDurationSeconds": 7200});
    shop.policy("orders", spec).await.unwrap();
    eventually(PROPAGATION, "the status says that there is no region", async || {
        let object = get_json(&shop.client, path).await?;
        let text = object["status"]["conditions"].to_string();
        ensure!(text.contains("delivery.type Endpoint needs a region"), "{text}");
        Ok(())
    })
    .await
    .unwrap();
}

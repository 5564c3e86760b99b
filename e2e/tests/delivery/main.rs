//! Policies that deliver credentials by an AWS config file or a sidecar, on a real API server: what pods get, who can change it, and what
//! unmodified SDKs make of it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod accounts;
mod botocore;
mod endpoint;
mod ministack;
mod neighbour;
mod patched;
mod profile_sdks;
mod recorder;
mod sdks;
mod served_sdk;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokenscope_core::config_file::CONFIG_FILE;
use tokenscope_e2e::admission::{accepts, rejects};
use tokenscope_e2e::container::ContainerView;
use tokenscope_e2e::fixtures::{
    ORDERS, PROPAGATION, Shop, WHO_AM_I, container_of, environment, init_containers, mounted_at, orders_may, sts,
    variable, volume,
};
use tokenscope_e2e::second_webhook::{Order, SecondWebhook, put_mesh_first};
use tokenscope_e2e::{Environment, Shared, eventually, get_json, install, sidecar};

static SHARED: Shared = Shared::new(install::Options::default);

const WRITER: &str = "tokenscope-aws-config";

const TARGET: &str = "arn:aws:iam::444455556666:role/target";

async fn shop(namespace: &str) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, &[]).await.unwrap()
}

/// ServiceAccount `orders` may have a role, and gets a config file with this role chain.
fn by_file(chain: &Value) -> Value {
    let mut spec = orders_may(&[ORDERS]);
    spec["aws"] = json!({"region": "eu-central-1", "roleSessionName": "${pod.name}"});
    if chain.as_array().is_some_and(|hops| !hops.is_empty()) {
        spec["aws"]["roleChain"] = chain.clone();
    }
    spec["delivery"] = json!({"type": "Profile"});
    spec
}

fn chain() -> Value {
    json!([{"roleArn": TARGET, "externalId": "e2"}])
}

/// The file's text as it stands in the pod's specification.
fn text(pod: &Value) -> &str {
    container_of(pod, WRITER)["args"][2].as_str().unwrap()
}

/// Runs the init container as the kubelet does, with the program that pods get, for a container that sees the file.
fn write_files(pod: &Value, container: &ContainerView) -> Result<()> {
    let name = pod["metadata"]["name"].as_str().context("a pod has a name")?;
    let root = container.root.display().to_string();
    let arguments = container_of(pod, WRITER)["args"]
        .as_array()
        .context("it has arguments")?;
    let mut command = Command::new(sidecar::program()?);
    for argument in arguments {
        let argument = argument
            .as_str()
            .unwrap_or_default()
            .replace("$(TOKENSCOPE_POD_NAME)", name);
        // The container's files are below a folder here, and so is what the file says of them.
        command.arg(argument.replace("/var/run/", &format!("{root}/var/run/")));
    }
    let folder = container.file(CONFIG_FILE);
    std::fs::create_dir_all(folder.parent().context("it is in a folder")?)?;
    let output = command.env_clear().output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// Pod `orders-1` with an init container `migrate` and a container `app`, which this policy grants its role without a warning.
async fn granted_without_a_warning(shop: &Shop<'_>, policy: Value) -> Value {
    shop.policy("orders", policy).await.unwrap();
    let mut pod = shop.asking("orders-1", ORDERS);
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "image": "m"}]);
    let answer = shop.granted(&pod).await.unwrap();
    assert_eq!(answer.warnings, [""; 0]);
    answer.body
}

/// The names of a container's variables, in their order.
fn names_of_variables(pod: &Value, container: &str) -> Vec<String> {
    environment(pod, container).into_iter().map(|(name, _)| name).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_gets_the_file_that_its_sdk_takes_the_role_by() {
    let shop = shop("shop").await;
    let pod = granted_without_a_warning(&shop, by_file(&json!([]))).await;

    assert_eq!(init_containers(&pod), [WRITER, "migrate"]);
    for name in ["migrate", "app"] {
        assert_eq!(
            names_of_variables(&pod, name),
            [
                "AWS_STS_REGIONAL_ENDPOINTS",
                "AWS_EC2_METADATA_DISABLED",
                "AWS_CONFIG_FILE"
            ]
        );
        assert_eq!(
            mounted_at(&pod, name, WRITER),
            Some("/var/run/secrets/tokenscope.io/aws-config")
        );
    }
    assert_eq!(volume(&pod, WRITER).unwrap()["emptyDir"]["medium"], "Memory");
    let trust = shop.trust_policy("orders", ORDERS).await.unwrap();
    let sts = sts(shop.control_plane, &["sts.amazonaws.com"], &[(ORDERS, &trust)])
        .await
        .unwrap();
    let container = shop.control_plane.container("shop", "orders-1", "app").await.unwrap();
    write_files(&pod, &container).unwrap();
    let url = sts.url();
    let arn = tokio::task::block_in_place(|| container.python(WHO_AM_I, &[("AWS_ENDPOINT_URL_STS", &url)])).unwrap();
    assert_eq!(arn.trim(), "arn:aws:sts::111122223333:assumed-role/orders/orders-1");
}

#[tokio::test]
async fn the_writer_stays_first_whatever_another_webhook_puts_before_it() {
    let shop = shop("pushed").await;
    shop.policy("orders", by_file(&chain())).await.unwrap();
    shop.granted(&shop.asking("alone", ORDERS)).await.unwrap();
    for order in [Order::After, Order::Before] {
        let second = SecondWebhook::start(shop.control_plane, order, "pushed", put_mesh_first)
            .await
            .unwrap();
        let name = format!("pod-{order:?}").to_lowercase();
        let pod = accepts(&shop.client, &shop.asking(&name, ORDERS)).await.unwrap();
        assert_eq!(init_containers(&pod), [WRITER, "mesh-init"], "{order:?}");
        assert_eq!(
            variable(&pod, "mesh-init", "AWS_CONFIG_FILE").as_deref(),
            Some(CONFIG_FILE)
        );
        second.remove(shop.control_plane).await.unwrap();
    }
}

#[tokio::test]
async fn a_copy_comes_out_the_same_and_what_a_pod_can_not_have_is_refused() {
    let shop = shop("copied").await;
    shop.policy("orders", by_file(&chain())).await.unwrap();
    let pod = shop.granted(&shop.asking("orders", ORDERS)).await.unwrap().body;
    let metadata = json!({"name": "copy", "namespace": "copied", "annotations": {"tokenscope.io/role-arn": ORDERS}});
    let copy = json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]});
    let copy = accepts(&shop.client, &copy).await.unwrap();
    for part in ["initContainers", "containers", "volumes"] {
        assert_eq!(copy["spec"][part], pod["spec"][part], "{part}");
    }

    // The roles of the chain are the policy's to choose.
    let message = rejects(&shop.client, &shop.asking("target", TARGET)).await.unwrap();
    assert!(
        message.contains("does not allow arn:aws:iam::444455556666:role/target"),
        "{message}"
    );
    let mut windows = shop.asking("windows", ORDERS);
    windows["spec"]["os"] = json!({"name": "windows"});
    let message = rejects(&shop.client, &windows).await.unwrap();
    assert!(message.contains("runs on Linux only"), "{message}");
    let mut host = shop.asking("host", ORDERS);
    host["spec"]["hostNetwork"] = json!(true);
    accepts(&shop.client, &host).await.unwrap();
}

#[tokio::test]
async fn the_status_has_both_sides_of_each_step() {
    let shop = shop("status").await;
    shop.policy("orders", by_file(&chain())).await.unwrap();
    let path = "/apis/tokenscope.io/v1alpha1/namespaces/status/tokenscopepolicies/orders";
    let policies = eventually(PROPAGATION, "the status has the policies of the chain", async || {
        let object = get_json(&shop.client, path).await?;
        let policies = object["status"]["roleChainPolicies"].as_array().cloned();
        policies.with_context(|| object["status"].to_string())
    })
    .await
    .unwrap();
    let document = |at: usize, name: &str| -> Value {
        serde_json::from_str(policies[at][name].as_str().unwrap_or("null")).unwrap()
    };
    assert_eq!(
        (&policies[0]["roleArn"], &policies[1]["roleArn"]),
        (&json!(ORDERS), &json!(TARGET))
    );
    assert_eq!(
        document(0, "permissionPolicy")["Statement"],
        json!([{"Effect": "Allow", "Action": ["sts:AssumeRole"], "Resource": [TARGET]}])
    );
    assert_eq!(
        document(1, "trustPolicy")["Statement"],
        json!([{
            "Effect": "Allow", "Principal": {"AWS": [ORDERS]}, "Action": ["sts:AssumeRole"],
            "Condition": {"StringEquals": {"sts:ExternalId": "e2"}},
        }])
    );
    assert_eq!(
        (document(0, "trustPolicy"), document(1, "permissionPolicy")),
        (Value::Null, Value::Null)
    );

    // Without a region no profile can have one.
    let mut spec = by_file(&chain());
    spec["aws"].as_object_mut().unwrap().remove("region");
    shop.policy("orders", spec).await.unwrap();
    eventually(PROPAGATION, "the status says that there is no region", async || {
        let object = get_json(&shop.client, path).await?;
        let text = object["status"]["conditions"].to_string();
        ensure!(text.contains("delivery.type Profile needs a region"), "{text}");
        Ok(())
    })
    .await
    .unwrap();
}

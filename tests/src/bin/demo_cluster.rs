//! The main job as its users have it: a cluster with a node, Helm, pods that run, and an unmodified AWS SDK in them that
//! uses S3 with credentials that somebody else's STS gave for the pod's token.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tokenscope_tests::judge::{ACCOUNT, Judge};
use tokenscope_tests::node::Node;
use tokenscope_tests::probes::Sdk;
use tokenscope_tests::teller::Teller;
use tokenscope_xtask::images;

/// Shows the main job in a real cluster of one node on this machine.
///
/// Example: cargo xtask demo --cluster --keep
#[derive(Parser)]
#[command(name = "cargo xtask demo --cluster", bin_name = "cargo xtask demo --cluster")]
struct Arguments {
    /// Leave everything running and print how to look at it; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Show the whole pod as it came out of the API server
    #[arg(short, long)]
    verbose: bool,
}

const CLUSTER: &str = "demo";
const BUCKET: &str = "orders";
const POLICY: &str = "\
apiVersion: tokenscope.io/v1alpha1
kind: TokenScopePolicy
metadata: {name: orders, namespace: shop}
spec:
  description: orders may use its bucket
  subjects:
  - serviceAccounts: [orders]
  roles:
    allowed: [\"arn:aws:iam::000000000000:role/shop/orders\"]
  aws: {region: us-east-1, roleSessionName: \"${pod.name}\"}
";

fn main() -> ExitCode {
    match demo(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(arguments: &Arguments) -> Result<()> {
    let tell = Teller::new();

    tell.step("Images of one static program each");
    let built = images::build("dev")?;
    tell.done("the operator's and the webhook's");

    tell.step("A Kubernetes cluster with a node, apart from everything else on this machine");
    let helper = std::env::current_exe()?.with_file_name("cluster_helper");
    let node = Node::start(CLUSTER, &helper)?;
    for image in &built {
        node.cluster().load(&image.path)?;
    }
    Sdk::Go.load(&node)?;
    tell.done("pods can run");

    tell.step("tokenscope: helm install tokenscope-crds, helm install tokenscope --wait");
    node.install(&Value::Null)?;
    let pods = node.kubectl_in("tokenscope-system", &["get", "pods"])?;
    tell.quote(&pods);
    tell.done("installed and ready");

    tell.step(
        "The cluster's issuer on a web server, and an STS with S3 behind it that knows nothing of us (VersityGW)",
    );
    let judge = Judge::start(&node)?;
    tell.done("it has the issuer as an OIDC provider");

    tell.step("A policy: which pods of namespace shop may have which role");
    node.namespace("shop", "orders")?;
    tell.quote(POLICY);
    node.run("kubectl", &["apply", "--filename=-"], POLICY)?;
    node.kubectl_in(
        "shop",
        &[
            "wait",
            "--for=condition=Ready",
            "--timeout=30s",
            "tokenscopepolicy/orders",
        ],
    )?;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/shop/orders");
    let trust_policy = node.trust_policy("shop", "orders", &role)?;
    tell.quote(&format!("status.trustPolicies:\n{trust_policy}"));
    judge.role(&node, "orders", "/shop/", &trust_policy, BUCKET)?;
    tell.done("and the role, created through the IAM API with just that trust policy");

    tell.step("A Deployment whose pods ask for the role");
    tell.quote(&format!(
        "template:\n  metadata:\n    annotations:\n      tokenscope.io/role-arn: {role}"
    ));
    node.apply(&[deployment("orders", &role)])?;
    let log = node.eventually(Duration::from_secs(60), "the pod has used S3", || {
        let log = node.kubectl_in("shop", &["logs", "deployment/orders", "--tail=2"])?;
        ensure!(log.contains("object: "), "its log: {log}");
        Ok(log)
    });
    let log = log.with_context(|| node.kubectl_in("shop", &["describe", "pods"]).unwrap_or_default())?;
    tell.quote(&format!("kubectl logs deployment/orders\n{log}"));
    if arguments.verbose {
        tell.quote(&node.kubectl_in("shop", &["get", "pods", "--output=yaml"])?);
    }
    let stored = judge.object(&node, BUCKET, "hello")?;
    ensure!(
        stored.contains(":assumed-role/orders/orders-"),
        "the bucket has {stored:?}"
    );
    tell.done("the unmodified AWS SDK exchanged the pod's token, and S3 took and gave an object");

    tell.step("A Deployment whose pods ask for a role that the policy doesn't allow");
    let foreign = format!("arn:aws:iam::{ACCOUNT}:role/admin");
    tell.quote(&format!(
        "template:\n  metadata:\n    annotations:\n      tokenscope.io/role-arn: {foreign}"
    ));
    node.apply(&[deployment("curious", &foreign)])?;
    let reason = node.eventually(Duration::from_secs(30), "the ReplicaSet says why", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        let text = node.kubectl_in("shop", &["get", "deployment", "curious", "--output", path])?;
        ensure!(!text.is_empty(), "no reason yet");
        Ok(text)
    })?;
    tell.quote(&reason);
    ensure!(reason.contains("admin"), "the reason names the role");
    let pods = node.kubectl_in("shop", &["get", "pods", "--selector=app=curious", "--output=name"])?;
    ensure!(pods.is_empty(), "it runs all the same: {pods}");
    tell.done("no pod was made, and the Deployment's status says why");

    if arguments.keep {
        tell.step("Everything keeps running until Ctrl-C");
        println!(
            "  cargo xtask cluster shell --name {CLUSTER} -- kubectl get tokenscopepolicies,pods --all-namespaces"
        );
        loop {
            std::thread::park(); // Ctrl-C ends this process, and the cluster's guard the cluster
        }
    }
    node.end()?;
    println!(
        "\nThe pod is {}",
        log.lines().next().unwrap_or_default().trim_start_matches("caller: ")
    );
    Ok(())
}

fn deployment(name: &str, role: &str) -> Value {
    let mut container = Sdk::Go.container("app", BUCKET, "hello");
    if let Some(environment) = container["env"].as_array_mut() {
        environment.push(json!({"name": "PROBE_EVERY", "value": "5s"}));
    }
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}, "annotations": {"tokenscope.io/role-arn": role}},
                "spec": {
                    "serviceAccountName": "orders", "terminationGracePeriodSeconds": 1, "containers": [container],
                },
            },
        },
    })
}

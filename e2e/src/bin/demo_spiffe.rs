//! Tokens from SPIFFE as users have them: a cluster with a node, SPIRE in it, a policy, a pod whose sidecar gets a JWT-SVID
//! from SPIRE's agent, and an unmodified AWS SDK beside it that uses S3 with the credentials that an STS gave for it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, Aws};
use tokenscope_e2e::node::Node;
use tokenscope_e2e::output::{DemoOutput, exit_code};
use tokenscope_e2e::probes::Sdk;
use tokenscope_e2e::spire_cluster::{Keys, SpireCluster, values};
use tokenscope_xtask::images;

/// Shows the way from a policy with token.source SPIFFE to AWS credentials, in a real cluster of one node with real SPIRE.
///
/// Example: cargo xtask demo --spiffe --keep
#[derive(Parser)]
#[command(name = "cargo xtask demo --spiffe", bin_name = "cargo xtask demo --spiffe")]
struct Arguments {
    /// Leave everything running and print how to look at it; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Show the whole pod as it came out of the API server
    #[arg(short, long)]
    verbose: bool,
}

const CLUSTER: &str = "demo-spiffe";
const BUCKET: &str = "orders";
const SIDECAR: &str = "tokenscope-sidecar";
const POLICY: &str = "\
apiVersion: tokenscope.io/v1alpha1
kind: TokenScopePolicy
metadata: {name: orders, namespace: shop}
spec:
  description: orders may use its bucket, with its SPIFFE identity
  subjects:
  - serviceAccounts: [orders]
  roles:
    allowed: [\"arn:aws:iam::000000000000:role/shop/orders\"]
  token:
    source: SPIFFE
    spiffe: {spiffeId: \"spiffe://example.test/ns/shop/sa/orders\"}
  aws: {region: us-east-1}
";

fn main() -> ExitCode {
    exit_code(demo(&Arguments::parse()))
}

fn demo(arguments: &Arguments) -> Result<()> {
    let tell = DemoOutput::new();

    tell.step("Images of one static program each");
    let built = images::build("dev", &[])?;
    tell.done("the operator's, the webhook's and the sidecar's");

    tell.step("A Kubernetes cluster with a node, apart from everything else on this machine");
    let helper = std::env::current_exe()?.with_file_name("cluster_helper");
    let node = Node::start(CLUSTER, &helper)?;
    node.load(&built)?;
    Sdk::Go.load(&node)?;
    tell.done("pods can run");

    tell.step("An STS with S3 behind it that knows nothing of us (VersityGW), and SPIRE: server, agent, OIDC discovery provider");
    let aws = Aws::start(&node)?;
    let spire = SpireCluster::start(&node, &aws, Keys::Rsa)?;
    spire.start_csi()?;
    tell.quote(&node.kubectl_in("spire", &["get", "pods"])?);
    tell.done("SPIRE attested its agent, and the STS has SPIRE's issuer as an OIDC provider");

    tell.step("tokenscope: helm install tokenscope-crds, helm install tokenscope --wait");
    let values = values("csi");
    tell.quote(&format!("values: {values}"));
    node.install(&values)?;
    tell.done("installed and ready");

    let role = show_policy(&tell, &node, &aws)?;
    show_waiting_pod(&tell, &node, &role, arguments.verbose)?;
    let log = show_use(&tell, &node, &aws, &spire)?;

    if arguments.keep {
        tell.keep_cluster(CLUSTER);
    }
    node.end()?;
    let caller = log.lines().next().unwrap_or_default().trim_start_matches("caller: ");
    println!("\nThe pod is {caller}");
    Ok(())
}

/// The ARN of the role that the policy allows, which is made with the trust policy of the policy's status.
fn show_policy(tell: &DemoOutput, node: &Node, aws: &Aws) -> Result<String> {
    tell.step("A policy: which pods of namespace shop may have which role, with a token from SPIFFE");
    node.namespace("shop", "orders")?; // which admits only what Pod Security "restricted" does
    tell.quote(POLICY);
    node.run("kubectl", &["apply", "--filename=-"], POLICY)?;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/shop/orders");
    let trust_policy = node.trust_policy("shop", "orders", &role)?;
    tell.quote(&format!("status.trustPolicies:\n{trust_policy}"));
    aws.role(node, "orders", "/shop/", &trust_policy, BUCKET)?;
    tell.done("and the role, created through the IAM API with just that trust policy");
    Ok(role)
}

fn show_waiting_pod(tell: &DemoOutput, node: &Node, role: &str, verbose: bool) -> Result<()> {
    tell.step("A pod that asks for the role, before SPIRE has an entry for it");
    node.eventually(Duration::from_secs(120), "the pod is admitted", || {
        node.apply(&[pod(role)])
    })?;
    let pod = node.get(&["pod", "orders", "--namespace=shop"])?;
    tell.quote(&serde_json::to_string_pretty(if verbose {
        &pod
    } else {
        &pod["spec"]["initContainers"]
    })?);
    let waits = node.eventually(Duration::from_secs(180), "the sidecar says why it waits", || {
        let log = node.kubectl_in("shop", &["logs", "orders", "--container", SIDECAR])?;
        let line = log.lines().find(|line| line.contains("no identity"));
        Ok(line.with_context(|| log.clone())?.to_owned())
    })?;
    tell.quote(&format!("kubectl logs orders --container {SIDECAR}\n{waits}"));
    tell.done("it got the sidecar, which waits for an identity, and the application waits for the sidecar");
    Ok(())
}

/// The application's log once it has used S3.
fn show_use(tell: &DemoOutput, node: &Node, aws: &Aws, spire: &SpireCluster<'_>) -> Result<String> {
    tell.step("SPIRE's entry: only the sidecar of these pods is that identity");
    let selectors = format!("k8s:ns:shop -selector k8s:sa:orders -selector k8s:container-name:{SIDECAR}");
    tell.quote(&format!("spire-server entry create … -selector {selectors}"));
    spire.entry("ns/shop/sa/orders", &selectors, 300)?;
    let log = node.eventually(Duration::from_secs(180), "the pod has used S3", || {
        let log = node.kubectl_in("shop", &["logs", "orders", "--tail=10"])?;
        let found = log.lines().skip_while(|line| !line.starts_with("caller: "));
        let round: Vec<&str> = found.take(2).collect();
        ensure!(round.len() == 2, "its log: {log}");
        Ok(round.join("\n"))
    });
    let log = log.with_context(|| node.kubectl_in("shop", &["describe", "pods"]).unwrap_or_default())?;
    tell.quote(&format!("kubectl logs orders\n{log}"));
    let stored = aws.object(node, BUCKET, "hello")?;
    ensure!(stored.contains(":assumed-role/orders/"), "the bucket has {stored:?}");
    tell.done("the unmodified AWS SDK exchanged the JWT-SVID, and S3 took and gave an object");
    Ok(log)
}

fn pod(role: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "orders", "namespace": "shop", "annotations": {"tokenscope.io/role-arn": role}},
        "spec": {
            "serviceAccountName": "orders", "terminationGracePeriodSeconds": 1,
            "containers": [Sdk::Go.staying("app", BUCKET, "hello", 5)],
        },
    })
}

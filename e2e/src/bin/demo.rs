//! The main job on a real API server, step by step: a policy, a pod that it allows, one that it doesn't, and credentials
//! for the first one's own token from an STS that verifies it as AWS would.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::fixtures::{self, ACCOUNT, WHO_AM_I};
use tokenscope_e2e::install::{self, install};
use tokenscope_e2e::output::{DemoOutput, exit_code};
use tokenscope_e2e::{admission, eventually, get_json};
use tokenscope_sts::Server;

/// Shows the main job on a real API server.
///
/// Example: cargo xtask demo --keep
#[derive(Parser)]
#[command(name = "cargo xtask demo", bin_name = "cargo xtask demo")]
struct Arguments {
    /// Leave everything running and print the kubeconfig; Ctrl-C ends it
    #[arg(long)]
    keep: bool,
    /// Show the whole pod as it came out of the API server
    #[arg(short, long)]
    verbose: bool,
}

const ROLE: &str = "arn:aws:iam::111122223333:role/shop/orders";
const FOREIGN_ROLE: &str = "arn:aws:iam::111122223333:role/admin";
const POLICY: &str = "\
apiVersion: tokenscope.io/v1alpha1
kind: TokenScopePolicy
metadata: {name: orders, namespace: shop}
spec:
  description: orders may read its bucket
  subjects:
  - serviceAccounts: [orders]
  roles:
    allowed: [\"arn:aws:iam::111122223333:role/shop/orders\"]
  aws: {region: eu-central-1, roleSessionName: \"${pod.name}\"}
";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    exit_code(demo(&arguments).await)
}

async fn demo(arguments: &Arguments) -> Result<()> {
    let tell = DemoOutput::new();

    tell.step("A real Kubernetes API server");
    let control_plane = ControlPlane::start(control_plane::Options::default()).await?;
    tell.done(&format!(
        "kube-apiserver and etcd are running on 127.0.0.1:{}",
        control_plane.port()
    ));

    tell.step("tokenscope, as its Helm charts install it");
    let installed = install(&control_plane, install::Options::default()).await?;
    tell.done(&format!(
        "{} objects from the charts applied; operator and webhook are ready",
        installed.objects().len()
    ));

    show_policy(&tell, &control_plane).await?;
    let client = control_plane.client().await?;
    show_refusal(&tell, &client).await?;
    show_injection(&tell, &client, arguments.verbose).await?;
    let (sts, arn) = show_credentials(&tell, &control_plane, &client).await?;

    if arguments.keep {
        tell.step("Everything keeps running until Ctrl-C");
        println!("  export KUBECONFIG={}", control_plane.kubeconfig().display());
        println!("  kubectl get tokenscopepolicies --all-namespaces");
        tokio::signal::ctrl_c().await?;
    }
    sts.stop().await;
    println!("\nThe pod is {arn}");
    Ok(())
}

async fn show_policy(tell: &DemoOutput, control_plane: &ControlPlane) -> Result<()> {
    tell.step("A policy: which pods of namespace shop may have which role");
    control_plane.create_namespace("shop", &[]).await?;
    control_plane.create_service_account("shop", "orders", &[]).await?;
    tell.quote(POLICY);
    control_plane.kubectl(&["apply", "--filename=-"], POLICY)?;
    control_plane.kubectl(
        &[
            "wait",
            "--namespace=shop",
            "--for=condition=Ready",
            "--timeout=120s",
            "tokenscopepolicy/orders",
        ],
        "",
    )?;
    tell.done("the operator accepted it");
    Ok(())
}

async fn show_refusal(tell: &DemoOutput, client: &Client) -> Result<()> {
    tell.step("A pod that asks for a role the policy doesn't allow");
    tell.quote(&format!(
        "metadata:\n  annotations:\n    tokenscope.io/role-arn: {FOREIGN_ROLE}"
    ));
    let refusal = admission::rejects(client, &pod("curious", FOREIGN_ROLE)).await?;
    tell.quote(&refusal);
    tell.done("refused, and whoever created it reads why");
    Ok(())
}

async fn show_injection(tell: &DemoOutput, client: &Client, verbose: bool) -> Result<()> {
    tell.step("A pod that asks for the role the policy allows");
    tell.quote(&format!(
        "metadata:\n  annotations:\n    tokenscope.io/role-arn: {ROLE}"
    ));
    // The webhook learns of the policy by a watch, as the operator did.
    let pod = eventually(Duration::from_secs(60), "the pod is admitted", async || {
        let answer = admission::create_pod(client, &pod("orders-1", ROLE)).await?;
        ensure!(answer.accepted(), "{}", answer.message());
        Ok(answer.body)
    })
    .await?;
    tell.quote(&injected(&pod));
    if verbose {
        tell.quote(&serde_json::to_string_pretty(&pod)?);
    }
    tell.done("admitted, with a projected token volume and the variables that every AWS SDK reads");
    Ok(())
}

/// Who the pod's SDK is for an STS, which goes on running.
async fn show_credentials(
    tell: &DemoOutput,
    control_plane: &ControlPlane,
    client: &Client,
) -> Result<(Server, String)> {
    tell.step("Credentials for the pod's own token");
    let policy = get_json(
        client,
        "/apis/tokenscope.io/v1alpha1/namespaces/shop/tokenscopepolicies/orders",
    )
    .await?;
    let trust_policy = trust_policy(&policy)?;
    tell.quote(&format!(
        "trust policy of {ROLE}, from the policy's status:\n{}",
        serde_json::to_string_pretty(&trust_policy)?
    ));
    let sts = fixtures::sts(control_plane, &["sts.amazonaws.com"], &[(ROLE, &trust_policy)]).await?;
    let container = control_plane.container("shop", "orders-1", "app").await?;
    let url = sts.url();
    let arn = tokio::task::block_in_place(|| container.python(WHO_AM_I, &[("AWS_ENDPOINT_URL_STS", &url)]))
        .context("the AWS SDK got no credentials")?;
    let arn = arn.trim();
    let expected = format!("arn:aws:sts::{ACCOUNT}:assumed-role/orders/orders-1");
    ensure!(arn == expected, "the SDK is {arn} and not {expected}");
    tell.done(
        "the unmodified AWS SDK exchanged it: signature, issuer, audience, age and trust policy were checked as AWS checks them",
    );
    Ok((sts, arn.to_owned()))
}

fn pod(name: &str, role: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "annotations": {"tokenscope.io/role-arn": role}},
        "spec": {
            "serviceAccountName": "orders",
            "containers": [{"name": "app", "image": "shop/orders:1"}],
        },
    })
}

/// What the webhook added to the first container and the volumes, in few lines.
fn injected(pod: &Value) -> String {
    let mut lines = vec![
        "spec:".to_owned(),
        "  containers:".to_owned(),
        "  - name: app".to_owned(),
        "    env:".to_owned(),
    ];
    for variable in pod["spec"]["containers"][0]["env"].as_array().into_iter().flatten() {
        let value = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str().map_or_else(
            || variable["value"].as_str().unwrap_or_default().to_owned(),
            |path| format!("(field {path})"),
        );
        lines.push(format!(
            "    - {:<30} {value}",
            variable["name"].as_str().unwrap_or_default()
        ));
    }
    let ours = |object: &&Value| object["name"] == "tokenscope-aws-token";
    for mount in pod["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(ours)
    {
        lines.push("    volumeMounts:".to_owned());
        lines.push(format!("    - {mount}"));
    }
    for volume in pod["spec"]["volumes"].as_array().into_iter().flatten().filter(ours) {
        lines.push("  volumes:".to_owned());
        lines.push(format!("  - {volume}"));
    }
    lines.join("\n")
}

fn trust_policy(policy: &Value) -> Result<Value> {
    let entries = policy["status"]["trustPolicies"]
        .as_array()
        .context("the policy's status has trustPolicies")?;
    let Some(entry) = entries.iter().find(|entry| entry["roleArn"] == ROLE) else {
        bail!("status.trustPolicies has nothing for {ROLE}: {}", policy["status"]);
    };
    let document = entry["document"].as_str().context("a trust policy has a document")?;
    Ok(serde_json::from_str(document)?)
}

//! The main job as its users have it: a cluster with a node, Helm, pods that run, and an unmodified AWS SDK in them that
//! uses S3 with credentials that somebody else's STS gave for the pod's token.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, Aws};
use tokenscope_e2e::helm::{NAMESPACE, chart};
use tokenscope_e2e::node::Node;
use tokenscope_e2e::output::{DemoOutput, exit_code};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::tools::{Tool, resolve};
use tokenscope_xtask::{images, run_with_input};

/// Shows the main job in a real cluster of one node on this machine, or what it can of it in one of yours.
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
    /// Use the cluster of this kubeconfig's current context: install there, show what pods would get, remove all again
    #[arg(long, value_name = "FILE", conflicts_with = "keep")]
    kubeconfig: Option<PathBuf>,
    /// Where that cluster's nodes pull the images from: the chart's image.registry
    #[arg(long, value_name = "REGISTRY", default_value = "localhost", requires = "kubeconfig")]
    registry: String,
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
    let arguments = Arguments::parse();
    let result = match &arguments.kubeconfig {
        Some(kubeconfig) => Existing::named(kubeconfig).and_then(|cluster| cluster.demo(&arguments)),
        None => demo(&arguments),
    };
    exit_code(result)
}

fn demo(arguments: &Arguments) -> Result<()> {
    let tell = DemoOutput::new();

    tell.step("Images of one static program each");
    let built = images::build("dev", &[])?;
    tell.done("the operator's and the webhook's");

    tell.step("A Kubernetes cluster with a node, apart from everything else on this machine");
    let helper = std::env::current_exe()?.with_file_name("cluster_helper");
    let node = Node::start(CLUSTER, &helper)?;
    node.load(&built)?;
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
    let aws = Aws::start(&node)?;
    tell.done("it has the issuer as an OIDC provider");

    let role = show_policy(&tell, &node, &aws)?;
    let log = show_use(&tell, &node, &aws, &role, arguments.verbose)?;
    show_refusal(&tell, &node)?;

    if arguments.keep {
        tell.keep_cluster(CLUSTER);
    }
    node.end()?;
    println!(
        "\nThe pod is {}",
        log.lines().next().unwrap_or_default().trim_start_matches("caller: ")
    );
    Ok(())
}

/// The ARN of the role that the policy allows, which is made with the trust policy of the policy's status.
fn show_policy(tell: &DemoOutput, node: &Node, aws: &Aws) -> Result<String> {
    tell.step("A policy: which pods of namespace shop may have which role");
    node.namespace("shop", "orders")?;
    tell.quote(POLICY);
    node.run("kubectl", &["apply", "--filename=-"], POLICY)?;
    node.kubectl_in(
        "shop",
        &[
            "wait",
            "--for=condition=Ready",
            "--timeout=180s",
            "tokenscopepolicy/orders",
        ],
    )?;
    let role = format!("arn:aws:iam::{ACCOUNT}:role/shop/orders");
    let trust_policy = node.trust_policy("shop", "orders", &role)?;
    tell.quote(&format!("status.trustPolicies:\n{trust_policy}"));
    aws.role(node, "orders", "/shop/", &trust_policy, BUCKET)?;
    tell.done("and the role, created through the IAM API with just that trust policy");
    Ok(role)
}

/// The application's log once it has used S3.
fn show_use(tell: &DemoOutput, node: &Node, aws: &Aws, role: &str, verbose: bool) -> Result<String> {
    tell.step("A Deployment whose pods ask for the role");
    tell.quote(&format!(
        "template:\n  metadata:\n    annotations:\n      tokenscope.io/role-arn: {role}"
    ));
    node.apply(&[deployment("orders", role)])?;
    let log = node.eventually(Duration::from_secs(180), "the pod has used S3", || {
        let log = node.kubectl_in("shop", &["logs", "deployment/orders", "--tail=10"])?;
        let round: Vec<&str> = log
            .lines()
            .skip_while(|line| !line.starts_with("caller: "))
            .take(2)
            .collect();
        ensure!(round.len() == 2, "its log: {log}");
        Ok(round.join("\n"))
    });
    let log = log.with_context(|| node.kubectl_in("shop", &["describe", "pods"]).unwrap_or_default())?;
    tell.quote(&format!("kubectl logs deployment/orders\n{log}"));
    if verbose {
        tell.quote(&node.kubectl_in("shop", &["get", "pods", "--output=yaml"])?);
    }
    let stored = aws.object(node, BUCKET, "hello")?;
    ensure!(
        stored.contains(":assumed-role/orders/orders-"),
        "the bucket has {stored:?}"
    );
    tell.done("the unmodified AWS SDK exchanged the pod's token, and S3 took and gave an object");
    Ok(log)
}

fn show_refusal(tell: &DemoOutput, node: &Node) -> Result<()> {
    tell.step("A Deployment whose pods ask for a role that the policy doesn't allow");
    let foreign = format!("arn:aws:iam::{ACCOUNT}:role/admin");
    tell.quote(&format!(
        "template:\n  metadata:\n    annotations:\n      tokenscope.io/role-arn: {foreign}"
    ));
    node.apply(&[deployment("curious", &foreign)])?;
    let reason = node.eventually(Duration::from_secs(120), "the ReplicaSet says why", || {
        let path = "jsonpath={.status.conditions[?(@.type==\"ReplicaFailure\")].message}";
        let text = node.kubectl_in("shop", &["get", "deployment", "curious", "--output", path])?;
        // Until each webhook is ready, or where it answers too late, it is another one.
        ensure!(text.contains("admin"), "the reason doesn't name the role: {text:?}");
        Ok(text)
    })?;
    tell.quote(&reason);
    let pods = node.kubectl_in("shop", &["get", "pods", "--selector=app=curious", "--output=name"])?;
    ensure!(pods.is_empty(), "it runs all the same: {pods}");
    tell.done("no pod was made, and the Deployment's status says why");
    Ok(())
}

/// A cluster that was there before. Its issuer, and so its tokens, are its own business: nothing is exchanged there.
struct Existing {
    kubeconfig: String,
}

/// What the demo makes in a cluster that was there before.
const NAMESPACES: [&str; 2] = ["shop", NAMESPACE];
const RELEASES: [&str; 2] = ["tokenscope", "tokenscope-crds"];
const DEFINITIONS: [&str; 3] = [
    "tokenscopepolicies.tokenscope.io",
    "clustertokenscopepolicies.tokenscope.io",
    "tokenscopeboundaries.tokenscope.io",
];

impl Existing {
    fn named(kubeconfig: &Path) -> Result<Self> {
        let path = std::fs::canonicalize(kubeconfig).with_context(|| format!("can't read {}", kubeconfig.display()))?;
        Ok(Self {
            kubeconfig: path.display().to_string(),
        })
    }

    fn demo(&self, arguments: &Arguments) -> Result<()> {
        let tell = DemoOutput::new();
        tell.step(&format!("The cluster of {}", self.kubeconfig));
        tell.quote(&self.kubectl(&["config", "current-context"], "")?);
        for (kind, names) in [
            ("namespace", &NAMESPACES[..]),
            ("customresourcedefinition", &DEFINITIONS[..]),
        ] {
            for &name in names {
                let found = self.kubectl(&["get", kind, name, "--ignore-not-found", "--output=name"], "")?;
                ensure!(
                    found.is_empty(),
                    "it has {kind} {name} already, and the demo would change and remove it"
                );
            }
        }
        tell.done("nothing of ours is there");

        let shown = self.show(arguments, &tell);
        tell.step("Removing all that was made");
        let removed = self.remove();
        shown.and(removed)?;
        tell.done("the cluster is as it was");
        Ok(())
    }

    fn show(&self, arguments: &Arguments, tell: &DemoOutput) -> Result<()> {
        tell.step("tokenscope: helm install tokenscope-crds, helm install tokenscope --wait");
        self.install(&arguments.registry)?;
        tell.quote(&self.kubectl(&["get", "pods", "--namespace", NAMESPACE], "")?);
        tell.done("installed and ready");

        tell.step("A policy: which pods of namespace shop may have which role");
        self.kubectl(&["create", "namespace", "shop"], "")?;
        self.kubectl(&["create", "serviceaccount", "orders", "--namespace=shop"], "")?;
        tell.quote(POLICY);
        self.kubectl(&["apply", "--filename=-"], POLICY)?;
        let ready = [
            "wait",
            "tokenscopepolicy/orders",
            "--for=condition=Ready",
            "--timeout=180s",
        ];
        self.kubectl(&[&ready[..], &["--namespace=shop"]].concat(), "")?;
        let path = "--output=jsonpath={.status.trustPolicies[0].document}";
        let document = self.kubectl(&["get", "tokenscopepolicy", "orders", "--namespace=shop", path], "")?;
        tell.quote(&format!("status.trustPolicies:\n{document}"));
        tell.done("ready, with the trust policy that the role needs");

        self.show_pods(arguments, tell)
    }

    fn install(&self, registry: &str) -> Result<()> {
        let registry = format!("image.registry={registry}");
        for (release, options) in [
            ("tokenscope-crds", [].as_slice()),
            ("tokenscope", &["--set", &registry]),
        ] {
            let folder = chart(release).display().to_string();
            let mut install = vec![
                "install",
                release,
                &folder,
                "--namespace",
                NAMESPACE,
                "--create-namespace",
            ];
            install.extend(["--wait", "--timeout=300s"]);
            install.extend(options);
            self.run(Tool::Helm, &install, "")?;
        }
        Ok(())
    }

    fn show_pods(&self, arguments: &Arguments, tell: &DemoOutput) -> Result<()> {
        tell.step("A pod that asks for the role, by a dry run");
        let started = Instant::now();
        let pod: Value = loop {
            match self.ask("shop/orders") {
                Ok(pod) => break serde_json::from_str(&pod)?,
                // Each webhook learns of the policy by a watch of its own, a moment later.
                Err(error) => ensure!(started.elapsed() < Duration::from_secs(120), "{error:#}"),
            }
            std::thread::sleep(Duration::from_millis(300));
        };
        let shown = if arguments.verbose {
            &pod
        } else {
            &pod["spec"]["containers"][0]["env"]
        };
        tell.quote(&serde_json::to_string_pretty(shown)?);
        ensure!(
            shown.to_string().contains("AWS_WEB_IDENTITY_TOKEN_FILE"),
            "nothing was injected"
        );
        tell.done("injected");

        tell.step("A pod that asks for a role that the policy doesn't allow, by a dry run");
        let refused = self.ask("admin").err().context("it was admitted")?;
        tell.quote(&format!("{refused:#}"));
        tell.done("refused, with the reason");
        Ok(())
    }

    /// A pod that asks for a role, as it would come out of the API server.
    fn ask(&self, role: &str) -> Result<String> {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/{role}");
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "orders", "namespace": "shop", "annotations": {"tokenscope.io/role-arn": role}},
            "spec": {"serviceAccountName": "orders", "containers": [{"name": "app", "image": "example.com/orders:1"}]},
        });
        self.kubectl(
            &["create", "--dry-run=server", "--output=json", "--filename=-"],
            &pod.to_string(),
        )
    }

    fn remove(&self) -> Result<()> {
        let mut failed = Vec::new();
        let mut attempt = |result: Result<String>| failed.extend(result.err().map(|error| format!("{error:#}")));
        attempt(self.kubectl(
            &["delete", "namespace", "shop", "--ignore-not-found", "--timeout=120s"],
            "",
        ));
        for release in RELEASES {
            let uninstall = [
                "uninstall",
                release,
                "--namespace",
                NAMESPACE,
                "--ignore-not-found",
                "--wait",
            ];
            attempt(self.run(Tool::Helm, &uninstall, ""));
        }
        for definition in DEFINITIONS {
            let delete = ["delete", "customresourcedefinition", definition, "--ignore-not-found"];
            attempt(self.kubectl(&delete, ""));
        }
        attempt(self.kubectl(
            &["delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=120s"],
            "",
        ));
        ensure!(failed.is_empty(), "not all could be removed:\n{}", failed.join("\n"));
        Ok(())
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Result<String> {
        self.run(Tool::Kubectl, arguments, input)
    }

    /// Runs kubectl or helm against this cluster, whatever the environment names.
    fn run(&self, tool: Tool, arguments: &[&str], input: &str) -> Result<String> {
        let mut command = Command::new(resolve(tool)?);
        command.args(["--kubeconfig", &self.kubeconfig]).args(arguments);
        let output = run_with_input(&mut command, input)?;
        ensure!(
            output.status.success(),
            "{} {}: {}",
            tool.name(),
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}

fn deployment(name: &str, role: &str) -> Value {
    let container = Sdk::Go.staying("app", BUCKET, "hello", 5);
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

//! As users run it: Helm installs into a cluster with a node, pods run, and AWS SDKs in them get credentials from
//! somebody else's STS.
//!
//! `TOKENSCOPE_CLUSTER_TESTS=0` skips these tests; `TOKENSCOPE_CLUSTER_IMAGES=dist` runs them with the images that are
//! published, which take minutes to compile.

mod chart;
mod clients;
mod cold;
mod drivers;
mod editors;
mod faults;
mod issuer;
mod load;
mod network_policy;
mod sdks;
mod tokens;

use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Result, bail, ensure};
use serde_json::{Value, json};
use tokenscope_e2e::aws::{ACCOUNT, Aws, REGION};
use tokenscope_e2e::helm::NAMESPACE;
use tokenscope_e2e::node::{NOTICED, Node, STARTED, built_images, is_possible};
use tokenscope_e2e::probes::Sdk;
use tokenscope_xtask::cluster::warm_up;

/// One cluster for all tests of this program. Each has it for itself while it runs.
struct Shared {
    node: Node,
    aws: Aws,
    /// What has run since the beginning.
    long_lived: tokens::LongLived,
}

/// The chart's values of every test here: the lock on `deny`, so that all that runs and every token that a kubelet fetches or renews has to pass
/// it, and beside that the test's own (an object, or `null` for the defaults).
fn locked(own: &Value) -> Value {
    let mut values = own.clone();
    values["lock"]["mode"] = "deny".into();
    values
}

/// The cluster with tokenscope installed as its defaults say, but for the lock on `deny`; `None` where there can't be one.
fn shared() -> Result<Option<MutexGuard<'static, Shared>>> {
    let shared = as_it_is()?;
    if let Some(Shared { node, .. }) = shared.as_deref() {
        node.install(&locked(&Value::Null))?;
        // Helm doesn't wait for pods that go.
        node.eventually(STARTED, "two pods of each process run", || {
            for program in ["tokenscope-operator", "tokenscope-webhook"] {
                let found = node.processes(program)?;
                ensure!(found.len() == 2, "{program}: {found:?}");
                // A pod whose process has ended is still listed for a moment.
                let selector = format!(
                    "--selector=app.kubernetes.io/component={}",
                    program.trim_start_matches("tokenscope-")
                );
                let pods = node.kubectl_in(NAMESPACE, &["get", "pods", &selector, "--output=name"])?;
                ensure!(pods.lines().count() == 2, "{program}: {pods}");
            }
            Ok(())
        })?;
    }
    Ok(shared)
}

/// The cluster as the test before left it.
fn as_it_is() -> Result<Option<MutexGuard<'static, Shared>>> {
    static SHARED: OnceLock<Result<Option<Mutex<Shared>>, String>> = OnceLock::new();
    match SHARED.get_or_init(|| start().map_err(|error| format!("{error:#}"))) {
        Ok(None) => Ok(None),
        Ok(Some(shared)) => Ok(Some(shared.lock().unwrap_or_else(PoisonError::into_inner))),
        Err(message) => bail!("the cluster didn't start: {message}"),
    }
}

fn start() -> Result<Option<Mutex<Shared>>> {
    if !is_possible()? {
        return Ok(None);
    }
    warm_up()?;
    let built = built_images()?;
    let name = format!("test-{}", std::process::id()); // two runs don't end each other's
    let node = Node::start(&name, Path::new(env!("CARGO_BIN_EXE_cluster_helper")))?;
    node.load(&built)?;
    for sdk in tokens::SDKS {
        sdk.load(&node)?;
    }
    let aws = Aws::start(&node)?;
    node.install(&locked(&Value::Null))?;
    let mut shared = Shared {
        node,
        aws,
        long_lived: Vec::new(),
    };
    shared.long_lived = tokens::begin(&shared)?;
    Ok(Some(Mutex::new(shared)))
}

impl Shared {
    /// A namespace whose ServiceAccount `app` may have the role of the same name, which may use the bucket of that name.
    fn workloads(&self, name: &str) -> Result<String> {
        let role = format!("arn:aws:iam::{ACCOUNT}:role/tests/{name}");
        self.node.namespace(name, "app")?;
        self.policy(name, &[&role])?;
        let trust_policy = self.node.trust_policy(name, "app", &role)?;
        self.aws.role(&self.node, name, "/tests/", &trust_policy, name)?;
        Ok(role)
    }

    fn policy(&self, namespace: &str, roles: &[&str]) -> Result<()> {
        self.node.apply(&[json!({
            "apiVersion": "tokenscope.io/v1alpha1", "kind": "TokenScopePolicy",
            "metadata": {"name": "app", "namespace": namespace},
            "spec": {
                "subjects": [{"serviceAccounts": ["app"]}], "roles": {"allowed": roles},
                "audiences": {"allowed": ["sts.amazonaws.com", "somebody.else"], "default": "sts.amazonaws.com"},
                "aws": {"region": REGION},
            },
        })])?;
        self.node.kubectl_in(
            namespace,
            &[
                "wait",
                "--for=condition=Ready",
                "--timeout=180s",
                "tokenscopepolicy/app",
            ],
        )?;
        Ok(())
    }

    /// Creates a pod that is to be admitted. Each webhook learns of a new policy by a watch of its own, a moment later.
    fn create(&self, pod: &Value) -> Result<()> {
        self.node.eventually(NOTICED, "the pod is admitted", || {
            self.node.apply(std::slice::from_ref(pod))
        })
    }
}

/// Sets the number of webhooks, and doesn't wait for them.
fn scale_webhook(node: &Node, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    node.kubectl_in(NAMESPACE, &["scale", "deployment/tokenscope-webhook", &replicas])?;
    Ok(())
}

/// What a pod that asks for a role has in its template.
fn asking(role: &str, spec: &Value) -> Value {
    let mut spec = spec.clone();
    spec["serviceAccountName"] = "app".into();
    spec["terminationGracePeriodSeconds"] = 1.into();
    json!({"metadata": {"labels": {"app": "probe"}, "annotations": {"tokenscope.io/role-arn": role}}, "spec": spec})
}

fn pod(namespace: &str, name: &str, template: &Value) -> Value {
    let mut pod = template.clone();
    pod["apiVersion"] = "v1".into();
    pod["kind"] = "Pod".into();
    pod["metadata"]["name"] = name.into();
    pod["metadata"]["namespace"] = namespace.into();
    pod["spec"]["restartPolicy"] = "Never".into();
    pod
}

/// A Deployment, StatefulSet or DaemonSet of a template that has the label `app: probe`.
fn set(kind: &str, namespace: &str, name: &str, template: &Value) -> Value {
    let mut template = template.clone();
    template["metadata"]["labels"] = json!({"app": name});
    json!({
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template},
    })
}

/// A template of pods that nobody gives a node, so that there can be many.
fn without_node(role: Option<&str>) -> Value {
    let mut template = asking(
        role.unwrap_or_default(),
        &json!({"schedulerName": "nobody", "containers": [Sdk::Go.container("app", "none", "none")]}),
    );
    if role.is_none() {
        template["metadata"]["annotations"] = json!({});
    }
    template
}

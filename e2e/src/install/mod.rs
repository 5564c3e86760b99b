//! tokenscope as its charts say, with its real programs running outside the cluster.
//!
//! Everything comes from what helm renders: custom resource definitions, RBAC, the guard, the webhook configuration, and
//! the programs' arguments and environment from the Deployments. Only what being outside a cluster needs is different: the
//! webhook is reached by an address instead of a Service, and the programs listen on ports of their own and authenticate
//! by a kubeconfig with the token of the chart's ServiceAccount.

mod programs;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_fixtures::free_port;

use self::programs::Programs;
pub(crate) use self::programs::own_programs;
use crate::admission::try_pod;
use crate::control_plane::ControlPlane;
use crate::forward::Forward;
use crate::helm::{NAMESPACE, chart, patient, template_of};
use crate::issuer::authority;
use crate::policies_act::policies_act;
use crate::process::ServerProcess;
use crate::rights_act::rights_act;
use crate::{eventually, get_json};

/// How long the programs may take to become ready on a busy machine.
///
/// Optimised and alone they take some seconds. Unoptimised, beside another test program that starts as much, minutes have been seen.
const READY_DEADLINE: Duration = Duration::from_secs(420);

/// How long the other programs may take to become ready or to end too, once one has failed.
const OTHERS_DEADLINE: Duration = Duration::from_secs(60);

/// The options of an installation.
#[derive(Clone, Debug)]
pub struct Options {
    /// Values for charts/tokenscope; `null` for its defaults. The API server gives reviews more time than by default: [`patient`].
    pub values: Value,
    /// The number of webhooks that run. With more than one, the API server reaches them through a [`Forward`].
    pub webhooks: usize,
    /// The number of operators that run.
    pub operators: usize,
    /// The number of issuers that run; the values must have one then. The operator makes their certificate.
    pub issuers: usize,
    /// True if the webhooks know the authority of an issuer that doesn't run; the values must have one then.
    pub knows_issuer: bool,
    /// Arguments that replace or add to the chart's, such as `--drain=1`.
    pub webhook_arguments: Vec<String>,
    /// The same for the operator.
    pub operator_arguments: Vec<String>,
    /// The folder of the project's programs; where this program is if left out.
    pub programs: Option<PathBuf>,
    /// The folder of the charts; the project's own if left out.
    pub charts: Option<PathBuf>,
    /// The stand-in for the webhook's Service where the test decides who is behind it: the webhooks are added once they are
    /// ready.
    pub service: Option<Forward>,
    /// True if this is an upgrade of (or the way back to) what is installed: the chart looks at the cluster.
    pub upgrade: bool,
    /// The beginning of the processes' names: two installations in one cluster differ in it.
    pub prefix: &'static str,
}

impl Default for Options {
    fn default() -> Self {
        let none = Vec::new;
        Self {
            values: Value::Null,
            webhooks: 1,
            operators: 1,
            issuers: 0,
            knows_issuer: false,
            webhook_arguments: none(),
            operator_arguments: none(),
            programs: None,
            charts: None,
            service: None,
            upgrade: false,
            prefix: "",
        }
    }
}

impl Options {
    /// True if the operator makes the certificate of an issuer.
    fn has_issuer(&self) -> bool {
        self.issuers > 0 || self.knows_issuer
    }
}

/// An installed and running tokenscope. Dropping it ends its programs; what is in the cluster stays.
#[derive(Debug)]
pub struct Installed {
    webhooks: Vec<ServerProcess>,
    operators: Vec<ServerProcess>,
    issuers: Vec<(ServerProcess, u16)>,
    webhook_ports: Vec<u16>,
    port: u16,
    objects: Vec<Value>,
}

/// Installs into [`NAMESPACE`] and waits until the API server acts by all admission policies and a pod that asks is answered by the webhook.
pub async fn install(control_plane: &ControlPlane, options: Options) -> Result<Installed> {
    let folder = match &options.programs {
        Some(folder) => folder.clone(),
        None => own_programs()?,
    };
    let port = match &options.service {
        Some(service) => service.port(),
        None => free_port()?,
    };
    let client = control_plane.client().await?;
    if get_json(&client, &format!("/api/v1/namespaces/{NAMESPACE}"))
        .await
        .is_err()
    {
        control_plane.create_namespace(NAMESPACE, &[]).await?;
    }
    let objects = objects(control_plane, &options, port)?;
    let programs = Programs::new(control_plane, &objects, &folder, port, &options).await?;
    control_plane.apply(&objects, NAMESPACE).await?;
    rights_act(control_plane, &objects).await?;

    let starting = start(&client, &programs);
    let (started, ()) = tokio::try_join!(starting, policies_act(control_plane, &objects))?;
    let Started {
        operators,
        issuers,
        webhooks,
    } = started;
    let webhook_ports: Vec<u16> = webhooks.iter().map(|(_, port)| *port).collect();
    let service = match options.service {
        None if webhooks.len() > 1 => Some(Forward::listen(port)?),
        given => given,
    };
    if let Some(service) = service {
        for (webhook, port) in &webhooks {
            webhook.wait_ready(READY_DEADLINE).await?;
            service.add(*port);
        }
    }
    let installed = Installed {
        webhooks: webhooks.into_iter().map(|(process, _)| process).collect(),
        operators: operators.into_iter().map(|(process, _)| process).collect(),
        issuers,
        webhook_ports,
        port,
        objects,
    };
    installed.wait_ready(control_plane).await?;
    Ok(installed)
}

/// The programs, those that listen with their port.
struct Started {
    operators: Vec<(ServerProcess, u16)>,
    issuers: Vec<(ServerProcess, u16)>,
    webhooks: Vec<(ServerProcess, u16)>,
}

/// Starts the programs of these objects. The webhook reads the authority of the issuer's certificate, which the operator makes.
async fn start(client: &Client, programs: &Programs<'_>) -> Result<Started> {
    let operators = programs.start("tokenscope-operator")?;
    if programs.options.has_issuer() {
        // Where it isn't, its log says why.
        if let Some((operator, _)) = operators.first() {
            operator.wait_ready(READY_DEADLINE).await?;
        }
        std::fs::write(issuer_authority(programs.control_plane), made_authority(client).await?)?;
    }
    let issuers = if programs.options.issuers > 0 {
        programs.start("tokenscope-issuer")?
    } else {
        Vec::new()
    };
    let webhooks = programs.start("tokenscope-webhook")?;
    Ok(Started {
        operators,
        issuers,
        webhooks,
    })
}

/// Everything that helm installs, custom resource definitions first.
fn objects(control_plane: &ControlPlane, options: &Options, port: u16) -> Result<Vec<Value>> {
    let folder = |name: &str| match &options.charts {
        Some(charts) => charts.join(name),
        None => chart(name),
    };
    let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());
    let in_view = ["--is-upgrade", "--dry-run=server", &kubeconfig];
    let by_version = ["--kube-version", control_plane.version()];
    let flags = if options.upgrade {
        in_view.as_slice()
    } else {
        &by_version
    };
    let mut objects = template_of(&folder("tokenscope"), flags, &patient(&options.values))?;
    for object in &mut objects {
        reach_by_address(object, port);
    }
    objects.sort_by_key(|object| object["kind"] == "MutatingWebhookConfiguration");
    let mut all = template_of(&folder("tokenscope-crds"), &[], &Value::Null)?;
    all.append(&mut objects);
    Ok(all)
}

impl Installed {
    /// The n-th webhook, from 0.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn webhook(&self, number: usize) -> &ServerProcess {
        &self.webhooks[number]
    }

    /// The n-th operator, from 0.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn operator(&self, number: usize) -> &ServerProcess {
        &self.operators[number]
    }

    /// The n-th issuer, from 0, and the port on 127.0.0.1 where it listens.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn issuer(&self, number: usize) -> (&ServerProcess, u16) {
        let (process, port) = &self.issuers[number];
        (process, *port)
    }

    /// Every program of it.
    pub fn processes(&self) -> impl Iterator<Item = &ServerProcess> {
        let issuers = self.issuers.iter().map(|(process, _)| process);
        self.webhooks.iter().chain(&self.operators).chain(issuers)
    }

    /// The port on 127.0.0.1 where the API server reaches the webhooks, by TLS.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port on 127.0.0.1 where the n-th webhook itself listens.
    ///
    /// # Panics
    /// If fewer were asked for.
    pub fn webhook_port(&self, number: usize) -> u16 {
        self.webhook_ports[number]
    }

    /// The ports on 127.0.0.1 where the webhooks themselves listen.
    pub fn webhook_ports(&self) -> &[u16] {
        &self.webhook_ports
    }

    /// The objects that the chart rendered, as they were applied: to apply it again after a test has damaged something.
    pub fn objects(&self) -> &[Value] {
        &self.objects
    }

    /// Waits until all programs are ready and a pod that asks for a role is answered by the webhook. Where one fails, the others may still say why
    /// they do: the first error counts.
    pub async fn wait_ready(&self, control_plane: &ControlPlane) -> Result<()> {
        let mut failed: Option<anyhow::Error> = None;
        for process in self.processes() {
            let deadline = if failed.is_none() {
                READY_DEADLINE
            } else {
                OTHERS_DEADLINE
            };
            if let Err(error) = process.wait_ready(deadline).await {
                failed.get_or_insert(error);
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
        let client = control_plane.client().await?;
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "is-tokenscope-there", "namespace": "default",
                "annotations": {"tokenscope.io/role-arn": "arn:aws:iam::111122223333:role/nobody-allows-this"},
            },
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        eventually(
            READY_DEADLINE,
            "a pod that asks for a role is answered by the webhook",
            async || {
                let answer = try_pod(&client, &pod).await?;
                let metadata = &answer.body["metadata"];
                let reviewed = metadata["labels"]["tokenscope.io/reviewed"].is_string()
                    || metadata["annotations"]["tokenscope.io/reviewed"].is_string(); // by version 0.1.0
                // Without the webhook it is refused as well: because it can't be called, or by the guard.
                let refused = answer.message().contains("tokenscope.io\" denied the request");
                ensure!(reviewed || refused, "{} {}", answer.status, answer.body);
                Ok(())
            },
        )
        .await
    }
}

/// Where the authority of the issuers' certificate is, which the kubelet mounts into the webhook otherwise.
fn issuer_authority(control_plane: &ControlPlane) -> PathBuf {
    control_plane.folder().join("issuer-ca.crt")
}

/// That authority, PEM, once the operator has made it.
async fn made_authority(client: &Client) -> Result<String> {
    eventually(
        READY_DEADLINE,
        "the operator makes the issuer's certificate",
        async || authority(client).await,
    )
    .await
}

/// Outside a cluster there is no Service; the certificate is checked in the same way, so it is for the address as well.
fn reach_by_address(object: &mut Value, port: u16) {
    if object["kind"] == "Certificate" && object["spec"]["dnsNames"].is_array() {
        object["spec"]["ipAddresses"] = json!(["127.0.0.1"]);
    }
    if object["kind"] != "MutatingWebhookConfiguration" {
        return;
    }
    for webhook in object["webhooks"].as_array_mut().into_iter().flatten() {
        let path = webhook["clientConfig"]["service"]["path"]
            .as_str()
            .unwrap_or("/")
            .to_owned();
        let mut reached = json!({"url": format!("https://127.0.0.1:{port}{path}")});
        if let Some(bundle) = webhook["clientConfig"].get("caBundle") {
            reached["caBundle"] = bundle.clone();
        }
        webhook["clientConfig"] = reached;
    }
}

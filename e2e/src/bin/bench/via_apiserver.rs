//! The creates that a user feels: those of pods through the API server, with one webhook after the other.
//!
//! Each webhook has a namespace of its own, which is chosen by its configuration's namespaceSelector, so changing from one
//! to the next needs no waiting.

use std::fs;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::ControlPlane;
use tokenscope_e2e::{eventually, get_json, post};

use crate::load::{self, Connection, TlsServer};
use crate::report::Creates;

/// How many creates come one after the other before the next webhook has its turn.
const ROUND: usize = 20;

/// However long it is to last.
const MOST_CREATES: usize = 100_000;

/// The label that chooses the webhook of a namespace.
const LABEL: &str = "tokenscope-bench";

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// A webhook and its namespace.
#[derive(Clone)]
pub(crate) struct Variant {
    /// Its name in the report.
    pub(crate) name: &'static str,
    /// The namespace where it is called.
    pub(crate) namespace: String,
    /// True if pods come out with credentials.
    pub(crate) injects: bool,
}

impl Variant {
    /// A namespace without tokenscope.
    pub(crate) async fn bare(
        control_plane: &ControlPlane,
        name: &'static str,
        injects: bool,
        (service_account, annotation, role): (&str, &str, &str),
    ) -> Result<Self> {
        let namespace = namespace_of(name);
        let labels = [(LABEL, namespace.as_str()), ("tokenscope.io/inject", "false")];
        control_plane.create_namespace(&namespace, &labels).await?;
        control_plane
            .create_service_account(&namespace, service_account, &[(annotation, role)])
            .await?;
        Ok(Self {
            name,
            namespace,
            injects,
        })
    }

    /// Registers a webhook for its namespace.
    pub(crate) async fn register(&self, control_plane: &ControlPlane, url: &str, authorities: &str) -> Result<()> {
        let configuration = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": {"name": self.namespace},
            "webhooks": [{
                "name": self.webhook(),
                "clientConfig": {"url": url, "caBundle": STANDARD.encode(authorities)},
                "rules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                    "scope": "Namespaced",
                }],
                "namespaceSelector": {"matchLabels": {LABEL: self.namespace}},
                "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                "timeoutSeconds": 5,
            }],
        });
        post(&control_plane.client().await?, CONFIGURATIONS, &configuration).await?;
        Ok(())
    }

    /// Registers a webhook for its namespace with the conditions and policies of another configuration.
    pub(crate) async fn register_like(
        &self,
        control_plane: &ControlPlane,
        configuration: &Value,
        url: &str,
        authorities: &str,
    ) -> Result<()> {
        let mut configuration = configuration.clone();
        configuration["metadata"] = json!({"name": self.namespace});
        for webhook in configuration["webhooks"].as_array_mut().into_iter().flatten() {
            let name = webhook["name"].as_str().and_then(|name| name.split('.').next());
            webhook["name"] = json!(format!("{}.{}", name.unwrap_or("webhook"), self.webhook()));
            webhook["clientConfig"] = json!({"url": url, "caBundle": STANDARD.encode(authorities)});
            // The namespace takes itself out of tokenscope's own selector.
            let label = json!({"key": LABEL, "operator": "In", "values": [self.namespace]});
            let expressions = webhook["namespaceSelector"]["matchExpressions"].as_array_mut();
            let expressions = expressions.context("the chart selects namespaces by expressions")?;
            expressions.retain(|expression| expression["key"] != "tokenscope.io/inject");
            expressions.push(label);
        }
        post(&control_plane.client().await?, CONFIGURATIONS, &configuration).await?;
        Ok(())
    }

    fn webhook(&self) -> String {
        format!("{}.tokenscope.test", self.namespace)
    }
}

/// The namespace of a webhook that isn't tokenscope's.
pub(crate) fn namespace_of(variant: &str) -> String {
    format!("bench-{}", variant.replace([' ', '+', ','], "-"))
}

/// A pod that asks for nothing, of the ServiceAccount `default`, with so many volumes that its container mounts.
pub(crate) fn ordinary_pod(volumes: usize) -> Value {
    let volume = |number: usize| json!({"name": format!("volume-{number}"), "configMap": {"name": format!("settings-{number}")}});
    let mount =
        |number: usize| json!({"name": format!("volume-{number}"), "mountPath": format!("/etc/settings-{number}")});
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "ordinary", "labels": {"app.kubernetes.io/name": "ordinary"}},
        "spec": {
            "serviceAccountName": "default",
            "volumes": (0..volumes).map(volume).collect::<Vec<_>>(),
            "containers": [{
                "name": "app", "image": "registry.example.com/shop/app:1.4.2",
                "env": [{"name": "LOG_LEVEL", "value": "info"}, {"name": "PORT", "value": "8080"}],
                "volumeMounts": (0..volumes).map(mount).collect::<Vec<_>>(),
            }],
        },
    })
}

/// Creates `pod` (dry run), which is called so in the report, in each variant's namespace, in turns over one connection.
/// `no webhook` is the first variant and `constant` the second.
pub(crate) async fn measure(
    control_plane: &ControlPlane,
    variants: &[Variant],
    (called, pod): (&'static str, &Value),
    seconds: u64,
) -> Result<Vec<Creates>> {
    let mut bodies = Vec::new();
    for variant in variants {
        let mut pod = pod.clone();
        pod["metadata"]["namespace"] = json!(variant.namespace);
        wait_until_called(control_plane, variant, &pod).await?;
        let path = format!("/api/v1/namespaces/{}/pods?dryRun=All", variant.namespace);
        bodies.push(load::post("127.0.0.1", &path, pod.to_string().as_bytes()));
    }
    let server = api_server(control_plane)?;
    let mut latencies = vec![Vec::new(); variants.len()];
    let mut connection = Connection::open(&server).await?;
    let started = Instant::now();
    let length = Duration::from_secs(seconds) * u32::try_from(variants.len())?;
    // One round more than counts, for warming up.
    let mut warm = false;
    while started.elapsed() < length && latencies[0].len() < MOST_CREATES {
        for ((variant, request), latencies) in variants.iter().zip(&bodies).zip(&mut latencies) {
            for _ in 0..ROUND {
                let sent = Instant::now();
                let (status, body) =
                    tokio::time::timeout(Duration::from_secs(10), connection.exchange(request)).await??;
                let took = load::nanoseconds(sent.elapsed());
                let injected = body.windows(TOKEN_FILE.len()).any(|window| window == TOKEN_FILE);
                ensure!(
                    status == 201 && injected == variant.injects,
                    "{}: {status} {}",
                    variant.name,
                    String::from_utf8_lossy(body)
                );
                if warm {
                    latencies.push(took);
                }
            }
        }
        warm = true;
    }
    ensure!(
        !latencies[0].is_empty(),
        "the time was too short for one round: give it more --seconds"
    );
    Ok(summary(called, variants, latencies))
}

const TOKEN_FILE: &[u8] = b"AWS_WEB_IDENTITY_TOKEN_FILE";

fn summary(pod: &'static str, variants: &[Variant], latencies: Vec<Vec<u32>>) -> Vec<Creates> {
    let mut lines: Vec<Creates> = Vec::new();
    for (variant, mut latencies) in variants.iter().zip(latencies) {
        latencies.sort_unstable();
        let p50_us = load::percentile(&latencies, 50);
        let added_us = lines.first().map_or(0.0, |without| p50_us - without.p50_us);
        let ratio = match lines.as_slice() {
            [] => None,
            [_] => Some(1.0),
            [_, constant, ..] => Some(added_us / constant.added_us),
        };
        lines.push(Creates {
            pod,
            webhook: variant.name,
            count: latencies.len(),
            p50_us,
            p99_us: load::percentile(&latencies, 99),
            added_us,
            ratio,
        });
    }
    lines
}

/// The API server learns of a configuration some moments after it was stored. It counts its calls.
async fn wait_until_called(control_plane: &ControlPlane, variant: &Variant, pod: &Value) -> Result<()> {
    let client = control_plane.client().await?;
    let path = format!("{CONFIGURATIONS}/{}", variant.namespace);
    let registered = get_json(&client, &path).await.is_ok();
    eventually(
        Duration::from_secs(30),
        format!("the webhook {} is called", variant.name),
        async || {
            let answer = try_pod(&client, pod).await?;
            ensure!(answer.accepted(), "{}", answer.message());
            let injected = answer.body.to_string().contains("AWS_WEB_IDENTITY_TOKEN_FILE");
            ensure!(injected == variant.injects, "credentials in the pod: {injected}");
            let metrics = client
                .request_text(http::Request::get("/metrics").body(Vec::new())?)
                .await?;
            let name = format!("{}\"", variant.webhook());
            let called = metrics
                .lines()
                .any(|line| line.starts_with("apiserver_admission_webhook_request_total{") && line.contains(&name));
            ensure!(called || !registered, "it was not called yet");
            Ok(())
        },
    )
    .await
}

/// The API server, as the administrator of the kubeconfig reaches it.
pub(crate) fn api_server(control_plane: &ControlPlane) -> Result<TlsServer> {
    let kubeconfig: Value = serde_json::from_slice(&fs::read(control_plane.kubeconfig())?)?;
    let user = &kubeconfig["users"][0]["user"];
    let file = |name: &str| -> Result<Vec<u8>> {
        let path = user[name]
            .as_str()
            .with_context(|| format!("the kubeconfig has a {name}"))?;
        Ok(fs::read(path)?)
    };
    let (certificate, key) = (file("client-certificate")?, file("client-key")?);
    Ok(TlsServer {
        address: SocketAddr::from(([127, 0, 0, 1], control_plane.port())),
        name: "localhost".try_into()?,
        config: load::client_config(control_plane.ca()?.as_bytes(), Some((&certificate, &key)))?,
    })
}

//! Somebody else's mutating webhook, as most clusters have several: a real TLS server with a registration of its own.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use axum::routing::post;
use axum::{Json, Router};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use tokenscope_platform::Limits;
use tokenscope_platform::tls::{ConnectionMetrics, ServingCertificate, serve, server_config};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::admission::try_pod;
use crate::control_plane::ControlPlane;
use crate::fixtures::init_containers;
use crate::pki::CertificateAuthority;
use crate::{delete, eventually};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// The order in which it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Before ours.
    Before,
    /// After ours.
    After,
}

/// A webhook that changes the pods of one namespace. It serves until it is dropped or its test's runtime ends; its
/// registration stays until [`SecondWebhook::remove`].
#[derive(Debug)]
pub struct SecondWebhook {
    name: String,
    namespace: String,
    calls: Arc<AtomicUsize>,
    _serving: DropGuard,
}

impl SecondWebhook {
    /// Registers it and waits until the API server calls it.
    ///
    /// It is called again when another one changes the pod after it. `change` gives the JSON Patch operations for a pod.
    pub async fn start(
        control_plane: &ControlPlane,
        order: Order,
        namespace: &str,
        change: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static,
    ) -> Result<Self> {
        // The API server calls webhooks in the order of their registrations' names; ours is `tokenscope`.
        let name = match order {
            Order::Before => format!("a-webhook-before-{namespace}"),
            Order::After => format!("z-webhook-after-{namespace}"),
        };
        Self::start_as(control_plane, name, namespace, change).await
    }

    /// The same under a name of its registration, which decides when it is called.
    pub async fn start_as(
        control_plane: &ControlPlane,
        name: String,
        namespace: &str,
        change: impl Fn(&Value) -> Vec<Value> + Send + Sync + 'static,
    ) -> Result<Self> {
        let authority = CertificateAuthority::new("somebody-else")?;
        let identity = authority.server(&["127.0.0.1"])?;
        let certificate = ServingCertificate::empty();
        certificate.replace(&identity.certificate, &identity.key)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();

        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let change = Arc::new(change);
        let app = Router::new().route(
            "/",
            post(async move |Json(review): Json<Value>| {
                let answer = answer(&review["request"], &*change);
                counted.fetch_add(1, Ordering::Relaxed);
                Json(answer)
            }),
        );
        let stop = CancellationToken::new();
        let config = server_config(certificate, None)?;
        tokio::spawn(serve(
            listener,
            config,
            app,
            Limits::default(),
            ConnectionMetrics::default(),
            stop.clone(),
        ));

        let client = control_plane.client().await?;
        let configuration = configuration(&name, namespace, port, &authority.certificate());
        crate::post(&client, CONFIGURATIONS, &configuration).await?;
        let pod = pod("is-the-second-webhook-there", namespace);
        eventually(Duration::from_secs(90), format!("{name} is called"), async || {
            // What becomes of the pod does not matter here.
            let answer = try_pod(&client, &pod).await?;
            ensure!(calls.load(Ordering::Relaxed) > 0, "{} {}", answer.status, answer.body);
            Ok(())
        })
        .await?;
        Ok(Self {
            name,
            namespace: namespace.to_owned(),
            calls,
            _serving: stop.drop_guard(),
        })
    }

    /// The number of calls so far.
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Takes its registration away and waits until the API server calls it no more.
    pub async fn remove(self, control_plane: &ControlPlane) -> Result<()> {
        let client = control_plane.client().await?;
        delete(&client, &format!("{CONFIGURATIONS}/{}", self.name)).await?;
        let pod = pod("is-the-second-webhook-gone", &self.namespace);
        eventually(
            Duration::from_secs(90),
            format!("{} is called no more", self.name),
            async || {
                let before = self.calls();
                try_pod(&client, &pod).await?;
                ensure!(self.calls() == before, "it was called again");
                Ok(())
            },
        )
        .await
    }
}

/// A registration for the pods of one namespace, at a port of this machine.
fn configuration(name: &str, namespace: &str, port: u16, authority: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": name},
        "webhooks": [{
            "name": "pods.somebody-else.test",
            "clientConfig": {
                "url": format!("https://127.0.0.1:{port}/"),
                "caBundle": BASE64_STANDARD.encode(authority),
            },
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
            "reinvocationPolicy": "IfNeeded", "timeoutSeconds": 30,
        }],
    })
}

/// A pod that asks for nothing, to find out if the webhook is called.
fn pod(name: &str, namespace: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    })
}

fn answer(request: &Value, change: &dyn Fn(&Value) -> Vec<Value>) -> Value {
    let mut response = json!({"uid": request["uid"], "allowed": true});
    let operations = change(&request["object"]);
    if !operations.is_empty() {
        response["patchType"] = json!("JSONPatch");
        response["patch"] = json!(BASE64_STANDARD.encode(Value::from(operations).to_string()));
    }
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})
}

/// What a service mesh does: init container `mesh-init` is put before all others, once.
pub fn put_mesh_first(pod: &Value) -> Vec<Value> {
    if init_containers(pod).contains(&"mesh-init") {
        return Vec::new();
    }
    let container = json!({"name": "mesh-init", "image": "mesh"});
    if pod["spec"]["initContainers"].is_array() {
        return vec![json!({"op": "add", "path": "/spec/initContainers/0", "value": container})];
    }
    vec![json!({"op": "add", "path": "/spec/initContainers", "value": [container]})]
}

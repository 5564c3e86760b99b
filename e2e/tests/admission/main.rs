//! What the API server itself does for tokenscope: the chart's admission policies and the registration of the webhook, on a real
//! API server.
//!
//! - [`audiences`]: an API server one of whose own audiences is to be locked;
//! - [`cert_manager`]: certificates that somebody else makes;
//! - [`exchange`]: users with the role `edit`, and tokens for tokenscope's own issuer;
//! - [`failures`]: a webhook that fails in every way, and pods that bring marks: nothing gets past the guard;
//! - [`configuration`]: the same while somebody changes or deletes the webhook configuration;
//! - [`gitops`]: objects as they are written and as they are given back;
//! - [`lock`]: users with the role `edit`, and tokens of a locked audience;
//! - [`record`]: users who may change running pods, and what admission wrote on them;
//! - [`operator`]: what the operator could do with its rights, and others with the webhook configuration;
//! - [`share`]: namespaces whose share of the webhook is used up;
//! - [`cost`]: pods that are meant to keep the API server busy;
//! - [`upgrade`]: from the release before, while pods are created.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod audiences;
mod cert_manager;
mod configuration;
mod cost;
mod exchange;
mod failures;
mod gitops;
mod lock;
mod operator;
mod record;
mod share;
mod stand_in;
mod upgrade;

use std::time::Duration;

use anyhow::{Result, ensure};
use kube::Client;
use serde_json::{Value, json};
use tokenscope_e2e::admission::try_pod;
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::eventually;
use tokenscope_e2e::fixtures::{ORDERS, Shop, with_annotations};
use tokenscope_e2e::helm::{NAMESPACE, patient, template_with};
use tokenscope_e2e::policies_act::policies_act;

use crate::stand_in::StandIn;

/// How long the API server may take to learn of a policy or a registration.
const SOON: Duration = Duration::from_secs(90);

/// The mark of a review.
const MARK: &str = "tokenscope.io/reviewed";

/// A control plane with all that the chart makes for its version of Kubernetes, where a stand-in answers for the webhook and no program runs.
struct Door {
    control_plane: ControlPlane,
    stand_in: StandIn,
    client: Client,
}

impl Door {
    async fn open(values: &Value) -> Self {
        let control_plane = ControlPlane::start(Options::default()).await.unwrap();
        Self::open_in(control_plane, values).await
    }

    /// On the older Kubernetes, which can't take marks away by itself.
    async fn open_before_mutating_policies(values: &Value) -> Self {
        let options = Options {
            older: true,
            ..Options::default()
        };
        Self::open_in(ControlPlane::start(options).await.unwrap(), values).await
    }

    async fn open_in(control_plane: ControlPlane, values: &Value) -> Self {
        control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
        let stand_in = StandIn::start().await.unwrap();
        let client = control_plane.client().await.unwrap();
        let door = Self {
            control_plane,
            stand_in,
            client,
        };
        let objects = chart_for(&door.control_plane, values);
        door.apply(objects.clone()).await.unwrap();
        policies_act(&door.control_plane, &objects).await.unwrap();
        door.wait_until_guarded().await;
        door
    }

    /// Applies what the chart makes, the webhooks being those of the stand-in.
    async fn apply(&self, mut objects: Vec<Value>) -> Result<()> {
        for object in &mut objects {
            if object["kind"] == "MutatingWebhookConfiguration" {
                self.stand_in.register(object);
            }
        }
        self.control_plane.apply(&objects, NAMESPACE).await?;
        Ok(())
    }

    /// The webhook is asked, and the guard refuses what it doesn't answer.
    async fn wait_until_guarded(&self) {
        self.stand_in
            .answers(stand_in::Way::Status(500), stand_in::Way::Status(500));
        let pod = json!({
            "metadata": {"name": "is-it-guarded", "namespace": "default", "annotations": {"tokenscope.io/role-arn": ORDERS}},
            "spec": {"containers": [{"name": "app", "image": "app"}]},
        });
        eventually(SOON, "the guard acts", async || {
            let calls = self.stand_in.calls();
            let answer = try_pod(&self.client, &pod).await?;
            ensure!(answer.message().contains("'tokenscope-guard'"), "{}", answer.body);
            ensure!(self.stand_in.calls() > calls, "the webhook is not asked yet");
            Ok(())
        })
        .await
        .unwrap();
        self.stand_in.answers(stand_in::Way::Works, stand_in::Way::Works);
    }

    async fn shop(&self, namespace: &str, labels: &[(&str, &str)]) -> Shop<'_> {
        Shop::open(&self.control_plane, namespace, labels).await.unwrap()
    }
}

/// What the chart makes of these values, with more time for reviews, for the version of Kubernetes that the control plane has.
fn chart_for(control_plane: &ControlPlane, values: &Value) -> Vec<Value> {
    template_with(
        "tokenscope",
        &["--kube-version", control_plane.version()],
        &patient(values),
    )
    .unwrap()
}

/// The pod with a label.
fn with_label(mut pod: Value, key: &str, value: &str) -> Value {
    pod["metadata"]["labels"][key] = json!(value);
    pod
}

/// The pod with a volume that holds a token, which its container mounts.
fn with_token(mut pod: Value, audience: &str) -> Value {
    let token = json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": 86400, "path": "token"}});
    pod["spec"]["volumes"] = json!([{"name": "own-token", "projected": {"sources": [token]}}]);
    pod["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "own-token", "mountPath": "/own"}]);
    pod
}

/// The pod with an inline volume of a CSI driver.
fn with_driver(mut pod: Value, driver: &str) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "inline", "csi": {"driver": driver}}]);
    pod
}

/// The pod that asks for nothing, as its author says.
fn opted_out(pod: Value) -> Value {
    with_annotations(pod, &[("tokenscope.io/inject", "false")])
}

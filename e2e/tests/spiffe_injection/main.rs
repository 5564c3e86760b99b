//! Policies with tokens from SPIFFE on a real API server: what pods get, what is refused, and what their status says.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod other_webhooks;
mod pods;
mod settings;
mod status;

use serde_json::{Value, json};
use tokenscope_e2e::fixtures::{Shop, orders_may};
use tokenscope_e2e::install::Options;
use tokenscope_e2e::{Environment, Shared};

static SHARED: Shared = Shared::new(with_an_issuer);

const SIDECAR: &str = "tokenscope-sidecar";

const VOLUME: &str = "tokenscope-aws-token";

const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";

const SOCKET_VOLUME: &str = "tokenscope-spiffe-workload-api";

const SPIFFE_ID: &str = "spiffe://example.org/ns/shop/sa/orders";

const RESTRICTED: &[(&str, &str)] = &[("pod-security.kubernetes.io/enforce", "restricted")];

fn with_an_issuer() -> Options {
    Options {
        values: json!({"spiffe": {"issuer": "https://oidc-discovery.example.org"}}),
        ..Options::default()
    }
}

async fn shop(namespace: &str, labels: &[(&str, &str)]) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, labels).await.unwrap()
}

/// ServiceAccount `orders` may have these roles with tokens from SPIFFE.
fn from_spiffe(roles: &[&str], spiffe: &Value) -> Value {
    let mut spec = orders_may(roles);
    spec["token"] = json!({"source": "SPIFFE", "spiffe": spiffe});
    spec
}

/// A pod that Pod Security "restricted" admits.
fn restricted(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] = json!({"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}});
    for container in pod["spec"]["containers"].as_array_mut().into_iter().flatten() {
        container["securityContext"] = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    }
    pod
}

/// The same pod under another name, as somebody makes one from `kubectl get pod -o yaml`.
fn copied(pod: &Value, name: &str) -> Value {
    let mut copy = json!({"apiVersion": "v1", "kind": "Pod", "spec": pod["spec"]});
    copy["metadata"] = json!({
        "name": name, "namespace": pod["metadata"]["namespace"], "labels": pod["metadata"]["labels"],
        "annotations": pod["metadata"]["annotations"],
    });
    copy
}

fn within_rights(shop: &Shop<'_>) {
    let nothing: [String; 0] = [];
    assert_eq!(shop.control_plane.forbidden().unwrap(), nothing);
}

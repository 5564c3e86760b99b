//! Beside somebody else's mutating webhook, which runs before or after ours and changes what ours has seen.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod accounts;
mod edits;
mod late;
mod unreviewed;

use serde_json::Value;
use tokenscope_e2e::fixtures::{Shop, annotation, without_random_names};
use tokenscope_e2e::second_webhook::Order;
use tokenscope_e2e::{Environment, Shared, install};

static SHARED: Shared = Shared::new(install::Options::default);

const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";

const VOLUME: &str = "tokenscope-aws-token";

async fn shop(namespace: &str) -> Shop<'static> {
    let Environment { control_plane, .. } = SHARED.environment().await;
    Shop::open(control_plane, namespace, &[]).await.unwrap()
}

/// Nothing of all this needed a right that the chart doesn't give.
fn within_rights(shop: &Shop<'_>) {
    let nothing: [String; 0] = [];
    assert_eq!(shop.control_plane.forbidden().unwrap(), nothing);
}

/// What the webhook wrote down of its decision.
fn record_of(pod: &Value) -> Value {
    serde_json::from_str(annotation(pod, "tokenscope.io/grant").unwrap()).unwrap()
}

fn suffix(order: Order) -> &'static str {
    match order {
        Order::Before => "before",
        Order::After => "after",
    }
}

/// A pod's specification without what the order of the webhooks may change: the random end of the name that the API server
/// gives the volume of its own token, and where that is mounted first.
fn comparable(spec: &Value) -> Value {
    let mut spec = without_random_names(spec).unwrap();
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(mounts) = container["volumeMounts"].as_array_mut() {
                mounts.sort_by_key(Value::to_string);
            }
        }
    }
    spec
}

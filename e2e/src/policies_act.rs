//! Waits until the API server acts by every admission policy that it has accepted.
//!
//! It learns of policies and bindings by two watches, each in the order of the writes, and makes its list of those in force anew once a second: in one
//! pass at a time, which reads the bindings first and then the policy of each. So one policy more is written after all others, which refuses a single
//! name. Once it refuses, the watches have brought everything that was written before it, and the next pass has all of it. A second such policy shows
//! that the next pass is over.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::admission::create;
use crate::control_plane::ControlPlane;
use crate::{delete, eventually};

/// How long the API server may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(240);
const GROUP: &str = "/apis/admissionregistration.k8s.io/v1";
const LABEL: &str = "policies-act";

/// Waits until all admission policies among these objects act, which were applied before. Nothing stays of what it writes.
pub async fn policies_act(control_plane: &ControlPlane, applied: &[Value]) -> Result<()> {
    let has = |kind: &str| applied.iter().any(|object| object["kind"] == kind);
    let mutates = has("MutatingAdmissionPolicy");
    if mutates || has("ValidatingAdmissionPolicy") {
        for _ in 0..2 {
            one_more_acts(control_plane, mutates).await?;
        }
    }
    Ok(())
}

/// Writes one policy more, waits until it acts, and deletes it. With `mutates` it is one of each kind: the second refuses only what the first has
/// labelled.
async fn one_more_acts(control_plane: &ControlPlane, mutates: bool) -> Result<()> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("policies-act-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let mut policies = vec![refusing(&name, mutates)];
    if mutates {
        policies.insert(0, labelling(&name));
    }
    for policy in &policies {
        control_plane
            .apply(&[policy.clone(), binding(policy)], "default")
            .await?;
    }
    let client = control_plane.client().await?;
    let path = "/api/v1/namespaces/default/configmaps?dryRun=All";
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let refused_by = format!("ValidatingAdmissionPolicy '{name}'");
    eventually(DEADLINE, "the API server acts by all admission policies", async || {
        let answer = create(&client, path, &object).await?;
        ensure!(
            answer.message().contains(&refused_by),
            "{} {}",
            answer.status,
            answer.body
        );
        Ok(())
    })
    .await?;
    for policy in policies {
        let plural = if policy["kind"] == "MutatingAdmissionPolicy" {
            "mutatingadmissionpolic"
        } else {
            "validatingadmissionpolic"
        };
        delete(&client, &format!("{GROUP}/{plural}ybindings/{name}")).await?;
        delete(&client, &format!("{GROUP}/{plural}ies/{name}")).await?;
    }
    Ok(())
}

fn refusing(name: &str, only_labelled: bool) -> Value {
    let labelled = format!("has(object.metadata.labels) && '{LABEL}' in object.metadata.labels");
    let mut policy = policy("ValidatingAdmissionPolicy", name);
    policy["spec"]["validations"] = json!([{
        "expression": if only_labelled { format!("!({labelled})") } else { "false".to_owned() },
        "message": "as it must be",
    }]);
    policy
}

fn labelling(name: &str) -> Value {
    let mut policy = policy("MutatingAdmissionPolicy", name);
    policy["spec"]["reinvocationPolicy"] = json!("Never");
    policy["spec"]["mutations"] = json!([{
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": format!("Object{{metadata: Object.metadata{{labels: {{'{LABEL}': 'yes'}}}}}}")},
    }]);
    policy
}

/// A policy for config maps of this name, which is also its own.
fn policy(kind: &str, name: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]},
            ]},
            "matchConditions": [{"name": "this-name", "expression": format!("object.metadata.name == '{name}'")}],
        },
    })
}

fn binding(policy: &Value) -> Value {
    let name = &policy["metadata"]["name"];
    let mut binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": format!("{}Binding", policy["kind"].as_str().unwrap_or_default()),
        "metadata": {"name": name}, "spec": {"policyName": name},
    });
    if policy["kind"] == "ValidatingAdmissionPolicy" {
        binding["spec"]["validationActions"] = json!(["Deny"]);
    }
    binding
}

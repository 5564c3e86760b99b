//! What GitOps tools compare: the chart's objects as they are written, and as the API server gives them back.

use serde_json::{Map, Value, json};
use tokenscope_e2e::control_plane::{ControlPlane, Options};
use tokenscope_e2e::get_json;
use tokenscope_e2e::helm::NAMESPACE;

use crate::chart_for;

/// What the API server keeps of its own of every object.
const ITS_OWN: [&str; 5] = [
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "managedFields",
];

/// The paths of what an object has that was not written.
fn added(stored: &Value, written: &Value, path: &str, found: &mut Vec<String>) {
    let none = Map::new();
    match (stored, written) {
        (Value::Object(stored), written) => {
            let written = written.as_object().unwrap_or(&none);
            for (key, value) in stored {
                let is_its_own = path == "/metadata" && ITS_OWN.contains(&key.as_str());
                match written.get(key) {
                    Some(written) => added(value, written, &format!("{path}/{key}"), found),
                    None if is_its_own || (path.is_empty() && key == "status") => {}
                    None => found.push(format!("{path}/{key}: {value}")),
                }
            }
        }
        (Value::Array(stored), Value::Array(written)) if stored.len() == written.len() => {
            for (index, (stored, written)) in stored.iter().zip(written).enumerate() {
                added(stored, written, &format!("{path}/{index}"), found);
            }
        }
        (stored, written) if stored == written => {}
        (stored, written) => found.push(format!("{path}: {stored} and not {written}")),
    }
}

#[tokio::test]
async fn the_api_server_fills_nothing_into_what_the_chart_writes_of_admission() {
    nothing_is_filled_in(Options::default()).await;
}

#[tokio::test]
async fn nor_does_an_older_one_before_mutating_policies() {
    let options = Options {
        older: true,
        ..Options::default()
    };
    nothing_is_filled_in(options).await;
}

async fn nothing_is_filled_in(options: Options) {
    let control_plane = ControlPlane::start(options).await.unwrap();
    control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
    let client = control_plane.client().await.unwrap();
    let everything = json!({
        "lock": {"mode": "deny", "csiDrivers": ["csi.example.com"]}, "issuer": {"enabled": true, "url": "https://tokens.example.com"}, "guard": {"acceptAnnotationMark": true},
    });
    let protected = json!({"protectConfiguration": {"enabled": true}});
    let mut looked_at = 0;
    // The protected last: from then on the configuration can't be written.
    for values in [&Value::Null, &everything, &protected] {
        let mut objects = chart_for(&control_plane, values);
        objects.sort_by_key(|object| object["kind"] != "MutatingWebhookConfiguration");
        for written in objects {
            let group = written["apiVersion"].as_str().unwrap();
            if !group.starts_with("admissionregistration.k8s.io/") {
                continue;
            }
            control_plane
                .apply(std::slice::from_ref(&written), NAMESPACE)
                .await
                .unwrap();
            let kind = written["kind"].as_str().unwrap().to_lowercase();
            let plural = kind
                .strip_suffix('y')
                .map_or_else(|| format!("{kind}s"), |stem| format!("{stem}ies"));
            let name = written["metadata"]["name"].as_str().unwrap();
            let stored = get_json(&client, &format!("/apis/{group}/{plural}/{name}"))
                .await
                .unwrap();
            let mut found = Vec::new();
            added(&stored, &written, "", &mut found);
            assert_eq!(found, [""; 0], "{kind} {name}");
            looked_at += 1;
        }
    }
    assert!(looked_at > 20, "only {looked_at} objects");
}

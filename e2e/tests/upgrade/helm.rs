//! What the real helm makes of the webhook configuration: an entry without a caBundle is one that the API server can't call.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokenscope_e2e::control_plane::{self, ControlPlane};
use tokenscope_e2e::get_json;
use tokenscope_e2e::helm::{NAMESPACE, chart, helm};
use tokenscope_xtask::releases::VERSION_0_1_0;

const CONFIGURATION: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/tokenscope";

/// Names and caBundles of the entries, in their order.
async fn entries(control_plane: &ControlPlane) -> Result<Vec<(String, Option<String>)>> {
    let configuration = get_json(&control_plane.client().await?, CONFIGURATION).await?;
    let entries = configuration["webhooks"].as_array().context("webhooks is a list")?;
    let text = |value: &Value| value.as_str().map(str::to_owned);
    entries
        .iter()
        .map(|entry| {
            let name = text(&entry["name"]).context("an entry has a name")?;
            Ok((name, text(&entry["clientConfig"]["caBundle"])))
        })
        .collect()
}

/// Writes what is missing or another, as the operator does.
async fn inject(control_plane: &ControlPlane, bundle: &str) -> Result<()> {
    let entries = entries(control_plane).await?;
    let operations: Vec<Value> = entries
        .iter()
        .enumerate()
        .filter(|(_, (_, found))| found.as_deref() != Some(bundle))
        .map(|(index, _)| json!({"op": "add", "path": format!("/webhooks/{index}/clientConfig/caBundle"), "value": bundle}))
        .collect();
    let patch = Value::Array(operations).to_string();
    let arguments = [
        "patch",
        "mutatingwebhookconfiguration",
        "tokenscope",
        "--type=json",
        "--patch",
        &patch,
    ];
    control_plane.kubectl(&[&arguments[..], &["--field-manager=tokenscope-operator"]].concat(), "")?;
    Ok(())
}

#[tokio::test]
async fn helm_leaves_no_entry_without_the_authority_that_was_there() {
    let Some(before) = VERSION_0_1_0.build().unwrap() else {
        return;
    };
    let control_plane = ControlPlane::start(control_plane::Options::default()).await.unwrap();
    let kubeconfig = format!("--kubeconfig={}", control_plane.kubeconfig().display());
    let run = |action: &str, name: &str, chart: &std::path::Path| {
        let folder = chart.display().to_string();
        let arguments = [action, name, &folder, "--namespace", NAMESPACE, &kubeconfig];
        helm(&arguments, &Value::Null).unwrap();
    };
    control_plane.create_namespace(NAMESPACE, &[]).await.unwrap();
    for name in ["tokenscope-crds", "tokenscope"] {
        run("install", name, &before.charts.join(name));
    }
    let (first, second) = ("Zmlyc3Q=", "c2Vjb25k");
    inject(&control_plane, first).await.unwrap();

    for step in ["the first upgrade", "the second", "the third"] {
        for name in ["tokenscope-crds", "tokenscope"] {
            run("upgrade", name, &chart(name));
        }
        let entries = entries(&control_plane).await.unwrap();
        let missing = entries.iter().find(|(_, bundle)| bundle.as_deref() != Some(first));
        assert_eq!(missing, None, "after {step}: {entries:?}");
    }
    let names: Vec<_> = entries(&control_plane)
        .await
        .unwrap()
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["forged-marks.tokenscope.io", "pods.tokenscope.io"]);

    // The authority is rotated by the operator, and that is no conflict with helm.
    inject(&control_plane, second).await.unwrap();
    run("upgrade", "tokenscope", &chart("tokenscope"));
    let entries = entries(&control_plane).await.unwrap();
    assert!(
        entries.iter().all(|(_, bundle)| bundle.as_deref() == Some(second)),
        "{entries:?}"
    );
}

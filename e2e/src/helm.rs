//! The real helm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tokenscope_xtask::tools::{Tool, resolve};
use tokenscope_xtask::{root, run_with_input};

use crate::apply::documents;

/// The namespace that the tests install into.
pub const NAMESPACE: &str = "tokenscope-system";

/// How long the API server waits for a review in tests, in seconds: the most that the chart takes.
const MOST_SECONDS_FOR_A_REVIEW: u32 = 10;

/// The values with more time for a review than the chart gives, unless they say themselves how much.
///
/// The chart's two seconds are for optimised programs. Tests run unoptimised ones, on two processors that they share with etcd, the API server and
/// another test program: a review that is late there is a pod without one, and says nothing of what is tested.
pub fn patient(values: &Value) -> Value {
    let mut values = values.clone();
    let seconds = &mut values["webhook"]["timeoutSeconds"];
    if seconds.is_null() {
        *seconds = json!(MOST_SECONDS_FOR_A_REVIEW);
    }
    values
}

/// The folder of a chart of this project: `tokenscope` or `tokenscope-crds`.
pub fn chart(name: &str) -> PathBuf {
    root().join("charts").join(name)
}

/// The objects that a chart of this project makes of `values` (an object; `null` for the defaults), in helm's order of
/// installation; not the pod that `helm test` runs.
pub fn template(chart_name: &str, values: &Value) -> Result<Vec<Value>> {
    template_with(chart_name, &[], values)
}

/// The same with further flags for helm.
pub fn template_with(chart_name: &str, flags: &[&str], values: &Value) -> Result<Vec<Value>> {
    template_of(&chart(chart_name), flags, values)
}

/// The same of a chart in another folder, such as one of an earlier release.
pub fn template_of(chart: &Path, flags: &[&str], values: &Value) -> Result<Vec<Value>> {
    let folder = chart.display().to_string();
    let arguments = [
        "template",
        "tokenscope",
        &folder,
        "--namespace",
        NAMESPACE,
        "--skip-tests",
    ];
    documents(&helm(&[&arguments, flags].concat(), values)?)
}

/// Runs helm with values. Returns what it printed; fails with its standard error.
pub fn helm(arguments: &[&str], values: &Value) -> Result<String> {
    let mut command = Command::new(resolve(Tool::Helm)?);
    command.args(arguments);
    let mut input = String::new();
    if !values.is_null() {
        command.args(["--values", "-"]);
        input = values.to_string();
    }
    let output = run_with_input(&mut command, &input)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "helm {}: {}",
        arguments.join(" "),
        errors.trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

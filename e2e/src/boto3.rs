//! Programs of Python with boto3, the unmodified AWS SDK.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokenscope_xtask::run_with_input;
use tokenscope_xtask::tools::{Tool, resolve};

/// Runs such a program in this environment, and nothing of this process's; input and output are JSON. It blocks its thread. The error is what
/// the program wrote to standard error.
pub fn run(script: &str, environment: &[(&str, &str)], input: &Value) -> Result<Value> {
    run_by(&resolve(Tool::Boto3)?, script, environment, input)
}

/// The same by a Python that was resolved before.
pub fn run_by(python: &Path, script: &str, environment: &[(&str, &str)], input: &Value) -> Result<Value> {
    let mut command = Command::new(python);
    command
        .args(["-c", script])
        .env_clear()
        .env("HOME", "/nonexistent") // no ~/.aws of whoever runs the tests
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied());
    let output = run_with_input(&mut command, &input.to_string())?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).context("the program prints JSON")
}

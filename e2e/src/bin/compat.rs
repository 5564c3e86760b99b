//! Replays recorded cases of the EKS webhook's suite through our webhook in EKS-compatible mode, a line a case.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use tokenscope_e2e::compat::{self, Total};

/// Replays recorded cases of the EKS webhook's suite through our webhook in EKS-compatible mode.
///
/// A file is JSON: {"cases": [{"name", "webhook_state", "pod", "expected_pod"}]}, where webhook_state has the service
/// account's annotations (serviceAccount/roleArn, /audience, /sts-regional-endpoints, /token-expiration) and the webhook's
/// flags (handler/injectSTS, /region, /expiration, /mountPath). Pods are compared, not patches. A difference on purpose is
/// told with its reason; any other one is DIFFERENT and makes the exit status 1.
///
/// Example: cargo xtask compat eks-pod-identity-webhook.json
#[derive(Parser)]
#[command(name = "cargo xtask compat", bin_name = "cargo xtask compat")]
struct Arguments {
    /// Files of cases
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn main() -> ExitCode {
    match replay(&Arguments::parse().files) {
        Ok(Total { different: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn replay(files: &[PathBuf]) -> Result<Total> {
    let mut total = Total::default();
    for file in files {
        let suite = compat::read(file)?;
        println!("{}", file.display());
        if !suite.source.is_empty() {
            println!("  from {}", suite.source);
        }
        let width = suite
            .cases
            .iter()
            .map(|case| case.name.chars().count())
            .max()
            .unwrap_or_default();
        for case in &suite.cases {
            let outcome = case.replay();
            println!("  {:<width$}  {outcome}", case.name);
            total.add(&outcome);
        }
    }
    println!("\n{total}\n({})", compat::ON_EVERY_POD);
    Ok(total)
}

//! How a bench ends: its report, and its exit code.

use std::fmt::Display;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;
use tokenscope_xtask::progress::say;

use crate::report::Budget;

/// The form in which a report is printed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// A report that has aims.
pub(crate) trait Aims: Display + Serialize {
    fn budgets(&self) -> &[Budget];
}

/// Measures and prints. With `check` the exit code is that of a failure where an aim is missed.
pub(crate) fn report<R: Aims>(
    measuring: impl Future<Output = Result<R>>,
    output: Output,
    check: bool,
) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let report = runtime.block_on(measuring)?;
    match output {
        Output::Table => print!("\n{report}"),
        Output::Json => println!("{}", serde_json::to_string_pretty(&report)?),
    }
    let failed = check && report.budgets().iter().any(|budget| !budget.pass);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Warns where the numbers are those of a build without optimisation.
pub(crate) fn warn_of_debug_build() {
    if cfg!(debug_assertions) {
        say("warning: this is no release build, so the numbers say little; use `cargo xtask bench`");
    }
}

//! `test`: static checks and tests, and one closing line.
//!
//! [`selection`] says what runs, [`static_checks`] are the formatting, lints and dependencies, [`programs`] compiles the test
//! programs, [`side_by_side`] runs them, and [`report`] counts what they print.

mod programs;
mod report;
mod selection;
mod side_by_side;
mod static_checks;

use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use tokenscope_xtask::cluster::obstacle;
use tokenscope_xtask::packaged::{self, Packaged};
use tokenscope_xtask::progress::{self, say};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::run::{Profile, target};
use programs::Program;
use report::Totals;
pub(crate) use selection::Selection;
use selection::Step;

/// The one crate whose tests start real servers and the project's own programs.
const SYSTEM_TESTS: &str = "tokenscope-e2e";

/// What the steps of a run have come to.
#[derive(Debug, Default)]
struct Run {
    totals: Totals,
    programs: Vec<Program>,
}

/// Runs what is selected, goes on after a failed check, and prints `N passed, N failed` as the last line of standard output.
///
/// A server or a program that can't be built counts as one failure, and no test runs.
pub(crate) fn run(selection: &Selection) -> ExitCode {
    let run = Mutex::new(Run::default());
    for stage in selection.stages() {
        let errors = std::thread::scope(|scope| {
            let lanes = stage.iter().map(|lane| {
                let run = &run;
                scope.spawn(move || lane.iter().try_for_each(|step| take(*step, selection, run)))
            });
            let lanes: Vec<_> = lanes.collect();
            let ended = lanes.into_iter().map(std::thread::ScopedJoinHandle::join);
            let results = ended.map(|lane| lane.unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            results.filter_map(Result::err).collect::<Vec<_>>()
        });
        for error in &errors {
            say(&format!("✗ {error:#}"));
        }
        held(&run).totals.failed += errors.len();
        if !errors.is_empty() {
            break;
        }
    }
    let Totals { passed, failed } = held(&run).totals;
    println!("{passed} passed, {failed} failed");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Takes one step. An error is about what later steps need.
fn take(step: Step, selection: &Selection, run: &Mutex<Run>) -> Result<()> {
    let found = match step {
        Step::Format => static_checks::formatting(),
        Step::Lints => static_checks::lints(),
        Step::Servers => {
            servers()?;
            Totals::default()
        }
        Step::Programs => {
            let programs = programs::build(selection)?;
            held(run).programs = programs;
            Totals::default()
        }
        Step::Images => {
            images()?;
            Totals::default()
        }
        Step::Tests => {
            let programs = std::mem::take(&mut held(run).programs);
            side_by_side::run(programs, selection)?
        }
    };
    held(run).totals += found;
    Ok(())
}

/// Finds, builds or fetches what system tests start, and what a cluster with a node runs where there can be one.
fn servers() -> Result<()> {
    let unwanted = std::env::var("TOKENSCOPE_CLUSTER_TESTS").is_ok_and(|value| value == "0");
    let of_clusters: &[Tool] = if unwanted || obstacle().is_some() {
        &[]
    } else {
        &Tool::ALL
    };
    let tools = Tool::BASIC
        .into_iter()
        .chain(Tool::SPIRE)
        .chain([Tool::CertManager, Tool::MiniStack])
        .chain(of_clusters.iter().copied());
    for tool in tools {
        resolve(tool)?;
    }
    for server in Packaged::ALL {
        // One program needs them: it says the same once more where they can't be had.
        if let Err(error) = packaged::resolve(server) {
            say(&format!("  {error:#}"));
        }
    }
    Ok(())
}

/// Makes the images by the command that makes them for a release, whose output is shown if it fails.
fn images() -> Result<()> {
    let step = progress::Step::start("building the images, which takes some minutes the first time", None);
    let program = std::env::current_exe()?;
    let output = Command::new(program)
        .arg("images")
        .output()
        .context("can't run cargo xtask images")?;
    ensure!(
        output.status.success(),
        "the images can't be built:\n{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    step.done("");
    Ok(())
}

/// What tests find in their environment beside what this process has in its own.
fn environment(selection: &Selection) -> Result<Vec<(&'static str, String)>> {
    let mut variables = Vec::new();
    if selection.nightly {
        variables.push(("TOKENSCOPE_NIGHTLY", "1".to_owned()));
    }
    if selection.optimises() {
        let folder = target(Profile::Dist)?;
        variables.push(("TOKENSCOPE_PROGRAMS", folder.display().to_string()));
        if std::env::var_os("TOKENSCOPE_CLUSTER_IMAGES").is_none() {
            variables.push((
                "TOKENSCOPE_CLUSTER_IMAGES",
                tokenscope_xtask::images::RELEASE_PROFILE.to_owned(),
            ));
        }
    }
    Ok(variables)
}

fn held(run: &Mutex<Run>) -> MutexGuard<'_, Run> {
    run.lock().unwrap_or_else(PoisonError::into_inner)
}

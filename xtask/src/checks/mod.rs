//! `cargo xtask test`: static checks and tests, and one closing line.
//!
//! [`selection`] says what runs, [`static_checks`] are the formatting, lints and dependencies, [`programs`] compiles the test
//! programs, [`side_by_side`] runs them in the order of [`order`], and [`report`] counts what they print.

mod order;
mod programs;
mod report;
mod rules;
mod selection;
mod side_by_side;
mod static_checks;

use std::process::{Command, ExitCode};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, ensure};
use order::{Compilation, Optimised};
use programs::Program;
use report::Totals;
use selection::CheckStep;
pub(crate) use selection::Selection;
use tokenscope_xtask::cluster::obstacle;
use tokenscope_xtask::packaged::{self, Packaged};
use tokenscope_xtask::progress::{self, say};
use tokenscope_xtask::tools::{Tool, resolve};

use crate::run::{Profile, target};

/// The one crate whose tests start real servers and the project's own programs.
const SYSTEM_TESTS: &str = "tokenscope-e2e";

/// The results of the steps of a run.
#[derive(Debug, Default)]
struct Run {
    totals: Totals,
    programs: Vec<Program>,
    compilation: Compilation,
}

/// Runs what is selected, goes on after a failed check, and prints `N passed, N failed` as the last line of standard output.
///
/// A server or a program that can't be built counts as one failure, and no test runs; without optimised programs, those run that need none.
pub(crate) fn run(selection: &Selection) -> ExitCode {
    let stages = selection.stages();
    let run = Mutex::new(Run::default());
    if stages.concat().concat().contains(&CheckStep::Optimised) {
        held(&run).compilation = Compilation::BEGUN;
    }
    for stage in stages {
        let errors = std::thread::scope(|scope| {
            let lanes = stage.iter().map(|lane| {
                let run = &run;
                scope.spawn(move || {
                    let _end = EndOfCompilation::of(lane, run);
                    lane.iter().try_for_each(|step| take(*step, selection, run))
                })
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

/// Says that nothing is compiled any more when it is dropped, also by a panic: tests wait for it.
struct EndOfCompilation<'a>(&'a Mutex<Run>);

impl<'a> EndOfCompilation<'a> {
    /// What to hold while the steps of a lane are taken. Another lane than that of the optimised programs has none, also none to drop at once.
    fn of(lane: &[CheckStep], run: &'a Mutex<Run>) -> Option<Self> {
        lane.contains(&CheckStep::Optimised).then(|| Self(run))
    }
}

impl Drop for EndOfCompilation<'_> {
    fn drop(&mut self) {
        let compilation = &mut held(self.0).compilation;
        compilation.goes_on = false;
        if compilation.optimised == Optimised::Pending {
            compilation.optimised = Optimised::Failed;
        }
    }
}

/// Takes one step. An error is about what later steps need.
fn take(step: CheckStep, selection: &Selection, run: &Mutex<Run>) -> Result<()> {
    let found = match step {
        CheckStep::Format => static_checks::formatting(),
        CheckStep::Lints => static_checks::lints(),
        CheckStep::Servers => {
            servers()?;
            Totals::default()
        }
        CheckStep::Programs => {
            let programs = programs::build(selection)?;
            held(run).programs = programs;
            Totals::default()
        }
        CheckStep::Images => {
            if !selection.nightly && clusters_are_possible() {
                let step = progress::Step::start("making the images of a cluster", None);
                images(&["--profile=dev"])?;
                step.done("");
            }
            Totals::default()
        }
        CheckStep::Optimised => {
            let built = optimised(selection);
            held(run).compilation.optimised = match built {
                Ok(()) => Optimised::Built,
                Err(_) => Optimised::Failed,
            };
            built?;
            Totals::default()
        }
        CheckStep::Tests => {
            let programs = std::mem::take(&mut held(run).programs);
            side_by_side::run(programs, selection, || held(run).compilation)?
        }
    };
    held(run).totals += found;
    Ok(())
}

/// Finds, builds or fetches what system tests start, and what a cluster with a node runs where there can be one.
fn servers() -> Result<()> {
    let of_clusters: &[Tool] = if clusters_are_possible() { &Tool::ALL } else { &[] };
    let tools = Tool::BASIC
        .into_iter()
        .chain(Tool::SPIRE)
        .chain([Tool::CertManager, Tool::MiniStack, Tool::OlderKubeApiserver])
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

/// True if tests in a cluster with a node run: they are wanted, and nothing is in their way.
fn clusters_are_possible() -> bool {
    let unwanted = std::env::var("TOKENSCOPE_CLUSTER_TESTS").is_ok_and(|value| value == "0");
    !unwanted && obstacle().is_none()
}

/// The programs whose times the hostile suite judges.
const JUDGED: [&str; 2] = ["tokenscope-operator", "tokenscope-webhook"];

/// Compiles all programs as the images carry them with `--nightly`; else [`JUDGED`], without what makes programs smaller and
/// three times as long to compile.
fn optimised(selection: &Selection) -> Result<()> {
    let step = progress::Step::start("optimising programs, which takes some minutes the first time", None);
    if selection.nightly {
        images(&[])?;
    } else {
        programs::optimise(&JUDGED)?;
    }
    step.done("");
    Ok(())
}

/// The program that runs, also where the compilation of all programs has put another one in the place of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";

/// Makes images by the command that makes them for a release, whose output is shown if it fails.
fn images(arguments: &[&str]) -> Result<()> {
    let output = Command::new(THIS_PROGRAM)
        .arg("images")
        .args(arguments)
        .output()
        .context("can't run cargo xtask images")?;
    ensure!(
        output.status.success(),
        "the images can't be built:\n{}{}",
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(())
}

/// What tests find in their environment beside what this process has in its own.
fn environment(selection: &Selection) -> Result<Vec<(&'static str, String)>> {
    let mut variables = Vec::new();
    if selection.nightly {
        variables.push(("TOKENSCOPE_NIGHTLY", "1".to_owned()));
    }
    // Whoever changes a line wants to know within a minute; every other run has five seconds for each target.
    if selection.unit && std::env::var_os("TOKENSCOPE_FUZZ_SECONDS").is_none() {
        variables.push(("TOKENSCOPE_FUZZ_SECONDS", "0.3".to_owned()));
    }
    // Unit tests wait for more than they compute: for deadlines, pauses and processes of their own.
    if selection.unit && std::env::var_os("RUST_TEST_THREADS").is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        variables.push(("RUST_TEST_THREADS", (4 * processors).to_string()));
    }
    if selection.optimises() {
        let folder = if selection.nightly {
            target(Profile::Dist)?
        } else {
            target(Profile::Debug)?.with_file_name(programs::OPTIMISED_FOLDER)
        };
        variables.push(("TOKENSCOPE_PROGRAMS", folder.display().to_string()));
        if selection.nightly && std::env::var_os("TOKENSCOPE_CLUSTER_IMAGES").is_none() {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_lane_that_optimises_programs_is_the_end_of_compilation() {
        let run = Mutex::new(Run {
            compilation: Compilation::BEGUN,
            ..Run::default()
        });
        drop(EndOfCompilation::of(&[CheckStep::Programs, CheckStep::Tests], &run));
        assert_eq!(held(&run).compilation, Compilation::BEGUN);
        let end = EndOfCompilation::of(&[CheckStep::Optimised, CheckStep::Lints], &run);
        assert_eq!(held(&run).compilation, Compilation::BEGUN);
        drop(end);
        let ended = Compilation {
            optimised: Optimised::Failed,
            goes_on: false,
        };
        assert_eq!(held(&run).compilation, ended);
    }
}

//! `test`: static checks and tests, and one closing line.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use tokenscope_xtask::cargo;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::tools::{self, Tool, resolve};

use crate::run::{Profile, build, programs_of_images, target};

/// The one crate whose tests start real servers and the project's own programs.
const SYSTEM_TESTS: &str = "tokenscope-tests";

/// Which checks and tests to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub(crate) struct Selection {
    /// Only tests whose name contains this, and no static checks
    filter: Option<String>,
    /// Only what needs neither servers nor root: the formatting, and the tests of every crate but the one of system tests
    #[arg(long)]
    unit: bool,
    /// Let each attack of the hostile suite last a minute instead of some seconds (about an hour more)
    #[arg(long, conflicts_with = "unit")]
    nightly: bool,
}

/// One part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// The formatting.
    Format,
    /// The lints and the dependencies' licences and sources, for which everything is checked once more.
    Lints,
    /// Finds or builds the servers that nearly every system test needs, so that building them takes no processor from tests
    /// that measure time.
    Servers,
    /// Builds the project's programs, which system tests start.
    Programs,
    /// The tests of every crate but [`SYSTEM_TESTS`].
    UnitTests,
    /// The tests of every crate.
    AllTests,
}

impl Selection {
    /// Whether the hostile suite attacks the programs as the images carry them: it judges no times of unoptimised ones.
    fn optimises(&self) -> bool {
        self.nightly || (self.filter.is_none() && !self.unit)
    }

    /// The parts, in their order.
    ///
    /// With a filter, no server is resolved ahead: most names are of unit tests, and a system test resolves what it starts.
    fn steps(&self) -> &'static [Step] {
        match (self.unit, &self.filter) {
            (true, None) => &[Step::Format, Step::UnitTests],
            (true, Some(_)) => &[Step::UnitTests],
            (false, None) => &[Step::Format, Step::Servers, Step::Lints, Step::Programs, Step::AllTests],
            (false, Some(_)) => &[Step::Programs, Step::AllTests],
        }
    }
}

/// How many passed and failed. A static check counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
}

/// Runs what is selected, goes on after a failed check, and prints `N passed, N failed` as the last line of standard output.
///
/// A server or a program that can't be built counts as one failure, and no system test runs.
pub(crate) fn run(selection: &Selection) -> ExitCode {
    let mut totals = Totals::default();
    for step in selection.steps() {
        if let Err(error) = take(*step, selection, &mut totals) {
            say(&format!("✗ {error:#}"));
            totals.failed += 1;
            break;
        }
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Takes one step. An error is about what later steps need.
fn take(step: Step, selection: &Selection, totals: &mut Totals) -> Result<()> {
    match step {
        Step::Format => totals.check("formatting", || succeeds(&mut cargo(&["fmt", "--all", "--check"]))),
        Step::Lints => lints(totals),
        Step::Servers => {
            for tool in Tool::BASIC.into_iter().chain(Tool::SPIRE).chain([Tool::CertManager]) {
                resolve(tool)?;
            }
        }
        Step::Programs => {
            build(Profile::Debug)?;
            if selection.optimises() {
                programs_of_images()?;
            }
        }
        Step::UnitTests | Step::AllTests => tests(&mut test_command(step, selection)?, totals)?,
    }
    Ok(())
}

fn lints(totals: &mut Totals) {
    totals.check("lints", || {
        succeeds(&mut cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ]))
    });
    match cargo_deny() {
        Some(program) => totals.check("dependencies (cargo-deny)", || {
            let mut command = Command::new(program);
            command.current_dir(tokenscope_xtask::root());
            succeeds(command.args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
        }),
        None => {
            say("  dependencies: not checked, because cargo-deny isn't installed (cargo install cargo-deny --locked)");
        }
    }
}

/// The command that runs the tests of a step.
///
/// Both steps select packages with the same features, so that nothing is compiled twice for them.
fn test_command(step: Step, selection: &Selection) -> Result<Command> {
    let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if step == Step::UnitTests {
        command.args(["--exclude", SYSTEM_TESTS]);
    }
    if selection.nightly {
        command.env("TOKENSCOPE_NIGHTLY", "1");
    }
    if selection.optimises() {
        command.env("TOKENSCOPE_PROGRAMS", target(Profile::Dist)?);
    }
    if let Some(filter) = &selection.filter {
        command.args(["--", filter]);
    }
    Ok(command)
}

fn tests(command: &mut Command, totals: &mut Totals) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't run cargo")?;
    let mut counted = Totals::default();
    for line in BufReader::new(child.stdout.take().context("standard output is piped")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some(Totals { passed, failed }) = test_result(&line) {
            counted.passed += passed;
            counted.failed += failed;
        }
    }
    let status = child.wait()?;
    if !status.success() && counted.failed == 0 {
        counted.failed = 1; // it didn't compile, or a test program ended before its summary
    }
    totals.passed += counted.passed;
    totals.failed += counted.failed;
    Ok(())
}

impl Totals {
    fn check(&mut self, what: &str, check: impl FnOnce() -> Result<()>) {
        say(&format!("  {what} …"));
        let started = Instant::now();
        let result = check();
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => {
                self.passed += 1;
                say(&format!("✓ {what} ({seconds:.1} s)"));
            }
            Err(error) => {
                self.failed += 1;
                say(&format!("✗ {what} ({seconds:.1} s): {error:#}"));
            }
        }
    }
}

fn succeeds(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("can't run {command:?}"))?;
    anyhow::ensure!(status.success(), "ended with {status}");
    Ok(())
}

/// The program of cargo-deny: on PATH, or in the cache, where `.ci/run` installs it.
fn cargo_deny() -> Option<PathBuf> {
    let on_path = std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join("cargo-deny"))
        .find(|path| path.is_file());
    on_path.or_else(|| {
        tools::cache()
            .ok()
            .map(|cache| cache.join("cargo-deny/bin/cargo-deny"))
            .filter(|path| path.is_file())
    })
}

/// What a line such as `test result: ok. 3 passed; 1 failed; 0 ignored; …` counts.
fn test_result(line: &str) -> Option<Totals> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |name: &str| {
        counts
            .split("; ")
            .find_map(|part| part.trim().strip_suffix(name)?.trim().parse().ok())
    };
    Some(Totals {
        passed: count("passed")?,
        failed: count("failed")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct CommandLine {
        #[command(flatten)]
        selection: Selection,
    }

    fn selection(arguments: &[&str]) -> Result<Selection, clap::Error> {
        let line = [&["test"], arguments].concat();
        <CommandLine as clap::Parser>::try_parse_from(line).map(|line| line.selection)
    }

    fn arguments(step: Step, selection: &Selection) -> Vec<String> {
        let command = test_command(step, selection).unwrap();
        let arguments = command.get_args().map(|argument| argument.to_str().unwrap().to_owned());
        arguments.collect()
    }

    #[test]
    fn unit_tests_resolve_no_server_and_build_no_program() {
        for given in [["--unit"].as_slice(), &["--unit", "decide"]] {
            let steps = selection(given).unwrap().steps();
            assert!(
                !steps.contains(&Step::Servers) && !steps.contains(&Step::Programs),
                "{given:?}"
            );
            assert!(
                steps.contains(&Step::UnitTests) && !steps.contains(&Step::AllTests),
                "{given:?}"
            );
        }
    }

    #[test]
    fn a_filter_selects_among_all_tests_and_resolves_no_server_ahead() {
        let filtered = selection(&["expires"]).unwrap();
        assert_eq!(filtered.steps(), [Step::Programs, Step::AllTests]);
        let arguments = arguments(Step::AllTests, &filtered);
        assert!(
            arguments.ends_with(&["--".to_owned(), "expires".to_owned()]),
            "{arguments:?}"
        );
        assert!(!arguments.contains(&"--exclude".to_owned()), "{arguments:?}");
    }

    #[test]
    fn without_a_filter_every_check_runs_before_the_tests() {
        let everything = selection(&[]).unwrap();
        let expected = [Step::Format, Step::Servers, Step::Lints, Step::Programs, Step::AllTests];
        assert_eq!(everything.steps(), expected);
    }

    #[test]
    fn unit_tests_are_of_every_crate_but_the_one_of_system_tests() {
        let unit = selection(&["--unit"]).unwrap();
        let arguments = arguments(Step::UnitTests, &unit);
        assert!(arguments.contains(&"--workspace".to_owned()), "{arguments:?}");
        assert!(
            arguments.ends_with(&["--exclude".to_owned(), SYSTEM_TESTS.to_owned()]),
            "{arguments:?}"
        );
    }

    /// What finds and starts servers is in xtask and in the crate of system tests.
    #[test]
    fn no_crate_with_unit_tests_depends_on_what_starts_servers() {
        let root = tokenscope_xtask::root();
        let workspace = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
        let members = workspace
            .lines()
            .find_map(|line| line.strip_prefix("members = ["))
            .unwrap();
        let members: Vec<&str> = members
            .trim_end_matches(']')
            .split(", ")
            .map(|member| member.trim_matches('"'))
            .collect();
        assert!(members.contains(&"core") && members.contains(&"tests"), "{members:?}");
        for member in members.into_iter().filter(|member| *member != "tests") {
            let manifest = std::fs::read_to_string(root.join(member).join("Cargo.toml")).unwrap();
            let dependencies = &manifest[manifest.find("[dependencies]").unwrap()..];
            for forbidden in ["tokenscope-xtask", SYSTEM_TESTS] {
                assert!(!dependencies.contains(forbidden), "{member} depends on {forbidden}");
            }
        }
    }

    #[test]
    fn nightly_attacks_need_servers_and_so_exclude_unit() {
        assert!(selection(&["--unit", "--nightly"]).is_err());
        assert!(selection(&["--nightly"]).unwrap().steps().contains(&Step::Servers));
    }

    #[test]
    fn the_summaries_of_test_programs_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(test_result(line), Some(Totals { passed: 12, failed: 3 }));
        assert_eq!(test_result("test tests::result ... ok"), None);
    }
}

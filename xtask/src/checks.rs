//! `test`: every static check and every test, and one closing line.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result};
use tokenscope_xtask::cargo;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::tools::{self, Tool, resolve};

use crate::run::{Profile, build, programs_of_images, target};

/// How many passed and failed. A static check counts as one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    passed: usize,
    failed: usize,
}

/// Runs all, goes on after a failure, and prints `N passed, N failed` as the last line of standard output.
///
/// The hostile suite attacks the programs as the images carry them, which the tests with a node need too. With a filter it
/// takes unoptimised ones and judges no times. `nightly` makes each attack last longer.
pub(crate) fn run(filter: Option<&str>, nightly: bool) -> Result<ExitCode> {
    let mut totals = Totals::default();
    for tool in Tool::BASIC.into_iter().chain(Tool::SPIRE) {
        resolve(tool)?;
    }
    if filter.is_none() {
        static_checks(&mut totals);
    }
    // Tests start the project's own programs, so a failure here is final.
    let optimised = nightly || filter.is_none();
    let built = build(Profile::Debug).and_then(|()| if optimised { programs_of_images() } else { Ok(()) });
    match built {
        Ok(()) => tests(filter, optimised, nightly, &mut totals)?,
        Err(error) => {
            say(&format!("✗ {error:#}"));
            totals.failed += 1;
        }
    }
    println!("{} passed, {} failed", totals.passed, totals.failed);
    Ok(if totals.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn static_checks(totals: &mut Totals) {
    totals.check("formatting", || succeeds(&mut cargo(&["fmt", "--all", "--check"])));
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

fn tests(filter: Option<&str>, optimised: bool, nightly: bool, totals: &mut Totals) -> Result<()> {
    let mut command = cargo(&["test", "--workspace", "--locked", "--no-fail-fast"]);
    if nightly {
        command.env("TOKENSCOPE_NIGHTLY", "1");
    }
    if optimised {
        command.env("TOKENSCOPE_PROGRAMS", target(Profile::Dist)?);
    }
    if let Some(filter) = filter {
        command.args(["--", filter]);
    }
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

    #[test]
    fn the_summaries_of_test_programs_are_counted() {
        let line = "test result: FAILED. 12 passed; 3 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s";
        assert_eq!(test_result(line), Some(Totals { passed: 12, failed: 3 }));
        assert_eq!(test_result("test tests::result ... ok"), None);
    }
}

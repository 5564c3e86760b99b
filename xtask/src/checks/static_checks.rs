//! The checks that run nothing: formatting, lints, and the dependencies' licences and sources.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::Result;
use tokenscope_xtask::progress::say;
use tokenscope_xtask::{cargo, run_quietly, tools};

use super::report::Totals;

/// Checks that the sources are formatted.
pub(super) fn formatting() -> Totals {
    check("formatting", || run_quietly(&mut cargo(&["fmt", "--all", "--check"])))
}

/// Lints and dependencies.
pub(super) fn lints() -> Totals {
    let mut totals = check("lints", || {
        let arguments = [
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--quiet",
            "--",
            "-D",
            "warnings",
        ];
        run_quietly(&mut cargo(&arguments))
    });
    match cargo_deny() {
        Some(program) => {
            totals += check("dependencies (cargo-deny)", || {
                let mut command = Command::new(program);
                command.current_dir(tokenscope_xtask::root());
                run_quietly(command.args(["--log-level", "error", "check", "bans", "licenses", "sources"]))
            });
        }
        None => {
            say("  dependencies: not checked, because cargo-deny isn't installed (cargo install cargo-deny --locked)");
        }
    }
    totals
}

fn check(what: &str, check: impl FnOnce() -> Result<String>) -> Totals {
    say(&format!("  {what} …"));
    let started = Instant::now();
    let result = check();
    let seconds = started.elapsed().as_secs_f64();
    match result {
        Ok(_) => {
            say(&format!("✓ {what} ({seconds:.1} s)"));
            Totals { passed: 1, failed: 0 }
        }
        Err(error) => {
            say(&format!("✗ {what} ({seconds:.1} s): {error:#}"));
            Totals { passed: 0, failed: 1 }
        }
    }
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

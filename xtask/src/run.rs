//! `demo`, `bench` and `compat`: builds what they need, then becomes the program that does the work.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::tools::{Tool, resolve};
use tokenscope_xtask::{cargo, images};

/// The profile with which the project is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Quickly.
    Debug,
    /// As the images carry it, and so as it is measured.
    Dist,
}

/// Replaces this process by a program of the crate e2e, so that signals and the exit status are its own.
pub(crate) fn program(name: &str, profile: Profile, arguments: Vec<String>) -> Result<ExitCode> {
    for tool in Tool::BASIC {
        resolve(tool)?;
    }
    let of_images: &[&str] = match (profile, arguments.first().map(String::as_str)) {
        (Profile::Debug, _) => &[],
        (Profile::Dist, Some("issuer")) => &["tokenscope-webhook", "tokenscope-operator", "tokenscope-issuer"],
        (Profile::Dist, _) => &["tokenscope-webhook", "tokenscope-operator"],
    };
    build(profile, of_images)?;
    let path = target(profile)?.join(name);
    let error = Command::new(&path).args(arguments).exec();
    Err(error).with_context(|| format!("can't run {}", path.display()))
}

/// Builds the programs of the workspace, and some as the images carry them, into [`target`] of [`Profile::Dist`]. Cargo shows its
/// own progress.
fn build(profile: Profile, of_images: &[&str]) -> Result<()> {
    let started = Instant::now();
    say(match profile {
        Profile::Debug => "  building tokenscope …",
        Profile::Dist => "  building tokenscope as the images carry it, which takes some minutes the first time …",
    });
    let which: &[&str] = match profile {
        Profile::Debug => &["--bins"],
        // Each program more is a link of half a minute.
        Profile::Dist => &["--profile=dist", "--bin=bench"],
    };
    let mut command = cargo(&["build", "--workspace", "--locked"]);
    let status = command.args(which).status().context("can't run cargo")?;
    if !status.success() {
        bail!("cargo build ended with {status}");
    }
    for program in of_images {
        images::compile(program, images::RELEASE_PROFILE)?;
    }
    say(&format!(
        "✓ tokenscope is built ({:.1} s)",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

/// The folder of built programs: beside the one that this program is in, wherever the target folder is.
pub(crate) fn target(profile: Profile) -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program
        .parent()
        .and_then(|folder| folder.parent())
        .context("the target folder has two levels")?;
    Ok(folder.join(match profile {
        Profile::Debug => "debug",
        Profile::Dist => "dist",
    }))
}

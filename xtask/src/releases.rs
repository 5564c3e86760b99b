//! Earlier states of this project, built from its own history: what upgrades start from in tests.
//!
//! The sources come from `git archive`, so a copy of the project without its history has none. What is built stays in the
//! cache beside the other servers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::progress::{Step, say};
use crate::{cargo, root, tools};

/// The programs of releases whose issuer or sidecar no test runs.
const PROGRAMS: &[&str] = &["tokenscope-webhook", "tokenscope-operator"];
/// Those of releases whose issuer and sidecar run too.
const ALL_PROGRAMS: &[&str] = &[
    "tokenscope-webhook",
    "tokenscope-operator",
    "tokenscope-issuer",
    "tokenscope-sidecar",
];

/// A state of the project from which an upgrade to the present one is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name in messages.
    pub name: &'static str,
    /// The commit, whole.
    pub commit: &'static str,
    /// The programs that are built of it. A package has the name of its program.
    programs: &'static [&'static str],
}

/// Version 0.1.0, whose webhook marked pods by an annotation.
pub const VERSION_0_1_0: Release = Release {
    name: "0.1.0",
    commit: "b6cab92e059bd79221ae9d58e0e98a1729e8584c",
    programs: PROGRAMS,
};

/// A later state of the main branch: the mark is a label, and records hold the labels of admission.
pub const MARK_IS_A_LABEL: Release = Release {
    name: "77376bc",
    commit: "77376bc2a524c9bc3297bf3808eae60f48534440",
    programs: PROGRAMS,
};

/// The latest state that was published: an issuer whose authority vouches for the next, and delivery by a config file. The next state that is published
/// takes its place.
pub const LAST_PUBLISHED: Release = Release {
    name: "fbef8e1",
    commit: "fbef8e1c7aa5c42fc35272c4341ae3edf009ba7a",
    programs: ALL_PROGRAMS,
};

/// A release that can be installed.
#[derive(Clone, Debug)]
pub struct Built {
    /// The folder of its charts.
    pub charts: PathBuf,
    /// The folder of its programs.
    pub programs: PathBuf,
}

impl Release {
    /// Builds it, once. Blocks for one to three minutes; libraries that the present state uses as well are not compiled again.
    ///
    /// `None`, after a message on standard error, where this copy of the project lacks the commit.
    pub fn build(self) -> Result<Option<Built>> {
        let short = self.commit.get(..12).context("a commit has 40 digits")?;
        let folder = tools::cache()?.join(format!("tokenscope-{short}"));
        let built = Built {
            charts: folder.join("charts"),
            programs: folder.join("programs"),
        };
        fs::create_dir_all(&folder)?;
        let lock = File::create(folder.join("lock"))?;
        lock.lock().context("can't lock the folder of the release")?;
        // An earlier state of this list may have built fewer.
        let is_missing = |program: &&str| !built.programs.join(program).is_file();
        let missing: Vec<&str> = self.programs.iter().copied().filter(is_missing).collect();
        if missing.is_empty() && built.charts.is_dir() {
            return Ok(Some(built));
        }
        if !self.is_in_the_history()? {
            say(&format!(
                "no upgrade from {}: this copy of the project has no commit {short} (git fetch --unshallow)",
                self.name
            ));
            return Ok(None);
        }
        let step = Step::start(&format!("building tokenscope {} ({short}), once", self.name), None);
        let sources = folder.join("sources");
        let partial = folder.join("partial");
        self.unpack(&sources)?;
        if !missing.is_empty() {
            compile(&sources, &partial, &missing)?;
        }
        fs::create_dir_all(&built.programs)?;
        for program in missing {
            // A program of this name is whole, whenever this is ended.
            let whole = partial.join(program);
            fs::copy(partial.join("debug").join(program), &whole)?;
            fs::rename(whole, built.programs.join(program))?;
        }
        if !built.charts.is_dir() {
            fs::rename(sources.join("charts"), &built.charts)?;
        }
        fs::remove_dir_all(&sources)?;
        if partial.exists() {
            fs::remove_dir_all(&partial)?;
        }
        step.done("");
        Ok(Some(built))
    }

    fn is_in_the_history(self) -> Result<bool> {
        let mut command = Command::new("git");
        command
            .current_dir(root())
            .args(["cat-file", "-e", &format!("{}^{{commit}}", self.commit)]);
        let output = command
            .output()
            .context("can't run git, which has the sources of the release")?;
        Ok(output.status.success())
    }

    fn unpack(self, sources: &Path) -> Result<()> {
        if sources.exists() {
            fs::remove_dir_all(sources)?; // of a run that was ended
        }
        fs::create_dir_all(sources)?;
        let mut archive = Command::new("git")
            .current_dir(root())
            .args(["archive", "--format=tar", self.commit])
            .stdout(Stdio::piped())
            .spawn()
            .context("can't run git, which has the sources of the release")?;
        let tar = archive.stdout.take().context("standard output is piped")?;
        let unpacked = Command::new("tar").arg("-x").arg("-C").arg(sources).stdin(tar).status();
        ensure!(
            archive.wait()?.success(),
            "git could not archive commit {}",
            self.commit
        );
        ensure!(
            unpacked.context("can't run tar")?.success(),
            "tar could not unpack the release"
        );
        Ok(())
    }
}

/// Compiles with the libraries that this project's own build has, and puts the programs elsewhere than its own.
fn compile(sources: &Path, target: &Path, programs: &[&str]) -> Result<()> {
    let mut command = cargo(&["build", "--quiet", "--locked"]);
    command
        .current_dir(sources)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_BUILD_BUILD_DIR", root().join("target"))
        .stdin(Stdio::null());
    for &program in programs {
        command.args(["--package", program, "--bin", program]);
    }
    let status = command.status().context("can't run cargo")?;
    ensure!(status.success(), "cargo build of the release ended with {status}");
    Ok(())
}

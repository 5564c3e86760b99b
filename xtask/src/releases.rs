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

/// The programs that are built of each.
const PROGRAMS: [&str; 2] = ["tokenscope-webhook", "tokenscope-operator"];

/// A state of the project from which an upgrade to the present one is promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its name in messages.
    pub name: &'static str,
    /// The commit, whole.
    pub commit: &'static str,
}

/// Version 0.1.0, whose webhook marked pods by an annotation.
pub const VERSION_0_1_0: Release = Release {
    name: "0.1.0",
    commit: "b6cab92e059bd79221ae9d58e0e98a1729e8584c",
};

/// A later state of the main branch: the mark is a label, and records hold the labels of admission.
pub const MARK_IS_A_LABEL: Release = Release {
    name: "77376bc",
    commit: "77376bc2a524c9bc3297bf3808eae60f48534440",
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
        if built.programs.is_dir() {
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
        compile(&sources, &partial)?;
        let programs = folder.join("programs.partial");
        fs::create_dir_all(&programs)?;
        for program in PROGRAMS {
            fs::copy(partial.join("debug").join(program), programs.join(program))?;
        }
        if built.charts.exists() {
            fs::remove_dir_all(&built.charts)?;
        }
        fs::rename(sources.join("charts"), &built.charts)?;
        fs::rename(&programs, &built.programs)?;
        fs::remove_dir_all(&sources)?;
        fs::remove_dir_all(&partial)?;
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
fn compile(sources: &Path, target: &Path) -> Result<()> {
    let mut command = cargo(&["build", "--quiet", "--locked"]);
    command
        .current_dir(sources)
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_BUILD_BUILD_DIR", root().join("target"))
        .stdin(Stdio::null());
    for program in PROGRAMS {
        command.args(["--package", program, "--bin", program]);
    }
    let status = command.status().context("can't run cargo")?;
    ensure!(status.success(), "cargo build of the release ended with {status}");
    Ok(())
}

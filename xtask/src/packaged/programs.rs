//! The programs of packaged servers, as they are found in a folder, and running one to its end.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::{fs, io};

use anyhow::{Context, Result, bail, ensure};

/// The oldest Java that Keycloak runs on.
const OLDEST_JAVA: u32 = 17;

/// The folders of the parts of Ceph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ceph {
    folder: PathBuf,
    /// The architecture's name in the folders of libraries, such as `x86_64-linux-gnu`.
    architecture: String,
}

impl Ceph {
    /// Fails if the folder has no libraries where Debian puts them.
    pub fn in_folder(folder: &Path) -> Result<Self> {
        let libraries = folder.join("usr/lib");
        let entries = fs::read_dir(&libraries).with_context(|| format!("can't read {}", libraries.display()))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let architecture = names
            .filter(|name| name.ends_with("-linux-gnu"))
            .find(|name| libraries.join(name).join("rados-classes").is_dir());
        Ok(Self {
            folder: folder.to_owned(),
            architecture: architecture.with_context(|| format!("{} has no libraries of Ceph", libraries.display()))?,
        })
    }

    /// A program by its name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.folder.join("usr/bin").join(name)
    }

    /// The folder of its libraries, which has those of its plugins too.
    pub fn libraries(&self) -> PathBuf {
        self.folder.join("usr/lib").join(&self.architecture)
    }

    /// The value of `LD_LIBRARY_PATH` that its programs need, as they are not installed.
    pub fn library_path(&self) -> String {
        let libraries = self.libraries();
        let others = self.folder.join("lib").join(&self.architecture);
        format!("{0}:{0}/ceph:{1}", libraries.display(), others.display())
    }
}

/// The Java that Keycloak is run with: `$JAVA_HOME/bin/java`, or that of PATH.
pub fn java() -> Result<PathBuf> {
    let home = std::env::var_os("JAVA_HOME").filter(|home| !home.is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = home
        .map(|home| PathBuf::from(home).join("bin"))
        .into_iter()
        .chain(std::env::split_paths(&path));
    let missing = format!(
        "Keycloak needs Java {OLDEST_JAVA} or newer (Debian: openjdk-17-jdk-headless), on PATH or in JAVA_HOME"
    );
    let program = folders
        .map(|folder| folder.join("java"))
        .find(|program| program.is_file())
        .with_context(|| missing.clone())?;
    let output = run(Command::new(&program).arg("-version"), &missing)?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let major = java_major(&text).with_context(|| format!("{} told no version: {text}", program.display()))?;
    ensure!(major >= OLDEST_JAVA, "{missing}; {} is Java {major}", program.display());
    Ok(program)
}

/// 17 of `openjdk version "17.0.15" 2025-04-15`.
fn java_major(text: &str) -> Option<u32> {
    let version = text.split('"').nth(1)?;
    version.split(['.', '-', '+']).next()?.parse().ok()
}

/// Runs it to its end. The error has the end of what it printed.
pub(super) fn run(command: &mut Command, missing: &str) -> Result<Output> {
    let output = match command.stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("{missing}"),
        output => output.with_context(|| format!("can't run {command:?}"))?,
    };
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let end = lines.get(lines.len().saturating_sub(15)..).unwrap_or_default();
        bail!("{command:?} ended with {}:\n{}", output.status, end.join("\n"));
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn javas_version_is_found_in_what_it_prints() {
        assert_eq!(java_major("openjdk version \"17.0.15\" 2025-04-15\n"), Some(17));
        assert_eq!(java_major("openjdk version \"21\" 2023-09-19\n"), Some(21));
        assert_eq!(java_major("java version \"1.8.0_392\"\n"), Some(1));
        assert_eq!(java_major("no such thing"), None);
    }

    #[test]
    fn a_program_that_is_missing_gives_the_sentence_and_one_that_fails_its_output() {
        let missing = run(&mut Command::new(Path::new("/no/such/program")), "install it").unwrap_err();
        assert_eq!(missing.to_string(), "install it");
        let failed = run(Command::new("sh").args(["-c", "echo because >&2; exit 3"]), "").unwrap_err();
        assert!(failed.to_string().ends_with("because"), "{failed}");
    }
}

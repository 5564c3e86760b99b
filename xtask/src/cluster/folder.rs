//! A cluster's folder, which is all that is known of it from one call to the next.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::machine::user;
use super::{Cluster, cgroups};
use crate::progress::say;

impl Cluster {
    pub(super) fn is_marked(&self, mark: &str) -> bool {
        self.folder.join("marks").join(mark).exists()
    }

    pub(super) fn cgroups(&self) -> Vec<PathBuf> {
        let text = fs::read_to_string(self.folder.join("cgroups")).unwrap_or_default();
        text.lines().map(PathBuf::from).collect()
    }

    pub(super) fn write_list(&self, name: &str, cgroups: &[PathBuf], below: &str) -> Result<()> {
        let lines: Vec<String> = cgroups
            .iter()
            .map(|cgroup| format!("{}\n", cgroup.join(below).display()))
            .collect();
        fs::write(self.folder.join(name), lines.concat())?;
        Ok(())
    }

    pub(super) fn make_folder(&self) -> Result<()> {
        loop {
            make_base()?;
            match fs::DirBuilder::new().mode(0o700).create(&self.folder) {
                // The end of the last other cluster took the common folder away just now.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => return result.with_context(|| format!("can't make {}", self.folder.display())),
            }
        }
    }

    /// Held during a start or a stop; the kernel releases it however the holder ends.
    pub(super) fn lock(&self) -> Result<File> {
        let folder = File::open(&self.folder).with_context(|| format!("can't open {}", self.folder.display()))?;
        if folder.try_lock().is_err() {
            say("  waiting for another process that starts or stops this cluster");
            folder.lock()?;
        }
        Ok(folder)
    }

    pub(super) fn remove(&self) -> Result<()> {
        if !self.folder.exists() {
            return Ok(()); // another process did it while this one waited for the lock
        }
        cgroups::end(&self.cgroups())?;
        fs::remove_dir_all(&self.folder).with_context(|| format!("can't remove {}", self.folder.display()))?;
        // Another cluster that starts just now has its folder before it makes its cgroups.
        let Some(_alone) = lock_base()? else {
            return Ok(()); // the end of another cluster took the common folder away
        };
        if Self::all()?.is_empty() {
            let base = base()?;
            cgroups::restore(&base.join("handed-down"))?;
            // Not empty: a cluster is being started just now.
            let _ = fs::remove_dir(base);
        }
        Ok(())
    }
}

/// The folder in which clusters have theirs.
pub(super) fn base() -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/tmp/tokenscope-clusters-{}", user()?)))
}

/// Held while the cgroup that all clusters are in is changed. `None` if there is no common folder, and so no cluster.
pub(super) fn lock_base() -> Result<Option<File>> {
    let base = base()?;
    let folder = match File::open(&base) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        result => result.with_context(|| format!("can't open {}", base.display()))?,
    };
    folder.lock()?;
    Ok(Some(folder))
}

/// Everybody may write to /tmp, so a folder that somebody else put there is refused.
fn make_base() -> Result<()> {
    let base = base()?;
    let made = fs::DirBuilder::new().mode(0o700).create(&base);
    let found = fs::symlink_metadata(&base).with_context(|| format!("can't make {}: {made:?}", base.display()))?;
    ensure!(
        found.is_dir() && found.uid() == user()? && found.mode() & 0o777 == 0o700,
        "{} isn't a folder that only you can use; remove it",
        base.display()
    );
    Ok(())
}

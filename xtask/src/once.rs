//! Things that are made once and kept, by one process of those that want it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::progress::Step;

/// Makes `path`, unless it is there. Of several processes one makes it and the others wait for that one. Returns whether this
/// one did.
///
/// `folder` is `path` or what it is in. `make` writes elsewhere and renames when all is written, so that `path` is whole
/// whenever it is there.
pub(crate) fn make_once(path: &Path, folder: &Path, name: &str, make: impl FnOnce() -> Result<()>) -> Result<bool> {
    if path.exists() {
        return Ok(false);
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    let _lock = lock(&beside(folder, "lock"), name)?;
    if path.exists() {
        return Ok(false); // another process has made it meanwhile
    }
    make()?;
    Ok(true)
}

/// The sibling that has this added to its name.
pub(crate) fn beside(path: &Path, addition: &str) -> PathBuf {
    PathBuf::from(format!("{}.{addition}", path.display()))
}

/// Held while one process makes something; the kernel releases it however that process ends.
fn lock(path: &Path, name: &str) -> Result<File> {
    let file = File::create(path).with_context(|| format!("can't write {}", path.display()))?;
    if file.try_lock().is_err() {
        let step = Step::start(&format!("waiting for another process that makes {name}"), None);
        file.lock().with_context(|| format!("can't lock {}", path.display()))?;
        step.done("");
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn of_several_that_want_it_at_once_one_makes_it() {
        let folder = std::env::temp_dir().join(format!("tokenscope-once-{}", std::process::id()));
        let path = folder.join("kept");
        let makings = AtomicUsize::new(0);
        let make = || {
            makings.fetch_add(1, Ordering::Relaxed);
            fs::write(beside(&path, "partial"), "whole")?;
            Ok(fs::rename(beside(&path, "partial"), &path)?)
        };
        let made = std::thread::scope(|scope| {
            let wanting = [(); 4].map(|()| scope.spawn(|| make_once(&path, &path, "it", make).unwrap()));
            wanting.map(|made| made.join().unwrap())
        });
        assert_eq!(made.iter().filter(|made| **made).count(), 1);
        assert_eq!(makings.into_inner(), 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        fs::remove_dir_all(folder).unwrap();
    }
}

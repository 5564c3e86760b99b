//! The directory of the token files. A file in it is replaced whole: a reader finds the old content or the new one, at
//! any moment, and a file that was written once is never absent.

use std::fs::{self, File, OpenOptions, Permissions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The file that a process locks to be the only one. Who else mounts the volume may not open it.
const LOCK: &str = ".lock";

/// The end of the names of unfinished files.
const UNFINISHED: &str = ".partial";

/// The users that may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// All: 0644, as a kubelet writes the tokens of a pod whose user it does not know. The volume's mounts say who sees it.
    All,
    /// All, and nobody writes it: 0444. The file is replaced and never changed.
    AllForReading,
    /// Only the user of this process: 0600, for private keys.
    Owner,
}

/// Keeps other processes that want it from running in a directory, as long as it lives. A process that was killed holds nothing
/// any more.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Takes the lock, unless another process has it: then the error is [`io::ErrorKind::WouldBlock`].
    pub fn take(directory: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join(LOCK))?;
        file.try_lock()?;
        Ok(Self { _file: file })
    }
}

/// A directory that exists and can be written to.
#[derive(Clone, Debug)]
pub struct Directory(PathBuf);

impl Directory {
    /// Checks that files can be made in the directory, and removes what a crash has left behind there.
    ///
    /// A full disk is no error here: it may have room when there is something to write.
    pub fn open(path: &Path) -> io::Result<Self> {
        let directory = Self(path.to_owned());
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') && name.ends_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        let probe = unfinished(path, "probe");
        match File::create_new(&probe) {
            Ok(_) => fs::remove_file(&probe)?,
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            Err(error) => return Err(error),
        }
        Ok(directory)
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts `content` in place of a file, or makes it. The file is named, or has an absolute path of its own.
    ///
    /// On an error, such as a full disk, the old file is as it was, and nothing is left behind. Blocks; on a tmpfs for
    /// microseconds.
    pub fn replace(&self, name: &str, content: &[u8], readers: Readers) -> io::Result<()> {
        let path = self.0.join(name);
        let folder = path.parent().unwrap_or(&self.0);
        let file = path.file_name().unwrap_or_default();
        let unfinished = unfinished(folder, &file.to_string_lossy());
        let mode = match readers {
            Readers::All => 0o644,
            Readers::AllForReading => 0o444,
            Readers::Owner => 0o600,
        };
        let written = write_new(&unfinished, content, mode).and_then(|()| fs::rename(&unfinished, &path));
        if written.is_err() {
            let _ = fs::remove_file(&unfinished); // the first error is the one that tells
            return written;
        }
        // The name is what a power failure could take back.
        File::open(folder)?.sync_all()
    }

    /// The content of a file. None if there is none, or it can't be read.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.0.join(name)).ok()
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &str) {
        let _ = fs::remove_file(self.0.join(name)); // what can't be removed is of no use to anybody, and does no harm
    }
}

/// The place of a file before it takes its own. Each has a name of its own: another process that writes into the
/// same folder, such as one that is to run once, can't touch an unfinished file.
fn unfinished(folder: &Path, name: &str) -> PathBuf {
    let random = RandomState::new().hash_one(std::process::id());
    folder.join(format!(".{name}.{random:016x}{UNFINISHED}"))
}

fn write_new(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?; // whatever the umask is
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use tokenscope_fixtures::unique_name;

    use super::*;

    /// A directory that goes away with the test.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(unique_name(name));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).unwrap();
            let mut names: Vec<String> = entries
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn a_file_is_replaced_whole_with_its_mode_and_nothing_else_stays() {
        let scratch = Scratch::new("replace");
        let directory = Directory::open(&scratch.0).unwrap();

        directory.replace("token", b"first", Readers::All).unwrap();
        let first = fs::metadata(scratch.0.join("token")).unwrap();
        directory.replace("token", b"second, longer", Readers::All).unwrap();
        directory.replace("key", b"secret", Readers::Owner).unwrap();

        let second = fs::metadata(scratch.0.join("token")).unwrap();
        assert_eq!(directory.read("token").as_deref(), Some("second, longer"));
        assert_ne!(first.ino(), second.ino(), "a new file took the place of the old one");
        assert_eq!(second.mode() & 0o777, 0o644);
        assert_eq!(fs::metadata(scratch.0.join("key")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(scratch.names(), ["key", "token"]);
    }

    #[test]
    fn a_file_of_another_folder_is_replaced_there() {
        let (scratch, other) = (Scratch::new("first"), Scratch::new("second"));
        let directory = Directory::open(&scratch.0).unwrap();
        let path = other.0.join("token");
        directory.replace(path.to_str().unwrap(), b"one", Readers::All).unwrap();
        directory.replace(path.to_str().unwrap(), b"two", Readers::All).unwrap();

        assert_eq!(fs::read_to_string(path).unwrap(), "two");
        assert_eq!((scratch.names(), other.names()), (vec![], vec!["token".to_owned()]));
    }

    #[test]
    fn only_one_holds_the_lock_and_the_next_one_gets_it_after_the_end() {
        let scratch = Scratch::new("lock");
        let lock = DirectoryLock::take(&scratch.0).unwrap();

        assert_eq!(
            DirectoryLock::take(&scratch.0).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        drop(lock);
        DirectoryLock::take(&scratch.0).unwrap();
        assert_eq!(fs::metadata(scratch.0.join(LOCK)).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_a_crash_left_is_removed_at_the_next_start_and_the_token_stays() {
        let scratch = Scratch::new("crash");
        fs::write(scratch.0.join(".token.0123456789abcdef.partial"), "half of a tok").unwrap();
        fs::write(scratch.0.join("token"), "whole").unwrap();
        fs::write(scratch.0.join(".somebody-elses"), "").unwrap();

        Directory::open(&scratch.0).unwrap();

        assert_eq!(scratch.names(), [".somebody-elses", "token"]);
    }

    #[test]
    fn a_write_that_fails_leaves_nothing_behind() {
        let scratch = Scratch::new("fails");
        fs::create_dir_all(scratch.0.join("token/in-the-way")).unwrap();
        let directory = Directory::open(&scratch.0).unwrap();

        assert!(directory.replace("token", b"new", Readers::All).is_err());
        assert_eq!(scratch.names(), ["token"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_an_error() {
        let error = Directory::open(Path::new("/nonexistent/tokenscope")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}

//! The work of the command `tokenscope-sidecar write PATH TEXT…`: writes each text to its path, and ends.
//!
//! It runs as an init container, whose arguments stand in the pod's specification. A file is replaced whole, and only the
//! mounts of its volume decide who reads it.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::directory::{Directory, Readers};

/// A file and what it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Its path, which is absolute.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// Writes the files. For `main`.
pub fn process(files: &[TextFile]) -> ExitCode {
    for file in files {
        if let Err(error) = write(file) {
            eprintln!("error: can't write {}: {error}", file.path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn write(file: &TextFile) -> io::Result<()> {
    let (Some(folder), Some(name)) = (file.path.parent(), file.path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    Directory::open(folder)?.replace(&name.to_string_lossy(), file.text.as_bytes(), Readers::All)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn each_text_is_written_to_its_path_and_replaces_what_was_there() {
        let folder = std::env::temp_dir().join(format!("tokenscope-write-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let file = |name: &str, text: &str| TextFile {
            path: path(name).into(),
            text: text.to_owned(),
        };
        for (first, second) in [("[default]\n", "--version"), ("other", "")] {
            let files = [file("config", first), file("second", second)];
            assert_eq!(process(&files), ExitCode::SUCCESS);
            assert_eq!(fs::read_to_string(path("config")).unwrap(), first);
            assert_eq!(fs::read_to_string(path("second")).unwrap(), second);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(process(&[file("config", "x")]), ExitCode::FAILURE);
    }
}

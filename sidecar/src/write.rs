//! The command `tokenscope-sidecar write PATH TEXT…`: writes each text to its path, and ends.
//!
//! It runs as an init container, whose arguments stand in the pod's specification. A file is replaced whole, and nobody but
//! its volume's mounts says who reads it.

use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;

use tokenscope_core::config_file::{MOST_CONFIG_BYTES, MOST_CONFIG_FILES};

use crate::config::ConfigError;
use crate::directory::{Directory, Readers};

/// The most files of one call.
const MOST_FILES: usize = MOST_CONFIG_FILES;
/// The most bytes of all texts: those of a pod's config files, and as much for what the kubelet puts into them.
const MOST_BYTES: usize = 2 * MOST_CONFIG_BYTES;

/// A file and what it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Its path, which is absolute.
    pub path: PathBuf,
    /// Its content.
    pub text: String,
}

/// The files that these arguments name.
pub fn files(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<TextFile>, ConfigError> {
    let mut arguments = arguments.into_iter();
    let (mut files, mut bytes) = (Vec::new(), 0);
    while let Some(path) = arguments.next() {
        let text = arguments
            .next()
            .ok_or(ConfigError::Missing("write needs a text after each path"))?;
        let path = PathBuf::from(path);
        if !is_absolute(&path) {
            return Err(ConfigError::Value {
                source_name: "write".to_owned(),
                why: format!("{} should be the absolute path of a file, without ..", path.display()),
            });
        }
        let text = text.into_string().map_err(ConfigError::NotUtf8)?;
        bytes += text.len();
        files.push(TextFile { path, text });
        if files.len() > MOST_FILES || bytes > MOST_BYTES {
            return Err(ConfigError::Value {
                source_name: "write".to_owned(),
                why: format!("at most {MOST_FILES} files of {MOST_BYTES} bytes in all are written"),
            });
        }
    }
    if files.is_empty() {
        return Err(ConfigError::Missing("write needs a path and a text"));
    }
    Ok(files)
}

fn is_absolute(path: &Path) -> bool {
    path.is_absolute()
        && path.file_name().is_some()
        && path
            .components()
            .all(|part| matches!(part, Component::RootDir | Component::Normal(_)))
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
    use super::*;
    use std::fs;

    fn read(arguments: &[&str]) -> Result<Vec<TextFile>, ConfigError> {
        files(arguments.iter().map(OsString::from))
    }

    #[test]
    fn each_text_is_written_to_its_path_and_replaces_what_was_there() {
        let folder = std::env::temp_dir().join(format!("tokenscope-write-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        for (first, second) in [("[default]\n", "--version"), ("other", "")] {
            let files = read(&[&path("config"), first, &path("second"), second]).unwrap();
            assert_eq!(process(&files), ExitCode::SUCCESS);
            assert_eq!(fs::read_to_string(path("config")).unwrap(), first);
            assert_eq!(fs::read_to_string(path("second")).unwrap(), second);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(process(&read(&[&path("config"), "x"]).unwrap()), ExitCode::FAILURE);
    }

    #[test]
    fn what_is_no_list_of_files_and_texts_is_refused() {
        for wrong in [
            &[] as &[&str],
            &["/config"],
            &["/a", "x", "/b"],
            &["config", "x"],
            &["/a/../b", "x"],
            &["/", "x"],
            &["", "x"],
        ] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        let long = "x".repeat(MOST_BYTES);
        assert!(read(&["/a", &long]).is_ok());
        assert!(
            read(&["/a", &long, "/b", "x"])
                .unwrap_err()
                .to_string()
                .contains("65536 bytes")
        );
    }
}

//! The arguments of the command `write`: paths and the texts of their files.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use tokenscope_core::config_file::{MOST_CONFIG_BYTES, MOST_CONFIG_FILES};

use super::ConfigError;
use crate::write::TextFile;

/// The most files of one call.
const MOST_FILES: usize = MOST_CONFIG_FILES;
/// The most bytes of all texts: those of a pod's config files, and as much for what the kubelet puts into them.
const MOST_BYTES: usize = 2 * MOST_CONFIG_BYTES;

/// The files that these arguments name.
pub(super) fn text_files(arguments: impl IntoIterator<Item = OsString>) -> Result<Vec<TextFile>, ConfigError> {
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
    }
    if files.is_empty() {
        return Err(ConfigError::Missing("write needs a path and a text"));
    }
    let count = files.len();
    if count > MOST_FILES || bytes > MOST_BYTES {
        return Err(ConfigError::Value {
            source_name: "write".to_owned(),
            why: format!(
                "{count} files with {bytes} bytes were given: at most {MOST_FILES} files with {MOST_BYTES} bytes in all are written"
            ),
        });
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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(arguments: &[&str]) -> Result<Vec<TextFile>, ConfigError> {
        text_files(arguments.iter().map(OsString::from))
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

//! The files of an image, and the libraries that they are linked with.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// The files below a folder and their places below another one.
pub(super) fn files_of(folder: &Path, place: &str, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next).with_context(|| format!("can't read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.is_file() && wanted(&path) {
                let rest = path.strip_prefix(folder)?.to_str().context("a path is UTF-8")?;
                found.push((path.clone(), format!("{}/{rest}", place.trim_end_matches('/'))));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Adds the shared libraries that programs and libraries among the files are linked with, at their places on this machine.
pub(crate) fn with_libraries(files: &mut Vec<(PathBuf, String)>) -> Result<()> {
    let mut libraries = BTreeSet::new();
    for (file, place) in files.iter() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let is_program = place.contains("/bin/");
        if !is_program && !name.ends_with(".so") && !name.contains(".so.") {
            continue;
        }
        let output = Command::new("ldd").arg(file).stdin(Stdio::null()).output()?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let path = line.split_once("=> ").map_or(line, |(_, path)| path).trim();
            if let Some((path, _)) = path.split_once(" (0x")
                && path.starts_with('/')
            {
                libraries.insert(path.to_owned());
            }
        }
    }
    let own: BTreeSet<PathBuf> = files
        .iter()
        .filter_map(|(file, _)| fs::canonicalize(file).ok())
        .collect();
    for library in libraries {
        let file = fs::canonicalize(&library)?;
        if !own.contains(&file) {
            files.push((file, library));
        }
    }
    Ok(())
}

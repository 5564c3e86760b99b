//! The real servers and clients that the tests and the demo run, and where they come from.
//!
//! Looked up in this order: `TOKENSCOPE_<TOOL>` (a path), `KUBEBUILDER_ASSETS` (a folder with kube-apiserver, etcd and
//! kubectl), `PATH` (where the version fits the pinned one), and else built once with Go from the modules pinned in
//! `tools/` into `$XDG_CACHE_HOME/tokenscope/tools/<name>-<version>/` (`~/.cache` without that variable).
//! The pinned versions are those of `tools/*/go.mod` and `tools/*/requirements.txt`; they are written nowhere else.

mod build;
mod find;
mod pin;
mod tool;
mod version;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use self::build::{build_go, build_python};
use self::find::{from_environment, from_path};
pub use self::tool::Tool;
use crate::once::make_once;

/// The place where a tool or a packaged server was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerOrigin {
    /// The environment variable of this name.
    Variable(String),
    /// A folder of PATH.
    Path,
    /// Made before, of the pinned source or package.
    Cache,
    /// Made just now.
    Made,
}

impl ServerOrigin {
    /// That of what is kept in the cache.
    pub(crate) fn kept(made_now: bool) -> Self {
        if made_now { Self::Made } else { Self::Cache }
    }
}

/// A tool or a packaged server that can be run.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// Its usual name.
    pub name: &'static str,
    /// The version that it says of itself, without a leading `v`.
    pub version: String,
    /// The place where it was found.
    pub origin: ServerOrigin,
    /// The program, or the folder of a packaged server.
    pub path: PathBuf,
}

/// The program of a tool, built first where nothing fitting is installed. Blocks; building takes up to some minutes.
///
/// Fails if a variable names something that can't be run, or if building needs Go (or Python) and it is missing.
pub fn resolve(tool: Tool) -> Result<PathBuf> {
    locate(tool).map(|resolved| resolved.path)
}

/// As [`resolve`], with the version and where it came from. Found once in the life of a process.
pub fn locate(tool: Tool) -> Result<Resolved> {
    static FOUND: Mutex<BTreeMap<Tool, Resolved>> = Mutex::new(BTreeMap::new());
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(resolved) = found.get(&tool) {
        return Ok(resolved.clone());
    }
    let resolved = search(tool)?;
    found.insert(tool, resolved.clone());
    Ok(resolved)
}

fn search(tool: Tool) -> Result<Resolved> {
    if let Some(found) = from_environment(tool)? {
        return Ok(found);
    }
    if let Some(found) = from_path(tool)? {
        return Ok(found);
    }
    let version = tool.pinned_version()?;
    let folder = cache()?.join(format!("{}-{version}", tool.pin().folder_name));
    let path = folder.join(tool.pin().program);
    let made_now = make_once(&path, &folder, tool.name(), || match tool {
        Tool::Boto3
        | Tool::MiniStack
        | Tool::Anthropic
        | Tool::Azure
        | Tool::Databricks
        | Tool::Hvac
        | Tool::OpenAi
        | Tool::Snowflake => build_python(tool, &folder, &version),
        _ => build_go(tool, &folder, &version),
    })?;
    Ok(Resolved {
        name: tool.name(),
        version,
        origin: ServerOrigin::kept(made_now),
        path,
    })
}

/// The folder that tools and packaged servers are kept in; it need not exist yet.
pub fn cache() -> Result<PathBuf> {
    let caches = match std::env::var_os("XDG_CACHE_HOME") {
        Some(folder) if Path::new(&folder).is_absolute() => PathBuf::from(folder),
        _ => Path::new(&std::env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?).join(".cache"),
    };
    Ok(caches.join("tokenscope").join("tools"))
}

impl fmt::Display for ServerOrigin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Variable(name) => write!(formatter, "${name}"),
            Self::Path => formatter.write_str("PATH"),
            Self::Cache => formatter.write_str("made before"),
            Self::Made => formatter.write_str("made now"),
        }
    }
}

#[cfg(test)]
mod tests;

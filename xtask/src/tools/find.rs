//! Programs that are named in the environment or found on PATH.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::tool::Tool;
use super::version::version_of;
use super::{Resolved, ServerOrigin};

pub(super) fn from_environment(tool: Tool) -> Result<Option<Resolved>> {
    let taken = |variable: String, path: PathBuf| {
        let version = version_of(tool, &path).with_context(|| {
            format!(
                "{variable} names {}, which doesn't work as {}",
                path.display(),
                tool.name()
            )
        })?;
        Ok(Some(Resolved {
            name: tool.name(),
            version,
            origin: ServerOrigin::Variable(variable),
            path,
        }))
    };
    if let Some(path) = std::env::var_os(tool.variable()).filter(|path| !path.is_empty()) {
        return taken(tool.variable(), PathBuf::from(path));
    }
    if !matches!(tool, Tool::KubeApiserver | Tool::Etcd | Tool::Kubectl) {
        return Ok(None);
    }
    match std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()) {
        Some(folder) => taken("KUBEBUILDER_ASSETS".to_owned(), Path::new(&folder).join(tool.name())),
        None => Ok(None),
    }
}

pub(super) fn from_path(tool: Tool) -> Result<Option<Resolved>> {
    // Those become images, for which a program of this machine may lack what it is linked with; the shim must be of the
    // same build as containerd; cert-manager's own programs have other names; and no interpreter has MiniStack or all that the examples need by chance.
    if matches!(
        tool,
        Tool::CoreDns
            | Tool::VersityGateway
            | Tool::SpireServer
            | Tool::SpireAgent
            | Tool::SpireOidcDiscoveryProvider
            | Tool::CertManager
            | Tool::MiniStack
            | Tool::Anthropic
            | Tool::Azure
            | Tool::Databricks
            | Tool::Hvac
            | Tool::OpenAi
            | Tool::Snowflake
            | Tool::ContainerdShim
    ) {
        return Ok(None);
    }
    let program = if tool == Tool::Boto3 { "python3" } else { tool.name() };
    let pinned = tool.pinned_version()?;
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(program))
        .filter(|path| path.is_file());
    for path in found {
        // What doesn't start, or hangs, is as good as absent.
        if let Ok(version) = version_of(tool, &path)
            && tool.accepts(&version, &pinned)
        {
            return Ok(Some(Resolved {
                name: tool.name(),
                version,
                origin: ServerOrigin::Path,
                path,
            }));
        }
    }
    Ok(None)
}

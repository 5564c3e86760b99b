//! Builds a tool of its pinned source, and keeps how long that took.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use super::cache;
use super::pin::Pin;
use super::tool::Tool;
use super::version::minor;
use crate::fetching::{BUILD_DEADLINE, fetch, is_there, limited};
use crate::once::beside;
use crate::progress::{Step, say};
use crate::root;

pub(super) fn build_go(tool: Tool, folder: &Path, version: &str) -> Result<()> {
    let Pin {
        source,
        module,
        package,
        program,
        ..
    } = tool.pin();
    let sources = root().join("tools").join(source);
    let sources = sources.parent().context("a go.mod is in a folder")?;
    let partial = beside(folder, &format!("{program}.partial"));
    let mut command = Command::new("go");
    command
        .current_dir(sources)
        .env("CGO_ENABLED", if needs_c(tool) { "1" } else { "0" })
        .env_remove("GOOS") // a program for this machine, whatever else is being built
        .env_remove("GOARCH")
        .env_remove("GOWORK")
        .args(["build", "-v", "-trimpath", "-mod=readonly", "-buildvcs=false"])
        .arg(format!("-ldflags=-s -w{}", linker_flags(tool, module, version)?))
        .arg(format!("-tags={}", tool.tags()))
        .arg("-o")
        .arg(&partial)
        .arg(package);
    let missing = format!(
        "{} {version} isn't installed and has to be built, and there is no Go. Install Go {} or newer \
         (https://go.dev/doc/install), or name a program with {} or KUBEBUILDER_ASSETS",
        tool.name(),
        go_version(sources).unwrap_or_else(|| "1.26".to_owned()),
        tool.variable(),
    );
    ensure!(is_there(&command), "{missing}");
    fetch(|| run_build(tool, version, &command))?;
    fs::create_dir_all(folder)?;
    if tool == Tool::CertManager {
        copy_definitions(
            &module_folder(sources, module)?.join("deploy/crds"),
            &folder.join("crds"),
        )?;
    }
    fs::rename(&partial, folder.join(program))?;
    Ok(())
}

/// The linker's flags that put the version into a program that doesn't carry it in its source, with a space before each.
fn linker_flags(tool: Tool, module: &str, version: &str) -> Result<String> {
    Ok(match tool {
        Tool::KubeApiserver
        | Tool::OlderKubeApiserver
        | Tool::Kubectl
        | Tool::KubeControllerManager
        | Tool::KubeScheduler
        | Tool::Kubelet
        | Tool::KubeProxy => {
            let (major, minor) = minor(version).with_context(|| format!("{version} is no version"))?;
            let variable = "k8s.io/component-base/version";
            format!(
                " -X {variable}.gitVersion=v{version} -X {variable}.gitMajor={major} -X {variable}.gitMinor={minor}"
            )
        }
        Tool::Helm => format!(" -X {module}/internal/version.version=v{version}"),
        Tool::Containerd | Tool::Ctr | Tool::ContainerdShim => format!(" -X {module}/version.Version=v{version}"),
        Tool::VersityGateway => format!(" -X main.Version=v{version}"),
        Tool::CertManager => format!(" -X {module}/pkg/util.AppVersion=v{version}"),
        // Static, so that each is the only file of its image.
        Tool::SpireServer | Tool::SpireAgent | Tool::SpireOidcDiscoveryProvider => {
            format!(" -linkmode=external -extldflags=-static -X {module}/pkg/common/version.gittag={version}")
        }
        Tool::Etcd
        | Tool::CoreDns
        | Tool::Boto3
        | Tool::MiniStack
        | Tool::Anthropic
        | Tool::Azure
        | Tool::Databricks
        | Tool::Hvac
        | Tool::OpenAi
        | Tool::Snowflake => String::new(),
    })
}

/// True if C is compiled. The SQLite of SPIRE's server is C; its other programs are compiled the same way, because what
/// they share is then compiled once.
fn needs_c(tool: Tool) -> bool {
    matches!(
        tool,
        Tool::SpireServer | Tool::SpireAgent | Tool::SpireOidcDiscoveryProvider
    )
}

/// The folder where Go keeps the sources of a module.
fn module_folder(sources: &Path, module: &str) -> Result<PathBuf> {
    let output = Command::new("go")
        .current_dir(sources)
        .env_remove("GOWORK")
        .args(["list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module])
        .output()
        .context("can't run go list")?;
    ensure!(
        output.status.success(),
        "go list {module}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// Writes the YAML files of one folder to another.
fn copy_definitions(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("can't list {}", from.display()))? {
        let path = entry?.path();
        let Some(name) = path
            .file_name()
            .filter(|_| path.extension().is_some_and(|extension| extension == "yaml"))
        else {
            continue;
        };
        fs::write(to.join(name), fs::read(&path)?)?; // not a copy: the sources of modules are read-only
    }
    Ok(())
}

/// The Go that the module asks for.
fn go_version(sources: &Path) -> Option<String> {
    let text = fs::read_to_string(sources.join("go.mod")).ok()?;
    text.lines()
        .find_map(|line| line.strip_prefix("go "))
        .map(str::to_owned)
}

/// Installs packages into an interpreter of their own.
pub(super) fn build_python(tool: Tool, folder: &Path, version: &str) -> Result<()> {
    let partial = beside(folder, "partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    let missing = format!(
        "{0} needs Python 3 with its venv module (Debian: python3-venv), or name an interpreter that has {0} with {1}",
        tool.name(),
        tool.variable()
    );
    let made = Command::new("python3")
        .args(["-m", "venv"])
        .arg(&partial)
        .output()
        .context(missing.clone())?;
    ensure!(
        made.status.success(),
        "{missing}:\n{}",
        String::from_utf8_lossy(&made.stdout)
    );
    let mut install = Command::new(partial.join("bin/python"));
    install
        .args([
            "-m",
            "pip",
            "install",
            "--disable-pip-version-check",
            "--no-input",
            "--require-hashes",
            "-r",
        ])
        .arg(root().join("tools").join(tool.pin().source));
    fetch(|| run_build(tool, version, &install))?;
    // The interpreter finds its packages by its own place, so the folder may move.
    fs::rename(&partial, folder)?;
    Ok(())
}

/// Runs a build with its progress, and keeps how long it took.
fn run_build(tool: Tool, version: &str, command: &Command) -> Result<()> {
    let durations = cache()?.join("durations.json");
    let mut last = read_durations(&durations);
    let expected = match last.get(tool.name()) {
        Some(seconds) => format!("last time {seconds} s"),
        None => format!("usually {}", tool.pin().usual),
    };
    let mut child = limited(command, BUILD_DEADLINE)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("can't run timeout")?;
    let step = Step::start(&format!("building {} {version}, once", tool.name()), Some(&expected));
    let mut tail = VecDeque::new();
    let mut packages = 0_u32;
    for line in BufReader::new(child.stderr.take().context("standard error is piped")?).lines() {
        let line = line?;
        packages += 1;
        step.detail(&format!("{packages} packages, {line}"));
        tail.push_back(line);
        if tail.len() > 20 {
            tail.pop_front();
        }
    }
    let status = child.wait()?;
    if !status.success() {
        step.failed("");
        for line in tail {
            say(&format!("    {line}"));
        }
        bail!("building {} {version} ended with {status}: {command:?}", tool.name());
    }
    last.insert(tool.name().to_owned(), step.done("").as_secs().max(1));
    // Only a figure to show the next time: what can't be kept is no failure.
    let _ = fs::write(&durations, serde_json::json!(last).to_string());
    Ok(())
}

fn read_durations(path: &Path) -> BTreeMap<String, u64> {
    let text = fs::read_to_string(path).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

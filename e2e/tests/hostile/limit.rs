//! The memory limit of a container, for a process outside any: a cgroup where this user may make one.
//!
//! Without a cgroup nothing is enforced, and the process's own peak is compared with the limit all the same.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokenscope_e2e::process::ServerProcess;

/// A limit in bytes, and the cgroup that enforces it.
#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) bytes: u64,
    cgroup: Option<PathBuf>,
}

impl Limit {
    /// What the chart's Deployment of this name allows its container.
    pub(crate) fn of_deployment(objects: &[Value], name: &str) -> Result<Self> {
        let deployment = objects
            .iter()
            .find(|object| object["kind"] == "Deployment" && object["metadata"]["name"] == name)
            .with_context(|| format!("the chart has no Deployment {name}"))?;
        let memory = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
        let bytes = bytes(memory.as_str().context("the container has a memory limit")?)?;
        let cgroup = make_cgroup(&format!("tokenscope-hostile-{}-{name}", std::process::id()), bytes);
        Ok(Self { bytes, cgroup })
    }

    /// Puts the process under the limit, as it is now started.
    pub(crate) fn hold(&self, process: &ServerProcess) -> Result<()> {
        let pid = process.pid()?.to_string();
        if let Some(cgroup) = &self.cgroup {
            fs::write(cgroup.join("cgroup.procs"), pid).context("can't put a process into its cgroup")?;
        }
        Ok(())
    }

    /// Whether the kernel enforces it.
    pub(crate) fn is_enforced(&self) -> bool {
        self.cgroup.is_some()
    }
}

impl Drop for Limit {
    fn drop(&mut self) {
        // The processes have just been killed; one that is still being reaped keeps its cgroup, which is empty then.
        if let Some(cgroup) = &self.cgroup {
            let _ = fs::remove_dir(cgroup);
        }
    }
}

/// From now on the process's peak is what it takes from now on.
pub(crate) fn forget_peak(process: &ServerProcess) -> Result<()> {
    fs::write(format!("/proc/{}/clear_refs", process.pid()?), "5").context("can't reset the peak of resident memory")
}

fn bytes(quantity: &str) -> Result<u64> {
    let Some(mebibytes) = quantity.strip_suffix("Mi") else {
        bail!("the chart's memory limit {quantity} is not in Mi");
    };
    Ok(mebibytes.parse::<u64>()? << 20)
}

/// A cgroup with a limit of memory; none where that can't be had.
fn make_cgroup(name: &str, bytes: u64) -> Option<PathBuf> {
    let (parent, file) = memory_hierarchy(
        &fs::read_to_string("/proc/self/cgroup").ok()?,
        &fs::read_to_string("/proc/self/mounts").ok()?,
    )?;
    let cgroup = parent.join(name);
    fs::create_dir(&cgroup).ok()?;
    if fs::write(cgroup.join(file), bytes.to_string()).is_ok() {
        Some(cgroup)
    } else {
        let _ = fs::remove_dir(&cgroup);
        None
    }
}

/// Where cgroups with a memory limit can be made, and the file of the limit. With v1, below our own; with v2 alone below
/// the topmost one, because a cgroup with processes can't hand its controllers down.
fn memory_hierarchy(own: &str, mounts: &str) -> Option<(PathBuf, &'static str)> {
    let mount = |file_system: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(' ').collect();
            let fits = fields.get(2) == Some(&file_system)
                && (option.is_empty() || fields.get(3)?.split(',').any(|given| given == option));
            fits.then(|| PathBuf::from(fields[1]))
        })
    };
    let Some(v1) = mount("cgroup", "memory") else {
        return Some((mount("cgroup2", "")?, "memory.max"));
    };
    let path = own.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers
            .split(',')
            .any(|name| name == "memory")
            .then(|| fields.next())?
    })?;
    let below = v1.join(path.trim_start_matches('/'));
    let parent = if path.contains("..") || !Path::new(&below).is_dir() {
        v1
    } else {
        below
    };
    Some((parent, "memory.limit_in_bytes"))
}

//! The cgroups that hold everything of a cluster: what they have in them, how a process joins them, and how they end.
//!
//! With cgroup v1, or v1 and v2 together (hybrid), a cluster is a child of the starter's own cgroup in each mounted
//! hierarchy, so that it stays within the starter's limits. With v2 alone it is a child of the topmost cgroup, because a
//! cgroup with processes (the starter's own) can't hand controllers to its children; three cgroups lie in it: `outer` for
//! the process that made the namespaces, `node` which the cluster sees as its topmost one, and there `init`, where the
//! servers are.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// The longest time that killed processes may take to be gone, and their cgroups to be removable.
const END_DEADLINE: Duration = Duration::from_secs(90);

/// Where processes of the topmost cgroup are put if that isn't the machine's own (in a container) and they are in the way.
const OTHERS: &str = "tokenscope-others";

/// The kind of hierarchy that the machine mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CgroupKind {
    /// cgroup v2 alone.
    Unified,
    /// cgroup v1, mostly with a v2 hierarchy that has no controllers.
    Hybrid,
}

/// A mounted hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    mount: PathBuf,
    /// `cgroup` or `cgroup2`.
    file_system: String,
    /// As the mount option: `cpu,cpuacct`, `name=systemd`; empty for v2.
    controllers: String,
    /// The starter's cgroup.
    own: PathBuf,
}

/// The hierarchies of this machine.
pub(super) fn hierarchies() -> Result<(CgroupKind, Vec<Hierarchy>)> {
    let found = parse(
        &fs::read_to_string("/proc/self/cgroup")?,
        &fs::read_to_string("/proc/self/mounts")?,
    );
    ensure!(!found.is_empty(), "no cgroup hierarchy is mounted below /sys/fs/cgroup");
    let unified = found.iter().all(|hierarchy| hierarchy.file_system == "cgroup2");
    Ok((
        if unified {
            CgroupKind::Unified
        } else {
            CgroupKind::Hybrid
        },
        found,
    ))
}

fn parse(own: &str, mounts: &str) -> Vec<Hierarchy> {
    let mounts: Vec<Vec<&str>> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields.len() >= 4 && fields[1].starts_with("/sys/fs/cgroup"))
        .collect();
    own.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':');
            let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let file_system = if number == "0" { "cgroup2" } else { "cgroup" };
            let mount = mounts.iter().find(|fields| {
                let has = |wanted: &str| fields[3].split(',').any(|option| option == wanted);
                fields[2] == file_system && (number == "0" || controllers.split(',').all(has))
            })?;
            let mount = PathBuf::from(mount[1]);
            let below = mount.join(path.trim_start_matches('/'));
            // In a container the mount may begin at its own cgroup already.
            let own = if path.contains("..") || !below.is_dir() {
                mount.clone()
            } else {
                below
            };
            Some(Hierarchy {
                mount,
                file_system: file_system.to_owned(),
                controllers: controllers.to_owned(),
                own,
            })
        })
        .collect()
}

impl Hierarchy {
    /// The folder of a cluster's cgroup of this name.
    pub(super) fn cgroup(&self, kind: CgroupKind, name: &str) -> PathBuf {
        match kind {
            CgroupKind::Unified => self.mount.join(name),
            CgroupKind::Hybrid => self.own.join(name),
        }
    }

    /// Mount point, file system and controllers, as node.sh reads them.
    pub(super) fn line(&self) -> String {
        format!("{} {} {}\n", self.mount.display(), self.file_system, self.controllers)
    }

    fn mount(&self) -> &Path {
        &self.mount
    }
}

/// Makes the cgroups. `record` is a file, kept for all clusters together, of what was changed in the topmost cgroup.
pub(super) fn make(kind: CgroupKind, hierarchies: &[Hierarchy], cgroups: &[PathBuf], record: &Path) -> Result<()> {
    for (hierarchy, cgroup) in hierarchies.iter().zip(cgroups) {
        if kind == CgroupKind::Unified {
            hand_down(hierarchy.mount(), Some(record))?;
        }
        fs::create_dir_all(cgroup).with_context(|| format!("can't make the cgroup {}", cgroup.display()))?;
        // A new cpuset of v1 is empty, and can't be joined so.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            let path = cgroup.join(file);
            if kind == CgroupKind::Hybrid && fs::read_to_string(&path).is_ok_and(|text| text.trim().is_empty()) {
                let parent = cgroup.parent().context("a cgroup is below its mount")?;
                fs::write(&path, fs::read_to_string(parent.join(file))?)?;
            }
        }
        if kind == CgroupKind::Unified {
            hand_down(cgroup, None)?;
            fs::create_dir_all(cgroup.join("outer"))?;
            fs::create_dir_all(cgroup.join("node"))?;
        }
    }
    Ok(())
}

/// Lets the children of a v2 cgroup have every controller that it has.
fn hand_down(cgroup: &Path, record: Option<&Path>) -> Result<()> {
    let control = cgroup.join("cgroup.subtree_control");
    let words = |path: &Path| -> Result<Vec<String>> {
        let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(text.split_whitespace().map(str::to_owned).collect())
    };
    let enabled = words(&control)?;
    for controller in words(&cgroup.join("cgroup.controllers"))? {
        if enabled.contains(&controller) {
            continue;
        }
        if let Some(record) = record {
            let known = fs::read_to_string(record).unwrap_or_default();
            fs::write(record, format!("{known}{controller}\n"))?;
        }
        let change = format!("+{controller}");
        if fs::write(&control, &change).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) {
            move_all(cgroup, &cgroup.join(OTHERS))?;
            // One that can't be had (such as cpu beside real-time processes) is one that the kubelet does without.
            let _ = fs::write(&control, &change);
        }
    }
    Ok(())
}

/// Undoes what [`make`] changed in the topmost cgroup; called when the last cluster is gone.
pub(super) fn restore(record: &Path) -> Result<()> {
    let Ok(text) = fs::read_to_string(record) else {
        return Ok(());
    };
    let (kind, hierarchies) = hierarchies()?;
    ensure!(
        kind == CgroupKind::Unified,
        "{} was made with other cgroups",
        record.display()
    );
    let top = hierarchies.first().context("no cgroup hierarchy is mounted")?.mount();
    for controller in text.lines() {
        // Busy: somebody else hands it down meanwhile, so it stays.
        let _ = fs::write(top.join("cgroup.subtree_control"), format!("-{controller}"));
    }
    let others = top.join(OTHERS);
    if others.is_dir() {
        move_all(&others, top)?;
        fs::remove_dir(&others)?;
    }
    fs::remove_file(record)?;
    Ok(())
}

fn move_all(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for process in fs::read_to_string(from.join("cgroup.procs"))?.lines() {
        // One that has just ended, or a kernel thread, which no rule holds back.
        let _ = fs::write(to.join("cgroup.procs"), process);
    }
    Ok(())
}

/// Every process in these cgroups and below.
pub(super) fn members(cgroups: &[PathBuf]) -> Vec<u32> {
    let mut found = Vec::new();
    for cgroup in cgroups {
        for folder in below(cgroup) {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        }
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// A cgroup and all below it, the deepest first.
fn below(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    if cgroup.is_dir() {
        found.push(cgroup.to_owned());
    }
    found
}

/// Kills every process in these cgroups, waits until they are gone, and removes the cgroups.
pub(super) fn end(cgroups: &[PathBuf]) -> Result<()> {
    let deadline = Instant::now() + END_DEADLINE;
    let mut killed = members(cgroups);
    loop {
        for cgroup in cgroups {
            // Absent in v1 hierarchies and before Linux 5.14.
            let kill = cgroup.join("cgroup.kill");
            if kill.exists() {
                let _ = fs::write(kill, "1");
            }
        }
        let left = members(cgroups);
        if left.is_empty() {
            break;
        }
        ensure!(Instant::now() < deadline, "processes that can't be killed: {left:?}");
        // One that is gone meanwhile is no failure.
        let _ = Command::new("kill")
            .arg("-KILL")
            .args(left.iter().map(u32::to_string))
            .stderr(Stdio::null())
            .status();
        killed.extend(left);
        std::thread::sleep(Duration::from_millis(10));
    }
    // A killed process leaves its cgroup a moment before it has released its mounts and sockets.
    while killed.iter().any(|process| is_alive(*process)) {
        ensure!(
            Instant::now() < deadline,
            "killed processes that don't end, among {killed:?}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    for folder in cgroups.iter().flat_map(|cgroup| below(cgroup)) {
        loop {
            match fs::remove_dir(&folder) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) if Instant::now() > deadline => {
                    bail!("can't remove the cgroup {}: {error}", folder.display());
                }
                Err(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }
    Ok(())
}

/// True if a process still runs: one that has ended and waits for its parent to look (a zombie) has no namespaces.
fn is_alive(process: u32) -> bool {
    fs::read_link(format!("/proc/{process}/ns/net")).is_ok()
}

/// The process 1 of a cluster's namespaces: the one member that is number 1 exactly one level below us.
pub(super) fn first_process(cgroups: &[PathBuf]) -> Option<u32> {
    let levels = |process: &str| -> Option<Vec<String>> {
        let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
        Some(numbers.split_whitespace().map(str::to_owned).collect())
    };
    let own = levels("self")?.len();
    members(cgroups).into_iter().find(|process| {
        is_alive(*process)
            && levels(&process.to_string())
                .is_some_and(|numbers| numbers.len() == own + 1 && numbers.last().is_some_and(|number| number == "1"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_mounted_hierarchy_is_found_with_the_cgroup_that_we_are_in() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
            cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
            cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0\n\
            cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0\n";
        let found = parse("4:cpuacct,cpu:/\n3:memory:/x\n1:name=systemd:/\n0::/../other\n", mounts);
        let lines: Vec<String> = found.iter().map(Hierarchy::line).collect();
        assert_eq!(
            lines,
            [
                "/sys/fs/cgroup/cpu,cpuacct cgroup cpuacct,cpu\n",
                "/sys/fs/cgroup/systemd cgroup name=systemd\n",
                "/sys/fs/cgroup/unified cgroup2 \n",
            ]
        );
        assert_eq!(
            found[2].cgroup(CgroupKind::Hybrid, "a"),
            Path::new("/sys/fs/cgroup/unified/a")
        );
    }
}

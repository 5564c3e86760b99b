//! A probe as a process of this machine: in the files of its image and on the machine's own loopback addresses, without a cluster.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use tokenscope_xtask::oci::{StartOf, unpack};
use tokenscope_xtask::progress::say;
use tokenscope_xtask::root;

use crate::node::is_ci;
use crate::probes::Sdk;

/// How long a run may take, in seconds: an SDK may wait between its attempts, and the JVM starts slowly on a busy machine.
const RUN_DEADLINE: &str = "300";

/// `timeout` ends with this status if the deadline has passed.
const TIMED_OUT: i32 = 124;

/// A probe, ready to run.
#[derive(Debug)]
pub struct LocalProbe {
    sdk: Sdk,
    files: PathBuf,
    /// The folder that it may write to, as the probe sees it. No other probe has it.
    scratch: String,
    start: StartOf,
}

/// How a run has ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Whether it got what it asked for.
    pub well: bool,
    /// All that it printed.
    pub output: String,
}

impl LocalProbe {
    /// Builds the image of an SDK's probe unless it is there already, and unpacks it.
    ///
    /// Says so and returns nothing where the toolchain isn't installed, or where a process can't be given another root folder; with `CI=true` that
    /// is an error.
    pub fn of(sdk: Sdk) -> Result<Option<Self>> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !can_change_root(sdk)? || !sdk.can_be_built()? {
            return Ok(None);
        }
        let files = root().join("target/probes/local").join(sdk.name());
        let start = unpack(&sdk.archive()?, &files)?;
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let probe = Self {
            sdk,
            files,
            scratch: format!("/scratch/{}-{number}", std::process::id()),
            start,
        };
        fs::create_dir_all(probe.outside(&probe.scratch))?;
        Ok(Some(probe))
    }

    /// Writes a file. Returns its path as the probe sees it.
    pub fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = format!("{}/{name}", self.scratch);
        fs::write(self.outside(&path), text)?;
        Ok(path)
    }

    /// Runs it with these variables, those of its image, and nothing of this process's environment. It blocks its thread.
    ///
    /// Fails if it can't be started or is not done in time.
    pub fn run(&self, environment: &[(&str, &str)]) -> Result<Ran> {
        let output = Command::new("timeout")
            .args([RUN_DEADLINE, "unshare"])
            .args(options())
            .arg(format!("--root={}", self.files.display()))
            .args(&self.start.entrypoint)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .envs(self.start.environment.iter().filter_map(|text| text.split_once('=')))
            .env_remove("PYTHONDONTWRITEBYTECODE") // its files can be written to here, and later runs start faster
            .envs([("HOME", &*self.scratch), ("TMPDIR", &*self.scratch)])
            .envs([("PROBE_BUCKET", "bucket"), ("PROBE_KEY", self.sdk.name())])
            .env("AWS_EC2_METADATA_DISABLED", "true") // nothing is asked outside of this machine
            .envs(environment.iter().copied())
            .output()
            .context("can't run timeout")?;
        let name = self.sdk.name();
        ensure!(
            output.status.code() != Some(TIMED_OUT),
            "the probe of {name} was not done after {RUN_DEADLINE} s"
        );
        let output_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Ran {
            well: output.status.success(),
            output: output_of(&output.stdout) + &output_of(&output.stderr),
        })
    }

    fn outside(&self, path: &str) -> PathBuf {
        self.files.join(path.trim_start_matches('/'))
    }
}

impl Drop for LocalProbe {
    fn drop(&mut self) {
        // What is left is removed when the image changes.
        let _ = fs::remove_dir_all(self.outside(&self.scratch));
    }
}

/// Root may choose the root folder of a process; others may in a user namespace of their own.
fn options() -> &'static [&'static str] {
    if rustix::process::geteuid().is_root() {
        &[]
    } else {
        &["--map-root-user"]
    }
}

fn can_change_root(sdk: Sdk) -> Result<bool> {
    let tried = Command::new("unshare")
        .args(options())
        .args(["--root=/", "true"])
        .output();
    if tried.is_ok_and(|output| output.status.success()) {
        return Ok(true);
    }
    let why = "because this process may not give another one its own root folder (unshare --root)";
    if is_ci() {
        bail!(
            "CI=true, so no SDK is left out, and the probe of {} can't run, {why}",
            sdk.name()
        );
    }
    say(&format!("  {}: left out, {why}", sdk.name()));
    Ok(false)
}

//! The version that a program says of itself.

use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::tool::Tool;

/// The longest time that `--version` of something found on PATH may take: an interpreter that loads a package on a busy machine takes
/// seconds, and what hangs takes for ever.
const VERSION_DEADLINE: Duration = Duration::from_secs(60);

/// The oldest kubectl taken from PATH: server-side apply with strict field validation is settled since long before it.
const OLDEST_KUBECTL: (u32, u32) = (1, 30);

impl Tool {
    /// True if something on PATH of this version behaves like the pinned one.
    pub(super) fn accepts(self, found: &str, pinned: &str) -> bool {
        match self {
            Self::Kubectl => minor(found).is_some_and(|version| version >= OLDEST_KUBECTL && version.0 == 1),
            _ => minor(found).is_some() && minor(found) == minor(pinned),
        }
    }
}

pub(super) fn version_of(tool: Tool, program: &Path) -> Result<String> {
    let mut command = tool.version_command(program);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't run {}", program.display()))?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if started.elapsed() > VERSION_DEADLINE {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{command:?} gave no answer in {} s", VERSION_DEADLINE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    // A version is a few lines and fits into the pipe, so reading it after the end can't have blocked the child.
    let mut text = String::new();
    child
        .stdout
        .take()
        .context("standard output is piped")?
        .read_to_string(&mut text)?;
    // SPIRE's programs print it there.
    child
        .stderr
        .take()
        .context("standard error is piped")?
        .read_to_string(&mut text)?;
    ensure!(status.success(), "{command:?} ended with {status}");
    version_in(&text).with_context(|| format!("{command:?} printed no version"))
}

/// The first `1.2` or `1.2.3` in a text, with what is attached to it (`1.32.4-gke.1`), without a leading `v`.
pub(super) fn version_in(text: &str) -> Option<String> {
    let word = |word: &str| {
        let word = word.strip_prefix("CoreDNS-").unwrap_or(word);
        let word = word.strip_prefix('v').unwrap_or(word);
        minor(word).map(|_| word.to_owned())
    };
    text.split(|character: char| character.is_whitespace() || character == ',')
        .find_map(word)
}

/// Major and minor of `1.36.3` or `1.36`.
pub(super) fn minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split(['.', '-', '+']);
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

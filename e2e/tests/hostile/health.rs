//! Watches the processes while they are attacked, as a kubelet does: probes, restarts, memory.

use std::sync::Arc;
use std::time::Duration;

use tokenscope_e2e::process::ServerProcess;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::field::Field;

/// How long a probe may take, and how many in a row may fail: the chart's own values. They come faster than a kubelet's.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
pub(crate) const FAILURE_THRESHOLD: usize = 3;
const PROBE_PERIOD: Duration = Duration::from_millis(200);

/// What was seen of one process.
#[derive(Debug, Default, Clone)]
pub(crate) struct Health {
    pub(crate) name: String,
    /// How often it ended by itself.
    pub(crate) restarts: usize,
    /// The most resident memory, in bytes.
    pub(crate) peak: u64,
    /// Probes in a row that were not answered with 200, at most.
    pub(crate) failed_in_a_row: usize,
    /// What the last of them got.
    pub(crate) last_failure: String,
    /// Bytes that its log grew by.
    pub(crate) logged: u64,
}

/// A running watch over all processes.
pub(crate) struct Watch {
    stop: CancellationToken,
    tasks: Vec<JoinHandle<Health>>,
}

impl Watch {
    /// Begins; the peaks count from now on.
    pub(crate) fn begin(field: &Arc<Field>) -> Self {
        let stop = CancellationToken::new();
        let tasks = (0..field.processes().len())
            .map(|number| tokio::spawn(watch(Arc::clone(field), number, stop.clone())))
            .collect();
        Self { stop, tasks }
    }

    /// What was seen, by process.
    pub(crate) async fn end(self) -> Vec<Health> {
        self.stop.cancel();
        let mut seen = Vec::new();
        for task in self.tasks {
            seen.extend(task.await);
        }
        seen
    }
}

async fn watch(field: Arc<Field>, number: usize, stop: CancellationToken) -> Health {
    let processes = field.processes();
    let process = processes[number];
    let before = log_length(process);
    let mut health = Health {
        name: process.name().to_owned(),
        ..Health::default()
    };
    let mut in_a_row = 0;
    // A process that was just started is not ready yet, and a kubelet waits for that.
    let (mut pid, mut starting) = (process.pid().ok(), false);
    let mut path = "/livez";
    loop {
        if matches!(process.exit_status(), Ok(Some(_))) {
            health.restarts += 1;
            // A kubelet starts it again, the first time at once.
            let _ = field.restart(number);
        }
        let failure = match tokio::time::timeout(PROBE_TIMEOUT, process.observe(path)).await {
            Ok(Ok((200, _))) => None,
            Ok(Ok((status, text))) => Some(format!("{path}: {status} {}", text.trim())),
            Ok(Err(error)) => Some(format!("{path}: {error:#}")),
            Err(_) => Some(format!("{path}: no answer within {PROBE_TIMEOUT:?}")),
        };
        if process.pid().ok() == pid {
            starting &= failure.is_some();
        } else {
            (pid, starting, path) = (process.pid().ok(), true, "/readyz");
        }
        in_a_row = if failure.is_some() && !starting {
            in_a_row + 1
        } else {
            0
        };
        health.failed_in_a_row = health.failed_in_a_row.max(in_a_row);
        if let Some(failure) = failure.filter(|_| !starting) {
            health.last_failure = failure;
        }
        if let Ok(memory) = process.memory() {
            health.peak = health.peak.max(memory.peak);
        }
        // A probe that fails is asked again; each path has its turn.
        if in_a_row == 0 && !starting {
            path = if path == "/livez" { "/readyz" } else { "/livez" };
        }
        if stop
            .run_until_cancelled(tokio::time::sleep(PROBE_PERIOD))
            .await
            .is_none()
        {
            health.logged = log_length(process).saturating_sub(before);
            return health;
        }
    }
}

fn log_length(process: &ServerProcess) -> u64 {
    std::fs::metadata(process.log_path()).map_or(0, |metadata| metadata.len())
}

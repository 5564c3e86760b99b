//! The gates that a process waits for before it is ready, and the heartbeats of the tasks that must show that they still
//! run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The gates that the process waits for before it is ready, and the heartbeats of the tasks that must show that they still
/// run.
///
/// A process without any gate is not ready; create all of them before the first one opens.
#[derive(Clone, Debug, Default)]
pub struct Gates(Arc<Mutex<Checks>>);

#[derive(Debug, Default)]
struct Checks {
    /// By name, why the gate is closed; none if it is open.
    gates: BTreeMap<String, Option<String>>,
    heartbeats: BTreeMap<String, Heartbeat>,
}

/// One thing the process waits for. It is closed until [`Gate::open`]; clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate {
    name: String,
    gates: Gates,
}

/// A task's promise to call [`Heartbeat::touch`] more often than some age; clones are the same promise.
#[derive(Clone, Debug)]
pub struct Heartbeat {
    since: Instant,
    /// Milliseconds after `since`.
    touched: Arc<AtomicU64>,
    max_age: Duration,
}

impl Gates {
    /// The gate of that name, new and closed if there is none yet.
    pub fn gate(&self, name: impl Into<String>) -> Gate {
        let name = name.into();
        self.checks()
            .gates
            .entry(name.clone())
            .or_insert_with(|| Some("not yet".to_owned()));
        Gate {
            name,
            gates: self.clone(),
        }
    }

    /// A new promise, touched now. From when it is older than `max_age` the process counts as dead and is restarted.
    pub fn heartbeat(&self, name: impl Into<String>, max_age: Duration) -> Heartbeat {
        let heartbeat = Heartbeat {
            since: Instant::now(),
            touched: Arc::default(),
            max_age,
        };
        self.checks().heartbeats.insert(name.into(), heartbeat.clone());
        heartbeat
    }

    /// The gates that are still waited for, one line each; none if the process is ready.
    pub fn waiting(&self) -> Option<String> {
        let checks = self.checks();
        if checks.gates.is_empty() {
            return Some("waiting for start\n".to_owned());
        }
        let closed = checks
            .gates
            .iter()
            .filter_map(|(name, reason)| Some((name, reason.as_ref()?)));
        some_lines(closed.map(|(name, reason)| format!("waiting for {name}: {reason}")))
    }

    /// The heartbeats that are too old at `now`, one line each; none if the process lives.
    pub fn stale(&self, now: Instant) -> Option<String> {
        some_lines(self.checks().heartbeats.iter().filter_map(|(name, heartbeat)| {
            let age = heartbeat.age(now);
            let max = heartbeat.max_age;
            (age > max).then(|| {
                format!(
                    "{name}: no sign of life for {} s, at most {} s are allowed",
                    age.as_secs(),
                    max.as_secs()
                )
            })
        }))
    }

    fn checks(&self) -> MutexGuard<'_, Checks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Opens the gate: what it waited for is there.
    pub fn open(&self) {
        if self.set(None) {
            tracing::info!(gate = self.name, "gate opened");
        }
    }

    /// Closes the gate: what it waits for is not there (any more), for this reason.
    pub fn close(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if self.set(Some(reason.clone())) {
            tracing::warn!(gate = self.name, reason, "gate closed");
        }
    }

    /// True if that changed anything.
    fn set(&self, state: Option<String>) -> bool {
        let mut checks = self.gates.checks();
        let before = checks.gates.insert(self.name.clone(), state.clone());
        before != Some(state)
    }
}

impl Heartbeat {
    /// The task that promised it still runs.
    pub fn touch(&self) {
        let age = self.since.elapsed().as_millis();
        self.touched
            .store(u64::try_from(age).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> Duration {
        let touched = self.since + Duration::from_millis(self.touched.load(Ordering::Relaxed));
        now.saturating_duration_since(touched)
    }
}

fn some_lines(lines: impl Iterator<Item = String>) -> Option<String> {
    let mut text = String::new();
    for line in lines {
        // Writing into a String can't fail.
        let _ = writeln!(text, "{line}");
    }
    (!text.is_empty()).then_some(text)
}

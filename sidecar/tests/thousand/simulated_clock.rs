//! A clock for many tasks at once, by which hours pass in seconds.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokenscope_sidecar::clock::{Clock, Woken};
use tokenscope_sts::TimeSource;
use tokio::sync::oneshot;

/// Stands still while one of its `tasks` works. As soon as all of them wait, it goes on to the first time that is waited for. So what
/// happens takes no time by it, and when it happens doesn't depend on how busy the machine is.
#[derive(Clone)]
pub(crate) struct SimulatedClock(Arc<Mutex<State>>);

struct State {
    now: Timestamp,
    /// It goes on no further.
    end: Timestamp,
    tasks: usize,
    /// Who waits for which time, with a number that tells those of the same time apart.
    waiting: BTreeMap<(Timestamp, u64), oneshot::Sender<()>>,
    waits: u64,
}

impl SimulatedClock {
    /// One for so many tasks, each of which waits for one time at a time.
    pub(crate) fn new(start: Timestamp, end: Timestamp, tasks: usize) -> Self {
        Self(Arc::new(Mutex::new(State {
            now: start,
            end,
            tasks,
            waiting: BTreeMap::new(),
            waits: 0,
        })))
    }

    /// The same clock for the stand-in for STS.
    pub(crate) fn source(&self) -> TimeSource {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }

    /// True as soon as everybody waits for a time after the end.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.0.lock().unwrap();
        state.now == state.end
    }
}

impl State {
    fn go_on(&mut self) {
        if self.waiting.len() < self.tasks {
            return;
        }
        match self.waiting.first_entry() {
            Some(first) if first.key().0 <= self.end => {
                self.now = self.now.max(first.key().0);
                let _ = first.remove().send(());
            }
            _ => self.now = self.end,
        }
    }
}

impl Clock for SimulatedClock {
    fn now(&self) -> Timestamp {
        self.0.lock().unwrap().now
    }

    async fn wait_until(&self, time: Timestamp) -> Woken {
        let (sender, woken) = oneshot::channel();
        {
            let mut state = self.0.lock().unwrap();
            state.waits += 1;
            let number = state.waits;
            state.waiting.insert((time, number), sender);
            state.go_on();
        }
        // The sender is dropped with the test alone.
        let _ = woken.await;
        Woken::Due
    }
}

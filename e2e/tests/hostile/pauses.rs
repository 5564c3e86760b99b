//! Whether the machine stood still: a virtual one may get no processor for seconds, in which every review is late, whoever attacks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Between two looks at the clock.
const LOOK: Duration = Duration::from_millis(50);

/// A look at the clock that comes later than this was kept from it by more than attackers, who give way to everybody.
const STANDSTILL: Duration = Duration::from_secs(1);

/// Looks at the clock until it is dropped.
pub(crate) struct Pauses {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    over: AtomicBool,
    longest_milliseconds: AtomicU64,
}

impl Pauses {
    /// Begins, in a thread of its own.
    pub(crate) fn watch() -> Self {
        let shared = Arc::new(Shared::default());
        let seen = Arc::clone(&shared);
        thread::spawn(move || {
            let mut last = Instant::now();
            while !seen.over.load(Ordering::Relaxed) {
                thread::sleep(LOOK);
                let took = last.elapsed().saturating_sub(LOOK);
                seen.longest_milliseconds
                    .fetch_max(took.as_millis() as u64, Ordering::Relaxed);
                last = Instant::now();
            }
        });
        Self { shared }
    }

    /// The longest time for which the machine stood still until now, if it did.
    pub(crate) fn standstill(&self) -> Option<Duration> {
        let longest = Duration::from_millis(self.shared.longest_milliseconds.load(Ordering::Relaxed));
        (longest >= STANDSTILL).then_some(longest)
    }
}

impl Drop for Pauses {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
    }
}

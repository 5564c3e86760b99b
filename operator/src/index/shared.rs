//! The index as several tasks use it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::{Index, IndexEvent};

/// A handle to the index. One task writes into it, others read what follows and do it.
///
/// The lock is held for one step of work at a time, and never while something is waited for. It is a fair one: whoever waits
/// gets it before the same task has it again.
#[derive(Clone)]
pub(crate) struct SharedIndex {
    index: Arc<Mutex<Index>>,
    changed: watch::Sender<()>,
}

impl SharedIndex {
    /// A handle to this index.
    pub(crate) fn new(index: Index) -> Self {
        Self {
            index: Arc::new(Mutex::new(index)),
            changed: watch::channel(()).0,
        }
    }

    /// Waits for the lock.
    pub(crate) async fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().await
    }

    /// Takes events in.
    pub(crate) async fn apply(&self, events: impl IntoIterator<Item = IndexEvent>, now: Timestamp) {
        let mut index = self.lock().await;
        events.into_iter().for_each(|event| index.apply(event, now));
    }

    /// Wakes those who do what follows.
    pub(crate) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Hears of each [`Self::notify`].
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

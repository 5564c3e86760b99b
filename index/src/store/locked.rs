//! A store that one task changes and others read.

use std::sync::{PoisonError, RwLock};

use kube::Resource;
use kube::runtime::watcher::Event;

use super::Store;

/// Takes in what a watch tells. `value_and_bytes` is what is kept of an object. Returns whether a new list is wanted, for what
/// was left out.
pub fn apply_locked<K: Resource, V>(
    store: &RwLock<Store<V>>,
    event: Event<K>,
    value_and_bytes: impl FnOnce(&K) -> Option<(V, usize)>,
) -> bool {
    // What is kept is made before the lock is taken, which readers wait for.
    let kept = match &event {
        Event::InitApply(object) | Event::Apply(object) => value_and_bytes(object),
        Event::Init | Event::InitDone | Event::Delete(_) => None,
    };
    let mut store = store.write().unwrap_or_else(PoisonError::into_inner);
    store.apply(event, |_| kept);
    store.wants_list()
}

//! Random numbers, for waits that are spread over time.

use std::hash::{BuildHasher as _, RandomState};

/// From 0 to 1. The hasher's keys are random and another pair each time; nothing here is worth guessing.
pub(crate) fn random() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

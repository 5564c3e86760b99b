//! The CSI drivers that get tokens, shared by their watch and all reviews.

use std::sync::{PoisonError, RwLock};

use k8s_openapi::api::storage::v1::CSIDriver;
use kube::runtime::watcher::Event;
use tokenscope_index::{CsiDrivers, DriverTokens};

/// The drivers, behind a lock that nobody holds for long.
#[derive(Debug, Default)]
pub struct SharedCsiDrivers(RwLock<CsiDrivers>);

impl SharedCsiDrivers {
    /// Takes in what a watch tells.
    pub fn apply(&self, event: Event<CSIDriver>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).apply(event);
    }

    /// The tokens of the drivers of these names.
    pub fn tokens_of<'n>(&self, names: impl Iterator<Item = &'n str>) -> DriverTokens {
        self.0.read().unwrap_or_else(PoisonError::into_inner).tokens().of(names)
    }
}

//! What the kubelet's question costs: the program, started once more beside the one that serves.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;
use tokenscope_core::sidecar::READY;

use super::super::ground::{StartCost, start_cost};

/// What one start of the program costs.
#[derive(Debug, Serialize)]
pub(super) struct ProbeCost {
    /// Of the probe.
    pub(super) probe: StartCost,
    /// Of the same program that prints its version alone.
    pub(super) version: StartCost,
}

/// Starts the probe many times, with the environment of the sidecar, which must be ready.
pub(super) fn measure(program: &Path, environment: &BTreeMap<String, String>) -> Result<ProbeCost> {
    Ok(ProbeCost {
        probe: start_cost(program, &[READY], environment)?,
        version: start_cost(program, &["--version"], &BTreeMap::new())?,
    })
}

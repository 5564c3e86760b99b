//! What becomes of a pod that asks, on a real API server with the webhook and the operator as the chart installs them.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail as tests do")]

mod asking;
mod containers;
mod credentials;
mod enforcement;
mod fidelity;
mod kube_system;
mod time;

use tokenscope_e2e::{Shared, install};

static SHARED: Shared = Shared::new(install::Options::default);

/// The volume that is added to granted pods.
const VOLUME: &str = "tokenscope-aws-token";
/// Where it is mounted.
const MOUNT: &str = "/var/run/secrets/tokenscope.io/aws";

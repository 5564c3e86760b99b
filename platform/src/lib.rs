//! The start of a process, its observation and its stop.
//!
//! A binary is a `main` over [`run()`]: it names its arguments and its body, and gets from here what every process
//! needs: parsed flags, logs, `/livez`, `/readyz` and `/metrics`, a Kubernetes client whose requests can't hang, a TLS
//! listener that swaps its certificate while it serves, leadership by a Lease, and an orderly stop.

pub mod args;
pub mod certificate;
pub mod client;
pub mod events;
pub mod eviction;
pub mod freshness;
mod gates;
pub mod health;
pub mod lease;
pub mod lines;
pub mod listen;
pub mod metrics;
mod paging;
pub mod run;
mod server;
pub mod telemetry;
mod text;
pub mod tls;
pub mod watch;

pub use run::{Process, run};
pub use server::{ConnectionMetrics, Limits};

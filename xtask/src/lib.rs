//! What `cargo xtask` shares with the tests: where the real servers are, and how a long step shows that it moves.
//!
//! It stays light (clap, anyhow, serde_json), so that the first command a newcomer types starts within seconds.

pub mod progress;
pub mod tools;

use std::path::Path;

/// The root of the checkout that this was compiled in.
pub fn root() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

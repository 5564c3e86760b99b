//! Recorded cases of the EKS webhook's suite, replayed through our webhook in EKS-compatible mode.
//!
//! What is compared are the pods that come out, not the patches. Where ours differs, the difference is a [`Deviation`] that
//! explains all of it, or the case is [`Outcome::Different`]. Deviations are told by what a case does and never by its name,
//! so that cases nobody has seen yet are judged as well.

mod case;
mod causes;
mod changes;
mod deviations;
mod difference;
mod outcome;
mod pods;
mod replay;

use std::path::Path;

use anyhow::{Context, Result, ensure};
pub use case::Case;
pub use deviations::Deviation;
pub use outcome::{Outcome, Total};
use serde::Deserialize;

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
pub struct Suite {
    /// Their source.
    #[serde(default)]
    pub source: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// The additions to every pod that gets credentials, apart from what the cases compare.
pub const ON_EVERY_POD: &str = "each pod also carries the annotation tokenscope.io/grant and the label tokenscope.io/reviewed, which drift detection and the guard read";

/// Where EKS's own webhook puts the token, and the name of the volume.
const MOUNT_PATH: &str = "/var/run/secrets/eks.amazonaws.com/serviceaccount";

const VOLUME: &str = "aws-iam-token";

const ROLE_ARN: &str = "AWS_ROLE_ARN";

const TOKEN_FILE: &str = "AWS_WEB_IDENTITY_TOKEN_FILE";

/// Reads a file of cases.
pub fn read(file: &Path) -> Result<Suite> {
    let text = std::fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    let suite: Suite =
        serde_json::from_str(&text).with_context(|| format!("{} is no file of cases", file.display()))?;
    ensure!(!suite.cases.is_empty(), "{} has no cases", file.display());
    Ok(suite)
}

//! The reasons why a setting can't be used.

use crate::audience::{InvalidAudience, InvalidTokenExpiration};
use crate::region::InvalidRegion;

/// The reason why a setting can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// Not one of the three words.
    #[error("{text:?} is not an enforcement: it should be enforce, warn or audit")]
    Enforcement {
        /// The given value.
        text: Box<str>,
    },
    /// Not one of the four words.
    #[error("{text:?} is not a lock mode: it should be off, audit, warn or deny")]
    LockMode {
        /// The given value.
        text: Box<str>,
    },
    /// Not one of the three words.
    #[error("{text:?} does not say when the metadata service is disabled: it should be always, with-region or never")]
    InstanceMetadata {
        /// The given value.
        text: Box<str>,
    },
    /// A bad audience.
    #[error("default audience")]
    Audience(#[source] InvalidAudience),
    /// A bad expiration.
    #[error("default token expiration")]
    Expiration(#[source] InvalidTokenExpiration),
    /// A bad region.
    #[error("default region")]
    Region(#[source] InvalidRegion),
}

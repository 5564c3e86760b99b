//! AWS regions.

use std::str::FromStr;

use crate::arn::shortened;

/// An AWS region, such as `eu-central-1`: 1 to 32 lower case letters, digits and hyphens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region(Box<str>);

impl Region {
    /// The region as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Region {
    type Err = InvalidRegion;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if text.is_empty() || text.len() > 32 || !text.bytes().all(allowed) {
            return Err(InvalidRegion { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

/// The reason why a text is no region.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an AWS region such as eu-central-1")]
pub struct InvalidRegion {
    text: Box<str>,
}

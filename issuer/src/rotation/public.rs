//! The keys that relying parties can read, by the last look.

use std::collections::BTreeSet;

/// The identifiers of the keys that everybody can read at the issuer's URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKids {
    /// Nobody looks there: every key counts as one that can be read.
    NotAsked,
    /// They could not be read lately, so no key counts as one that can.
    Unknown,
    /// These, and at most 200: as many as AWS takes of both kinds.
    Read(BTreeSet<Box<str>>),
}

impl PublicKids {
    /// True if a key may sign, as far as this says.
    pub fn has(&self, kid: &str) -> bool {
        match self {
            Self::NotAsked => true,
            Self::Unknown => false,
            Self::Read(kids) => kids.contains(kid),
        }
    }
}

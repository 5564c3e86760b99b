//! The lock, as the installation sets it.

use std::fmt;
use std::str::FromStr;

use super::InvalidSettings;
use crate::arn::shortened;
use crate::audience::Audience;

/// The installation's lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    /// The fate of a pod that holds a token which no policy grants it.
    pub mode: LockMode,
    /// The audiences that are locked in every namespace.
    pub audiences: Vec<Audience>,
    /// True if the audiences that policies allow are locked too: those of a namespaced policy in its own namespace.
    pub policy_audiences: bool,
    /// CSI drivers whose inline volumes the API server's own policies hold back like a token of a locked audience.
    pub csi_drivers: Vec<Box<str>>,
    /// Namespaces whose pods may hold any token.
    pub exempt_namespaces: Vec<Box<str>>,
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            mode: LockMode::Audit,
            audiences: vec![Audience::sts()],
            policy_audiences: false,
            csi_drivers: Vec::new(),
            exempt_namespaces: vec!["kube-system".into()],
        }
    }
}

/// The fate of a pod that holds a token of a locked audience which no policy grants it. Ordered from the weakest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Nothing.
    Off,
    /// It is admitted; the audit log, a metric and the status of policies tell of it.
    Audit,
    /// The same, and whoever creates it gets a warning.
    Warn,
    /// It is refused.
    Deny,
}

impl LockMode {
    /// The word in flags and values.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Audit => "audit",
            Self::Warn => "warn",
            Self::Deny => "deny",
        }
    }

    /// True if pods that hold locked tokens get the mark of their review. The API server's own policies look for it where the lock denies.
    /// They act at once when the lock is turned to that, and the webhooks from before still answer then; so these set it already.
    pub fn marks(self) -> bool {
        matches!(self, Self::Warn | Self::Deny)
    }
}

impl FromStr for LockMode {
    type Err = InvalidSettings;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Off, Self::Audit, Self::Warn, Self::Deny]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| InvalidSettings::LockMode { text: shortened(text) })
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Lock {
    /// True if the lock says anything about the pods of this namespace.
    pub fn applies_to(&self, namespace: &str) -> bool {
        self.mode != LockMode::Off && !self.exempt_namespaces.iter().any(|exempt| **exempt == *namespace)
    }

    /// True if the audience is locked in every namespace.
    pub fn locks(&self, audience: &str) -> bool {
        self.audiences.iter().any(|locked| locked.as_str() == audience)
    }

    /// True if the API server's own policies hold back inline volumes of this CSI driver.
    pub fn lists_driver(&self, driver: &str) -> bool {
        self.csi_drivers.iter().any(|listed| **listed == *driver)
    }
}

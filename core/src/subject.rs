//! The workloads that a policy is about.

use std::fmt;

use crate::{Glob, Pairs, Selector};

/// One item of a policy's `subjects`: inside it, everything must match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject {
    /// Names or globs of service accounts; none = any.
    pub service_accounts: Vec<Glob>,
    /// Labels of the pod; `None` = any.
    pub pod_selector: Option<Selector>,
}

impl Subject {
    /// True if a pod of this service account, with these labels, is meant.
    pub fn matches<S: AsRef<str>>(&self, service_account: &str, pod_labels: &Pairs<S>) -> bool {
        self.matches_service_account(service_account)
            && self
                .pod_selector
                .as_ref()
                .is_none_or(|selector| selector.matches(pod_labels))
    }

    /// The bytes with which a pod is compared.
    pub(crate) fn compared_bytes(&self) -> usize {
        let names: usize = self.service_accounts.iter().map(|glob| glob.as_str().len()).sum();
        names + self.pod_selector.as_ref().map_or(0, Selector::compared_bytes)
    }

    /// True if no pod can be meant, since no labels fulfil the selector.
    pub(crate) fn means_no_pod(&self) -> bool {
        self.pod_selector.as_ref().is_some_and(Selector::contradicts_itself)
    }

    /// True if this service account is meant, whatever the pod's labels.
    pub fn matches_service_account(&self, service_account: &str) -> bool {
        self.service_accounts.is_empty() || self.service_accounts.iter().any(|glob| glob.matches(service_account))
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.service_accounts.is_empty() {
            f.write_str("any service account")?;
        } else {
            let names: Vec<_> = self.service_accounts.iter().map(Glob::as_str).collect();
            write!(f, "service account {}", names.join(" or "))?;
        }
        if let Some(selector) = &self.pod_selector {
            write!(f, " with pod labels {selector}")?;
        }
        Ok(())
    }
}

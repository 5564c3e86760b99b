//! A policy that can't be used: what is wrong with it, and the readable part of it, which is the pods and the time that it is about.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

use crate::text::bounded;
use crate::{InvalidSchedule, Pairs, PolicyName, Schedule, Selector, Standing, Subject, policy};

/// The reason why an object of our API is no policy, though the schema let it through (or was got round).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InvalidPolicy {
    /// The field's path, such as `spec.roles.allowed[0]`.
    pub field: String,
    /// The fault of its value, and what would be right.
    pub reason: String,
    /// The pods that it is about; none where that can't be read.
    pub scope: Option<Arc<PolicyScope>>,
}

impl InvalidPolicy {
    /// The most bytes of each of its texts: values in them were written under any schema or none.
    const MOST_BYTES: usize = 500;

    /// Says what is wrong with a field. What is too long is cut.
    pub fn new(field: impl Into<String>, reason: impl fmt::Display) -> Self {
        Self {
            field: bounded(field.into(), Self::MOST_BYTES),
            reason: bounded(reason.to_string(), Self::MOST_BYTES),
            scope: None,
        }
    }
}

impl From<InvalidSchedule> for InvalidPolicy {
    fn from(error: InvalidSchedule) -> Self {
        Self::new("spec.activeSchedule", error)
    }
}

/// The pods and the time that a policy which can't be used is about. It grants nothing, and those pods hear of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyScope {
    /// The namespaces that a cluster policy is about.
    pub namespace_selector: Selector,
    /// Any may match.
    pub subjects: Vec<Subject>,
    /// True if it assigns a default role, whatever that is.
    pub assigns_role: bool,
    /// Switched off.
    pub disabled: bool,
    /// Looked at only where no other policy grants.
    pub fallback: bool,
    /// In force before this moment only.
    pub expires_at: Option<Timestamp>,
    /// In force only while a window is open.
    pub active_schedule: Option<Schedule>,
}

impl PolicyScope {
    /// Its standing to a pod, as [`crate::Policy::standing`].
    fn standing<N: AsRef<str>, P: AsRef<str>>(&self, name: &PolicyName, pod: &PodPlace<'_, N, P>) -> Standing {
        if !policy::is_about_namespace(name, &self.namespace_selector, pod.namespace, pod.namespace_labels) {
            return Standing::OtherNamespace;
        }
        let mut subjects = self.subjects.iter();
        if !subjects.any(|subject| subject.matches(pod.service_account, pod.labels)) {
            return Standing::OtherSubject;
        }
        policy::standing_in_time(self.disabled, self.expires_at, self.active_schedule.as_ref(), pod.now)
    }

    /// The time after `now` when its standing in time may change next.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        policy::next_change(self.expires_at, self.active_schedule.as_ref(), now)
    }
}

/// The place and the time of a pod, and the labels by which policies select it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodPlace<'a, N, P> {
    pub(crate) namespace: &'a str,
    pub(crate) namespace_labels: &'a Pairs<N>,
    pub(crate) service_account: &'a str,
    pub(crate) labels: &'a Pairs<P>,
    pub(crate) now: Timestamp,
}

/// A policy that can't be used.
#[derive(Clone, Debug)]
pub struct UnusablePolicy {
    pub(crate) name: PolicyName,
    pub(crate) why: Arc<str>,
    /// None where it can't be read.
    pub(crate) scope: Option<Arc<PolicyScope>>,
}

impl UnusablePolicy {
    /// Its name.
    pub fn name(&self) -> &PolicyName {
        &self.name
    }

    /// The reason why it can't be used.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// The pods and the time that it is about; none where that can't be read.
    pub fn scope(&self) -> Option<&PolicyScope> {
        self.scope.as_deref()
    }

    /// Its standing to a pod; none where nobody can tell.
    pub(crate) fn standing<N: AsRef<str>, P: AsRef<str>>(&self, pod: &PodPlace<'_, N, P>) -> Option<Standing> {
        Some(self.scope.as_ref()?.standing(&self.name, pod))
    }

    /// True if it assigns a default role to the pods that it selects.
    pub(crate) fn assigns_role(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.assigns_role)
    }

    /// True if it is looked at only where no other grants.
    pub(crate) fn is_fallback(&self) -> bool {
        self.scope.as_ref().is_some_and(|scope| scope.fallback)
    }
}

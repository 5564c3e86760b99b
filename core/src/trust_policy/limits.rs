//! The limits of a policy beside its subjects: those that a document can express, and notes about the others.

use jiff::Timestamp;
use serde::Serialize;

use super::conditions::Conditions;
use crate::delivery::{Delivery, SessionDuration};
use crate::{ContainerFilter, OnExpiry, Policy, Subject};

/// The most bytes of a trust policy that IAM takes by default (IAM quotas, "Role trust policy length").
const MOST_BYTES: usize = 2048;

/// The reason why a policy grants nothing whatever the time is, if that is so.
pub(crate) fn grants_nothing(policy: &Policy) -> Option<&'static str> {
    if policy.disabled {
        return Some("spec.disabled is true");
    }
    if policy.subjects.is_empty() {
        return Some("spec.subjects is empty");
    }
    if policy.subjects.iter().all(Subject::means_no_pod) {
        return Some(
            "the requirements of each podSelector in spec.subjects contradict each other, so it selects no pod",
        );
    }
    covers_nothing(&policy.containers).then_some("spec.containers excludes every container")
}

/// The reason why a policy grants nothing now and at no later time, if that is so; AWS then has nothing to trust.
pub fn never_grants(policy: &Policy, now: Timestamp) -> Option<&'static str> {
    if let Some(why) = grants_nothing(policy) {
        return Some(why);
    }
    if policy.expires_at.is_some_and(|at| at <= now) {
        return Some("it has expired");
    }
    if let Some(schedule) = policy.active_schedule.as_ref().filter(|found| !found.is_active(now)) {
        let opens = schedule.next_opening(now);
        let too_late = |opens: Timestamp| policy.expires_at.is_some_and(|at| at <= opens);
        if opens.is_none_or(too_late) {
            return Some("no window of spec.activeSchedule opens any more");
        }
    }
    None
}

/// True if every name that is included is excluded too: an exclusion that matches the text of a glob matches all that the glob does.
fn covers_nothing(containers: &ContainerFilter) -> bool {
    let excludes = |text: &str| containers.exclude.iter().any(|glob| glob.matches(text));
    match containers.include.as_slice() {
        [] => excludes("*"),
        included => included.iter().all(|glob| excludes(glob.as_str())),
    }
}

/// The uses that a document allows and the policy does not, in the words of its notes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    /// The kind of document.
    pub(crate) document: &'static str,
    /// The use that ends for running pods at spec.expiresAt.
    pub(crate) ends: &'static str,
    /// The use that goes on after it.
    pub(crate) lasts: &'static str,
    /// Outside the hours of spec.activeSchedule.
    pub(crate) at_any_time: &'static str,
    /// Containers that spec.containers leaves out.
    pub(crate) any_container: &'static str,
    /// Pods that podSelector leaves out.
    pub(crate) any_pod: &'static str,
    /// Sessions that spec.aws.sessionPolicy does not narrow.
    pub(crate) unnarrowed: &'static str,
}

/// Those of a role that is taken with the pod's token.
pub(super) const TOKENS: Admitted = Admitted {
    document: "a trust policy",
    ends: "AWS takes no token of running pods either",
    lasts: "sessions that have begun",
    at_any_time: "tokens of these subjects are trusted at any time",
    any_container: "every container that has a token of these subjects is trusted",
    any_pod: "every pod of these service accounts is trusted",
    unnarrowed: "whoever has a token of these subjects can take the role without it",
};

/// Adds what conditions can say, and notes the rest.
pub(crate) fn limit(policy: &Policy, admitted: &Admitted, condition: &mut Conditions, notes: &mut Vec<String>) {
    let Admitted { document, lasts, .. } = admitted;
    if let Some(at) = policy.expires_at {
        condition.before(at);
        notes.push(match policy.on_expiry {
            OnExpiry::Keep => format!(
                "from spec.expiresAt on {}, although spec.onExpiry is Keep; {lasts} last until their end",
                admitted.ends
            ),
            OnExpiry::Evict => format!("{lasts} before spec.expiresAt last until their end"),
        });
    }
    let mut inexpressible = |field: &str, so: &str| notes.push(format!("{document} can't express {field}, so {so}"));
    if policy.active_schedule.is_some() {
        inexpressible("activeSchedule", admitted.at_any_time);
    }
    if matches!(&policy.delivery, Delivery::Endpoint(endpoint) if !endpoint.policy.is_empty()) {
        inexpressible("sessionPolicy", admitted.unnarrowed);
    }
    if policy.containers != ContainerFilter::default() {
        inexpressible("spec.containers", admitted.any_container);
    }
}

/// Notes that pods which a subject's podSelector leaves out are let through.
pub(crate) fn note_pod_selector(policy: &Policy, admitted: &Admitted, notes: &mut Vec<String>) {
    if policy.subjects.iter().any(|subject| subject.pod_selector.is_some()) {
        let Admitted { document, any_pod, .. } = admitted;
        notes.push(format!("{document} can't express podSelector, so {any_pod}"));
    }
}

/// The requirements of a sidecar's sessions on the role.
pub(super) fn note_duration(policy: &Policy, notes: &mut Vec<String>) {
    let Delivery::Endpoint(endpoint) = &policy.delivery else {
        return;
    };
    if let Some(duration) = endpoint.duration.filter(|duration| *duration > SessionDuration::HOUR) {
        notes.push(format!(
            "the role's maximum session duration must be {} seconds or more, since spec.aws.sessionDurationSeconds asks for them",
            duration.seconds()
        ));
    }
}

/// Notes that a trust policy is longer than IAM takes.
pub(crate) fn note_length(document: &impl Serialize, notes: &mut Vec<String>) {
    let bytes = serde_json::to_string(document).map_or(0, |text| text.len());
    if bytes > MOST_BYTES {
        notes.push(format!(
            "the document has {bytes} bytes; IAM takes {MOST_BYTES} unless the account's quota was raised"
        ));
    }
}

//! The limits of a policy beside its subjects: what a document says of them, and what only a note can.

use super::conditions::Conditions;
use crate::{ContainerFilter, OnExpiry, Policy};
use jiff::Timestamp;

/// The reason why a policy grants nothing now and at no later time, if that is so; AWS then has nothing to trust.
pub fn never_grants(policy: &Policy, now: Timestamp) -> Option<&'static str> {
    if policy.disabled {
        return Some("spec.disabled is true");
    }
    if policy.subjects.is_empty() {
        return Some("spec.subjects is empty");
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
    covers_nothing(&policy.containers).then_some("spec.containers excludes every container")
}

/// True if every name that is included is excluded too: an exclusion that matches the text of a glob matches all that the glob does.
fn covers_nothing(containers: &ContainerFilter) -> bool {
    let excludes = |text: &str| containers.exclude.iter().any(|glob| glob.matches(text));
    match containers.include.as_slice() {
        [] => excludes("*"),
        included => included.iter().all(|glob| excludes(glob.as_str())),
    }
}

/// Adds what conditions can say, and notes the rest.
pub(super) fn limit(policy: &Policy, condition: &mut Conditions, notes: &mut Vec<String>) {
    if let Some(at) = policy.expires_at {
        condition.before(at);
        notes.push(match policy.on_expiry {
            OnExpiry::Keep => "from spec.expiresAt on AWS takes no token of running pods either, although spec.onExpiry is Keep; sessions that have begun last until their end".into(),
            OnExpiry::Evict => "sessions that have begun before spec.expiresAt last until their end".into(),
        });
    }
    if policy.active_schedule.is_some() {
        notes.push(
            "a trust policy can't express activeSchedule, so tokens of these subjects are trusted at any time".into(),
        );
    }
    if policy.containers != ContainerFilter::default() {
        notes.push("a trust policy can't express spec.containers, so every container that has a token of these subjects is trusted".into());
    }
}

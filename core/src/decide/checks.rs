//! The checks of a candidate against a role, and the sentences that follow.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::annotation_request::AnnotationRequest;
use crate::text::some_of;
use crate::{Policy, Refusal, RoleArn, Settings, Standing, TokenSource};

/// A role that a container is to have, and who says so.
pub(super) struct RoleRequest<'a> {
    pub(super) container: &'a str,
    pub(super) role: RoleArn,
    pub(super) place: Cow<'static, str>,
    /// True if the container itself was named, so that leaving it out would be wrong.
    pub(super) by_name: bool,
    /// True if only policies with this default may grant it.
    pub(super) by_default: bool,
}

/// An obstacle to a grant by a candidate, whatever the container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Against {
    Role,
    /// The policy can't be used in this installation, whatever is asked for.
    Unusable,
    Audience,
    Expiration,
    RoleInFile,
}

/// The first thing that stands against a grant by `policy`; whether it covers the container is asked after the role.
pub(super) fn against(
    policy: &Policy,
    wanted: &RoleRequest<'_>,
    asks: &AnnotationRequest<'_>,
    settings: &Settings,
) -> Option<Against> {
    if !policy.roles.allow(&wanted.role) {
        return Some(Against::Role);
    }
    if settings.stands_against(policy).is_some() {
        return Some(Against::Unusable);
    }
    let audiences = &policy.audiences.allowed;
    let is_other = |audience| !audiences.is_empty() && !audiences.contains(audience);
    if asks.audience.as_ref().is_some_and(is_other) {
        return Some(Against::Audience);
    }
    // A lifetime that a SPIFFE provider decides is not refused but warned about.
    let is_longer = |asked| asked > policy.token.expiration;
    if policy.token.source != TokenSource::Spiffe && asks.expiration.is_some_and(is_longer) {
        return Some(Against::Expiration);
    }
    (!policy.delivers(&wanted.role)).then_some(Against::RoleInFile)
}

/// The sentence about it.
pub(super) fn refusal(
    against: Against,
    policy: &Policy,
    wanted: &RoleRequest<'_>,
    asks: &AnnotationRequest<'_>,
    settings: &Settings,
) -> Option<Refusal> {
    let name = policy.name.clone();
    Some(match against {
        Against::Role => Refusal::RoleNotAllowed {
            policy: name,
            role: wanted.role.clone(),
            allowed: some_of(&policy.roles.allowed),
        },
        Against::Unusable => settings.stands_against(policy)?,
        Against::Audience => Refusal::AudienceNotAllowed {
            policy: name,
            audience: asks.audience.clone()?,
            allowed: some_of(&policy.audiences.allowed),
        },
        Against::Expiration => Refusal::ExpirationTooLong {
            policy: name,
            asked: asks.expiration?,
            most: policy.token.expiration,
        },
        Against::RoleInFile => Refusal::RoleInFile {
            policy: name,
            role: wanted.role.clone(),
        },
    })
}

/// True if a pod that gets nothing should hear of a policy that is no candidate.
///
/// A cluster may have thousands of cluster policies about others; those of the pod's own namespace are worth a line.
pub(super) fn is_near_miss(policy: &Policy, standing: Standing) -> bool {
    match standing {
        Standing::Candidate | Standing::OtherNamespace => false,
        Standing::Disabled | Standing::Expired | Standing::Inactive => true,
        Standing::OtherSubject => !policy.name.is_cluster() && !policy.disabled,
    }
}

/// The sentence about a policy that is no candidate.
pub(super) fn near_miss(policy: &Policy, standing: Standing, now: Timestamp) -> Option<Refusal> {
    let name = policy.name.clone();
    match standing {
        Standing::Candidate | Standing::OtherNamespace => None,
        Standing::Disabled => Some(Refusal::Disabled { policy: name }),
        Standing::Expired => Some(Refusal::Expired {
            policy: name,
            at: policy.expires_at?,
        }),
        Standing::Inactive => {
            let schedule = policy.active_schedule.as_ref()?;
            Some(Refusal::Inactive {
                policy: name,
                schedule: schedule.to_string().into(),
                next: schedule.next_opening(now),
            })
        }
        Standing::OtherSubject => Some(Refusal::OtherSubject {
            policy: name,
            subjects: some_of(&policy.subjects),
        }),
    }
}

//! Annotations and labels that users write and the webhook leaves.

use crate::arn::{InvalidRoleArn, shortened};
use crate::audience::{InvalidAudience, InvalidTokenExpiration};
use crate::bounds::{MOST_LIST_BYTES, MOST_RECORD_BYTES, MOST_VALUE_BYTES};

/// The role, on a pod or a service account.
pub const ROLE_ARN: &str = "tokenscope.io/role-arn";
/// The role of one container, on a pod; the container's name follows.
pub const CONTAINER_ROLE_ARN: &str = "tokenscope.io/role-arn.";
/// The token's audience.
pub const AUDIENCE: &str = "tokenscope.io/audience";
/// The token's expiration in seconds.
pub const TOKEN_EXPIRATION: &str = "tokenscope.io/token-expiration";
/// Only these containers, separated by commas.
pub const CONTAINERS: &str = "tokenscope.io/containers";
/// All containers but these, separated by commas.
pub const SKIP_CONTAINERS: &str = "tokenscope.io/skip-containers";
/// `"false"` opts out: a pod, a service account, or (as a label) a namespace.
pub const INJECT: &str = "tokenscope.io/inject";
/// Written by the webhook: what was granted ([`crate::GrantRecord`]).
pub const GRANT: &str = "tokenscope.io/grant";
/// The label that the webhook writes on every pod that had to be reviewed: `granted`, `refused` or `untouched`. Before version 0.2
/// it was an annotation.
pub const REVIEWED: &str = "tokenscope.io/reviewed";
/// Namespace label: every pod must be reviewed.
pub const REQUIRED: &str = "tokenscope.io/required";
/// Namespace label: denied pods are refused.
pub const ENFORCE: &str = "tokenscope.io/enforce";
/// Namespace label: denied pods are admitted with a warning.
pub const WARN: &str = "tokenscope.io/warn";
/// Namespace label: denied pods are admitted and audited.
pub const AUDIT: &str = "tokenscope.io/audit";

pub(crate) const EKS_ROLE_ARN: &str = "eks.amazonaws.com/role-arn";
pub(crate) const EKS_AUDIENCE: &str = "eks.amazonaws.com/audience";
pub(crate) const EKS_STS_REGIONAL_ENDPOINTS: &str = "eks.amazonaws.com/sts-regional-endpoints";
pub(crate) const EKS_TOKEN_EXPIRATION: &str = "eks.amazonaws.com/token-expiration";
/// The label that keeps EKS's webhook away from a pod, whatever its value (objectSelector of its manifest).
pub const EKS_SKIP: &str = "eks.amazonaws.com/skip-pod-identity-webhook";
pub(crate) const EKS_SKIP_CONTAINERS: &str = "eks.amazonaws.com/skip-containers";

/// The annotation of a mirror pod, which only shows what a kubelet runs from a file.
pub const MIRROR: &str = "kubernetes.io/config.mirror";

/// The annotations of a service account that a decision reads.
pub const OF_SERVICE_ACCOUNTS: [&str; 10] = [
    ROLE_ARN,
    AUDIENCE,
    TOKEN_EXPIRATION,
    CONTAINERS,
    SKIP_CONTAINERS,
    INJECT,
    EKS_ROLE_ARN,
    EKS_AUDIENCE,
    EKS_STS_REGIONAL_ENDPOINTS,
    EKS_TOKEN_EXPIRATION,
];

/// True if an annotation can change a decision or what follows from it, so that nothing needs to keep any other.
pub fn is_relevant(key: &str) -> bool {
    most_bytes(key).is_some()
}

/// The most bytes that the value of a relevant annotation may have; `None` where the annotation is not relevant.
///
/// Whoever keeps annotations may cut a longer value after one byte more: a decision then still knows that it is too long.
pub fn most_bytes(key: &str) -> Option<usize> {
    match key {
        GRANT => Some(MOST_RECORD_BYTES),
        CONTAINERS | SKIP_CONTAINERS | EKS_SKIP_CONTAINERS => Some(MOST_LIST_BYTES),
        ROLE_ARN
        | AUDIENCE
        | TOKEN_EXPIRATION
        | INJECT
        | REVIEWED
        | MIRROR
        | EKS_ROLE_ARN
        | EKS_AUDIENCE
        | EKS_STS_REGIONAL_ENDPOINTS
        | EKS_TOKEN_EXPIRATION => Some(MOST_VALUE_BYTES),
        _ => key.starts_with(CONTAINER_ROLE_ARN).then_some(MOST_VALUE_BYTES),
    }
}

/// True if an annotation of a pod can change a decision: what the webhook itself writes can't.
pub fn decides(key: &str) -> bool {
    is_relevant(key) && key != GRANT && key != REVIEWED
}

/// The result of a pod's review: the values of [`REVIEWED`].
///
/// The last two say what the pod was reviewed without. Another webhook may add that later, and the review of the changed pod may fail: then
/// the API server's guard (`tokenscope-guard-late`) refuses the pod, as it refuses one without a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It gave it credentials.
    Granted,
    /// It refused it them, and let it run.
    Refused,
    /// It had nothing to give, and let it have the tokens of locked audiences that it holds.
    Untouched,
    /// It had nothing to give, and the pod holds no token of a locked audience.
    HoldsNothing,
    /// The same, and the pod names no role either.
    AsksNothing,
}

impl Mark {
    const ALL: [Self; 5] = [
        Self::Granted,
        Self::Refused,
        Self::Untouched,
        Self::HoldsNothing,
        Self::AsksNothing,
    ];

    /// The mark with this value.
    pub fn read(value: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| mark.as_str() == value)
    }

    /// The value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Untouched => "untouched",
            Self::HoldsNothing => "holds-nothing",
            Self::AsksNothing => "asks-nothing",
        }
    }
}

/// The place of an annotation of the pod, in messages.
pub(crate) const POD: &str = "pod";
/// The place of one of its service account.
pub(crate) const SERVICE_ACCOUNT: &str = "service account";

/// An annotation whose value can't be used. It names the annotation, the place, the value and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("annotation {key} of the {place}: {reason}")]
pub struct InvalidAnnotation {
    key: Box<str>,
    place: &'static str,
    // Its text is part of this one's, for the messages that users read are one sentence.
    reason: InvalidValue,
}

impl InvalidAnnotation {
    /// True if it is the annotation with this key.
    pub(crate) fn is_about(&self, key: &str) -> bool {
        *self.key == *key
    }

    /// True if it is a list of containers that the pod itself has.
    pub(crate) fn is_list_of_pod(&self) -> bool {
        self.place == POD && (self.is_about(CONTAINERS) || self.is_about(SKIP_CONTAINERS))
    }

    pub(crate) fn new(key: &str, place: &'static str, reason: impl Into<InvalidValue>) -> Self {
        Self {
            key: shortened(key),
            place,
            reason: reason.into(),
        }
    }
}

/// The reason why an annotation's value can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidValue {
    #[error(transparent)]
    RoleArn(#[from] InvalidRoleArn),
    #[error(transparent)]
    Audience(#[from] InvalidAudience),
    #[error(transparent)]
    TokenExpiration(#[from] InvalidTokenExpiration),
    #[error(transparent)]
    Flag(#[from] InvalidFlag),
    #[error(transparent)]
    EmptyList(#[from] EmptyList),
    #[error(transparent)]
    NoContainerName(#[from] NoContainerName),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it names no container: name one, or remove the annotation")]
pub(crate) struct EmptyList;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be the name of a container: names are separated by commas or white space")]
pub(crate) struct NoContainerName {
    pub(crate) text: Box<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} should be \"true\" or \"false\"")]
pub(crate) struct InvalidFlag {
    pub(crate) text: Box<str>,
}

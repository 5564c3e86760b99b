//! The reasons why an exchange gives no token, and the answers to the caller.

use tokenscope_core::PolicyName;
use tokenscope_index::ShareExceeded;

use crate::claims::{InvalidLifetime, MOST_TOKEN_BYTES};
use crate::decision::NotGranted;
use crate::keys::KeyError;
use crate::oauth::{OAuthError, OAuthErrorCode};
use crate::subject_token::InvalidSubjectToken;

/// The reason why there is no token. `Display` is the sentence that the caller reads.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The subject token proves nothing.
    #[error(transparent)]
    Subject(#[from] InvalidSubjectToken),
    /// The watches are silent.
    #[error("what is known of the cluster is out of date: try again later")]
    Stale,
    /// The pod has not been seen yet.
    #[error("pod {0}/{1} is not known yet: try again")]
    PodNotYet(Box<str>, Box<str>),
    /// The pod is not there, or has no record of a grant.
    #[error("there is no pod {0}/{1} with this UID that admission granted something")]
    NoPod(Box<str>, Box<str>),
    /// The pod is over.
    #[error("pod {0}/{1} has ended")]
    PodEnded(Box<str>, Box<str>),
    /// The namespace has more than is kept of one.
    #[error("{0}")]
    OverShare(String),
    /// The policies of all namespaces have more than is kept of them.
    #[error(
        "{0}; the namespaces that grew last are left out. Try again later, and ask an administrator which namespaces have very many or \
         very large policies"
    )]
    NoRoomForPolicies(ShareExceeded),
    /// The annotations of a service account are not kept, and the record of the pod does not have them.
    #[error(
        "what service account {0}/{1} says is not known, since service accounts take more than is kept of them, and the version that \
         admitted this pod did not record it: create the pod anew"
    )]
    ServiceAccountNotKept(Box<str>, Box<str>),
    /// The pods of all namespaces have more than is kept of them.
    #[error(
        "pod {0}/{1} is not known, since the pods of all namespaces take more than the {2} MiB that are kept of them: try again later, and \
         ask an administrator to delete pods that have ended or have very many labels"
    )]
    NoRoom(Box<str>, Box<str>, usize),
    /// The pod has had too many tokens.
    #[error("this pod has asked for too many tokens: try again later")]
    TooMany,
    /// The pods of its namespace have had too many.
    #[error("the pods of namespace {0} have asked for too many tokens: try again later")]
    TooManyOfNamespace(Box<str>),
    /// The decision.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    /// The token would end too soon.
    #[error("{why}")]
    Lifetime {
        /// The policy that grants it.
        policy: PolicyName,
        /// The text that is too short.
        why: InvalidLifetime,
    },
    /// Nothing signs yet with the algorithm that the policy wants.
    #[error("there is no key for {algorithm} yet: try again later")]
    NoKey {
        /// The policy.
        policy: PolicyName,
        /// The value that it wants.
        algorithm: &'static str,
    },
    /// The token is longer than STS takes.
    #[error(
        "{policy}: the token would have {bytes} bytes, and AWS takes {MOST_TOKEN_BYTES}: the policy should give fewer or shorter tags"
    )]
    TooLong {
        /// The policy.
        policy: PolicyName,
        /// Its length.
        bytes: usize,
    },
    /// A fault of ours.
    #[error("the token can't be signed")]
    Sign(#[source] KeyError),
}

impl ExchangeError {
    /// The policy that grants the token which can't be had, where one was decided. A fault of ours is no policy's.
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::NotGranted(not_granted) => not_granted.policy(),
            Self::Lifetime { policy, .. } | Self::NoKey { policy, .. } | Self::TooLong { policy, .. } => Some(policy),
            _ => None,
        }
    }

    /// The text of the answer.
    pub fn answer(&self) -> OAuthError {
        let code = match self {
            Self::Subject(_)
            | Self::NoPod(..)
            | Self::PodEnded(..)
            | Self::Lifetime {
                why: InvalidLifetime::SubjectEnds(_),
                ..
            } => OAuthErrorCode::InvalidGrant,
            Self::Stale
            | Self::PodNotYet(..)
            | Self::NoRoom(..)
            | Self::TooMany
            | Self::TooManyOfNamespace(_)
            | Self::NoKey { .. }
            // Nothing was withdrawn: a sidecar goes on with what it has. What is not known here says nothing about what is granted, whoever
            // used up the room, and an algorithm can be added.
            | Self::OverShare(_)
            | Self::NoRoomForPolicies(_)
            | Self::ServiceAccountNotKept(..)
            | Self::NotGranted(NotGranted::NoPolicyUid(_) | NotGranted::Algorithm { .. }) => OAuthErrorCode::TemporarilyUnavailable,
            Self::NotGranted(NotGranted::Audience { .. }) => OAuthErrorCode::InvalidTarget,
            Self::Lifetime {
                why: InvalidLifetime::Requested(_),
                ..
            } => OAuthErrorCode::InvalidRequest,
            Self::NotGranted(_) | Self::TooLong { .. } => OAuthErrorCode::UnauthorizedClient,
            Self::Sign(_) => OAuthErrorCode::ServerError,
        };
        OAuthError::new(code, self.to_string())
    }
}

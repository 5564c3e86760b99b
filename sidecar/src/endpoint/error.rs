//! The reasons why a role was not taken, in words for a person who looks at a pod that doesn't start.

use std::borrow::Cow;
use std::path::PathBuf;

use tokenscope_aws::{Advice, NotRegional, RefusalCode, StsError};

use super::kept::{FailureKind, RenewalError};
use crate::retry::Kind;

/// The reason why there are no new credentials. No part of a token and no key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    /// The web identity token is not there yet, or can't be read.
    #[error("can't read the web identity token {path}: {reason}")]
    Token {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The file has no token.
    #[error("the web identity token {0} is empty, or longer than AWS STS takes")]
    TokenLength(PathBuf),
    /// No connection came about.
    #[error("can't connect to AWS STS at {host}: {reason}")]
    Connect {
        /// Its host.
        host: String,
        /// The system's words.
        reason: String,
    },
    /// Nobody is there who is STS.
    #[error("no TLS with AWS STS at {host}: {reason}")]
    Tls {
        /// Its host.
        host: String,
        /// The mistake.
        reason: String,
    },
    /// Nobody can vouch for STS any more.
    #[error("the authorities of AWS STS that this pod was told of have ended: create the pod anew")]
    AuthoritiesEnded,
    /// No whole answer came.
    #[error("AWS STS at {host} gave no answer: {reason}")]
    NoAnswer {
        /// Its host.
        host: String,
        /// The failure.
        reason: Cow<'static, str>,
    },
    /// STS answered.
    #[error("{action} of {role}: {error}")]
    Sts {
        /// The operation.
        action: &'static str,
        /// The role.
        role: Box<str>,
        /// The answer.
        error: StsError,
    },
    /// The credentials are of no use.
    #[error("AWS STS gave credentials that ended {seconds} s ago: is the clock of this node wrong?")]
    Expired {
        /// The seconds since their end.
        seconds: i64,
    },
    /// A token for a third party is of no use.
    #[error("AWS STS gave a token {token} that is of no use: {reason}")]
    Unfit {
        /// Its name.
        token: Box<str>,
        /// The fault.
        reason: Box<str>,
    },
    /// A token for a third party can't be kept.
    #[error("can't write the token {token} to {reason}")]
    NotWritten {
        /// Its name.
        token: Box<str>,
        /// The file and the system's words.
        reason: Box<str>,
    },
    /// A region is needed.
    #[error(transparent)]
    NotRegional(#[from] NotRegional),
}

impl NotTaken {
    /// True if another region may be asked, at once.
    pub(crate) fn may_try_elsewhere(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Tls { .. } | Self::NoAnswer { .. } => true,
            Self::Sts { error, .. } => error.advice() == Advice::TryElsewhere,
            Self::Token { .. }
            | Self::TokenLength(_)
            | Self::AuthoritiesEnded
            | Self::Expired { .. }
            | Self::Unfit { .. }
            | Self::NotWritten { .. }
            | Self::NotRegional(_) => false,
        }
    }

    /// True if the token's file is what is waited for.
    pub(crate) fn is_about_token_file(&self) -> bool {
        matches!(self, Self::Token { .. } | Self::TokenLength(_))
    }

    /// True if AWS refuses the web identity token itself, so that another one may be taken.
    pub(crate) fn is_about_token(&self) -> bool {
        let Self::Sts { action, error, .. } = self else {
            return false;
        };
        let of_token = [RefusalCode::Expired, RefusalCode::InvalidIdentityToken];
        *action == "AssumeRoleWithWebIdentity" && error.refusal().is_some_and(|code| of_token.contains(&code))
    }

    /// The kind of failure, which says if asking again soon can help.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Sts { error, .. } if error.advice() == Advice::GiveUp => Kind::Rejected,
            Self::AuthoritiesEnded | Self::Unfit { .. } | Self::NotRegional(_) => Kind::Rejected,
            Self::Sts {
                error: StsError::Later { .. } | StsError::Failed(_),
                ..
            } => Kind::Busy,
            _ => Kind::Passing,
        }
    }

    /// True if AWS finds that a token would outlast the session that asks for it.
    pub(crate) fn is_too_long_for_session(&self) -> bool {
        let Self::Sts { error, .. } = self else {
            return false;
        };
        error.refusal() == Some(RefusalCode::SessionDurationEscalation)
    }

    /// The remedy for a refusal of a token for a third party.
    pub(crate) fn remedy(&self) -> Option<&'static str> {
        let Self::Sts { error, .. } = self else {
            return None;
        };
        match error.refusal()? {
            RefusalCode::OutboundFederationDisabled => Some(
                "enable it for the role's account (aws iam enable-outbound-web-identity-federation), or give the policy another source for its outboundTokens",
            ),
            RefusalCode::AccessDenied => Some(
                "give the role the permission that stands in the status of the pod's policy (outboundTokenPolicies); an aws.sessionPolicy has to allow it too",
            ),
            RefusalCode::TokenTooLarge => Some("the session has too many tags or too long ones for a token"),
            RefusalCode::SessionDurationEscalation => Some(
                "it would outlast the role's session: the next try asks for less; if this lasts, the clock of this node is wrong",
            ),
            _ => None,
        }
    }

    /// The text for containers and for the probe.
    pub(crate) fn trouble(&self) -> RenewalError {
        let code = match self {
            Self::Sts {
                error: StsError::Refused { name, .. } | StsError::Later { name, .. },
                ..
            } => name.clone(),
            Self::Token { .. } | Self::TokenLength(_) => "NoWebIdentityToken".into(),
            _ => "ServiceUnavailable".into(),
        };
        RenewalError {
            kind: match self.kind() {
                Kind::Rejected => FailureKind::Refused,
                Kind::Passing | Kind::Busy => FailureKind::Outage,
            },
            code,
            message: self.to_string().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokenscope_aws::RefusalCode;

    use super::*;

    #[test]
    fn a_refusal_is_definite_and_told_in_sts_words_and_all_else_may_pass() {
        let of = |error| NotTaken::Sts {
            action: "AssumeRole",
            role: "arn:aws:iam::111122223333:role/far".into(),
            error,
        };
        let refused = of(StsError::Refused {
            code: RefusalCode::AccessDenied,
            name: "AccessDenied".into(),
            message: "not authorized".into(),
            request_id: None,
        });
        assert_eq!(
            refused.trouble(),
            RenewalError {
                kind: FailureKind::Refused,
                code: "AccessDenied".into(),
                message: "AssumeRole of arn:aws:iam::111122223333:role/far: AccessDenied: not authorized".into(),
            }
        );
        let later = of(StsError::Later {
            name: "Throttling".into(),
            message: "Rate exceeded".into(),
        });
        for error in [&later, &of(StsError::Failed(503))] {
            assert_eq!(error.kind(), Kind::Busy, "{error}");
        }
        for (error, elsewhere, code) in [
            (later, false, "Throttling"),
            (of(StsError::Failed(503)), true, "ServiceUnavailable"),
            (
                NotTaken::NoAnswer {
                    host: "h".into(),
                    reason: "x".into(),
                },
                true,
                "ServiceUnavailable",
            ),
            (NotTaken::TokenLength("/t".into()), false, "NoWebIdentityToken"),
        ] {
            let trouble = error.trouble();
            assert_eq!((trouble.kind, &*trouble.code), (FailureKind::Outage, code));
            assert_eq!(error.may_try_elsewhere(), elsewhere, "{error}");
        }
        assert!(!refused.may_try_elsewhere());
    }
}

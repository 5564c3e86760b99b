//! The reasons why the issuer gave no token, in words for a person who looks at a pod that doesn't start.

use std::path::PathBuf;
use std::time::Duration;

use crate::retry::Kind;
use crate::token::InvalidToken;

/// The reason why an exchange brought no token. No part of a token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotExchanged {
    /// The pod's own token can't be had.
    #[error("can't read the pod's own token {path}: {reason}")]
    SubjectToken {
        /// Its file.
        path: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// It is none.
    #[error("the pod's own token {0} is empty, or too long to be one")]
    SubjectTokenLength(PathBuf),
    /// No connection came about.
    #[error("can't connect to the issuer {issuer}: {reason}")]
    Connect {
        /// Its URL.
        issuer: String,
        /// The system's words.
        reason: String,
    },
    /// Nobody is there who is the issuer.
    #[error("no TLS with the issuer {issuer}: {reason}")]
    Tls {
        /// Its URL.
        issuer: String,
        /// The mistake.
        reason: String,
    },
    /// Nobody can vouch for the issuer any more.
    #[error("the authorities of the issuer that this pod was told of have ended: create the pod anew")]
    AuthoritiesEnded,
    /// The issuer went away during the exchange.
    #[error("the connection to the issuer broke: it has stopped or restarts")]
    ConnectionLost,
    /// The issuer did not answer within the deadline.
    #[error("the issuer gave no answer in {0} s")]
    Deadline(u64),
    /// A definite no.
    #[error("the issuer refuses ({code}): {description}")]
    Refused {
        /// The code of RFC 6749 or RFC 8693.
        code: String,
        /// The issuer's own sentence.
        description: String,
    },
    /// There is no answer now, and may be one later.
    #[error("the issuer has no token just now ({status}): {description}")]
    Unavailable {
        /// The HTTP status.
        status: u16,
        /// The issuer's own sentence.
        description: String,
        /// The wait that it asks for.
        retry_after: Option<Duration>,
    },
    /// Another server stands in place of the issuer.
    #[error("the issuer answered with status {0}, and redirects are not followed")]
    Redirect(u16),
    /// Any other answer.
    #[error("the issuer answered with status {status}: {description}")]
    Status {
        /// The HTTP status.
        status: u16,
        /// The issuer's own sentence.
        description: String,
    },
    /// The answer is longer than any with a token.
    #[error("the issuer's answer is longer than any with a token")]
    TooLong,
    /// The answer misses what it must have.
    #[error("the issuer's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The token is none.
    #[error("the issuer's token is malformed: {0}")]
    InvalidToken(InvalidToken),
}

impl NotExchanged {
    /// Its name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::SubjectToken { .. } | Self::SubjectTokenLength(_) => "subject_token",
            Self::Connect { .. } => "connect",
            Self::Tls { .. } | Self::AuthoritiesEnded => "tls",
            Self::ConnectionLost => "connection_lost",
            Self::Deadline(_) => "deadline",
            Self::Refused { .. } => "rejected",
            Self::Unavailable { .. } => "unavailable",
            Self::Redirect(_) | Self::Status { .. } => "failed",
            Self::TooLong | Self::Malformed(_) | Self::InvalidToken(_) => "malformed",
        }
    }

    /// The kind of failure, which says if asking again can help.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused { .. } | Self::AuthoritiesEnded => Kind::Rejected,
            _ => Kind::Passing,
        }
    }

    /// The wait that the issuer asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

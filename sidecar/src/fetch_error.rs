//! The reasons why there is no new token, in words for a person who looks at a pod that doesn't start.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fmt, io};

use tonic::{Code, Status};

#[cfg(feature = "issuer")]
use crate::exchange::NotExchanged;
use crate::retry::Kind;
use crate::token::InvalidToken;

/// The longest part of a message of the agent that is passed on, in characters.
const LONGEST_MESSAGE: usize = 300;

/// The source of a token, for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenProvider {
    /// The SPIFFE agent of the node.
    Agent,
    /// tokenscope's own issuer.
    Issuer,
}

impl fmt::Display for TokenProvider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Agent => "the SPIFFE agent",
            Self::Issuer => "the issuer",
        })
    }
}

/// The reason why there is no new token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// The socket's file is not there.
    #[error("there is no socket {0}: the SPIFFE agent does not run on this node, or its socket has another name")]
    SocketAbsent(PathBuf),
    /// The file is there, and nobody behind it.
    #[error("nobody answers at the socket {0}: the SPIFFE agent has stopped, or starts just now")]
    NobodyListens(PathBuf),
    /// Another reason why no connection came about.
    #[error("can't connect to the socket {socket}: {reason}")]
    Connect {
        /// The socket.
        socket: PathBuf,
        /// The system's words.
        reason: String,
    },
    /// The agent went away during the call.
    #[error("the connection to the SPIFFE agent broke: it has stopped or restarts")]
    ConnectionLost,
    /// The answer has not come yet.
    #[error("{0} has not answered yet{hint}", hint = match .0 {
        TokenProvider::Agent => ": it attests this pod, or waits for its server",
        TokenProvider::Issuer => "",
    })]
    Waiting(TokenProvider),
    /// The agent did not answer within the deadline.
    #[error("the SPIFFE agent gave no answer in {0} s: it hangs, or its server is slow or down")]
    Deadline(u64),
    /// `Unavailable`, because of attestation.
    #[error("the SPIFFE agent could not attest this pod: {0}")]
    Attestation(String),
    /// `PermissionDenied`.
    #[error(
        "the SPIFFE agent knows no identity for this pod yet: a registration entry, such as a ClusterSPIFFEID makes, must match it ({0})"
    )]
    NoIdentity(String),
    /// `Unavailable`, else.
    #[error("the SPIFFE agent has no token just now: {0}")]
    Unavailable(String),
    /// `InvalidArgument`, `Unimplemented`: asking again won't help.
    #[error("the SPIFFE agent refuses the question itself ({code}): {message}")]
    Rejected {
        /// Its gRPC code.
        code: &'static str,
        /// Its own words.
        message: String,
    },
    /// Any other gRPC status.
    #[error("the SPIFFE agent answered {code}: {message}")]
    Failed {
        /// Its gRPC code.
        code: &'static str,
        /// Its own words.
        message: String,
    },
    /// Identities came, and not the wanted one.
    #[error("of the {count} identities that this pod has, none has {wanted}")]
    NoneMatches {
        /// The number of identities that came.
        count: usize,
        /// The wish: `the hint "aws"`.
        wanted: String,
    },
    /// The answer misses what it must have.
    #[error("the SPIFFE agent's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The token is none.
    #[error("the SPIFFE agent's token is malformed: {0}{hint}", hint = match .0 {
        InvalidToken::Issuer => ", and AWS takes no token without: set the issuer at the SPIFFE provider, in SPIRE as jwt_issuer",
        _ => "",
    })]
    InvalidToken(InvalidToken),
    /// The token is for somebody else.
    #[error("{0} gave a token for another audience than was asked for")]
    OtherAudience(TokenProvider),
    /// It is of no use.
    #[error(
        "{provider} gave a token that ended {seconds} s ago: is the clock of this node or of {server} wrong?",
        server = match .provider {
            TokenProvider::Agent => "the SPIFFE server",
            TokenProvider::Issuer => "the issuer",
        }
    )]
    Expired {
        /// The source of the token.
        provider: TokenProvider,
        /// The seconds since its end.
        seconds: i64,
    },
    /// The exchange at the issuer brought none.
    #[cfg(feature = "issuer")]
    #[error(transparent)]
    Exchange(#[from] NotExchanged),
    /// The disk is full, or so.
    #[error("can't write {file}: {reason}")]
    Write {
        /// The file's name.
        file: String,
        /// The system's words.
        reason: String,
    },
}

impl FetchError {
    /// Its name in metrics.
    pub fn label(&self) -> &'static str {
        match self {
            Self::SocketAbsent(_) => "socket_absent",
            Self::NobodyListens(_) => "nobody_listens",
            Self::Connect { .. } => "connect",
            Self::ConnectionLost => "connection_lost",
            Self::Waiting(_) => "waiting",
            Self::Deadline(_) => "deadline",
            Self::Attestation(_) => "attestation",
            Self::NoIdentity(_) => "no_identity",
            Self::Unavailable(_) => "unavailable",
            Self::Rejected { .. } => "rejected",
            Self::Failed { .. } => "failed",
            Self::NoneMatches { .. } => "none_matches",
            Self::Malformed(_) | Self::InvalidToken(_) | Self::OtherAudience(_) => "malformed",
            #[cfg(feature = "issuer")]
            Self::Exchange(error) => error.label(),
            Self::Expired { .. } => "expired",
            Self::Write { .. } => "write",
        }
    }

    /// The kind of failure, which says if asking again can help.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Rejected { .. } => Kind::Rejected,
            #[cfg(feature = "issuer")]
            Self::Exchange(error) => error.kind(),
            _ => Kind::Passing,
        }
    }

    /// True if whoever grants the token says that it is not granted any more.
    pub fn is_withdrawal(&self) -> bool {
        match self {
            #[cfg(feature = "issuer")]
            Self::Exchange(error) => matches!(error, NotExchanged::Refused { .. }),
            _ => false,
        }
    }

    /// The wait that the source of tokens asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            #[cfg(feature = "issuer")]
            Self::Exchange(error) => error.retry_after(),
            _ => None,
        }
    }

    /// The error of a connection that did not come about.
    pub fn connecting(socket: &Path, error: &io::Error) -> Self {
        let socket = socket.to_owned();
        match error.kind() {
            io::ErrorKind::NotFound => Self::SocketAbsent(socket),
            io::ErrorKind::ConnectionRefused => Self::NobodyListens(socket),
            _ => Self::Connect {
                socket,
                reason: error.to_string(),
            },
        }
    }

    /// The meaning of a gRPC status (SPIFFE Workload Endpoint, section 6, and SPIRE's agent as it is).
    pub fn of_status(status: &Status) -> Self {
        let message = shown(status.message());
        match status.code() {
            Code::PermissionDenied => Self::NoIdentity(message),
            Code::Unavailable if message.contains("attestation") => Self::Attestation(message),
            Code::Unavailable => Self::Unavailable(message),
            code @ (Code::InvalidArgument | Code::Unimplemented) => Self::Rejected {
                code: name(code),
                message,
            },
            code => Self::Failed {
                code: name(code),
                message,
            },
        }
    }
}

/// A message of the agent as one line that isn't too long.
fn shown(message: &str) -> String {
    message
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(LONGEST_MESSAGE)
        .collect()
}

/// The code as the gRPC documentation writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_has_its_meaning() {
        let of = |code, message: &str| FetchError::of_status(&Status::new(code, message));

        assert_eq!(of(Code::PermissionDenied, "no identity issued").label(), "no_identity");
        assert_eq!(
            of(Code::Unavailable, "workload attestation failed").label(),
            "attestation"
        );
        assert_eq!(of(Code::Unavailable, "could not fetch JWT-SVID").label(), "unavailable");
        assert_eq!(of(Code::InvalidArgument, "").kind(), Kind::Rejected);
        assert_eq!(of(Code::Unimplemented, "").kind(), Kind::Rejected);
        assert_eq!(of(Code::Internal, "").kind(), Kind::Passing);
    }

    #[test]
    fn what_the_agent_says_becomes_one_line() {
        let trouble = FetchError::of_status(&Status::internal(format!("a\nb\u{1b}[31m{}", "c".repeat(1000))));
        let text = trouble.to_string();

        assert!(!text.contains(char::is_control), "{text}");
        assert!(text.len() < 400, "{text}");
        assert!(text.starts_with("the SPIFFE agent answered INTERNAL: a b"), "{text}");
    }

    #[test]
    fn a_token_without_an_issuer_is_told_with_what_to_set_at_spire() {
        assert_eq!(
            FetchError::InvalidToken(InvalidToken::Issuer).to_string(),
            "the SPIFFE agent's token is malformed: it has no claim iss, and AWS takes no token without: set the issuer at the SPIFFE provider, in SPIRE as jwt_issuer"
        );
        let other = FetchError::InvalidToken(InvalidToken::Algorithm).to_string();
        assert!(other.ends_with("PS512") && !other.contains("jwt_issuer"), "{other}");
    }

    #[test]
    fn a_missing_socket_and_a_stale_one_are_told_apart() {
        let of = |kind: io::ErrorKind| FetchError::connecting(Path::new("/run/agent.sock"), &kind.into()).to_string();

        assert!(of(io::ErrorKind::NotFound).starts_with("there is no socket /run/agent.sock"));
        assert!(of(io::ErrorKind::ConnectionRefused).starts_with("nobody answers at the socket /run/agent.sock"));
        assert!(of(io::ErrorKind::PermissionDenied).starts_with("can't connect to the socket /run/agent.sock: "));
    }
}

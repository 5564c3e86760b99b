//! Answers of the token endpoint (RFC 8693 §2.2, RFC 6749 §5.2).

use http::StatusCode;
use serde::Serialize;

/// The type of the subject token and of the issued one (RFC 8693 §3).
pub const TOKEN_TYPE: &str = "urn:ietf:params:oauth:token-type:jwt";

/// The kind of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuthErrorCode {
    /// The request has another form than it should.
    InvalidRequest,
    /// The subject token does not prove a pod that may have a token. RFC 8693 §2.2.2 has `invalid_request` for that; the word of RFC 6749
    /// §5.2 tells a token that has ended from a request that is written wrongly.
    InvalidGrant,
    /// The audience is none that is granted (RFC 8693 §2.2.2).
    InvalidTarget,
    /// A scope is asked for: what a token says is the policy's matter alone.
    InvalidScope,
    /// It is no token exchange.
    UnsupportedGrantType,
    /// A policy refuses.
    UnauthorizedClient,
    /// There is too much to do, or something that is needed is not there yet: the same request may be answered later.
    TemporarilyUnavailable,
    /// A fault in tokenscope itself.
    ServerError,
}

impl OAuthErrorCode {
    fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidGrant => "invalid_grant",
            Self::InvalidTarget => "invalid_target",
            Self::InvalidScope => "invalid_scope",
            Self::UnsupportedGrantType => "unsupported_grant_type",
            Self::UnauthorizedClient => "unauthorized_client",
            // These two are of RFC 6749 §4.1.2.1, which has words for what §5.2 leaves to the status.
            Self::TemporarilyUnavailable => "temporarily_unavailable",
            Self::ServerError => "server_error",
        }
    }

    /// The status of the answer.
    pub fn status(self) -> StatusCode {
        match self {
            Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

/// An error of the token endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {description}", code.as_str())]
pub struct OAuthError {
    /// Its kind.
    pub code: OAuthErrorCode,
    /// A sentence for people.
    pub description: String,
}

impl OAuthError {
    /// The most bytes of a description.
    const MOST_BYTES: usize = 1 << 10;

    /// An error with this sentence. Its length is bounded.
    pub fn new(code: OAuthErrorCode, description: impl Into<String>) -> Self {
        let mut description = description.into();
        let end = tokenscope_core::text::up_to(&description, Self::MOST_BYTES).len();
        description.truncate(end);
        Self { code, description }
    }

    /// The answer's body.
    pub fn body(&self) -> String {
        #[derive(Serialize)]
        struct Body<'a> {
            error: &'static str,
            error_description: &'a str,
        }
        // RFC 6749 §5.2 allows printable ASCII without quotation marks and backslashes.
        let allowed = |c: char| match c {
            '"' | '\\' => '\'',
            ' '..='~' => c,
            _ => '?',
        };
        let description: String = self.description.chars().map(allowed).collect();
        let body = Body {
            error: self.code.as_str(),
            error_description: &description,
        };
        // Texts always serialise.
        serde_json::to_string(&body).unwrap_or_default()
    }
}

/// The body of the answer that brings a token.
pub fn token_body(token: &str, expires_in: i64) -> String {
    #[derive(Serialize)]
    struct Body<'a> {
        access_token: &'a str,
        issued_token_type: &'static str,
        token_type: &'static str,
        expires_in: i64,
    }
    let body = Body {
        access_token: token,
        issued_token_type: TOKEN_TYPE,
        // RFC 8693 §2.2.1: the token is no OAuth access token.
        token_type: "N_A",
        expires_in,
    };
    // Texts and integers always serialise.
    serde_json::to_string(&body).unwrap_or_default()
}

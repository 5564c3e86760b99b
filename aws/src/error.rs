//! Errors of STS, told apart by what may be done about them.
//!
//! Codes and their status are those of the STS service model and of "Common error types" in the STS API reference.

use crate::xml::XmlTexts;

/// Characters of a message that are kept.
const MAX_MESSAGE: usize = 1000;

/// The reason why a call brought no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StsError {
    /// STS looked at the request and refuses it. Neither a retry nor another region helps.
    #[error("{name}: {message}")]
    Refused {
        /// The subject of the refusal.
        code: RefusalCode,
        /// The code as STS writes it.
        name: Box<str>,
        /// STS's words, without control characters.
        message: Box<str>,
        /// STS's id of the request, for AWS's support.
        request_id: Option<Box<str>>,
    },
    /// STS asks to retry later (throttling), or could not reach the identity provider.
    #[error("{name}: {message}")]
    Later {
        /// The code as STS writes it.
        name: Box<str>,
        /// STS's words, without control characters.
        message: Box<str>,
    },
    /// The endpoint failed (status 500 and more).
    #[error("STS answered with status {0}")]
    Failed(u16),
    /// It is no answer of STS: another program is at that address, or something between changed it.
    #[error("an answer with status {0} that is not of STS")]
    Unreadable(u16),
}

/// The next step after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// Nothing but to tell people, or to bring another token or other credentials.
    GiveUp,
    /// The same region again, later.
    RetryLater,
    /// Another region, at once.
    TryElsewhere,
}

/// The subject of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalCode {
    /// A policy doesn't allow it, or the role doesn't exist.
    AccessDenied,
    /// The token, or the credentials of the signature, have expired.
    Expired,
    /// The web identity token is not valid, or its issuer or audience is not registered.
    InvalidIdentityToken,
    /// The identity provider refused a claim.
    IdpRejectedClaim,
    /// A session policy is not one.
    MalformedPolicyDocument,
    /// Session policies and tags are too large together.
    PackedPolicyTooLarge,
    /// STS is not activated in this region for the account.
    RegionDisabled,
    /// The credentials are not known.
    InvalidCredentials,
    /// The signature is wrong.
    SignatureDoesNotMatch,
    /// The clocks of both sides differ by more than a quarter of an hour.
    ClockSkew,
    /// A parameter is out of its bounds.
    Validation,
    /// The token would outlast the session (`GetWebIdentityToken`).
    SessionDurationEscalation,
    /// The account hasn't enabled outbound federation (`GetWebIdentityToken`).
    OutboundFederationDisabled,
    /// Too many tags for a token (`GetWebIdentityToken`).
    TokenTooLarge,
    /// One that isn't known here.
    Other,
}

impl StsError {
    /// Reads an answer whose status isn't 200.
    pub(crate) fn read(status: u16, body: &[u8]) -> Self {
        if status >= 500 {
            return Self::Failed(status);
        }
        let texts = XmlTexts::read(body);
        let get = |path: &str| texts.as_ref()?.get(path);
        let Some(name) = get("ErrorResponse/Error/Code").filter(|name| is_name(name)) else {
            return Self::Unreadable(status);
        };
        let message = clean(get("ErrorResponse/Error/Message").unwrap_or_default());
        if is_for_later(name, &message, status) {
            return Self::Later {
                name: name.into(),
                message,
            };
        }
        Self::Refused {
            code: RefusalCode::of(name, &message),
            name: name.into(),
            message,
            request_id: get("ErrorResponse/RequestId").map(clean),
        }
    }

    /// The next step after it.
    pub fn advice(&self) -> Advice {
        match self {
            Self::Refused { .. } => Advice::GiveUp,
            Self::Later { .. } => Advice::RetryLater,
            Self::Failed(_) | Self::Unreadable(_) => Advice::TryElsewhere,
        }
    }

    /// The subject of a refusal.
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Later { .. } | Self::Failed(_) | Self::Unreadable(_) => None,
        }
    }
}

impl RefusalCode {
    fn of(name: &str, message: &str) -> Self {
        match name {
            "AccessDenied" | "AccessDeniedException" => Self::AccessDenied,
            "ExpiredToken" | "ExpiredTokenException" => Self::Expired,
            "InvalidIdentityToken" => Self::InvalidIdentityToken,
            "IDPRejectedClaim" => Self::IdpRejectedClaim,
            "MalformedPolicyDocument" => Self::MalformedPolicyDocument,
            "PackedPolicyTooLarge" => Self::PackedPolicyTooLarge,
            "RegionDisabledException" => Self::RegionDisabled,
            "InvalidClientTokenId" | "UnrecognizedClientException" => Self::InvalidCredentials,
            "RequestExpired" => Self::ClockSkew,
            // STS has one code for both, and says which of them in its message.
            "SignatureDoesNotMatch"
                if message.starts_with("Signature expired") || message.starts_with("Signature not yet current") =>
            {
                Self::ClockSkew
            }
            "SignatureDoesNotMatch" | "IncompleteSignature" => Self::SignatureDoesNotMatch,
            "ValidationError" => Self::Validation,
            "SessionDurationEscalationException" => Self::SessionDurationEscalation,
            "OutboundWebIdentityFederationDisabledException" => Self::OutboundFederationDisabled,
            "JWTPayloadSizeExceededException" => Self::TokenTooLarge,
            _ => Self::Other,
        }
    }
}

/// The beginning of STS's words where it has no key to check a token with.
const NO_KEY: &str = "Couldn't retrieve verification key";

/// `IDPCommunicationError` is the one error of the model that says "Retry the request a limited number of times". That STS has no key of the
/// issuer it says by `InvalidIdentityToken`, also where it could not read the keys for a moment: AWS's SDKs for Go, PHP and Ruby ask again
/// then (aws-cli issue 7194). Its other refusals of a token are definite.
fn is_for_later(name: &str, message: &str, status: u16) -> bool {
    status == 429
        || (name == "InvalidIdentityToken" && message.starts_with(NO_KEY))
        || matches!(
            name,
            "IDPCommunicationError"
                | "Throttling"
                | "ThrottlingException"
                | "TooManyRequestsException"
                | "RequestLimitExceeded"
        )
}

fn is_name(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b))
}

/// A text of the other side, fit for a log: bounded, in one line.
fn clean(text: &str) -> Box<str> {
    let characters = text.chars().take(MAX_MESSAGE);
    let clean = characters.map(|c| if c.is_control() { ' ' } else { c });
    clean.collect::<String>().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(status: u16, code: &str, message: &str) -> StsError {
        let body = format!(
            "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type><Code>{code}</Code>\
             <Message>{message}</Message></Error><RequestId>r-1</RequestId></ErrorResponse>"
        );
        StsError::read(status, body.as_bytes())
    }

    #[test]
    fn refusals_are_definite_and_say_what_they_are_about() {
        for (status, name, message, code) in [
            (403, "AccessDenied", "Not authorized", RefusalCode::AccessDenied),
            (400, "ExpiredTokenException", "Token expired", RefusalCode::Expired),
            (403, "ExpiredToken", "expired", RefusalCode::Expired),
            (
                403,
                "SignatureDoesNotMatch",
                "Signature expired: x",
                RefusalCode::ClockSkew,
            ),
            (
                403,
                "SignatureDoesNotMatch",
                "The request signature",
                RefusalCode::SignatureDoesNotMatch,
            ),
            (403, "RegionDisabledException", "", RefusalCode::RegionDisabled),
            (
                403,
                "SessionDurationEscalationException",
                "",
                RefusalCode::SessionDurationEscalation,
            ),
            (
                403,
                "OutboundWebIdentityFederationDisabledException",
                "",
                RefusalCode::OutboundFederationDisabled,
            ),
            (400, "JWTPayloadSizeExceededException", "", RefusalCode::TokenTooLarge),
            (400, "SomethingNew", "", RefusalCode::Other),
        ] {
            let error = error(status, name, message);
            assert_eq!(
                (error.refusal(), error.advice()),
                (Some(code), Advice::GiveUp),
                "{name}"
            );
        }
    }

    #[test]
    fn patience_helps_with_some_and_another_region_with_others() {
        for (status, name) in [(400, "IDPCommunicationError"), (400, "Throttling"), (429, "Other")] {
            assert_eq!(error(status, name, "").advice(), Advice::RetryLater, "{name}");
        }
        for (message, advice) in [
            (
                "Couldn't retrieve verification key from your identity provider,  please reference x",
                Advice::RetryLater,
            ),
            ("Incorrect token audience", Advice::GiveUp),
        ] {
            let error = error(400, "InvalidIdentityToken", message);
            assert_eq!(error.advice(), advice, "{message}");
        }
        assert_eq!(error(503, "ServiceUnavailable", ""), StsError::Failed(503));
        for (status, body) in [(403, "<html></html>"), (407, ""), (400, "<A>"), (302, "")] {
            let error = StsError::read(status, body.as_bytes());
            assert_eq!(error, StsError::Unreadable(status));
            assert_eq!(error.advice(), Advice::TryElsewhere);
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let long = format!("a\nb&#27;{}", "x".repeat(2000));
        let text = error(400, "ValidationError", &long).to_string();
        assert!(
            text.starts_with("ValidationError: a b x") && text.len() < 1100,
            "{text}"
        );
    }
}

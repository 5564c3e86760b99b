//! The issuer's answers (RFC 8693 §2.2, RFC 6749 §5.2).

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use hyper::body::Bytes;
use serde_json::Value;

use super::error::NotExchanged;
use crate::token::Token;
use crate::words::{shown, without};

/// The most of a sentence of the issuer that is passed on, in bytes.
const LONGEST_SENTENCE: usize = 1024;
/// The most of its code, in bytes.
const LONGEST_CODE: usize = 40;

/// An answer that has come whole. No `Debug`: it may be a token.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<HeaderValue>,
    pub(super) body: Bytes,
}

impl Answer {
    /// The token, or why there is none. `subject` is what was sent, and is not repeated.
    pub(super) fn token(&self, subject: &str) -> Result<Token, NotExchanged> {
        let body: Option<Value> = serde_json::from_slice(&self.body).ok();
        if self.status != StatusCode::OK {
            return Err(self.refusal(&body.unwrap_or_default(), subject));
        }
        let body = body.ok_or(NotExchanged::Malformed("it is no JSON"))?;
        let token = body["access_token"].as_str();
        let token = token.ok_or(NotExchanged::Malformed("it has no access_token"))?;
        Token::parse(token).map_err(NotExchanged::InvalidToken)
    }

    fn refusal(&self, body: &Value, subject: &str) -> NotExchanged {
        let status = self.status.as_u16();
        let sentence = |name: &str, most| shown(&without(body[name].as_str().unwrap_or_default(), subject), most);
        let code = sentence("error", LONGEST_CODE);
        let description = sentence("error_description", LONGEST_SENTENCE);
        let description = match (&*description, &*code) {
            ("", "") => "it says nothing more".to_owned(),
            ("", code) => code.to_owned(),
            _ => description,
        };
        match self.status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => NotExchanged::Unavailable {
                status,
                description,
                retry_after: self.retry_after.as_ref().and_then(seconds),
            },
            // Without the code of the standard it is the answer of a proxy, or of something else.
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if !code.is_empty() => {
                NotExchanged::Refused { code, description }
            }
            other if other.is_redirection() => NotExchanged::Redirect(status),
            _ => NotExchanged::Status { status, description },
        }
    }
}

/// The header `Retry-After` in its form of seconds. A date is for those who have no wait of their own.
fn seconds(header: &HeaderValue) -> Option<Duration> {
    let seconds: u32 = header.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::retry::Kind;
    use crate::token::InvalidToken;
    use crate::token::tests::token;

    fn answered(status: u16, retry_after: Option<&'static str>, body: &str) -> Result<Token, NotExchanged> {
        let answer = Answer {
            status: StatusCode::from_u16(status).unwrap_or_default(),
            retry_after: retry_after.map(HeaderValue::from_static),
            body: Bytes::from(body.to_owned()),
        };
        answer.token("subject-token-header.subject-token-claims.subject-token-signature")
    }

    fn error(status: u16, body: &Value) -> NotExchanged {
        answered(status, None, &body.to_string()).unwrap_err()
    }

    #[test]
    fn a_token_is_read_and_what_is_none_is_not() {
        let issued = token("k", 1, 2);
        let body = json!({"access_token": issued.secret(), "token_type": "N_A", "expires_in": 1});
        assert_eq!(answered(200, None, &body.to_string()), Ok(issued));

        assert_eq!(
            answered(200, None, "<html>"),
            Err(NotExchanged::Malformed("it is no JSON"))
        );
        assert_eq!(
            error(200, &json!({"token": "x"})),
            NotExchanged::Malformed("it has no access_token")
        );
        assert_eq!(
            error(200, &json!({"access_token": "opaque"})),
            NotExchanged::InvalidToken(InvalidToken::Shape)
        );
    }

    #[test]
    fn only_an_error_of_the_standard_is_a_definite_refusal() {
        let refusal = error(
            400,
            &json!({"error": "invalid_target", "error_description": "no policy grants this pod a token"}),
        );
        assert_eq!(
            refusal.to_string(),
            "the issuer refuses (invalid_target): no policy grants this pod a token"
        );
        assert_eq!(refusal.kind(), Kind::Rejected);

        for (status, body) in [
            (400, json!({"message": "no"})),
            (403, json!(null)),
            (404, json!({"error": "no such page"})),
            (500, json!({"error": "server_error"})),
            (503, json!({"error": "invalid_grant"})),
            (204, json!({"error": "invalid_grant"})),
        ] {
            assert_eq!(error(status, &body).kind(), Kind::Passing, "{status} {body}");
        }
        assert_eq!(error(302, &json!({})), NotExchanged::Redirect(302));
    }

    #[test]
    fn the_wait_that_the_issuer_asks_for_is_read_in_seconds() {
        let wait = |status, header| answered(status, Some(header), "{}").unwrap_err().retry_after();

        assert_eq!(wait(503, "7"), Some(Duration::from_secs(7)));
        assert_eq!(wait(429, "0"), Some(Duration::ZERO));
        for none in [
            "-1",
            "soon",
            "Wed, 21 Oct 2026 07:28:00 GMT",
            "99999999999999999999",
            "",
        ] {
            assert_eq!(wait(503, none), None, "{none}");
        }
        assert_eq!(wait(400, "7"), None);
    }

    #[test]
    fn the_issuers_words_are_one_line_bounded_and_without_the_token_that_was_sent() {
        let words = |text: &str| match error(400, &json!({"error": "invalid_grant", "error_description": text})) {
            NotExchanged::Refused { description, .. } => description,
            other => other.to_string(),
        };

        assert_eq!(words("a\nb\u{1b}[31m"), r"a\u{a}b\u{1b}[31m");
        assert_eq!(words(&"ä".repeat(9_999)), r"\u{e4}".repeat(170));
        assert_eq!(words(&"x".repeat(9_999)), "x".repeat(1024));
        assert_eq!(
            words("bad: subject-token-header.subject-token-claims.subject-token-signature!"),
            "bad: [token].[token].[token]!"
        );
        assert_eq!(words(""), "invalid_grant");
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(status in 100_u16..600, body in ".{0,200}") {
            let _ = answered(status, None, &body);
        }
    }
}

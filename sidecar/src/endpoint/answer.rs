//! The answers to requests. Pure.

use hyper::body::Bytes;
use jiff::Timestamp;
use serde_json::json;
use tokenscope_core::credentials_endpoint::CREDENTIALS_PATH;

use super::authorization::Authorization;
use super::kept::{FailureKind, Kept, Reply};
use super::request::{BadRequest, RequestHead, is_loopback_host};

/// An answer, whose body is JSON or a token. No `Debug`: it may be credentials.
pub(super) struct HttpAnswer {
    pub(super) status: &'static str,
    content_type: &'static str,
    pub(super) body: Bytes,
}

const JSON: &str = "application/json";

impl HttpAnswer {
    /// An error as SDKs read one. That for Go shows `Code` and `Message` of JSON, and nothing of other texts; those for Python show the whole
    /// body; those for JavaScript, Java and Rust show nothing (docs/delivery.md).
    pub(super) fn error(status: &'static str, code: &str, message: &str) -> Self {
        let body = json!({"Code": code, "Message": message});
        Self {
            status,
            content_type: JSON,
            body: body.to_string().into(),
        }
    }

    /// A token alone, without an end of line.
    pub(super) fn token(token: &str) -> Self {
        Self {
            status: "200 OK",
            content_type: "text/plain",
            body: Bytes::copy_from_slice(token.as_bytes()),
        }
    }

    /// The answer to what is no request.
    pub(super) fn bad_request(why: BadRequest) -> Self {
        let status = match why {
            BadRequest::TooLong => "431 Request Header Fields Too Large",
            _ => "400 Bad Request",
        };
        Self::error(status, "InvalidRequest", &why.to_string())
    }

    /// The answer when too many requests of a container wait already.
    pub(super) fn busy() -> Self {
        Self::error(
            "503 Service Unavailable",
            "Busy",
            "too many requests wait here already: try again later",
        )
    }

    /// The answer when nothing is known yet, and was waited for.
    pub(super) fn not_yet() -> Self {
        Self::error(
            "503 Service Unavailable",
            "NotReady",
            "AWS STS has not answered yet: try again later",
        )
    }

    /// The bytes of the answer. The connection ends with it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
            self.status,
            self.content_type,
            self.body.len()
        );
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// Refuses a request that is meant for somebody else, or changes something.
pub(super) fn is_for_us(request: &RequestHead<'_>) -> Result<(), HttpAnswer> {
    if !is_loopback_host(request.host) {
        let message = "the header Host should be 127.0.0.1, [::1] or localhost";
        return Err(HttpAnswer::error("403 Forbidden", "HostRefused", message));
    }
    if request.method != "GET" {
        let message = "credentials and tokens are asked for by GET";
        return Err(HttpAnswer::error("405 Method Not Allowed", "MethodNotAllowed", message));
    }
    Ok(())
}

/// The place of the container that a request is authorized for, among these; else the answer that refuses it.
pub(super) fn authorized<'a>(
    request: &RequestHead<'_>,
    containers: impl IntoIterator<Item = (&'a str, &'a Authorization)>,
) -> Result<usize, HttpAnswer> {
    is_for_us(request)?;
    let name = request.path.strip_prefix(CREDENTIALS_PATH).unwrap_or_default();
    let mut containers = containers.into_iter().enumerate();
    let Some((place, (_, authorization))) = containers.find(|(_, (known, _))| *known == name) else {
        let message = "there are no credentials at this path";
        return Err(HttpAnswer::error("404 Not Found", "NotFound", message));
    };
    if !request.authorization.is_some_and(|given| authorization.is(given)) {
        let message = "the header Authorization should be the token of this container, which the sidecar makes anew at each start";
        return Err(HttpAnswer::error("403 Forbidden", "InvalidAuthorization", message));
    }
    Ok(place)
}

/// The answer to an authorized request at `now`; `None` while nothing is known.
pub(super) fn answer(kept: &Kept, now: Timestamp) -> Option<HttpAnswer> {
    match kept.reply(now) {
        Reply::Credentials(credentials) => Some(HttpAnswer {
            status: "200 OK",
            content_type: JSON,
            body: credentials.body.clone(),
        }),
        Reply::Unavailable(trouble) => {
            let status = match trouble.kind {
                FailureKind::Refused | FailureKind::Withdrawn => "403 Forbidden",
                FailureKind::Outage => "503 Service Unavailable",
            };
            Some(HttpAnswer::error(status, &trouble.code, &trouble.message))
        }
        Reply::Nothing => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::kept::tests::{at, credentials, trouble};
    use crate::endpoint::request::read;

    fn well_formed(head: &str) -> RequestHead<'_> {
        read(head.as_bytes()).unwrap()
    }

    fn code_of(body: &[u8]) -> String {
        let body: serde_json::Value = serde_json::from_slice(body).unwrap();
        body["Code"].as_str().unwrap().to_owned()
    }

    fn ask(method: &str, path: &str, host: &str, authorization: Option<&str>) -> Result<usize, String> {
        let (app, job) = (Authorization::of_test("app-token"), Authorization::of_test("job-token"));
        let line = authorization
            .map(|token| format!("Authorization: {token}\r\n"))
            .unwrap_or_default();
        let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{line}\r\n");
        let containers = [("app", &app), ("job", &job)];
        authorized(&well_formed(&head), containers).map_err(|answer| {
            let code = code_of(&answer.body);
            format!("{} {code}", &answer.status[..3])
        })
    }

    #[test]
    fn a_container_is_answered_at_its_own_path_with_its_own_token_alone() {
        let host = "127.0.0.1:9912";
        assert_eq!(ask("GET", "/v1/credentials/app", host, Some("app-token")), Ok(0));
        assert_eq!(
            ask("GET", "/v1/credentials/job", "[::1]:9912", Some("job-token")),
            Ok(1)
        );
        for (method, path, host, token, refused) in [
            (
                "GET",
                "/v1/credentials/app",
                host,
                Some("job-token"),
                "403 InvalidAuthorization",
            ),
            (
                "GET",
                "/v1/credentials/app",
                host,
                Some("app-tokenx"),
                "403 InvalidAuthorization",
            ),
            ("GET", "/v1/credentials/app", host, Some(""), "403 InvalidAuthorization"),
            ("GET", "/v1/credentials/app", host, None, "403 InvalidAuthorization"),
            ("GET", "/v1/credentials/other", host, Some("app-token"), "404 NotFound"),
            ("GET", "/v1/credentials/", host, Some("app-token"), "404 NotFound"),
            ("GET", "/v1/credentials/app?x", host, Some("app-token"), "404 NotFound"),
            ("GET", "/", host, Some("app-token"), "404 NotFound"),
            (
                "PUT",
                "/v1/credentials/app",
                host,
                Some("app-token"),
                "405 MethodNotAllowed",
            ),
            (
                "HEAD",
                "/v1/credentials/app",
                host,
                Some("app-token"),
                "405 MethodNotAllowed",
            ),
            (
                "GET",
                "/v1/credentials/app",
                "evil.example:9912",
                Some("app-token"),
                "403 HostRefused",
            ),
        ] {
            assert_eq!(
                ask(method, path, host, token),
                Err(refused.to_owned()),
                "{method} {path} {host} {token:?}"
            );
        }
    }

    #[test]
    fn a_refusal_is_403_and_an_outage_503_with_code_and_message() {
        let mut kept = Kept::default();
        assert!(answer(&kept, at(0)).is_none());
        for (kind, status) in [
            (FailureKind::Refused, "403 Forbidden"),
            (FailureKind::Withdrawn, "403 Forbidden"),
            (FailureKind::Outage, "503 Service Unavailable"),
        ] {
            kept.failed(trouble(kind, "a \"reason\""));
            let answer = answer(&kept, at(0)).unwrap();
            assert_eq!(answer.status, status);
            assert_eq!(&*answer.body, br#"{"Code":"AccessDenied","Message":"a \"reason\""}"#);
        }
        kept.renewed(credentials(10));
        let answer = answer(&kept, at(0)).unwrap();
        assert_eq!(answer.status, "200 OK");
        let bytes = String::from_utf8(answer.bytes()).unwrap();
        assert!(
            bytes.contains("\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n{"),
            "{bytes}"
        );
    }
}

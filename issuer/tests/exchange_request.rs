//! The form of an exchange, and what is wrong with others.

#![allow(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    clippy::panic,
    reason = "helpers of tests may fail as tests do"
)]

use serde_json::Value;
use tokenscope_issuer::exchange_request::{ExchangeRequest, GRANT_TYPE, MOST_BODY_BYTES};
use tokenscope_issuer::oauth::{OAuthError, OAuthErrorCode, TOKEN_TYPE, token_body};

const GOOD: [(&str, &str); 4] = [
    ("grant_type", GRANT_TYPE),
    ("subject_token", "a.b.c"),
    ("subject_token_type", TOKEN_TYPE),
    ("audience", "sts.amazonaws.com"),
];

fn form(parameters: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(parameters)
        .finish()
}

fn with(name: &str, value: Option<&str>) -> String {
    let mut parameters: Vec<_> = GOOD.into_iter().filter(|(found, _)| *found != name).collect();
    parameters.extend(value.map(|value| (name, value)));
    form(&parameters)
}

fn error(body: &str) -> OAuthError {
    ExchangeRequest::read(body.as_bytes()).err().unwrap()
}

#[test]
fn a_request_of_rfc_8693_is_read() {
    let body = with("expires_in", Some("600"));
    let request = ExchangeRequest::read(body.as_bytes()).ok().unwrap();
    assert_eq!(&*request.subject_token, "a.b.c");
    assert_eq!(request.audience.as_str(), "sts.amazonaws.com");
    assert_eq!(request.expires_in, Some(600));
    let body = form(
        &[
            &GOOD[..],
            &[("scope", ""), ("unknown", "x"), ("requested_token_type", TOKEN_TYPE)],
        ]
        .concat(),
    );
    assert!(
        ExchangeRequest::read(body.as_bytes()).is_ok(),
        "unknown parameters are ignored"
    );
}

#[test]
fn each_fault_has_its_error_of_rfc_6749() {
    use OAuthErrorCode::{InvalidRequest, InvalidScope, InvalidTarget, UnsupportedGrantType};
    for (body, code, text) in [
        (String::new(), InvalidRequest, "grant_type is missing"),
        (with("grant_type", None), InvalidRequest, "grant_type is missing"),
        (
            with("grant_type", Some("client_credentials")),
            UnsupportedGrantType,
            "grant_type should be",
        ),
        (with("subject_token", None), InvalidRequest, "subject_token is missing"),
        (
            with("subject_token", Some("")),
            InvalidRequest,
            "subject_token is missing",
        ),
        (
            with("subject_token_type", None),
            InvalidRequest,
            "subject_token_type is missing",
        ),
        (
            with("subject_token_type", Some("urn:ietf:params:oauth:token-type:saml2")),
            InvalidRequest,
            "subject_token_type should be",
        ),
        (with("audience", None), InvalidRequest, "audience is missing"),
        (with("audience", Some("a b")), InvalidTarget, "is not an audience"),
        (
            with("audience", Some(&"a".repeat(256))),
            InvalidTarget,
            "is not an audience",
        ),
        (with("expires_in", Some("-1")), InvalidRequest, "expires_in"),
        (with("expires_in", Some("+600")), InvalidRequest, "expires_in"),
        (with("expires_in", Some("600.5")), InvalidRequest, "expires_in"),
        (with("expires_in", Some("99999999999")), InvalidRequest, "expires_in"),
        (
            with("actor_token", Some("x")),
            InvalidRequest,
            "actor_token is not supported",
        ),
        (
            with("resource", Some("https://a")),
            InvalidRequest,
            "resource is not supported",
        ),
        (with("scope", Some("openid")), InvalidScope, "scope is not supported"),
        (
            with("requested_token_type", Some("x")),
            InvalidRequest,
            "requested_token_type should be",
        ),
        ("a".repeat(MOST_BODY_BYTES + 1), InvalidRequest, "too long"),
        ("&a=b".repeat(100), InvalidRequest, "too many parameters"),
    ] {
        let error = error(&body);
        assert_eq!(error.code, code, "{error}");
        assert!(error.description.contains(text), "{error}");
    }
}

#[test]
fn a_parameter_that_is_there_twice_is_refused_whatever_it_says() {
    for (name, value) in GOOD {
        for second in [value, "other"] {
            let body = form(&[&GOOD[..], &[(name, second)]].concat());
            assert_eq!(error(&body).description, format!("{name} is there more than once"));
        }
    }
    let escaped = format!("{}&%61udience=other", form(&GOOD));
    assert_eq!(error(&escaped).description, "audience is there more than once");
}

#[test]
fn an_error_is_json_with_the_characters_that_rfc_6749_allows() {
    let error = OAuthError::new(
        OAuthErrorCode::InvalidTarget,
        "\"quoted\" \\ ünï\n\u{0}code".repeat(100),
    );
    let body: Value = serde_json::from_str(&error.body()).unwrap();
    assert_eq!(body["error"], "invalid_target");
    let description = body["error_description"].as_str().unwrap();
    assert!(
        description
            .bytes()
            .all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\')
    );
    assert!(description.len() <= 1024);
}

#[test]
fn the_answer_is_that_of_rfc_8693() {
    let body: Value = serde_json::from_str(&token_body("a.b.c", 3600)).unwrap();
    let expected = serde_json::json!({
        "access_token": "a.b.c", "issued_token_type": TOKEN_TYPE, "token_type": "N_A", "expires_in": 3600});
    assert_eq!(body, expected);
}

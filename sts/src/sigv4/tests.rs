//! Signatures, those of AWS's published examples among them.

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const BODY: &[u8] = b"Action=GetCallerIdentity&Version=2011-06-15";

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

fn names(list: &[&str]) -> Vec<String> {
    list.iter().map(|name| (*name).to_owned()).collect()
}

/// Headers of a request signed with `SECRET` at 2015-08-30T12:36:00Z.
fn signed() -> HeaderMap {
    let mut headers = headers(&[
        ("host", "127.0.0.1:1"),
        ("x-amz-date", "20150830T123600Z"),
        ("x-amz-security-token", "session"),
    ]);
    let list = names(&["host", "x-amz-date", "x-amz-security-token"]);
    let scope = "20150830/eu-central-1/sts/aws4_request";
    let request = Signed {
        method: &Method::POST,
        path: "/",
        query: "",
        headers: &headers,
        body: BODY,
    };
    let signature = signature(&request, &list, "20150830T123600Z", scope, SECRET);
    let header = format!(
        "{ALGORITHM} Credential=AKIDEXAMPLE/{scope}, SignedHeaders={}, Signature={signature}",
        list.join(";")
    );
    headers.insert("authorization", header.parse().unwrap());
    headers
}

fn now() -> Timestamp {
    "2015-08-30T12:36:00Z".parse().unwrap()
}

fn verify(headers: &HeaderMap, secret: &str, now: Timestamp) -> Result<(), AwsError> {
    let request = Signed {
        method: &Method::POST,
        path: "/",
        query: "",
        headers,
        body: BODY,
    };
    Authorization::parse(headers)?.verify(&request, secret, now)
}

#[test]
fn the_signatures_of_the_published_examples_come_out() {
    let plain = headers(&[("host", "example.amazonaws.com"), ("x-amz-date", "20150830T123600Z")]);
    let request = Signed {
        method: &Method::GET,
        path: "/",
        query: "",
        headers: &plain,
        body: b"",
    };
    assert_eq!(
        signature(
            &request,
            &names(&["host", "x-amz-date"]),
            "20150830T123600Z",
            "20150830/us-east-1/service/aws4_request",
            SECRET
        ),
        "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
    );
    let users = headers(&[
        ("content-type", "application/x-www-form-urlencoded; charset=utf-8"),
        ("host", "iam.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
    ]);
    let query = "Version=2010-05-08&Action=ListUsers";
    let request = Signed {
        method: &Method::GET,
        path: "/",
        query,
        headers: &users,
        body: b"",
    };
    assert_eq!(
        signature(
            &request,
            &names(&["content-type", "host", "x-amz-date"]),
            "20150830T123600Z",
            "20150830/us-east-1/iam/aws4_request",
            SECRET
        ),
        "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7"
    );
}

#[test]
fn a_signature_holds_only_for_its_secret_request_and_time() {
    assert_eq!(verify(&signed(), SECRET, now()), Ok(()));
    let code = |result: Result<(), AwsError>| result.unwrap_err().code;
    assert_eq!(code(verify(&signed(), "other", now())), "SignatureDoesNotMatch");
    for header in ["host", "x-amz-security-token"] {
        let mut changed = signed();
        changed.insert(header, "changed".parse().unwrap());
        assert_eq!(
            code(verify(&changed, SECRET, now())),
            "SignatureDoesNotMatch",
            "{header}"
        );
    }
    for (seconds, expected) in [
        (900, None),
        (-900, None),
        (901, Some("Signature expired")),
        (-901, Some("Signature not yet current")),
    ] {
        let at = Timestamp::from_second(now().as_second() + seconds).unwrap();
        let problem = verify(&signed(), SECRET, at).err().map(|error| error.message);
        assert_eq!(problem.is_some(), expected.is_some(), "{seconds}");
        assert!(problem.unwrap_or_default().starts_with(expected.unwrap_or_default()));
    }
}

#[test]
fn what_is_missing_or_out_of_scope_is_said_without_repeating_the_header() {
    let mut without = signed();
    without.remove("authorization");
    let error = Authorization::parse(&without).err().unwrap();
    assert_eq!(
        error.to_string(),
        "MissingAuthenticationToken: Request is missing Authentication Token"
    );
    for (header, code, text) in refused_headers() {
        let mut headers = signed();
        headers.insert("authorization", header.parse().unwrap());
        let error = Authorization::parse(&headers).err().unwrap();
        assert_eq!(error.code, code, "{header}: {error}");
        assert!(
            error.message.contains(text) && !error.message.contains("secret"),
            "{header}: {error}"
        );
    }
}

/// An Authorization header, and the code and text of its refusal.
fn refused_headers() -> Vec<(String, &'static str, &'static str)> {
    let scope = "20150830/eu-central-1/sts/aws4_request";
    let all = "host;x-amz-date;x-amz-security-token";
    vec![
        ("Bearer secret".to_owned(), "IncompleteSignature", "must begin with"),
        (
            format!("AWS4-ECDSA-P256-SHA256 Credential=A/{scope}, SignedHeaders={all}, Signature=0"),
            "IncompleteSignature",
            "must begin with",
        ),
        (
            format!("{ALGORITHM} SignedHeaders={all}, Signature=0"),
            "IncompleteSignature",
            "requires 'Credential'",
        ),
        (
            format!("{ALGORITHM} Credential=A/{scope}, Signature=0"),
            "IncompleteSignature",
            "requires 'SignedHeaders'",
        ),
        (
            format!("{ALGORITHM} Credential=A/{scope}, SignedHeaders={all}"),
            "IncompleteSignature",
            "requires 'Signature'",
        ),
        (
            format!("{ALGORITHM} Credential=A/{scope}, SignedHeaders=host;x-amz-date, Signature=0"),
            "IncompleteSignature",
            "'x-amz-security-token' must be",
        ),
        (
            format!("{ALGORITHM} Credential=A/{scope}, SignedHeaders=x-amz-date;x-amz-security-token, Signature=0"),
            "IncompleteSignature",
            "'host' must be",
        ),
        (
            format!(
                "{ALGORITHM} Credential=A/20150829/eu-central-1/sts/aws4_request, SignedHeaders={all}, Signature=0"
            ),
            "SignatureDoesNotMatch",
            "Date in Credential scope",
        ),
        (
            format!("{ALGORITHM} Credential=A/20150830/eu-central-1/s3/aws4_request, SignedHeaders={all}, Signature=0"),
            "SignatureDoesNotMatch",
            "correct service: 'sts'",
        ),
        (
            format!("{ALGORITHM} Credential=A/20150830/eu-central-1/sts/aws3, SignedHeaders={all}, Signature=0"),
            "SignatureDoesNotMatch",
            "valid terminator",
        ),
    ]
}

#[test]
fn a_request_without_a_readable_date_is_incomplete() {
    let mut undated = signed();
    undated.remove("x-amz-date");
    assert_eq!(
        Authorization::parse(&undated).err().unwrap().code,
        "IncompleteSignature"
    );
    undated.insert("x-amz-date", "yesterday".parse().unwrap());
    assert_eq!(
        Authorization::parse(&undated).err().unwrap().code,
        "IncompleteSignature"
    );
}

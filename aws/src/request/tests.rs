//! Requests as they go out.

use jiff::Timestamp;

use super::*;
use crate::endpoint::EndpointFlavor;

fn endpoint() -> StsEndpoint {
    StsEndpoint::regional(&"eu-central-1".parse().unwrap(), EndpointFlavor::default()).unwrap()
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "ASIAEXAMPLEEXAMPLE12".into(),
        secret_access_key: Secret::new("secret"),
        session_token: Some(Secret::new("session+token=")),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn header<'a>(request: &'a StsRequest, name: &str) -> Option<&'a str> {
    let mut headers = request.headers().iter();
    headers.find_map(|(own, value)| (*own == name).then_some(value.as_str()))
}

#[test]
fn a_web_identity_is_presented_without_a_signature() {
    let request = AssumeRoleWithWebIdentity {
        role: &"arn:aws:iam::111122223333:role/orders".parse().unwrap(),
        session_name: "pod-1",
        token: &Secret::new("a.b.c"),
        duration_seconds: Some(900),
        session_policy: SessionPolicyParameters {
            inline: Some("{}"),
            arns: &["arn:aws:iam::aws:policy/ReadOnlyAccess"],
        },
    }
    .request(&endpoint());
    assert_eq!(
        request.body(),
        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Forders\
         &RoleSessionName=pod-1&WebIdentityToken=a.b.c\
         &PolicyArns.member.1.arn=arn%3Aaws%3Aiam%3A%3Aaws%3Apolicy%2FReadOnlyAccess&Policy=%7B%7D&DurationSeconds=900"
    );
    assert_eq!(header(&request, "host"), Some("sts.eu-central-1.amazonaws.com"));
    assert_eq!(header(&request, "authorization"), None);
    assert!(!format!("{request:?}").contains("a.b.c"));
}

#[test]
fn a_chain_is_signed_with_the_credentials_before_it() {
    let request = AssumeRole {
        role: &"arn:aws:iam::444455556666:role/far".parse().unwrap(),
        session_name: "pod-1",
        external_id: Some("e-2"),
        duration_seconds: None,
        session_policy: SessionPolicyParameters::default(),
        tags: &[("team", "blue")],
        transitive_tag_keys: &["team"],
        source_identity: Some("shop.orders"),
    }
    .request(&endpoint(), &credentials(), at(1_800_000_000));
    assert_eq!(
        request.body(),
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A444455556666%3Arole%2Ffar&RoleSessionName=pod-1\
         &Tags.member.1.Key=team&Tags.member.1.Value=blue&TransitiveTagKeys.member.1=team&ExternalId=e-2\
         &SourceIdentity=shop.orders"
    );
    assert_eq!(header(&request, "x-amz-date"), Some("20270115T080000Z"));
    assert_eq!(header(&request, "x-amz-security-token"), Some("session+token="));
    let signature = header(&request, "authorization").unwrap();
    assert!(
        signature.starts_with(
            "AWS4-HMAC-SHA256 Credential=ASIAEXAMPLEEXAMPLE12/20270115/eu-central-1/sts/aws4_request, \
             SignedHeaders=content-type;host;x-amz-date;x-amz-security-token, Signature="
        ),
        "{signature}"
    );
    assert!(!format!("{request:?}").contains("session"));
}

#[test]
fn tokens_for_others_are_asked_of_a_region_only() {
    let token = GetWebIdentityToken {
        audiences: &["https://api.test"],
        algorithm: AwsAlgorithm::ES384,
        duration_seconds: Some(600),
        tags: &[],
        subject_mode: SubjectMode::OriginIdentity,
        scope: Some("read write"),
    };
    let request = token.request(&endpoint(), &credentials(), at(0)).unwrap();
    assert_eq!(
        request.body(),
        "Action=GetWebIdentityToken&Version=2011-06-15&Audience.member.1=https%3A%2F%2Fapi.test&DurationSeconds=600\
         &SigningAlgorithm=ES384&SubjectMode=OriginIdentity&Scope=read%20write"
    );
    assert_eq!(
        token.request(&StsEndpoint::global(), &credentials(), at(0)),
        Err(NotRegional)
    );
}

#[test]
fn a_token_never_outlives_its_session() {
    for (wanted, left, expected) in [
        (300, 3600, Some(300)),
        (3600, 3600, Some(3595)),
        (9999, 43_200, Some(3600)),
        (300, 65, Some(60)),
        (300, 64, None),
        (59, 3600, None),
        (300, -10, None),
    ] {
        assert_eq!(
            GetWebIdentityToken::lifetime(wanted, at(1000 + left), at(1000)),
            expected,
            "{wanted} {left}"
        );
    }
}

//! Requests that are refused, in AWS's words.

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::{
    ISSUER, Issuer, ROLE, START, Signer, assume, assume_form, config, element, error, exchange, post, role, start,
};

const DENIED: &str = "403 AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity";

/// Tokens that are refused, and the words. `tags` and `source` are claims that the role does not allow.
fn refused(signer: &Signer, tags: &Value, source: &Value) -> [(String, &'static str); 10] {
    let stranger = Signer::new(Algorithm::ES384, "ec");
    [
        (
            signer.token(&json!({"sub": "system:serviceaccount:bank:orders"})),
            DENIED,
        ),
        (
            signer.token(tags),
            "403 AccessDenied: Not authorized to perform sts:TagSession",
        ),
        (
            signer.token(source),
            "403 AccessDenied: Not authorized to perform sts:SetSourceIdentity",
        ),
        (
            signer.token(&json!({"aud": "other"})),
            "400 InvalidIdentityToken: Incorrect token audience",
        ),
        (
            signer.token(&json!({"iss": "https://other.test"})),
            "400 InvalidIdentityToken: No OpenIDConnect provider found in your account for https://other.test",
        ),
        (
            signer.token(&json!({"iss": format!("{ISSUER}/")})),
            "400 InvalidIdentityToken: No OpenIDConnect provider found in your account for https://oidc.tokenscope.test/cluster/",
        ),
        (
            signer.token(&json!({"exp": START - 301})),
            "400 ExpiredTokenException: Token expired: current date/time 1800000000 must be before the expiration date/time 1799999699",
        ),
        (
            signer.token(&json!({"iat": START - 90_000})),
            "400 ExpiredTokenException: Token too old: 90000",
        ),
        (
            stranger.token(&json!({})),
            "400 InvalidIdentityToken: Invalid token signature",
        ),
        (
            "opaque-token".to_owned(),
            "400 InvalidIdentityToken: The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        ),
    ]
}

#[tokio::test]
async fn every_token_that_is_refused_has_the_status_code_and_text_of_aws() {
    let signer = Signer::new(Algorithm::ES384, "ec");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, _) = start(config(&issuer)).await;
    let tags = json!({"https://aws.amazon.com/tags": {"principal_tags": {"Team": ["blue"]}}});
    let source = json!({"https://aws.amazon.com/source_identity": "shop.orders"});

    for (token, expected) in refused(&signer, &tags, &source) {
        assert_eq!(error(assume(&server, &token).await), expected);
    }
    // The same role, once it allows what the claims need.
    let actions = json!([
        "sts:AssumeRoleWithWebIdentity",
        "sts:TagSession",
        "sts:SetSourceIdentity"
    ]);
    server.set_role(&role(ROLE, &actions)).unwrap();
    assert_eq!(assume(&server, &signer.token(&tags)).await.0, 200);
    let (status, body) = assume(&server, &signer.token(&source)).await;
    assert_eq!(
        (status, element(&body, "SourceIdentity").as_str()),
        (200, "shop.orders")
    );
}

#[tokio::test]
async fn every_form_that_is_refused_has_the_status_code_and_text_of_aws() {
    let signer = Signer::new(Algorithm::ES384, "ec");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, _) = start(config(&issuer)).await;
    let token = signer.token(&json!({}));
    for (form, expected) in [
        (assume_form("arn:aws:iam::111122223333:role/nobody", &token, ""), DENIED.to_owned()),
        (assume_form("arn:aws:iam::999922223333:role/shop/orders", &token, ""), format!("400 InvalidIdentityToken: No OpenIDConnect provider found in your account for {ISSUER}")),
        (assume_form(ROLE, &token, "&DurationSeconds=3601"), "400 ValidationError: The requested DurationSeconds exceeds the MaxSessionDuration set for this role.".into()),
        (assume_form(ROLE, &token, "&DurationSeconds=60"), "400 ValidationError: 1 validation error detected: Value '60' at 'durationSeconds' failed to satisfy constraint: Member must have value greater than or equal to 900".into()),
        ("Action=GetFederationToken&Version=2011-06-15".into(), "400 InvalidAction: Could not find operation GetFederationToken for version 2011-06-15".into()),
    ] {
        assert_eq!(error(post(&server, "", &form).await), expected);
    }

    let query = assume_form(ROLE, &token, "");
    let get = format!("GET /?{query} HTTP/1.1\r\nhost: sts\r\nconnection: close\r\n\r\n");
    assert_eq!(
        exchange(TcpStream::connect(server.addr()).await.unwrap(), &get).await.0,
        200
    );
    let huge = format!("x={}", "y".repeat(200_000));
    assert!(error(post(&server, "", &huge).await).starts_with("413 RequestEntityTooLarge"));
}

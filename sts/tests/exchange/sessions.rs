//! Sessions: who they are, and what becomes of them.

use std::sync::atomic::Ordering;

use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use jsonwebtoken::Algorithm;
use serde_json::json;
use tokenscope_sts::Server;

use super::{Issuer, START, Signer, assume, config, element, error, post, start};

fn base16(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap();
    bytes
        .iter()
        .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
        .collect()
}

/// GetCallerIdentity signed with the credentials of an answer; `now` in seconds.
async fn caller_identity(server: &Server, credentials: &str, secret: Option<&str>, now: i64) -> (u16, String) {
    const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
    let sha256 = |bytes: &[u8]| base16(digest::digest(&digest::SHA256, bytes).as_ref());
    let mac = |key: &[u8], text: &str| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
            .as_ref()
            .to_vec()
    };
    let (id, token) = (
        element(credentials, "AccessKeyId"),
        element(credentials, "SessionToken"),
    );
    let secret = secret.map_or_else(|| element(credentials, "SecretAccessKey"), str::to_owned);
    let date = Timestamp::from_second(now)
        .unwrap()
        .strftime("%Y%m%dT%H%M%SZ")
        .to_string();
    let scope = format!("{}/eu-central-1/sts/aws4_request", &date[..8]);
    let names = "host;x-amz-date;x-amz-security-token";
    let canonical = format!(
        "POST\n/\n\nhost:{}\nx-amz-date:{date}\nx-amz-security-token:{token}\n\n{names}\n{}",
        server.addr(),
        sha256(BODY.as_bytes())
    );
    let to_sign = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let day = mac(format!("AWS4{secret}").as_bytes(), &date[..8]);
    let key = mac(&mac(&mac(&day, "eu-central-1"), "sts"), "aws4_request");
    let signature = base16(&mac(&key, &to_sign));
    let headers = format!(
        "x-amz-date: {date}\r\nx-amz-security-token: {token}\r\n\
         authorization: AWS4-HMAC-SHA256 Credential={id}/{scope}, SignedHeaders={names}, Signature={signature}\r\n"
    );
    post(server, &headers, BODY).await
}

#[tokio::test]
async fn a_token_becomes_credentials_that_identify_their_holder_until_they_expire() {
    let signer = Signer::new(Algorithm::RS256, "rsa");
    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, clock) = start(config(&issuer)).await;

    let (status, body) = assume(&server, &signer.token(&json!({}))).await;
    assert_eq!(status, 200, "{body}");
    for (name, expected) in [
        ("SubjectFromWebIdentityToken", "system:serviceaccount:shop:orders"),
        ("Audience", "sts.amazonaws.com"),
        (
            "Provider",
            "arn:aws:iam::111122223333:oidc-provider/oidc.tokenscope.test/cluster",
        ),
        ("Arn", "arn:aws:sts::111122223333:assumed-role/orders/pod-1"),
        ("Expiration", "2027-01-15T09:00:00Z"),
    ] {
        assert_eq!(element(&body, name), expected, "{name}");
    }

    let (status, identity) = caller_identity(&server, &body, None, START).await;
    assert_eq!(status, 200, "{identity}");
    assert_eq!(
        element(&identity, "Arn"),
        "arn:aws:sts::111122223333:assumed-role/orders/pod-1"
    );
    assert_eq!(element(&identity, "Account"), "111122223333");
    assert_eq!(element(&identity, "UserId"), element(&body, "AssumedRoleId"));

    let wrong = error(caller_identity(&server, &body, Some("wrong"), START).await);
    assert!(
        wrong.starts_with("403 SignatureDoesNotMatch: The request signature we calculated"),
        "{wrong}"
    );
    let late = error(caller_identity(&server, &body, None, START - 901).await);
    assert!(
        late.starts_with("403 SignatureDoesNotMatch: Signature expired"),
        "{late}"
    );
    let unknown = body.replace(&element(&body, "AccessKeyId"), "ASIAAAAAAAAAAAAAAAAA");
    let other_token = body.replace(&element(&body, "SessionToken"), "AAAA");
    for changed in [unknown, other_token] {
        assert_eq!(
            error(caller_identity(&server, &changed, None, START).await),
            "403 InvalidClientTokenId: The security token included in the request is invalid."
        );
    }
    assert_eq!(
        error(post(&server, "", "Action=GetCallerIdentity&Version=2011-06-15").await),
        "403 MissingAuthenticationToken: Request is missing Authentication Token"
    );
    clock.store(START + 3600, Ordering::SeqCst);
    assert_eq!(
        error(caller_identity(&server, &body, None, START + 3600).await),
        "403 ExpiredToken: The security token included in the request is expired"
    );
    server.stop().await;
}

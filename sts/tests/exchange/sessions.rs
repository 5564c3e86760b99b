//! Sessions: who they are, and what becomes of them.

use std::sync::atomic::Ordering;

use jsonwebtoken::Algorithm;
use serde_json::json;
use tokenscope_sts::Server;

use super::signing::{Keys, signed};
use super::{Issuer, START, Signer, assume, config, element, error, post, start};

/// GetCallerIdentity signed with the credentials of an answer; `now` in seconds.
async fn caller_identity(server: &Server, credentials: &str, secret: Option<&str>, now: i64) -> (u16, String) {
    let mut keys = Keys::of(credentials);
    keys.secret = secret.map_or(keys.secret, str::to_owned);
    signed(server, &keys, now, "Action=GetCallerIdentity&Version=2011-06-15").await
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

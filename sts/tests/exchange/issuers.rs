//! Issuers and their keys.

use std::sync::atomic::Ordering;

use jsonwebtoken::Algorithm;
use serde_json::json;
use tokenscope_sts::StsConfig;
use tokio::net::TcpListener;

use super::{ISSUER, Issuer, START, Signer, assume, config, error, start};

#[tokio::test]
async fn keys_are_remembered_and_an_unknown_one_is_asked_for_at_most_every_half_minute() {
    let (old, new) = (
        Signer::new(Algorithm::ES384, "old"),
        Signer::new(Algorithm::ES384, "new"),
    );
    let issuer = Issuer::start("oidc.tokenscope.test", &[old.jwk()]).await;
    let (server, clock) = start(config(&issuer)).await;
    let no_key = "400 InvalidIdentityToken: Couldn't retrieve verification key from your identity provider, please \
                  reference AssumeRoleWithWebIdentity documentation for requirements";

    let token = old.token(&json!({}));
    let together = tokio::join!(
        assume(&server, &token),
        assume(&server, &token),
        assume(&server, &token)
    );
    assert_eq!((together.0.0, together.1.0, together.2.0), (200, 200, 200));
    assert_eq!(issuer.requests(), 2, "discovery and keys, once");
    issuer.answer("/cluster/keys", 200, &json!({"keys": [old.jwk(), new.jwk()]}));
    assert_eq!(error(assume(&server, &new.token(&json!({}))).await), no_key);
    assert_eq!(issuer.requests(), 2);
    clock.store(START + 30, Ordering::SeqCst);
    assert_eq!(assume(&server, &new.token(&json!({}))).await.0, 200);
    assert_eq!(issuer.requests(), 4);

    // After five minutes the issuer is asked again, and what it says then counts.
    clock.store(START + 330, Ordering::SeqCst);
    issuer.answer("/cluster/keys", 503, &json!({}));
    assert!(error(assume(&server, &old.token(&json!({}))).await).starts_with("400 IDPCommunicationError: "));
    let good = json!({"issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys")});
    for (discovery, keys) in [
        (
            json!({"issuer": "https://other.test", "jwks_uri": format!("{ISSUER}/keys")}),
            json!({"keys": [old.jwk()]}),
        ),
        (
            json!({"issuer": ISSUER, "jwks_uri": "http://oidc.tokenscope.test/keys"}),
            json!({"keys": [old.jwk()]}),
        ),
        (json!({"issuer": ISSUER}), json!({"keys": [old.jwk()]})),
        (good.clone(), json!({"keys": []})),
        (good.clone(), json!({"keys": vec![old.jwk(); 101]})),
        (good.clone(), json!("x".repeat(2 << 20))),
    ] {
        issuer.answer("/cluster/.well-known/openid-configuration", 200, &discovery);
        issuer.answer("/cluster/keys", 200, &keys);
        assert_eq!(error(assume(&server, &old.token(&json!({}))).await), no_key);
    }
    issuer.answer("/cluster/.well-known/openid-configuration", 200, &good);
    issuer.answer("/cluster/keys", 200, &json!({"keys": [new.jwk()]}));
    assert_eq!(assume(&server, &new.token(&json!({}))).await.0, 200);
    assert_eq!(error(assume(&server, &old.token(&json!({}))).await), no_key);
}

#[tokio::test]
async fn an_issuer_that_cannot_be_trusted_or_reached_gives_no_credentials() {
    let signer = Signer::new(Algorithm::ES384, "k");
    let token = signer.token(&json!({}));
    let no_key = "400 InvalidIdentityToken: Couldn't retrieve verification key";

    let other_name = Issuer::start("other.test", &[signer.jwk()]).await;
    let (server, _) = start(config(&other_name)).await;
    assert!(error(assume(&server, &token).await).starts_with(no_key));

    let issuer = Issuer::start("oidc.tokenscope.test", &[signer.jwk()]).await;
    let (server, _) = start(StsConfig {
        issuer_trust_pem: other_name.trust_pem.clone(),
        ..config(&issuer)
    })
    .await;
    assert!(error(assume(&server, &token).await).starts_with(no_key));
    assert_eq!(issuer.requests(), 0);

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Both wait for the five seconds of one. A machine that stalls disturbs some of the measurements.
    let mut tries = 0;
    loop {
        let connect_to = [("oidc.tokenscope.test".to_owned(), silent.local_addr().unwrap())].into();
        let (server, _) = start(StsConfig {
            connect_to,
            ..config(&issuer)
        })
        .await;
        let started = std::time::Instant::now();
        let both = tokio::join!(assume(&server, &token), assume(&server, &token));
        let took = started.elapsed().as_secs();
        assert!(error(both.0).starts_with(no_key) && error(both.1).starts_with(no_key));
        assert!(took >= 5, "{took} s");
        if took < 8 {
            break;
        }
        tries += 1;
        assert!(tries < 5, "{took} s, and no less before");
    }

    // It listens for nobody, and is nobody else's meanwhile.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let connect_to = [("oidc.tokenscope.test".to_owned(), closed.local_addr().unwrap())].into();
    let (server, _) = start(StsConfig {
        connect_to,
        ..config(&issuer)
    })
    .await;
    assert!(error(assume(&server, &token).await).starts_with("400 IDPCommunicationError: "));
}

//! Keycloak takes the tokens of the issuer that it trusts, each once, and refuses them for anything that is wrong.

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_core::Algorithm;
use tokenscope_e2e::keycloak::{Keycloak, Rejection};
use tokenscope_e2e::token_maker::{KeySet, TokenMaker, claims_of, public_encodings, with_claims, with_header};
use tokenscope_issuer::claims::{SOURCE_IDENTITY, TAGS};
use tokenscope_issuer::keys::SigningKey;
use tokio::sync::OnceCell;

use crate::{SUBJECT, grant, tagged_grant};

/// The client of Keycloak's realm that the subject is.
const CLIENT: &str = "orders";

/// Keycloak and an issuer that it trusts.
struct RelyingParty {
    keycloak: Keycloak,
    issuer: TokenMaker,
}

impl RelyingParty {
    /// One for all tests of this program.
    async fn shared() -> &'static Self {
        static SHARED: OnceCell<Result<RelyingParty, String>> = OnceCell::const_new();
        let started = SHARED.get_or_init(async || Self::start().await.map_err(|error| format!("{error:#}")));
        match started.await {
            Ok(party) => party,
            Err(message) => panic!("Keycloak can't judge: {message}"),
        }
    }

    async fn start() -> anyhow::Result<Self> {
        let issuer = TokenMaker::start(&Algorithm::ALL, KeySet::Plain)?;
        let keycloak = Keycloak::start(issuer.authority()).await?;
        let alias = keycloak.trust_issuer(issuer.url(), &issuer.jwks_url()).await?;
        keycloak.add_client(CLIENT, &alias, SUBJECT).await?;
        Ok(Self { keycloak, issuer })
    }

    /// A token of ours, which is accepted.
    fn token(&self, algorithm: Algorithm) -> String {
        let grant = grant(&self.keycloak.audience(), algorithm);
        self.issuer.token(&grant).unwrap()
    }

    fn key(&self) -> &SigningKey {
        self.issuer.key(Algorithm::RS256).unwrap()
    }

    async fn accepts(&self, token: &str) {
        let claims = self.keycloak.judge(token).await.unwrap().unwrap();
        assert_eq!(claims["azp"], CLIENT, "{claims}");
        assert_eq!(claims["iss"], self.keycloak.audience().as_str(), "{claims}");
    }

    async fn refuses(&self, token: &str, what: &str) -> Rejection {
        match self.keycloak.judge(token).await.unwrap() {
            Ok(claims) => panic!("{what} was accepted: {claims}"),
            Err(refusal) => {
                assert_eq!(refusal.error, "invalid_client", "{what}: {refusal:?}");
                refusal
            }
        }
    }

    /// A token that differs from an accepted one by these claims only.
    fn token_with(&self, changes: &Value) -> String {
        with_claims(&self.token(Algorithm::RS256), changes, self.key()).unwrap()
    }

    /// A token that differs from an accepted one by these claims only is refused with this description.
    async fn refuses_claims(&self, changes: &Value, description: &str) {
        let token = self.token_with(changes);
        let refusal = self.refuses(&token, &changes.to_string()).await;
        assert_eq!(refusal.description, description, "{changes}");
    }

    /// A token that is not known to be of the client at all is refused without more words.
    async fn does_not_know(&self, token: &str, what: &str) {
        let refusal = self.refuses(token, what).await;
        let expected = (401, "Invalid client or Invalid client credentials");
        assert_eq!((refusal.status, refusal.description.as_str()), expected, "{what}");
    }
}

#[tokio::test]
async fn keycloak_accepts_our_tokens_signed_with_rs256_es256_and_es384() {
    let party = RelyingParty::shared().await;
    for algorithm in Algorithm::ALL {
        party.accepts(&party.token(algorithm)).await;
    }
    println!("Keycloak: {:?}", party.keycloak.process.memory().unwrap());
}

#[tokio::test]
async fn keycloak_accepts_our_tokens_with_tags_source_identity_and_context_claims() {
    let party = RelyingParty::shared().await;
    for algorithm in Algorithm::ALL {
        let grant = tagged_grant(&party.keycloak.audience(), algorithm, "a");
        let token = party.issuer.token(&grant).unwrap();
        let claims = claims_of(&token).unwrap();
        for name in [TAGS, SOURCE_IDENTITY, "tokenscope_namespace"] {
            assert!(claims.get(name).is_some(), "{name} is missing: {claims}");
        }
        party.accepts(&token).await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_token_that_was_used_before() {
    let party = RelyingParty::shared().await;
    for algorithm in [Algorithm::RS256, Algorithm::ES384] {
        let token = party.token(algorithm);
        party.accepts(&token).await;
        let refusal = party.refuses(&token, "a replayed token").await;
        assert_eq!(refusal.description, "Token reuse detected");
    }
}

#[tokio::test]
async fn keycloak_refuses_another_audience_and_more_than_one() {
    let party = RelyingParty::shared().await;
    let own = party.keycloak.audience();
    party
        .refuses_claims(&json!({"aud": "sts.amazonaws.com"}), "Invalid token audience")
        .await;
    for audiences in [json!([own, "sts.amazonaws.com"]), json!(["sts.amazonaws.com", own])] {
        party
            .refuses_claims(&json!({"aud": audiences}), "Multiple audiences not allowed")
            .await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_token_outside_its_time_or_without_a_claim_that_bounds_its_use() {
    let party = RelyingParty::shared().await;
    let now = Timestamp::now().as_second();
    for (changes, description) in [
        (
            json!({"iat": now - 600, "nbf": now - 600, "exp": now - 60}),
            "Token is not active",
        ),
        (json!({"nbf": now + 600}), "Token is not active"),
        (
            json!({"iat": now - 7200, "nbf": now - 7200}),
            "Token was issued too far in the past to be used now",
        ),
        (json!({"exp": null}), "Token exp claim is required"),
        (json!({"jti": null}), "Token jti claim is required"),
    ] {
        party.refuses_claims(&changes, description).await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_key_that_the_issuer_does_not_publish() {
    let party = RelyingParty::shared().await;
    let token = party.token(Algorithm::RS256);
    let unknown = SigningKey::generate(Algorithm::RS256).unwrap();
    let forged = with_claims(&token, &json!({}), &unknown).unwrap();
    party.does_not_know(&forged, "an unknown key").await;

    let kid_of_another = json!({"alg": "RS256", "typ": "JWT", "kid": party.key().kid()});
    let forged = with_header(&token, &kid_of_another, |message| Ok(unknown.sign(message)?)).unwrap();
    party
        .does_not_know(&forged, "an unknown key under a published ID")
        .await;

    let unknown_kid = json!({"alg": "RS256", "typ": "JWT", "kid": unknown.kid()});
    let forged = with_header(&token, &unknown_kid, |message| Ok(party.key().sign(message)?)).unwrap();
    party
        .does_not_know(&forged, "a published key under an unknown ID")
        .await;
    party.accepts(&token).await;
}

#[tokio::test]
async fn keycloak_refuses_a_token_that_was_changed_after_it_was_signed() {
    let party = RelyingParty::shared().await;
    for algorithm in Algorithm::ALL {
        let (token, other) = (party.token(algorithm), party.token(algorithm));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (other_message, other_signature) = other.rsplit_once('.').unwrap();
        for tampered in [
            format!("{other_message}.{signature}"),
            format!("{message}.{other_signature}"),
            format!("{message}."),
        ] {
            party.does_not_know(&tampered, "a changed token").await;
        }
        party.accepts(&token).await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_subject_or_an_issuer_that_no_client_has() {
    let party = RelyingParty::shared().await;
    for changes in [
        json!({"sub": "system:serviceaccount:shop:other"}),
        json!({"iss": "http://127.0.0.1:1"}),
        json!({"iss": format!("{}/", party.issuer.url())}),
    ] {
        party
            .does_not_know(&party.token_with(&changes), &changes.to_string())
            .await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_token_whose_header_names_another_algorithm_than_its_key_has() {
    let party = RelyingParty::shared().await;
    let (rsa, curve) = (party.key(), party.issuer.key(Algorithm::ES384).unwrap());
    let token = party.token(Algorithm::RS256);
    let unsigned = json!({"alg": "none", "kid": rsa.kid()});
    let forged = with_header(&token, &unsigned, |_| Ok(Vec::new())).unwrap();
    party.does_not_know(&forged, "alg none").await;

    // The public key is no secret, so it must not verify as one.
    let symmetric = json!({"alg": "HS256", "kid": rsa.kid()});
    for secret in public_encodings(rsa).unwrap() {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let sign = |message: &[u8]| Ok(hmac::sign(&secret, message).as_ref().to_vec());
        let forged = with_header(&token, &symmetric, sign).unwrap();
        party.does_not_know(&forged, "HS256 with the public key").await;
    }

    let mixed = json!({"alg": "ES384", "kid": rsa.kid()});
    let forged = with_header(&token, &mixed, |message| Ok(curve.sign(message)?)).unwrap();
    party.does_not_know(&forged, "ES384 under the ID of an RSA key").await;
    party.accepts(&token).await;
}

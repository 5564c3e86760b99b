//! Keycloak takes the tokens of the issuer that it trusts, each once, and refuses them for anything that is wrong.

use aws_lc_rs::hmac;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokenscope_e2e::keycloak::{Keycloak, Rejection};
use tokenscope_e2e::token_maker::{ALGORITHMS, Algorithm, TestKey, TokenMaker, changed, compact};
use tokio::sync::OnceCell;

use crate::{SUBJECT, TAGS};

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
        let issuer = TokenMaker::start(&ALGORITHMS)?;
        let keycloak = Keycloak::start().await?;
        let alias = keycloak.trust_issuer(issuer.url(), &issuer.jwks_url()).await?;
        keycloak.add_client(CLIENT, &alias, SUBJECT).await?;
        Ok(Self { keycloak, issuer })
    }

    /// The claims of a token that is accepted.
    fn claims(&self) -> Value {
        self.issuer.claims(SUBJECT, &self.keycloak.audience()).unwrap()
    }

    fn key(&self) -> &TestKey {
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

    /// A token that differs from an accepted one by these claims only is refused with this description.
    async fn refuses_claims(&self, changes: &Value, description: &str) {
        let token = self.key().token(&changed(&self.claims(), changes)).unwrap();
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
async fn keycloak_accepts_tokens_of_a_foreign_issuer_signed_with_rs256_es256_and_es384() {
    let party = RelyingParty::shared().await;
    for algorithm in ALGORITHMS {
        let token = party.issuer.key(algorithm).unwrap().token(&party.claims()).unwrap();
        party.accepts(&token).await;
    }
    println!("Keycloak: {:?}", party.keycloak.process.memory().unwrap());
}

#[tokio::test]
async fn keycloak_accepts_a_token_with_tags_and_context_claims() {
    let party = RelyingParty::shared().await;
    let more = json!({
        (TAGS): {"principal_tags": {"team": ["a"]}, "transitive_tag_keys": ["team"]},
        "https://aws.amazon.com/source_identity": "orders", "tokenscope_namespace": "shop",
    });
    party
        .accepts(&party.key().token(&changed(&party.claims(), &more)).unwrap())
        .await;
}

#[tokio::test]
async fn keycloak_refuses_a_token_that_was_used_before() {
    let party = RelyingParty::shared().await;
    for algorithm in [Algorithm::RS256, Algorithm::ES384] {
        let token = party.issuer.key(algorithm).unwrap().token(&party.claims()).unwrap();
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
    let unknown = TestKey::generate(Algorithm::RS256).unwrap();
    party
        .does_not_know(&unknown.token(&party.claims()).unwrap(), "an unknown key")
        .await;
    let kid_of_another = json!({"alg": "RS256", "typ": "JWT", "kid": party.key().id()});
    party
        .does_not_know(
            &unknown.token_with(&kid_of_another, &party.claims()).unwrap(),
            "an unknown key under a published ID",
        )
        .await;
    let unknown_kid = json!({"alg": "RS256", "typ": "JWT", "kid": unknown.id()});
    party
        .does_not_know(
            &party.key().token_with(&unknown_kid, &party.claims()).unwrap(),
            "a published key under an unknown ID",
        )
        .await;
}

#[tokio::test]
async fn keycloak_refuses_a_token_that_was_changed_after_it_was_signed() {
    let party = RelyingParty::shared().await;
    for algorithm in ALGORITHMS {
        let key = party.issuer.key(algorithm).unwrap();
        let token = key.token(&party.claims()).unwrap();
        let other = key.token(&party.claims()).unwrap();
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
        let token = party.key().token(&changed(&party.claims(), &changes)).unwrap();
        party.does_not_know(&token, &changes.to_string()).await;
    }
}

#[tokio::test]
async fn keycloak_refuses_a_token_whose_header_names_another_algorithm_than_its_key_has() {
    let party = RelyingParty::shared().await;
    let (rsa, curve) = (party.key(), party.issuer.key(Algorithm::ES384).unwrap());
    let unsigned = json!({"alg": "none", "kid": rsa.id()});
    let token = compact(&unsigned, &party.claims(), |_| Ok(Vec::new())).unwrap();
    party.does_not_know(&token, "alg none").await;

    // The public key is no secret, so it must not verify as one.
    let symmetric = json!({"alg": "HS256", "kid": rsa.id()});
    for secret in rsa.public_encodings() {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let sign = |message: &[u8]| Ok(hmac::sign(&secret, message).as_ref().to_vec());
        let token = compact(&symmetric, &party.claims(), sign).unwrap();
        party.does_not_know(&token, "HS256 with the public key").await;
    }

    let mixed = json!({"alg": "ES384", "kid": rsa.id()});
    let token = curve.token_with(&mixed, &party.claims()).unwrap();
    party.does_not_know(&token, "ES384 under the ID of an RSA key").await;
}

//! The discovery document with the claims of the policies' context keys: written once, and anew when policies or keys are others.

use axum::body::Bytes;
use tokenscope_issuer::keys::SigningKey;
use tokenscope_issuer::rotation::KeyRing;

use super::*;

/// The document as requests get it now.
fn served(setup: &Setup) -> Bytes {
    let policies = setup.index.policies().unwrap();
    let signers = setup.signers.load();
    signers.as_ref().unwrap().discovery_with(policies.context_keys()).text
}

fn claims_of(text: &Bytes) -> Vec<String> {
    let document: Value = serde_json::from_slice(text).unwrap();
    let claims = document["claims_supported"].as_array().unwrap().iter();
    let claims = claims.map(|claim| claim.as_str().unwrap().to_owned());
    claims.filter(|claim| claim.starts_with("tokenscope_")).collect()
}

#[tokio::test]
async fn the_document_is_written_once_and_follows_the_context_keys_of_policies_and_the_keys_of_the_issuer() {
    let setup = Setup::new().await;
    let put = |keys: &[&str]| {
        let context: Value = keys.iter().map(|key| ((*key).to_owned(), json!("a"))).collect();
        setup.put_policy(policy_with("a", &json!({"claims": {"context": context}})));
    };
    put(&["team"]);
    let first = served(&setup);
    assert_eq!(claims_of(&first), ["tokenscope_team"]);
    assert_eq!(first.as_ptr(), served(&setup).as_ptr(), "it is the same text");
    // Another policy with the same keys is no reason to write it again.
    setup.put_policy(policy_with("a", &json!({"claims": {"context": {"team": "b"}}})));
    assert_eq!(first.as_ptr(), served(&setup).as_ptr());

    for keys in [["stage", "team"].as_slice(), &["stage"], &["team"]] {
        put(keys);
        let claims: Vec<_> = keys.iter().map(|key| format!("tokenscope_{key}")).collect();
        assert_eq!(claims_of(&served(&setup)), claims);
        assert_eq!(served(&setup).as_ptr(), served(&setup).as_ptr());
    }
    put(&[]);
    assert_eq!(claims_of(&served(&setup)), [""; 0]);

    put(&["team"]);
    let keys = [Algorithm::ES256, Algorithm::ES384].map(|algorithm| SigningKey::generate(algorithm).unwrap());
    let ring = KeyRing::of_signing_keys(keys, jiff::Timestamp::UNIX_EPOCH).unwrap();
    setup
        .signers
        .store(Some(Arc::new(Signers::new(ring, &URL.parse().unwrap()))));
    let (text, known) = (served(&setup), served(&setup));
    assert_eq!(text.as_ptr(), known.as_ptr());
    assert_eq!(claims_of(&text), ["tokenscope_team"]);
    assert!(std::str::from_utf8(&text).unwrap().contains("[\"ES256\",\"ES384\"]"));
}

//! A strict reader of this issuer's own key set, for publishing it again. Nothing in the set is passed over: what the issuer would not write
//! makes the whole set invalid.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use serde_json::{Map, Value};
use tokenscope_platform::certificate::Certificate;

use super::jwk::{InvalidJwks, PublicJwk, read};

/// The members of a key that are private, or a secret by themselves (RFC 7518 §6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];
/// The longest certificate, in bytes of DER. One of an RSA key of 8,192 bits has 2,300.
const MOST_CERTIFICATE_BYTES: usize = 4096;

/// The reason why a key set is not one of this issuer. No text repeats anything of a key but its place in the set.
#[derive(Debug, thiserror::Error)]
pub enum InvalidOwnSet {
    /// It is no key set.
    #[error(transparent)]
    Jwks(#[from] InvalidJwks),
    /// A key has a private part.
    #[error(
        "key {place} of the set has the private member {member:?}: nothing is published, and this key has leaked to whoever can read it there"
    )]
    Private {
        /// The place of the key in the set, from 1 on.
        place: usize,
        /// The member's name.
        member: &'static str,
    },
    /// The issuer makes no such key.
    #[error(
        "{0} of its keys are none that tokenscope's issuer makes: for signatures, and named by their thumbprint (RFC 7638)"
    )]
    Foreign(usize),
    /// A key's certificate is that of another key, or none.
    #[error("x5c of key {0:?} is not one certificate of this key")]
    Certificate(Box<str>),
}

/// Reads the key set that this issuer serves, with the certificates in it. At most one mebibyte should be given: the cost is linear.
pub fn read_own(text: &[u8]) -> Result<Vec<PublicJwk>, InvalidOwnSet> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Map<String, Value>>,
    }
    let set: Set = serde_json::from_slice(text).map_err(InvalidJwks::Json)?;
    for (at, key) in set.keys.iter().enumerate() {
        if let Some(member) = PRIVATE.into_iter().find(|member| key.contains_key(*member)) {
            return Err(InvalidOwnSet::Private { place: at + 1, member });
        }
    }
    let keys = read(text, None)?;
    let own = keys.iter().filter(|key| key.is_named_by_thumbprint()).count();
    if own < set.keys.len() {
        return Err(InvalidOwnSet::Foreign(set.keys.len() - own));
    }
    // Every key was usable, so both lists are of the same keys in the same order.
    let pairs = keys.into_iter().zip(&set.keys);
    pairs.map(|(key, members)| certified(key, members.get("x5c"))).collect()
}

fn certified(key: PublicJwk, x5c: Option<&Value>) -> Result<PublicJwk, InvalidOwnSet> {
    let Some(x5c) = x5c else { return Ok(key) };
    match certificate(&key, x5c) {
        Some(certificate) => Ok(key.certified(&certificate)),
        None => Err(InvalidOwnSet::Certificate(key.kid().into())),
    }
}

/// The one certificate, if it is of this key.
fn certificate(key: &PublicJwk, x5c: &Value) -> Option<Vec<u8>> {
    let [text] = x5c.as_array()?.as_slice() else {
        return None;
    };
    let der = STANDARD.decode(text.as_str()?).ok()?;
    if der.len() > MOST_CERTIFICATE_BYTES {
        return None;
    }
    let certificate = Certificate::from_der(CertificateDer::from(der)).ok()?;
    let (der, number) = (certificate.der(), key.number());
    der.windows(number.len().max(1))
        .any(|window| window == number)
        .then(|| der.to_vec())
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokenscope_core::Algorithm;

    use super::*;
    use crate::keys::{SigningKey, document};

    fn set(change: impl Fn(&mut Value)) -> Vec<u8> {
        let key = SigningKey::generate(Algorithm::ES256).unwrap().certified().unwrap();
        let mut set: Value = serde_json::from_str(&document([&key])).unwrap();
        change(&mut set["keys"][0]);
        set.to_string().into_bytes()
    }

    #[test]
    fn what_the_issuer_writes_comes_back_the_same_with_its_certificates() {
        let keys = Algorithm::ALL.map(|algorithm| SigningKey::generate(algorithm).unwrap());
        let plain = keys.iter().map(|key| key.public().clone());
        let certified = keys.iter().map(|key| key.certified().unwrap());
        for keys in [plain.collect::<Vec<_>>(), certified.collect()] {
            assert_eq!(read_own(document(&keys).as_bytes()).unwrap(), keys);
        }
    }

    #[test]
    fn a_private_member_of_a_key_refuses_the_set_and_is_not_repeated() {
        for member in PRIVATE {
            let error = read_own(&set(|key| key[member] = json!("the-secret"))).unwrap_err();
            let text = format!("{error} {error:?}");
            assert!(
                text.contains(&format!("{member:?}")) && !text.contains("the-secret"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_key_that_the_issuer_would_not_make_refuses_the_set() {
        for foreign in [
            set(|key| key["kid"] = json!("mine")),
            set(|key| key["use"] = json!("enc")),
            set(|key| key["kty"] = json!("OKP")),
        ] {
            let error = read_own(&foreign).unwrap_err();
            let refused = matches!(
                error,
                InvalidOwnSet::Foreign(1) | InvalidOwnSet::Jwks(InvalidJwks::Empty)
            );
            assert!(refused, "{error}");
        }
    }

    #[test]
    fn a_certificate_of_another_key_or_a_list_of_them_refuses_the_set() {
        let other = SigningKey::generate(Algorithm::ES256).unwrap().certified().unwrap();
        let other: Value = serde_json::from_str(&document([&other])).unwrap();
        let other = other["keys"][0]["x5c"].clone();
        for x5c in [
            other,
            json!([]),
            json!(["a", "b"]),
            json!(["no certificate"]),
            json!("text"),
        ] {
            let error = read_own(&set(|key| key["x5c"] = x5c.clone())).unwrap_err();
            assert!(matches!(error, InvalidOwnSet::Certificate(_)), "{x5c}: {error}");
        }
    }
}

//! Public keys as JSON (RFC 7517, RFC 7518) and their identifiers (RFC 7638).
//!
//! Written here because few members are read, each with a bound. The program has no library for JWTs; the tests read these keys with one
//! (jsonwebtoken). No figure was measured.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

/// The most RSA and the most EC keys that AWS takes of an issuer (IAM User Guide, "Create an OpenID Connect (OIDC) identity provider
/// in IAM").
pub const MOST_KEYS_OF_A_KIND: usize = 100;
/// The longest identifier of a key (KEP-740, which has the same bound).
const MOST_KID_BYTES: usize = 1024;
/// RSA keys of 2,048 to 8,192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A public key for signatures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PublicJwk {
    kid: Box<str>,
    #[serde(rename = "use")]
    usage: &'static str,
    alg: &'static str,
    #[serde(flatten)]
    pub(super) material: Material,
    /// A certificate of the key in base64, for those who read keys from nothing else (RFC 7517 §4.7).
    #[serde(rename = "x5c", skip_serializing_if = "Option::is_none")]
    certificate: Option<[Box<str>; 1]>,
}

/// The members of the key, in unpadded base64url.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "kty")]
pub(super) enum Material {
    #[serde(rename = "RSA")]
    Rsa { n: Box<str>, e: Box<str> },
    #[serde(rename = "EC")]
    Ec {
        crv: &'static str,
        x: Box<str>,
        y: Box<str>,
    },
}

impl PublicJwk {
    /// An RSA key of these big-endian numbers.
    pub(super) fn rsa(modulus: &[u8], exponent: &[u8]) -> Self {
        Self::new(Material::Rsa {
            n: encode(modulus),
            e: encode(exponent),
        })
    }

    /// A key on a curve, as an uncompressed point.
    pub(super) fn ec(crv: &'static str, point: &[u8]) -> Self {
        // The first byte says that the point is not compressed (SEC 1 §2.3.3).
        let coordinates = point.get(1..).unwrap_or_default();
        let (x, y) = coordinates.split_at(coordinates.len() / 2);
        Self::new(Material::Ec {
            crv,
            x: encode(x),
            y: encode(y),
        })
    }

    fn new(material: Material) -> Self {
        Self::named(material.thumbprint(), material)
    }

    fn named(kid: Box<str>, material: Material) -> Self {
        Self {
            kid,
            usage: "sig",
            alg: material.algorithm(),
            material,
            certificate: None,
        }
    }

    /// The same with a certificate of the key, in DER.
    pub(super) fn certified(self, certificate: &[u8]) -> Self {
        Self {
            certificate: Some([STANDARD.encode(certificate).into()]),
            ..self
        }
    }

    /// True if its identifier is the thumbprint of RFC 7638, as that of every key of ours is.
    pub(super) fn is_named_by_thumbprint(&self) -> bool {
        self.kid == self.material.thumbprint()
    }

    /// The number or the coordinate that makes the key, in big-endian bytes.
    pub(super) fn number(&self) -> Vec<u8> {
        let (Material::Rsa { n: text, .. } | Material::Ec { x: text, .. }) = &self.material;
        // What is in a key was decoded when it was read, or encoded when it was made.
        URL_SAFE_NO_PAD.decode(&**text).unwrap_or_default()
    }

    /// Its identifier.
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The one algorithm that it is for.
    pub fn algorithm(&self) -> &'static str {
        self.alg
    }

    /// True if it is an RSA key; otherwise it is one on a curve.
    pub fn is_rsa(&self) -> bool {
        matches!(self.material, Material::Rsa { .. })
    }
}

impl Material {
    fn algorithm(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RS256",
            Self::Ec { crv: "P-256", .. } => "ES256",
            Self::Ec { crv: "P-384", .. } => "ES384",
            Self::Ec { .. } => "ES512",
        }
    }

    /// RFC 7638 §3: the members that make the key, in the order of their names, without spaces.
    fn thumbprint(&self) -> Box<str> {
        let canonical = match self {
            Self::Rsa { n, e } => format!(r#"{{"e":"{e}","kty":"RSA","n":"{n}"}}"#),
            Self::Ec { crv, x, y } => format!(r#"{{"crv":"{crv}","kty":"EC","x":"{x}","y":"{y}"}}"#),
        };
        encode(digest(&SHA256, canonical.as_bytes()).as_ref())
    }
}

fn encode(bytes: &[u8]) -> Box<str> {
    URL_SAFE_NO_PAD.encode(bytes).into()
}

/// A key set as JSON text.
pub fn document<'a>(keys: impl IntoIterator<Item = &'a PublicJwk>) -> String {
    #[derive(Serialize)]
    struct Set<'a> {
        keys: Vec<&'a PublicJwk>,
    }
    let keys = keys.into_iter().collect();
    // Texts always serialise.
    serde_json::to_string(&Set { keys }).unwrap_or_default()
}

/// The reason why a text is no key set that can be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidJwks {
    /// It is no JSON of that form.
    #[error("it is no JSON Web Key Set")]
    Json(#[source] serde_json::Error),
    /// It has too many keys.
    #[error("it has {0} keys, and at most {most} are taken", most = 2 * MOST_KEYS_OF_A_KIND)]
    TooMany(usize),
    /// Two different keys have one identifier.
    #[error("two different keys of it have the identifier {0:?}")]
    SameKid(Box<str>),
    /// It has no key that can be used.
    #[error("it has no RSA or EC key with an identifier that is for signatures")]
    Empty,
}

/// Reads a key set. Keys for encryption, of other kinds, of other algorithms or without an identifier are left out (RFC 7517
/// §5), and so is everything of a key that is not public. A key that is there again counts once: an API server publishes it as often as
/// its flags name it.
///
/// `usage` is what `use` may say beside `sig`; SPIFFE bundles say `jwt-svid`.
pub fn read(text: &[u8], usage: Option<&str>) -> Result<Vec<PublicJwk>, InvalidJwks> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<ForeignJwk>,
    }
    let set: Set = serde_json::from_slice(text).map_err(InvalidJwks::Json)?;
    if set.keys.len() > 2 * MOST_KEYS_OF_A_KIND {
        return Err(InvalidJwks::TooMany(set.keys.len()));
    }
    let mut keys: Vec<PublicJwk> = Vec::with_capacity(set.keys.len());
    for key in set.keys.into_iter().filter_map(|key| key.usable(usage)) {
        let before = keys.iter().find(|other| other.kid == key.kid);
        match before {
            None => keys.push(key),
            Some(same) if *same == key => {}
            Some(_) => return Err(InvalidJwks::SameKid(key.kid)),
        }
    }
    if keys.is_empty() {
        return Err(InvalidJwks::Empty);
    }
    Ok(keys)
}

/// One key as it comes. Members with a private part are not read.
#[derive(Deserialize)]
struct ForeignJwk {
    kty: Box<str>,
    #[serde(default)]
    kid: Option<Box<str>>,
    #[serde(default)]
    alg: Option<Box<str>>,
    #[serde(default, rename = "use")]
    usage: Option<Box<str>>,
    #[serde(default)]
    crv: Option<Box<str>>,
    #[serde(default)]
    n: Option<Box<str>>,
    #[serde(default)]
    e: Option<Box<str>>,
    #[serde(default)]
    x: Option<Box<str>>,
    #[serde(default)]
    y: Option<Box<str>>,
}

impl ForeignJwk {
    fn usable(self, usage: Option<&str>) -> Option<PublicJwk> {
        if self
            .usage
            .is_some_and(|found| &*found != "sig" && Some(&*found) != usage)
        {
            return None;
        }
        let kid = self.kid.filter(|kid| !kid.is_empty() && kid.len() <= MOST_KID_BYTES)?;
        let material = match &*self.kty {
            "RSA" => rsa(&self.n?, &self.e?)?,
            "EC" => ec(&self.crv?, self.x?, self.y?)?,
            _ => return None,
        };
        let key = PublicJwk::named(kid, material);
        self.alg.is_none_or(|alg| *alg == *key.alg).then_some(key)
    }
}

fn rsa(n: &str, e: &str) -> Option<Material> {
    // Some write the sign's zero byte before the number. RFC 7518 §6.3.1.1 wants none.
    let number = |text: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes.get(zeros..)?.to_vec())
    };
    let (modulus, exponent) = (number(n)?, number(e)?);
    let fits = RSA_BYTES.contains(&modulus.len()) && (1..=8).contains(&exponent.len());
    fits.then(|| Material::Rsa {
        n: encode(&modulus),
        e: encode(&exponent),
    })
}

fn ec(crv: &str, x: Box<str>, y: Box<str>) -> Option<Material> {
    let (crv, bytes) = [("P-256", 32), ("P-384", 48), ("P-521", 66)]
        .into_iter()
        .find(|(name, _)| *name == crv)?;
    let fits = |text: &str| URL_SAFE_NO_PAD.decode(text).is_ok_and(|found| found.len() == bytes);
    (fits(&x) && fits(&y)).then_some(Material::Ec { crv, x, y })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_example_in_rfc_7638() {
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let material = Material::Rsa {
            n: n.into(),
            e: "AQAB".into(),
        };
        assert_eq!(&*material.thumbprint(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn of_a_foreign_key_set_only_public_parts_of_keys_for_signatures_are_kept() {
        let n = URL_SAFE_NO_PAD.encode([0xc1; 256]);
        let xy = URL_SAFE_NO_PAD.encode([7; 32]);
        let set = serde_json::json!({"keys": [
            {"kty": "RSA", "kid": "good", "use": "sig", "n": n, "e": "AQAB", "d": "secret", "x5u": "https://a.example"},
            {"kty": "RSA", "kid": "encryption", "use": "enc", "n": n, "e": "AQAB"},
            {"kty": "RSA", "kid": "other algorithm", "alg": "PS256", "n": n, "e": "AQAB"},
            {"kty": "RSA", "kid": "too short", "n": URL_SAFE_NO_PAD.encode([0xc1; 128]), "e": "AQAB"},
            {"kty": "RSA", "n": n, "e": "AQAB"},
            {"kty": "oct", "kid": "symmetric", "k": "AAAA"},
            {"kty": "OKP", "kid": "edwards", "crv": "Ed25519", "x": xy},
            {"kty": "EC", "kid": "short point", "crv": "P-384", "x": xy, "y": xy},
            {"kty": "EC", "kid": "spiffe", "use": "jwt-svid", "crv": "P-256", "x": xy, "y": xy},
        ]});
        let text = set.to_string();
        let kids = |keys: &[PublicJwk]| keys.iter().map(|key| key.kid().to_owned()).collect::<Vec<_>>();
        let keys = read(text.as_bytes(), None).unwrap();
        assert_eq!(kids(&keys), ["good"]);
        let published = document(&keys);
        assert!(
            !published.contains("secret") && !published.contains("x5u"),
            "{published}"
        );
        assert_eq!(
            kids(&read(text.as_bytes(), Some("jwt-svid")).unwrap()),
            ["good", "spiffe"]
        );
    }

    #[test]
    fn a_key_set_that_is_ambiguous_or_too_large_is_refused() {
        let set = |count: usize, kid: &dyn Fn(usize) -> String| {
            let n = |at: usize| URL_SAFE_NO_PAD.encode([if at.is_multiple_of(2) { 0xc1_u8 } else { 0xc3 }; 256]);
            let keys: Vec<_> = (0..count)
                .map(|at| serde_json::json!({"kty": "RSA", "kid": kid(at), "n": n(at), "e": "AQAB"}))
                .collect();
            serde_json::json!({ "keys": keys }).to_string()
        };
        let same = set(2, &|_| "same".to_owned());
        assert!(matches!(read(same.as_bytes(), None), Err(InvalidJwks::SameKid(_))));
        // The third is the first again, and the fourth the second.
        let again = set(4, &|at| (at % 2).to_string());
        assert_eq!(read(again.as_bytes(), None).unwrap().len(), 2);
        let many = set(201, &|at| at.to_string());
        assert!(matches!(read(many.as_bytes(), None), Err(InvalidJwks::TooMany(201))));
        assert!(matches!(read(br#"{"keys":[]}"#, None), Err(InvalidJwks::Empty)));
        assert!(matches!(read(b"[]", None), Err(InvalidJwks::Json(_))));
    }
}

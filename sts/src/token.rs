//! The web identity token: its form, its signature, its claims.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::request::is_name_character;
use crate::xml::AwsError;

/// How far clocks may differ, in seconds: after `exp`, and before `iat` and `nbf`.
const LEEWAY: i64 = 300;
/// A token older than this by `iat` is refused whatever its `exp` says, in seconds.
const MAX_AGE: i64 = 86_400;
/// Keys of one kind that an issuer may publish.
const MAX_KEYS: usize = 100;
const MAX_TAGS: usize = 50;

const TAGS: &str = "https://aws.amazon.com/tags";
const FLAT_TAG: &str = "https://aws.amazon.com/tags/principal_tags/";
const FLAT_TRANSITIVE: &str = "https://aws.amazon.com/tags/transitive_tag_keys";
const SOURCE_IDENTITY: &str = "https://aws.amazon.com/source_identity";

/// A token taken apart; nothing in it is proven yet. No Debug: it is a credential.
pub(crate) struct Unverified<'a> {
    pub(crate) key_id: String,
    pub(crate) issuer: String,
    algorithm: Algorithm,
    claims: Map<String, Value>,
    signed: &'a str,
    signature: Vec<u8>,
}

/// What a verified token says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verified {
    pub(crate) subject: String,
    /// `azp` if there is one, else the only `aud`.
    pub(crate) audience: String,
    /// `aud` as the token has it.
    pub(crate) original_audiences: Vec<String>,
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) source_identity: Option<String>,
}

/// The signature algorithms that IAM supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    Es512,
}

/// AWS's answer when it has no key to check a token with, whatever the cause.
pub(crate) fn no_verification_key() -> AwsError {
    AwsError::invalid_token(
        "Couldn't retrieve verification key from your identity provider, please reference \
         AssumeRoleWithWebIdentity documentation for requirements",
    )
}

/// Reads the compact form (RFC 7515 §7.1).
pub(crate) fn parse(token: &str) -> Result<Unverified<'_>, AwsError> {
    #[derive(Deserialize)]
    struct Header {
        alg: String,
        kid: Option<String>,
        crit: Option<Value>,
    }
    let no_jwt = || {
        AwsError::invalid_token(
            "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)",
        )
    };
    let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| no_jwt());

    let (signed, signature) = token.rsplit_once('.').ok_or_else(no_jwt)?;
    let (header, claims) = signed.split_once('.').ok_or_else(no_jwt)?;
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| no_jwt())?;
    let claims: Map<String, Value> = serde_json::from_slice(&decode(claims)?).map_err(|_| no_jwt())?;
    // AWS answers an algorithm outside its list (EdDSA, PS*, HS*, none) like something that is no JWT at all.
    let algorithm = Algorithm::parse(&header.alg)
        .filter(|_| header.crit.is_none())
        .ok_or_else(no_jwt)?;
    let signature = decode(signature)?;
    let issuer = text_claim(&claims, "iss")?.ok_or_else(|| missing("iss"))?.to_owned();
    let key_id = header
        .kid
        .filter(|kid| !kid.is_empty())
        .ok_or_else(no_verification_key)?;
    Ok(Unverified {
        key_id,
        issuer,
        algorithm,
        claims,
        signed,
        signature,
    })
}

/// Checks the signature with the issuer's key and then the claims. `client_ids` are those of the registered provider.
pub(crate) fn verify(
    token: &Unverified<'_>,
    key: &Key,
    client_ids: &[String],
    now: Timestamp,
) -> Result<Verified, AwsError> {
    if !key.verifies(token.algorithm, token.signed.as_bytes(), &token.signature) {
        return Err(AwsError::invalid_token("Invalid token signature"));
    }
    check_claims(&token.claims, client_ids, now)
}

fn check_claims(claims: &Map<String, Value>, client_ids: &[String], now: Timestamp) -> Result<Verified, AwsError> {
    let subject = text_claim(claims, "sub")?.ok_or_else(|| missing("sub"))?;
    let original_audiences = audiences(claims)?;
    let issued = time_claim(claims, "iat")?.ok_or_else(|| missing("iat"))?;
    let expires = time_claim(claims, "exp")?.ok_or_else(|| missing("exp"))?;
    let not_before = time_claim(claims, "nbf")?;

    let now = now.as_second();
    if now > expires.saturating_add(LEEWAY) {
        let message =
            format!("Token expired: current date/time {now} must be before the expiration date/time {expires}");
        return Err(AwsError::new(400, "ExpiredTokenException", message));
    }
    if issued > now + LEEWAY {
        return Err(AwsError::invalid_token("Token was issued in the future"));
    }
    if not_before.is_some_and(|not_before| not_before > now + LEEWAY) {
        return Err(AwsError::invalid_token("Token is not valid yet"));
    }
    let age = now.saturating_sub(issued);
    if age > MAX_AGE {
        return Err(AwsError::new(
            400,
            "ExpiredTokenException",
            format!("Token too old: {age}"),
        ));
    }

    let audience = match (text_claim(claims, "azp")?, original_audiences.as_slice()) {
        (Some(authorized_party), _) => authorized_party,
        (None, [only]) => only,
        (None, _) => {
            let message = "Token audience contains more than one audience while authorized party is not present";
            return Err(AwsError::invalid_token(message));
        }
    };
    if !client_ids.iter().any(|client_id| client_id == audience) {
        return Err(AwsError::invalid_token("Incorrect token audience"));
    }
    // SubjectFromWebIdentityToken in the answer has these bounds.
    if !(6..=255).contains(&subject.chars().count()) {
        return Err(AwsError::invalid_token("The sub claim must have 6 to 255 characters"));
    }
    let (tags, transitive_tag_keys) = session_tags(claims)?;
    Ok(Verified {
        subject: subject.to_owned(),
        audience: audience.to_owned(),
        tags,
        transitive_tag_keys,
        source_identity: source_identity(claims)?,
        original_audiences,
    })
}

fn missing(claim: &str) -> AwsError {
    AwsError::invalid_token(format!("Missing a required claim: {claim}"))
}

fn wrong(claim: &str, rule: &str) -> AwsError {
    AwsError::invalid_token(format!("Invalid claim {claim}: {rule}"))
}

fn text_claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, AwsError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(wrong(name, "must be a string")),
    }
}

/// AWS takes integer timestamps only.
fn time_claim(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, AwsError> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value
            .as_i64()
            .map(Some)
            .ok_or_else(|| wrong(name, "must be an integer of seconds")),
    }
}

fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, AwsError> {
    let list = match claims.get("aud") {
        None | Some(Value::Null) => return Err(missing("aud")),
        Some(Value::String(only)) => vec![only.clone()],
        Some(Value::Array(list)) => {
            strings(list).ok_or_else(|| wrong("aud", "must be a string or a list of strings"))?
        }
        Some(_) => return Err(wrong("aud", "must be a string or a list of strings")),
    };
    if list.is_empty() { Err(missing("aud")) } else { Ok(list) }
}

fn strings(list: &[Value]) -> Option<Vec<String>> {
    list.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// Session tags in the nested form, whose values are lists of exactly one string, or in the flattened form, whose
/// values are plain strings. A token with both forms is refused: AWS doesn't say which one counts.
fn session_tags(claims: &Map<String, Value>) -> Result<(BTreeMap<String, String>, Vec<String>), AwsError> {
    let flat: Vec<_> = claims
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(FLAT_TAG)?, value)))
        .collect();
    let flat_transitive = claims.get(FLAT_TRANSITIVE);
    let (pairs, transitive) = match claims.get(TAGS) {
        Some(_) if !flat.is_empty() || flat_transitive.is_some() => {
            return Err(wrong(TAGS, "tags are there nested and flattened"));
        }
        Some(nested) => {
            let tags = match nested.get("principal_tags") {
                None => Vec::new(),
                Some(Value::Object(tags)) => tags.iter().collect(),
                Some(_) => return Err(wrong(TAGS, "principal_tags must be an object")),
            };
            let single = tags
                .into_iter()
                .map(|(key, value)| match value.as_array().map(Vec::as_slice) {
                    Some([Value::String(only)]) => Ok((key.as_str(), only.as_str())),
                    _ => Err(wrong(
                        TAGS,
                        &format!("the value of {key} must be a list of exactly one string"),
                    )),
                });
            (
                single.collect::<Result<Vec<_>, _>>()?,
                nested.get("transitive_tag_keys"),
            )
        }
        None => {
            let plain = flat.into_iter().map(|(key, value)| {
                let value = value
                    .as_str()
                    .ok_or_else(|| wrong(TAGS, &format!("the value of {key} must be a string")))?;
                Ok((key, value))
            });
            (plain.collect::<Result<Vec<_>, AwsError>>()?, flat_transitive)
        }
    };
    if pairs.len() > MAX_TAGS {
        return Err(wrong(TAGS, "more than 50 tags"));
    }
    let mut tags = BTreeMap::new();
    for (key, value) in pairs {
        if !(1..=128).contains(&key.chars().count()) || !key.chars().all(is_tag_character) {
            return Err(wrong(
                TAGS,
                &format!(r"the key `{key}` must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{1,128}}"),
            ));
        }
        if value.chars().count() > 256 || !value.chars().all(is_tag_character) {
            return Err(wrong(
                TAGS,
                &format!(r"the value of {key} must match [\p{{L}}\p{{Z}}\p{{N}}_.:/=+\-@]{{0,256}}"),
            ));
        }
        if [key, value].iter().any(|text| text.to_lowercase().starts_with("aws:")) {
            return Err(wrong(TAGS, &format!("{key}: keys and values must not begin with aws:")));
        }
        if tags
            .keys()
            .any(|other: &String| other.to_lowercase() == key.to_lowercase())
        {
            return Err(wrong(
                TAGS,
                "Duplicate tag keys found. Please note that Tag keys are case insensitive.",
            ));
        }
        tags.insert(key.to_owned(), value.to_owned());
    }
    let transitive = match transitive {
        None => Vec::new(),
        Some(Value::Array(list)) => strings(list).ok_or_else(|| wrong(TAGS, "transitive_tag_keys must be strings"))?,
        Some(_) => return Err(wrong(TAGS, "transitive_tag_keys must be a list")),
    };
    match transitive
        .iter()
        .find(|key| !tags.keys().any(|tag| tag.to_lowercase() == key.to_lowercase()))
    {
        Some(key) => Err(wrong(
            TAGS,
            &format!("the transitive tag key {key} is not among the tags"),
        )),
        None => Ok((tags, transitive)),
    }
}

fn source_identity(claims: &Map<String, Value>) -> Result<Option<String>, AwsError> {
    let Some(text) = text_claim(claims, SOURCE_IDENTITY)? else {
        return Ok(None);
    };
    let valid = (2..=64).contains(&text.len()) && text.chars().all(is_name_character) && !text.starts_with("aws:");
    if valid {
        Ok(Some(text.to_owned()))
    } else {
        Err(wrong(SOURCE_IDENTITY, r"must match [\w+=,.@-]{2,64}"))
    }
}

/// `[\p{L}\p{Z}\p{N}_.:/=+\-@]`; the standard library's letters include a few combining marks that \p{L} does not.
fn is_tag_character(c: char) -> bool {
    c.is_alphanumeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

impl Algorithm {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            _ => return None,
        })
    }
}

/// A public key out of a JWKS.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    /// The only algorithm it is meant for, if it says so.
    algorithm: Option<String>,
    public: PublicKey,
}

#[derive(Clone, Debug)]
enum PublicKey {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// An uncompressed point.
    Ec {
        curve: String,
        point: Vec<u8>,
    },
}

impl Key {
    /// One algorithm, the header's, with exactly the kind of key that it needs: a key is never tried with another.
    fn verifies(&self, algorithm: Algorithm, message: &[u8], signature: &[u8]) -> bool {
        if self
            .algorithm
            .as_deref()
            .is_some_and(|only| Algorithm::parse(only) != Some(algorithm))
        {
            return false;
        }
        let checked = match (&self.public, algorithm) {
            (PublicKey::Rsa { modulus, exponent }, Algorithm::Rs256 | Algorithm::Rs384 | Algorithm::Rs512) => {
                let parameters = match algorithm {
                    Algorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    Algorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents {
                    n: modulus,
                    e: exponent,
                }
                .verify(parameters, message, signature)
            }
            (PublicKey::Ec { curve, point }, _) => {
                let parameters = match (curve.as_str(), algorithm) {
                    ("P-256", Algorithm::Es256) => &ECDSA_P256_SHA256_FIXED,
                    ("P-384", Algorithm::Es384) => &ECDSA_P384_SHA384_FIXED,
                    ("P-521", Algorithm::Es512) => &ECDSA_P521_SHA512_FIXED,
                    _ => return false,
                };
                UnparsedPublicKey::new(parameters, point).verify(message, signature)
            }
            _ => return false,
        };
        checked.is_ok()
    }
}

/// An issuer's published keys by `kid`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys(HashMap<String, Key>);

impl Keys {
    /// Reads a JWKS (RFC 7517 §5). The error says why AWS would not take it.
    pub(crate) fn parse(jwks: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        let set: Set = serde_json::from_slice(jwks).map_err(|error| format!("not a JWKS: {error}"))?;
        let count = |kind: &str| set.keys.iter().filter(|key| key.kty == kind).count();
        let (rsa, ec) = (count("RSA"), count("EC"));
        if rsa > MAX_KEYS || ec > MAX_KEYS {
            return Err(format!(
                "{rsa} RSA and {ec} EC keys: at most {MAX_KEYS} of each are allowed"
            ));
        }
        if rsa + ec == 0 {
            return Err("no RSA and no EC key".to_owned());
        }
        Ok(Self(set.keys.into_iter().filter_map(Jwk::usable).collect()))
    }

    pub(crate) fn find(&self, key_id: &str) -> Option<&Key> {
        self.0.get(key_id)
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwk {
    /// `None` for a key that no token can name or that is not for signatures.
    fn usable(self) -> Option<(String, Key)> {
        if self.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: Option<String>| URL_SAFE_NO_PAD.decode(text?).ok();
        let public = match self.kty.as_str() {
            "RSA" => {
                let (mut modulus, exponent) = (decode(self.n)?, decode(self.e)?);
                let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
                modulus.drain(..zeros);
                PublicKey::Rsa { modulus, exponent }
            }
            "EC" => PublicKey::Ec {
                curve: self.crv?,
                point: [vec![4], decode(self.x)?, decode(self.y)?].concat(),
            },
            _ => return None,
        };
        Some((
            self.kid?,
            Key {
                algorithm: self.alg,
                public,
            },
        ))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512,
        RsaEncoding, RsaKeyPair,
    };
    use serde_json::json;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn claims(changes: &Value) -> Map<String, Value> {
        let mut claims = json!({
            "iss": "https://a.test", "sub": "system:serviceaccount:shop:orders", "aud": ["sts.amazonaws.com"],
            "iat": NOW - 60, "exp": NOW + 3600, "nbf": NOW - 60,
        });
        let claims = claims.as_object_mut().unwrap();
        for (name, value) in changes.as_object().unwrap() {
            claims.insert(name.clone(), value.clone());
        }
        claims.retain(|_, value| !value.is_null());
        std::mem::take(claims)
    }

    fn check(changes: &Value) -> Result<Verified, AwsError> {
        let client_ids = ["sts.amazonaws.com".to_owned(), "party".to_owned()];
        check_claims(&claims(changes), &client_ids, now())
    }

    fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    fn jwt(header: &Value, claims: &Map<String, Value>, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let encode = |value: &[u8]| URL_SAFE_NO_PAD.encode(value);
        let signed = format!(
            "{}.{}",
            encode(header.to_string().as_bytes()),
            encode(&serde_json::to_vec(claims).unwrap())
        );
        format!("{signed}.{}", encode(&sign(signed.as_bytes())))
    }

    #[test]
    fn every_claim_rule_has_its_code_and_text() {
        let many_tags: Map<String, Value> = (0..51).map(|n| (format!("k{n}"), json!(["v"]))).collect();
        let tags = |tags: Value| json!({ (TAGS): tags });
        for (changes, code, text) in [
            (
                json!({"sub": null}),
                "InvalidIdentityToken",
                "Missing a required claim: sub",
            ),
            (
                json!({"aud": null}),
                "InvalidIdentityToken",
                "Missing a required claim: aud",
            ),
            (
                json!({"aud": []}),
                "InvalidIdentityToken",
                "Missing a required claim: aud",
            ),
            (
                json!({"iat": null}),
                "InvalidIdentityToken",
                "Missing a required claim: iat",
            ),
            (
                json!({"exp": null}),
                "InvalidIdentityToken",
                "Missing a required claim: exp",
            ),
            (json!({"aud": 7}), "InvalidIdentityToken", "Invalid claim aud"),
            (json!({"exp": 1.8e9}), "InvalidIdentityToken", "Invalid claim exp"),
            (
                json!({"iat": "1800000000"}),
                "InvalidIdentityToken",
                "Invalid claim iat",
            ),
            (
                json!({"exp": NOW - 301}),
                "ExpiredTokenException",
                "Token expired: current date/time 1800000000 must be before the expiration date/time 1799999699",
            ),
            (
                json!({"iat": NOW + 301}),
                "InvalidIdentityToken",
                "Token was issued in the future",
            ),
            (
                json!({"nbf": NOW + 301}),
                "InvalidIdentityToken",
                "Token is not valid yet",
            ),
            (
                json!({"iat": NOW - 86_401}),
                "ExpiredTokenException",
                "Token too old: 86401",
            ),
            (json!({"iat": i64::MIN}), "ExpiredTokenException", "Token too old: "),
            (
                json!({"aud": "other"}),
                "InvalidIdentityToken",
                "Incorrect token audience",
            ),
            (
                json!({"azp": "other"}),
                "InvalidIdentityToken",
                "Incorrect token audience",
            ),
            (
                json!({"aud": ["sts.amazonaws.com", "b"]}),
                "InvalidIdentityToken",
                "Token audience contains more than one audience while authorized party is not present",
            ),
            (
                json!({"sub": "short"}),
                "InvalidIdentityToken",
                "The sub claim must have 6 to 255 characters",
            ),
            (
                json!({"sub": "s".repeat(256)}),
                "InvalidIdentityToken",
                "The sub claim must have 6 to 255 characters",
            ),
            (
                tags(json!({"principal_tags": []})),
                "InvalidIdentityToken",
                "Invalid claim https://aws.amazon.com/tags: principal_tags must be an object",
            ),
            (
                tags(json!({"principal_tags": {"a": "v"}})),
                "InvalidIdentityToken",
                "the value of a must be a list of exactly one string",
            ),
            (
                tags(json!({"principal_tags": {"a": ["v", "w"]}})),
                "InvalidIdentityToken",
                "the value of a must be a list of exactly one string",
            ),
            (
                tags(json!({"principal_tags": {"a": ["1"], "A": ["2"]}})),
                "InvalidIdentityToken",
                "Duplicate tag keys found",
            ),
            (
                tags(json!({"principal_tags": {"aws:a": ["1"]}})),
                "InvalidIdentityToken",
                "must not begin with aws:",
            ),
            (
                tags(json!({"principal_tags": {"a": ["AWS:1"]}})),
                "InvalidIdentityToken",
                "must not begin with aws:",
            ),
            (
                tags(json!({"principal_tags": {"a#": ["1"]}})),
                "InvalidIdentityToken",
                "the key `a#` must match",
            ),
            (
                tags(json!({"principal_tags": {"": ["1"]}})),
                "InvalidIdentityToken",
                "the key `` must match",
            ),
            (
                tags(json!({"principal_tags": {"a": ["v".repeat(257)]}})),
                "InvalidIdentityToken",
                "the value of a must match",
            ),
            (
                tags(json!({"principal_tags": {"k".repeat(129): ["v"]}})),
                "InvalidIdentityToken",
                "must match",
            ),
            (
                tags(json!({"principal_tags": many_tags})),
                "InvalidIdentityToken",
                "more than 50 tags",
            ),
            (
                tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": ["b"]})),
                "InvalidIdentityToken",
                "the transitive tag key b is not among the tags",
            ),
            (
                tags(json!({"principal_tags": {"a": ["1"]}, "transitive_tag_keys": "a"})),
                "InvalidIdentityToken",
                "transitive_tag_keys must be a list",
            ),
            (
                json!({ (format!("{FLAT_TAG}a")): ["1"] }),
                "InvalidIdentityToken",
                "the value of a must be a string",
            ),
            (
                json!({ (format!("{FLAT_TAG}a")): "1", (TAGS): {} }),
                "InvalidIdentityToken",
                "nested and flattened",
            ),
            (
                json!({ (SOURCE_IDENTITY): "a:b" }),
                "InvalidIdentityToken",
                "https://aws.amazon.com/source_identity: must match",
            ),
            (
                json!({ (SOURCE_IDENTITY): "x" }),
                "InvalidIdentityToken",
                "https://aws.amazon.com/source_identity: must match",
            ),
            (
                json!({ (SOURCE_IDENTITY): ["admin"] }),
                "InvalidIdentityToken",
                "must be a string",
            ),
        ] {
            let error = check(&changes).unwrap_err();
            assert_eq!((error.status, error.code), (400, code), "{changes}: {error}");
            assert!(error.message.contains(text), "{changes}: {error}");
        }
    }

    #[test]
    fn the_edges_of_leeway_and_age_are_accepted() {
        for changes in [
            json!({"exp": NOW - 300}),
            json!({"iat": NOW + 300}),
            json!({"nbf": NOW + 300}),
            json!({"nbf": null}),
            json!({"iat": NOW - 86_400}),
            json!({"aud": "sts.amazonaws.com"}),
            json!({"sub": "sixsix"}),
        ] {
            assert!(check(&changes).is_ok(), "{changes}: {:?}", check(&changes));
        }
    }

    #[test]
    fn the_authorized_party_is_the_audience_and_the_audiences_stay_known() {
        let identity = check(&json!({"azp": "party", "aud": ["a", "b"]})).unwrap();
        assert_eq!(identity.audience, "party");
        assert_eq!(identity.original_audiences, ["a", "b"]);
    }

    #[test]
    fn both_forms_of_session_tags_say_the_same() {
        let nested = check(&json!({ (TAGS): {
            "principal_tags": {"Team": ["Müll abfuhr"], "Empty": [""]}, "transitive_tag_keys": ["team"]}}));
        let flat = check(&json!({
            (format!("{FLAT_TAG}Team")): "Müll abfuhr", (format!("{FLAT_TAG}Empty")): "", (FLAT_TRANSITIVE): ["team"],
            (SOURCE_IDENTITY): "shop.orders"}));
        let (nested, flat) = (nested.unwrap(), flat.unwrap());
        assert_eq!(
            nested.tags,
            BTreeMap::from([("Empty".into(), String::new()), ("Team".into(), "Müll abfuhr".into())])
        );
        assert_eq!(
            (&nested.tags, &nested.transitive_tag_keys),
            (&flat.tags, &flat.transitive_tag_keys)
        );
        assert_eq!(
            (nested.source_identity, flat.source_identity.as_deref()),
            (None, Some("shop.orders"))
        );
    }

    #[test]
    fn only_the_six_algorithms_of_aws_are_jwts_and_a_kid_is_needed() {
        let signature = |_: &[u8]| b"x".to_vec();
        let header = |algorithm: &str| json!({"alg": algorithm, "kid": "k"});
        for algorithm in ["none", "HS256", "PS256", "EdDSA", "rs256"] {
            let error = parse(&jwt(&header(algorithm), &claims(&json!({})), signature))
                .err()
                .unwrap();
            assert!(
                error.message.starts_with("The ID Token provided is not a valid JWT."),
                "{algorithm}: {error}"
            );
        }
        for text in ["nonsense", "a.b", "a.b.c", "....", "e30.e30.e30.e30"] {
            assert!(
                parse(text)
                    .err()
                    .unwrap()
                    .message
                    .starts_with("The ID Token provided is not a valid JWT.")
            );
        }
        let critical = json!({"alg": "RS256", "kid": "k", "crit": ["exp"]});
        assert!(parse(&jwt(&critical, &claims(&json!({})), signature)).is_err());
        let no_key = parse(&jwt(&json!({"alg": "RS256"}), &claims(&json!({})), signature))
            .err()
            .unwrap();
        assert_eq!(no_key, no_verification_key());
        let no_issuer = parse(&jwt(&header("RS256"), &claims(&json!({"iss": null})), signature))
            .err()
            .unwrap();
        assert_eq!(no_issuer.message, "Missing a required claim: iss");
    }

    #[test]
    fn each_algorithm_verifies_with_its_own_key_and_with_no_other() {
        let random = SystemRandom::new();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwks = Vec::new();
        let mut tokens = Vec::new();

        let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (n, e) = (rsa.public_key().modulus(), rsa.public_key().exponent());
        jwks.push(
            json!({"kty": "RSA", "kid": "rsa", "use": "sig", "n": text(n.big_endian_without_leading_zero()),
            "e": text(e.big_endian_without_leading_zero())}),
        );
        let encodings: [(&str, &'static dyn RsaEncoding); 3] = [
            ("RS256", &RSA_PKCS1_SHA256),
            ("RS384", &RSA_PKCS1_SHA384),
            ("RS512", &RSA_PKCS1_SHA512),
        ];
        for (algorithm, encoding) in encodings {
            tokens.push(jwt(
                &json!({"alg": algorithm, "kid": "rsa"}),
                &claims(&json!({})),
                |message| {
                    let mut signature = vec![0; rsa.public_modulus_len()];
                    rsa.sign(encoding, &random, message, &mut signature).unwrap();
                    signature
                },
            ));
        }
        let curves: [(&str, &str, &'static EcdsaSigningAlgorithm); 3] = [
            ("ES256", "P-256", &ECDSA_P256_SHA256_FIXED_SIGNING),
            ("ES384", "P-384", &ECDSA_P384_SHA384_FIXED_SIGNING),
            ("ES512", "P-521", &ECDSA_P521_SHA512_FIXED_SIGNING),
        ];
        for (algorithm, curve, signing) in curves {
            let pair = EcdsaKeyPair::generate(signing).unwrap();
            let point = &pair.public_key().as_ref()[1..];
            let (x, y) = point.split_at(point.len() / 2);
            jwks.push(json!({"kty": "EC", "kid": curve, "crv": curve, "x": text(x), "y": text(y), "alg": algorithm}));
            tokens.push(jwt(
                &json!({"alg": algorithm, "kid": curve}),
                &claims(&json!({})),
                |message| pair.sign(&random, message).unwrap().as_ref().to_vec(),
            ));
        }

        let keys = Keys::parse(json!({ "keys": jwks }).to_string().as_bytes()).unwrap();
        let client_ids = ["sts.amazonaws.com".to_owned()];
        for token in &tokens {
            let unverified = parse(token).unwrap();
            for (key_id, key) in &keys.0 {
                let verified = verify(&unverified, key, &client_ids, now());
                assert_eq!(
                    verified.is_ok(),
                    *key_id == unverified.key_id,
                    "{key_id}: {:?}",
                    unverified.algorithm
                );
            }
            let (head, _) = token.rsplit_once('.').unwrap();
            let (other, _) = tokens
                .iter()
                .find(|other| *other != token)
                .unwrap()
                .rsplit_once('.')
                .unwrap();
            let swapped = token.replace(head, other);
            let unverified = Unverified {
                signed: other,
                ..parse(&swapped).unwrap()
            };
            let error = verify(&unverified, keys.find(&unverified.key_id).unwrap(), &client_ids, now()).unwrap_err();
            assert_eq!(error.message, "Invalid token signature");
        }
    }

    #[test]
    fn a_key_set_has_at_most_a_hundred_keys_of_a_kind_and_at_least_one() {
        let set = |kind: &str, count: usize| {
            let keys: Vec<_> = (0..count)
                .map(|n| json!({"kty": kind, "kid": n.to_string(), "n": "AQAB", "e": "AQAB"}))
                .collect();
            json!({ "keys": keys }).to_string()
        };
        assert_eq!(Keys::parse(set("RSA", 100).as_bytes()).unwrap().0.len(), 100);
        assert!(
            Keys::parse(set("RSA", 101).as_bytes())
                .unwrap_err()
                .starts_with("101 RSA and 0 EC keys")
        );
        assert!(
            Keys::parse(set("EC", 101).as_bytes())
                .unwrap_err()
                .starts_with("0 RSA and 101 EC keys")
        );
        assert_eq!(
            Keys::parse(set("OKP", 1).as_bytes()).unwrap_err(),
            "no RSA and no EC key"
        );
        assert!(Keys::parse(b"[]").unwrap_err().starts_with("not a JWKS"));
        let unusable = json!({"keys": [{"kty": "RSA", "kid": "k", "use": "enc", "n": "AQAB", "e": "AQAB"}]});
        assert!(
            Keys::parse(unusable.to_string().as_bytes())
                .unwrap()
                .find("k")
                .is_none()
        );
    }
}

//! Checks a token that a pod shows: issuer, signature, audience and lifetime. Needs aws-lc-rs, base64 and serde_json.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

const MOST_TOKEN_BYTES: usize = 20_000;
const MOST_LIFETIME: i64 = 86_400;
const LEEWAY: i64 = 30;

/// Why a token proves nothing. The text never contains the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub &'static str);

/// The claims of a token for `audience`. `keys_by_issuer` has the keys (a JWK Set) of each issuer that is trusted; `now` is in seconds
/// since the Unix epoch.
pub fn verify(
    token: &str,
    audience: &str,
    keys_by_issuer: &BTreeMap<String, Value>,
    now: i64,
) -> Result<Value, Refused> {
    let no_token = Refused("it is no token");
    let mut parts = token.split('.');
    let (Some(header), Some(payload), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(no_token);
    };
    if token.len() > MOST_TOKEN_BYTES {
        return Err(no_token);
    }
    let document = |part: &str| -> Option<Value> { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok() };
    // Only to choose the key: nothing is believed before the signature was checked with it.
    let (Some(head), Some(claims), Ok(signature)) =
        (document(header), document(payload), URL_SAFE_NO_PAD.decode(signature))
    else {
        return Err(no_token);
    };
    let issuer = claims["iss"].as_str().unwrap_or_default();
    let keys = keys_by_issuer.get(issuer).ok_or(Refused("the issuer is not trusted"))?;
    let keys = keys["keys"].as_array().map_or(&[][..], Vec::as_slice);
    let is_named = |key: &&Value| key["kid"].is_string() && key["kid"] == head["kid"];
    let key = keys
        .iter()
        .find(is_named)
        .ok_or(Refused("the issuer has no such key"))?;
    let message = [header, ".", payload].concat();
    if !is_signed(
        key,
        head["alg"].as_str().unwrap_or_default(),
        message.as_bytes(),
        &signature,
    ) {
        return Err(Refused("the signature is wrong"));
    }
    let is_ours = match &claims["aud"] {
        Value::String(one) => one == audience,
        Value::Array(several) => several.iter().any(|one| one == audience),
        _ => false,
    };
    if !is_ours {
        return Err(Refused("the token is for another audience"));
    }
    in_time(&claims, now)?;
    Ok(claims)
}

fn in_time(claims: &Value, now: i64) -> Result<(), Refused> {
    let (Some(expires), Some(issued), Some(_)) =
        (claims["exp"].as_i64(), claims["iat"].as_i64(), claims["sub"].as_str())
    else {
        return Err(Refused("the token has no exp, iat or sub"));
    };
    if now >= expires.saturating_add(LEEWAY) {
        return Err(Refused("the token has expired"));
    }
    if now.saturating_add(LEEWAY) < issued.max(claims["nbf"].as_i64().unwrap_or(issued)) {
        return Err(Refused("the token is not valid yet"));
    }
    if expires.saturating_sub(issued) > MOST_LIFETIME {
        return Err(Refused("the token is valid for more than a day"));
    }
    Ok(())
}

/// True if a signature is of this key. The key says which algorithm it is for, never the token alone.
fn is_signed(key: &Value, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
    let text = |name: &str| key[name].as_str().unwrap_or_default();
    let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)).unwrap_or_default();
    if !text("alg").is_empty() && text("alg") != algorithm {
        return false;
    }
    let on_curve = |curve| {
        let point = [&[4][..], &bytes("x"), &bytes("y")].concat();
        UnparsedPublicKey::new(curve, point).verify(message, signature).is_ok()
    };
    match (algorithm, text("kty"), text("crv")) {
        ("RS256", "RSA", _) => {
            let (n, e) = (bytes("n"), bytes("e"));
            let key = RsaPublicKeyComponents { n, e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
        }
        ("ES256", "EC", "P-256") => on_curve(&ECDSA_P256_SHA256_FIXED),
        ("ES384", "EC", "P-384") => on_curve(&ECDSA_P384_SHA384_FIXED),
        _ => false,
    }
}

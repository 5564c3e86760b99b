//! Tokens with every kind of fault.

mod claims;
mod signatures;

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

fn check(changes: &Value) -> Result<WebIdentity, AwsError> {
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

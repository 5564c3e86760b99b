//! The verdict on the claims of one token, without server, keys and signature: for tests of many tokens.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::condition::Facts;
use crate::config::{Provider, Role};
use crate::names::AssumableRole;
use crate::token;
use crate::trust::authorize;

/// Whether the role takes a token with these claims, as [`crate::Server`] decides it once the signature holds. The error is STS's
/// text, or what is wrong with the provider or the role.
pub fn judge(provider: &Provider, role: &Role, claims: &Map<String, Value>, now: Timestamp) -> Result<(), String> {
    let trust = role.check().map_err(|error| error.to_string())?.trust;
    let provider = provider.clone().checked().map_err(|error| error.to_string())?;
    let account = AssumableRole::parse(&role.arn).map(|role| role.account);
    if claims.get("iss").and_then(Value::as_str) != Some(&provider.url) || account.as_ref() != Some(&provider.account) {
        return Err("InvalidIdentityToken: No OpenIDConnect provider found in your account".to_owned());
    }
    let mut identity = token::check_claims(claims, &provider.client_ids, now).map_err(|error| error.to_string())?;
    let context = provider.context.as_ref();
    identity.propagated = context
        .map(|context| context.read(&identity.claims, &provider.url, &provider.arn))
        .transpose()
        .map_err(|error| error.to_string())?;
    let facts = Facts::new(&provider.url, &identity, "session", now);
    authorize(&trust, &provider.arn, &identity, &facts).map_err(|error| error.to_string())
}

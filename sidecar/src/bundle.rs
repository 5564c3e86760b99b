//! The keys that trust domains sign JWT-SVIDs with, as the Workload API gives them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::fetch_error::FetchError;
use crate::token::Token;

/// The keys by trust domain, and what is written of them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct JwtBundles {
    key_ids: BTreeMap<String, BTreeSet<String>>,
    file: Vec<u8>,
}

impl JwtBundles {
    /// Reads a message of the bundle stream: a JWKS for each trust domain's SPIFFE ID.
    pub fn read(message: &BTreeMap<String, Vec<u8>>) -> Result<Self, FetchError> {
        let mut key_ids = BTreeMap::new();
        let mut file = serde_json::Map::new();
        for (trust_domain, keys) in message {
            let keys: Value =
                serde_json::from_slice(keys).map_err(|_| FetchError::Malformed("a bundle of keys is no JSON"))?;
            let list = keys["keys"].as_array();
            let list = list.ok_or(FetchError::Malformed("a bundle of keys is no JWKS"))?;
            let ids = list.iter().filter_map(|key| key["kid"].as_str().map(str::to_owned));
            key_ids.insert(trust_domain.clone(), ids.collect());
            file.insert(trust_domain.clone(), keys);
        }
        if key_ids.is_empty() {
            return Err(FetchError::Malformed("it has no bundle of keys"));
        }
        Ok(Self {
            key_ids,
            file: Value::Object(file).to_string().into_bytes(),
        })
    }

    /// True if the key that signed a token is among them. None if that can't be said: the token names no key, or its trust
    /// domain is not among them.
    pub fn have_key_of(&self, token: &Token) -> Option<bool> {
        let ids = self.key_ids.get(token.trust_domain_id())?;
        Some(ids.contains(token.key_id.as_deref()?))
    }

    /// A JSON object with a JWKS for each trust domain's SPIFFE ID.
    pub fn file(&self) -> &[u8] {
        &self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::tests::token;

    fn read(bundles: &[(&str, &str)]) -> Result<JwtBundles, FetchError> {
        let message = bundles
            .iter()
            .map(|(id, keys)| ((*id).to_owned(), keys.as_bytes().to_vec()));
        JwtBundles::read(&message.collect())
    }

    #[test]
    fn a_key_is_looked_for_in_its_own_trust_domain() {
        let bundles = read(&[
            (
                "spiffe://example.org",
                r#"{"keys":[{"kid":"k1","kty":"EC"},{"kty":"EC"}]}"#,
            ),
            ("spiffe://other.org", r#"{"keys":[{"kid":"k2"}]}"#),
        ])
        .unwrap();

        assert_eq!(bundles.have_key_of(&token("k1", 1, 2)), Some(true));
        assert_eq!(bundles.have_key_of(&token("k2", 1, 2)), Some(false));
        let other = read(&[("spiffe://other.org", r#"{"keys":[]}"#)]).unwrap();
        assert_eq!(other.have_key_of(&token("k1", 1, 2)), None);
        assert_eq!(other.file(), br#"{"spiffe://other.org":{"keys":[]}}"#);
    }

    #[test]
    fn a_malformed_bundle_is_refused_whole() {
        for bundles in [
            &[][..],
            &[("spiffe://a", "{")],
            &[("spiffe://a", "{}")],
            &[("spiffe://a", r#"{"keys":{}}"#)],
            &[("spiffe://a", r#"{"keys":[]}"#), ("spiffe://b", "")],
        ] {
            assert!(matches!(read(bundles), Err(FetchError::Malformed(_))), "{bundles:?}");
        }
    }
}

//! The discovery document (OpenID Connect Discovery 1.0).

use serde::Serialize;

use crate::issuer_url::KEYS_PATH;
use crate::keys::{self, PublicJwk};

/// The discovery document and the key set of an issuer with these keys, whose tokens may have these claims, as JSON texts.
pub fn documents(issuer: &str, keys: &[&PublicJwk], claims: &[&str]) -> (String, String) {
    let discovery = document(issuer, keys.iter().map(|key| key.algorithm()), claims);
    (discovery, keys::document(keys.iter().copied()))
}

/// The discovery document of an issuer with a key of each of these algorithms, as JSON text.
pub(crate) fn document<'a>(issuer: &str, algorithms: impl Iterator<Item = &'a str>, claims: &[&str]) -> String {
    let mut algorithms: Vec<_> = algorithms.collect();
    algorithms.sort_unstable();
    algorithms.dedup();
    let document = DiscoveryDocument {
        issuer,
        // A slash at the end of an issuer goes before a path is put behind it (OpenID Connect Discovery 1.0 §4). Ours has none; the
        // cluster's may have one, and the tokens have it too.
        jwks_uri: &format!("{}{KEYS_PATH}", issuer.trim_end_matches('/')),
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: &algorithms,
        claims_supported: claims,
    };
    // Texts and lists of them always serialise.
    serde_json::to_string(&document).unwrap_or_default()
}

#[derive(Serialize)]
struct DiscoveryDocument<'a> {
    issuer: &'a str,
    jwks_uri: &'a str,
    response_types_supported: [&'static str; 1],
    subject_types_supported: [&'static str; 1],
    id_token_signing_alg_values_supported: &'a [&'a str],
    claims_supported: &'a [&'a str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_says_what_aws_reads() {
        let document: serde_json::Value =
            serde_json::from_str(&document("https://a.example", ["RS256"].into_iter(), &["sub"])).unwrap();
        assert_eq!(document["issuer"], "https://a.example");
        assert_eq!(document["jwks_uri"], "https://a.example/keys");
        assert_eq!(document["response_types_supported"], serde_json::json!(["id_token"]));
        assert_eq!(document["claims_supported"], serde_json::json!(["sub"]));
        assert_eq!(document["subject_types_supported"], serde_json::json!(["public"]));
        assert_eq!(
            document["id_token_signing_alg_values_supported"],
            serde_json::json!(["RS256"])
        );
    }

    #[test]
    fn an_issuer_with_a_slash_at_its_end_keeps_it_and_the_keys_are_where_the_files_are() {
        let document: serde_json::Value =
            serde_json::from_str(&document("https://a.example/b/", ["RS256"].into_iter(), &[])).unwrap();
        assert_eq!(document["issuer"], "https://a.example/b/");
        assert_eq!(document["jwks_uri"], "https://a.example/b/keys");
    }
}

//! The issuer's URL and its discovery document (OpenID Connect Discovery 1.0).
//!
//! The URL is given once and never made from a request's `Host` or `X-Forwarded-Host`: whoever calls must not choose the issuer.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

use crate::claims;

/// Where discovery is served, below the issuer's path (OpenID Connect Discovery 1.0 §4).
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// Where the keys are served, below the issuer's path.
pub const KEYS_PATH: &str = "/keys";

/// The issuer, as the `iss` claim and the IAM provider's URL have it: byte for byte the same everywhere.
///
/// AWS wants `https://`, 1 to 255 characters, no query and no port, and compares upper and lower case (IAM API reference,
/// CreateOpenIDConnectProvider). A slash at the end counts for AWS and not for readers of discovery, so it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl {
    text: Box<str>,
    /// Where the path begins in `text`.
    path: usize,
    has_port: bool,
}

/// Why a text is no issuer URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be an issuer: {reason}")]
pub struct InvalidIssuerUrl {
    text: Box<str>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Reason {
    #[error("it should begin with https://")]
    Scheme,
    #[error("it should have at most 255 characters")]
    Length,
    #[error("it should have no query, fragment, user name or percent sign")]
    Parts,
    #[error("its host should be a name of lower case letters, digits, hyphens and dots")]
    Host,
    #[error("its port should be a number from 1 to 65535 without leading zeros, and not 443")]
    Port,
    #[error("it should not end with a slash")]
    Slash,
    #[error("its path should have segments of A-Z a-z 0-9 . _ ~ - that are neither empty nor dots")]
    Path,
}

impl IssuerUrl {
    /// The URL.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Its path, without a slash at the end: empty, or with one at its start.
    pub fn path(&self) -> &str {
        self.text.get(self.path..).unwrap_or_default()
    }

    /// Whether it names a port. AWS takes none; other relying parties do.
    pub fn has_port(&self) -> bool {
        self.has_port
    }

    /// Where discovery is served: a path.
    pub fn discovery_path(&self) -> String {
        format!("{}{DISCOVERY_PATH}", self.path())
    }

    /// Where the keys are served: a path.
    pub fn keys_path(&self) -> String {
        format!("{}{KEYS_PATH}", self.path())
    }

    /// Where the keys are published: a URL.
    pub fn jwks_uri(&self) -> String {
        format!("{}{KEYS_PATH}", self.text)
    }
}

impl FromStr for IssuerUrl {
    type Err = InvalidIssuerUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |reason| InvalidIssuerUrl {
            text: text.chars().take(255).collect::<String>().into(),
            reason,
        };
        if text.len() > 255 {
            return Err(fail(Reason::Length));
        }
        let rest = text.strip_prefix("https://").ok_or_else(|| fail(Reason::Scheme))?;
        if rest.bytes().any(|b| b"?#@%\\".contains(&b)) {
            return Err(fail(Reason::Parts));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if !is_host(host) {
            return Err(fail(Reason::Host));
        }
        if port.is_some_and(|port| !is_port(port)) {
            return Err(fail(Reason::Port));
        }
        if path.ends_with('/') {
            return Err(fail(Reason::Slash));
        }
        if !path.split('/').skip(1).all(is_segment) {
            return Err(fail(Reason::Path));
        }
        Ok(Self {
            path: text.len() - path.len(),
            has_port: port.is_some(),
            text: text.into(),
        })
    }
}

impl fmt::Display for IssuerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(allowed)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label)
}

fn is_port(port: &str) -> bool {
    let is_decimal = !port.starts_with('0') && port.bytes().all(|b| b.is_ascii_digit());
    is_decimal && port.parse::<u16>().is_ok_and(|port| port != 443)
}

fn is_segment(segment: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._~-".contains(&b);
    !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
}

/// The discovery document for an issuer whose keys are of these algorithms, as JSON text.
pub fn document(issuer: &str, jwks_uri: &str, algorithms: &[&str]) -> String {
    let document = DiscoveryDocument {
        issuer,
        jwks_uri,
        response_types_supported: ["id_token"],
        subject_types_supported: ["public"],
        id_token_signing_alg_values_supported: algorithms,
        claims_supported: &claims::SUPPORTED,
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
    fn an_issuer_has_one_spelling_and_every_other_is_refused_with_its_reason() {
        for good in [
            "https://issuer.example.com",
            "https://example.com/clusters/A_1.b~c-d",
            "https://127.0.0.1:8443/x",
        ] {
            assert_eq!(good.parse::<IssuerUrl>().unwrap().as_str(), good);
        }
        for (bad, reason) in [
            ("http://issuer.example.com", Reason::Scheme),
            ("HTTPS://issuer.example.com", Reason::Scheme),
            ("issuer.example.com", Reason::Scheme),
            ("https://issuer.example.com/", Reason::Slash),
            ("https://issuer.example.com/a/", Reason::Slash),
            ("https://Issuer.example.com", Reason::Host),
            ("https://", Reason::Host),
            ("https://-a.example.com", Reason::Host),
            ("https://a..b", Reason::Host),
            ("https://münchen.example", Reason::Host),
            ("https://a b", Reason::Host),
            ("https://example.com:443", Reason::Port),
            ("https://example.com:", Reason::Port),
            ("https://example.com:08443", Reason::Port),
            ("https://example.com:70000", Reason::Port),
            ("https://example.com/a?b=c", Reason::Parts),
            ("https://example.com/a#b", Reason::Parts),
            ("https://user@example.com", Reason::Parts),
            ("https://example.com/%2e", Reason::Parts),
            ("https://example.com//a", Reason::Path),
            ("https://example.com/../a", Reason::Path),
            ("https://example.com/./a", Reason::Path),
            ("https://example.com/a\nb", Reason::Path),
        ] {
            assert_eq!(bad.parse::<IssuerUrl>().unwrap_err().reason, reason, "{bad}");
        }
        let long = format!("https://example.com/{}", "a".repeat(236));
        assert_eq!(long.parse::<IssuerUrl>().unwrap_err().reason, Reason::Length);
    }

    #[test]
    fn an_issuer_with_a_path_serves_below_it() {
        let issuer: IssuerUrl = "https://example.com/clusters/a".parse().unwrap();
        assert_eq!(issuer.discovery_path(), "/clusters/a/.well-known/openid-configuration");
        assert_eq!(issuer.keys_path(), "/clusters/a/keys");
        assert_eq!(issuer.jwks_uri(), "https://example.com/clusters/a/keys");
        assert!(!issuer.has_port());
    }

    #[test]
    fn the_document_says_what_aws_reads() {
        let document: serde_json::Value =
            serde_json::from_str(&document("https://a.example", "https://a.example/keys", &["RS256"])).unwrap();
        assert_eq!(document["issuer"], "https://a.example");
        assert_eq!(document["jwks_uri"], "https://a.example/keys");
        assert_eq!(document["response_types_supported"], serde_json::json!(["id_token"]));
        assert_eq!(document["subject_types_supported"], serde_json::json!(["public"]));
        assert_eq!(
            document["id_token_signing_alg_values_supported"],
            serde_json::json!(["RS256"])
        );
    }
}

//! The issuer's URL.
//!
//! The URL is given once and never made from a request's `Host` or `X-Forwarded-Host`: whoever calls must not choose the issuer.

use std::fmt;
use std::str::FromStr;

use tokenscope_core::kubernetes_names::is_label;

/// The path of discovery, below the issuer's own path (OpenID Connect Discovery 1.0 §4).
pub const DISCOVERY_PATH: &str = "/.well-known/openid-configuration";
/// The path of the keys, below the issuer's own path.
pub const KEYS_PATH: &str = "/keys";
const SCHEME: &str = "https://";

/// The issuer, as the `iss` claim and the IAM provider's URL have it: byte for byte the same everywhere.
///
/// AWS wants `https://`, 1 to 255 characters, no query and no port, and compares upper and lower case (IAM API reference,
/// CreateOpenIDConnectProvider). A slash at the end counts for AWS and not for readers of discovery, so it is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerUrl {
    text: Box<str>,
    /// The index in `text` at which the path begins.
    path: usize,
    has_port: bool,
}

/// The reason why a text is no issuer URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} can't be an issuer: {reason}")]
pub struct InvalidIssuerUrl {
    text: Box<str>,
    reason: UrlMistake,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum UrlMistake {
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

    /// True if it names a port. AWS takes none; other relying parties do.
    pub fn has_port(&self) -> bool {
        self.has_port
    }

    /// The same without its path.
    pub fn origin(&self) -> Self {
        let text: Box<str> = self.text.get(..self.path).unwrap_or_default().into();
        Self {
            path: text.len(),
            has_port: self.has_port,
            text,
        }
    }

    /// Its host.
    pub fn host(&self) -> &str {
        self.authority().split(':').next().unwrap_or_default()
    }

    /// The port that it names, or that of https.
    pub fn port(&self) -> u16 {
        let named = self.authority().split_once(':');
        named.and_then(|(_, port)| port.parse().ok()).unwrap_or(443)
    }

    /// Its host, with the port where it names one, as a request's `Host` has it.
    pub fn authority(&self) -> &str {
        self.text.get(SCHEME.len()..self.path).unwrap_or_default()
    }

    /// The path at which discovery is served.
    pub fn discovery_path(&self) -> String {
        format!("{}{DISCOVERY_PATH}", self.path())
    }

    /// The path at which the keys are served.
    pub fn keys_path(&self) -> String {
        format!("{}{KEYS_PATH}", self.path())
    }

    /// The URL at which the keys are published.
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
            return Err(fail(UrlMistake::Length));
        }
        let rest = text.strip_prefix(SCHEME).ok_or_else(|| fail(UrlMistake::Scheme))?;
        if rest.bytes().any(|b| b"?#@%\\".contains(&b)) {
            return Err(fail(UrlMistake::Parts));
        }
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if !is_host(host) {
            return Err(fail(UrlMistake::Host));
        }
        if port.is_some_and(|port| !is_port(port)) {
            return Err(fail(UrlMistake::Port));
        }
        if path.ends_with('/') {
            return Err(fail(UrlMistake::Slash));
        }
        if !path.split('/').skip(1).all(is_segment) {
            return Err(fail(UrlMistake::Path));
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
            ("http://issuer.example.com", UrlMistake::Scheme),
            ("HTTPS://issuer.example.com", UrlMistake::Scheme),
            ("issuer.example.com", UrlMistake::Scheme),
            ("https://issuer.example.com/", UrlMistake::Slash),
            ("https://issuer.example.com/a/", UrlMistake::Slash),
            ("https://Issuer.example.com", UrlMistake::Host),
            ("https://", UrlMistake::Host),
            ("https://-a.example.com", UrlMistake::Host),
            ("https://a..b", UrlMistake::Host),
            ("https://münchen.example", UrlMistake::Host),
            ("https://a b", UrlMistake::Host),
            ("https://example.com:443", UrlMistake::Port),
            ("https://example.com:", UrlMistake::Port),
            ("https://example.com:08443", UrlMistake::Port),
            ("https://example.com:70000", UrlMistake::Port),
            ("https://example.com/a?b=c", UrlMistake::Parts),
            ("https://example.com/a#b", UrlMistake::Parts),
            ("https://user@example.com", UrlMistake::Parts),
            ("https://example.com/%2e", UrlMistake::Parts),
            ("https://example.com//a", UrlMistake::Path),
            ("https://example.com/../a", UrlMistake::Path),
            ("https://example.com/./a", UrlMistake::Path),
            ("https://example.com/a\nb", UrlMistake::Path),
        ] {
            assert_eq!(bad.parse::<IssuerUrl>().unwrap_err().reason, reason, "{bad}");
        }
        let long = format!("https://example.com/{}", "a".repeat(236));
        assert_eq!(long.parse::<IssuerUrl>().unwrap_err().reason, UrlMistake::Length);
    }

    #[test]
    fn an_issuer_with_a_path_serves_below_it() {
        let issuer: IssuerUrl = "https://example.com/clusters/a".parse().unwrap();
        assert_eq!(issuer.discovery_path(), "/clusters/a/.well-known/openid-configuration");
        assert_eq!(issuer.keys_path(), "/clusters/a/keys");
        assert_eq!(issuer.jwks_uri(), "https://example.com/clusters/a/keys");
        assert!(!issuer.has_port());
        assert_eq!((issuer.host(), issuer.port()), ("example.com", 443));
        assert_eq!(
            (issuer.origin().as_str(), issuer.origin().path()),
            ("https://example.com", "")
        );
        let other: IssuerUrl = "https://127.0.0.1:8443/x".parse().unwrap();
        assert_eq!((other.host(), other.port()), ("127.0.0.1", 8443));
    }
}

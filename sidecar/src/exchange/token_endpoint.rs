//! The token endpoint (RFC 6749, section 3.2) of the issuer: an https URL that ends with `/token`.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::Scheme;
use rustls::pki_types::ServerName;

/// The longest URL, in bytes.
const LONGEST: usize = 2048;

/// The token endpoint (RFC 6749, section 3.2), at which tokens are exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenEndpoint {
    /// Host and port as the URL has them.
    authority: Box<str>,
    /// The host without the brackets of an IPv6 address.
    host: Box<str>,
    name: ServerName<'static>,
    port: u16,
    /// Path and `/token`.
    path: Box<str>,
}

impl TokenEndpoint {
    /// Host and port as the header `Host` has them.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// The host's name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The name that must be in the certificate.
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The path of the exchange.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl fmt::Display for TokenEndpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "https://{}{}", self.authority, self.path)
    }
}

impl FromStr for TokenEndpoint {
    type Err = InvalidTokenEndpoint;

    /// Reads the issuer's URL, which `/token` follows.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |reason| InvalidTokenEndpoint {
            text: text.chars().take(LONGEST).collect(),
            reason,
        };
        if text.len() > LONGEST {
            return Err(invalid(UrlFault::Long));
        }
        if text.contains(['?', '#']) {
            return Err(invalid(UrlFault::Query));
        }
        let uri: Uri = text.parse().map_err(|_| invalid(UrlFault::Shape))?;
        if uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(invalid(UrlFault::Scheme));
        }
        let authority = uri.authority().ok_or_else(|| invalid(UrlFault::Shape))?;
        if authority.as_str().contains('@') {
            return Err(invalid(UrlFault::User));
        }
        let host = authority.host();
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = address.unwrap_or(host);
        // A port that is no number is no part of an authority, and an empty one is the usual one.
        let port = authority.port_u16().unwrap_or(443);
        let name = ServerName::try_from(host.to_owned()).map_err(|_| invalid(UrlFault::Host))?;
        Ok(Self {
            authority: authority.as_str().into(),
            host: host.into(),
            name,
            port,
            path: format!("{}/token", uri.path().trim_end_matches('/')).into(),
        })
    }
}

/// The reason why a text is no URL of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the URL of an issuer: {reason}")]
pub struct InvalidTokenEndpoint {
    text: Box<str>,
    reason: UrlFault,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum UrlFault {
    #[error("it should have at most {LONGEST} bytes")]
    Long,
    #[error("it should read https://HOST, with a port or a path if need be")]
    Shape,
    #[error("it should begin with https://")]
    Scheme,
    #[error("it should have no query and no fragment")]
    Query,
    #[error("it should have no user")]
    User,
    #[error("its host should be a DNS name or an address")]
    Host,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn token_follows_the_url_whatever_it_ends_with() {
        for (text, host, port, path) in [
            (
                "https://tokenscope-issuer.tokenscope-system.svc",
                "tokenscope-issuer.tokenscope-system.svc",
                443,
                "/token",
            ),
            ("https://issuer.example/", "issuer.example", 443, "/token"),
            (
                "https://127.0.0.1:8443/cluster-1",
                "127.0.0.1",
                8443,
                "/cluster-1/token",
            ),
            ("https://[::1]:8443", "::1", 8443, "/token"),
        ] {
            let endpoint: TokenEndpoint = text.parse().unwrap();
            assert_eq!((endpoint.host(), endpoint.port(), endpoint.path()), (host, port, path));
            assert!(
                endpoint.to_string().starts_with(text.trim_end_matches('/')),
                "{endpoint}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_url_is_said() {
        for (text, part) in [
            ("http://issuer.example", "begin with https://"),
            ("issuer.example", "begin with https://"),
            ("/token", "begin with https://"),
            ("https://", "should read https://HOST"),
            ("https://issuer.example/a b", "should read https://HOST"),
            ("https://issuer.example?x", "no query"),
            ("https://issuer.example/#x", "no query"),
            ("https://me:secret@issuer.example", "no user"),
            ("https://under_score-/", "a DNS name"),
            (&format!("https://{}", "a".repeat(LONGEST)), "at most 2048 bytes"),
        ] {
            let error = text.parse::<TokenEndpoint>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(https://)?.{0,60}") {
            let _ = text.parse::<TokenEndpoint>();
        }
    }
}

//! SPIFFE IDs, and which of a workload's identities a token is to be of.

use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;

/// The most bytes of a trust domain's name (SPIFFE-ID, section 2.1).
const MOST_TRUST_DOMAIN_BYTES: usize = 255;
/// The most bytes of a SPIFFE ID (SPIFFE-ID, section 2.3).
const MOST_ID_BYTES: usize = 2048;
/// The most bytes of a hint (SPIFFE Workload API, JWT-SVID profile).
const MOST_HINT_BYTES: usize = 1024;

const SCHEME: &str = "spiffe://";

/// The name of a trust domain: 1 to 255 lower case letters, digits, dots, hyphens and underscores (SPIFFE-ID, section 2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// The name, without a scheme.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrustDomain {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_trust_domain(text) {
            return Err(InvalidSpiffe::TrustDomain { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The SPIFFE ID of a workload, such as `spiffe://example.org/ns/shop/sa/orders` (SPIFFE-ID, section 2).
///
/// It has a path: an ID without one names the trust domain itself, which is no workload. Scheme and trust domain are
/// written in lower case, as every provider writes them and AWS compares them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId(Box<str>);

impl SpiffeId {
    /// The ID as it stands in a token's `sub`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of its trust domain.
    pub fn trust_domain(&self) -> &str {
        let rest = &self.0[SCHEME.len()..];
        rest.split_once('/').map_or(rest, |(trust_domain, _)| trust_domain)
    }

    /// Its path, from the first slash on.
    pub fn path(&self) -> &str {
        &self.0[SCHEME.len() + self.trust_domain().len()..]
    }
}

impl FromStr for SpiffeId {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let why = || -> Option<&'static str> {
            if text.len() > MOST_ID_BYTES {
                return Some("it has more than 2048 bytes");
            }
            let Some(rest) = text.strip_prefix(SCHEME) else {
                return Some("it does not begin with spiffe://");
            };
            let Some((trust_domain, path)) = rest.split_once('/') else {
                return Some("it has no path, so it names a trust domain and no workload");
            };
            if !is_trust_domain(trust_domain) {
                return Some(
                    "its trust domain should have 1 to 255 lower case letters, digits, dots, hyphens and underscores",
                );
            }
            (!path.split('/').all(is_segment)).then_some(
                "each part of its path should have letters, digits, dots, hyphens and underscores, and be neither . nor .. nor empty",
            )
        };
        match why() {
            None => Ok(Self(text.into())),
            Some(why) => Err(InvalidSpiffe::Id {
                text: shortened(text),
                why,
            }),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The operator's hint by which a SPIFFE provider tells several identities of one workload apart: 1 to 1024 bytes without
/// control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hint(Box<str>);

impl Hint {
    /// The hint as the provider states it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Hint {
    type Err = InvalidSpiffe;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > MOST_HINT_BYTES || text.chars().any(char::is_control) {
            return Err(InvalidSpiffe::Hint { text: shortened(text) });
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// The SPIFFE identity of a workload that its tokens are of, and what it gets beside them. What is absent does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Spiffe {
    /// The one of this ID.
    pub id: Option<SpiffeId>,
    /// The one of this hint.
    pub hint: Option<Hint>,
    /// One of this trust domain.
    pub trust_domain: Option<TrustDomain>,
    /// True if its X.509-SVID, key and bundle are written too.
    pub x509_svid: bool,
    /// True if the keys by which JWT-SVIDs of others are checked are written too.
    pub jwt_bundle: bool,
}

/// The reason why a text is no part of a SPIFFE identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpiffe {
    /// Of a trust domain.
    #[error(
        "{text:?} is not a trust domain: it should have 1 to 255 lower case letters, digits, dots, hyphens and underscores, such as example.org"
    )]
    TrustDomain {
        /// The given value.
        text: Box<str>,
    },
    /// Of a workload's ID.
    #[error("{text:?} is not the SPIFFE ID of a workload such as spiffe://example.org/ns/shop/sa/orders: {why}")]
    Id {
        /// The given value.
        text: Box<str>,
        /// The fault.
        why: &'static str,
    },
    /// Of a hint.
    #[error("{text:?} is not a hint: it should have 1 to 1024 bytes and no control characters")]
    Hint {
        /// The given value.
        text: Box<str>,
    },
}

fn is_trust_domain(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
    (1..=MOST_TRUST_DOMAIN_BYTES).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_segment(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_id_of_a_trust_domain_and_segments_is_read_back_as_them(
            trust_domain in "[a-z0-9._-]{1,255}",
            segments in proptest::collection::vec("[A-Za-z0-9_-][A-Za-z0-9._-]{0,20}", 1..20),
        ) {
            let text = format!("spiffe://{trust_domain}/{}", segments.join("/"));
            let id: SpiffeId = text.parse().unwrap();

            prop_assert_eq!(id.as_str(), &text);
            prop_assert_eq!(id.trust_domain(), &trust_domain);
            prop_assert_eq!(id.path(), format!("/{}", segments.join("/")));
            prop_assert!(trust_domain.parse::<TrustDomain>().is_ok());
        }

        #[test]
        fn what_is_read_has_only_what_an_id_may_have(text in "(spiffe|SPIFFE|http)?(://)?[a-zA-Z0-9._:@/%?#é-]{0,40}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                let rest = text.strip_prefix("spiffe://").unwrap();
                prop_assert!(!rest.contains("//") && !rest.ends_with('/'));
                prop_assert!(rest.split('/').skip(1).all(|part| !part.is_empty() && part != "." && part != ".."));
                prop_assert!(rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-/".contains(&b)));
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }

        #[test]
        fn nothing_makes_it_panic(text in any::<String>()) {
            let _ = (text.parse::<SpiffeId>(), text.parse::<TrustDomain>(), text.parse::<Hint>());
        }
    }

    #[test]
    fn what_is_no_workloads_id_is_refused_with_what_is_wrong() {
        for (text, why) in [
            ("", "begin with spiffe://"),
            ("https://example.org/a", "begin with spiffe://"),
            ("SPIFFE://example.org/a", "begin with spiffe://"),
            ("spiffe://example.org", "no path"),
            ("spiffe://example.org/", "part of its path"),
            ("spiffe://example.org/a/", "part of its path"),
            ("spiffe://example.org//a", "part of its path"),
            ("spiffe://example.org/a/../b", "part of its path"),
            ("spiffe://example.org/./b", "part of its path"),
            ("spiffe://example.org/a b", "part of its path"),
            ("spiffe://example.org/a%20b", "part of its path"),
            ("spiffe://example.org/a?b", "part of its path"),
            ("spiffe://example.org/a#b", "part of its path"),
            ("spiffe://Example.org/a", "its trust domain"),
            ("spiffe://example.org:8443/a", "its trust domain"),
            ("spiffe://user@example.org/a", "its trust domain"),
            ("spiffe:///a", "its trust domain"),
        ] {
            let error = text.parse::<SpiffeId>().unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn lengths_are_those_of_the_standard() {
        let id = |path: usize| format!("spiffe://td/{}", "a".repeat(path - "spiffe://td/".len()));
        assert!(id(2048).parse::<SpiffeId>().is_ok());
        assert!(id(2049).parse::<SpiffeId>().is_err());
        assert!("a".repeat(255).parse::<TrustDomain>().is_ok());
        assert!("a".repeat(256).parse::<TrustDomain>().is_err());
        assert!(format!("spiffe://{}/a", "a".repeat(256)).parse::<SpiffeId>().is_err());
        assert!("h".repeat(1024).parse::<Hint>().is_ok());
        for bad in ["", "a\nb", &"h".repeat(1025)] {
            assert!(bad.parse::<Hint>().is_err());
        }
    }
}

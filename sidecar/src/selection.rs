//! The choice among the identities that a workload has.

use tokenscope_core::{Hint, SpiffeId, TrustDomain};

use crate::fetch_error::FetchError;

/// The marks of the wanted identity; nothing stated means the first one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SvidSelection {
    /// Exactly this SPIFFE ID.
    pub spiffe_id: Option<SpiffeId>,
    /// The hint that its registration entry has.
    pub hint: Option<Hint>,
    /// An ID in this trust domain.
    pub trust_domain: Option<TrustDomain>,
}

/// An identity as the Workload API gives it.
pub trait Identity {
    /// Its SPIFFE ID; empty in a malformed answer.
    fn spiffe_id(&self) -> &str;
    /// Its hint; empty where it has none.
    fn hint(&self) -> &str;
}

impl SvidSelection {
    /// The first identity that is wanted, so of two with the same hint the first (SPIFFE Workload API, section 6.2).
    pub fn choose<'a, T: Identity>(&self, identities: &'a [T]) -> Result<&'a T, FetchError> {
        if identities.is_empty() {
            return Err(FetchError::Malformed("it has no identity"));
        }
        let chosen = identities.iter().find(|identity| self.is(*identity));
        let chosen = chosen.ok_or_else(|| FetchError::NoneMatches {
            count: identities.len(),
            wanted: self.to_string(),
        })?;
        if chosen.spiffe_id().is_empty() {
            return Err(FetchError::Malformed("an identity has no SPIFFE ID"));
        }
        Ok(chosen)
    }

    fn is(&self, identity: &impl Identity) -> bool {
        let id = identity.spiffe_id();
        let in_trust_domain = |trust_domain: &TrustDomain| {
            id.strip_prefix("spiffe://")
                .and_then(|rest| rest.strip_prefix(trust_domain.as_str()))
                .is_some_and(|rest| rest.starts_with('/'))
        };
        self.spiffe_id.as_ref().is_none_or(|wanted| wanted.as_str() == id)
            && self
                .hint
                .as_ref()
                .is_none_or(|wanted| wanted.as_str() == identity.hint())
            && self.trust_domain.as_ref().is_none_or(in_trust_domain)
    }
}

impl std::fmt::Display for SvidSelection {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.spiffe_id.as_ref().map(|id| format!("the SPIFFE ID {id}"));
        let hint = self.hint.as_ref().map(|hint| format!("the hint {hint:?}"));
        let trust_domain = self
            .trust_domain
            .as_ref()
            .map(|name| format!("the trust domain {name}"));
        let parts: Vec<String> = [id, hint, trust_domain].into_iter().flatten().collect();
        formatter.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq)]
    struct Simple(&'static str, &'static str, u8);

    impl Identity for Simple {
        fn spiffe_id(&self) -> &str {
            self.0
        }
        fn hint(&self) -> &str {
            self.1
        }
    }

    const TWO: [Simple; 4] = [
        Simple("spiffe://a.example/app", "web", 0),
        Simple("spiffe://a.example.org/app", "aws", 1),
        Simple("spiffe://b.example/app", "aws", 2),
        Simple("spiffe://b.example/other", "", 3),
    ];

    #[test]
    fn the_first_that_matches_is_taken() {
        let chosen = |id: &str, hint: &str, trust_domain: &str| {
            let wanted = SvidSelection {
                spiffe_id: id.parse().ok(),
                hint: hint.parse().ok(),
                trust_domain: trust_domain.parse().ok(),
            };
            wanted.choose(&TWO).map(|simple| simple.2).ok()
        };
        assert_eq!(chosen("", "", ""), Some(0), "nothing stated");
        assert_eq!(chosen("", "aws", ""), Some(1), "of two equal hints the first");
        assert_eq!(chosen("", "aws", "b.example"), Some(2));
        assert_eq!(
            chosen("", "", "a.example.org"),
            Some(1),
            "a trust domain is matched whole"
        );
        assert_eq!(chosen("spiffe://b.example/other", "", ""), Some(3));
        assert_eq!(chosen("spiffe://b.example/other", "aws", ""), None);
    }

    #[test]
    fn it_says_what_was_looked_for() {
        let wanted = SvidSelection {
            hint: "db".parse().ok(),
            trust_domain: "c.example".parse().ok(),
            ..SvidSelection::default()
        };
        assert_eq!(
            wanted.choose(&TWO).unwrap_err().to_string(),
            r#"of the 4 identities that this pod has, none has the hint "db" and the trust domain c.example"#
        );
        assert_eq!(
            wanted.choose::<Simple>(&[]).unwrap_err(),
            FetchError::Malformed("it has no identity")
        );
    }

    #[test]
    fn an_identity_without_an_id_is_no_identity() {
        assert_eq!(
            SvidSelection::default().choose(&[Simple("", "", 0)]).unwrap_err(),
            FetchError::Malformed("an identity has no SPIFFE ID")
        );
    }
}

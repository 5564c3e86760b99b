//! The issuer of a policy's tokens as AWS must know it.

use tokenscope_core::{TokenSource, is_public_url};

use crate::index::PolicyFacts;
use crate::issuer::Issuer;

/// The issuer's URL, or the sentence in place of trust policies.
pub(super) fn issuer_url<'a>(
    source: TokenSource,
    has_spiffe_id: bool,
    facts: &PolicyFacts<'a>,
) -> Result<&'a str, String> {
    let (whose, issuer) = match source {
        TokenSource::ServiceAccount => match facts.issuer {
            Issuer::Known(issuer) => ("the cluster's issuer", issuer.as_str()),
            Issuer::Unknown => {
                return Err("No trust policies yet: the API server has not said what its issuer is".into());
            }
        },
        TokenSource::Spiffe if !has_spiffe_id => {
            return Err("No trust policies: spec.token.spiffe.spiffeId is left out, and to trust every SPIFFE ID of a trust domain would be too much".into());
        }
        TokenSource::Spiffe => match facts.spiffe_issuer {
            Some(issuer) => ("the SPIFFE provider's issuer", issuer),
            None => {
                return Err("No trust policies: the issuer of the SPIFFE provider's tokens is not known; the chart's value spiffe.issuer says it".into());
            }
        },
        TokenSource::Issuer => match facts.own_issuer {
            Some(issuer) => ("tokenscope's issuer", issuer),
            None => {
                return Err("No trust policies: the installation runs no issuer; the chart's values issuer.enabled and issuer.url say it".into());
            }
        },
    };
    if !issuer.starts_with("https://") {
        return Err(format!(
            "No trust policies: {whose} {issuer:?} is no https URL, so AWS can't trust it"
        ));
    }
    if !is_public_url(issuer) {
        return Err(format!(
            "No trust policies: {whose} {issuer:?} is not on the public internet, so AWS can't reach it and takes none of its tokens: docs/self-hosted.md says how to publish one"
        ));
    }
    if let Some(what) = unfit_for_iam(issuer) {
        return Err(format!(
            "No trust policies: {whose} {issuer:?} has {what}, and IAM takes no identity provider with such a URL, so AWS takes none of its tokens: docs/self-hosted.md says how to publish another one"
        ));
    }
    Ok(issuer)
}

/// The most characters of the URL of an identity provider.
const MOST_URL: usize = 255;

/// The part of a URL with which IAM makes no identity provider of it (IAM API reference, CreateOpenIDConnectProvider).
fn unfit_for_iam(issuer: &str) -> Option<&'static str> {
    let rest = issuer.strip_prefix("https://").unwrap_or(issuer);
    if rest.contains(['?', '#']) {
        return Some("a query or a fragment");
    }
    let authority = rest.split('/').next().unwrap_or_default();
    if authority.contains('@') {
        return Some("a user name");
    }
    // The colons of an IPv6 address stand in brackets.
    let after_address = authority.rsplit(']').next().unwrap_or_default();
    if after_address.contains(':') {
        return Some("a port");
    }
    (issuer.chars().count() > MOST_URL).then_some("more than 255 characters")
}

//! The issuer of a policy's tokens as AWS must know it.

use crate::{index::PolicyFacts, issuer::Issuer};
use tokenscope_core::{TokenSource, is_public_url};

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
    Ok(issuer)
}

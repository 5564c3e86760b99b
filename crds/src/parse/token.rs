//! The kind of token that a policy's pods get.

use tokenscope_core as core;
use tokenscope_core::InvalidPolicy;

use super::{invalid, parse_optional};
use crate::messages;
use crate::v1alpha1::{AlgorithmSpec, SourceSpec, SpiffeSpec, SubjectFormatSpec, TokenSpec};

pub(super) fn token(token: &TokenSpec) -> Result<core::TokenSettings, InvalidPolicy> {
    if token.algorithm.is_some() && token.source != SourceSpec::Issuer {
        return Err(invalid("spec.token.algorithm", messages::ALGORITHM_WITHOUT_ISSUER));
    }
    if token.source == SourceSpec::Spiffe && token.expiration_seconds != TokenSpec::default().expiration_seconds {
        return Err(invalid("spec.token.expirationSeconds", messages::LIFETIME_WITH_SPIFFE));
    }
    let subject_format = token.subject_format.unwrap_or_default();
    if subject_format == SubjectFormatSpec::Policy && token.source != SourceSpec::Issuer {
        return Err(invalid("spec.token.subjectFormat", messages::SUBJECT_WITHOUT_ISSUER));
    }
    Ok(core::TokenSettings {
        source: source(token.source),
        subject_format: match subject_format {
            SubjectFormatSpec::ServiceAccount => core::SubjectFormat::ServiceAccount,
            SubjectFormatSpec::Policy => core::SubjectFormat::Policy,
        },
        expiration: core::TokenExpiration::from_seconds(token.expiration_seconds)
            .map_err(|error| invalid("spec.token.expirationSeconds", error))?,
        spiffe: spiffe(&token.spiffe, token.source)?,
        algorithm: match token.algorithm {
            None | Some(AlgorithmSpec::RS256) => core::Algorithm::RS256,
            Some(AlgorithmSpec::ES256) => core::Algorithm::ES256,
            Some(AlgorithmSpec::ES384) => core::Algorithm::ES384,
        },
    })
}

/// The signer of tokens, in the rule's own words.
fn source(source: SourceSpec) -> core::TokenSource {
    match source {
        SourceSpec::ServiceAccount => core::TokenSource::ServiceAccount,
        SourceSpec::Spiffe => core::TokenSource::Spiffe,
        SourceSpec::Issuer => core::TokenSource::Issuer,
    }
}

fn spiffe(spiffe: &SpiffeSpec, source: SourceSpec) -> Result<core::Spiffe, InvalidPolicy> {
    if *spiffe != SpiffeSpec::default() && source != SourceSpec::Spiffe {
        return Err(invalid("spec.token.spiffe", messages::SPIFFE_WITHOUT_SOURCE));
    }
    let parsed = core::Spiffe {
        id: parse_optional(spiffe.spiffe_id.as_deref(), "spec.token.spiffe.spiffeId")?,
        hint: parse_optional(spiffe.hint.as_deref(), "spec.token.spiffe.hint")?,
        trust_domain: parse_optional(spiffe.trust_domain.as_deref(), "spec.token.spiffe.trustDomain")?,
        x509_svid: spiffe.x509_svid,
        jwt_bundle: spiffe.jwt_bundle,
    };
    match (&parsed.id, &parsed.trust_domain) {
        (Some(id), Some(trust_domain)) if id.trust_domain() != trust_domain.as_str() => Err(invalid(
            "spec.token.spiffe.trustDomain",
            format!("{}: the ID's is {}", messages::TRUST_DOMAIN_OF_ID, id.trust_domain()),
        )),
        _ => Ok(parsed),
    }
}

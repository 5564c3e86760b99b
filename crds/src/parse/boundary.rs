//! From a boundary of the API to the rule's own.

use tokenscope_core::delivery::SessionPolicy;
use tokenscope_core::{Boundary, InvalidPolicy, Signer, TokenExpiration, TokenSource};

use super::claims::claims;
use super::delivery::session_policy;
use super::selector::selector;
use super::{invalid, parse_all};
use crate::messages;
use crate::v1alpha1::{BoundarySpec, SessionPolicySpec, SignerSpec, SourceSpec};

impl BoundarySpec {
    /// The boundary of this name that this spec states.
    pub(crate) fn boundary(&self, name: &str) -> Result<Boundary, InvalidPolicy> {
        if self.roles.is_empty() {
            return Err(invalid("spec.roles", messages::BOUNDARY_ROLES));
        }
        let lifetime = |seconds| {
            TokenExpiration::from_seconds(seconds).map_err(|error| invalid("spec.maxExpirationSeconds", error))
        };
        Ok(Boundary {
            name: name.into(),
            namespace_selector: selector(&self.namespace_selector, "spec.namespaceSelector")?,
            roles: parse_all(&self.roles, "spec.roles")?,
            audiences: parse_all(&self.audiences, "spec.audiences")?,
            max_expiration: self.max_expiration_seconds.map(lifetime).transpose()?,
            sources: self.sources.iter().copied().map(signer).collect(),
            claims: match &self.claims {
                None => None,
                Some(found) => Some(claims(found, SourceSpec::Issuer)?),
            },
            outbound_audiences: match &self.outbound_audiences {
                None => None,
                Some(audiences) => Some(parse_all(audiences, "spec.outboundAudiences")?),
            },
            session_policy: match &self.session_policy {
                None => None,
                Some(policy) => Some(session_policy_bound(policy)?),
            },
        })
    }
}

fn session_policy_bound(policy: &SessionPolicySpec) -> Result<SessionPolicy, InvalidPolicy> {
    const FIELD: &str = "spec.sessionPolicy";
    let policy = session_policy(policy, FIELD)?;
    if policy.is_empty() {
        return Err(invalid(FIELD, messages::BOUNDARY_SESSION_POLICY));
    }
    Ok(policy)
}

fn signer(signer: SignerSpec) -> Signer {
    match signer {
        SignerSpec::ServiceAccount => TokenSource::ServiceAccount.into(),
        SignerSpec::Spiffe => TokenSource::Spiffe.into(),
        SignerSpec::Issuer => TokenSource::Issuer.into(),
        SignerSpec::Aws => Signer::Aws,
    }
}

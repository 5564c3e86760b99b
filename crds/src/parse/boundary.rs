//! From a boundary of the API to the rule's own.

use super::{claims::claims, invalid, parse_all, selector::selector, token::source};
use crate::messages;
use crate::v1alpha1::{BoundarySpec, SourceSpec};
use tokenscope_core::{Boundary, InvalidPolicy, TokenExpiration};

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
            sources: self.sources.iter().copied().map(source).collect(),
            claims: match &self.claims {
                None => None,
                Some(found) => Some(claims(found, SourceSpec::Issuer)?),
            },
        })
    }
}

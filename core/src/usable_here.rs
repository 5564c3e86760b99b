//! The reasons why a policy can't grant anything in this installation, whatever a pod asks for.

use crate::audience::NO_DEFAULT_AUDIENCE;
use crate::{Policy, Refusal, Settings};

impl Settings {
    /// The reason why the policy can't be used in this installation. Such a policy grants nothing: no role, no token of EKS Pod
    /// Identity, and no token that a pod brings itself.
    pub(crate) fn stands_against(&self, policy: &Policy) -> Option<Refusal> {
        let name = || policy.name.clone();
        if let Some(audience) = self.exchange_audience_of(policy) {
            return Some(Refusal::ExchangeAudienceInPolicy {
                policy: name(),
                audience: audience.clone(),
            });
        }
        if let Some(refused) = self.refused_outbound(policy) {
            return Some(Refusal::InvalidPolicy {
                policy: name(),
                why: refused.to_string().into(),
            });
        }
        if policy.audiences.lacks_default(&self.default_audience) {
            return Some(Refusal::InvalidPolicy {
                policy: name(),
                why: NO_DEFAULT_AUDIENCE.into(),
            });
        }
        if !self.has_source(policy.token.source) {
            return Some(Refusal::SourceNotAvailable {
                policy: name(),
                source_of_token: policy.token.source,
            });
        }
        let why = self.lacks_region(policy)?;
        Some(Refusal::InvalidPolicy {
            policy: name(),
            why: why.into(),
        })
    }
}

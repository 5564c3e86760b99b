//! The installation's settings for all: the chart's values, as far as they change a decision.

mod invalid;
mod lock;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

pub use invalid::InvalidSettings;
pub use lock::{Lock, LockMode};

use crate::annotations;
use crate::arn::shortened;
use crate::audience::{Audience, TokenExpiration};
use crate::delivery::{Delivery, NO_REGION, NO_STS_REGION};
use crate::labels::Pairs;
use crate::pod_identity::PodIdentity;
use crate::policy::Policy;
use crate::region::Region;
use crate::sidecar::SidecarSettings;
use crate::token_source::TokenSource;

/// The installation's settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// True if `eks.amazonaws.com/` annotations of service accounts count, and volume and path are EKS's own.
    pub eks_compatible: bool,
    /// True if a role needs a policy. `false` is for migrating: a pod that no policy selects gets the role it names.
    pub policy_required: bool,
    /// The fate of a denied pod where its namespace doesn't say.
    pub enforcement: Enforcement,
    /// The audience where neither workload nor policy names one.
    pub default_audience: Audience,
    /// The expiration where neither workload nor policy names one.
    pub default_token_expiration: TokenExpiration,
    /// The region where the policy names none.
    pub default_region: Option<Region>,
    /// True if STS's regional endpoints are asked for where the policy doesn't say.
    pub sts_regional_endpoints: bool,
    /// The sidecar that is added where tokens need one.
    pub sidecar: SidecarSettings,
    /// The tokens that need a policy's grant.
    pub lock: Lock,
    /// The granted containers that are kept from the node's metadata service.
    pub instance_metadata: InstanceMetadata,
    /// The URL of tokenscope's own issuer, where the installation runs one.
    pub issuer: Option<Box<str>>,
    /// The audiences of the API server itself, as far as they are known.
    pub api_audiences: Vec<Box<str>>,
    /// The ServiceAccounts whose pods get their credentials from the agent of EKS Pod Identity. It counts in EKS-compatible mode only.
    pub pod_identity: Option<Arc<PodIdentity>>,
    /// Namespaces whose pods are never refused: a denied one is left alone, with a warning.
    pub never_denied: Vec<Box<str>>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            eks_compatible: false,
            policy_required: true,
            enforcement: Enforcement::Enforce,
            default_audience: Audience::sts(),
            default_token_expiration: TokenExpiration::HOUR,
            default_region: None,
            sts_regional_endpoints: true,
            sidecar: SidecarSettings::default(),
            lock: Lock::default(),
            instance_metadata: InstanceMetadata::WithRegionDisabled,
            issuer: None,
            api_audiences: Vec::new(),
            pod_identity: None,
            never_denied: vec!["kube-system".into()],
        }
    }
}

impl Settings {
    /// The defaults of EKS-compatible mode: tokens of a day and no word on STS endpoints, as the EKS webhook has them.
    pub fn eks_compatible() -> Self {
        Self {
            eks_compatible: true,
            default_token_expiration: TokenExpiration::DAY,
            sts_regional_endpoints: false,
            ..Self::default()
        }
    }

    /// True if the installation can give pods tokens of this source.
    pub fn has_source(&self, source: TokenSource) -> bool {
        match source {
            TokenSource::ServiceAccount | TokenSource::Spiffe => true,
            TokenSource::Issuer => self.issuer.is_some(),
        }
    }

    /// The message about a policy whose way of delivery needs a region, where it has none.
    pub fn lacks_region(&self, policy: &Policy) -> Option<&'static str> {
        let message = match &policy.delivery {
            Delivery::Profile(_) => NO_REGION,
            Delivery::Endpoint(endpoint) if endpoint.regions.is_empty() => NO_STS_REGION,
            Delivery::File | Delivery::Endpoint(_) => return None,
        };
        (policy.aws.region.is_none() && self.default_region.is_none()).then_some(message)
    }

    /// True if this is the exchange audience: that of the tokens which tokenscope's own issuer exchanges, which is its URL.
    /// Only the webhook gives pods such a token, for their sidecar, so it is locked in every namespace and whatever the
    /// lock's mode.
    pub fn is_exchange_audience(&self, audience: &str) -> bool {
        self.issuer.as_deref() == Some(audience)
    }

    /// The exchange audience, where the policy names it. Such a policy grants nothing.
    pub fn exchange_audience_of<'p>(&self, policy: &'p Policy) -> Option<&'p Audience> {
        let mut named = policy.audiences.allowed.iter().chain(&policy.audiences.default);
        named.find(|audience| self.is_exchange_audience(audience.as_str()))
    }

    /// The configuration of EKS Pod Identity, where it lists the service account.
    pub fn pod_identity_of(&self, namespace: &str, service_account: &str) -> Option<&PodIdentity> {
        let configured = self.pod_identity.as_deref().filter(|_| self.eks_compatible)?;
        configured.lists(namespace, service_account).then_some(configured)
    }

    /// The service accounts of a namespace that the configuration of EKS Pod Identity lists, by name.
    pub fn associated_in(&self, namespace: &str) -> impl Iterator<Item = &str> {
        let configured = self.pod_identity.as_deref().filter(|_| self.eks_compatible);
        configured
            .into_iter()
            .flat_map(move |configured| configured.listed_in(namespace))
    }

    /// True if pods of this namespace are left alone where others would be refused.
    pub fn never_denies(&self, namespace: &str) -> bool {
        self.never_denied
            .iter()
            .any(|never_denied| **never_denied == *namespace)
    }

    /// The fate of a denied pod of a namespace with these labels.
    ///
    /// The strictest of `tokenscope.io/enforce`, `/warn` and `/audit` that is `"true"`; where none is, the installation's
    /// own unless its label is `"false"`, then the next weaker one.
    pub fn enforcement_in<S: AsRef<str>>(&self, namespace_labels: &Pairs<S>) -> Enforcement {
        let label = |mode: Enforcement| namespace_labels.value(mode.label());
        let strictest_first = [Enforcement::Enforce, Enforcement::Warn, Enforcement::Audit];
        strictest_first
            .into_iter()
            .find(|&mode| label(mode) == Some("true"))
            .or_else(|| {
                strictest_first
                    .into_iter()
                    .find(|&mode| mode >= self.enforcement && label(mode) != Some("false"))
            })
            .unwrap_or(Enforcement::Audit)
    }
}

/// The granted containers that get `AWS_EC2_METADATA_DISABLED=true`, so that an SDK whose web identity fails can't fall back
/// to the role of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceMetadata {
    /// All.
    AlwaysDisabled,
    /// Those whose policy sets a region: the others may need the metadata service to find theirs.
    WithRegionDisabled,
    /// None.
    NeverDisabled,
}

impl InstanceMetadata {
    /// The word in flags and values.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlwaysDisabled => "always",
            Self::WithRegionDisabled => "with-region",
            Self::NeverDisabled => "never",
        }
    }
}

impl FromStr for InstanceMetadata {
    type Err = InvalidSettings;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::AlwaysDisabled, Self::WithRegionDisabled, Self::NeverDisabled]
            .into_iter()
            .find(|choice| choice.as_str() == text)
            .ok_or_else(|| InvalidSettings::InstanceMetadata { text: shortened(text) })
    }
}

impl fmt::Display for InstanceMetadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The fate of a pod that is denied. Ordered from the strictest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Enforcement {
    /// It is refused, with the reasons.
    Enforce,
    /// It is admitted without credentials, with a warning to whoever created it.
    Warn,
    /// It is admitted without credentials; an audit annotation and a metric say so.
    Audit,
}

impl Enforcement {
    /// The word in flags, labels and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Warn => "warn",
            Self::Audit => "audit",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Enforce => annotations::ENFORCE,
            Self::Warn => annotations::WARN,
            Self::Audit => annotations::AUDIT,
        }
    }
}

impl FromStr for Enforcement {
    type Err = InvalidSettings;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "enforce" => Ok(Self::Enforce),
            "warn" => Ok(Self::Warn),
            "audit" => Ok(Self::Audit),
            _ => Err(InvalidSettings::Enforcement { text: shortened(text) }),
        }
    }
}

impl fmt::Display for Enforcement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enforcement(default: Enforcement, labels: &[(&str, &str)]) -> Enforcement {
        let labels: Pairs<&str> = labels.iter().copied().collect();
        Settings {
            enforcement: default,
            ..Settings::default()
        }
        .enforcement_in(&labels)
    }

    #[test]
    fn a_namespace_label_beats_the_installation() {
        use Enforcement::{Audit, Enforce, Warn};

        assert_eq!(enforcement(Enforce, &[]), Enforce);
        assert_eq!(enforcement(Enforce, &[("tokenscope.io/warn", "true")]), Warn);
        assert_eq!(enforcement(Audit, &[("tokenscope.io/enforce", "true")]), Enforce);
        assert_eq!(
            enforcement(
                Audit,
                &[("tokenscope.io/audit", "true"), ("tokenscope.io/warn", "true")]
            ),
            Warn
        );
        assert_eq!(enforcement(Enforce, &[("tokenscope.io/enforce", "false")]), Warn);
        assert_eq!(
            enforcement(
                Enforce,
                &[("tokenscope.io/enforce", "false"), ("tokenscope.io/warn", "false")]
            ),
            Audit
        );
        assert_eq!(enforcement(Warn, &[("tokenscope.io/enforce", "yes")]), Warn);
    }
}

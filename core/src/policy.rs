//! Policies as the rule sees them: parsed, complete, and with nothing of Kubernetes in them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;

use crate::delivery::{Delivery, RoleHop};
use crate::outbound::OutboundToken;
use crate::{
    Audiences, Claims, Glob, Pairs, Region, RoleArn, RolePattern, Schedule, Selector, Spiffe, Subject, Template,
    TokenExpiration, TokenSource,
};

/// The name of a policy: a namespaced one or a cluster one. Namespaced ones come first in the order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyName {
    /// A `TokenScopePolicy`.
    Namespaced {
        /// Its namespace.
        namespace: Arc<str>,
        /// Its name.
        name: Arc<str>,
    },
    /// A `ClusterTokenScopePolicy`.
    Cluster {
        /// Its name.
        name: Arc<str>,
    },
}

impl PolicyName {
    /// Names a `TokenScopePolicy`.
    pub fn namespaced(namespace: &str, name: &str) -> Self {
        Self::Namespaced {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// Names a `ClusterTokenScopePolicy`.
    pub fn cluster(name: &str) -> Self {
        Self::Cluster { name: name.into() }
    }

    /// The object's kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Namespaced { .. } => "TokenScopePolicy",
            Self::Cluster { .. } => "ClusterTokenScopePolicy",
        }
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Namespaced { name, .. } | Self::Cluster { name } => name,
        }
    }

    /// The object's namespace.
    pub fn namespace(&self) -> Option<&str> {
        match self {
            Self::Namespaced { namespace, .. } => Some(namespace),
            Self::Cluster { .. } => None,
        }
    }

    /// True if it is a cluster policy.
    pub fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }
}

/// `TokenScopePolicy shop/orders`, as messages and the grant annotation have it.
impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Namespaced { namespace, name } => write!(f, "TokenScopePolicy {namespace}/{name}"),
            Self::Cluster { name } => write!(f, "ClusterTokenScopePolicy {name}"),
        }
    }
}

impl FromStr for PolicyName {
    type Err = ();

    /// Reads back what `Display` wrote.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(' ').ok_or(())? {
            ("TokenScopePolicy", path) => path
                .split_once('/')
                .map(|(namespace, name)| Self::namespaced(namespace, name))
                .ok_or(()),
            ("ClusterTokenScopePolicy", name) => Ok(Self::cluster(name)),
            _ => Err(()),
        }
    }
}

/// A policy: which workloads may have which role, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Its name.
    pub name: PolicyName,
    /// The UID of its object, where it is known.
    pub uid: Option<Arc<str>>,
    /// The time when its object was created, where that is known.
    pub created: Option<Timestamp>,
    /// The namespaces that a cluster policy is about; a namespaced policy is about its own.
    pub namespace_selector: Selector,
    /// Any may match; none = no pod is meant.
    pub subjects: Vec<Subject>,
    /// The roles that it allows.
    pub roles: Roles,
    /// The audiences that the tokens may have.
    pub audiences: Audiences,
    /// The kind of token.
    pub token: TokenSettings,
    /// The token's claims beyond its subject; only the issuer can sign that.
    pub claims: Arc<Claims>,
    /// The settings of the SDK.
    pub aws: AwsSettings,
    /// The way in which credentials reach it.
    pub delivery: Delivery,
    /// The tokens for third parties that come with its role.
    pub outbound: Arc<[OutboundToken]>,
    /// The containers that get credentials.
    pub containers: ContainerFilter,
    /// Switched off.
    pub disabled: bool,
    /// Looked at only where no other policy grants.
    pub fallback: bool,
    /// In force before this moment only.
    pub expires_at: Option<Timestamp>,
    /// In force in these windows only.
    pub active_schedule: Option<Schedule>,
    /// The fate of running pods once it is not in force any more.
    pub on_expiry: OnExpiry,
}

/// The fate of pods that run with a policy's grant once the policy has expired, is disabled or its window is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// They keep their role: the kubelet or the SPIFFE provider renews their tokens as long as they run. With source Issuer they
    /// keep the token that they have, and the issuer gives no further one.
    #[default]
    Keep,
    /// The operator evicts them, if the installation allows it to.
    Evict,
}

/// Roles that a policy allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// Exact ARNs or patterns.
    pub allowed: Vec<RolePattern>,
    /// The role of a matching pod that names none.
    pub default: Option<RoleArn>,
}

impl Roles {
    /// True if it allows `role`; its default it always does.
    pub fn allow(&self, role: &RoleArn) -> bool {
        self.default.as_ref() == Some(role) || self.allowed.iter().any(|pattern| pattern.matches(role))
    }

    /// The bytes of the patterns with which each role is compared.
    pub(crate) fn compared_bytes(&self) -> usize {
        self.allowed.iter().map(|pattern| pattern.as_str().len()).sum()
    }

    /// Those that it names without `*`, the default first.
    pub fn exact(&self) -> impl Iterator<Item = RoleArn> {
        let allowed = self.allowed.iter().filter_map(RolePattern::exact);
        self.default.clone().into_iter().chain(allowed)
    }
}

/// The kind of token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSettings {
    /// Its signer.
    pub source: TokenSource,
    /// The format of its subject, where we sign.
    pub subject_format: SubjectFormat,
    /// Its lifetime; a workload may ask for less. A SPIFFE provider decides that itself.
    pub expiration: TokenExpiration,
    /// The identity that it is of, where a SPIFFE provider signs it.
    pub spiffe: Spiffe,
    /// The algorithm of its signature, where we sign.
    pub algorithm: Algorithm,
}

/// The format of the subject of an issuer's token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum SubjectFormat {
    /// Namespace and service account, as in the cluster's own tokens.
    #[default]
    ServiceAccount,
    /// The policy too, so that AWS can demand a certain one.
    Policy,
}

/// Signature algorithms that AWS accepts and our issuer offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA with SHA-256.
    RS256,
    /// ECDSA on P-256.
    ES256,
    /// ECDSA on P-384.
    ES384,
}

impl Algorithm {
    /// Each of them.
    pub const ALL: [Self; 3] = [Self::RS256, Self::ES256, Self::ES384];
}

/// The settings of the SDK in the container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AwsSettings {
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    pub region: Option<Region>,
    /// `AWS_STS_REGIONAL_ENDPOINTS`.
    pub sts_regional_endpoints: Option<bool>,
    /// `AWS_ROLE_SESSION_NAME`: `${pod.name}` alone, or a template without it.
    pub role_session_name: Option<Template>,
    /// The roles that are taken one after the other after the one that the pod gets. Not with [`Delivery::File`].
    pub role_chain: Vec<RoleHop>,
}

/// The containers of a matching pod that get credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Names or globs; none = all.
    pub include: Vec<Glob>,
    /// Names or globs that stay out.
    pub exclude: Vec<Glob>,
}

impl ContainerFilter {
    /// True if a container of this name is in.
    pub fn covers(&self, name: &str) -> bool {
        (self.include.is_empty() || self.include.iter().any(|glob| glob.matches(name)))
            && !self.exclude.iter().any(|glob| glob.matches(name))
    }

    /// The bytes of the patterns with which each container's name is compared.
    pub(crate) fn compared_bytes(&self) -> usize {
        let globs = self.include.iter().chain(&self.exclude);
        globs.map(|glob| glob.as_str().len()).sum()
    }
}

/// A policy's standing to a pod at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is a candidate.
    Candidate,
    /// It is switched off.
    Disabled,
    /// Its time is over.
    Expired,
    /// No window of its schedule is open.
    Inactive,
    /// It is about other namespaces.
    OtherNamespace,
    /// It is about other workloads.
    OtherSubject,
}

impl Policy {
    /// The bytes with which a pod is compared, or a part of it. A schedule counts as a thousand.
    pub(crate) fn compared_bytes(&self) -> usize {
        let schedule = self.active_schedule.as_ref().map_or(0, |_| 1024);
        let subjects: usize = self.subjects.iter().map(Subject::compared_bytes).sum();
        schedule
            + subjects
            + self.audiences.compared_bytes()
            + self.roles.compared_bytes()
            + self.containers.compared_bytes()
    }

    /// Its standing to a pod of this namespace, service account and labels.
    pub fn standing<N: AsRef<str>, P: AsRef<str>>(
        &self,
        namespace: &str,
        namespace_labels: &Pairs<N>,
        service_account: &str,
        pod_labels: &Pairs<P>,
        now: Timestamp,
    ) -> Standing {
        if !is_about_namespace(&self.name, &self.namespace_selector, namespace, namespace_labels) {
            return Standing::OtherNamespace;
        }
        if !self
            .subjects
            .iter()
            .any(|subject| subject.matches(service_account, pod_labels))
        {
            return Standing::OtherSubject;
        }
        self.standing_in_time(now)
    }

    /// Its standing in time at a moment, whatever the pod.
    pub fn standing_in_time(&self, now: Timestamp) -> Standing {
        standing_in_time(self.disabled, self.expires_at, self.active_schedule.as_ref(), now)
    }

    /// True if a pod gets the same from two policies that assign one role: the same roles after it, delivered in the same way, by
    /// tokens that AWS can't tell apart, and the same tokens for third parties. Only tokens of tokenscope's own issuer say more than whose they are.
    pub fn grants_the_same_as(&self, other: &Self) -> bool {
        let roles_agree = self.delivery == other.delivery && self.aws.role_chain == other.aws.role_chain;
        if !roles_agree || self.outbound != other.outbound {
            return false;
        }
        if [self, other]
            .iter()
            .all(|policy| policy.token.source != TokenSource::Issuer)
        {
            return true;
        }
        self.token == other.token
            // The other format's subject names the policy.
            && self.token.subject_format == SubjectFormat::ServiceAccount
            && self.claims == other.claims
            && self.audiences.own_default() == other.audiences.own_default()
    }

    /// The time after `now` when its standing in time may change next.
    pub fn next_change(&self, now: Timestamp) -> Option<Timestamp> {
        next_change(self.expires_at, self.active_schedule.as_ref(), now)
    }
}

/// True if a policy with this name and selector is about a namespace.
pub(crate) fn is_about_namespace<N: AsRef<str>>(
    name: &PolicyName,
    selector: &Selector,
    namespace: &str,
    labels: &Pairs<N>,
) -> bool {
    match name {
        PolicyName::Namespaced { namespace: own, .. } => **own == *namespace,
        PolicyName::Cluster { .. } => selector.matches(labels),
    }
}

/// The standing in time of a policy that says this of it.
pub(crate) fn standing_in_time(
    disabled: bool,
    expires_at: Option<Timestamp>,
    schedule: Option<&Schedule>,
    now: Timestamp,
) -> Standing {
    if disabled {
        return Standing::Disabled;
    }
    if expires_at.is_some_and(|expires_at| now >= expires_at) {
        return Standing::Expired;
    }
    if schedule.is_some_and(|schedule| !schedule.is_active(now)) {
        return Standing::Inactive;
    }
    Standing::Candidate
}

/// The time after `now` when the standing of a policy that says this may change next.
pub(crate) fn next_change(
    expires_at: Option<Timestamp>,
    schedule: Option<&Schedule>,
    now: Timestamp,
) -> Option<Timestamp> {
    let expiry = expires_at.filter(|&expires_at| expires_at > now);
    let schedule = schedule.and_then(|schedule| schedule.next_change(now));
    expiry.into_iter().chain(schedule).min()
}

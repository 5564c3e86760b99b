//! From a pod's record of admission to what is signed: the one place that asks `core` for an exchange.

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::{Audience, Decision, Pairs, PolicyName, PolicySet, Request, Settings, TokenSource};
use tokenscope_index::{KeptAnnotations, NamespaceLabels, PodContext};

use crate::cluster_index::KnownPolicies;
use crate::grant::{GrantingPolicy, TokenGrant};
use crate::pods::AdmittedPod;

/// What is around a pod at the moment of the exchange.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The namespace's name.
    pub namespace: Box<str>,
    /// Its labels.
    pub labels: NamespaceLabels,
    /// The annotations of the pod's service account.
    pub annotations: Option<KeptAnnotations>,
    /// The policies.
    pub policies: Arc<KnownPolicies>,
}

/// The rule: [`tokenscope_core::decide`].
pub type Rule = fn(&Request<'_>, &PolicySet, &Settings, Timestamp) -> Decision;

/// Why nothing is signed. `Display` is the sentence that the caller reads.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotGranted {
    /// A policy, or none, says so.
    #[error("{0}")]
    Denied(String),
    /// The pod is granted something, and not from this issuer.
    #[error("no policy with token.source Issuer grants this pod a token")]
    OtherSource,
    /// The audience is none of those that are granted.
    #[error("no policy grants this pod a token for the audience {audience}; granted are: {granted}")]
    Audience {
        /// What was asked for.
        audience: Audience,
        /// What is granted, separated by commas.
        granted: String,
    },
    /// Two containers are granted different tokens of one audience.
    #[error(
        "{one} and {other} grant containers of this pod different tokens for the audience {audience}: a pod has one"
    )]
    Ambiguous {
        /// The audience.
        audience: Audience,
        /// One policy.
        one: PolicyName,
        /// The other.
        other: PolicyName,
    },
    /// The policy has just been made or deleted.
    #[error("{0} is not known well enough yet: try again")]
    PolicyChanging(PolicyName),
}

/// Decides about a pod, by what admission recorded, and says what a token for `audience` states.
pub fn token_grant(
    pod: &AdmittedPod,
    around: &Surroundings,
    audience: &Audience,
    rule: Rule,
    settings: &Settings,
    now: Timestamp,
) -> Result<TokenGrant, NotGranted> {
    let annotations = around.annotations.as_ref().map(KeptAnnotations::pairs);
    let context = PodContext {
        namespace: &around.namespace,
        namespace_labels: around.labels.labels.borrowed(),
        service_account: &pod.service_account,
        service_account_annotations: annotations.as_ref().map(Pairs::borrowed).unwrap_or_default(),
    };
    let request = context.request(pod.facts());
    let decision = rule(&request, &around.policies.set, settings, now);
    from_decision(&decision, audience, pod, around)
}

fn from_decision(
    decision: &Decision,
    audience: &Audience,
    pod: &AdmittedPod,
    around: &Surroundings,
) -> Result<TokenGrant, NotGranted> {
    let granted = match decision {
        Decision::Granted(granted) => granted,
        Decision::Denied(denied) => return Err(NotGranted::Denied(denied.to_string())),
        Decision::Untouched(untouched) => return Err(NotGranted::Denied(untouched.to_string())),
    };
    let grants = granted.containers.iter().map(|container| &container.grant);
    let ours: Vec<_> = grants.filter(|grant| grant.source == TokenSource::Issuer).collect();
    if ours.is_empty() {
        return Err(NotGranted::OtherSource);
    }
    let mut found: Option<TokenGrant> = None;
    for grant in ours.iter().filter(|grant| grant.audience == *audience) {
        // Without a policy nothing has the source Issuer.
        let name = grant.policy.as_ref().ok_or(NotGranted::OtherSource)?;
        let mut policies = around.policies.set.about(&around.namespace);
        let policy = policies.find(|policy| policy.name == *name);
        let uid = around.policies.uids.get(name);
        let (Some(policy), Some(uid)) = (policy, uid) else {
            return Err(NotGranted::PolicyChanging(name.clone()));
        };
        let token = TokenGrant {
            audience: grant.audience.clone(),
            subject: format!("system:serviceaccount:{}:{}", around.namespace, pod.service_account).into(),
            lifetime: grant.expiration.seconds(),
            algorithm: policy.token.algorithm,
            tags: Vec::new(),
            transitive_tag_keys: Vec::new(),
            source_identity: None,
            context: Vec::new(),
            policy: GrantingPolicy {
                name: name.clone(),
                uid: (**uid).into(),
            },
        };
        if let Some(other) = found.replace(token.clone()).filter(|other| *other != token) {
            return Err(NotGranted::Ambiguous {
                audience: audience.clone(),
                one: other.policy.name,
                other: token.policy.name,
            });
        }
    }
    found.ok_or_else(|| {
        let mut audiences: Vec<_> = ours.iter().map(|grant| grant.audience.as_str()).collect();
        audiences.sort_unstable();
        audiences.dedup();
        NotGranted::Audience {
            audience: audience.clone(),
            granted: audiences.join(", "),
        }
    })
}

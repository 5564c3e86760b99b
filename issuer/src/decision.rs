//! From a pod's record of admission to what is signed: the one place that asks `core` for an exchange.

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::{
    Audience, ClaimsError, ClusterName, Decision, Grant, Pairs, PodFacts, PolicyName, Settings, TokenClaims,
    WorkloadFacts, decide,
};
use tokenscope_index::{KeptAnnotations, NamespaceLabels, PodContext, Policies};

use crate::grant::{GrantingPolicy, TokenGrant};
use crate::pods::AdmittedPod;

/// What is around a pod at the moment of the exchange.
#[derive(Clone, Debug)]
pub struct ExchangeContext {
    /// The namespace's name.
    pub namespace: Box<str>,
    /// The pod's name.
    pub pod_name: Box<str>,
    /// The namespace's labels.
    pub labels: NamespaceLabels,
    /// The annotations of the pod's service account.
    pub annotations: Option<KeptAnnotations>,
    /// The policies and their boundaries.
    pub policies: Arc<Policies>,
}

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
    /// A token names its policy by the UID too.
    #[error("the UID of {0} is not known: try again")]
    NoPolicyUid(PolicyName),
    /// A value that the policy takes from the pod breaks a rule of AWS.
    #[error(transparent)]
    Claims(#[from] ClaimsError),
}

/// Decides about a pod, by what admission recorded, and says what a token for `audience` states.
pub fn token_grant(
    pod: &AdmittedPod,
    context: &ExchangeContext,
    audience: &Audience,
    settings: &Settings,
    cluster_name: Option<&ClusterName>,
    now: Timestamp,
) -> Result<TokenGrant, NotGranted> {
    let facts = pod.facts();
    let decision = decision(pod, facts.clone(), context, settings, now);
    let (grant, claims) = granted(&decision, audience)?;
    let workload = WorkloadFacts {
        namespace: &context.namespace,
        namespace_labels: &context.labels.labels,
        service_account: &pod.service_account,
        pod_name: &context.pod_name,
        pod_uid: &pod.uid,
        pod_labels: &facts.labels,
    };
    let Some(uid) = &claims.policy_uid else {
        return Err(NotGranted::NoPolicyUid(claims.policy.clone()));
    };
    let subject = claims.subject(&context.namespace, &pod.service_account, cluster_name);
    Ok(TokenGrant {
        audience: grant.audience.clone(),
        subject: subject.into(),
        lifetime: grant.expiration.seconds(),
        algorithm: claims.algorithm,
        claims: claims.fill(&workload)?,
        policy: GrantingPolicy {
            name: claims.policy.clone(),
            uid: (**uid).into(),
        },
    })
}

fn decision(
    pod: &AdmittedPod,
    facts: PodFacts<'_>,
    context: &ExchangeContext,
    settings: &Settings,
    now: Timestamp,
) -> Decision {
    let annotations = context.annotations.as_ref().map(KeptAnnotations::pairs);
    let around = PodContext {
        namespace: &context.namespace,
        namespace_labels: context.labels.labels.borrowed(),
        service_account: &pod.service_account,
        service_account_annotations: annotations.as_ref().map(Pairs::borrowed).unwrap_or_default(),
    };
    decide(&around.request(facts), &context.policies, settings, now)
}

/// The one grant of a token for `audience`. All containers to which one is granted share the token: a decision grants no two that
/// demand different things of it.
fn granted<'a>(decision: &'a Decision, audience: &Audience) -> Result<(&'a Grant, &'a TokenClaims), NotGranted> {
    let granted = match decision {
        Decision::Granted(granted) => granted,
        Decision::Denied(denied) => return Err(NotGranted::Denied(denied.to_string())),
        Decision::Untouched(untouched) => return Err(NotGranted::Denied(untouched.to_string())),
    };
    let grants = granted.containers.iter().map(|container| &*container.grant);
    // Only what this issuer signs has claims.
    let ours: Vec<_> = grants
        .filter_map(|grant| Some((grant, grant.claims.as_ref()?)))
        .collect();
    if ours.is_empty() {
        return Err(NotGranted::OtherSource);
    }
    let mut wanted = ours.iter().filter(|(grant, _)| grant.audience == *audience);
    let Some(&(grant, claims)) = wanted.next() else {
        let mut audiences: Vec<_> = ours.iter().map(|(grant, _)| grant.audience.as_str()).collect();
        audiences.sort_unstable();
        audiences.dedup();
        return Err(NotGranted::Audience {
            audience: audience.clone(),
            granted: audiences.join(", "),
        });
    };
    Ok((grant, claims))
}

//! From a pod's record of admission to what is signed: the one place that asks `core` for an exchange.

use std::sync::Arc;

use jiff::Timestamp;
use tokenscope_core::outbound::OutboundSource;
use tokenscope_core::{
    Audience, ClaimsError, ClusterName, Decision, FilledClaims, Grant, Pairs, PodFacts, PolicyName, Settings,
    TokenClaims, TokenExpiration, WorkloadFacts, decide,
};
use tokenscope_index::{KeptAnnotations, NamespaceLabels, PodContext, Policies};

use crate::grant::{GrantingPolicy, TokenGrant};
use crate::pods::AdmittedPod;

/// The facts around a pod at the moment of the exchange.
#[derive(Clone, Debug)]
pub struct ExchangeContext {
    /// The namespace's name.
    pub namespace: Box<str>,
    /// The pod's name.
    pub pod_name: Box<str>,
    /// The namespace's labels.
    pub labels: NamespaceLabels,
    /// The annotations that the pod's service account has now. They are looked at only where the record has none of admission.
    pub annotations: Option<KeptAnnotations>,
    /// The policies and their boundaries.
    pub policies: Arc<Policies>,
}

/// The reason why nothing is signed. `Display` is the sentence that the caller reads.
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
        /// The requested value.
        audience: Audience,
        /// The granted values, separated by commas.
        granted: String,
    },
    /// The installation has no key that could ever sign it.
    #[error(
        "{policy} wants tokens that are signed with {algorithm} (spec.token.algorithm), and this issuer signs with {signed_with} alone: choose \
         such an algorithm in the policy, or ask an administrator to add {algorithm} to issuer.keys.algorithms, or a key for it to \
         issuer.keys.file"
    )]
    Algorithm {
        /// The policy.
        policy: PolicyName,
        /// The value that it wants.
        algorithm: &'static str,
        /// The values that exist, separated by commas.
        signed_with: String,
    },
    /// A token names its policy by the UID too.
    #[error("the UID of {0} is not known: try again")]
    NoPolicyUid(PolicyName),
    /// A value that the policy takes from the pod breaks a rule of AWS.
    #[error("{policy}: {why}")]
    Claims {
        /// The policy.
        policy: PolicyName,
        /// The field, the value and where it comes from.
        why: ClaimsError,
    },
}

impl NotGranted {
    /// The policy whose grant it is that can't be kept. None where no policy grants the token.
    pub fn policy(&self) -> Option<&PolicyName> {
        match self {
            Self::Algorithm { policy, .. } | Self::NoPolicyUid(policy) | Self::Claims { policy, .. } => Some(policy),
            Self::Denied(_) | Self::OtherSource | Self::Audience { .. } => None,
        }
    }
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
    // The agent on the node has the credentials of such a pod, which needs no token of this issuer.
    if pod.is_associated {
        return Err(NotGranted::OtherSource);
    }
    let facts = pod.facts();
    let decision = decision(pod, facts.clone(), context, settings, now);
    let granted = granted(&decision, audience)?;
    let claims = granted.claims;
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
        audience: audience.clone(),
        subject: subject.into(),
        lifetime: granted.lifetime.seconds(),
        algorithm: claims.algorithm,
        // What AWS is told of a session is none of a third party's business.
        claims: if granted.is_outbound {
            FilledClaims::default()
        } else {
            claims.fill(&workload).map_err(|why| NotGranted::Claims {
                policy: claims.policy.clone(),
                why,
            })?
        },
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
    let present = context.annotations.as_ref().map(KeptAnnotations::pairs);
    let present = || present.as_ref().map(Pairs::borrowed).unwrap_or_default();
    let around = PodContext {
        namespace: &context.namespace,
        namespace_labels: context.labels.labels.borrowed(),
        service_account: &pod.service_account,
        service_account_annotations: pod.service_account_annotations().unwrap_or_else(present),
    };
    decide(&around.request(facts), &context.policies, settings, now)
}

/// A token that a decision grants.
struct GrantedToken<'a> {
    claims: &'a TokenClaims,
    lifetime: TokenExpiration,
    /// True if it is for a third party.
    is_outbound: bool,
}

/// The tokens of this issuer that a grant gives, by their audiences: that of its role, and those for third parties.
fn tokens<'a>(grant: &'a Grant, claims: &'a TokenClaims) -> impl Iterator<Item = (&'a Audience, GrantedToken<'a>)> {
    let token = move |lifetime, is_outbound| GrantedToken {
        claims,
        lifetime,
        is_outbound,
    };
    let issued = grant.outbound.iter();
    let issued = issued.filter(|outbound| outbound.source == OutboundSource::Issuer);
    let issued = issued.map(move |outbound| (&outbound.audience, token(outbound.expiration, true)));
    std::iter::once((&grant.audience, token(grant.expiration, false))).chain(issued)
}

/// The one grant of a token for `audience`. All containers to which one is granted share the token: a decision grants no two that
/// demand different things of it. Of those for third parties the shortest lifetime counts.
fn granted<'a>(decision: &'a Decision, audience: &Audience) -> Result<GrantedToken<'a>, NotGranted> {
    let granted = match decision {
        Decision::Granted(granted) => granted,
        // The same where the settings list its service account.
        Decision::Associated(_) => return Err(NotGranted::OtherSource),
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
    let all = || ours.iter().flat_map(|&(grant, claims)| tokens(grant, claims));
    let wanted = all().filter(|(found, _)| *found == audience).map(|(_, token)| token);
    let first = wanted.reduce(|one, other| {
        if other.is_outbound && other.lifetime < one.lifetime {
            other
        } else {
            one
        }
    });
    let Some(granted) = first else {
        let mut audiences: Vec<_> = all().map(|(audience, _)| audience.as_str()).collect();
        audiences.sort_unstable();
        audiences.dedup();
        return Err(NotGranted::Audience {
            audience: audience.clone(),
            granted: audiences.join(", "),
        });
    };
    Ok(granted)
}

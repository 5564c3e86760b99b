//! The rule: which container of a pod gets which role, by which policy, or why not.

mod association;
mod candidates;
mod checks;
mod comparisons;
mod containers;
mod grants;
mod left_out;

use std::collections::HashMap;

pub use association::Associated;
use candidates::Candidates;
use containers::{ContainerDecider, ContainerOutcomes};
use jiff::Timestamp;
use left_out::LeftOut;

use crate::annotation_request::{self, AnnotationRequest};
use crate::annotations::InvalidAnnotation;
use crate::arn::shortened;
use crate::bounds::Beyond;
use crate::refusal::Refusals;
use crate::text::and_more;
use crate::{
    Audience, ContainerGrant, Denied, PolicySet, Refusal, Request, Settings, TokenClaims, TokenSource, annotations,
};

/// The decision about a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays as it is.
    Untouched(Untouched),
    /// At least one container gets a role.
    Granted(Granted),
    /// At least one container gets the role of an association of EKS Pod Identity, which is not known here.
    Associated(Associated),
    /// It asks for something that it may not have.
    Denied(Denied),
}

/// The reason why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untouched {
    /// It, its service account or its namespace said so.
    #[error("tokenscope.io/inject: \"false\" opts out")]
    OptedOut,
    /// A label of the pod keeps EKS's webhook away, and this one where it takes EKS's annotations.
    #[error("label eks.amazonaws.com/skip-pod-identity-webhook opts out")]
    SkippedByLabel,
    /// It shows what a kubelet already runs from a file, and the API server takes no mirror pod with a token.
    #[error("it is a mirror pod, which only shows what a kubelet runs from a file")]
    MirrorPod,
    /// It names no role and no policy assigns it one.
    #[error("it asks for no role and no policy assigns it one")]
    NothingAsked,
    /// A role is asked for, but every container is left out or brings its own credentials.
    #[error("every container is skipped or brings its own credentials")]
    NoContainer {
        /// Warnings for whoever created the pod: it asked, and gets nothing.
        warnings: Vec<String>,
    },
}

/// A pod's grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// One for each container that gets a role.
    pub containers: Vec<ContainerGrant>,
    /// The others, where there is something to say about them.
    pub left_alone: Vec<LeftAlone>,
    /// Warnings for whoever created the pod.
    pub warnings: Vec<String>,
}

/// A container that gets nothing although its pod does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its index in the request.
    pub container: usize,
    /// The reason, in one sentence.
    pub reason: Box<str>,
}

/// The most warnings of a decision: the API server passes on at most 4 KiB of them.
const MOST_WARNINGS: usize = 16;

/// Decides about a pod at a moment.
///
/// A role that is named for a container must be allowed by a candidate: a policy that is enabled, in force at `now`, and
/// about this pod. Where none is named, the candidates' defaults decide. Namespaced policies come before cluster ones,
/// then the name decides, and `fallback` policies are looked at only where no other grants; the reason says so. If one
/// container is denied, the pod is: it never runs half equipped. A pod of which more than [`crate::bounds`] allow would have
/// to be looked at is denied if it asks for a role or a policy would give it one.
///
/// It takes time in proportion to the pod's bytes, and for each distinct role that a pod names once to the policies around it, of which
/// [`crate::bounds::MOST_COMPARED_BYTES`] is the bound.
pub fn decide(request: &Request<'_>, policies: &PolicySet, settings: &Settings, now: Timestamp) -> Decision {
    let beyond = annotation_request::beyond(request, settings);
    if request.pod.annotations.value(annotations::MIRROR).is_some() {
        return Decision::Untouched(Untouched::MirrorPod);
    }
    if settings.eks_compatible && request.pod.labels.value(annotations::EKS_SKIP).is_some() {
        return Decision::Untouched(Untouched::SkippedByLabel);
    }
    match annotation_request::opted_out(request) {
        Ok(true) => return Decision::Untouched(Untouched::OptedOut),
        Ok(false) => {}
        Err(_) if !beyond.is_empty() => return too_large(beyond),
        Err(invalid) => return denied([Refusal::InvalidAnnotation(invalid)]),
    }
    if let Some(pod_identity) = settings.pod_identity_of(request.namespace, request.service_account) {
        return association::decide(request, policies, settings, (pod_identity, beyond), now);
    }
    let asks = match AnnotationRequest::read(request, settings) {
        Ok(asks) => asks,
        Err(_) if !beyond.is_empty() => return too_large(beyond),
        Err(invalid) => return denied(invalid.into_iter().map(Refusal::InvalidAnnotation)),
    };
    let candidates = Candidates::select(request, policies, settings, now);
    let default = candidates.default_role();
    if asks.role.is_none() && asks.container_roles.is_empty() && matches!(default, Ok(None)) {
        return Decision::Untouched(Untouched::NothingAsked);
    }
    if !beyond.is_empty() {
        return too_large(beyond);
    }
    if let Some(beyond) = comparisons::beyond(&candidates, &asks) {
        return too_large(vec![beyond]);
    }

    let audience = asks.audience.as_ref().unwrap_or(&settings.default_audience);
    if settings.is_exchange_audience(audience.as_str()) {
        return denied([Refusal::ExchangeAudience {
            audience: audience.clone(),
        }]);
    }

    let mut decider = ContainerDecider::new(&candidates, &asks, &default);
    for (index, container) in request.pod.containers.iter().enumerate() {
        decider.decide(index, container);
    }
    let mut outcome = decider.outcome();
    let of_named = left_out::warnings(request, &asks, &outcome.left_out);
    outcome.warnings.extend(of_named);
    let from_spiffe = |granted: &ContainerGrant| granted.grant.source == TokenSource::Spiffe;
    if asks.expiration.is_some() && outcome.containers.iter().any(from_spiffe) {
        outcome.warnings.push(SPIFFE_DECIDES.to_owned());
    }
    let different = different_tokens(request, &outcome.containers);
    if let Some(refusal) = different.or_else(|| different_claims(request, &outcome.containers)) {
        outcome.refusals.add(refusal);
    }
    if outcome.containers.is_empty()
        && let Some(refusal) = left_out::named_nothing(request, &asks, &outcome.left_out)
    {
        outcome.refusals.add(refusal);
    }
    decision(outcome, asks)
}

/// Said to a workload that asks a SPIFFE provider for a lifetime.
const SPIFFE_DECIDES: &str =
    "the annotation token-expiration has no effect: the SPIFFE provider decides how long its tokens are valid";

fn decision(outcome: ContainerOutcomes, asks: AnnotationRequest<'_>) -> Decision {
    let ContainerOutcomes {
        containers,
        left_out,
        mut warnings,
        refusals,
        not_covered,
    } = outcome;
    if let Some(denied) = refusals.denied() {
        return Decision::Denied(denied);
    }
    if containers.is_empty() && not_covered {
        let warning = "the policies that allow the role cover none of this pod's containers: see their spec.containers";
        warnings.push(warning.to_owned());
    }
    if containers.is_empty() {
        return without_container(asks.invalid, warnings);
    }
    if !asks.invalid.is_empty() {
        return denied(asks.invalid.into_iter().map(Refusal::InvalidAnnotation));
    }
    Decision::Granted(Granted {
        containers,
        left_alone: left_alone(&left_out),
        warnings: finished(warnings),
    })
}

/// The decision about a pod of which no container gets anything, and of which these annotations can't be used.
fn without_container(invalid: Vec<InvalidAnnotation>, mut warnings: Vec<String>) -> Decision {
    match left_out::invalid_without_effect(invalid) {
        Ok(of_annotations) => {
            warnings.extend(of_annotations);
            let warnings = finished(warnings);
            Decision::Untouched(Untouched::NoContainer { warnings })
        }
        Err(refusals) => denied(refusals),
    }
}

fn left_alone(left_out: &[(usize, LeftOut)]) -> Vec<LeftAlone> {
    let left_out = left_out.iter();
    left_out
        .map(|(container, why)| LeftAlone {
            container: *container,
            reason: why.reason().into(),
        })
        .collect()
}

/// The warnings that are told: no more than somebody reads.
fn finished(mut warnings: Vec<String>) -> Vec<String> {
    warnings.dedup();
    if let Some(more) = warnings.len().checked_sub(MOST_WARNINGS).filter(|more| *more > 0) {
        warnings.truncate(MOST_WARNINGS);
        warnings.push(format!("{} warnings", and_more(more)));
    }
    warnings
}

fn too_large(beyond: Vec<Beyond>) -> Decision {
    denied(beyond.into_iter().map(Refusal::Beyond))
}

fn denied(refusals: impl IntoIterator<Item = Refusal>) -> Decision {
    let mut kept = Refusals::default();
    refusals.into_iter().for_each(|refusal| kept.add(refusal));
    Decision::Denied(kept.denied().unwrap_or_default())
}

/// One volume has a pod's tokens, and one sidecar keeps them.
fn different_tokens(request: &Request<'_>, granted: &[ContainerGrant]) -> Option<Refusal> {
    let (one, others) = granted.split_first()?;
    let name = |granted: &ContainerGrant| {
        let container = request.pod.containers.get(granted.container);
        shortened(container.map_or("", |container| container.name))
    };
    others.iter().find_map(|other| {
        if one.grant.source != other.grant.source {
            return Some(Refusal::DifferentSources {
                one: name(one),
                one_source: one.grant.source,
                other: name(other),
                other_source: other.grant.source,
            });
        }
        (one.grant.spiffe != other.grant.spiffe).then(|| Refusal::DifferentIdentities {
            one: name(one),
            other: name(other),
        })
    })
}

/// The issuer's tokens of one audience are one token, which says what one policy grants: for its role, or for a third party.
fn different_claims(request: &Request<'_>, granted: &[ContainerGrant]) -> Option<Refusal> {
    let name = |granted: &ContainerGrant| {
        let container = request.pod.containers.get(granted.container);
        shortened(container.map_or("", |container| container.name))
    };
    let mut first_of: HashMap<&Audience, (&ContainerGrant, &TokenClaims, bool)> = HashMap::new();
    granted.iter().find_map(|other| {
        let claims = other.grant.claims.as_ref()?;
        let mut audiences = other.grant.issued_audiences();
        audiences.find_map(|(audience, is_outbound)| {
            let (one, ones, ones_outbound) = *first_of.entry(audience).or_insert((other, claims, is_outbound));
            (ones != claims || ones_outbound != is_outbound).then(|| Refusal::DifferentClaims {
                one: name(one),
                one_policy: ones.policy.clone(),
                other: name(other),
                other_policy: claims.policy.clone(),
                audience: audience.clone(),
            })
        })
    })
}

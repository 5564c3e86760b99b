//! The decision about a pod whose service account stands in the configuration of EKS Pod Identity.
//!
//! The configuration says whose credentials come from the agent, and goes before every role that a policy or an annotation of EKS
//! names, as it does in the EKS webhook. Policies say who may hold the token that the agent takes: a pod gets it where one in force
//! selects it, allows the token's audience and covers the container. So a namespace that policies close stays closed.

use std::sync::Arc;

use jiff::Timestamp;

use super::candidates::Candidates;
use super::comparisons;
use super::left_out::{self, LeftOut};
use super::{Decision, LeftAlone, denied, finished, left_alone, too_large, without_container};
use crate::annotation_request::AnnotationRequest;
use crate::arn::shortened;
use crate::bounds::Beyond;
use crate::pod_identity::{PodIdentity, PodIdentityAgent};
use crate::refusal::Refusals;
use crate::text::{bounded, some_of};
use crate::{
    Association, AssociationRefusal, ContainerAssociation, InstanceMetadata, OutsideBoundary, Policy, PolicyName,
    PolicySet, Refusal, Request, Settings, TokenExpiration, TokenSource, annotations,
};

/// A pod that gets the credentials of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Associated {
    /// One for each container that gets them, in the request's order; never empty.
    pub containers: Vec<ContainerAssociation>,
    /// The agent on their node.
    pub agent: PodIdentityAgent,
    /// The lifetime of the one token that they share: the shortest of what they may have.
    pub expiration: TokenExpiration,
    /// The others.
    pub left_alone: Vec<LeftAlone>,
    /// Warnings for whoever created the pod.
    pub warnings: Vec<String>,
}

/// Decides about such a pod. It costs what the pod's containers times the policies around it do.
pub(super) fn decide(
    request: &Request<'_>,
    policies: &PolicySet,
    settings: &Settings,
    (pod_identity, beyond): (&PodIdentity, Vec<Beyond>),
    now: Timestamp,
) -> Decision {
    let mut asks = match AnnotationRequest::read_without_eks_role(request, settings) {
        Ok(asks) => asks,
        Err(_) if !beyond.is_empty() => return too_large(beyond),
        Err(invalid) => return denied(invalid.into_iter().map(Refusal::InvalidAnnotation)),
    };
    if !beyond.is_empty() {
        return too_large(beyond);
    }
    if let Some(refusal) = asks_for_role(request, &asks) {
        return denied([Refusal::Association(refusal)]);
    }
    // The audience is the agent's, as it is for the EKS webhook, which does not look at the annotation then.
    asks.invalid
        .retain(|invalid| !invalid.is_about(annotations::EKS_AUDIENCE));
    let candidates = Candidates::select(request, policies, settings, now);
    if let Some(beyond) = comparisons::beyond_by_containers(&candidates) {
        return too_large(vec![beyond]);
    }
    let associator = Associator {
        candidates,
        asks: &asks,
        pod_identity,
    };
    associator.decide()
}

/// The refusal of a pod that asks by an annotation of ours for a role: it would run with another one.
fn asks_for_role(request: &Request<'_>, asks: &AnnotationRequest<'_>) -> Option<AssociationRefusal> {
    let service_account = shortened(request.service_account);
    if let Some(named) = &asks.role {
        return Some(AssociationRefusal::AsksForRole {
            role: named.role.clone(),
            place: format!("annotation {} of the {}", annotations::ROLE_ARN, named.place).into(),
            service_account,
        });
    }
    // The first by name, so that the same pod gets the same words.
    let (container, role) = asks.container_roles.iter().min_by_key(|(container, _)| **container)?;
    Some(AssociationRefusal::AsksForRole {
        role: role.clone(),
        place: format!("annotation {}{}", annotations::CONTAINER_ROLE_ARN, shortened(container)).into(),
        service_account,
    })
}

struct Associator<'a, 'b> {
    candidates: Candidates<'a>,
    asks: &'b AnnotationRequest<'b>,
    pod_identity: &'b PodIdentity,
}

/// The answer of the policies about the token, which is the same for every container.
struct Allowed<'a> {
    /// The policies that allow it, with what follows.
    by: Vec<(&'a Policy, Arc<Association>)>,
    /// The outcome for a pod that no policy selects, where none is required.
    without_policy: Option<Arc<Association>>,
    refusals: Refusals,
}

/// The containers, sorted by what they get.
#[derive(Default)]
struct Sorted {
    associated: Vec<ContainerAssociation>,
    left_out: Vec<(usize, LeftOut)>,
    /// True if no policy allows the token of one that should have it.
    is_refused: bool,
    /// True if one is left out because no policy that allows the token covers it.
    not_covered: bool,
}

impl<'a> Associator<'a, '_> {
    fn decide(&self) -> Decision {
        let request = self.candidates.request;
        let allowed = self.allowed();
        let sorted = self.sorted(&allowed);
        let mut refusals = if sorted.is_refused {
            allowed.refusals
        } else {
            Refusals::default()
        };
        if sorted.associated.is_empty()
            && let Some(refusal) = left_out::named_nothing(request, self.asks, &sorted.left_out)
        {
            refusals.add(refusal);
        }
        if let Some(denied) = refusals.denied() {
            return Decision::Denied(denied);
        }
        let mut warnings = left_out::warnings(request, self.asks, &sorted.left_out);
        let lifetimes = sorted.associated.iter().map(|found| found.association.expiration);
        let Some(expiration) = lifetimes.min() else {
            warnings.extend(sorted.not_covered.then(|| NOT_COVERED.to_owned()));
            return without_container(self.asks.invalid.clone(), warnings);
        };
        if !self.asks.invalid.is_empty() {
            return denied(self.asks.invalid.iter().cloned().map(Refusal::InvalidAnnotation));
        }
        warnings.extend(self.displaced());
        Decision::Associated(Associated {
            containers: sorted.associated,
            agent: self.pod_identity.agent.clone(),
            expiration,
            left_alone: left_alone(&sorted.left_out),
            warnings: finished(warnings),
        })
    }

    fn sorted(&self, allowed: &Allowed<'_>) -> Sorted {
        let mut sorted = Sorted::default();
        for (container, facts) in self.candidates.request.pod.containers.iter().enumerate() {
            let covers = |(policy, _): &&(&Policy, Arc<Association>)| policy.containers.covers(facts.name);
            let mut allowing = allowed.by.iter().filter(covers);
            if self.asks.leave_out(facts.name) {
                sorted.left_out.push((container, LeftOut::ByList));
            } else if let Some((_, association)) = allowing.next() {
                let others: Vec<_> = allowing.map(|(policy, _)| &policy.name).collect();
                sorted.associated.push(self.associated(container, association, &others));
            } else if let Some(association) = &allowed.without_policy {
                sorted.associated.push(self.associated(container, association, &[]));
            } else if allowed.by.is_empty() {
                sorted.is_refused = true;
            } else {
                sorted.not_covered = true;
                let policies: Vec<_> = allowed.by.iter().map(|(policy, _)| &policy.name).collect();
                let why = LeftOut::ByPolicies(some_of(&policies));
                sorted.left_out.push((container, why));
            }
        }
        sorted
    }

    /// `others` are the policies that allow it too: none displaces another in silence.
    fn associated(
        &self,
        container: usize,
        association: &Arc<Association>,
        others: &[&PolicyName],
    ) -> ContainerAssociation {
        let Request {
            namespace,
            service_account,
            ..
        } = self.candidates.request;
        let audience = &association.audience;
        let by = association.policy.as_ref().map_or_else(
            || "no policy is required and none selects the pod".to_owned(),
            |policy| format!("{policy} allows audience {audience}"),
        );
        let before = match others {
            [] => String::new(),
            others => format!(", before {}", some_of(others)),
        };
        let reason =
            format!("the role of the EKS Pod Identity association of {namespace}/{service_account}: {by}{before}");
        ContainerAssociation {
            container,
            association: association.clone(),
            reason: reason.into(),
        }
    }

    fn allowed(&self) -> Allowed<'a> {
        let mut allowed = Allowed {
            by: Vec::new(),
            without_policy: None,
            refusals: Refusals::default(),
        };
        for policy in self.candidates.policies() {
            match self.against(policy) {
                Some(refusal) => allowed.refusals.add(refusal),
                None => allowed.by.push((policy, Arc::new(self.association(Some(policy))))),
            }
        }
        if !allowed.by.is_empty() {
            return allowed;
        }
        if self.candidates.needs_no_policy() {
            match self.outside_without_policy() {
                None => allowed.without_policy = Some(Arc::new(self.association(None))),
                Some(why) => allowed.refusals.add(Refusal::Association(AssociationRefusal::Boundary {
                    why: why.to_string().into(),
                })),
            }
            return allowed;
        }
        if self.candidates.is_empty() {
            let request = self.candidates.request;
            allowed.refusals.add(Refusal::Association(AssociationRefusal::NoPolicy {
                namespace: request.namespace.into(),
                service_account: request.service_account.into(),
                audience: self.pod_identity.agent.audience.clone(),
            }));
        }
        self.candidates.tell_near_misses(&mut allowed.refusals);
        allowed
    }

    /// The first thing in a policy that stands against the token.
    fn against(&self, policy: &Policy) -> Option<Refusal> {
        let audience = &self.pod_identity.agent.audience;
        let name = || policy.name.clone();
        if policy.token.source != TokenSource::ServiceAccount {
            return Some(Refusal::Association(AssociationRefusal::Source {
                policy: name(),
                source_of_token: policy.token.source,
                audience: audience.clone(),
            }));
        }
        if let Some(refusal) = self.candidates.settings.stands_against(policy) {
            return Some(refusal);
        }
        if !policy.audiences.allow(audience.as_str()) {
            return Some(Refusal::AudienceNotAllowed {
                policy: name(),
                audience: audience.clone(),
                allowed: some_of(&policy.audiences.allowed),
            });
        }
        let asked = self.asks.expiration?;
        let most = policy.token.expiration;
        (asked > most).then(|| Refusal::ExpirationTooLong {
            policy: name(),
            asked,
            most,
        })
    }

    fn association(&self, policy: Option<&Policy>) -> Association {
        let settings = self.candidates.settings;
        let region = policy.and_then(|policy| policy.aws.region.clone());
        Association {
            audience: self.pod_identity.agent.audience.clone(),
            expiration: self.expiration(policy),
            disables_instance_metadata: match settings.instance_metadata {
                InstanceMetadata::AlwaysDisabled => true,
                InstanceMetadata::WithRegionDisabled => region.is_some(),
                InstanceMetadata::NeverDisabled => false,
            },
            region: region.or_else(|| settings.default_region.clone()),
            sts_regional_endpoints: self
                .asks
                .sts_regional_endpoints
                .or_else(|| policy.and_then(|policy| policy.aws.sts_regional_endpoints))
                .unwrap_or(settings.sts_regional_endpoints),
            policy: policy.map(|policy| policy.name.clone()),
        }
    }

    fn expiration(&self, policy: Option<&Policy>) -> TokenExpiration {
        let default = self.candidates.settings.default_token_expiration;
        let most = policy.map_or(default, |policy| policy.token.expiration);
        self.asks.expiration.unwrap_or(most)
    }

    /// No boundary can speak of the role, which nobody knows here. What it says of tokens holds.
    fn outside_without_policy(&self) -> Option<OutsideBoundary> {
        let Candidates { set, request, .. } = &self.candidates;
        set.outside_token_without_policy(
            &self.pod_identity.agent.audience,
            self.expiration(None),
            &request.namespace_labels,
        )
    }

    /// Warnings about roles, and tokens that come with roles, that the pod would have had without the association.
    fn displaced(&self) -> Vec<String> {
        let request = self.candidates.request;
        let mut warnings = Vec::new();
        let assigning = self.candidates.policies().iter();
        let assigning: Vec<_> = assigning
            .filter(|policy| policy.roles.default.is_some())
            .map(|policy| &policy.name)
            .collect();
        if !assigning.is_empty() {
            let text = format!(
                "the pod gets the role of the EKS Pod Identity association of service account {}, which no policy chooses, and not the default role of {}",
                shortened(request.service_account),
                some_of(&assigning)
            );
            warnings.push(bounded(text, MOST_WARNING_BYTES));
        }
        let giving = self.candidates.policies().iter();
        let giving: Vec<_> = giving
            .filter(|policy| !policy.outbound.is_empty())
            .map(|policy| &policy.name)
            .collect();
        if !giving.is_empty() {
            let text = format!(
                "the pod gets no outboundTokens of {}: they come with a role of the policy, and the pod has that of an EKS Pod Identity association",
                some_of(&giving)
            );
            warnings.push(bounded(text, MOST_WARNING_BYTES));
        }
        let of_account = &request.service_account_annotations;
        let names_role = of_account
            .value(annotations::EKS_ROLE_ARN)
            .is_some_and(|role| !role.is_empty());
        if names_role {
            warnings.push(format!(
                "annotation {} of service account {} has no effect: the pod gets the role of the EKS Pod Identity association",
                annotations::EKS_ROLE_ARN,
                shortened(request.service_account)
            ));
        }
        if request
            .pod
            .annotations
            .value(annotations::AUDIENCE)
            .or_else(|| of_account.value(annotations::AUDIENCE))
            .is_some()
        {
            warnings.push(format!(
                "annotation {} has no effect: the token is one for the agent of EKS Pod Identity",
                annotations::AUDIENCE
            ));
        }
        warnings
    }
}

/// The most bytes of a warning that lists policies.
const MOST_WARNING_BYTES: usize = 512;
/// Said of a pod none of whose containers gets anything.
const NOT_COVERED: &str = "the policies that allow the token of EKS Pod Identity cover none of this pod's containers: see their spec.containers";

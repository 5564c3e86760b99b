//! The role of each container.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::ContainerGrant;
use super::candidates::{Candidates, Examined, Given, Stand};
use super::checks::{self, RoleRequest};
use super::left_out::LeftOut;
use crate::annotation_request::AnnotationRequest;
use crate::arn::shortened;
use crate::config_file::ConfigFile;
use crate::refusal::Refusals;
use crate::text::some_of;
use crate::{ContainerFacts, Grant, InvalidRoleArn, OwnConfiguration, OwnRole, Policy, Refusal, RoleArn, annotations};

/// Judges one container after the other. Containers that want the same role share what the policies say about it.
pub(super) struct ContainerDecider<'a, 'b> {
    candidates: &'b Candidates<'a>,
    asks: &'b AnnotationRequest<'b>,
    default: &'b Result<Option<&'a RoleArn>, Refusal>,
    examined: HashMap<(RoleArn, bool), Examined<'a>>,
    told_near_misses: bool,
    pub(super) outcome: ContainerOutcomes,
}

/// The sum of the containers' judgements.
#[derive(Default)]
pub(super) struct ContainerOutcomes {
    pub(super) containers: Vec<ContainerGrant>,
    /// The indices of those that get nothing, and why.
    pub(super) left_out: Vec<(usize, LeftOut)>,
    pub(super) warnings: Vec<String>,
    pub(super) refusals: Refusals,
    /// True if a container is left out because no policy that allows its role covers it.
    pub(super) not_covered: bool,
}

impl<'a, 'b> ContainerDecider<'a, 'b> {
    pub(super) fn new(
        candidates: &'b Candidates<'a>,
        asks: &'b AnnotationRequest<'b>,
        default: &'b Result<Option<&'a RoleArn>, Refusal>,
    ) -> Self {
        Self {
            candidates,
            asks,
            default,
            examined: HashMap::new(),
            told_near_misses: false,
            outcome: ContainerOutcomes::default(),
        }
    }

    pub(super) fn decide(&mut self, index: usize, container: &ContainerFacts<&'a str>) {
        let named = self.asks.container_roles.get(container.name);
        if self.asks.leave_out(container.name) {
            return self.leave(index, LeftOut::ByList);
        }
        match (container.own_role, container.own_token_file) {
            // SDKs would take the role in place of the agent's, which whoever named no role here did not ask for.
            (OwnRole::Agent, _) if named.is_none() && !self.asks.names_role_itself() => {
                let agent = "it takes its credentials from an agent (AWS_CONTAINER_CREDENTIALS_FULL_URI)";
                return self.leave(index, LeftOut::WithOwn(agent));
            }
            (OwnRole::Absent | OwnRole::Agent, _) => {}
            (_, true) => return self.leave(index, LeftOut::WithOwn("it brings its own role and token file")),
            (OwnRole::Indirect, false) => {
                self.outcome.warnings.push(format!(
                    "container {} takes AWS_ROLE_ARN from elsewhere, which can't be judged, so it gets no token: write the role out",
                    shortened(container.name)
                ));
                return self.leave(index, LeftOut::Told("its AWS_ROLE_ARN comes from elsewhere"));
            }
            (OwnRole::Literal(own), false) => return self.judge_own_role(index, container, own, named),
        }
        let wanted = |role: &RoleArn, place: Cow<'static, str>, by_name, by_default| RoleRequest {
            container: container.name,
            role: role.clone(),
            place,
            by_name,
            by_default,
        };
        if let Some(role) = named {
            let place = format!("{}{}", annotations::CONTAINER_ROLE_ARN, shortened(container.name));
            return self.grant(index, &wanted(role, place.into(), true, false));
        }
        if let Some(named) = &self.asks.role {
            return self.grant(index, &wanted(&named.role, named.place.into(), false, false));
        }
        match self.default {
            Ok(Some(role)) => self.grant(index, &wanted(role, "default".into(), false, true)),
            Ok(None) => self.leave(index, LeftOut::WithoutRole),
            Err(conflict) => self.outcome.refusals.add(conflict.clone()),
        }
    }

    fn judge_own_role(
        &mut self,
        index: usize,
        container: &ContainerFacts<&'a str>,
        own: &str,
        named: Option<&RoleArn>,
    ) {
        let role = match own.parse::<RoleArn>() {
            Ok(role) => role,
            Err(reason) => return self.outcome.refusals.add(invalid_own_role(container, reason)),
        };
        if let Some(asked) = named.filter(|asked| **asked != role) {
            return self.outcome.refusals.add(Refusal::ContradictingRoles {
                container: shortened(container.name),
                own: role,
                asked: asked.clone(),
            });
        }
        let wanted = RoleRequest {
            container: container.name,
            role,
            place: "AWS_ROLE_ARN of the container".into(),
            by_name: true,
            by_default: false,
        };
        self.grant(index, &wanted);
    }

    /// The first candidate that allows it grants it.
    fn grant(&mut self, index: usize, wanted: &RoleRequest<'_>) {
        let (candidates, asks) = (self.candidates, self.asks);
        let examined = self
            .examined
            .entry((wanted.role.clone(), wanted.by_default))
            .or_insert_with(|| candidates.examine(wanted, asks));
        let covers = |policy: &Policy| policy.containers.covers(wanted.container);
        let stands = examined.policies.iter();
        let granting: Vec<&Policy> = stands
            .filter(|stand| stand.against.is_none() && covers(stand.policy))
            .map(|stand| stand.policy)
            .collect();
        if let Some((policy, others)) = granting.split_first() {
            let is_for = |given: &Given<'_>| given.is_for(&wanted.place, &granting);
            if let Some(given) = examined.given.as_ref().filter(|given| is_for(given)) {
                let (grant, reason) = (given.grant.clone(), given.reason.clone());
                return self.equip(index, grant, reason);
            }
            let others = others.iter().chain(&examined.other_defaults).copied();
            let reason = granted_reason(wanted, policy, others);
            let grant = Arc::new(candidates.grant_by(policy, wanted, asks));
            let warning = candidates.session_name_warning(policy, &grant);
            if let Some(warning) = warning.filter(|warning| !self.outcome.warnings.contains(warning)) {
                self.outcome.warnings.push(warning);
            }
            examined.given = Some(Given {
                place: wanted.place.clone(),
                grant: grant.clone(),
                reason: reason.clone(),
                granting,
            });
            return self.equip(index, grant, reason);
        }
        // Left out by every policy that would allow it, and not named itself: that is what the policies' authors meant.
        let is_left_out = |stand: &Stand<'_>| stand.allows_role() && !covers(stand.policy);
        if !wanted.by_name && !examined.policies.is_empty() && examined.policies.iter().all(is_left_out) {
            self.outcome.not_covered = true;
            let policies: Vec<_> = examined.policies.iter().map(|stand| &stand.policy.name).collect();
            let policies = some_of(&policies);
            return self.leave(index, LeftOut::ByPolicies(policies));
        }
        if let Some(Ok(grant)) = &examined.without_policy {
            let reason = format!(
                "{} by {}: no policy is required and none selects the pod",
                wanted.role, wanted.place
            );
            let grant = grant.clone();
            return self.equip(index, grant, reason.into());
        }
        self.told_near_misses = true;
        tell(examined, wanted, candidates, asks, &mut self.outcome.refusals);
    }

    fn leave(&mut self, container: usize, why: LeftOut) {
        self.outcome.left_out.push((container, why));
    }

    /// Gives a container a grant, unless its own configuration would keep its SDK from it.
    fn equip(&mut self, container: usize, grant: Arc<Grant>, reason: Arc<str>) {
        let facts = self.candidates.request.pod.containers.get(container);
        if let Some((facts, delivery, why)) = facts.and_then(|facts| kept_from(facts, &grant)) {
            let name = shortened(facts.name);
            let policy = grant
                .policy
                .as_ref()
                .map_or_else(|| "the installation".to_owned(), ToString::to_string);
            self.outcome.warnings.push(format!(
                "container {name} gets no credentials, since {policy} delivers them by {delivery} and the container {why}"
            ));
            let own = "its own configuration of the SDK is left alone";
            return self.leave(container, LeftOut::Told(own));
        }
        self.outcome.containers.push(ContainerGrant {
            container,
            grant,
            reason,
        });
    }

    /// The sum of all judgements. Policies that are no candidates come last in it, once for all containers.
    pub(super) fn outcome(mut self) -> ContainerOutcomes {
        if self.told_near_misses {
            self.candidates.tell_near_misses(&mut self.outcome.refusals);
        }
        self.outcome
    }
}

/// The delivery of a grant from which a container's own configuration keeps its SDK, if it does, why, and what to do.
fn kept_from<'f>(
    facts: &'f ContainerFacts<&'f str>,
    grant: &Grant,
) -> Option<(&'f ContainerFacts<&'f str>, &'static str, String)> {
    if grant.endpoint.is_some() {
        return Some((facts, "a sidecar", keeps_from_endpoint(facts)?.to_owned()));
    }
    let why = keeps_from_file(facts, grant.config_file.as_ref()?)?;
    Some((facts, "an AWS config file", why))
}

/// The reason why a container's SDK would not ask the sidecar, if there is one, and what to do.
fn keeps_from_endpoint(container: &ContainerFacts<&str>) -> Option<&'static str> {
    if container.own_agent {
        return Some(
            "sets AWS_CONTAINER_CREDENTIALS_FULL_URI, AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or a variable of their authorization token itself: remove it",
        );
    }
    container
        .own_token_file
        .then_some("sets AWS_WEB_IDENTITY_TOKEN_FILE itself, which SDKs prefer to the sidecar: remove it")
}

/// The reason why a container's SDK would not use a config file, if there is one, and what to do.
fn keeps_from_file(container: &ContainerFacts<&str>, file: &ConfigFile) -> Option<String> {
    match container.own_configuration {
        OwnConfiguration::Elsewhere(variable) => Some(format!("sets {variable} itself: remove it")),
        _ if container.own_token_file => {
            Some("sets AWS_WEB_IDENTITY_TOKEN_FILE itself, which some SDKs prefer to the file: remove it".to_owned())
        }
        OwnConfiguration::Profile(name) if !file.has_profile(name) => Some(format!(
            "chooses profile {} itself, which the file does not have: remove AWS_PROFILE, or name one of delivery.profile.profiles",
            shortened(name)
        )),
        OwnConfiguration::Profile(_) | OwnConfiguration::Absent => None,
    }
}

/// Says what stands against a role; what has nothing to do with the container is said once.
fn tell(
    examined: &mut Examined<'_>,
    wanted: &RoleRequest<'_>,
    candidates: &Candidates<'_>,
    asks: &AnnotationRequest<'_>,
    refusals: &mut Refusals,
) {
    for stand in &mut examined.policies {
        let policy = stand.policy;
        if stand.allows_role() && !policy.containers.covers(wanted.container) {
            refusals.add_with(|| {
                Some(Refusal::ContainerNotCovered {
                    policy: policy.name.clone(),
                    container: shortened(wanted.container),
                })
            });
        } else if let Some(against) = stand.against.filter(|_| !stand.told) {
            stand.told = true;
            refusals.add_with(|| checks::refusal(against, policy, wanted, asks, candidates.settings));
        }
    }
    if candidates.is_empty() && !std::mem::replace(&mut examined.told, true) {
        let request = candidates.request;
        let role = wanted.role.clone();
        refusals.add(match &examined.without_policy {
            Some(Err(why)) => Refusal::OutsideBoundaryWithoutPolicy { role, why: why.clone() },
            _ => Refusal::NoPolicy {
                namespace: request.namespace.into(),
                service_account: request.service_account.into(),
                role,
            },
        });
    }
}

fn invalid_own_role(container: &ContainerFacts<&str>, reason: InvalidRoleArn) -> Refusal {
    Refusal::InvalidOwnRole {
        container: shortened(container.name),
        reason,
    }
}

/// Names the policies that came after the granting one too, so that no policy displaces another in silence.
fn granted_reason<'p>(wanted: &RoleRequest<'_>, policy: &Policy, others: impl Iterator<Item = &'p Policy>) -> Arc<str> {
    let mut reason = if wanted.by_default {
        format!("{} assigned as its default by {}", wanted.role, policy.name)
    } else {
        format!("{} named by {}, allowed by {}", wanted.role, wanted.place, policy.name)
    };
    if policy.fallback {
        reason.push_str(" (a fallback: no other policy grants it)");
    }
    let others: Vec<_> = others.map(|other| &other.name).collect();
    if !others.is_empty() {
        reason.push_str(", before ");
        reason.push_str(&some_of(&others));
        reason.push_str(" (fallback last, namespaced before cluster, then by name)");
    }
    reason.into()
}

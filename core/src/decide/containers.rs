//! The role of each container.

use super::{
    ContainerGrant, LeftAlone,
    candidates::{Candidates, Examined, Given, Stand},
    checks::{self, RoleRequest},
};
use crate::config_file::ConfigFile;
use crate::{
    ContainerFacts, Grant, InvalidRoleArn, OwnConfiguration, OwnRole, Policy, Refusal, RoleArn,
    annotation_request::AnnotationRequest, annotations, arn::shortened, refusal::Refusals, text::some_of,
};
use std::{borrow::Cow, collections::HashMap, sync::Arc};

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
    pub(super) left_alone: Vec<LeftAlone>,
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
            return self.leave(index, "its pod's annotations leave it out");
        }
        match (container.own_role, container.own_token_file) {
            // SDKs would take the role in place of the agent's, which whoever named no role here did not ask for.
            (OwnRole::Agent, _) if named.is_none() && !self.asks.names_role_itself() => {
                return self.leave(
                    index,
                    "it takes its credentials from an agent (AWS_CONTAINER_CREDENTIALS_FULL_URI)",
                );
            }
            (OwnRole::Absent | OwnRole::Agent, _) => {}
            (_, true) => return self.leave(index, "it brings its own role and token file"),
            (OwnRole::Indirect, false) => {
                self.outcome.warnings.push(format!(
                    "container {} takes AWS_ROLE_ARN from elsewhere, which can't be judged, so it gets no token: write the role out",
                    shortened(container.name)
                ));
                return self.leave(index, "its AWS_ROLE_ARN comes from elsewhere");
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
            Ok(None) => self.leave(index, "no role is named for it"),
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
            let container = candidates.request.pod.containers.get(index);
            let kept_away = grant
                .config_file
                .as_ref()
                .and_then(|file| keeps_from_file(container?, file));
            if let Some(why) = kept_away {
                let name = shortened(wanted.container);
                self.outcome.warnings.push(format!(
                    "container {name} gets no credentials, since {} delivers them by an AWS config file and the container {why}",
                    policy.name
                ));
                return self.leave(index, "its own configuration of the SDK is left alone");
            }
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
            return self.leave(index, "its policies don't cover it");
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

    fn leave(&mut self, container: usize, reason: &str) {
        self.outcome.left_alone.push(LeftAlone {
            container,
            reason: reason.into(),
        });
    }

    fn equip(&mut self, container: usize, grant: Arc<Grant>, reason: Arc<str>) {
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

//! The policies around a pod, and which of them grant a role.

use std::borrow::Cow;
use std::ptr;
use std::sync::Arc;

use jiff::Timestamp;

use super::checks::{self, Against, RoleRequest};
use crate::annotation_request::AnnotationRequest;
use crate::audience::NO_DEFAULT_AUDIENCE;
use crate::policy_set::BoundaryAgainst;
use crate::refusal::Refusals;
use crate::unusable::PodPlace;
use crate::{
    Grant, NoContextRoom, OutsideBoundary, Policy, PolicySet, Refusal, Request, RoleArn, Settings, Standing,
    UnusablePolicy,
};

/// The policies around a pod, and those that are no candidates but nearly.
pub(super) struct Candidates<'a> {
    pub(super) request: &'a Request<'a>,
    pub(super) settings: &'a Settings,
    pub(super) set: &'a PolicySet,
    now: Timestamp,
    /// Not `fallback` first, then namespaced before cluster, then by name.
    policies: Vec<&'a Arc<Policy>>,
    near_misses: Vec<(&'a Arc<Policy>, Standing)>,
    /// Those that would be candidates if nothing barred them.
    barred: Vec<(&'a Arc<Policy>, Bar<'a>)>,
    /// Those that can't be used, and their standing; none where nobody can tell.
    unusable: Vec<(&'a UnusablePolicy, Option<Standing>)>,
}

/// The candidates' standing to one role, whatever the container.
#[derive(Default)]
pub(super) struct Examined<'a> {
    pub(super) policies: Vec<Stand<'a>>,
    pub(super) other_defaults: Vec<&'a Policy>,
    /// The grant where no policy is required and none is about the pod.
    pub(super) without_policy: Option<Result<Arc<Grant>, OutsideBoundary>>,
    /// True if it was said that there is no policy.
    pub(super) told: bool,
    /// The last grant of the role, for containers like the one that got it.
    pub(super) given: Option<Given<'a>>,
}

/// A grant of a role, and what it and its reason follow from.
pub(super) struct Given<'a> {
    pub(super) place: Cow<'static, str>,
    /// The policies that grant the role to the container.
    pub(super) granting: Vec<&'a Policy>,
    pub(super) grant: Arc<Grant>,
    pub(super) reason: Arc<str>,
}

impl Given<'_> {
    /// True if a container whose role is named in this place, and to which these policies grant it, gets the same.
    pub(super) fn is_for(&self, place: &str, granting: &[&Policy]) -> bool {
        self.place == place
            && self
                .granting
                .iter()
                .copied()
                .map(ptr::from_ref)
                .eq(granting.iter().copied().map(ptr::from_ref))
    }
}

/// One candidate's standing to a role.
pub(super) struct Stand<'a> {
    pub(super) policy: &'a Policy,
    pub(super) against: Option<Against>,
    /// True if that was said already.
    pub(super) told: bool,
}

impl Stand<'_> {
    /// True if it would grant the role to a container that it covers, or refuse it for another reason than the role.
    pub(super) fn allows_role(&self) -> bool {
        self.against != Some(Against::Role)
    }
}

impl<'a> Candidates<'a> {
    pub(super) fn select(
        request: &'a Request<'a>,
        policies: &'a PolicySet,
        settings: &'a Settings,
        now: Timestamp,
    ) -> Self {
        let mut candidates = Vec::new();
        let mut near_misses = Vec::new();
        let mut barred = Vec::new();
        let around = policies.boundaries_around(&request.namespace_labels);
        for policy in policies.about(request.namespace) {
            let standing = policy.standing(
                request.namespace,
                &request.namespace_labels,
                request.service_account,
                &request.pod.labels,
                now,
            );
            if standing == Standing::Candidate {
                let against = policies.boundary_against(policy, &around).map(Bar::Boundary);
                let bar = against
                    .or_else(|| policies.without_context_room(policy).map(Bar::ContextKeys))
                    .or_else(|| {
                        policy
                            .audiences
                            .lacks_default(&settings.default_audience)
                            .then_some(Bar::Audience)
                    });
                match bar {
                    None => candidates.push(policy),
                    Some(bar) => barred.push((policy, bar)),
                }
            } else if checks::is_near_miss(policy, standing) {
                near_misses.push((policy, standing));
            }
        }
        candidates.sort_by_key(|policy| policy.fallback);
        Self {
            request,
            settings,
            set: policies,
            now,
            policies: candidates,
            near_misses,
            barred,
            unusable: unusable(request, policies, now),
        }
    }

    /// True if no policy in force is about the pod, also none that is kept from granting.
    pub(super) fn is_empty(&self) -> bool {
        self.policies.is_empty() && self.barred.is_empty()
    }

    /// The candidates: not `fallback` first, then namespaced before cluster, then by name.
    pub(super) fn policies(&self) -> &[&'a Arc<Policy>] {
        &self.policies
    }

    /// True if none is required and none selects the pod.
    pub(super) fn needs_no_policy(&self) -> bool {
        self.nothing_selects() && !self.settings.policy_required
    }

    /// True if no policy selects the pod, in whatever state. One that can't be used may select any.
    fn nothing_selects(&self) -> bool {
        let selects = |standing| matches!(standing, Standing::Disabled | Standing::Expired | Standing::Inactive);
        let over = self.near_misses.iter().any(|(_, standing)| selects(*standing));
        let unusable = self.unusable.iter().any(|(_, standing)| may_select(*standing));
        self.is_empty() && !over && !unusable
    }

    /// The role of containers that nobody named one for: the nearest level's defaults, if they and their tokens agree.
    /// A nearer one that can't be used and assigns a role is a refusal: nobody knows which it is.
    pub(super) fn default_role(&self) -> Result<Option<&'a RoleArn>, Refusal> {
        let levels = [(false, false), (false, true), (true, false), (true, true)];
        for (fallback, cluster) in levels {
            let mut defaults = self
                .policies
                .iter()
                .filter(|policy| policy.fallback == fallback && policy.name.is_cluster() == cluster)
                .filter_map(|policy| Some((policy, policy.roles.default.as_ref()?)));
            let Some((one, one_role)) = defaults.next() else {
                match self.unusable_default(fallback, cluster) {
                    Some(refusal) => return Err(refusal),
                    None => continue,
                }
            };
            let conflict = defaults.find(|(policy, role)| *role != one_role || !one.grants_the_same_as(policy));
            return match conflict {
                None => Ok(Some(one_role)),
                Some((other, other_role)) if other_role == one_role => Err(Refusal::ConflictingTokens {
                    one: one.name.clone(),
                    other: other.name.clone(),
                    role: one_role.clone(),
                }),
                Some((other, other_role)) => Err(Refusal::ConflictingDefaults {
                    one: one.name.clone(),
                    one_role: one_role.clone(),
                    other: other.name.clone(),
                    other_role: other_role.clone(),
                }),
            };
        }
        Ok(None)
    }

    /// The refusal of a pod to which a policy of a level assigns a role, and can't be used.
    fn unusable_default(&self, fallback: bool, cluster: bool) -> Option<Refusal> {
        let assigns = |(policy, standing): &&(&UnusablePolicy, Option<Standing>)| {
            let is_of_level = policy.is_fallback() == fallback && policy.name().is_cluster() == cluster;
            is_of_level && policy.assigns_role() && *standing == Some(Standing::Candidate)
        };
        let (policy, _) = self.unusable.iter().find(assigns)?;
        Some(unusable_refusal(policy))
    }

    /// Each candidate's standing to a role. Containers that want the same role share the answer.
    pub(super) fn examine(&self, wanted: &RoleRequest<'_>, asks: &AnnotationRequest<'_>) -> Examined<'a> {
        let needs_no_policy = self.needs_no_policy();
        let mut examined = Examined {
            without_policy: needs_no_policy.then(|| self.grant_without_policy(wanted, asks).map(Arc::new)),
            ..Examined::default()
        };
        for policy in &self.policies {
            if wanted.by_default && policy.roles.default.as_ref() != Some(&wanted.role) {
                examined
                    .other_defaults
                    .extend(policy.roles.default.is_some().then_some(&***policy));
                continue;
            }
            examined.policies.push(Stand {
                policy,
                against: checks::against(policy, wanted, asks, self.settings),
                told: false,
            });
        }
        examined
    }

    /// Says of the policies that are no candidates why they are none.
    pub(super) fn tell_near_misses(&self, refusals: &mut Refusals) {
        for (policy, bar) in &self.barred {
            refusals.add_with(|| bar.refusal(policy));
        }
        for (policy, standing) in &self.near_misses {
            refusals.add_with(|| checks::near_miss(policy, *standing, self.now));
        }
        let of_others = |policy: &UnusablePolicy, standing| policy.name().is_cluster() && !may_select(standing);
        for (policy, _) in self
            .unusable
            .iter()
            .filter(|(policy, standing)| !of_others(policy, *standing))
        {
            refusals.add_with(|| Some(unusable_refusal(policy)));
        }
    }
}

/// The policies around a pod that can't be used, and their standing to it.
fn unusable<'a>(
    request: &Request<'_>,
    policies: &'a PolicySet,
    now: Timestamp,
) -> Vec<(&'a UnusablePolicy, Option<Standing>)> {
    let pod = PodPlace {
        namespace: request.namespace,
        namespace_labels: &request.namespace_labels,
        service_account: request.service_account,
        labels: &request.pod.labels,
        now,
    };
    let around = policies.unusable_about(request.namespace);
    around.map(|policy| (policy, policy.standing(&pod))).collect()
}

/// True unless a policy that can't be used certainly selects other pods.
fn may_select(standing: Option<Standing>) -> bool {
    !matches!(standing, Some(Standing::OtherNamespace | Standing::OtherSubject))
}

fn unusable_refusal(policy: &UnusablePolicy) -> Refusal {
    Refusal::InvalidPolicy {
        policy: policy.name().clone(),
        why: policy.why().into(),
    }
}

/// The reason why a policy grants nothing, whatever it is asked for.
enum Bar<'a> {
    /// It is beyond a boundary.
    Boundary(BoundaryAgainst<'a>),
    /// Its context keys have no room beside those of cluster policies and older ones.
    ContextKeys(&'a NoContextRoom),
    /// A pod that names no audience would get a token of one that it doesn't allow.
    Audience,
}

impl Bar<'_> {
    fn refusal(&self, policy: &Policy) -> Option<Refusal> {
        let name = policy.name.clone();
        Some(match self {
            Self::Boundary(against) => Refusal::OutsideBoundary {
                policy: name,
                why: against.why(policy)?,
            },
            Self::ContextKeys(why) => Refusal::NoContextRoom {
                policy: name,
                why: (*why).clone(),
            },
            Self::Audience => Refusal::InvalidPolicy {
                policy: name,
                why: NO_DEFAULT_AUDIENCE.into(),
            },
        })
    }
}

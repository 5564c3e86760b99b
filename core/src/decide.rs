//! The rule: which container of a pod gets which role, by which policy, or why not.

use crate::{
    Container, ContainerGrant, Denied, Glob, Grant, InstanceMetadata, InvalidRoleArn, Operator, OwnRole, Pairs, Policy,
    PolicySet, Refusal, Request, RoleArn, Selector, SessionName, Settings, Spiffe, Standing, Subject, Template,
    TokenExpiration, TokenSource, Variable, Variables,
    annotations::{self, Asks},
    refusal::some_of,
};
use jiff::Timestamp;
use std::{borrow::Cow, sync::Arc};

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It stays as it is.
    Untouched(Untouched),
    /// At least one container gets a role.
    Granted(Granted),
    /// It asks for something that it may not have.
    Denied(Denied),
}

/// Why a pod stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untouched {
    /// It, its service account or its namespace said so.
    #[error("tokenscope.io/inject: \"false\" opts out")]
    OptedOut,
    /// It names no role and no policy assigns it one.
    #[error("it asks for no role and no policy assigns it one")]
    NothingAsked,
    /// A role is asked for, but every container is left out or brings its own credentials.
    #[error("every container is skipped or brings its own credentials")]
    NoContainer {
        /// What whoever created the pod should know: it asked, and gets nothing.
        warnings: Vec<String>,
    },
}

/// What a pod gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granted {
    /// One for each container that gets a role.
    pub containers: Vec<ContainerGrant>,
    /// The others, where there is something to say about them.
    pub left_alone: Vec<LeftAlone>,
    /// What whoever created the pod should know.
    pub warnings: Vec<String>,
}

/// A container that gets nothing although its pod does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftAlone {
    /// Its index in the request.
    pub container: usize,
    /// Why.
    pub reason: Box<str>,
}

/// Decides about a pod at a moment.
///
/// A role that is named for a container must be allowed by a candidate: a policy that is enabled, in force at `now`, and
/// about this pod. Where none is named, the candidates' defaults decide. Namespaced policies come before cluster ones,
/// then the name decides, and `fallback` policies are looked at only where no other grants; the reason says so. If one
/// container is denied, the pod is: it never runs half equipped.
pub fn decide(request: &Request<'_>, policies: &PolicySet, settings: &Settings, now: Timestamp) -> Decision {
    match annotations::opted_out(request) {
        Ok(true) => return Decision::Untouched(Untouched::OptedOut),
        Ok(false) => {}
        Err(invalid) => return denied([Refusal::InvalidAnnotation(invalid)]),
    }
    let asks = match Asks::read(request, settings) {
        Ok(asks) => asks,
        Err(invalid) => return denied(invalid.into_iter().map(Refusal::InvalidAnnotation)),
    };
    let field = Field::survey(request, policies, settings, now);
    let default = field.default_role();
    if asks.role.is_none() && asks.container_roles.is_empty() && matches!(default, Ok(None)) {
        return Decision::Untouched(Untouched::NothingAsked);
    }

    let mut outcome = Outcome::default();
    for (index, container) in request.pod.containers.iter().enumerate() {
        match field.judge(container, &asks, &default) {
            Judged::Granted(grant, reason) => outcome.containers.push(ContainerGrant {
                container: index,
                grant,
                reason,
            }),
            Judged::LeftAlone(reason, warning) => {
                outcome.left_alone.push(LeftAlone {
                    container: index,
                    reason,
                });
                outcome.warnings.extend(warning);
            }
            Judged::Denied(refusals) => outcome.refuse(refusals),
        }
    }
    outcome.warnings.extend(unknown_containers(request, &asks));
    let from_spiffe = |granted: &ContainerGrant| granted.grant.source == TokenSource::Spiffe;
    if asks.expiration.is_some() && outcome.containers.iter().any(from_spiffe) {
        outcome.warnings.push(SPIFFE_DECIDES.to_owned());
    }
    outcome.refuse(different_tokens(request, &outcome.containers).into_iter().collect());
    outcome.decision(asks)
}

/// Which policies assign a different default role to pods that `policy` is about too, on the same level.
///
/// Whether two label selectors can meet is answered from the selectors alone, so a pair that no pod of today meets counts.
pub fn default_conflicts<'a>(policy: &Policy, policies: &'a PolicySet, now: Timestamp) -> Vec<&'a Arc<Policy>> {
    let Some(default) = &policy.roles.default else {
        return Vec::new();
    };
    let in_force = |policy: &Policy| !matches!(policy.standing_in_time(now), Standing::Disabled | Standing::Expired);
    if !in_force(policy) {
        return Vec::new();
    }
    // A namespaced policy meets those of its namespace; a cluster policy the other cluster policies, which are in every answer.
    policies
        .about(policy.name.namespace().unwrap_or_default())
        .filter(|other| {
            other.name != policy.name
                && other.name.is_cluster() == policy.name.is_cluster()
                && other.fallback == policy.fallback
                && in_force(other)
                && other.roles.default.as_ref().is_some_and(|role| role != default)
                && may_both_match(&policy.namespace_selector, &other.namespace_selector)
                && policy
                    .subjects
                    .iter()
                    .any(|one| other.subjects.iter().any(|two| may_overlap(one, two)))
        })
        .collect()
}

/// The policies around a pod, and what stands against those that are no candidates.
struct Field<'a> {
    request: &'a Request<'a>,
    settings: &'a Settings,
    /// Not `fallback` first, then namespaced before cluster, then by name.
    candidates: Vec<&'a Arc<Policy>>,
    near_misses: Vec<Refusal>,
}

/// What one container gets.
enum Judged {
    Granted(Grant, Box<str>),
    LeftAlone(Box<str>, Option<String>),
    Denied(Vec<Refusal>),
}

/// A role that a container is to have, and who says so.
struct Wanted<'a> {
    container: &'a str,
    role: RoleArn,
    place: Cow<'static, str>,
    /// Whether the container itself was named, so that leaving it out would be wrong.
    by_name: bool,
    /// Whether only policies with this default may grant it.
    by_default: bool,
}

impl<'a> Field<'a> {
    fn survey(request: &'a Request<'a>, policies: &'a PolicySet, settings: &'a Settings, now: Timestamp) -> Self {
        let mut candidates = Vec::new();
        let mut near_misses = Vec::new();
        for policy in policies.about(request.namespace) {
            let standing = policy.standing(
                request.namespace,
                &request.namespace_labels,
                request.service_account,
                &request.pod.labels,
                now,
            );
            match standing {
                Standing::Candidate => candidates.push(policy),
                _ => near_misses.extend(near_miss(policy, standing, now)),
            }
        }
        near_misses.extend(
            policies
                .invalid_about(request.namespace)
                .map(|(policy, why)| Refusal::InvalidPolicy {
                    policy: policy.clone(),
                    why: why.into(),
                }),
        );
        candidates.sort_by_key(|policy| policy.fallback);
        Self {
            request,
            settings,
            candidates,
            near_misses,
        }
    }

    /// The role of containers that nobody named one for: the nearest level's defaults, if they agree.
    fn default_role(&self) -> Result<Option<&'a RoleArn>, Refusal> {
        let levels = [(false, false), (false, true), (true, false), (true, true)];
        for (fallback, cluster) in levels {
            let mut defaults = self
                .candidates
                .iter()
                .filter(|policy| policy.fallback == fallback && policy.name.is_cluster() == cluster)
                .filter_map(|policy| Some((&policy.name, policy.roles.default.as_ref()?)));
            let Some((one, one_role)) = defaults.next() else {
                continue;
            };
            return match defaults.find(|(_, role)| *role != one_role) {
                None => Ok(Some(one_role)),
                Some((other, other_role)) => Err(Refusal::ConflictingDefaults {
                    one: one.clone(),
                    one_role: one_role.clone(),
                    other: other.clone(),
                    other_role: other_role.clone(),
                }),
            };
        }
        Ok(None)
    }

    fn judge(
        &self,
        container: &Container<'a>,
        asks: &Asks<'_>,
        default: &Result<Option<&'a RoleArn>, Refusal>,
    ) -> Judged {
        let named = asks
            .container_roles
            .iter()
            .find(|(name, _)| *name == container.name)
            .map(|(_, role)| role);
        if asks.skip.contains(&container.name) || asks.only.as_ref().is_some_and(|only| !only.contains(&container.name))
        {
            return Judged::LeftAlone("its pod's annotations leave it out".into(), None);
        }
        match (container.own_role, container.own_token_file) {
            (OwnRole::Absent, _) => {}
            (_, true) => return Judged::LeftAlone("it brings its own role and token file".into(), None),
            (OwnRole::Indirect, false) => {
                let warning = format!(
                    "container {} takes AWS_ROLE_ARN from elsewhere, which can't be judged, so it gets no token: write the role out",
                    container.name
                );
                return Judged::LeftAlone("its AWS_ROLE_ARN comes from elsewhere".into(), Some(warning));
            }
            (OwnRole::Literal(own), false) => return self.judge_own_role(container, own, named, asks),
        }
        let wanted = |role: &RoleArn, place: Cow<'static, str>, by_name, by_default| Wanted {
            container: container.name,
            role: role.clone(),
            place,
            by_name,
            by_default,
        };
        if let Some(role) = named {
            let place = format!("{}{}", annotations::CONTAINER_ROLE_ARN, container.name);
            return self.grant(&wanted(role, place.into(), true, false), asks);
        }
        if let Some(named) = &asks.role {
            return self.grant(&wanted(&named.role, named.place.into(), false, false), asks);
        }
        match default {
            Ok(Some(role)) => self.grant(&wanted(role, "default".into(), false, true), asks),
            Ok(None) => Judged::LeftAlone("no role is named for it".into(), None),
            Err(conflict) => Judged::Denied(vec![conflict.clone()]),
        }
    }

    fn judge_own_role(&self, container: &Container<'a>, own: &str, named: Option<&RoleArn>, asks: &Asks<'_>) -> Judged {
        let role = match own.parse::<RoleArn>() {
            Ok(role) => role,
            Err(reason) => return Judged::Denied(vec![invalid_own_role(container, reason)]),
        };
        if let Some(asked) = named.filter(|asked| **asked != role) {
            return Judged::Denied(vec![Refusal::ContradictingRoles {
                container: container.name.into(),
                own: role,
                asked: asked.clone(),
            }]);
        }
        let wanted = Wanted {
            container: container.name,
            role,
            place: "AWS_ROLE_ARN of the container".into(),
            by_name: true,
            by_default: false,
        };
        self.grant(&wanted, asks)
    }

    /// The first candidate that allows it grants it.
    fn grant(&self, wanted: &Wanted<'_>, asks: &Asks<'_>) -> Judged {
        let mut refusals = Vec::new();
        let mut granting: Vec<&Policy> = Vec::new();
        let mut other_defaults: Vec<&Policy> = Vec::new();
        for policy in &self.candidates {
            if wanted.by_default && policy.roles.default.as_ref() != Some(&wanted.role) {
                other_defaults.extend(policy.roles.default.is_some().then_some(&***policy));
                continue;
            }
            match CHECKS.iter().find_map(|check| check(policy, wanted, asks)) {
                None => granting.push(policy),
                Some(refusal) => refusals.push(refusal),
            }
        }
        if let [policy, others @ ..] = granting.as_slice() {
            let reason = granted_reason(wanted, policy, others.iter().chain(&other_defaults));
            return Judged::Granted(self.grant_by(policy, wanted, asks), reason);
        }
        // Left out by every policy that would allow it, and not named itself: that is what the policies' authors meant.
        let left_out = |refusal: &Refusal| matches!(refusal, Refusal::ContainerNotCovered { .. });
        if !wanted.by_name && refusals.iter().any(left_out) && refusals.iter().all(left_out) {
            return Judged::LeftAlone(NOT_COVERED.into(), None);
        }
        if self.candidates.is_empty() && !self.settings.policy_required {
            let reason = format!(
                "{} by {}: no policy is required and none selects the pod",
                wanted.role, wanted.place
            );
            return Judged::Granted(self.grant_without_policy(wanted, asks), reason.into());
        }
        if self.candidates.is_empty() {
            refusals.push(Refusal::NoPolicy {
                namespace: self.request.namespace.into(),
                service_account: self.request.service_account.into(),
                role: wanted.role.clone(),
            });
        }
        refusals.extend(self.near_misses.iter().cloned());
        Judged::Denied(refusals)
    }

    fn grant_by(&self, policy: &Policy, wanted: &Wanted<'_>, asks: &Asks<'_>) -> Grant {
        Grant {
            role: wanted.role.clone(),
            audience: asks
                .audience
                .clone()
                .or_else(|| policy.audiences.default.clone())
                .unwrap_or_else(|| self.settings.default_audience.clone()),
            source: policy.token.source,
            expiration: match policy.token.source {
                TokenSource::Spiffe => policy.token.expiration,
                TokenSource::ServiceAccount | TokenSource::Issuer => asks.expiration.unwrap_or(policy.token.expiration),
            },
            spiffe: policy.token.spiffe.clone(),
            region: policy
                .aws
                .region
                .clone()
                .or_else(|| self.settings.default_region.clone()),
            sts_regional_endpoints: asks
                .sts_regional_endpoints
                .or(policy.aws.sts_regional_endpoints)
                .unwrap_or(self.settings.sts_regional_endpoints),
            disables_instance_metadata: match self.settings.instance_metadata {
                InstanceMetadata::AlwaysDisabled => true,
                InstanceMetadata::WithRegionDisabled => policy.aws.region.is_some(),
                InstanceMetadata::NeverDisabled => false,
            },
            session_name: policy
                .aws
                .role_session_name
                .as_ref()
                .and_then(|template| self.session_name(template)),
            policy: Some(policy.name.clone()),
        }
    }

    fn grant_without_policy(&self, wanted: &Wanted<'_>, asks: &Asks<'_>) -> Grant {
        Grant {
            role: wanted.role.clone(),
            audience: asks
                .audience
                .clone()
                .unwrap_or_else(|| self.settings.default_audience.clone()),
            source: TokenSource::ServiceAccount,
            expiration: asks.expiration.unwrap_or(self.settings.default_token_expiration),
            spiffe: Spiffe::default(),
            region: self.settings.default_region.clone(),
            sts_regional_endpoints: asks
                .sts_regional_endpoints
                .unwrap_or(self.settings.sts_regional_endpoints),
            disables_instance_metadata: self.settings.instance_metadata == InstanceMetadata::AlwaysDisabled,
            session_name: None,
            policy: None,
        }
    }

    /// `None` where the name would not fit: STS refuses every call with such a name, so the SDK had better choose its own.
    fn session_name(&self, template: &Template) -> Option<SessionName> {
        if template.only_variable() == Some(&Variable::PodName) {
            return Some(SessionName::PodName);
        }
        let text = template.render(self).ok()?;
        fits_session_name(&text).then(|| SessionName::Text(text.into()))
    }
}

/// Whether STS takes it as a role session name: 2 to 64 of `[\w+=,.@-]` (AssumeRoleWithWebIdentity).
fn fits_session_name(text: &str) -> bool {
    (2..=64).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
}

impl Variables for Field<'_> {
    fn value(&self, variable: &Variable) -> Option<Cow<'_, str>> {
        match variable {
            Variable::Namespace => Some(self.request.namespace.into()),
            Variable::ServiceAccount => Some(self.request.service_account.into()),
            Variable::NamespaceLabel(key) => self.request.namespace_labels.value(key).map(Cow::Borrowed),
            Variable::PodLabel(key) => self.request.pod.labels.value(key).map(Cow::Borrowed),
            // Not known before the pod is stored.
            Variable::PodName | Variable::PodUid => None,
        }
    }
}

/// One question to a candidate; `Some` is its refusal.
type Check = fn(&Policy, &Wanted<'_>, &Asks<'_>) -> Option<Refusal>;

/// Asked in this order; the first refusal is the one that users read.
const CHECKS: &[Check] = &[
    role_is_allowed,
    container_is_covered,
    audience_is_allowed,
    expiration_is_allowed,
    source_is_available,
];

fn role_is_allowed(policy: &Policy, wanted: &Wanted<'_>, _: &Asks<'_>) -> Option<Refusal> {
    (!policy.roles.allow(&wanted.role)).then(|| Refusal::RoleNotAllowed {
        policy: policy.name.clone(),
        role: wanted.role.clone(),
        allowed: some_of(&policy.roles.allowed),
    })
}

fn container_is_covered(policy: &Policy, wanted: &Wanted<'_>, _: &Asks<'_>) -> Option<Refusal> {
    (!policy.containers.covers(wanted.container)).then(|| Refusal::ContainerNotCovered {
        policy: policy.name.clone(),
        container: wanted.container.into(),
    })
}

fn audience_is_allowed(policy: &Policy, _: &Wanted<'_>, asks: &Asks<'_>) -> Option<Refusal> {
    let audience = asks.audience.as_ref()?;
    let allowed = &policy.audiences.allowed;
    (!allowed.is_empty() && !allowed.contains(audience)).then(|| Refusal::AudienceNotAllowed {
        policy: policy.name.clone(),
        audience: audience.clone(),
        allowed: some_of(allowed),
    })
}

fn expiration_is_allowed(policy: &Policy, _: &Wanted<'_>, asks: &Asks<'_>) -> Option<Refusal> {
    let asked: TokenExpiration = asks.expiration?;
    // What can't be given anyway is not refused but warned about.
    if policy.token.source == TokenSource::Spiffe {
        return None;
    }
    let most = policy.token.expiration;
    (asked > most).then(|| Refusal::ExpirationTooLong {
        policy: policy.name.clone(),
        asked,
        most,
    })
}

fn source_is_available(policy: &Policy, _: &Wanted<'_>, _: &Asks<'_>) -> Option<Refusal> {
    (!policy.token.source.is_available()).then(|| Refusal::SourceNotAvailable {
        policy: policy.name.clone(),
        source_of_token: policy.token.source,
    })
}

/// Names the policies that came after the granting one too, so that no policy displaces another in silence.
fn granted_reason<'a>(wanted: &Wanted<'_>, policy: &Policy, others: impl Iterator<Item = &'a &'a Policy>) -> Box<str> {
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

fn near_miss(policy: &Policy, standing: Standing, now: Timestamp) -> Option<Refusal> {
    let name = policy.name.clone();
    match standing {
        Standing::Candidate | Standing::OtherNamespace => None,
        Standing::Disabled => Some(Refusal::Disabled { policy: name }),
        Standing::Expired => Some(Refusal::Expired {
            policy: name,
            at: policy.expires_at?,
        }),
        Standing::Inactive => {
            let schedule = policy.active_schedule.as_ref()?;
            Some(Refusal::Inactive {
                policy: name,
                schedule: schedule.to_string().into(),
                next: schedule.next_opening(now),
            })
        }
        // A cluster may have thousands of cluster policies about others; those of the pod's own namespace are worth a line.
        Standing::OtherSubject if policy.name.is_cluster() || policy.disabled => None,
        Standing::OtherSubject => Some(Refusal::OtherSubject {
            policy: name,
            subjects: some_of(&policy.subjects),
        }),
    }
}

fn invalid_own_role(container: &Container<'_>, reason: InvalidRoleArn) -> Refusal {
    Refusal::InvalidOwnRole {
        container: container.name.into(),
        reason,
    }
}

/// Names in annotations that no container has: a typo, or a sidecar that another webhook adds later.
fn unknown_containers(request: &Request<'_>, asks: &Asks<'_>) -> Vec<String> {
    let known = |name: &str| request.pod.containers.iter().any(|container| container.name == name);
    let by_role = asks.container_roles.iter().map(|(name, _)| *name);
    let by_list = asks.only.iter().flatten().chain(&asks.skip).copied();
    let mut unknown: Vec<&str> = by_role.chain(by_list).filter(|name| !known(name)).collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown
        .into_iter()
        .map(|name| format!("an annotation names container {name}, which this pod does not have"))
        .collect()
}

/// One volume has a pod's tokens, and one sidecar keeps them.
fn different_tokens(request: &Request<'_>, granted: &[ContainerGrant]) -> Option<Refusal> {
    let (one, others) = granted.split_first()?;
    let name = |granted: &ContainerGrant| -> Box<str> {
        let container = request.pod.containers.get(granted.container);
        container.map_or("", |container| container.name).into()
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

fn denied(refusals: impl IntoIterator<Item = Refusal>) -> Decision {
    Decision::Denied(Denied {
        refusals: refusals.into_iter().collect(),
    })
}

/// Why a container gets nothing that no policy for its role covers.
const NOT_COVERED: &str = "its policies don't cover it";

/// Said to a workload that asks a SPIFFE provider for a lifetime.
const SPIFFE_DECIDES: &str =
    "the annotation token-expiration has no effect: the SPIFFE provider decides how long its tokens are valid";

/// What the containers' judgements add up to.
#[derive(Default)]
struct Outcome {
    containers: Vec<ContainerGrant>,
    left_alone: Vec<LeftAlone>,
    warnings: Vec<String>,
    refusals: Vec<Refusal>,
}

impl Outcome {
    fn refuse(&mut self, refusals: Vec<Refusal>) {
        for refusal in refusals {
            if !self.refusals.contains(&refusal) {
                self.refusals.push(refusal);
            }
        }
    }

    fn decision(mut self, asks: Asks<'_>) -> Decision {
        if !self.refusals.is_empty() {
            return denied(self.refusals);
        }
        if self.containers.is_empty()
            && self
                .left_alone
                .iter()
                .any(|container| &*container.reason == NOT_COVERED)
        {
            let warning =
                "the policies that allow the role cover none of this pod's containers: see their spec.containers";
            self.warnings.push(warning.to_owned());
        }
        self.warnings.dedup();
        if self.containers.is_empty() {
            return Decision::Untouched(Untouched::NoContainer {
                warnings: self.warnings,
            });
        }
        if !asks.invalid.is_empty() {
            return denied(asks.invalid.into_iter().map(Refusal::InvalidAnnotation));
        }
        Decision::Granted(Granted {
            containers: self.containers,
            left_alone: self.left_alone,
            warnings: self.warnings,
        })
    }
}

/// Whether some pod can match both.
fn may_overlap(one: &Subject, other: &Subject) -> bool {
    let names_meet = one.service_accounts.is_empty()
        || other.service_accounts.is_empty()
        || one
            .service_accounts
            .iter()
            .any(|a| other.service_accounts.iter().any(|b| may_share_a_name(a, b)));
    let any = Selector::default();
    names_meet
        && may_both_match(
            one.pod_selector.as_ref().unwrap_or(&any),
            other.pod_selector.as_ref().unwrap_or(&any),
        )
}

/// Whether some text matches both globs.
fn may_share_a_name(one: &Glob, other: &Glob) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    // reachable[i][j]: some text can be what the first i bytes of `one` and the first j of `other` stand for.
    let mut reachable = vec![vec![false; other.len() + 1]; one.len() + 1];
    reachable[0][0] = true;
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            if !reachable[i][j] {
                continue;
            }
            let (a, b) = (one.get(i), other.get(j));
            let star = a == Some(&b'*') || b == Some(&b'*');
            if a.is_some() && star {
                reachable[i + 1][j] = true;
            }
            if b.is_some() && star {
                reachable[i][j + 1] = true;
            }
            if a.is_some() && a == b {
                reachable[i + 1][j + 1] = true;
            }
        }
    }
    reachable[one.len()][other.len()]
}

/// Whether some set of labels fulfils both selectors.
fn may_both_match(one: &Selector, other: &Selector) -> bool {
    one.0.iter().all(|a| {
        other
            .0
            .iter()
            .filter(|b| b.key == a.key)
            .all(|b| match (&a.operator, &b.operator) {
                (Operator::In(x), Operator::In(y)) => x.iter().any(|value| y.contains(value)),
                (Operator::In(x), Operator::NotIn(y)) | (Operator::NotIn(y), Operator::In(x)) => {
                    x.iter().any(|value| !y.contains(value))
                }
                (Operator::DoesNotExist, Operator::In(_) | Operator::Exists)
                | (Operator::In(_) | Operator::Exists, Operator::DoesNotExist) => false,
                _ => true,
            })
    })
}

impl Request<'_> {
    /// Whether the pod must carry the review's mark: it names a role itself, or its namespace requires a review.
    ///
    /// These are the pods that the API server's guard looks at.
    pub fn needs_mark(&self) -> bool {
        self.namespace_labels.value(annotations::REQUIRED) == Some("true") || asks_itself(&self.pod.annotations)
    }
}

fn asks_itself(annotations: &Pairs<&str>) -> bool {
    annotations
        .iter()
        .any(|(key, _)| key == annotations::ROLE_ARN || key.starts_with(annotations::CONTAINER_ROLE_ARN))
}

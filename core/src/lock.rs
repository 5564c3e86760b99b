//! The lock: a pod may hold a service account token of a locked audience only where a policy grants it.
//!
//! Kubernetes lets every author of a pod mount a token of any audience. A policy that looked at annotations alone would be advice:
//! whoever mounts the token by hand gets the role all the same. So the tokens that a pod brings are judged by the same policies
//! as the roles that it asks for.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use crate::arn::shortened;
use crate::bounds::{Beyond, MOST_COMPARED_BYTES};
pub use crate::settings::{Lock, LockMode};
use crate::{Audience, HeldToken, Policy, PolicySet, Request, Settings, Standing, TokenSource, TokenVolume};

/// A token that a pod holds and no policy grants it. `Display` is the sentence that users read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("volume {volume} {} audience {audience} {}: {remedy}", holder(.driver.as_deref()), lifetime(*.expiration_seconds))]
pub struct UngrantedToken {
    /// The volume that holds it.
    pub volume: Box<str>,
    /// The CSI driver that gets it, where the volume is one of a driver's.
    pub driver: Option<Box<str>>,
    /// Its audience.
    pub audience: Box<str>,
    /// Its lifetime in seconds; `None` where the API server decides.
    pub expiration_seconds: Option<i64>,
    /// The missing grant, and the remedy.
    pub remedy: MissingGrant,
}

fn holder(driver: Option<&str>) -> String {
    driver.map_or_else(
        || "holds a token for".to_owned(),
        |driver| format!("gives CSI driver {driver} a token for"),
    )
}

fn lifetime(seconds: Option<i64>) -> String {
    seconds.map_or_else(String::new, |seconds| format!("that is valid for {seconds} seconds"))
}

/// The grant that a pod lacks for a token that it holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MissingGrant {
    /// It is of the exchange audience, which no policy grants.
    #[error(
        "only tokenscope gives a pod a token of its own issuer's audience, and only to the container tokenscope-sidecar: remove the volume; if the pod is a copy of another one, keep that one's annotations (kubectl debug --keep-annotations)"
    )]
    Exchange,
    /// No policy in force grants the audience to this pod.
    #[error(
        "this audience is locked and no policy in force grants it to this pod: remove the volume and ask with annotation tokenscope.io/role-arn, or add a policy that selects the pod"
    )]
    Policy,
    /// A container mounts it that no granting policy covers.
    #[error(
        "no policy that grants this audience covers container {0}, which mounts the volume: remove the mount, or change the policy's spec.containers"
    )]
    Container(Box<str>),
    /// It is valid for longer than the policies allow.
    #[error("policies grant this audience for at most {most} seconds here: lower expirationSeconds of the volume")]
    Lifetime {
        /// The longest lifetime that a policy grants, in seconds.
        most: u32,
    },
    /// It is not known, since not all is known that decides about it.
    #[error("this audience is locked, and it is not known whether a policy grants it to this pod, since {0}")]
    Unknown(Box<str>),
    /// It is not known, since the pod has too many tokens and containers that mount them for the policies about it.
    #[error(
        "this audience is locked, and the pod's tokens and the containers that mount them are too many to be compared with the policies about it: mount them in fewer containers, use fewer such volumes, or have fewer policies select the pod"
    )]
    Comparisons,
}

/// The tokens of locked audiences that the pod holds and no policy grants it, as things are at `now`.
///
/// One of the exchange audience is among them wherever the pod lives and whatever the lock's mode; so the caller leaves the webhook's
/// own volume out of the request. At most [`MOST_UNGRANTED`] are told, those first that are refused always. The cost is linear in the pod's tokens and mounts, times the policies that grant a
/// locked audience, of which [`MOST_COMPARED_BYTES`] is the bound.
pub fn ungranted<'a>(
    request: &'a Request<'a>,
    policies: &'a PolicySet,
    settings: &'a Settings,
    now: Timestamp,
) -> Vec<UngrantedToken> {
    let mut grants = None;
    let selects = |policy: &Policy| policy.namespace_selector.matches(&request.namespace_labels);
    let locked = || Locked::new(request, policies, settings, selects);
    judged(request, settings, locked, |audience, seconds, containers| {
        let grants = grants.get_or_insert_with(|| TokenGrants::new(request, policies, settings, now));
        grants.missing(audience, seconds, containers)
    })
}

/// The tokens of locked audiences that the pod holds where policies, boundaries or labels of its namespace are not all known, for this reason:
/// one that is missing may be what keeps a policy from granting them, so none counts as granted. With [`Lock::policy_audiences`] those of every cluster
/// policy are locked, which may select the namespace by a label that is missing.
pub fn ungranted_where_unknown<'a>(
    request: &'a Request<'a>,
    policies: &'a PolicySet,
    settings: &'a Settings,
    why: &str,
) -> Vec<UngrantedToken> {
    let locked = || Locked::new(request, policies, settings, |_| true);
    judged(request, settings, locked, |_, _, _| {
        Some(MissingGrant::Unknown(why.into()))
    })
}

/// The tokens of locked audiences of which `missing` says what is missing for an audience, a lifetime and the containers that mount it.
fn judged<'a>(
    request: &'a Request<'a>,
    settings: &'a Settings,
    locked: impl FnOnce() -> Locked<'a>,
    mut missing: impl FnMut(&'a str, Option<i64>, &[&'a str]) -> Option<MissingGrant>,
) -> Vec<UngrantedToken> {
    if request.pod.token_volumes.is_empty() {
        return Vec::new();
    }
    let locked = locked();
    let held = || {
        let volumes = request.pod.token_volumes.iter();
        volumes.flat_map(|volume| {
            volume
                .tokens
                .iter()
                .filter_map(move |token| Some((volume, token, token.audience?)))
        })
    };
    let tell = |volume: &TokenVolume<'_>, token: &HeldToken<'_>, audience: &str, remedy| UngrantedToken {
        volume: shortened(volume.name),
        driver: volume.csi_driver.map(shortened),
        audience: audience.into(),
        expiration_seconds: token.expiration_seconds,
        remedy,
    };
    let exchanged = held().filter(|(_, _, audience)| settings.is_exchange_audience(audience));
    let mut told: Vec<_> = exchanged
        .take(MOST_UNGRANTED)
        .map(|(volume, token, audience)| tell(volume, token, audience, MissingGrant::Exchange))
        .collect();
    let others = held().filter(|(_, _, audience)| locked.contains(audience));
    let ungranted = others.filter_map(|(volume, token, audience)| {
        let remedy = missing(audience, token.expiration_seconds, &volume.containers)?;
        Some(tell(volume, token, audience, remedy))
    });
    told.extend(ungranted.take(MOST_UNGRANTED - told.len()));
    told
}

/// The most ungranted tokens of one pod that are told: the first ones are enough to put it right.
pub const MOST_UNGRANTED: usize = 8;

/// True if the pod holds a token of an audience that is locked in every namespace, granted or not.
///
/// These are the pods that the API server's own policy looks at, so they must bear the mark of a review.
pub fn holds_locked_token(request: &Request<'_>, settings: &Settings) -> bool {
    holds_locked_token_beside(request, settings, |_| false)
}

/// The same without the volumes of which `is_left_out` says so by their names.
pub fn holds_locked_token_beside(
    request: &Request<'_>,
    settings: &Settings,
    is_left_out: impl Fn(&str) -> bool,
) -> bool {
    let lock = &settings.lock;
    let volumes = request.pod.token_volumes.iter();
    let tokens = volumes
        .filter(|volume| !is_left_out(volume.name))
        .flat_map(|volume| &volume.tokens);
    lock.applies_to(request.namespace)
        && tokens
            .filter_map(|token| token.audience)
            .any(|audience| lock.locks(audience))
}

/// The bounds that the pod exceeds, where a pod is refused whose tokens can't all be looked at: where the lock denies, and in every
/// namespace where there is an exchange audience. Where the lock denies, one that holds a locked token is refused also if its mounts can't
/// all be looked at, since a grant is to containers.
pub fn unexamined<'a>(request: &'a Request<'_>, settings: &Settings) -> impl Iterator<Item = &'a Beyond> {
    let lock = &settings.lock;
    let denies = lock.mode == LockMode::Deny && lock.applies_to(request.namespace);
    let is_refused = denies || settings.issuer.is_some();
    let is_held = denies && holds_locked_token(request, settings);
    let counts = move |beyond: &&Beyond| match beyond {
        Beyond::Volumes | Beyond::Sources { .. } => is_refused,
        Beyond::Containers | Beyond::Mounts { .. } => is_held,
        Beyond::Labels
        | Beyond::Annotations
        | Beyond::Value { .. }
        | Beyond::ListEntries { .. }
        | Beyond::Comparisons => false,
    };
    request.pod.beyond.iter().filter(counts)
}

/// True if a pod with these tokens is refused, but where pods never are.
pub fn refuses(ungranted: &[UngrantedToken], settings: &Settings) -> bool {
    let is_exchange = |token: &UngrantedToken| token.remedy == MissingGrant::Exchange;
    ungranted.iter().any(is_exchange) || (settings.lock.mode == LockMode::Deny && !ungranted.is_empty())
}

/// The audiences that are locked for a pod, but for the exchange audience, which no policy grants.
struct Locked<'a>(HashSet<&'a str>);

impl<'a> Locked<'a> {
    /// `selects` says of a cluster policy whether it is about the pod's namespace.
    fn new(
        request: &Request<'_>,
        policies: &'a PolicySet,
        settings: &'a Settings,
        selects: impl Fn(&Policy) -> bool,
    ) -> Self {
        let mut audiences: HashSet<&str> = HashSet::new();
        if !settings.lock.applies_to(request.namespace) {
            return Self(audiences);
        }
        audiences.extend(settings.lock.audiences.iter().map(Audience::as_str));
        if settings.lock.policy_audiences {
            for policy in policies.about(request.namespace) {
                if policy.name.is_cluster() && !selects(policy) {
                    continue;
                }
                let named = policy.audiences.allowed.iter().chain(&policy.audiences.default);
                audiences.extend(named.map(Audience::as_str));
            }
        }
        audiences.retain(|audience| !settings.is_exchange_audience(audience));
        Self(audiences)
    }

    fn contains(&self, audience: &str) -> bool {
        self.0.contains(audience)
    }
}

/// The policies that grant this pod projected tokens, and what they were found to grant so far. One of another source grants none:
/// its tokens are somebody else's, and the cluster's own token for the same audience would be one that the policy says nothing about.
/// One that narrows sessions grants none either: with a token the role can be taken without the session policy.
struct TokenGrants<'a> {
    policies: Vec<&'a Policy>,
    /// The longest lifetime in seconds that a policy grants, by audience and container; `None` where none does.
    granted: HashMap<(&'a str, Option<&'a str>), Option<u32>>,
    /// The bytes of all these policies with which an audience is compared for a container.
    compared: usize,
    /// The bytes that may still be compared.
    left: usize,
}

impl<'a> TokenGrants<'a> {
    fn new(request: &Request<'_>, policies: &'a PolicySet, settings: &Settings, now: Timestamp) -> Self {
        let around = policies.boundaries_around(&request.namespace_labels);
        let is_candidate = |policy: &&'a Policy| {
            policy.token.source == TokenSource::ServiceAccount
                && !policy.delivery.narrows_sessions()
                && policy.standing(
                    request.namespace,
                    &request.namespace_labels,
                    request.service_account,
                    &request.pod.labels,
                    now,
                ) == Standing::Candidate
                && settings.stands_against(policy).is_none()
                && policies.boundary_against(policy, &around).is_none()
        };
        let about = policies.about(request.namespace).map(|policy| &**policy);
        let candidates: Vec<&Policy> = about.filter(is_candidate).collect();
        Self {
            compared: candidates.iter().map(|policy| compared_bytes(policy)).sum(),
            policies: candidates,
            granted: HashMap::new(),
            left: MOST_COMPARED_BYTES,
        }
    }

    /// What is missing for a token that these containers mount; `None` where nothing is. A volume that nothing mounts can still
    /// be mounted by an ephemeral container later, so it needs a policy all the same.
    fn missing(&mut self, audience: &'a str, seconds: Option<i64>, containers: &[&'a str]) -> Option<MissingGrant> {
        self.check(audience, seconds, containers).err()
    }

    fn check(&mut self, audience: &'a str, seconds: Option<i64>, containers: &[&'a str]) -> Result<(), MissingGrant> {
        let mut most = self.longest(audience, None)?.ok_or(MissingGrant::Policy)?;
        for &container in containers {
            let longest = self.longest(audience, Some(container))?;
            most = most.min(longest.ok_or_else(|| MissingGrant::Container(shortened(container)))?);
        }
        // Without a lifetime of its own the API server gives a projected token an hour (core/v1, ServiceAccountTokenProjection).
        if seconds.unwrap_or(DEFAULT_SECONDS) > i64::from(most) {
            return Err(MissingGrant::Lifetime { most });
        }
        Ok(())
    }

    /// The longest lifetime in seconds that a policy grants, `None` where none does. An error says that the bound of comparisons is exceeded.
    fn longest(&mut self, audience: &'a str, container: Option<&'a str>) -> Result<Option<u32>, MissingGrant> {
        let key = (audience, container);
        let known = self.granted.get(&key).copied();
        let bytes = known.map_or(LOOKUP_BYTES + self.compared, |_| LOOKUP_BYTES);
        self.left = self.left.checked_sub(bytes).ok_or(MissingGrant::Comparisons)?;
        if let Some(known) = known {
            return Ok(known);
        }
        let granting = self.policies.iter().filter(|policy| {
            policy.audiences.allow(audience) && container.is_none_or(|container| policy.containers.covers(container))
        });
        let longest = granting.map(|policy| policy.token.expiration.seconds()).max();
        self.granted.insert(key, longest);
        Ok(longest)
    }
}

/// What it costs to find what is known already, in bytes of patterns.
const LOOKUP_BYTES: usize = 8;

/// The bytes of a policy with which an audience is compared for a container.
fn compared_bytes(policy: &Policy) -> usize {
    LOOKUP_BYTES + policy.audiences.compared_bytes() + policy.containers.compared_bytes()
}

/// The lifetime of a projected token that names none, in seconds.
const DEFAULT_SECONDS: i64 = 3600;

//! The status that a policy should have.

mod trust;

use crate::{drift::State, world::SHARE};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokenscope_core::{Audience, InvalidPolicy, OnExpiry, Policy, PolicyName, RoleArn, Standing, TokenSource};
use tokenscope_crds::{
    conditions::{ConditionType, Reason, condition, upsert},
    v1alpha1::{MOST_NAMES, PolicyStatus},
};

/// What is known about a policy.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// Its metadata.generation.
    pub(crate) generation: Option<i64>,
    /// Since when it says what it says.
    pub(crate) said: Timestamp,
    /// What it says, or why it says nothing.
    pub(crate) policy: Result<&'a Policy, &'a InvalidPolicy>,
    /// How the pods stand to it.
    pub(crate) tally: Tally,
    /// Those that give some of the same pods another default role.
    pub(crate) conflicts: Vec<&'a Policy>,
    /// Whether it could be compared with all policies that it may be in conflict with.
    pub(crate) compared: bool,
    /// The cluster's issuer.
    pub(crate) issuer: &'a Issuer,
    /// The SPIFFE provider's.
    pub(crate) spiffe_issuer: Option<&'a str>,
    /// The audience where the policy names none.
    pub(crate) default_audience: &'a Audience,
    /// Whether the installation lets the operator evict pods of expired policies.
    pub(crate) evicts_expired: bool,
    /// What the lock says about the pods of its namespace; none for a cluster policy.
    pub(crate) tokens: Option<NamespaceTokens<'a>>,
    /// The CSI drivers that get tokens of an audience that is locked everywhere.
    pub(crate) csi_drivers: Vec<&'a str>,
}

/// The pods of a namespace that hold a token of a locked audience which no policy grants them.
#[derive(Debug)]
pub(crate) struct NamespaceTokens<'a> {
    /// How many there are.
    pub(crate) pods: usize,
    /// Their names, in order.
    pub(crate) names: Vec<&'a str>,
}

/// How many pods stand how to a policy, or to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// To which it grants something now.
    pub(crate) matched: i64,
    /// That have it.
    pub(crate) injected: i64,
    /// That should have had it from the beginning.
    pub(crate) missed: i64,
    /// That a restart would change; also pods to which it no longer grants what they have.
    pub(crate) outdated: i64,
    /// Whose tokens come from SPIFFE, and to which nothing gives an identity.
    pub(crate) unidentified: i64,
}

impl Tally {
    /// Counts a pod in, or out by -1.
    pub(crate) fn add(&mut self, state: State, matched: bool, by: i64) {
        if matched {
            self.matched += by;
        }
        match state {
            State::Injected => self.injected += by,
            State::Missed => self.missed += by,
            State::Outdated => self.outdated += by,
        }
    }
}

/// The issuer of the cluster's ServiceAccount tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Issuer {
    /// This one.
    Known(String),
    /// The API server was asked and has not answered (yet).
    Unknown,
}

/// The status; equal to `previous` if there is nothing to write.
pub(crate) fn status(previous: &PolicyStatus, facts: &Facts<'_>, now: Timestamp) -> PolicyStatus {
    let Tally {
        matched,
        injected,
        missed,
        outdated,
        ..
    } = facts.tally;
    let (trust_policies, note) = trust::trust_policies(facts);
    let mut status = PolicyStatus {
        observed_generation: facts.generation,
        generation_observed_at: Some(Time(facts.said)),
        conditions: previous.conditions.clone(),
        matched_pods: Some(matched),
        injected_pods: Some(injected),
        missed_pods: Some(missed),
        outdated_pods: Some(outdated),
        ungranted_token_pods: facts
            .tokens
            .as_ref()
            .map(|tokens| i64::try_from(tokens.pods).unwrap_or(i64::MAX)),
        ungranted_token_pod_names: first(facts.tokens.iter().flat_map(|tokens| &tokens.names)),
        locked_token_csi_drivers: first(&facts.csi_drivers),
        trust_policies,
    };
    keep_own_conditions(&mut status);
    let (accepted, why) = accepted(facts);
    let (active, when) = active(facts, accepted, now);
    let (ready, mut what) = ready(facts, accepted, active);
    for note in note.into_iter().chain(eviction_note(facts)) {
        what.push_str(". ");
        what.push_str(&note);
    }
    for (reason, message) in [(accepted, why), (active, when), (ready, what)] {
        let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
        upsert(
            &mut status.conditions,
            condition(reason, message, facts.generation, at),
            at,
        );
    }
    status
}

/// The status of a policy whose namespace takes more than its share of what the operator keeps.
pub(crate) fn over_share(previous: &PolicyStatus, generation: Option<i64>, now: Timestamp) -> PolicyStatus {
    let mut status = PolicyStatus {
        conditions: previous.conditions.clone(),
        observed_generation: previous.observed_generation,
        generation_observed_at: previous.generation_observed_at.clone(),
        ..PolicyStatus::default()
    };
    keep_own_conditions(&mut status);
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let message = format!(
        "the pods, service accounts and policies of this namespace are larger together than the {} MiB that are kept of one namespace, so its pods are not counted and its policies not looked at: remove the largest. The webhook goes on as before",
        SHARE >> 20
    );
    upsert(
        &mut status.conditions,
        condition(Reason::NamespaceOverShare, message, generation, at),
        at,
    );
    status
}

fn keep_own_conditions(status: &mut PolicyStatus) {
    let types = [ConditionType::Accepted, ConditionType::Active, ConditionType::Ready];
    status
        .conditions
        .retain(|present| types.iter().any(|known| known.as_str() == present.type_));
}

/// As many names as a status holds.
fn first<'a>(names: impl IntoIterator<Item = &'a &'a str>) -> Vec<String> {
    names
        .into_iter()
        .take(MOST_NAMES)
        .map(|name| (*name).to_owned())
        .collect()
}

/// That `onExpiry: Evict` has no effect, where that is so.
fn eviction_note(facts: &Facts<'_>) -> Option<String> {
    let asks = facts.policy.is_ok_and(|policy| policy.on_expiry == OnExpiry::Evict);
    (asks && !facts.evicts_expired).then(|| {
        "spec.onExpiry: Evict has no effect, since the operator may not evict pods of expired policies: set the chart's value operator.evictExpired to true".into()
    })
}

/// Whether a status says that there is nothing to do.
pub(crate) fn is_ready(status: &PolicyStatus) -> bool {
    let mut conditions = status.conditions.iter();
    conditions.any(|present| present.type_ == ConditionType::Ready.as_str() && present.status == "True")
}

fn accepted(facts: &Facts<'_>) -> (Reason, String) {
    match facts.policy {
        Err(invalid) => (Reason::Invalid, invalid.to_string()),
        Ok(policy) if !policy.token.source.is_available() => (
            Reason::SourceNotAvailable,
            format!(
                "spec.token.source: {} is not available in this version, so pods that ask for its roles are refused; ServiceAccount and SPIFFE are available",
                policy.token.source.as_str()
            ),
        ),
        Ok(_) => (Reason::Valid, "the policy makes sense".into()),
    }
}

fn active(facts: &Facts<'_>, accepted: Reason, now: Timestamp) -> (Reason, String) {
    let policy = match facts.policy {
        Ok(policy) if accepted == Reason::Valid => policy,
        _ => return (Reason::Unusable, "it is not accepted".into()),
    };
    match policy.standing_in_time(now) {
        Standing::Disabled => (Reason::Disabled, "spec.disabled is true".into()),
        Standing::Expired => {
            let at = policy.expires_at.map(|at| at.to_string()).unwrap_or_default();
            (Reason::Expired, format!("spec.expiresAt was {at}"))
        }
        Standing::Inactive => {
            let next = policy
                .active_schedule
                .as_ref()
                .and_then(|schedule| schedule.next_opening(now));
            let next = next.map_or_else(|| "it opens no more".into(), |at| format!("it opens next at {at}"));
            (
                Reason::OutsideSchedule,
                format!("no window of spec.activeSchedule is open; {next}"),
            )
        }
        _ => {
            let until = policy
                .next_change(now)
                .map(|at| format!(" until {at}"))
                .unwrap_or_default();
            (Reason::InForce, format!("it is in force{until}"))
        }
    }
}

fn ready(facts: &Facts<'_>, accepted: Reason, active: Reason) -> (Reason, String) {
    let Tally {
        matched,
        missed,
        outdated,
        unidentified,
        ..
    } = facts.tally;
    if accepted != Reason::Valid {
        return (Reason::NotAccepted, "the condition Accepted says what to change".into());
    }
    if matches!(active, Reason::Disabled | Reason::Expired) {
        return (Reason::NotInForce, "the condition Active says why".into());
    }
    if !facts.conflicts.is_empty() {
        return (Reason::Conflict, conflict(facts));
    }
    if active != Reason::InForce {
        return (Reason::NotInForce, "the condition Active says why".into());
    }
    if missed > 0 {
        let message = format!(
            "{missed} of {matched} pods run without what the policy grants, since the webhook was not asked when they were created: create them anew. Events of reason {} name them",
            crate::missed::REASON
        );
        return (Reason::MissedPods, message);
    }
    if unidentified > 0 {
        let message = format!(
            "{unidentified} of {matched} pods match no ClusterSPIFFEID, so SPIRE gives them no identity and they don't start: write one whose namespaceSelector and podSelector select them. Where identities come by other ways too, set the chart's value spiffe.controllerManager.watch to false"
        );
        return (Reason::NoSpiffeIdentity, message);
    }
    if outdated > 0 {
        let from_spiffe = facts
            .policy
            .is_ok_and(|policy| policy.token.source == TokenSource::Spiffe);
        let sidecar = if from_spiffe {
            ", or run another sidecar than new ones get"
        } else {
            ""
        };
        let message = format!(
            "{outdated} pods were created before the policy said what it says now{sidecar}: a restart would change what they have"
        );
        return (Reason::OutdatedPods, message);
    }
    let compared = if facts.compared {
        ""
    } else {
        ". Its default role was not compared with those of all other policies, since there are too many or too similar names in their subjects"
    };
    let pods = match matched {
        0 => "no running pod gets anything from it".into(),
        _ => format!("all {matched} pods have what it grants"),
    };
    (Reason::UpToDate, pods + compared)
}

fn conflict(facts: &Facts<'_>) -> String {
    /// A message has to be read.
    const MOST: usize = 5;
    let role = |policy: &Policy| {
        policy
            .roles
            .default
            .as_ref()
            .map(RoleArn::to_string)
            .unwrap_or_default()
    };
    let name = |policy: &Policy| -> PolicyName { policy.name.clone() };
    let shown = facts.conflicts.iter().take(MOST);
    let others: Vec<String> = shown.map(|other| format!("{} {}", name(other), role(other))).collect();
    let more = match facts.conflicts.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let own = facts
        .policy
        .map(|policy| format!("{} assigns {}", name(policy), role(policy)));
    format!(
        "{} as default role, and so, to some of the same pods, do {}{more}: a pod that names no role is refused. Make the subjects distinct, or remove one spec.roles.default",
        own.unwrap_or_default(),
        others.join(", ")
    )
}

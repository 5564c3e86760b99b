//! The status that a policy should have.

use crate::drift::State;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use std::collections::BTreeSet;
use tokenscope_core::{Audience, InvalidPolicy, Policy, PolicyName, RoleArn, Standing, TokenSource, trust_policy};
use tokenscope_crds::{
    conditions::{ConditionType, Reason, condition, upsert},
    v1alpha1::{MOST_TRUST_POLICIES, PolicyStatus, TrustPolicy},
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
    let (trust_policies, note) = trust_policies(facts);
    let mut status = PolicyStatus {
        observed_generation: facts.generation,
        generation_observed_at: Some(Time(facts.said)),
        conditions: previous.conditions.clone(),
        matched_pods: Some(matched),
        injected_pods: Some(injected),
        missed_pods: Some(missed),
        outdated_pods: Some(outdated),
        trust_policies,
    };
    let types = [ConditionType::Accepted, ConditionType::Active, ConditionType::Ready];
    status
        .conditions
        .retain(|present| types.iter().any(|known| known.as_str() == present.type_));
    let (accepted, why) = accepted(facts);
    let (active, when) = active(facts, accepted, now);
    let (ready, mut what) = ready(facts, accepted, active);
    if let Some(note) = note {
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

/// The issuer of a policy's tokens as AWS must know it, or what is to be said in place of trust policies.
fn issuer<'a>(policy: &Policy, facts: &Facts<'a>) -> Result<&'a str, Option<String>> {
    match policy.token.source {
        TokenSource::Issuer => Err(None),
        TokenSource::ServiceAccount => match facts.issuer {
            Issuer::Known(issuer) if issuer.starts_with("https://") => Ok(issuer),
            Issuer::Known(issuer) => Err(Some(format!(
                "No trust policies: the cluster's issuer {issuer:?} is no https URL, so AWS can't trust it"
            ))),
            Issuer::Unknown => Err(Some(
                "No trust policies yet: the API server has not said what its issuer is".into(),
            )),
        },
        TokenSource::Spiffe if policy.token.spiffe.id.is_none() => Err(Some(
            "No trust policies: spec.token.spiffe.spiffeId is left out, and to trust every SPIFFE ID of a trust domain would be too much".into(),
        )),
        TokenSource::Spiffe => match facts.spiffe_issuer {
            Some(issuer) if issuer.starts_with("https://") => Ok(issuer),
            Some(issuer) => Err(Some(format!(
                "No trust policies: the SPIFFE provider's issuer {issuer:?} is no https URL, so AWS can't trust it"
            ))),
            None => Err(Some(
                "No trust policies: the issuer of the SPIFFE provider's tokens is not known; the chart's value spiffe.issuer says it".into(),
            )),
        },
    }
}

/// Far more than IAM takes, and what the schema of the status does.
const MOST_DOCUMENT_BYTES: usize = 65_536;

/// One for each role that the policy names exactly, and what is to be said about those that are missing.
fn trust_policies(facts: &Facts<'_>) -> (Vec<TrustPolicy>, Option<String>) {
    let Ok(policy) = facts.policy else {
        return (Vec::new(), None);
    };
    if policy.subjects.is_empty() {
        return (Vec::new(), None);
    }
    let allowed = policy
        .roles
        .allowed
        .iter()
        .filter_map(tokenscope_core::RolePattern::exact);
    let roles: BTreeSet<RoleArn> = policy.roles.default.clone().into_iter().chain(allowed).collect();
    if roles.is_empty() {
        return (Vec::new(), None);
    }
    let issuer = match issuer(policy, facts) {
        Ok(issuer) => issuer,
        Err(note) => return (Vec::new(), note),
    };
    let mut documents = Vec::new();
    for role in roles.iter().take(MOST_TRUST_POLICIES) {
        let Some(trust) = trust_policy(policy, role, issuer, facts.default_audience) else {
            continue;
        };
        // A document of strings always serialises.
        let document = serde_json::to_string_pretty(&trust.document).unwrap_or_default();
        if document.len() <= MOST_DOCUMENT_BYTES {
            documents.push(TrustPolicy {
                role_arn: role.to_string(),
                document,
                notes: trust.notes,
            });
        }
    }
    let note = (documents.len() < roles.len()).then(|| {
        format!(
            "Trust policies are given for {} of {} roles: at most {MOST_TRUST_POLICIES}, and none that IAM could not take",
            documents.len(),
            roles.len()
        )
    });
    (documents, note)
}

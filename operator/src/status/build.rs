//! The status that a policy should have. Pure: what is known comes as [`PolicyFacts`], the time as an argument.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokenscope_core::delivery::Delivery;
use tokenscope_core::text::and_more;
use tokenscope_core::{NO_DEFAULT_AUDIENCE, Policy, PolicyName, RoleArn, Roles, Standing, TokenSource};
use tokenscope_crds::conditions::{ConditionType, Reason, condition, upsert};
use tokenscope_crds::v1alpha1::{MOST_NAMES, PolicyStatus};

use super::notes::notes;
use super::trust;
use crate::drift::PodCounts;
use crate::events::EventReason;
use crate::index::PolicyFacts;

/// The status; equal to `previous` if there is nothing to write.
pub(crate) fn status(previous: &PolicyStatus, facts: &PolicyFacts<'_>, now: Timestamp) -> PolicyStatus {
    let PodCounts {
        matched,
        injected,
        missed,
        outdated,
        ..
    } = facts.counts;
    let (trust_policies, note) = trust::trust_policies(facts, now);
    let mut status = PolicyStatus {
        observed_generation: facts.generation,
        generation_observed_at: Some(Time(facts.effective_since)),
        conditions: previous.conditions.clone(),
        roles: facts.policy.ok().and_then(|policy| roles(&policy.roles)),
        matched_pods: Some(matched),
        injected_pods: Some(injected),
        missed_pods: Some(missed),
        outdated_pods: Some(outdated),
        ungranted_token_pods: facts
            .tokens
            .as_ref()
            .map(|tokens| i64::try_from(tokens.pods.len()).unwrap_or(i64::MAX)),
        ungranted_token_pod_names: first(facts.tokens.iter().flat_map(|tokens| &tokens.pods)),
        locked_token_csi_drivers: first(&facts.csi_drivers),
        trust_policies,
        role_chain_policies: trust::role_chain_policies(facts, now),
        outbound_token_policies: trust::outbound_token_policies(facts, now),
    };
    keep_own_conditions(&mut status);
    let (accepted, why) = accepted(facts);
    let (active, when) = active(facts, accepted, now);
    let (ready, mut what) = ready(facts, accepted, active);
    for note in note.into_iter().chain(notes(facts)) {
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

/// The status of a policy whose namespace takes more than its share of what the operator keeps; `why` is for whoever reads it.
pub(crate) fn over_share(
    previous: &PolicyStatus,
    generation: Option<i64>,
    why: String,
    now: Timestamp,
) -> PolicyStatus {
    let mut status = PolicyStatus {
        conditions: previous.conditions.clone(),
        observed_generation: previous.observed_generation,
        generation_observed_at: previous.generation_observed_at.clone(),
        ..PolicyStatus::default()
    };
    keep_own_conditions(&mut status);
    let at = Timestamp::from_second(now.as_second()).unwrap_or(now);
    upsert(
        &mut status.conditions,
        condition(Reason::NamespaceOverShare, why, generation, at),
        at,
    );
    status
}

/// The default role, or else the first that a pod may ask for and how many more there are: what a table has room for.
fn roles(roles: &Roles) -> Option<String> {
    if let Some(default) = &roles.default {
        return Some(default.to_string());
    }
    let (first, more) = roles.allowed.split_first()?;
    Some(match more.len() {
        0 => first.to_string(),
        more => format!("{first} +{more}"),
    })
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

fn accepted(facts: &PolicyFacts<'_>) -> (Reason, String) {
    match facts.policy {
        Err(invalid) => (Reason::Invalid, invalid.to_string()),
        Ok(policy) if !facts.has_source => (
            Reason::SourceNotAvailable,
            format!(
                "spec.token.source: {} is not available in this version, so pods that ask for its roles are refused; ServiceAccount and SPIFFE are available",
                policy.token.source.as_str()
            ),
        ),
        Ok(_) if let Some(audience) = facts.exchange_audience => (
            Reason::ExchangeAudience,
            format!(
                "spec.audiences has {audience}, which is the URL of tokenscope's own issuer: tokens of this audience are for the issuer alone, so the policy grants nothing. Remove it; name the party that the tokens are for, such as sts.amazonaws.com"
            ),
        ),
        Ok(policy) if policy.audiences.lacks_default(facts.default_audience) => {
            (Reason::Invalid, NO_DEFAULT_AUDIENCE.into())
        }
        Ok(_) if let Some(why) = &facts.refused_outbound => (Reason::Invalid, why.to_string()),
        Ok(_) if let Some(why) = facts.lacks_region => (Reason::Invalid, why.into()),
        Ok(_) if let Some(why) = &facts.outside => (Reason::OutsideBoundary, why.to_string()),
        Ok(_) if let Some(why) = facts.without_context_room => (Reason::TooManyContextKeys, why.to_string()),
        Ok(_) => (Reason::Valid, "the policy makes sense".into()),
    }
}

fn active(facts: &PolicyFacts<'_>, accepted: Reason, now: Timestamp) -> (Reason, String) {
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

fn ready(facts: &PolicyFacts<'_>, accepted: Reason, active: Reason) -> (Reason, String) {
    if let Some(refused) = &facts.refused_by_webhook {
        return refused.clone();
    }
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
    if let Some(unready) = unready_pods(facts) {
        return unready;
    }
    // Reviews are slower there, and all else is as it should be.
    if let Some(looked_up) = &facts.looked_up_by_webhook {
        return (Reason::NamespaceOverShare, looked_up.clone());
    }
    let compared = if facts.compared {
        ""
    } else {
        ". Its default role was not compared with those of all other policies, since there are too many or too similar names in their subjects"
    };
    let pods = match facts.counts.matched {
        0 => "no running pod gets anything from it".into(),
        matched => format!("all {matched} pods have what it grants"),
    };
    (Reason::UpToDate, pods + compared)
}

/// The reason why the policy's running pods do not have what it grants, if there is one; the worst first.
fn unready_pods(facts: &PolicyFacts<'_>) -> Option<(Reason, String)> {
    let PodCounts {
        matched,
        missed,
        outdated,
        maybe_missed,
        without_spiffe_id,
        ..
    } = facts.counts;
    if missed > 0 {
        let message = format!(
            "{missed} of {matched} pods run without what the policy grants, since the webhook was not asked when they were created: create them anew. Events of reason {} name them",
            EventReason::CredentialsMissed.as_str()
        );
        return Some((Reason::MissedPods, message));
    }
    if maybe_missed > 0 {
        let message = format!(
            "{maybe_missed} of {matched} pods run without what the policy grants, and may have been created without a review. The operator has not seen everything since then, or something that the grant rests on had just changed, or something that may have kept the grant away is gone, or they are in a namespace whose pods are never denied and bear no mark of a refusal, so it can't tell; it evicts none of them for it. Create them anew"
        );
        return Some((Reason::MaybeMissedPods, message));
    }
    if without_spiffe_id > 0 {
        let message = format!(
            "{without_spiffe_id} of {matched} pods match no ClusterSPIFFEID, so SPIRE gives them no identity and they don't start: write one whose namespaceSelector and podSelector select them. Where identities come by other ways too, set the chart's value spiffe.controllerManager.watch to false"
        );
        return Some((Reason::NoSpiffeIdentity, message));
    }
    if outdated > 0 {
        let sidecar = other_container(facts);
        let message = format!(
            "{outdated} pods were created before the policy said what it says now{sidecar}: a restart would change what they have"
        );
        return Some((Reason::OutdatedPods, message));
    }
    None
}

/// The other reason why a pod of the policy is outdated, if it can have one.
fn other_container(facts: &PolicyFacts<'_>) -> &'static str {
    let Ok(policy) = facts.policy else { return "" };
    match policy.delivery {
        Delivery::Endpoint(_) => ", or run another sidecar than new ones get",
        _ if policy.token.source != TokenSource::ServiceAccount => ", or run another sidecar than new ones get",
        Delivery::Profile(_) => ", or had another init container than new ones get",
        Delivery::File => "",
    }
}

fn conflict(facts: &PolicyFacts<'_>) -> String {
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
    let is_same = |other: &Policy| {
        facts
            .policy
            .is_ok_and(|policy| policy.roles.default == other.roles.default)
    };
    let other_token = |other: &Policy| {
        if is_same(other) {
            " with another token, role chain or delivery"
        } else {
            ""
        }
    };
    let others: Vec<String> = shown
        .map(|other| format!("{} {}{}", name(other), role(other), other_token(other)))
        .collect();
    let more = match facts.conflicts.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!(" {}", and_more(more)),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_roles_of_a_table_are_the_default_or_the_first_and_the_number_of_the_others() {
        let role = |name: &str| format!("arn:aws:iam::111122223333:role/{name}");
        let mut some = Roles {
            allowed: vec![role("shop/*").parse().unwrap()],
            default: None,
        };
        assert_eq!(roles(&some), Some(role("shop/*")));

        some.allowed.extend(["b", "c"].map(|name| role(name).parse().unwrap()));
        assert_eq!(roles(&some), Some(role("shop/* +2")));

        some.default = Some(role("shop/orders").parse().unwrap());
        assert_eq!(roles(&some), Some(role("shop/orders")));
        assert_eq!(roles(&Roles::default()), None);
    }
}

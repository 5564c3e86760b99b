//! The conditions of a policy's status.

use std::fmt;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use tokenscope_core::text::up_to;

/// The subject of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The policy makes sense, and this version can do what it says.
    Accepted,
    /// The policy is in force now.
    Active,
    /// There is nothing for a person to do: whoever waits for `Ready` may go on.
    Ready,
}

impl ConditionType {
    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "Accepted",
            Self::Active => "Active",
            Self::Ready => "Ready",
        }
    }
}

impl fmt::Display for ConditionType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The reason of a condition. Each reason belongs to one condition and to one status of it; there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Accepted.
    Valid,
    /// Not accepted: a field is wrong.
    Invalid,
    /// Not accepted: this version has no such token source.
    SourceNotAvailable,
    /// Not accepted: it names the audience of tokenscope's own issuer.
    ExchangeAudience,
    /// Not accepted: beyond the boundary of its namespace.
    OutsideBoundary,
    /// Not accepted: its context keys have no room beside those of cluster policies and older policies.
    TooManyContextKeys,
    /// Active.
    InForce,
    /// Not active: not accepted.
    Unusable,
    /// Not active: switched off.
    Disabled,
    /// Not active: over.
    Expired,
    /// Not active: no window of its schedule is open.
    OutsideSchedule,
    /// Ready: every pod has what it should.
    UpToDate,
    /// Ready: there are pods that a restart would change.
    OutdatedPods,
    /// Ready: nothing is to be done while it isn't in force.
    NotInForce,
    /// Not ready: not accepted.
    NotAccepted,
    /// Not ready: another policy gives a pod another default role.
    Conflict,
    /// Not ready: nothing gives pods an identity of SPIFFE.
    NoSpiffeIdentity,
    /// Not ready: pods run without what it grants.
    MissedPods,
    /// Not ready: pods may run without what it grants since their creation.
    MaybeMissedPods,
    /// Not ready: what concerns every namespace is larger than what the webhook keeps of it.
    ClusterOverShare,
    /// Not ready: its namespace is larger than what the webhook or the operator keeps of one.
    NamespaceOverShare,
}

impl Reason {
    /// Every reason, by condition.
    pub const ALL: &[Self] = &[
        Self::Valid,
        Self::Invalid,
        Self::SourceNotAvailable,
        Self::ExchangeAudience,
        Self::OutsideBoundary,
        Self::TooManyContextKeys,
        Self::InForce,
        Self::Unusable,
        Self::Disabled,
        Self::Expired,
        Self::OutsideSchedule,
        Self::UpToDate,
        Self::OutdatedPods,
        Self::NotInForce,
        Self::NotAccepted,
        Self::Conflict,
        Self::NoSpiffeIdentity,
        Self::MissedPods,
        Self::MaybeMissedPods,
        Self::ClusterOverShare,
        Self::NamespaceOverShare,
    ];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "Valid",
            Self::Invalid => "Invalid",
            Self::SourceNotAvailable => "SourceNotAvailable",
            Self::ExchangeAudience => "ExchangeAudience",
            Self::OutsideBoundary => "OutsideBoundary",
            Self::TooManyContextKeys => "TooManyContextKeys",
            Self::InForce => "InForce",
            Self::Unusable => "Unusable",
            Self::Disabled => "Disabled",
            Self::Expired => "Expired",
            Self::OutsideSchedule => "OutsideSchedule",
            Self::UpToDate => "UpToDate",
            Self::OutdatedPods => "OutdatedPods",
            Self::NotInForce => "NotInForce",
            Self::NotAccepted => "NotAccepted",
            Self::Conflict => "Conflict",
            Self::NoSpiffeIdentity => "NoSpiffeIdentity",
            Self::MissedPods => "MissedPods",
            Self::MaybeMissedPods => "MaybeMissedPods",
            Self::ClusterOverShare => "ClusterOverShare",
            Self::NamespaceOverShare => "NamespaceOverShare",
        }
    }

    /// The condition that it belongs to.
    pub fn condition_type(self) -> ConditionType {
        match self {
            Self::Valid
            | Self::Invalid
            | Self::SourceNotAvailable
            | Self::ExchangeAudience
            | Self::OutsideBoundary
            | Self::TooManyContextKeys => ConditionType::Accepted,
            Self::InForce | Self::Unusable | Self::Disabled | Self::Expired | Self::OutsideSchedule => {
                ConditionType::Active
            }
            Self::UpToDate
            | Self::OutdatedPods
            | Self::NotInForce
            | Self::NotAccepted
            | Self::Conflict
            | Self::NoSpiffeIdentity
            | Self::MissedPods
            | Self::MaybeMissedPods
            | Self::ClusterOverShare
            | Self::NamespaceOverShare => ConditionType::Ready,
        }
    }

    /// True if the condition is True with it.
    pub fn is_true(self) -> bool {
        matches!(
            self,
            Self::Valid | Self::InForce | Self::UpToDate | Self::OutdatedPods | Self::NotInForce
        )
    }

    /// Its meaning and the remedy, in a sentence for the reference.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Valid => "The policy makes sense and this version can do what it says.",
            Self::Invalid => {
                "A field is wrong, though the schema let it through; the message names the field and what would be right. The policy grants nothing, and pods to which it assigns a role are refused as far as its selectors can be read."
            }
            Self::SourceNotAvailable => {
                "The policy's token.source is not available in this version. Pods that it selects are refused."
            }
            Self::ExchangeAudience => {
                "The policy's audiences have the URL of tokenscope's own issuer, whose tokens no workload gets, so it grants nothing; the message names the audience. Remove it."
            }
            Self::OutsideBoundary => {
                "The policy is not provably inside a TokenScopeBoundary that selects its namespace, so it grants nothing; the message names the boundary and the field. Narrow the policy, or have the boundary widened."
            }
            Self::TooManyContextKeys => {
                "AWS takes ten context keys for all policies with token.source Issuer. Cluster policies and older policies have too many of them, or the same key in other case, so this one grants nothing; the message names the key. Use keys that are there, or remove some."
            }
            Self::InForce => "The policy is in force now.",
            Self::Unusable => "The policy is not accepted, so it is not in force; the condition Accepted says why.",
            Self::Disabled => "The policy's disabled is true.",
            Self::Expired => "The policy's expiresAt is over.",
            Self::OutsideSchedule => {
                "No window of the policy's activeSchedule is open; the message says when the next one opens."
            }
            Self::UpToDate => "Every running pod that the policy selects has what it should have.",
            Self::OutdatedPods => {
                "Pods run that were created before the policy said what it says now, or with another sidecar than new ones get; restart them to change that."
            }
            Self::NotInForce => {
                "The policy is not in force now, and nothing is to be done; the condition Active says why."
            }
            Self::NotAccepted => "The policy is not accepted; the condition Accepted says what to change.",
            Self::Conflict => {
                "Another policy gives a pod that both select another default role, or the same with a token of tokenscope's issuer that says something else, so such a pod is refused; the message names the policy. Change one of them, or name the role on the pod."
            }
            Self::NoSpiffeIdentity => {
                "The policy's tokens come from SPIFFE, spire-controller-manager is in the cluster, and pods match no ClusterSPIFFEID, so that they wait for an identity; write a ClusterSPIFFEID that selects them."
            }
            Self::MissedPods => {
                "Pods run without what the policy grants, since the webhook was not asked when they were created; create them anew."
            }
            Self::MaybeMissedPods => {
                "Pods run without what the policy grants, and it can't be told whether the webhook was not asked when they were created or something that is gone kept the grant away: they are older than what the operator has seen, or came within seconds after a change of what the grant rests on, or are in a namespace whose pods are never denied. None is evicted for it; create them anew."
            }
            Self::ClusterOverShare => {
                "The ClusterTokenScopePolicies or the TokenScopeBoundaries are more, or larger together, than what the webhook keeps, so it can judge no new pod of any namespace and refuses those that don't opt out; the message says the bound. Delete those that are not needed, or make them smaller."
            }
            Self::NamespaceOverShare => {
                "The policy's namespace holds more than what is kept of one namespace; the message says who does not keep it, what the bound is and what to remove. Beyond the webhook's share of policies, it refuses new pods of the namespace; beyond its share of service accounts, few pods a second can be reviewed there; beyond the operator's share, pods are not counted."
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A condition; its type and status follow from the reason. `generation` is the policy's that it is about.
///
/// Its lastTransitionTime is `now`; [`upsert`] keeps the older one while the status stays.
pub fn condition(reason: Reason, message: impl Into<String>, generation: Option<i64>, now: Timestamp) -> Condition {
    /// What the API conventions (metav1.Condition) allow.
    const MOST_BYTES: usize = 32_768;
    let mut message = message.into();
    message.truncate(up_to(&message, MOST_BYTES).len());
    Condition {
        type_: reason.condition_type().as_str().to_owned(),
        status: if reason.is_true() { "True" } else { "False" }.to_owned(),
        reason: reason.as_str().to_owned(),
        message,
        observed_generation: generation,
        last_transition_time: Time(now),
    }
}

/// Puts a condition into a list. `lastTransitionTime` becomes `now` if the status is another one than before and stays
/// otherwise, so that looking again at an unchanged policy changes nothing. Returns whether anything changed.
pub fn upsert(conditions: &mut Vec<Condition>, mut condition: Condition, now: Timestamp) -> bool {
    condition.last_transition_time = Time(now);
    let Some(present) = conditions.iter_mut().find(|present| present.type_ == condition.type_) else {
        conditions.push(condition);
        return true;
    };
    if present.status == condition.status {
        condition.last_transition_time = present.last_transition_time.clone();
    }
    let changed = *present != condition;
    *present = condition;
    changed
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_does() {
        let mut conditions = Vec::new();

        assert!(upsert(
            &mut conditions,
            condition(Reason::UpToDate, "12 pods", Some(1), at(10)),
            at(10)
        ));
        assert!(!upsert(
            &mut conditions,
            condition(Reason::UpToDate, "12 pods", Some(1), at(20)),
            at(20)
        ));
        assert!(upsert(
            &mut conditions,
            condition(Reason::OutdatedPods, "1 pod", Some(2), at(30)),
            at(30)
        ));
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert!(upsert(
            &mut conditions,
            condition(Reason::MissedPods, "1 pod", Some(2), at(40)),
            at(40)
        ));
        assert_eq!(conditions[0].last_transition_time, Time(at(40)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn conditions_of_different_types_live_side_by_side() {
        let mut conditions = Vec::new();
        for reason in [Reason::Valid, Reason::InForce, Reason::UpToDate] {
            upsert(&mut conditions, condition(reason, "", None, at(1)), at(1));
        }

        let types: Vec<_> = conditions.iter().map(|condition| &*condition.type_).collect();
        assert_eq!(types, ["Accepted", "Active", "Ready"]);
    }

    #[test]
    fn every_reason_has_a_word_and_a_sentence_of_its_own() {
        let words: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        let sentences: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.meaning()).collect();

        assert_eq!(
            Reason::ALL.len(),
            Reason::NamespaceOverShare as usize + 1,
            "NamespaceOverShare is the last one"
        );
        assert_eq!(words.len(), Reason::ALL.len());
        assert_eq!(sentences.len(), Reason::ALL.len());
        assert!(sentences.iter().all(|sentence| sentence.ends_with('.')));
    }

    #[test]
    fn a_very_long_message_is_cut_between_characters() {
        let cut = condition(Reason::Invalid, "ä".repeat(40_000), None, at(1));

        assert_eq!(cut.message.len(), 32_768);
    }
}

//! The facts about a policy, for its status.

use jiff::Timestamp;
use tokenscope_core::{
    Audience, ClusterName, InvalidPolicy, NoContextRoom, OutsideBoundary, Policy, PolicyName, RefusedAudience, Region,
    Unserved,
};
use tokenscope_crds::conditions::Reason;
use tokenscope_crds::v1alpha1::PolicyStatus;

use super::labels::IneffectiveLabels;
use super::policies::PolicyObject;
use super::{Index, Installation};
use crate::drift::PodCounts;
use crate::issuer::Issuer;

/// A policy's object, and what its status follows from.
#[derive(Debug)]
pub(crate) struct PolicyInfo<'a> {
    /// Its metadata.generation.
    pub(crate) generation: Option<i64>,
    /// The status that it has.
    pub(crate) status: &'a PolicyStatus,
    /// The facts; or why its namespace is not looked at.
    pub(crate) facts: Result<PolicyFacts<'a>, String>,
}

/// The facts about a policy.
#[derive(Debug)]
pub(crate) struct PolicyFacts<'a> {
    /// Its metadata.generation.
    pub(crate) generation: Option<i64>,
    /// The time since which it says what it says.
    pub(crate) effective_since: Timestamp,
    /// Its statement, or the reason why it has none.
    pub(crate) policy: Result<&'a Policy, &'a InvalidPolicy>,
    /// The reason why the webhook refuses pods of the policy, where it doesn't keep all that they are judged by.
    pub(crate) refused_by_webhook: Option<(Reason, String)>,
    /// The reason why the webhook looks service accounts of its namespace up one by one, where it does.
    pub(crate) looked_up_by_webhook: Option<String>,
    /// The part of it that is beyond a boundary of its namespace.
    pub(crate) outside: Option<OutsideBoundary>,
    /// The issuer's own exchange audience, where the policy names it.
    pub(crate) exchange_audience: Option<&'a Audience>,
    /// The first of its tokens for third parties that is for none.
    pub(crate) refused_outbound: Option<RefusedAudience>,
    /// The reason why its context keys have no room beside those of cluster policies and older ones.
    pub(crate) without_context_room: Option<&'a NoContextRoom>,
    /// The message about its delivery, where that needs a region and has none.
    pub(crate) lacks_region: Option<&'static str>,
    /// The counts of pods for it.
    pub(crate) counts: PodCounts,
    /// Those that give some of the same pods another default role.
    pub(crate) conflicts: Vec<&'a Policy>,
    /// True if it could be compared with all policies that it may be in conflict with.
    pub(crate) compared: bool,
    /// The cluster's issuer.
    pub(crate) issuer: &'a Issuer,
    /// True if the installation can give pods tokens of the policy's source.
    pub(crate) has_source: bool,
    /// The SPIFFE provider's.
    pub(crate) spiffe_issuer: Option<&'a str>,
    /// tokenscope's own, where the installation runs one.
    pub(crate) own_issuer: Option<&'a str>,
    /// The cluster's name before the subjects of its tokens.
    pub(crate) cluster: Option<&'a ClusterName>,
    /// The namespaces that the policy selects now, where its trust policies have to name them; no more than they can.
    pub(crate) namespaces: Vec<&'a str>,
    /// The number of them, also where only a part is listed.
    pub(crate) namespace_count: usize,
    /// Those that get nothing although the policy may select them.
    pub(crate) unserved: Unserved<'a>,
    /// The labels of its namespaces that have no effect.
    pub(crate) labels: IneffectiveLabels<'a>,
    /// The region where the policy names none.
    pub(crate) default_region: Option<&'a Region>,
    /// The audience where the policy names none.
    pub(crate) default_audience: &'a Audience,
    /// True if the installation lets the operator evict pods of expired policies.
    pub(crate) evicts_expired: bool,
    /// The lock's account of the pods of its namespace; none for a cluster policy.
    pub(crate) tokens: Option<NamespaceTokens<'a>>,
    /// The CSI drivers that get tokens of an audience that is locked everywhere.
    pub(crate) csi_drivers: Vec<&'a str>,
}

/// The pods of a namespace that hold a token of a locked audience which no policy grants them.
#[derive(Debug)]
pub(crate) struct NamespaceTokens<'a> {
    /// Their names, in order.
    pub(crate) pods: Vec<&'a str>,
}

impl Index {
    /// The facts about a policy, if there is one of this name.
    pub(crate) fn policy_info(&self, name: &PolicyName) -> Option<PolicyInfo<'_>> {
        let object = self.objects.get(name)?;
        let exceeded = name.namespace().and_then(|namespace| self.share_exceeded(namespace));
        let facts = match (exceeded, &object.policy) {
            (None, Some(policy)) => Ok(self.facts(name, object, policy.as_deref())),
            (exceeded, _) => Err(exceeded.unwrap_or_default()),
        };
        Some(PolicyInfo {
            generation: object.generation,
            status: &object.status,
            facts,
        })
    }

    /// The UID of the object that a policy is, so that a write does not meet another one of the same name.
    pub(crate) fn uid(&self, name: &PolicyName) -> Option<&str> {
        self.objects.get(name)?.uid.as_deref()
    }

    fn facts<'a>(
        &'a self,
        name: &PolicyName,
        object: &'a PolicyObject,
        policy: Result<&'a Policy, &'a InvalidPolicy>,
    ) -> PolicyFacts<'a> {
        let conflicts = object.conflicts.iter().filter_map(|other| self.policy(other));
        let namespace = name.namespace().filter(|_| self.needs_csi_drivers());
        let (namespaces, namespace_count) =
            policy.map_or_else(|_| (Vec::new(), 0), |policy| self.trusted_namespaces(policy));
        let unserved = policy.map_or_else(|_| Unserved::default(), |policy| self.unserved(policy, &namespaces));
        let Installation {
            settings,
            spiffe_issuer,
            cluster_name,
            evicts_expired,
            ..
        } = &self.installation;
        PolicyFacts {
            generation: object.generation,
            effective_since: object.effective_since(),
            policy,
            refused_by_webhook: self.refused_by_webhook(name.namespace()),
            looked_up_by_webhook: self.looked_up_by_webhook(name.namespace()),
            exchange_audience: policy.ok().and_then(|policy| settings.exchange_audience_of(policy)),
            refused_outbound: policy.ok().and_then(|policy| settings.refused_outbound(policy)),
            outside: policy.ok().and_then(|policy| self.outside_boundary(policy)),
            without_context_room: policy
                .ok()
                .and_then(|policy| self.policies.set().without_context_room(policy)),
            lacks_region: policy.ok().and_then(|policy| settings.lacks_region(policy)),
            counts: self.assessments.counts(name),
            conflicts: conflicts.collect(),
            compared: object.compared,
            issuer: self.issuer.as_ref().unwrap_or(&Issuer::Unknown),
            has_source: policy.is_ok_and(|policy| settings.has_source(policy.token.source)),
            spiffe_issuer: spiffe_issuer.as_deref(),
            own_issuer: settings.issuer.as_deref(),
            cluster: cluster_name.as_ref(),
            namespaces,
            namespace_count,
            unserved,
            labels: self.ineffective_labels(name, policy.ok()),
            default_region: settings.default_region.as_ref(),
            default_audience: &settings.default_audience,
            evicts_expired: *evicts_expired,
            tokens: namespace.map(|namespace| NamespaceTokens {
                pods: self.assessments.ungranted_of(namespace).collect(),
            }),
            csi_drivers: self.csi_drivers_with_locked_tokens().collect(),
        }
    }

    /// Nothing as long as the namespace is not known.
    fn outside_boundary(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let labels = &self.namespaces.value("", policy.name.namespace()?)?.labels;
        self.policies.set().outside_boundary(policy, &labels.borrowed())
    }
}

//! The IAM policies on both sides of each step of a policy's role chains.
//!
//! A role that another one is to assume must trust it, and the other must be permitted to: both are needed across accounts (IAM user
//! guide, "Cross-account policy evaluation logic"). An external id is a condition of the trust policy (AWS STS API reference,
//! AssumeRole). What a session passes on must be allowed at each step: transitive tags by `sts:TagSession`, a source identity by
//! `sts:SetSourceIdentity` (IAM user guide, "Passing session tags in AWS STS", "Monitor and control actions taken with assumed
//! roles"). No other tags are let through than those that the policy's tokens pass on (`aws:TagKeys`, `sts:TransitiveTagKeys`).

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::delivery::{Delivery, ExternalId, NamedProfile, RoleHop, is_plain};
use crate::trust_policy::{Admitted, Conditions, limit, note_length, note_pod_selector};
use crate::{Policy, RoleArn, TokenSource};

/// The permission that a step needs if its session has tags.
const TAG_SESSION: &str = "sts:TagSession";

/// The sessions that both sides of a step allow and the policy does not.
const STEPS: Admitted = Admitted {
    document: "the documents",
    ends: "AWS lets running pods take no step either",
    lasts: "sessions that have begun",
    at_any_time: "steps can be taken at any time",
    any_container: "steps can be taken for every container that has a session of the role before",
    any_pod: "steps can be taken for every pod that has a session of the role before",
    unnarrowed: "whoever has a session of the role before can take the next one without it",
};

/// A role that takes part in a chain, and what IAM must say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainedRole {
    /// The role.
    pub role: RoleArn,
    /// The permission that it needs, if other roles are taken with its credentials.
    pub permission_policy: Option<ChainDocument>,
    /// The trust policy that it needs, if it is taken with the credentials of other roles.
    pub trust_policy: Option<ChainDocument>,
    /// The notes about what the documents don't say.
    pub notes: Vec<String>,
}

/// An IAM policy document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ChainDocument {
    version: &'static str,
    statement: Vec<ChainStatement>,
}

impl ChainDocument {
    fn new(statement: Vec<ChainStatement>) -> Option<Self> {
        let version = "2012-10-17";
        (!statement.is_empty()).then_some(Self { version, statement })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ChainStatement {
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<PrincipalElement>,
    action: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource: Vec<String>,
    #[serde(skip_serializing_if = "Conditions::is_empty")]
    condition: Conditions,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PrincipalElement {
    #[serde(rename = "AWS")]
    aws: Vec<String>,
}

/// The steps of a policy's chains: by target and external id, the sources.
#[derive(Default)]
struct Steps<'a> {
    sources: BTreeMap<&'a RoleArn, BTreeMap<Option<&'a str>, BTreeSet<&'a RoleArn>>>,
    targets: BTreeMap<&'a RoleArn, BTreeSet<&'a RoleArn>>,
    /// Roles that are taken after roles which the policy does not name exactly.
    after_patterns: BTreeSet<&'a RoleArn>,
}

impl<'a> Steps<'a> {
    fn add_chain(&mut self, first: &BTreeSet<&'a RoleArn>, after_patterns: bool, chain: &'a [RoleHop]) {
        if let Some(hop) = chain.first().filter(|_| after_patterns) {
            self.after_patterns.insert(&hop.role);
        }
        let mut before = first.clone();
        for hop in chain {
            let id = hop.external_id.as_ref().map(ExternalId::as_str);
            let sources = self.sources.entry(&hop.role).or_default().entry(id).or_default();
            sources.extend(&before);
            for source in &before {
                self.targets.entry(source).or_default().insert(&hop.role);
            }
            before = [&hop.role].into();
        }
    }
}

impl Policy {
    /// The profiles beside the default one.
    pub fn profiles(&self) -> &[NamedProfile] {
        match &self.delivery {
            Delivery::File | Delivery::Endpoint(_) => &[],
            Delivery::Profile(profiles) => profiles,
        }
    }

    /// The roles that are taken by AssumeRole, of the default profile and of all others.
    pub fn hops(&self) -> impl Iterator<Item = &RoleHop> {
        let of_profiles = self.profiles().iter().flat_map(|profile| &profile.chain);
        self.aws.role_chain.iter().chain(of_profiles)
    }

    /// The roles that it names beside those that pods may ask for, each with its field: those of chains and profiles.
    pub fn further_roles(&self) -> Vec<(String, &RoleArn)> {
        let mut roles = Vec::new();
        add_chain(&mut roles, "spec.aws", &self.aws.role_chain);
        for (index, profile) in self.profiles().iter().enumerate() {
            let path = format!("spec.delivery.profile.profiles[{index}]");
            roles.extend(profile.role.as_ref().map(|role| (format!("{path}.roleArn"), role)));
            add_chain(&mut roles, &path, &profile.chain);
        }
        roles
    }

    /// The roles that it names exactly, and that are taken with the pod's token: those that pods may have, and those of profiles.
    pub fn first_roles(&self) -> BTreeSet<RoleArn> {
        let profiles = self.profiles().iter().filter_map(|profile| profile.role.clone());
        self.delivered_roles().chain(profiles).collect()
    }

    /// False for a role that it grants to nobody, since a config file can't have it.
    pub fn delivers(&self, role: &RoleArn) -> bool {
        !matches!(self.delivery, Delivery::Profile(_)) || is_plain(role.as_str())
    }

    /// The roles that it names exactly and that pods may have.
    fn delivered_roles(&self) -> impl Iterator<Item = RoleArn> {
        self.roles.exact().filter(|role| self.delivers(role))
    }
}

fn add_chain<'a>(roles: &mut Vec<(String, &'a RoleArn)>, path: &str, chain: &'a [RoleHop]) {
    let hops = chain.iter().enumerate();
    roles.extend(hops.map(|(index, hop)| (format!("{path}.roleChain[{index}].roleArn"), &hop.role)));
}

/// The roles of a policy's chains, each with what IAM must say about it, by name.
pub fn chained_roles(policy: &Policy) -> Vec<ChainedRole> {
    let mut steps = Steps::default();
    let granted: BTreeSet<RoleArn> = policy.delivered_roles().collect();
    let granted: BTreeSet<&RoleArn> = granted.iter().collect();
    let has_patterns = policy.roles.allowed.iter().any(|pattern| pattern.exact().is_none());
    steps.add_chain(&granted, has_patterns, &policy.aws.role_chain);
    for profile in policy.profiles() {
        match &profile.role {
            Some(role) => steps.add_chain(&[role].into(), false, &profile.chain),
            None => steps.add_chain(&granted, has_patterns, &profile.chain),
        }
    }
    let rules = Rules::of(policy);
    let first = policy.first_roles();
    let roles: BTreeSet<&RoleArn> = steps.sources.keys().chain(steps.targets.keys()).copied().collect();
    let chained = |role: &RoleArn| {
        let trust_policy = rules.trust(steps.sources.get(role));
        let mut notes = notes(role, &steps, &first);
        if let Some(document) = &trust_policy {
            note_length(document, &mut notes);
        }
        notes.extend_from_slice(&rules.notes);
        ChainedRole {
            role: role.clone(),
            permission_policy: rules.permission(steps.targets.get(role)),
            trust_policy,
            notes,
        }
    };
    roles.into_iter().map(chained).collect()
}

/// The parts that all documents of a policy share.
struct Rules {
    actions: Vec<&'static str>,
    condition: Conditions,
    notes: Vec<String>,
}

impl Rules {
    fn of(policy: &Policy) -> Self {
        let actions = actions(policy);
        let mut condition = Conditions::default();
        let mut notes = vec!["every session of a role can take the next one by these documents, whoever has it: also pods of other policies that have the role, and others whom the role trusts".to_owned()];
        if actions.len() > 1 {
            notes.push("not yet seen by AWS: only tokenscope's own stand-in for AWS has judged steps with sts:TagSession or sts:SetSourceIdentity".to_owned());
            notes.push("no condition here compares values of tags and the source identity with the policy: whoever takes a step may give the next session a tag of the keys here, or a source identity, where the one before has none".to_owned());
        }
        if actions.contains(&TAG_SESSION) {
            // Where nothing is passed on, these hold too: what the session before has is not known here.
            let keys = || policy.claims.transitive_tag_keys.iter().map(|key| &**key);
            condition.only("aws:TagKeys", keys());
            condition.only("sts:TransitiveTagKeys", keys());
            notes.push("a step is refused with tags of other keys, also those that the session before passes on by another policy".to_owned());
        }
        limit(policy, &STEPS, &mut condition, &mut notes);
        note_pod_selector(policy, &STEPS, &mut notes);
        Self {
            actions,
            condition,
            notes,
        }
    }

    fn permission(&self, targets: Option<&BTreeSet<&RoleArn>>) -> Option<ChainDocument> {
        let resource: Vec<String> = targets?.iter().map(ToString::to_string).collect();
        ChainDocument::new(vec![ChainStatement {
            effect: "Allow",
            principal: None,
            action: self.actions.clone(),
            resource,
            condition: self.condition.clone(),
        }])
    }

    /// Without a source that the policy names there is nobody to trust.
    fn trust(&self, sources: Option<&BTreeMap<Option<&str>, BTreeSet<&RoleArn>>>) -> Option<ChainDocument> {
        let named = sources?.iter().filter(|(_, sources)| !sources.is_empty());
        let statement = |(id, sources): (Option<&str>, &BTreeSet<&RoleArn>)| {
            let mut condition = self.condition.clone();
            if let Some(id) = id {
                condition.equals("sts:ExternalId", std::iter::once(id));
            }
            ChainStatement {
                effect: "Allow",
                principal: Some(PrincipalElement {
                    aws: sources.iter().map(ToString::to_string).collect(),
                }),
                action: self.actions.clone(),
                resource: Vec::new(),
                condition,
            }
        };
        ChainDocument::new(named.map(|(id, sources)| statement((*id, sources))).collect())
    }
}

/// The actions of a step, as IAM names them.
fn actions(policy: &Policy) -> Vec<&'static str> {
    let mut actions = vec!["sts:AssumeRole"];
    if policy.token.source == TokenSource::Issuer {
        let has_tags = !policy.claims.transitive_tag_keys.is_empty();
        actions.extend(has_tags.then_some(TAG_SESSION));
        actions.extend(policy.claims.source_identity.as_ref().map(|_| "sts:SetSourceIdentity"));
    }
    actions
}

fn notes(role: &RoleArn, steps: &Steps<'_>, first: &BTreeSet<RoleArn>) -> Vec<String> {
    let mut notes = Vec::new();
    let is_target = steps.sources.contains_key(role);
    if is_target && first.contains(role) {
        notes.push(
            "the role is taken with the pod's token too: put the statements of both trust policies into one".into(),
        );
    }
    if steps.after_patterns.contains(role) {
        notes.push("spec.roles.allowed has patterns, which no document can name: add each role that they stand for to the principals here, and give it the same permission".into());
    }
    let of_other_partition = |other: &&&RoleArn| other.partition() != role.partition();
    let mut sources = steps.sources.get(role).into_iter().flat_map(BTreeMap::values).flatten();
    if let Some(source) = sources.find(of_other_partition) {
        notes.push(format!(
            "{source} is of another partition, whose credentials AWS takes nowhere else: the step fails"
        ));
    }
    if is_target {
        notes.push("AWS limits a session that is taken with a role's credentials to one hour".into());
    }
    notes
}

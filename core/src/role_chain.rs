//! The IAM policies on both sides of each step of a policy's role chains.
//!
//! A role that another one is to assume must trust it, and the other must be permitted to: both are needed across accounts (IAM user
//! guide, "Cross-account policy evaluation logic"). An external id is a condition of the trust policy (AWS STS API reference,
//! AssumeRole). What a session passes on must be allowed at each step: transitive tags by `sts:TagSession`, a source identity by
//! `sts:SetSourceIdentity` (IAM user guide, "Passing session tags in AWS STS", "Monitor and control actions taken with assumed
//! roles").

use crate::delivery::{ExternalId, RoleHop};
use crate::{Policy, RoleArn, TokenSource};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// A role that takes part in a chain, and what IAM must say about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainedRole {
    /// The role.
    pub role: RoleArn,
    /// The permission that it needs, if other roles are taken with its credentials.
    pub permission_policy: Option<ChainDocument>,
    /// The trust policy that it needs, if it is taken with the credentials of other roles.
    pub trust_policy: Option<ChainDocument>,
    /// What the documents don't say.
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
    principal: Option<Principal>,
    action: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'static str, BTreeMap<&'static str, String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Principal {
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
    /// The roles that it names exactly, and that are taken with the pod's token: those that pods may have, and those of profiles.
    pub fn first_roles(&self) -> BTreeSet<RoleArn> {
        let profiles = self.profiles().iter().filter_map(|profile| profile.role.clone());
        self.roles.exact().chain(profiles).collect()
    }
}

/// The roles of a policy's chains, each with what IAM must say about it, by name.
pub fn chained_roles(policy: &Policy) -> Vec<ChainedRole> {
    let mut steps = Steps::default();
    let granted: BTreeSet<RoleArn> = policy.roles.exact().collect();
    let granted: BTreeSet<&RoleArn> = granted.iter().collect();
    let has_patterns = policy.roles.allowed.iter().any(|pattern| pattern.exact().is_none());
    steps.add_chain(&granted, has_patterns, &policy.aws.role_chain);
    for profile in policy.profiles() {
        match &profile.role {
            Some(role) => steps.add_chain(&[role].into(), false, &profile.chain),
            None => steps.add_chain(&granted, has_patterns, &profile.chain),
        }
    }
    let actions = actions(policy);
    let first = policy.first_roles();
    let roles: BTreeSet<&RoleArn> = steps.sources.keys().chain(steps.targets.keys()).copied().collect();
    let chained = |role: &RoleArn| ChainedRole {
        role: role.clone(),
        permission_policy: permission(steps.targets.get(role), &actions),
        trust_policy: trust(steps.sources.get(role), &actions),
        notes: notes(role, &steps, &first),
    };
    roles.into_iter().map(chained).collect()
}

/// What a step does.
fn actions(policy: &Policy) -> Vec<&'static str> {
    let mut actions = vec!["sts:AssumeRole"];
    if policy.token.source == TokenSource::Issuer {
        let has_tags = !policy.claims.transitive_tag_keys.is_empty();
        actions.extend(has_tags.then_some("sts:TagSession"));
        actions.extend(policy.claims.source_identity.as_ref().map(|_| "sts:SetSourceIdentity"));
    }
    actions
}

fn permission(targets: Option<&BTreeSet<&RoleArn>>, actions: &[&'static str]) -> Option<ChainDocument> {
    let resource: Vec<String> = targets?.iter().map(ToString::to_string).collect();
    ChainDocument::new(vec![ChainStatement {
        effect: "Allow",
        principal: None,
        action: actions.to_vec(),
        resource,
        condition: BTreeMap::new(),
    }])
}

/// Without a source that the policy names there is nobody to trust.
fn trust(
    sources: Option<&BTreeMap<Option<&str>, BTreeSet<&RoleArn>>>,
    actions: &[&'static str],
) -> Option<ChainDocument> {
    let named = sources?.iter().filter(|(_, sources)| !sources.is_empty());
    let condition = |id: &str| ("StringEquals", BTreeMap::from([("sts:ExternalId", id.to_owned())]));
    let statement = |(id, sources): (Option<&str>, &BTreeSet<&RoleArn>)| ChainStatement {
        effect: "Allow",
        principal: Some(Principal {
            aws: sources.iter().map(ToString::to_string).collect(),
        }),
        action: actions.to_vec(),
        resource: Vec::new(),
        condition: id.map(condition).into_iter().collect(),
    };
    ChainDocument::new(named.map(|(id, sources)| statement((*id, sources))).collect())
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

//! The holder of a session: what policies see of it, apart from its names and times.

use std::collections::BTreeMap;

use crate::condition::{Fact, Facts};
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::request::SessionPolicies;

/// Keys that a request with the credentials of a session may have or lack.
const FAMILIES: &[&str] = &[
    "aws:principaltag/",
    "aws:originidentity/",
    "aws:transactioncontext/identityprovider/",
];

/// The values that were set when the role was taken; nothing changes it afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Principal {
    /// Session tags by key. Roles have no tags of their own here.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) source_identity: Option<String>,
    /// Trusted identity propagation by context key.
    pub(crate) propagated: BTreeMap<String, String>,
    pub(crate) facts: Facts,
    pub(crate) policies: SessionPolicies,
}

impl Principal {
    /// IAM User Guide, "AWS global condition context keys" (aws:PrincipalTag, aws:FederatedProvider, aws:SourceIdentity,
    /// aws:PrincipalType) and "IAM and AWS STS condition context keys" (the issuer's own, in a session).
    pub(crate) fn new(issuer: &str, provider_arn: &str, identity: &WebIdentity, policies: SessionPolicies) -> Self {
        let mut facts = Facts::of_families(FAMILIES);
        facts.set_identity(issuer, identity);
        facts.set("aws:FederatedProvider", Fact::One(provider_arn.to_owned()));
        facts.set("aws:PrincipalType", Fact::One("AssumedRole".to_owned()));
        facts.set(
            "aws:SourceIdentity",
            Fact::optional(identity.source_identity.as_deref()),
        );
        for (key, value) in &identity.tags {
            facts.set(&format!("aws:PrincipalTag/{key}"), Fact::One(value.clone()));
        }
        let propagated = identity.propagated.iter().flat_map(Propagated::context_keys);
        Self {
            tags: identity.tags.clone(),
            transitive_tag_keys: identity.transitive_tag_keys.clone(),
            source_identity: identity.source_identity.clone(),
            propagated: propagated.map(|(key, value)| (key, value.to_owned())).collect(),
            facts,
            policies,
        }
    }
}

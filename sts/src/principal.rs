//! The holder of credentials: what policies see of it, apart from its names and times.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::condition::{Fact, Facts};
use crate::context_provider::Propagated;
use crate::identity::WebIdentity;
use crate::request::SessionPolicies;

/// Keys that a signed request may have or lack.
const FAMILIES: &[&str] = &[
    "aws:principaltag/",
    "aws:requesttag/",
    "aws:originidentity/",
    "aws:transactioncontext/identityprovider/",
];

/// The values that were set when the credentials were given; nothing changes them afterwards.
#[derive(Clone, Debug, Default)]
pub(crate) struct Principal {
    /// Session tags, and the tags of the role or user itself, by key.
    pub(crate) tags: BTreeMap<String, String>,
    pub(crate) transitive_tag_keys: Vec<String>,
    pub(crate) source_identity: Option<String>,
    /// Trusted identity propagation by context key.
    pub(crate) propagated: BTreeMap<String, String>,
    pub(crate) facts: Facts,
    pub(crate) policies: SessionPolicies,
}

/// The names and times of a principal that its requests carry.
pub(crate) struct PrincipalNames<'a> {
    /// The role's or the user's ARN.
    pub(crate) arn: &'a str,
    pub(crate) account: &'a str,
    pub(crate) user_id: &'a str,
    /// `None` for the keys of a user, which are no temporary credentials.
    pub(crate) issued: Option<Timestamp>,
}

impl Principal {
    /// The session of a web identity.
    ///
    /// IAM User Guide, "AWS global condition context keys" (aws:PrincipalTag, aws:FederatedProvider, aws:SourceIdentity,
    /// aws:PrincipalType) and "IAM and AWS STS condition context keys" (the issuer's own, in a session).
    pub(crate) fn federated(
        issuer: &str,
        provider_arn: &str,
        identity: &WebIdentity,
        role_tags: &BTreeMap<String, String>,
        policies: SessionPolicies,
    ) -> Self {
        let mut principal = Self::session(
            &identity.tags,
            &identity.transitive_tag_keys,
            identity.source_identity.as_deref(),
            role_tags,
            policies,
        );
        principal.facts.set_identity(issuer, identity);
        let provider = Fact::One(provider_arn.to_owned());
        principal.facts.set("aws:FederatedProvider", provider);
        let propagated = identity.propagated.iter().flat_map(Propagated::context_keys);
        principal.propagated = propagated.map(|(key, value)| (key, value.to_owned())).collect();
        principal
    }

    /// The session of a role that another principal took. Propagated context doesn't pass on to it: not yet seen by AWS.
    pub(crate) fn session(
        tags: &BTreeMap<String, String>,
        transitive_tag_keys: &[String],
        source_identity: Option<&str>,
        role_tags: &BTreeMap<String, String>,
        policies: SessionPolicies,
    ) -> Self {
        let tags = with_role_tags(tags, role_tags);
        let mut facts = tag_facts(&tags);
        facts.set("aws:PrincipalType", Fact::One("AssumedRole".to_owned()));
        facts.set("aws:SourceIdentity", Fact::optional(source_identity));
        facts.set("aws:username", Fact::Absent);
        Self {
            tags,
            transitive_tag_keys: transitive_tag_keys.to_vec(),
            source_identity: source_identity.map(str::to_owned),
            propagated: BTreeMap::new(),
            facts,
            policies,
        }
    }

    /// An IAM user with keys of its own.
    pub(crate) fn user(name: &str, tags: &BTreeMap<String, String>) -> Self {
        let mut facts = tag_facts(tags);
        facts.set("aws:PrincipalType", Fact::One("User".to_owned()));
        facts.set("aws:SourceIdentity", Fact::Absent);
        facts.set("aws:username", Fact::One(name.to_owned()));
        Self {
            tags: tags.clone(),
            facts,
            ..Self::default()
        }
    }

    /// The request context of a call at `now` (IAM User Guide, "AWS global condition context keys").
    pub(crate) fn facts_of_request(&self, names: &PrincipalNames<'_>, now: Timestamp) -> Facts {
        let mut facts = self.facts.clone();
        facts.set("aws:TokenIssueTime", names.issued.map_or(Fact::Absent, Fact::Time));
        facts.set("aws:CurrentTime", Fact::Time(now));
        facts.set("aws:EpochTime", Fact::Time(now));
        facts.set("aws:PrincipalArn", Fact::One(names.arn.to_owned()));
        facts.set("aws:PrincipalAccount", Fact::One(names.account.to_owned()));
        facts.set("aws:userid", Fact::One(names.user_id.to_owned()));
        // There is no multi-factor authentication here.
        facts.set("aws:MultiFactorAuthPresent", Fact::Absent);
        facts.set("aws:MultiFactorAuthAge", Fact::Absent);
        facts
    }
}

/// Session tags over a role's own: "session tags override a role tag with the same key", whatever its case (STS API
/// reference, AssumeRole, Tags).
pub(crate) fn with_role_tags(
    tags: &BTreeMap<String, String>,
    role_tags: &BTreeMap<String, String>,
) -> BTreeMap<String, String> {
    let own = role_tags.iter().filter(|(key, _)| !crate::tags::has_key(tags, key));
    let own = own.map(|(key, value)| (key.clone(), value.clone()));
    own.chain(tags.clone()).collect()
}

fn tag_facts(tags: &BTreeMap<String, String>) -> Facts {
    let mut facts = Facts::of_families(FAMILIES);
    for (key, value) in tags {
        facts.set(&format!("aws:PrincipalTag/{key}"), Fact::One(value.clone()));
    }
    facts
}

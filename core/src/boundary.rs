//! The most that policies of a namespace may grant, as the cluster's administrators say.

use std::collections::BTreeMap;
use std::fmt;

use crate::delivery::{Delivery, EndpointDelivery, SessionPolicy};
use crate::outbound::OutboundToken;
use crate::text::some_of;
use crate::{
    Audience, Claims, Grant, Policy, RoleArn, RolePattern, Selector, Signer, Template, TokenExpiration, TokenSource,
};

/// The most that policies of the namespaces that it selects may grant, and that pods there may get without a policy. Cluster
/// policies have no boundary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// Its name.
    pub name: Box<str>,
    /// The namespaces that it is for.
    pub namespace_selector: Selector,
    /// The roles that their policies may allow.
    pub roles: Vec<RolePattern>,
    /// The audiences that they may allow; none = any.
    pub audiences: Vec<Audience>,
    /// The longest lifetime of their tokens, and of sessions whose length they set. A SPIFFE provider decides that of its tokens itself.
    pub max_expiration: Option<TokenExpiration>,
    /// The signers that their tokens may have; none = any.
    pub sources: Vec<Signer>,
    /// The only claims that they may have, each with exactly this template; `None` = any.
    pub claims: Option<Claims>,
    /// The audiences that their tokens for third parties may have; `None`: any where `audiences` and `session_policy` say nothing, otherwise none.
    pub outbound_audiences: Option<Vec<Audience>>,
    /// What sessions must be narrowed by, at least: one or several of these and nothing else, since a session may do what any of its own
    /// policies allows. `None`: they need not be narrowed.
    pub session_policy: Option<SessionPolicy>,
}

/// The part of a policy that is beyond a boundary. `Display` is a clause that names the boundary, the field and the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OutsideBoundary {
    /// A field is beyond it.
    #[error("TokenScopeBoundary {boundary} does not allow {field} to be {value}: it allows {allowed}")]
    Field {
        /// The boundary's name.
        boundary: Box<str>,
        /// The policy's field, or what it is of a grant without a policy.
        field: Box<str>,
        /// Its value, quoted where it is a text of the policy.
        value: Box<str>,
        /// The values that the boundary allows, shortened.
        allowed: Box<str>,
    },
    /// Nobody knows what it allows, or where.
    #[error(
        "TokenScopeBoundary {boundary} can't be used, so policies of no namespace grant anything until it is corrected: {why}"
    )]
    Unusable {
        /// The boundary's name.
        boundary: Box<str>,
        /// The fault.
        why: Box<str>,
    },
}

impl Boundary {
    /// The first thing of a policy that is not provably inside, whatever its namespace.
    pub fn outside(&self, policy: &Policy) -> Option<OutsideBoundary> {
        self.outside_source(policy)
            .or_else(|| self.outside_roles(policy))
            .or_else(|| self.outside_audiences(policy))
            .or_else(|| self.outside_lifetime(policy))
            .or_else(|| self.outside_session(policy))
            .or_else(|| self.outside_session_policy(policy))
            .or_else(|| self.outside_claims(policy))
            .or_else(|| self.outside_outbound(policy))
    }

    /// The first thing of a grant that no policy gives which is not inside. Such a grant has no claims.
    pub fn outside_without_policy(&self, grant: &Grant) -> Option<OutsideBoundary> {
        if !self.roles.iter().any(|role| role.matches(&grant.role)) {
            return Some(self.beyond("the role", &grant.role, &some_of(&self.roles)));
        }
        self.outside_token_without_policy(&grant.audience, grant.expiration, grant.source)
            .or_else(|| self.session_without_policy("the session policy"))
    }

    /// The first thing of a token that no policy gives which is not inside.
    pub fn outside_token_without_policy(
        &self,
        audience: &Audience,
        expiration: TokenExpiration,
        source: TokenSource,
    ) -> Option<OutsideBoundary> {
        if !self.audiences.is_empty() && !self.audiences.contains(audience) {
            return Some(self.beyond("the audience", audience, &some_of(&self.audiences)));
        }
        if let Some(most) = self.max_expiration.filter(|most| expiration > *most) {
            let allowed = format!("at most {}", most.seconds());
            return Some(self.beyond("the token's seconds", &expiration.seconds(), &allowed));
        }
        self.beyond_sources("the token's source", source.into())
    }

    fn outside_source(&self, policy: &Policy) -> Option<OutsideBoundary> {
        self.beyond_sources("spec.token.source", policy.token.source.into())
    }

    fn beyond_sources(&self, field: &str, source: Signer) -> Option<OutsideBoundary> {
        if self.sources.is_empty() || self.sources.contains(&source) {
            return None;
        }
        let names: Vec<_> = self.sources.iter().map(|source| source.as_str()).collect();
        Some(self.beyond(field, source.as_str(), &some_of(&names)))
    }

    fn outside_roles(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let covered = |pattern: &RolePattern| self.roles.iter().any(|role| role.contains(pattern));
        let mut allowed = policy.roles.allowed.iter().enumerate();
        if let Some((index, pattern)) = allowed.find(|(_, pattern)| !covered(pattern)) {
            let field = format!("spec.roles.allowed[{index}]");
            return Some(self.beyond(&field, pattern, &some_of(&self.roles)));
        }
        let default = policy
            .roles
            .default
            .iter()
            .map(|role| ("spec.roles.default".to_owned(), role));
        let mut exact = default.chain(policy.further_roles());
        let is_outside = |role: &RoleArn| !self.roles.iter().any(|allowed| allowed.matches(role));
        let (field, role) = exact.find(|(_, role)| is_outside(role))?;
        Some(self.beyond(&field, role, &some_of(&self.roles)))
    }

    /// A policy that leaves an audience to others may give any.
    fn outside_audiences(&self, policy: &Policy) -> Option<OutsideBoundary> {
        if self.audiences.is_empty() {
            return self.outside_open_audiences(policy);
        }
        let beyond = |field: &str, value: &dyn fmt::Display| self.beyond(field, value, &some_of(&self.audiences));
        if policy.audiences.allowed.is_empty() {
            return Some(beyond("spec.audiences.allowed", &"left out, which means any"));
        }
        let mut allowed = policy.audiences.allowed.iter().enumerate();
        if let Some((index, audience)) = allowed.find(|(_, audience)| !self.audiences.contains(audience)) {
            return Some(beyond(&format!("spec.audiences.allowed[{index}]"), audience));
        }
        match &policy.audiences.default {
            None => Some(beyond(
                "spec.audiences.default",
                &"left out, which means the installation's",
            )),
            Some(default) => (!self.audiences.contains(default)).then(|| beyond("spec.audiences.default", default)),
        }
    }

    /// Where a boundary lists the third parties, a pod may not name one by an annotation either: the issuer would sign a token for it.
    fn outside_open_audiences(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let is_open = policy.token.source == TokenSource::Issuer && policy.audiences.allowed.is_empty();
        (self.outbound_audiences.is_some() && is_open).then(|| {
            self.beyond(
                "spec.audiences.allowed",
                "left out, which means any",
                "with outboundAudiences only listed audiences where token.source is Issuer; list them in the policy's spec.audiences.allowed",
            )
        })
    }

    /// A session that is taken with a token lives on without it, so that its length counts like that of a token where a policy sets it.
    fn outside_session(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let most = self.max_expiration?.seconds();
        let Delivery::Endpoint(endpoint) = &policy.delivery else {
            return None;
        };
        let seconds = endpoint.duration?.seconds();
        (seconds > most).then(|| self.beyond("spec.aws.sessionDurationSeconds", &seconds, &format!("at most {most}")))
    }

    /// A session may do what its role and any of its own policies allow. So each of those must be one that the boundary has, and where there is none
    /// the session may do all that its role may. The same holds for a container that takes the role itself, with a token that it can read.
    fn outside_session_policy(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let most = self.session_policy.as_ref()?;
        let Delivery::Endpoint(EndpointDelivery {
            policy: own,
            gives_tokens,
            ..
        }) = &policy.delivery
        else {
            let allowed = "only Endpoint, whose sessions have a policy (sessionPolicy)";
            return Some(self.beyond("spec.delivery.type", policy.delivery.type_name(), allowed));
        };
        if *gives_tokens {
            let allowed = "only false: a token takes the role without a session policy (sessionPolicy)";
            return Some(self.beyond("spec.delivery.endpoint.aporetoTokens", "true", allowed));
        }
        if own.is_empty() {
            return self.session_without_policy("spec.aws.sessionPolicy");
        }
        if own.inline.is_some() && own.inline != most.inline {
            let (value, allowed) = match most.inline {
                None => ("set", "no document (sessionPolicy.inline)"),
                Some(_) => (
                    "another document",
                    "only that of its sessionPolicy.inline, character by character",
                ),
            };
            return Some(self.beyond("spec.aws.sessionPolicy.inline", value, allowed));
        }
        let mut arns = own.arns.iter().enumerate();
        let (index, arn) = arns.find(|(_, arn)| !most.arns.contains(arn))?;
        let allowed = if most.arns.is_empty() {
            "no managed policies (sessionPolicy.arns)".into()
        } else {
            some_of(&most.arns)
        };
        Some(self.beyond(&format!("spec.aws.sessionPolicy.arns[{index}]"), arn, &allowed))
    }

    /// The same of a session that has no policy.
    fn session_without_policy(&self, field: &str) -> Option<OutsideBoundary> {
        let most = self.session_policy.as_ref()?;
        let document = most
            .inline
            .iter()
            .map(|_| "the document of its sessionPolicy.inline".to_owned());
        let allowed: Vec<String> = document.chain(most.arns.iter().map(ToString::to_string)).collect();
        Some(self.beyond(field, "left out", &some_of(&allowed)))
    }

    fn outside_lifetime(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let most = self.max_expiration?;
        let lifetime = policy.token.expiration;
        (policy.token.source != TokenSource::Spiffe && lifetime > most).then(|| {
            let allowed = format!("at most {}", most.seconds());
            self.beyond("spec.token.expirationSeconds", &lifetime.seconds(), &allowed)
        })
    }

    /// A boundary that says nothing of tokens for third parties but bounds audiences may be older than such tokens are, and means
    /// the audiences of all tokens.
    fn outside_outbound(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let none = Vec::new();
        let audiences = match &self.outbound_audiences {
            Some(audiences) => Some(audiences),
            // Who can read a token of an audience that IAM takes has a session without a policy.
            None => (!self.audiences.is_empty() || self.session_policy.is_some()).then_some(&none),
        };
        let outside = |(index, token): (usize, &OutboundToken)| {
            let field = |member: &str| format!("spec.outboundTokens[{index}].{member}");
            if let Some(audiences) = audiences.filter(|audiences| !audiences.contains(&token.audience)) {
                let allowed = if audiences.is_empty() {
                    "no tokens for third parties (outboundAudiences)".into()
                } else {
                    some_of(audiences)
                };
                return Some(self.beyond(&field("audience"), &token.audience, &allowed));
            }
            if let Some(most) = self.max_expiration.filter(|most| token.expiration > *most) {
                let allowed = format!("at most {}", most.seconds());
                return Some(self.beyond(&field("expirationSeconds"), &token.expiration.seconds(), &allowed));
            }
            self.beyond_sources(&field("source"), token.source.signer())
        };
        policy.outbound.iter().enumerate().find_map(outside)
    }

    fn outside_claims(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let (most, claims) = (self.claims.as_ref()?, &policy.claims);
        let tags = self.outside_templates("principalTags", &claims.principal_tags, &most.principal_tags);
        let transitive = || {
            let mut keys = claims.transitive_tag_keys.iter().enumerate();
            let (index, key) = keys.find(|(_, key)| !most.transitive_tag_keys.contains(key))?;
            let field = format!("spec.claims.transitiveTagKeys[{index}]");
            Some(self.beyond(&field, key, &some_of(&most.transitive_tag_keys)))
        };
        let identity = || {
            let own = claims.source_identity.as_ref()?;
            let allowed = most.source_identity.as_ref();
            (allowed != Some(own)).then(|| {
                let allowed = allowed.map_or("none", Template::as_str);
                self.beyond("spec.claims.sourceIdentity", own, allowed)
            })
        };
        tags.or_else(transitive)
            .or_else(identity)
            .or_else(|| self.outside_templates("context", &claims.context, &most.context))
    }

    fn outside_templates(
        &self,
        name: &str,
        own: &BTreeMap<Box<str>, Template>,
        most: &BTreeMap<Box<str>, Template>,
    ) -> Option<OutsideBoundary> {
        let (key, template) = own.iter().find(|(key, template)| most.get(*key) != Some(*template))?;
        let field = format!("spec.claims.{name}[{key}]");
        if let Some(allowed) = most.get(key) {
            return Some(self.beyond(&field, template, allowed.as_str()));
        }
        let keys: Vec<_> = most.keys().collect();
        Some(self.beyond(&field, &"set", &format!("only the keys {}", some_of(&keys))))
    }

    fn beyond(&self, field: &str, value: &(impl fmt::Display + ?Sized), allowed: &str) -> OutsideBoundary {
        OutsideBoundary::Field {
            boundary: self.name.clone(),
            field: field.into(),
            value: value.to_string().into(),
            allowed: allowed.into(),
        }
    }
}

//! The most that policies of a namespace may grant, as the cluster's administrators say.

use crate::text::some_of;
use crate::{Audience, Claims, Grant, Policy, RoleArn, RolePattern, Selector, Template, TokenExpiration, TokenSource};
use std::{collections::BTreeMap, fmt};

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
    /// The longest lifetime of their tokens. A SPIFFE provider decides it itself.
    pub max_expiration: Option<TokenExpiration>,
    /// The signers that their tokens may have; none = any.
    pub sources: Vec<TokenSource>,
    /// The only claims that they may have, each with exactly this template; `None` = any.
    pub claims: Option<Claims>,
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
        /// What the boundary allows, shortened.
        allowed: Box<str>,
    },
    /// Nobody knows what it allows, or where.
    #[error(
        "TokenScopeBoundary {boundary} can't be used, so policies of no namespace grant anything until it is corrected: {why}"
    )]
    Unusable {
        /// The boundary's name.
        boundary: Box<str>,
        /// What is wrong with it.
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
            .or_else(|| self.outside_claims(policy))
    }

    /// The first thing of a grant that no policy gives which is not inside. Such a grant has no claims.
    pub fn outside_without_policy(&self, grant: &Grant) -> Option<OutsideBoundary> {
        if !self.roles.iter().any(|role| role.matches(&grant.role)) {
            return Some(self.beyond("the role", &grant.role, &some_of(&self.roles)));
        }
        if !self.audiences.is_empty() && !self.audiences.contains(&grant.audience) {
            return Some(self.beyond("the audience", &grant.audience, &some_of(&self.audiences)));
        }
        if let Some(most) = self.max_expiration.filter(|most| grant.expiration > *most) {
            let allowed = format!("at most {}", most.seconds());
            return Some(self.beyond("the token's seconds", &grant.expiration.seconds(), &allowed));
        }
        self.beyond_sources("the token's source", grant.source)
    }

    fn outside_source(&self, policy: &Policy) -> Option<OutsideBoundary> {
        self.beyond_sources("spec.token.source", policy.token.source)
    }

    fn beyond_sources(&self, field: &str, source: TokenSource) -> Option<OutsideBoundary> {
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
            return None;
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

    fn outside_lifetime(&self, policy: &Policy) -> Option<OutsideBoundary> {
        let most = self.max_expiration?;
        let lifetime = policy.token.expiration;
        (policy.token.source != TokenSource::Spiffe && lifetime > most).then(|| {
            let allowed = format!("at most {}", most.seconds());
            self.beyond("spec.token.expirationSeconds", &lifetime.seconds(), &allowed)
        })
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

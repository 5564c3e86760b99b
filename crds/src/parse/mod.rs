//! From an object of the API to the rule's own policy.
//!
//! The schema refuses what is wrong here too, so what fails is an object that was written under another schema. What
//! passes is never checked again.

mod aws;
mod boundary;
mod claims;
mod delivery;
mod outbound;
pub(crate) mod selector;
mod session_name;
mod token;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use tokenscope_core as core;
use tokenscope_core::{Glob, InvalidPolicy, Policy, PolicyName, Selector, Variable, Variables};

use crate::messages;
use crate::v1alpha1::{
    AudiencesSpec, ClusterTokenScopePolicy, ContainersSpec, OnExpirySpec, PolicySpec, RolesSpec, SubjectSpec,
    TokenScopePolicy,
};

impl TokenScopePolicy {
    /// The policy that this object states. The error names the first field that is wrong.
    pub fn policy(&self) -> Result<Policy, InvalidPolicy> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.policy(
            PolicyName::namespaced(namespace, name),
            &self.metadata,
            Selector::default(),
        )
    }
}

impl ClusterTokenScopePolicy {
    /// The policy that this object states. The error names the first field that is wrong.
    pub fn policy(&self) -> Result<Policy, InvalidPolicy> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.policy.policy(
            PolicyName::cluster(name),
            &self.metadata,
            selector::selector(&self.spec.namespace_selector, "spec.namespaceSelector")?,
        )
    }
}

impl PolicySpec {
    /// The policy of this name that this spec of an object with this metadata states. `namespace_selector` counts for a cluster policy only.
    pub(crate) fn policy(
        &self,
        name: PolicyName,
        metadata: &ObjectMeta,
        namespace_selector: Selector,
    ) -> Result<Policy, InvalidPolicy> {
        Ok(Policy {
            name,
            uid: metadata.uid.as_deref().map(Into::into),
            created: metadata.creation_timestamp.as_ref().map(|Time(at)| *at),
            namespace_selector,
            subjects: subjects(&self.subjects)?,
            roles: roles(&self.roles)?,
            audiences: audiences(&self.audiences)?,
            token: token::token(&self.token)?,
            claims: claims::claims(&self.claims, self.token.source)?.into(),
            aws: aws::aws(&self.aws, self.delivery.type_)?,
            delivery: delivery::delivery(self)?,
            outbound: outbound::outbound(self)?,
            containers: containers(&self.containers)?,
            disabled: self.disabled,
            fallback: self.fallback,
            expires_at: self.expires_at.as_deref().map(moment).transpose()?,
            on_expiry: match self.on_expiry {
                OnExpirySpec::Keep => core::OnExpiry::Keep,
                OnExpirySpec::Evict => core::OnExpiry::Evict,
            },
            active_schedule: match &self.active_schedule {
                None => None,
                Some(schedule) => Some(core::Schedule::parse(
                    &schedule.cron,
                    &schedule.duration,
                    &schedule.time_zone,
                )?),
            },
        })
    }
}

/// The subjects of a policy.
pub(crate) fn subjects(subjects: &[SubjectSpec]) -> Result<Vec<core::Subject>, InvalidPolicy> {
    let subjects = subjects.iter().enumerate();
    subjects
        .map(|(index, item)| subject(item, &format!("spec.subjects[{index}]")))
        .collect()
}

fn subject(subject: &SubjectSpec, field: &str) -> Result<core::Subject, InvalidPolicy> {
    Ok(core::Subject {
        service_accounts: globs(
            &subject.service_accounts,
            &format!("{field}.serviceAccounts"),
            messages::SERVICE_ACCOUNT,
            b".-*",
        )?,
        pod_selector: match &subject.pod_selector {
            None => None,
            Some(labels) => Some(selector::selector(labels, &format!("{field}.podSelector"))?),
        },
    })
}

fn roles(roles: &RolesSpec) -> Result<core::Roles, InvalidPolicy> {
    let parsed = core::Roles {
        allowed: parse_all(&roles.allowed, "spec.roles.allowed")?,
        default: parse_optional(roles.default.as_deref(), "spec.roles.default")?,
    };
    match &parsed.default {
        None if parsed.allowed.is_empty() => Err(invalid("spec.roles", messages::ROLES_EMPTY)),
        Some(default)
            if !parsed.allowed.is_empty() && !parsed.allowed.iter().any(|pattern| pattern.matches(default)) =>
        {
            Err(invalid("spec.roles.default", messages::DEFAULT_ROLE))
        }
        _ => Ok(parsed),
    }
}

fn audiences(audiences: &AudiencesSpec) -> Result<core::Audiences, InvalidPolicy> {
    let parsed = core::Audiences {
        allowed: parse_all(&audiences.allowed, "spec.audiences.allowed")?,
        default: parse_optional(audiences.default.as_deref(), "spec.audiences.default")?,
    };
    match &parsed.default {
        Some(default) if !parsed.allowed.is_empty() && !parsed.allowed.contains(default) => {
            Err(invalid("spec.audiences.default", messages::DEFAULT_AUDIENCE))
        }
        // The only one that is allowed is the default.
        None if parsed.allowed.len() == 1 => Ok(core::Audiences {
            default: parsed.allowed.first().cloned(),
            ..parsed
        }),
        _ => Ok(parsed),
    }
}

/// Stands for any value, where only the text around the variables is looked at.
pub(super) struct Placeholder;

impl Variables for Placeholder {
    fn value(&self, _: &Variable) -> Option<Cow<'_, str>> {
        Some("x".into())
    }
}

fn containers(containers: &ContainersSpec) -> Result<core::ContainerFilter, InvalidPolicy> {
    Ok(core::ContainerFilter {
        include: globs(
            &containers.include,
            "spec.containers.include",
            messages::CONTAINER,
            b"-*",
        )?,
        exclude: globs(
            &containers.exclude,
            "spec.containers.exclude",
            messages::CONTAINER,
            b"-*",
        )?,
    })
}

/// Names with `*`. Anything else that a name can't have is refused: IAM would take a `?` for a wildcard.
fn globs(texts: &[String], field: &str, what: &str, marks: &[u8]) -> Result<Vec<Glob>, InvalidPolicy> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || marks.contains(&b);
            if text.is_empty() || text.len() > 253 || !text.bytes().all(allowed) {
                return Err(invalid(format!("{field}[{index}]"), what));
            }
            Ok(Glob::new(text))
        })
        .collect()
}

fn moment(text: &str) -> Result<Timestamp, InvalidPolicy> {
    text.parse().map_err(|_| invalid("spec.expiresAt", messages::MOMENT))
}

fn parse_all<T: FromStr<Err: fmt::Display>>(texts: &[String], field: &str) -> Result<Vec<T>, InvalidPolicy> {
    let texts = texts.iter().enumerate();
    texts
        .map(|(index, text)| parse(text, &format!("{field}[{index}]")))
        .collect()
}

fn parse_optional<T: FromStr<Err: fmt::Display>>(text: Option<&str>, field: &str) -> Result<Option<T>, InvalidPolicy> {
    text.map(|text| parse(text, field)).transpose()
}

fn parse<T: FromStr<Err: fmt::Display>>(text: &str, field: &str) -> Result<T, InvalidPolicy> {
    text.parse().map_err(|error: T::Err| invalid(field, error))
}

fn invalid(field: impl Into<String>, reason: impl fmt::Display) -> InvalidPolicy {
    InvalidPolicy::new(field, reason)
}

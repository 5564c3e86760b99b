//! From an object of the API to the rule's own policy.
//!
//! The schema refuses what is wrong here too, so what fails is an object that was written under another schema. What
//! passes is never checked again.

use crate::v1alpha1::{
    Algorithm, Audiences, Aws, Claims, ClusterTokenScopePolicy, Containers, LabelOperator, LabelRequirement,
    LabelSelector, OnExpiry, PolicySpec, Roles, Source, Spiffe, Subject, Token, TokenScopePolicy,
};
use jiff::Timestamp;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};
use tokenscope_core as core;
use tokenscope_core::{
    Glob, InvalidPolicy, Policy, PolicyName, Selector, SelectorOperator, Template, Variable, Variables,
};

impl TokenScopePolicy {
    /// The policy that this object states. The error names the first field that is wrong.
    pub fn policy(&self) -> Result<Policy, InvalidPolicy> {
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec
            .policy(PolicyName::namespaced(namespace, name), Selector::default())
    }
}

impl ClusterTokenScopePolicy {
    /// The policy that this object states. The error names the first field that is wrong.
    pub fn policy(&self) -> Result<Policy, InvalidPolicy> {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        self.spec.policy.policy(
            PolicyName::cluster(name),
            selector(&self.spec.namespace_selector, "spec.namespaceSelector")?,
        )
    }
}

impl PolicySpec {
    /// The policy of this name that this spec states. `namespace_selector` counts for a cluster policy only.
    pub(crate) fn policy(&self, name: PolicyName, namespace_selector: Selector) -> Result<Policy, InvalidPolicy> {
        let subjects = self.subjects.iter().enumerate();
        Ok(Policy {
            name,
            namespace_selector,
            subjects: subjects
                .map(|(index, item)| subject(item, &format!("spec.subjects[{index}]")))
                .collect::<Result<_, _>>()?,
            roles: roles(&self.roles)?,
            audiences: audiences(&self.audiences)?,
            token: token(&self.token)?,
            claims: claims(&self.claims, self.token.source)?,
            aws: aws(&self.aws)?,
            containers: containers(&self.containers)?,
            disabled: self.disabled,
            fallback: self.fallback,
            expires_at: self.expires_at.as_deref().map(moment).transpose()?,
            on_expiry: match self.on_expiry {
                OnExpiry::Keep => core::OnExpiry::Keep,
                OnExpiry::Evict => core::OnExpiry::Evict,
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

/// The selector that an object's field states.
pub(crate) fn selector(selector: &LabelSelector, field: &str) -> Result<Selector, InvalidPolicy> {
    let mut requirements = Vec::new();
    for (key, value) in &selector.match_labels {
        requirements.push(core::Requirement {
            key: label_key(key, &format!("{field}.matchLabels"))?,
            operator: SelectorOperator::In(vec![value.as_str().into()]),
        });
    }
    for (index, LabelRequirement { key, operator, values }) in selector.match_expressions.iter().enumerate() {
        let texts = || values.iter().map(|value| value.as_str().into()).collect();
        let takes_values = matches!(operator, LabelOperator::In | LabelOperator::NotIn);
        if takes_values == values.is_empty() {
            return Err(invalid(
                format!("{field}.matchExpressions[{index}].values"),
                format!(
                    "should {}, since operator is {operator:?}",
                    if takes_values {
                        "have at least one value"
                    } else {
                        "be left out"
                    }
                ),
            ));
        }
        requirements.push(core::Requirement {
            key: label_key(key, &format!("{field}.matchExpressions[{index}].key"))?,
            operator: match operator {
                LabelOperator::In => SelectorOperator::In(texts()),
                LabelOperator::NotIn => SelectorOperator::NotIn(texts()),
                LabelOperator::Exists => SelectorOperator::Exists,
                LabelOperator::DoesNotExist => SelectorOperator::DoesNotExist,
            },
        });
    }
    Ok(Selector(requirements))
}

/// A key that no label can have would make a requirement that always or never holds.
fn label_key(key: &str, field: &str) -> Result<Box<str>, InvalidPolicy> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_./".contains(&b);
    if key.is_empty() || key.len() > 317 || !key.bytes().all(allowed) {
        return Err(invalid(
            field,
            "should be a label's key, such as app or example.com/team",
        ));
    }
    Ok(key.into())
}

fn subject(subject: &Subject, field: &str) -> Result<core::Subject, InvalidPolicy> {
    Ok(core::Subject {
        service_accounts: globs(
            &subject.service_accounts,
            &format!("{field}.serviceAccounts"),
            "a service account",
            b".-*",
        )?,
        pod_selector: match &subject.pod_selector {
            None => None,
            Some(labels) => Some(selector(labels, &format!("{field}.podSelector"))?),
        },
    })
}

fn roles(roles: &Roles) -> Result<core::Roles, InvalidPolicy> {
    let parsed = core::Roles {
        allowed: parse_all(&roles.allowed, "spec.roles.allowed")?,
        default: parse_optional(roles.default.as_deref(), "spec.roles.default")?,
    };
    match &parsed.default {
        None if parsed.allowed.is_empty() => Err(invalid(
            "spec.roles",
            "should have allowed, default or both: without them the policy grants nothing",
        )),
        Some(default)
            if !parsed.allowed.is_empty() && !parsed.allowed.iter().any(|pattern| pattern.matches(default)) =>
        {
            Err(invalid(
                "spec.roles.default",
                "should be one of the roles in roles.allowed: add it there, or a pattern that covers it",
            ))
        }
        _ => Ok(parsed),
    }
}

fn audiences(audiences: &Audiences) -> Result<core::Audiences, InvalidPolicy> {
    let parsed = core::Audiences {
        allowed: parse_all(&audiences.allowed, "spec.audiences.allowed")?,
        default: parse_optional(audiences.default.as_deref(), "spec.audiences.default")?,
    };
    match &parsed.default {
        Some(default) if !parsed.allowed.is_empty() && !parsed.allowed.contains(default) => Err(invalid(
            "spec.audiences.default",
            "should be one of audiences.allowed: add it there",
        )),
        _ => Ok(parsed),
    }
}

fn token(token: &Token) -> Result<core::TokenSettings, InvalidPolicy> {
    if token.algorithm.is_some() && token.source != Source::Issuer {
        return Err(invalid(
            "spec.token.algorithm",
            "should be left out unless token.source is Issuer: other sources choose their algorithm themselves",
        ));
    }
    if token.source == Source::Spiffe && token.expiration_seconds != Token::default().expiration_seconds {
        return Err(invalid(
            "spec.token.expirationSeconds",
            "should be left out with token.source SPIFFE: the SPIFFE provider decides how long its tokens are valid",
        ));
    }
    Ok(core::TokenSettings {
        source: match token.source {
            Source::ServiceAccount => core::TokenSource::ServiceAccount,
            Source::Spiffe => core::TokenSource::Spiffe,
            Source::Issuer => core::TokenSource::Issuer,
        },
        expiration: core::TokenExpiration::from_seconds(token.expiration_seconds)
            .map_err(|error| invalid("spec.token.expirationSeconds", error))?,
        spiffe: spiffe(&token.spiffe, token.source)?,
        algorithm: match token.algorithm {
            None | Some(Algorithm::RS256) => core::Algorithm::RS256,
            Some(Algorithm::ES256) => core::Algorithm::ES256,
            Some(Algorithm::ES384) => core::Algorithm::ES384,
        },
    })
}

fn spiffe(spiffe: &Spiffe, source: Source) -> Result<core::Spiffe, InvalidPolicy> {
    if *spiffe != Spiffe::default() && source != Source::Spiffe {
        return Err(invalid(
            "spec.token.spiffe",
            "should be left out unless token.source is SPIFFE",
        ));
    }
    let parsed = core::Spiffe {
        id: parse_optional(spiffe.spiffe_id.as_deref(), "spec.token.spiffe.spiffeId")?,
        hint: parse_optional(spiffe.hint.as_deref(), "spec.token.spiffe.hint")?,
        trust_domain: parse_optional(spiffe.trust_domain.as_deref(), "spec.token.spiffe.trustDomain")?,
        x509_svid: spiffe.x509_svid,
        jwt_bundle: spiffe.jwt_bundle,
    };
    match (&parsed.id, &parsed.trust_domain) {
        (Some(id), Some(trust_domain)) if id.trust_domain() != trust_domain.as_str() => Err(invalid(
            "spec.token.spiffe.trustDomain",
            format!(
                "should be the trust domain of token.spiffe.spiffeId, {}, or be left out",
                id.trust_domain()
            ),
        )),
        _ => Ok(parsed),
    }
}

fn claims(claims: &Claims, source: Source) -> Result<core::Claims, InvalidPolicy> {
    if *claims != Claims::default() && source != Source::Issuer {
        return Err(invalid(
            "spec.claims",
            "should be left out unless token.source is Issuer: only tokenscope's own issuer can sign claims",
        ));
    }
    for (index, key) in claims.transitive_tag_keys.iter().enumerate() {
        if !claims.principal_tags.contains_key(key) {
            return Err(invalid(
                format!("spec.claims.transitiveTagKeys[{index}]"),
                format!("{key:?} should be a key of claims.principalTags, written in the same way"),
            ));
        }
    }
    Ok(core::Claims {
        principal_tags: principal_tags(&claims.principal_tags)?,
        transitive_tag_keys: claims
            .transitive_tag_keys
            .iter()
            .map(|key| key.as_str().into())
            .collect(),
        source_identity: match &claims.source_identity {
            None => None,
            Some(text) => Some(sts_name(text, "spec.claims.sourceIdentity")?),
        },
    })
}

/// Tagging rules of the IAM user guide and of the API reference (Tag).
fn principal_tags(tags: &BTreeMap<String, String>) -> Result<BTreeMap<Box<str>, Template>, InvalidPolicy> {
    const FIELD: &str = "spec.claims.principalTags";
    const MOST: usize = 50;
    if tags.len() > MOST {
        return Err(invalid(
            FIELD,
            format!("should have at most {MOST} tags, not {}", tags.len()),
        ));
    }
    let mut parsed = BTreeMap::new();
    let mut keys = BTreeSet::new();
    for (key, value) in tags {
        let field = format!("{FIELD}[{key}]");
        if key.is_empty() || key.chars().count() > 128 || !key.chars().all(allowed_in_tag) {
            return Err(invalid(
                field,
                "its key should have 1 to 128 letters, digits, spaces and _.:/=+-@, as AWS demands",
            ));
        }
        if !keys.insert(key.to_lowercase()) {
            return Err(invalid(
                field,
                "its key should differ from the others by more than upper and lower case: to AWS they are one tag",
            ));
        }
        let template: Template = parse(value, &field)?;
        let literal = template.render(&Placeholder).unwrap_or_default();
        if !literal.chars().all(allowed_in_tag) {
            return Err(invalid(
                field,
                "should have only letters, digits, spaces and _.:/=+-@ besides variables, as AWS demands",
            ));
        }
        if template.literal().is_some_and(|text| text.chars().count() > 256) {
            return Err(invalid(field, "should have at most 256 characters, as AWS demands"));
        }
        if starts_with_aws(key) || starts_with_aws(value) {
            return Err(invalid(
                field,
                "neither key nor value should start with aws:, which AWS keeps to itself",
            ));
        }
        parsed.insert(key.as_str().into(), template);
    }
    Ok(parsed)
}

/// Roughly `[\p{L}\p{Z}\p{N}_.:/=+\-@]`.
fn allowed_in_tag(c: char) -> bool {
    c.is_alphabetic() || c.is_numeric() || (c.is_whitespace() && !c.is_control()) || "_.:/=+-@".contains(c)
}

fn starts_with_aws(text: &str) -> bool {
    text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("aws:"))
}

fn aws(aws: &Aws) -> Result<core::AwsSettings, InvalidPolicy> {
    const SESSION_NAME: &str = "spec.aws.roleSessionName";
    let role_session_name = match &aws.role_session_name {
        None => None,
        Some(text) => Some(sts_name(text, SESSION_NAME)?),
    };
    if let Some(template) = &role_session_name
        && template.only_variable() != Some(&Variable::PodName)
        && template
            .variables()
            .any(|variable| matches!(variable, Variable::PodName | Variable::PodUid))
    {
        return Err(invalid(
            SESSION_NAME,
            "should be ${pod.name} alone, or a template without ${pod.name} and ${pod.uid}: these have no value yet when the pod is admitted",
        ));
    }
    Ok(core::AwsSettings {
        region: parse_optional(aws.region.as_deref(), "spec.aws.region")?,
        sts_regional_endpoints: aws.sts_regional_endpoints,
        role_session_name,
    })
}

/// A template of what STS takes as a session name or source identity: `[\w+=,.@-]{2,64}` (AssumeRoleWithWebIdentity).
fn sts_name(text: &str, field: &str) -> Result<Template, InvalidPolicy> {
    let template: Template = parse(text, field)?;
    let rendered = template.render(&Placeholder).unwrap_or_default();
    if !rendered
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_+=,.@-".contains(&b))
    {
        return Err(invalid(
            field,
            "should have only letters, digits and _+=,.@- besides variables, as AWS STS demands",
        ));
    }
    if template.literal().is_some_and(|text| !(2..=64).contains(&text.len())) {
        return Err(invalid(field, "should have 2 to 64 characters, as AWS STS demands"));
    }
    Ok(template)
}

/// Stands for any value, where only the text around the variables is looked at.
struct Placeholder;

impl Variables for Placeholder {
    fn value(&self, _: &Variable) -> Option<Cow<'_, str>> {
        Some("x".into())
    }
}

fn containers(containers: &Containers) -> Result<core::ContainerFilter, InvalidPolicy> {
    Ok(core::ContainerFilter {
        include: globs(&containers.include, "spec.containers.include", "a container", b"-*")?,
        exclude: globs(&containers.exclude, "spec.containers.exclude", "a container", b"-*")?,
    })
}

/// Names with `*`. Anything else that a name can't have is refused: IAM would take a `?` for a wildcard.
fn globs(texts: &[String], field: &str, of: &str, marks: &[u8]) -> Result<Vec<Glob>, InvalidPolicy> {
    texts
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || marks.contains(&b);
            if text.is_empty() || text.len() > 253 || !text.bytes().all(allowed) {
                return Err(invalid(
                    format!("{field}[{index}]"),
                    format!("should be the name of {of}, in which * stands for any characters"),
                ));
            }
            Ok(Glob::new(text))
        })
        .collect()
}

fn moment(text: &str) -> Result<Timestamp, InvalidPolicy> {
    text.parse().map_err(|_| {
        invalid(
            "spec.expiresAt",
            "should be a moment with a time zone as in RFC 3339, such as 2027-01-01T00:00:00Z",
        )
    })
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

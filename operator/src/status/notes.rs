//! What people should know of a policy, whatever its condition Ready says: sentences at the end of that condition's message.

use crate::index::PolicyFacts;
use std::collections::BTreeSet;
use tokenscope_core::{
    MOST_SESSION_NAME, OnExpiry, Policy, Region, RoleArn, RolePattern, TokenSource, least_session_name,
    partition_of_region, text::and_more,
};

/// The sentences, without their full stops.
pub(super) fn notes(facts: &PolicyFacts<'_>) -> impl Iterator<Item = String> {
    [
        tags(facts),
        context(facts),
        eviction(facts),
        session_name(facts),
        region(facts),
        labels(facts),
    ]
    .into_iter()
    .flatten()
}

/// What every role has to allow that tokens with session tags reach.
fn tags(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok().filter(|_| facts.has_source)?;
    let has_tags = policy.token.source == TokenSource::Issuer && !policy.claims.principal_tags.is_empty();
    has_tags.then(|| {
        "The tokens carry session tags, so AWS refuses every role with them whose trust policy does not allow sts:TagSession, also those that are reached by sts:AssumeRole with transitive tags".into()
    })
}

/// What has to be registered before the context claims reach a role, and that AWS itself has not judged it.
fn context(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok().filter(|_| facts.has_source)?;
    let has_context = policy.token.source == TokenSource::Issuer && !policy.claims.context.is_empty();
    has_context.then(|| {
        "The context claims reach roles only once the document of ConfigMap tokenscope-issuer-context, in tokenscope's own namespace, is registered with the IAM OIDC provider. Not yet seen by AWS: only tokenscope's own stand-in for AWS has judged it".into()
    })
}

/// That no pod gets the session name, where that is known beforehand.
fn session_name(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok()?;
    let least = least_session_name(policy).filter(|least| *least > MOST_SESSION_NAME)?;
    Some(format!(
        "spec.aws.roleSessionName has {least} characters or more, and STS takes at most {MOST_SESSION_NAME}, so pods get none: shorten it"
    ))
}

/// That `onExpiry: Evict` has no effect, where that is so.
fn eviction(facts: &PolicyFacts<'_>) -> Option<String> {
    let asks = facts.policy.is_ok_and(|policy| policy.on_expiry == OnExpiry::Evict);
    (asks && !facts.evicts_expired).then(|| {
        "spec.onExpiry: Evict has no effect, since the operator may not evict pods of expired policies: set the chart's value operator.evictExpired to true".into()
    })
}

/// That roles are of another partition than the region, whose STS knows none of them.
fn region(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok()?;
    let roles = partitions(policy);
    let region = policy.aws.region.as_ref().or(facts.default_region).map(Region::as_str);
    // Without a region SDKs ask sts.amazonaws.com.
    let of_region = region.map_or(Some("aws"), partition_of_region)?;
    let others: Vec<&str> = roles.into_iter().filter(|partition| *partition != of_region).collect();
    let (first, all) = (others.first()?, others.join(" and "));
    Some(match region {
        None => format!(
            "The policy has roles of partition {all} and no region, so SDKs ask sts.amazonaws.com, which does not know them: set spec.aws.region to a region of {first}"
        ),
        Some(region) => {
            let whose = match policy.aws.region {
                Some(_) => "spec.aws.region",
                None => "The installation's default region",
            };
            format!(
                "{whose} {region} is of partition {of_region}, whose STS knows no role of partition {all}, and the policy has such roles: set spec.aws.region to a region of {first}, or give those roles a policy of their own"
            )
        }
    })
}

/// The partitions of a policy's roles.
fn partitions(policy: &Policy) -> BTreeSet<&str> {
    let allowed = policy.roles.allowed.iter().map(RolePattern::partition);
    let default = policy.roles.default.as_ref().map(RoleArn::partition);
    allowed.chain(default).collect()
}

/// Labels of namespaces that have no effect.
fn labels(facts: &PolicyFacts<'_>) -> Option<String> {
    let labels = &facts.labels;
    let shown: Vec<String> = labels
        .shown
        .iter()
        .map(|(namespace, warnings)| format!("Namespace {namespace}: {}", warnings.join("; ")))
        .collect();
    let more = match labels.more {
        0 => String::new(),
        more => format!(", {} namespaces with such labels", and_more(more)),
    };
    (!shown.is_empty()).then(|| shown.join(". ") + &more)
}

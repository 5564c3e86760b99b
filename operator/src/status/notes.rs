//! Notes for people about a policy, whatever its condition Ready says: sentences at the end of that condition's message.

use std::collections::BTreeSet;

use tokenscope_core::delivery::Delivery;
use tokenscope_core::text::and_more;
use tokenscope_core::{
    MOST_SESSION_NAME, OnExpiry, Policy, Region, RoleArn, RolePattern, TokenSource, is_misspelt_region,
    least_session_name, least_session_name_of_chains, partition_of_region,
};

use crate::index::PolicyFacts;

/// The sentences, without their full stops.
pub(super) fn notes(facts: &PolicyFacts<'_>) -> impl Iterator<Item = String> {
    [
        tags(facts),
        source_identity(facts),
        context(facts),
        eviction(facts),
        session_name(facts),
        region(facts),
        profile_region(facts),
        labels(facts),
    ]
    .into_iter()
    .flatten()
}

/// A note for tokens with session tags: every role that they reach has to allow them.
fn tags(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok().filter(|_| facts.has_source)?;
    let has_tags = policy.token.source == TokenSource::Issuer && !policy.claims.principal_tags.is_empty();
    has_tags.then(|| {
        "The tokens carry session tags, so AWS refuses every role with them whose trust policy does not allow sts:TagSession, also those that are reached by sts:AssumeRole with transitive tags".into()
    })
}

/// A note for tokens with a source identity, which every role that they reach has to allow, and which AWS itself has not judged.
fn source_identity(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok().filter(|_| facts.has_source)?;
    let has_one = policy.token.source == TokenSource::Issuer && policy.claims.source_identity.is_some();
    has_one.then(|| {
        "The tokens carry a source identity, so AWS refuses every role with them whose trust policy does not allow sts:SetSourceIdentity, also those that are reached by sts:AssumeRole. Not yet seen by AWS: only tokenscope's own stand-in for AWS has judged it".into()
    })
}

/// A note for context claims: what has to be registered before they reach a role, and that AWS itself has not judged it.
fn context(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok().filter(|_| facts.has_source)?;
    let has_context = policy.token.source == TokenSource::Issuer && !policy.claims.context.is_empty();
    has_context.then(|| {
        "The context claims reach roles only once the document of ConfigMap tokenscope-issuer-context, in tokenscope's own namespace, is registered with the IAM OIDC provider. Not yet seen by AWS: only tokenscope's own stand-in for AWS has judged it".into()
    })
}

/// A note for a session name that no pod gets, where that is known beforehand.
fn session_name(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok()?;
    let own = least_session_name(policy).map(|least| ("spec.aws.roleSessionName", least));
    let of_chains = least_session_name_of_chains(policy);
    let of_chains = of_chains.map(|least| ("roleSessionName of a role chain", least));
    let mut names = own.into_iter().chain(of_chains);
    let (field, least) = names.find(|(_, least)| *least > MOST_SESSION_NAME)?;
    Some(format!(
        "{field} has {least} characters or more, and STS takes at most {MOST_SESSION_NAME}, so pods get none: shorten it"
    ))
}

/// A note for `onExpiry: Evict` where it has no effect.
fn eviction(facts: &PolicyFacts<'_>) -> Option<String> {
    let asks = facts.policy.is_ok_and(|policy| policy.on_expiry == OnExpiry::Evict);
    (asks && !facts.evicts_expired).then(|| {
        "spec.onExpiry: Evict has no effect, since the operator may not evict pods of expired policies: set the chart's value operator.evictExpired to true".into()
    })
}

/// A note for a region that is none of AWS though it looks like one, and for roles of another partition than the region's: the region's STS
/// knows none of them.
fn region(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok()?;
    let roles = partitions(policy);
    let of_sts: &[Region] = match &policy.delivery {
        Delivery::Endpoint(endpoint) => &endpoint.regions,
        Delivery::File | Delivery::Profile(_) => &[],
    };
    let mut regions = of_sts.iter().map(Region::as_str);
    if let Some(misspelt) = regions.find(|region| is_misspelt_region(region)) {
        return Some(format!(
            "spec.aws.sts.regions has {misspelt}, which is not written as AWS writes regions, such as eu-central-1, so the sidecar finds no STS there: correct it"
        ));
    }
    let of_sts = of_sts.first();
    let region = of_sts
        .or(policy.aws.region.as_ref())
        .or(facts.default_region)
        .map(Region::as_str);
    let whose = match (of_sts, &policy.aws.region) {
        (Some(_), _) => "spec.aws.sts.regions has a region that the sidecar asks first:",
        (None, Some(_)) => "spec.aws.region",
        (None, None) => "The installation's default region",
    };
    if let Some(misspelt) = region.filter(|region| is_misspelt_region(region)) {
        return Some(format!(
            "{whose} {misspelt} is not written as AWS writes regions, such as eu-central-1, so SDKs find no STS there: correct it"
        ));
    }
    // Without a region SDKs ask sts.amazonaws.com.
    let of_region = region.map_or(Some("aws"), partition_of_region)?;
    let others: Vec<&str> = roles.into_iter().filter(|partition| *partition != of_region).collect();
    let (first, all) = (others.first()?, others.join(" and "));
    Some(match region {
        None => format!(
            "The policy has roles of partition {all} and no region, so SDKs ask sts.amazonaws.com, which does not know them: set spec.aws.region to a region of {first}"
        ),
        Some(region) => format!(
            "{whose} {region} is of partition {of_region}, whose STS knows no role of partition {all}, and the policy has such roles: set spec.aws.region to a region of {first}, or give those roles a policy of their own"
        ),
    })
}

/// The same of the first profile whose own region is none of AWS, or of another partition than the role that it takes with the token.
fn profile_region(facts: &PolicyFacts<'_>) -> Option<String> {
    let policy = facts.policy.ok()?;
    policy.profiles().iter().find_map(|profile| {
        let (name, region) = (profile.name.as_str(), profile.region.as_str());
        if is_misspelt_region(region) {
            return Some(format!(
                "Profile {name} of spec.delivery.profile has region {region}, which is not written as AWS writes regions, such as eu-central-1, so SDKs find no STS there: correct it"
            ));
        }
        let of_region = partition_of_region(region)?;
        let roles = match &profile.role {
            Some(role) => BTreeSet::from([role.partition()]),
            None => partitions(policy),
        };
        let others: Vec<&str> = roles.into_iter().filter(|partition| *partition != of_region).collect();
        let (first, all) = (others.first()?, others.join(" and "));
        Some(format!(
            "Profile {name} of spec.delivery.profile has region {region} of partition {of_region}, whose STS knows no role of partition {all}, and the profile takes such a role: give it a region of {first}"
        ))
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

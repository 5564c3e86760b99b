//! The IAM trust policies in a policy's status.

use jiff::Timestamp;
use serde::Serialize;
use tokenscope_core::{
    ChainDocument, ChainedRole, MOST_TRUSTED_NAMESPACES, OutboundPermission, Policy, SubjectFormat, TokenSource,
    TrustContext, chained_roles, named_namespaces, names_selected_namespaces, never_grants, outbound_permissions,
    trust_policy,
};
use tokenscope_crds::v1alpha1::{
    MOST_TRUST_POLICIES, OutboundTokenPolicyStatus, RoleChainPolicyStatus, TrustPolicyStatus,
};

use super::issuer_url::issuer_url;
use crate::index::PolicyFacts;

/// The reason why no document can name the namespaces that a policy selects, if that is so.
fn without_namespaces(policy: &Policy, facts: &PolicyFacts<'_>) -> Option<String> {
    let (which, count) = match named_namespaces(policy) {
        _ if names_selected_namespaces(policy) && policy.namespace_selector.0.is_empty() => (
            "the policy has no spec.namespaceSelector, so it is about all",
            facts.namespace_count,
        ),
        _ if names_selected_namespaces(policy) => ("spec.namespaceSelector selects", facts.namespace_count),
        // Where subjects name the policy, they name these too, unless they are many.
        Some(named) if names_namespaces(policy) || named.is_empty() => ("spec.namespaceSelector names", named.len()),
        _ => return None,
    };
    let needs_names = policy.token.source == TokenSource::Issuer && names_namespaces(policy);
    let narrower = if needs_names {
        "set spec.token.subjectFormat to Policy, so that none has to be named, or "
    } else {
        ""
    };
    let why = match count {
        0 => format!("{which} no namespace now: {narrower}correct the selector, or label a namespace"),
        1..=MOST_TRUSTED_NAMESPACES => return None,
        count => format!(
            "{which} {count} namespaces, a trust policy has to name each of them, and at most {MOST_TRUSTED_NAMESPACES} have room: {narrower}have spec.namespaceSelector select fewer, in several policies if need be, or write a TokenScopePolicy in each namespace that needs the role"
        ),
    };
    Some(format!("No trust policies: {why}"))
}

/// True if the subjects of a cluster policy's tokens name namespaces.
fn names_namespaces(policy: &Policy) -> bool {
    let names_policy = policy.token.subject_format == SubjectFormat::Policy;
    policy.name.is_cluster()
        && match policy.token.source {
            TokenSource::ServiceAccount => true,
            TokenSource::Issuer => !names_policy,
            TokenSource::Spiffe => false,
        }
}

fn is_accepted(policy: &Policy, facts: &PolicyFacts<'_>) -> bool {
    let lacks_audience = policy.audiences.lacks_default(facts.default_audience);
    facts.exchange_audience.is_none()
        && facts.refused_outbound.is_none()
        && facts.outside.is_none()
        && facts.without_context_room.is_none()
        && facts.lacks_region.is_none()
        && !lacks_audience
}

/// The policy, if it may grant something.
fn granting<'a>(facts: &PolicyFacts<'a>, now: Timestamp) -> Option<&'a Policy> {
    let policy = facts
        .policy
        .ok()
        .filter(|policy| facts.has_source && is_accepted(policy, facts))?;
    never_grants(policy, now).is_none().then_some(policy)
}

/// The permission that each role needs to have AWS sign the policy's tokens for third parties.
pub(super) fn outbound_token_policies(facts: &PolicyFacts<'_>, now: Timestamp) -> Vec<OutboundTokenPolicyStatus> {
    let permissions = granting(facts, now).map(outbound_permissions).unwrap_or_default();
    let status = |permission: OutboundPermission| OutboundTokenPolicyStatus {
        role_arn: permission.role.to_string(),
        // Documents of strings always serialise.
        permission_policy: serde_json::to_string_pretty(&permission.permission_policy).unwrap_or_default(),
        notes: permission.notes,
    };
    let documents = permissions.into_iter().map(status).collect();
    within_room(documents, |document| &mut document.notes)
}

/// Far more than IAM takes, and what the schema of the status does.
const MOST_DOCUMENT_BYTES: usize = 65_536;

/// The most bytes of JSON of all documents of one kind. There are three kinds, and etcd takes objects of 1.5 MiB.
const MOST_BYTES_OF_KIND: usize = 384 * 1024;

/// The first of these documents for which a status has room.
fn with_room<T: Serialize>(documents: impl Iterator<Item = T>) -> Vec<T> {
    let mut left = MOST_BYTES_OF_KIND;
    let has_room = |document: &T| {
        // Texts always serialise.
        let bytes = serde_json::to_string(document).map_or(usize::MAX, |text| text.len());
        let has_room = bytes <= left;
        left -= if has_room { bytes } else { 0 };
        has_room
    };
    documents.take(MOST_TRUST_POLICIES).filter(has_room).collect()
}

/// As many documents as the status has room for. The last one says how many roles there are where that is fewer.
fn within_room<T: Serialize>(documents: Vec<T>, notes: impl FnOnce(&mut T) -> &mut Vec<String>) -> Vec<T> {
    let all = documents.len();
    let mut documents = with_room(documents.into_iter());
    let kept = documents.len();
    if all > kept
        && let Some(last) = documents.last_mut()
    {
        notes(last).push(format!(
            "documents are given for {kept} of {all} roles: the others need such documents too"
        ));
    }
    documents
}

/// The IAM policies that each role of the policy's chains needs.
pub(super) fn role_chain_policies(facts: &PolicyFacts<'_>, now: Timestamp) -> Vec<RoleChainPolicyStatus> {
    let Some(policy) = granting(facts, now) else {
        return Vec::new();
    };
    // Documents of strings always serialise.
    let text = |document: &ChainDocument| serde_json::to_string_pretty(document).unwrap_or_default();
    let fits = |text: &String| text.len() <= MOST_DOCUMENT_BYTES;
    let status = |chained: ChainedRole| {
        let mut notes = chained.notes;
        let permission_policy = chained.permission_policy.as_ref().map(text);
        let trust_policy = chained.trust_policy.as_ref().map(text);
        if !permission_policy.iter().chain(&trust_policy).all(fits) {
            notes.push(format!("a document of more than {MOST_DOCUMENT_BYTES} bytes is left out, which IAM would not take: use fewer roles, external ids and transitive tags, or write several policies"));
        }
        RoleChainPolicyStatus {
            role_arn: chained.role.to_string(),
            permission_policy: permission_policy.filter(fits),
            trust_policy: trust_policy.filter(fits),
            notes,
        }
    };
    let documents = chained_roles(policy).into_iter().map(status).collect();
    within_room(documents, |document| &mut document.notes)
}

/// One for each role that the policy names exactly, and what is to be said about those that are missing.
pub(super) fn trust_policies(facts: &PolicyFacts<'_>, now: Timestamp) -> (Vec<TrustPolicyStatus>, Option<String>) {
    let Ok(policy) = facts.policy else {
        return (Vec::new(), None);
    };
    // A policy that is not accepted grants nothing, so AWS has nothing to trust.
    if !is_accepted(policy, facts) || policy.subjects.is_empty() {
        return (Vec::new(), None);
    }
    if let Some(why) = never_grants(policy, now) {
        return (
            Vec::new(),
            Some(format!("No trust policies: the policy grants nothing, since {why}")),
        );
    }
    let roles = policy.first_roles();
    if roles.is_empty() {
        return (Vec::new(), undelivered(policy));
    }
    let issuer = match issuer_url(policy.token.source, policy.token.spiffe.id.is_some(), facts) {
        Ok(issuer) => issuer,
        Err(note) => return (Vec::new(), Some(note)),
    };
    if let Some(note) = without_namespaces(policy, facts) {
        return (Vec::new(), Some(note));
    }
    let context = TrustContext {
        issuer,
        default_audience: facts.default_audience,
        cluster: facts.cluster,
        namespaces: facts.namespaces.clone(),
        unserved: &facts.unserved,
        now,
    };
    let documents = roles.iter().take(MOST_TRUST_POLICIES).filter_map(|role| {
        let trust = trust_policy(policy, role, &context)?;
        // A document of strings always serialises.
        let document = serde_json::to_string_pretty(&trust.document).unwrap_or_default();
        (document.len() <= MOST_DOCUMENT_BYTES).then(|| TrustPolicyStatus {
            role_arn: role.to_string(),
            document,
            notes: trust.notes,
        })
    });
    let documents = with_room(documents);
    let fewer = (documents.len() < roles.len()).then(|| {
        format!(
            "Trust policies are given for {} of {} roles: at most {MOST_TRUST_POLICIES}, none that IAM could not take, and no more than the status has room for",
            documents.len(),
            roles.len()
        )
    });
    (documents, fewer.or_else(|| undelivered(policy)))
}

/// The note about a role that the policy names and grants to nobody.
fn undelivered(policy: &Policy) -> Option<String> {
    let role = policy.roles.exact().find(|role| !policy.delivers(role))?;
    Some(format!(
        "No trust policy for {role}: an AWS config file can't have it as it is written, so delivery.type Profile gives it to no pod. Choose another delivery.type, or a role whose path has letters, digits and _+=,.@- alone"
    ))
}

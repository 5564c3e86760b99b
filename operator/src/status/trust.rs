//! The IAM trust policies in a policy's status.

use crate::{index::PolicyFacts, issuer::Issuer};
use std::collections::BTreeSet;
use tokenscope_core::{
    MOST_TRUSTED_NAMESPACES, Policy, RoleArn, TokenSource, TrustContext, names_selected_namespaces, trust_policy,
};
use tokenscope_crds::v1alpha1::{MOST_TRUST_POLICIES, TrustPolicyStatus};

/// The issuer of a policy's tokens as AWS must know it, or what is to be said in place of trust policies.
fn issuer<'a>(policy: &Policy, facts: &PolicyFacts<'a>) -> Result<&'a str, Option<String>> {
    match policy.token.source {
        TokenSource::Issuer => own_issuer(policy, facts).map_err(Some),
        TokenSource::ServiceAccount => match facts.issuer {
            Issuer::Known(issuer) if issuer.starts_with("https://") => Ok(issuer),
            Issuer::Known(issuer) => Err(Some(format!(
                "No trust policies: the cluster's issuer {issuer:?} is no https URL, so AWS can't trust it"
            ))),
            Issuer::Unknown => Err(Some(
                "No trust policies yet: the API server has not said what its issuer is".into(),
            )),
        },
        TokenSource::Spiffe if policy.token.spiffe.id.is_none() => Err(Some(
            "No trust policies: spec.token.spiffe.spiffeId is left out, and to trust every SPIFFE ID of a trust domain would be too much".into(),
        )),
        TokenSource::Spiffe => match facts.spiffe_issuer {
            Some(issuer) if issuer.starts_with("https://") => Ok(issuer),
            Some(issuer) => Err(Some(format!(
                "No trust policies: the SPIFFE provider's issuer {issuer:?} is no https URL, so AWS can't trust it"
            ))),
            None => Err(Some(
                "No trust policies: the issuer of the SPIFFE provider's tokens is not known; the chart's value spiffe.issuer says it".into(),
            )),
        },
    }
}

/// The URL of tokenscope's own issuer.
fn own_issuer<'a>(policy: &Policy, facts: &PolicyFacts<'a>) -> Result<&'a str, String> {
    let issuer = facts.own_issuer.ok_or_else(|| {
        "No trust policies: the installation runs no issuer; the chart's values issuer.enabled and issuer.url say it".to_owned()
    })?;
    if !names_selected_namespaces(policy) {
        return Ok(issuer);
    }
    let why = match facts.namespaces.len() {
        0 => "spec.namespaceSelector selects no namespace now".to_owned(),
        more if more > MOST_TRUSTED_NAMESPACES => {
            format!(
                "spec.namespaceSelector selects more than {MOST_TRUSTED_NAMESPACES} namespaces, which a trust policy would have to name"
            )
        }
        _ => return Ok(issuer),
    };
    Err(format!(
        "No trust policies: {why}; with spec.token.subjectFormat: Policy none has to be named"
    ))
}

/// Far more than IAM takes, and what the schema of the status does.
const MOST_DOCUMENT_BYTES: usize = 65_536;

/// One for each role that the policy names exactly, and what is to be said about those that are missing.
pub(super) fn trust_policies(facts: &PolicyFacts<'_>) -> (Vec<TrustPolicyStatus>, Option<String>) {
    let Ok(policy) = facts.policy else {
        return (Vec::new(), None);
    };
    // A policy that is not accepted grants nothing, so AWS has nothing to trust.
    let accepted = facts.exchange_audience.is_none() && facts.outside.is_none() && facts.without_context_room.is_none();
    if policy.subjects.is_empty() || !accepted {
        return (Vec::new(), None);
    }
    let allowed = policy
        .roles
        .allowed
        .iter()
        .filter_map(tokenscope_core::RolePattern::exact);
    let roles: BTreeSet<RoleArn> = policy.roles.default.clone().into_iter().chain(allowed).collect();
    if roles.is_empty() {
        return (Vec::new(), None);
    }
    let issuer = match issuer(policy, facts) {
        Ok(issuer) => issuer,
        Err(note) => return (Vec::new(), note),
    };
    let context = TrustContext {
        issuer,
        default_audience: facts.default_audience,
        cluster: facts.cluster,
        namespaces: facts.namespaces.clone(),
    };
    let mut documents = Vec::new();
    for role in roles.iter().take(MOST_TRUST_POLICIES) {
        let Some(trust) = trust_policy(policy, role, &context) else {
            continue;
        };
        // A document of strings always serialises.
        let document = serde_json::to_string_pretty(&trust.document).unwrap_or_default();
        if document.len() <= MOST_DOCUMENT_BYTES {
            documents.push(TrustPolicyStatus {
                role_arn: role.to_string(),
                document,
                notes: trust.notes,
            });
        }
    }
    let note = (documents.len() < roles.len()).then(|| {
        format!(
            "Trust policies are given for {} of {} roles: at most {MOST_TRUST_POLICIES}, and none that IAM could not take",
            documents.len(),
            roles.len()
        )
    });
    (documents, note)
}

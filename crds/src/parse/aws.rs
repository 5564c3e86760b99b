//! The settings of the AWS SDK.

use super::delivery::role_chain;
use super::{Placeholder, invalid, parse, parse_optional};
use crate::messages;
use crate::v1alpha1::{AwsSpec, DeliveryTypeSpec, StsEndpointsSpec};
use tokenscope_core as core;
use tokenscope_core::{InvalidPolicy, Template, Variable};

pub(super) fn aws(aws: &AwsSpec, delivery: DeliveryTypeSpec) -> Result<core::AwsSettings, InvalidPolicy> {
    const ROLE_CHAIN: &str = "spec.aws.roleChain";
    if aws.sts_regional_endpoints.is_some() {
        return Err(invalid(
            "spec.aws.stsRegionalEndpoints",
            messages::STS_REGIONAL_ENDPOINTS,
        ));
    }
    if !aws.role_chain.is_empty() && delivery != DeliveryTypeSpec::Profile {
        return Err(invalid(ROLE_CHAIN, messages::CHAIN_WITHOUT_PROFILE));
    }
    Ok(core::AwsSettings {
        region: parse_optional(aws.region.as_deref(), "spec.aws.region")?,
        sts_regional_endpoints: aws
            .sts
            .endpoints
            .map(|endpoints| endpoints == StsEndpointsSpec::Regional),
        role_session_name: match &aws.role_session_name {
            None => None,
            Some(text) => Some(session_name(text, "spec.aws.roleSessionName")?),
        },
        role_chain: role_chain(&aws.role_chain, ROLE_CHAIN)?,
    })
}

/// A session's name: a template, in which the pod's name may stand alone only.
pub(super) fn session_name(text: &str, field: &str) -> Result<Template, InvalidPolicy> {
    let template = sts_name(text, field)?;
    let is_late = |variable: &Variable| matches!(variable, Variable::PodName | Variable::PodUid);
    if template.only_variable() != Some(&Variable::PodName) && template.variables().any(is_late) {
        return Err(invalid(field, messages::SESSION_NAME));
    }
    Ok(template)
}

/// A template of what STS takes as a session name or source identity: `[\w+=,.@-]{2,64}` (AssumeRoleWithWebIdentity).
pub(super) fn sts_name(text: &str, field: &str) -> Result<Template, InvalidPolicy> {
    let template: Template = parse(text, field)?;
    let rendered = template.render(&Placeholder).unwrap_or_default();
    if !rendered.chars().all(core::claims::is_session_name_character) {
        return Err(invalid(field, messages::STS_NAME));
    }
    if template
        .literal()
        .is_some_and(|text| !core::claims::fits_session_name(&text))
    {
        return Err(invalid(field, messages::STS_NAME_LENGTH));
    }
    Ok(template)
}

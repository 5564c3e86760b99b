//! The settings of the AWS SDK.

use super::{Placeholder, invalid, parse, parse_optional};
use crate::messages;
use crate::v1alpha1::{AwsSpec, StsEndpointsSpec};
use tokenscope_core as core;
use tokenscope_core::{InvalidPolicy, Template, Variable};

pub(super) fn aws(aws: &AwsSpec) -> Result<core::AwsSettings, InvalidPolicy> {
    const SESSION_NAME: &str = "spec.aws.roleSessionName";
    if aws.sts_regional_endpoints.is_some() {
        return Err(invalid(
            "spec.aws.stsRegionalEndpoints",
            messages::STS_REGIONAL_ENDPOINTS,
        ));
    }
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
        return Err(invalid(SESSION_NAME, messages::SESSION_NAME));
    }
    Ok(core::AwsSettings {
        region: parse_optional(aws.region.as_deref(), "spec.aws.region")?,
        sts_regional_endpoints: aws
            .sts
            .endpoints
            .map(|endpoints| endpoints == StsEndpointsSpec::Regional),
        role_session_name,
    })
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

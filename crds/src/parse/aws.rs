//! The settings of the AWS SDK.

use tokenscope_core as core;
use tokenscope_core::InvalidPolicy;

use super::delivery::role_chain;
use super::session_name::session_name;
use super::{invalid, parse_optional};
use crate::messages;
use crate::v1alpha1::{AwsSpec, DeliveryTypeSpec, StsEndpointsSpec};

pub(super) fn aws(aws: &AwsSpec, delivery: DeliveryTypeSpec) -> Result<core::AwsSettings, InvalidPolicy> {
    const ROLE_CHAIN: &str = "spec.aws.roleChain";
    if aws.sts_regional_endpoints.is_some() {
        return Err(invalid(
            "spec.aws.stsRegionalEndpoints",
            messages::STS_REGIONAL_ENDPOINTS,
        ));
    }
    if !aws.role_chain.is_empty() && delivery == DeliveryTypeSpec::File {
        return Err(invalid(ROLE_CHAIN, messages::CHAIN_WITHOUT_TYPE));
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

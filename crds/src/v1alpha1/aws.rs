//! What the AWS SDK in a container is told.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use super::default::is_default;
use super::delivery::{RoleHopSpec, role_chain};
use super::schema;
use crate::messages;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the AWS SDK is told, by environment variables or a config file. A variable that a container sets itself is left alone.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.stsRegionalEndpoints)")
    .message(messages::STS_REGIONAL_ENDPOINTS)
    .field_path(".stsRegionalEndpoints"))]
pub struct AwsSpec {
    /// AWS_REGION and AWS_DEFAULT_REGION, such as eu-central-1. Left out: the installation's default, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::region")]
    pub region: Option<String>,

    /// How the SDK reaches AWS STS.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sts: StsSpec,

    /// Renamed to sts.endpoints, and refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_regional_endpoints: Option<bool>,

    /// AWS_ROLE_SESSION_NAME, by which CloudTrail tells sessions apart: ${pod.name} alone, or a template without
    /// ${pod.name} and ${pod.uid}, such as "${namespace}.${serviceAccount}". Left out: the SDK makes one up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::role_session_name")]
    pub role_session_name: Option<String>,

    /// The roles that the SDK takes after the one that the pod gets, each with the credentials of the role before, so that it
    /// ends with those of the last. No pod can choose them. Only with delivery.type Profile. AWS gives such sessions at most an
    /// hour. At most 4 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "role_chain")]
    pub role_chain: Vec<RoleHopSpec>,
}

/// How the SDK reaches AWS STS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StsSpec {
    /// Which endpoints of STS are asked. Regional: that of the pod's own region, by AWS_STS_REGIONAL_ENDPOINTS=regional.
    /// Global: the variable is not set. Left out: the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<StsEndpointsSpec>,
}

/// Which endpoints of AWS STS are asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum StsEndpointsSpec {
    Regional,
    Global,
}

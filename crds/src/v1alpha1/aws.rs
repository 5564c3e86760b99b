//! The settings of the AWS SDK in a container.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::default::is_default;
use super::delivery::{RoleHopSpec, role_chain};
use super::{schema, size};
use crate::messages;

/// What the AWS SDK is told, by environment variables or a config file, or the sidecar that serves its credentials. A variable that a container sets itself is left alone.
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
    /// ends with those of the last. No pod can choose them. Only with delivery.type Profile or Endpoint. AWS gives such sessions
    /// at most an hour. At most 4 with 1024 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "role_chain")]
    pub role_chain: Vec<RoleHopSpec>,

    /// IAM policies that narrow what the sessions may do: a container may do only what both its role and these allow. With a role
    /// chain they narrow the session of its last role. Only with delivery.type Endpoint. At most 1536 characters together.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(schema_with = "session_policy")]
    pub session_policy: SessionPolicySpec,

    /// How many seconds a session lasts: 3600 to 43200, and no more than the role allows. Only with delivery.type Endpoint, and
    /// at most 3600 with a role chain, by AWS's rule. Left out: an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 3600, max = 43200))]
    pub session_duration_seconds: Option<i64>,
}

/// IAM policies that narrow what a session may do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionPolicySpec {
    /// An IAM policy document: a JSON object of at most 1024 printable ASCII characters, tabs and ends of lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::policy_document")]
    pub inline: Option<String>,

    /// ARNs of managed policies in the role's account or of AWS, such as arn:aws:iam::aws:policy/ReadOnlyAccess. At most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::policy_arns")]
    pub arns: Vec<String>,
}

/// The schema of the policies of a session, also of those that a boundary demands.
pub(super) fn session_policy(generator: &mut SchemaGenerator) -> Schema {
    let policies = SessionPolicySpec::json_schema(generator);
    schema::within(policies, size::SESSION_POLICY)
}

/// How the SDK reaches AWS STS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StsSpec {
    /// Which endpoints of STS are asked. Regional: that of the pod's own region, by AWS_STS_REGIONAL_ENDPOINTS=regional.
    /// Global: the variable is not set. Left out: the installation's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<StsEndpointsSpec>,

    /// The regions whose endpoints of STS the sidecar asks, in this order: the first that answers. Only with delivery.type
    /// Endpoint. Left out: aws.region. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::sts_regions")]
    pub regions: Vec<String>,
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

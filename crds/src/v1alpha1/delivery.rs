//! The way in which credentials reach the SDK in a container.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tokenscope_core::delivery::{MOST_HOPS, MOST_PROFILES};

use super::default::is_default;
use super::{schema, size};
use crate::messages;

/// How credentials reach the SDK in a container.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.profile) || self.type == 'Profile'")
    .message(messages::PROFILE_WITHOUT_TYPE)
    .field_path(".profile"),
    validation = Rule::new("!has(self.endpoint) || self.type == 'Endpoint'")
    .message(messages::ENDPOINT_WITHOUT_TYPE)
    .field_path(".endpoint"))]
pub struct DeliverySpec {
    /// File: a file with the token, and the variables of web identity, by which the SDK takes one role. Profile: an AWS config
    /// file, and AWS_CONFIG_FILE, by which it can take several roles, one after the other (aws.roleChain) or by name. The file
    /// is written when the pod starts, by an init container whose arguments have its text, which can't be changed on a running pod. Endpoint:
    /// a sidecar in the pod takes the roles and serves the credentials to the SDK, which sees no token. Profile and Endpoint need a region and Linux, and
    /// Endpoint a network of the pod's own (no hostNetwork).
    #[serde(default, rename = "type")]
    pub type_: DeliveryTypeSpec,

    /// What the config file has besides the default profile. Only with type Profile.
    #[serde(default, skip_serializing_if = "is_default")]
    pub profile: ProfileDeliverySpec,

    /// What the sidecar serves besides credentials. Only with type Endpoint.
    #[serde(default, skip_serializing_if = "is_default")]
    pub endpoint: EndpointDeliverySpec,
}

/// How credentials reach the SDK in a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum DeliveryTypeSpec {
    #[default]
    File,
    Profile,
    Endpoint,
}

/// What the sidecar serves besides credentials.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndpointDeliverySpec {
    /// True: the sidecar also gives the pod's own tokens by audience, as Aporeto's enforcer did: GET /token?audience=...&validity=10m with the
    /// header X-Aporeto-Metadata: secrets, on its port. It gives those of the role's audience and of outboundTokens with source Issuer: to every
    /// process of the pod, ephemeral containers included, if all its containers have the audience by such policies, otherwise to a container that
    /// sends its own authorization token. A container can then read the token that its role is taken with. Only with token.source Issuer.
    #[serde(default)]
    pub aporeto_tokens: bool,
}

/// What the config file has besides the default profile.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileDeliverySpec {
    /// Further profiles, each for another role or region. The program chooses one by AWS_PROFILE, or by its name in code. At
    /// most 8 with 2048 characters together.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "profiles")]
    pub profiles: Vec<NamedProfileSpec>,
}

/// A profile of the config file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamedProfileSpec {
    /// Its name: 1 to 64 letters, digits, - and _, not default and not beginning with tokenscope-.
    #[schemars(schema_with = "schema::profile_name")]
    pub name: String,

    /// Its region, such as eu-central-1. A profile takes none from another one.
    #[schemars(schema_with = "schema::region")]
    pub region: String,

    /// ARN of the role that it takes with the pod's token. Left out: the role that the container was granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::plain_role_arn")]
    pub role_arn: Option<String>,

    /// The roles that it takes after that one, each with the credentials of the role before. At most 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "role_chain")]
    pub role_chain: Vec<RoleHopSpec>,
}

/// A role that is taken by AssumeRole, with the credentials of the role before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleHopSpec {
    /// ARN of the role.
    #[schemars(schema_with = "schema::plain_role_arn")]
    pub role_arn: String,

    /// The external id that the role's trust policy demands. It is no secret: it stands in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::external_id")]
    pub external_id: Option<String>,

    /// The session's name, as aws.roleSessionName. Left out: aws.roleSessionName.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::role_session_name")]
    pub role_session_name: Option<String>,
}

/// The schema of roles that are taken one after the other.
pub(super) fn role_chain(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<RoleHopSpec>();
    let list =
        json_schema!({"type": "array", "x-kubernetes-list-type": "atomic", "maxItems": MOST_HOPS, "items": item});
    schema::within(list, size::ROLE_CHAIN)
}

/// The schema of the further profiles.
fn profiles(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<NamedProfileSpec>();
    let list = json_schema!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "maxItems": MOST_PROFILES,
        "items": item,
    });
    schema::within(list, size::PROFILES)
}

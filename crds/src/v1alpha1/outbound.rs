//! Tokens for third parties that come with a role.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use tokenscope_core::outbound::{MOST_AWS_SCOPE, MOST_OUTBOUND_TOKENS, MOST_OUTBOUND_VALUE, MOST_OUTBOUND_VARIABLES};
use tokenscope_core::{FORBIDDEN_NAMES, FORBIDDEN_PREFIXES, FORBIDDEN_SUFFIXES, MOST_VARIABLE_NAME};

use super::{schema, size};
use crate::messages;

/// A token for a third party.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.aws) || (has(self.source) && self.source == 'AWS')")
    .message(messages::OUTBOUND_WITHOUT_AWS)
    .field_path(".aws"),
    validation = Rule::new("!has(self.source) || self.source != 'AWS' || !has(self.expirationSeconds) || self.expirationSeconds <= 3600")
    .message(messages::OUTBOUND_AWS_LIFETIME)
    .field_path(".expirationSeconds"))]
pub struct OutboundTokenSpec {
    /// Its name: containers find it as /var/run/secrets/tokenscope.io/outbound/<name>/token. 1 to 63 lower case letters, digits
    /// and -.
    #[schemars(schema_with = "name")]
    pub name: String,

    /// Whom it is for, as that party expects it, such as https://api.anthropic.com. Not AWS STS, the API server, an audience that is
    /// locked or tokenscope's own issuer.
    #[schemars(schema_with = "audience")]
    pub audience: String,

    /// Who signs it. ServiceAccount, the default: the cluster, as a projected service account token. Issuer: tokenscope's own OIDC
    /// issuer, only with token.source Issuer; the token has no claims for AWS. AWS: the role's account, by
    /// sts:GetWebIdentityToken, only with delivery.type Endpoint. Not yet seen by AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<OutboundSourceSpec>,

    /// What AWS is asked for beside audience and lifetime. Only with source AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub aws: Option<OutboundAwsSpec>,

    /// The party whose SDK the containers use: they get the variables that it reads of the token's file. Anthropic:
    /// ANTHROPIC_IDENTITY_TOKEN_FILE. Azure: AZURE_FEDERATED_TOKEN_FILE. Databricks: DATABRICKS_OIDC_TOKEN_FILEPATH, and
    /// DATABRICKS_AUTH_TYPE=file-oidc. Snowflake, for its command line client: SNOWFLAKE_TOKEN_FILE_PATH, and
    /// SNOWFLAKE_AUTHENTICATOR=WORKLOAD_IDENTITY and SNOWFLAKE_WORKLOAD_IDENTITY_PROVIDER=OIDC. Vault, for the SDK of Bank-Vaults:
    /// VAULT_JWT_FILE.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<OutboundPresetSpec>,

    /// Further variables. One that a container sets itself is left alone. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "variables")]
    pub env: Vec<OutboundVariableSpec>,

    /// How long it is valid, in seconds: 600 (10 minutes) to 86400 (a day). Left out: an hour. With source AWS at most 3600, and never
    /// longer than the session of the role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 600, max = 86400))]
    pub expiration_seconds: Option<i64>,
}

/// Who signs a token for a third party.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum OutboundSourceSpec {
    #[default]
    ServiceAccount,
    Issuer,
    #[serde(rename = "AWS")]
    Aws,
}

/// What AWS is asked for.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.scope) || (has(self.subjectMode) && self.subjectMode == 'OriginIdentity')")
    .message(messages::OUTBOUND_SCOPE_WITHOUT_ORIGIN)
    .field_path(".scope"))]
pub struct OutboundAwsSpec {
    /// What the token is signed with. Left out: RS256, which every party knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<OutboundAlgorithmSpec>,

    /// Whose name is in sub. AWSIdentity, the default: the role. OriginIdentity: the subject of the pod's token; only where the
    /// context provider of the role's identity provider takes it from the token (trusted identity propagation).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_mode: Option<SubjectModeSpec>,

    /// OAuth scopes between single spaces: at most 256 characters. Only with subjectMode OriginIdentity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "scope")]
    pub scope: Option<String>,
}

/// What AWS signs with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum OutboundAlgorithmSpec {
    #[default]
    RS256,
    ES384,
}

/// Whose name is in the subject.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum SubjectModeSpec {
    #[default]
    #[serde(rename = "AWSIdentity")]
    AwsIdentity,
    OriginIdentity,
}

/// A party whose SDK reads variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum OutboundPresetSpec {
    Anthropic,
    Azure,
    Databricks,
    Snowflake,
    Vault,
}

/// A variable that tells of a token for a third party.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.value) != has(self.valueFrom)").message(messages::OUTBOUND_VALUE))]
pub struct OutboundVariableSpec {
    /// Its name: 1 to 64 upper case letters, digits and _. None that AWS SDKs, loaders, shells, language runtimes or proxies read.
    #[schemars(schema_with = "variable_name")]
    pub name: String,

    /// Its value: 1 to 256 printable ASCII characters without quotation marks and backslashes. It is no secret: it stands in the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "value")]
    pub value: Option<String>,

    /// Where its value comes from. File: it is the path of the token's file. Audience: it is the token's audience.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_from: Option<OutboundValueFromSpec>,
}

/// What of a token a variable says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum OutboundValueFromSpec {
    File,
    Audience,
}

/// The schema of a policy's tokens for third parties.
pub(super) fn tokens(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<OutboundTokenSpec>();
    let list = json_schema!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "maxItems": MOST_OUTBOUND_TOKENS, "items": item,
    });
    schema::within(list, size::OUTBOUND)
}

fn variables(generator: &mut SchemaGenerator) -> Schema {
    let item = generator.subschema_for::<OutboundVariableSpec>();
    json_schema!({
        "type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
        "maxItems": MOST_OUTBOUND_VARIABLES, "items": item,
    })
}

fn name(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        63,
        &[(
            r#"self.matches(r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")"#,
            messages::OUTBOUND_NAME,
        )],
    )
}

fn audience(_: &mut SchemaGenerator) -> Schema {
    let no_escapes = (r#"self.matches(r"^[^\x22\x5c]*$")"#, messages::OUTBOUND_AUDIENCE);
    schema::text(255, &[schema::AUDIENCE, no_escapes])
}

/// That none is there twice is left to the reader.
fn scope(_: &mut SchemaGenerator) -> Schema {
    let words = r#"self.matches(r"^[!#-+\--\[\]-~]+( [!#-+\--\[\]-~]+)*$")"#;
    schema::text(MOST_AWS_SCOPE as u32, &[(words, messages::OUTBOUND_SCOPE)])
}

fn value(_: &mut SchemaGenerator) -> Schema {
    schema::text(
        MOST_OUTBOUND_VALUE as u32,
        &[(r#"self.matches(r"^[ !#-\[\]-~]+$")"#, messages::OUTBOUND_LITERAL)],
    )
}

/// As [`tokenscope_core::VariableName`] knows names.
fn variable_name(_: &mut SchemaGenerator) -> Schema {
    let forbidden = format!(
        r#"!self.matches(r"^({})") && !self.matches(r"({})$") && !self.matches(r"^({})$")"#,
        FORBIDDEN_PREFIXES.join("|"),
        FORBIDDEN_SUFFIXES.join("|"),
        FORBIDDEN_NAMES.join("|"),
    );
    let checks = [
        (r#"self.matches(r"^[A-Z][A-Z0-9_]*$")"#, messages::OUTBOUND_VARIABLE),
        (&*forbidden, messages::OUTBOUND_VARIABLE_FORBIDDEN),
    ];
    schema::text(MOST_VARIABLE_NAME as u32, &checks)
}

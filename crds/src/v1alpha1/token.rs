//! The kind of token that a pod gets.

#![expect(
    unreachable_pub,
    reason = "what KubeSchema derives holds a copy of each struct inside a function"
)]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::default::is_default;
use super::schema;
use crate::messages;

/// The kind of token.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.algorithm) || self.source == 'Issuer'")
        .message(messages::ALGORITHM_WITHOUT_ISSUER)
        .field_path(".algorithm"),
    validation = Rule::new("self.source != 'SPIFFE' || self.expirationSeconds == 3600")
        .message(messages::LIFETIME_WITH_SPIFFE)
        .field_path(".expirationSeconds"),
    validation = Rule::new("!has(self.spiffe) || self.source == 'SPIFFE'")
        .message(messages::SPIFFE_WITHOUT_SOURCE)
        .field_path(".spiffe"),
    validation = Rule::new("!has(self.subjectFormat) || self.subjectFormat != 'Policy' || self.source == 'Issuer'")
        .message(messages::SUBJECT_WITHOUT_ISSUER)
        .field_path(".subjectFormat")
)]
pub struct TokenSpec {
    /// Who signs the token. ServiceAccount: the cluster, as a projected service account token. SPIFFE: a SPIFFE provider
    /// such as SPIRE, as a JWT-SVID. Issuer: tokenscope's own OIDC issuer.
    #[serde(default)]
    pub source: SourceSpec,

    /// Which subject the token has. ServiceAccount, the default: system:serviceaccount:<namespace>:<name>, as the cluster's own
    /// tokens. Policy: one that names the policy too, so that a role's trust policy can demand a certain policy. Policy only
    /// with source Issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject_format: Option<SubjectFormatSpec>,

    /// How long the token is valid, in seconds: 600 (10 minutes) to 86400 (a day). A pod may ask for less with the
    /// annotation tokenscope.io/token-expiration. With source SPIFFE it means nothing and can't be set: the SPIFFE provider
    /// decides, in SPIRE by the entry's jwtSVIDTTL or the server's default_jwt_svid_ttl.
    #[serde(default = "hour")]
    #[schemars(range(min = 600, max = 86400))]
    pub expiration_seconds: i64,

    /// What the token is signed with. Only with source Issuer, where RS256 is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<AlgorithmSpec>,

    /// Which of the pod's SPIFFE identities the token is of. Only with source SPIFFE. Left out: the one that the SPIFFE
    /// provider names first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub spiffe: SpiffeSpec,
}

impl Default for TokenSpec {
    fn default() -> Self {
        Self {
            source: SourceSpec::default(),
            subject_format: None,
            expiration_seconds: hour(),
            algorithm: None,
            spiffe: SpiffeSpec::default(),
        }
    }
}

fn hour() -> i64 {
    3600
}

/// Who signs the token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum SourceSpec {
    #[default]
    ServiceAccount,
    #[serde(rename = "SPIFFE")]
    Spiffe,
    Issuer,
}

/// What a token's subject names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(
    missing_docs,
    reason = "the field that has it describes them, which is what users read"
)]
pub enum SubjectFormatSpec {
    #[default]
    ServiceAccount,
    Policy,
}

/// One of a workload's SPIFFE identities, and what of it the pod gets beside the token.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.spiffeId) || !has(self.trustDomain) || self.spiffeId.startsWith('spiffe://' + self.trustDomain + '/')")
    .message(messages::TRUST_DOMAIN_OF_ID)
    .field_path(".trustDomain"))]
pub struct SpiffeSpec {
    /// The SPIFFE ID that the token must be of, such as spiffe://example.org/ns/shop/sa/orders. It becomes the token's
    /// subject, and with it the status has trust policies ready to paste. The SPIFFE provider must give it to the pods,
    /// or they don't start. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::spiffe_id")]
    pub spiffe_id: Option<String>,

    /// The hint of the identity, for pods that have several: in SPIRE the entry's hint. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hint")]
    pub hint: Option<String>,

    /// The trust domain of the identity, such as example.org, for pods that have identities of several. Left out: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::trust_domain")]
    pub trust_domain: Option<String>,

    /// Whether the identity's X.509-SVID is kept beside the token: svid.pem, svid_key.pem (readable only for the user that
    /// the sidecar runs as) and svid_bundle.pem.
    #[serde(default)]
    pub x509_svid: bool,

    /// Whether the keys of all trust domains that the pod may know are kept beside the token: jwt_bundle.json, an object
    /// from trust domain ID to JWKS, by which it can check the JWT-SVIDs of others.
    #[serde(default)]
    pub jwt_bundle: bool,
}

/// What the token is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[expect(missing_docs, reason = "the names of RFC 7518")]
pub enum AlgorithmSpec {
    RS256,
    ES256,
    ES384,
}

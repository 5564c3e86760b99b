//! The contract between the webhook and the sidecar about credentials that are served inside a pod (`delivery.type: Endpoint`).
//!
//! The sidecar speaks the protocol of container credentials of the AWS SDKs (AWS SDKs and Tools reference, "Container credential
//! provider"): `GET` of a path with the header `Authorization`, answered with a key, its secret, a session token and their end.
//! Each container has a path and an authorization token of its own.
//!
//! Where the policy says so it also gives tokens of tokenscope's issuer by audience, as the enforcer of Aporeto did: `GET
//! /token?audience=…&validity=…` with the header [`METADATA_HEADER`] (Aporeto, "Enforcer API"; trireme-lib, whose enforcer has the handler).

use serde::{Deserialize, Serialize};

use crate::delivery::ExternalId;
use crate::outbound::{AwsAlgorithm, AwsScope, AwsSubject, AwsToken, OutboundName};
use crate::{Audience, RoleArn};

/// The variable of the sidecar with a [`CredentialsEndpoint`] as JSON. The kubelet fills in `$(TOKENSCOPE_POD_NAME)`, so each other
/// `$` of the value stands there twice.
pub const ENDPOINT_VARIABLE: &str = "TOKENSCOPE_ENDPOINT";
/// The variable of an SDK with the URL of its credentials.
pub const FULL_URI_VARIABLE: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
/// The variable of an SDK with the path of its authorization token.
pub const AUTHORIZATION_FILE_VARIABLE: &str = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
/// The folder in a container where the volume with its authorization token is mounted, read-only.
pub const AUTHORIZATION_FOLDER: &str = "/var/run/secrets/tokenscope.io/authorization";
/// The folder in the sidecar below which the volumes of authorization tokens are mounted, each in a folder named for its container.
pub const AUTHORIZATION_FOLDERS: &str = "/tokenscope-authorization";
/// The file in there. The sidecar writes it anew at each start, and before it answers on its port.
pub const AUTHORIZATION_FILE: &str = "token";
/// The folder in the sidecar with the tokens that roles are taken with, which no other container mounts: a projected volume with
/// source ServiceAccount, otherwise a tmpfs that the sidecar writes. Each audience has a file of its own in it.
pub const SOURCE_TOKEN_FOLDER: &str = "/tokenscope-source-token";
/// The path of a container's credentials, followed by the container's name.
pub const CREDENTIALS_PATH: &str = "/v1/credentials/";
/// The path of tokens that are given by audience.
pub const TOKEN_PATH: &str = "/token";
/// The header without which no token is given: a page in a browser or a server that is made to ask for a URL doesn't send it.
pub const METADATA_HEADER: &str = "X-Aporeto-Metadata";
/// The header's value.
pub const METADATA_VALUE: &str = "secrets";
/// The port on the loopback addresses, where the installation says no other.
pub const DEFAULT_PORT: u16 = 9912;
/// The most bytes of the JSON. It stands in the pod's specification.
pub const MOST_ENDPOINT_BYTES: usize = 64 * 1024;

/// The settings of a sidecar that serves credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialsEndpoint {
    /// The port on 127.0.0.1 and ::1.
    pub port: u16,
    /// The containers that are answered.
    pub containers: Vec<ServedContainer>,
    /// True if they are all of the pod's, the sidecar itself apart. Then a token of an audience that each of them has is given to whoever asks
    /// in the pod. Only where tokens are given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_all_containers: bool,
    /// The URL of AWS STS instead of that of a region, for an endpoint inside a network (VPC) or for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_url: Option<Box<str>>,
    /// Authorities of STS's certificate as PEM, instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sts_authorities: Option<Box<str>>,
}

/// The credentials of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedContainer {
    /// The container's name: a DNS label, part of the path and of the authorization token's folder.
    pub name: Box<str>,
    /// The file in the sidecar with the web identity token: of the pod's ServiceAccount, or one that the sidecar itself keeps.
    pub token_file: Box<str>,
    /// The role that is taken with the token.
    pub role: ServedRole,
    /// The roles that are taken after it, each with the credentials of the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<ServedRole>,
    /// The seconds that the session of the first role lasts; `None`: an hour. 3,600 to 43,200, and an hour where a chain follows (AWS IAM
    /// User Guide, "Role chaining").
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_seconds: Option<u32>,
    /// The policies that narrow the session of the last role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_policy: Option<ServedSessionPolicy>,
    /// The regions of STS in the order in which they are asked: the first that answers. At least one.
    pub regions: Vec<Box<str>>,
    /// The tokens for third parties that the sidecar has AWS sign with the container's credentials.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outbound: Vec<ServedOutbound>,
    /// The tokens of tokenscope's issuer that it is given by audience.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenByAudience>,
}

/// A token for a third party that AWS signs for the role of a container (`sts:GetWebIdentityToken`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedOutbound {
    /// Its name, for messages.
    #[serde(with = "as_text")]
    pub name: OutboundName,
    /// Its file in the sidecar, an absolute path. The volume is one that the container mounts, and no other container does.
    pub file: Box<str>,
    /// Its audience.
    #[serde(with = "as_text")]
    pub audience: Audience,
    /// The seconds that it is to be valid, 600 to 3,600. It is never asked for longer than the session lasts.
    pub duration_seconds: u32,
    /// The algorithm of its signature.
    #[serde(with = "as_text")]
    pub algorithm: AwsAlgorithm,
    /// True if `sub` is the subject that the role's identity provider took from the pod's token, and not the role.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub origin_identity: bool,
    /// Its scopes, which only one with `origin_identity` has.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_optional_text")]
    pub scope: Option<AwsScope>,
}

impl ServedOutbound {
    /// What AWS is asked for; `None` if it has scopes, and AWS takes none for such a token.
    pub fn aws(&self) -> Option<AwsToken> {
        let subject = match (self.origin_identity, &self.scope) {
            (true, scope) => AwsSubject::Origin { scope: scope.clone() },
            (false, None) => AwsSubject::Role,
            (false, Some(_)) => return None,
        };
        Some(AwsToken {
            algorithm: self.algorithm,
            subject,
        })
    }
}

/// A token that is given by its audience.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenByAudience {
    /// The audience.
    #[serde(with = "as_text")]
    pub audience: Audience,
    /// The longest lifetime that may be asked for, in seconds.
    pub most_seconds: u32,
}

/// A role that the sidecar takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedRole {
    /// The role.
    #[serde(with = "as_text")]
    pub role: RoleArn,
    /// The external id, which only a role of a chain has.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "as_optional_text")]
    pub external_id: Option<ExternalId>,
    /// The session's name; `None`: the sidecar makes one of the pod's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_name: Option<Box<str>>,
}

/// The policies that narrow a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServedSessionPolicy {
    /// A policy document as JSON text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<Box<str>>,
    /// ARNs of managed policies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arns: Vec<Box<str>>,
}

impl CredentialsEndpoint {
    /// The URL of a container's credentials, as its SDK gets it.
    pub fn url_of(&self, container: &str) -> String {
        url_of(self.port, container)
    }
}

/// The URL of the credentials of a container of this name, where they are served on this port.
pub fn url_of(port: u16, container: &str) -> String {
    format!("http://127.0.0.1:{port}{CREDENTIALS_PATH}{container}")
}

/// A type that is written and read as its text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The same where it may be left out.
mod as_optional_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "this is the form in which serde hands over a field")]
    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => serializer.collect_str(value),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        super::as_text::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_webhook_writes_is_what_the_sidecar_reads() {
        let written = CredentialsEndpoint {
            port: DEFAULT_PORT,
            containers: vec![ServedContainer {
                name: "app".into(),
                token_file: "/tokenscope-source-token/token".into(),
                role: ServedRole {
                    role: "arn:aws:iam::111122223333:role/first".parse().unwrap(),
                    external_id: None,
                    session_name: Some("$(TOKENSCOPE_POD_NAME)".into()),
                },
                chain: vec![ServedRole {
                    role: "arn:aws:iam::444455556666:role/last".parse().unwrap(),
                    external_id: Some("7f3e1c".parse().unwrap()),
                    session_name: None,
                }],
                duration_seconds: None,
                session_policy: Some(ServedSessionPolicy {
                    inline: Some(r#"{"Version":"2012-10-17"}"#.into()),
                    arns: vec!["arn:aws:iam::aws:policy/ReadOnlyAccess".into()],
                }),
                regions: vec!["eu-central-1".into()],
                outbound: vec![ServedOutbound {
                    name: "claude".parse().unwrap(),
                    file: "/var/run/secrets/tokenscope.io/outbound-0123456789abcdef/token".into(),
                    audience: "https://api.anthropic.com".parse().unwrap(),
                    duration_seconds: 3600,
                    algorithm: AwsAlgorithm::ES384,
                    origin_identity: true,
                    scope: Some("read write".parse().unwrap()),
                }],
                tokens: vec![TokenByAudience {
                    audience: Audience::sts(),
                    most_seconds: 3600,
                }],
            }],
            has_all_containers: true,
            sts_url: None,
            sts_authorities: None,
        };
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<CredentialsEndpoint>(&text).unwrap(), written);
        assert_eq!(written.url_of("app"), "http://127.0.0.1:9912/v1/credentials/app");
    }

    #[test]
    fn a_field_that_is_unknown_and_a_role_that_is_none_are_refused() {
        for text in [
            r#"{"port":1,"containers":[],"more":1}"#,
            r#"{"port":1,"containers":[{"name":"a","tokenFile":"t","role":{"role":"no"},"regions":["r"]}]}"#,
        ] {
            assert!(serde_json::from_str::<CredentialsEndpoint>(text).is_err(), "{text}");
        }
    }
}

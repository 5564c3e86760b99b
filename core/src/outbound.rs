//! Tokens for third parties that a policy gives its pods beside the role: their audience, their signer, and the variables by
//! which the SDK of the other party finds them.

use std::fmt;
use std::str::FromStr;

use crate::arn::shortened;
use crate::kubernetes_names::is_label;
pub use crate::outbound_aws::{
    AwsAlgorithm, AwsScope, AwsSubject, AwsToken, InvalidAwsToken, LONGEST_AWS_TOKEN, MOST_AWS_SCOPE,
};
use crate::variable_name::VariableName;
use crate::{Audience, Signer, TokenExpiration, TokenSource, hash_of_texts};

/// The most tokens for third parties that a policy gives.
pub const MOST_OUTBOUND_TOKENS: usize = 8;
/// The most variables that one of them is told by, without those of its preset.
pub const MOST_OUTBOUND_VARIABLES: usize = 8;
/// The most characters of a variable's value that a policy writes out.
pub const MOST_OUTBOUND_VALUE: usize = 256;

/// The folder in which each token for a third party has a folder of its own.
pub const OUTBOUND_FOLDER: &str = "/var/run/secrets/tokenscope.io/outbound";

/// A token for a third party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundToken {
    /// The name of its folder.
    pub name: OutboundName,
    /// Its audience.
    pub audience: Audience,
    /// Its signer: the cluster, tokenscope's own issuer, or AWS.
    pub source: OutboundSource,
    /// Its lifetime.
    pub expiration: TokenExpiration,
    /// The variables that tell of it, those of its preset first. No two tokens of a policy have one of a name.
    pub variables: Vec<OutboundVariable>,
}

impl OutboundToken {
    /// The text that is the same for tokens that are the same but for their name: 16 hexadecimal digits.
    pub fn short_hash(&self) -> String {
        let seconds = self.expiration.seconds().to_string();
        let common = [self.source.signer().as_str(), self.audience.as_str(), &seconds];
        match self.aws() {
            None => hash_of_texts(common),
            Some(aws) => hash_of_texts(common.into_iter().chain(aws_texts(aws))),
        }
    }

    /// The request to AWS, if AWS signs the token.
    pub fn aws(&self) -> Option<&AwsToken> {
        match &self.source {
            OutboundSource::Aws(aws) => Some(aws),
            OutboundSource::ServiceAccount | OutboundSource::Issuer => None,
        }
    }

    /// The folder in which containers find it.
    pub fn folder(&self) -> String {
        [OUTBOUND_FOLDER, "/", self.name.as_str()].concat()
    }
}

/// The request to AWS, as a fixed number of texts.
pub(crate) fn aws_texts(aws: &AwsToken) -> [&str; 3] {
    [
        aws.algorithm.as_str(),
        aws.subject.as_str(),
        aws.subject.scope().map_or("", AwsScope::as_str),
    ]
}

/// The signer of a token for a third party.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum OutboundSource {
    /// The cluster.
    #[default]
    ServiceAccount,
    /// tokenscope's own issuer.
    Issuer,
    /// AWS, for the role whose credentials the pod's sidecar has (`delivery.type: Endpoint`).
    Aws(AwsToken),
}

impl OutboundSource {
    /// The same among all signers.
    pub fn signer(&self) -> Signer {
        match self {
            Self::ServiceAccount => TokenSource::ServiceAccount.into(),
            Self::Issuer => TokenSource::Issuer.into(),
            Self::Aws(_) => Signer::Aws,
        }
    }
}

/// A variable that tells of a token for a third party.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboundVariable {
    /// Its name.
    pub name: VariableName,
    /// Its value.
    pub value: OutboundValue,
}

/// The value of a variable that tells of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundValue {
    /// The path of the token's file.
    File,
    /// The token's audience.
    Audience,
    /// This text: 1 to 256 printable ASCII characters without quotation marks and backslashes.
    Text(Box<str>),
}

/// A party whose SDK finds the token by variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OutboundPreset {
    /// The Claude API (anthropic 2.14 for Python).
    Anthropic,
    /// Microsoft Entra workload identity (azure-identity 1.27 for Python).
    Azure,
    /// Databricks (databricks-sdk 0.162 for Python): authentication `file-oidc`.
    Databricks,
    /// Snowflake, by its command line client (snowflake-cli 3.30): authentication `WORKLOAD_IDENTITY` with provider `OIDC`. The
    /// connectors of languages read none of these variables.
    Snowflake,
    /// Vault, by the SDK of Bank-Vaults (vault-sdk 0.10 for Go), which `vault-env` and `secret-init` use. HashiCorp's own clients
    /// read no variable with a token's file.
    Vault,
}

impl OutboundPreset {
    /// The variables that the party's SDK reads of a token's file: the names, and values that `None` makes the file's path.
    pub fn variables(self) -> &'static [(&'static str, Option<&'static str>)] {
        match self {
            Self::Anthropic => &[("ANTHROPIC_IDENTITY_TOKEN_FILE", None)],
            Self::Azure => &[("AZURE_FEDERATED_TOKEN_FILE", None)],
            Self::Databricks => &[
                ("DATABRICKS_OIDC_TOKEN_FILEPATH", None),
                ("DATABRICKS_AUTH_TYPE", Some("file-oidc")),
            ],
            Self::Snowflake => &[
                ("SNOWFLAKE_TOKEN_FILE_PATH", None),
                ("SNOWFLAKE_AUTHENTICATOR", Some("WORKLOAD_IDENTITY")),
                ("SNOWFLAKE_WORKLOAD_IDENTITY_PROVIDER", Some("OIDC")),
            ],
            Self::Vault => &[("VAULT_JWT_FILE", None)],
        }
    }
}

/// The name of a token for a third party: 1 to 63 lower case letters, digits and `-`, with a letter or digit at both ends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OutboundName(Box<str>);

impl OutboundName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OutboundName {
    type Err = InvalidOutbound;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if !is_label(text) {
            return Err(InvalidOutbound::Name(shortened(text)));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for OutboundName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True if a text can be a variable's value that a policy writes out.
pub fn is_outbound_value(text: &str) -> bool {
    let is_allowed = |b: u8| (b' '..=b'~').contains(&b) && b != b'"' && b != b'\\';
    (1..=MOST_OUTBOUND_VALUE).contains(&text.len()) && text.bytes().all(is_allowed)
}

/// The reason why a text can't be part of a token for a third party.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOutbound {
    /// It is no name.
    #[error("{0:?} should have 1 to 63 lower case letters, digits and -, with a letter or digit at both ends")]
    Name(Box<str>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_folder() {
        for name in ["a", "claude", "a-1", "0", &"n".repeat(63)] {
            assert!(name.parse::<OutboundName>().is_ok(), "{name}");
        }
        for name in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "..",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"n".repeat(64),
        ] {
            assert!(name.parse::<OutboundName>().is_err(), "{name}");
        }
    }

    #[test]
    fn a_value_is_one_line_and_needs_no_escape() {
        for value in ["a", "https://x.example/?a=$(B)&c='d'", &"x".repeat(256)] {
            assert!(is_outbound_value(value), "{value}");
        }
        for value in ["", "a\nb", "a\0", "\"", "\\", "ä", "\u{7f}", &"x".repeat(257)] {
            assert!(!is_outbound_value(value), "{value:?}");
        }
    }

    #[test]
    fn every_variable_of_a_preset_is_a_name_that_a_policy_may_write() {
        for preset in [
            OutboundPreset::Anthropic,
            OutboundPreset::Azure,
            OutboundPreset::Databricks,
            OutboundPreset::Snowflake,
            OutboundPreset::Vault,
        ] {
            for (name, value) in preset.variables() {
                assert!(name.parse::<VariableName>().is_ok(), "{name}");
                assert!(value.is_none_or(is_outbound_value), "{name}");
            }
        }
    }

    /// Another text for the same token gives a copy of a running pod a volume more.
    #[test]
    fn the_hash_of_a_token_is_the_same_in_every_version_and_not_its_names() {
        let token = |name: &str, audience: &str, source| OutboundToken {
            name: name.parse().unwrap(),
            audience: audience.parse().unwrap(),
            source,
            expiration: TokenExpiration::HOUR,
            variables: Vec::new(),
        };
        let of_aws = |aws| token("claude", "https://api.anthropic.com", OutboundSource::Aws(aws));
        let claude = token("claude", "https://api.anthropic.com", OutboundSource::ServiceAccount);
        assert_eq!(claude.short_hash(), "d68d3ee834052b2d");
        let other = token("other", "https://api.anthropic.com", OutboundSource::ServiceAccount);
        assert_eq!(claude.short_hash(), other.short_hash());
        for another in [
            token("claude", "https://api.openai.com/v1", OutboundSource::ServiceAccount),
            token("claude", "https://api.anthropic.com", OutboundSource::Issuer),
            OutboundToken {
                expiration: TokenExpiration::DAY,
                ..claude.clone()
            },
            of_aws(AwsToken::default()),
        ] {
            assert_ne!(another.short_hash(), claude.short_hash());
        }
        let origin = |scope: Option<&str>| AwsToken {
            subject: AwsSubject::Origin {
                scope: scope.map(|scope| scope.parse().unwrap()),
            },
            ..AwsToken::default()
        };
        let es384 = AwsToken {
            algorithm: AwsAlgorithm::ES384,
            ..AwsToken::default()
        };
        let all = [AwsToken::default(), es384, origin(None), origin(Some("read"))];
        let all: std::collections::BTreeSet<String> = all.map(|aws| of_aws(aws).short_hash()).into();
        assert_eq!(all.len(), 4);
    }
}

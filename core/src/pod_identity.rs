//! The configuration of EKS Pod Identity, as the EKS webhook takes it: whose pods get their credentials from the agent on their node.
//!
//! Source: aws/amazon-eks-pod-identity-webhook, pkg/containercredentials. The file names service accounts and no roles: AWS knows
//! which role a service account has, by an association that EKS keeps (CreatePodIdentityAssociation).

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::arn::shortened;
use crate::kubernetes_names::{is_label, is_subdomain};
use crate::windows_path::path_on_windows;
use crate::{Audience, TokenExpiration};

/// The most bytes of the file: as many as a ConfigMap can have.
pub const MOST_CONFIG_BYTES: usize = 1 << 20;
/// The most service accounts in the file: twice as many as EKS lets a cluster have associations.
pub const MOST_IDENTITIES: usize = 10_000;
/// The label that the EKS webhook writes on the pods that it changes for this.
pub const POD_LABEL: &str = "eks.amazonaws.com/pod-identity";
/// Its value.
pub const POD_LABEL_VALUE: &str = "enabled";
/// The word for the role in records and in the audit log: AWS alone knows which one it is.
pub const ASSOCIATED_ROLE: &str = "EKS Pod Identity association";

/// The least and the most seconds of a token whose lifetime is a day: the EKS webhook draws a number between them, so that not all
/// tokens are renewed at the same time (pkg/constants.go). tokenscope writes the least, because one pod must get one answer in each
/// review, and takes over what that webhook drew.
const DAY_SECONDS: std::ops::RangeInclusive<i64> = 79_200..=86_400;

/// The service accounts whose pods get their credentials from the agent, and what such a pod gets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// The names of service accounts by namespace.
    identities: BTreeMap<Box<str>, BTreeSet<Box<str>>>,
    /// The agent's settings.
    pub agent: PodIdentityAgent,
}

/// The way to the agent on a pod's node: the EKS webhook's flags `--container-credentials-*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodIdentityAgent {
    /// The audience of the token that the agent takes.
    pub audience: Audience,
    /// The URL of the agent.
    pub full_uri: Box<str>,
    /// The folder in a container where the token's volume is mounted.
    pub mount_path: Box<str>,
    /// The name of that volume.
    pub volume: Box<str>,
    /// The path of the token in it.
    pub token_path: Box<str>,
}

impl Default for PodIdentityAgent {
    fn default() -> Self {
        Self {
            audience: Audience::eks_pod_identity(),
            full_uri: "http://169.254.170.23/v1/credentials".into(),
            mount_path: "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount".into(),
            volume: "eks-pod-identity-token".into(),
            token_path: "eks-pod-identity-token".into(),
        }
    }
}

impl PodIdentityAgent {
    /// The path of a container's token, as a program in the container writes it.
    pub fn token_file(&self, windows: bool) -> String {
        let file = [self.mount_path.trim_end_matches('/'), "/", &self.token_path].concat();
        if windows {
            return path_on_windows(&file);
        }
        file
    }
}

/// The seconds that are written for a token that may be valid for `granted`, where a volume of it has `present` already.
pub fn written_expiration(granted: TokenExpiration, present: Option<i64>) -> TokenExpiration {
    if granted != TokenExpiration::DAY {
        return granted;
    }
    let drawn = present.filter(|seconds| DAY_SECONDS.contains(seconds));
    TokenExpiration::from_seconds(drawn.unwrap_or(*DAY_SECONDS.start())).unwrap_or(granted)
}

/// The reason why a file is no configuration of EKS Pod Identity.
#[derive(Debug, thiserror::Error)]
pub enum InvalidPodIdentity {
    /// It is too large.
    #[error("it has more than {MOST_CONFIG_BYTES} bytes")]
    TooLarge,
    /// It is something else.
    #[error(
        "it is not a JSON object like {{\"identities\":[{{\"namespace\":\"shop\",\"serviceAccount\":\"orders\"}}]}}"
    )]
    Json(#[source] serde_json::Error),
    /// It has too many entries.
    #[error("identities has {found} entries: at most {MOST_IDENTITIES} are taken")]
    TooMany {
        /// The number of its entries.
        found: usize,
    },
    /// An entry names no namespace.
    #[error("identities[{index}].namespace is {text:?}, which is no name of a namespace")]
    Namespace {
        /// The entry, counted from 0.
        index: usize,
        /// The text there, shortened.
        text: Box<str>,
    },
    /// An entry names no service account.
    #[error("identities[{index}].serviceAccount is {text:?}, which is no name of a ServiceAccount")]
    ServiceAccount {
        /// The entry, counted from 0.
        index: usize,
        /// The text there, shortened.
        text: Box<str>,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AssociationsFile {
    #[serde(default)]
    identities: Option<Vec<Identity>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Identity {
    namespace: Box<str>,
    service_account: Box<str>,
}

impl PodIdentity {
    /// Reads the file. An empty one names nobody, as for the EKS webhook; a member that webhook does not know is an error here, because
    /// a misspelt one would take pods their credentials in silence.
    pub fn parse(text: &str, agent: PodIdentityAgent) -> Result<Self, InvalidPodIdentity> {
        let mut identities: BTreeMap<Box<str>, BTreeSet<Box<str>>> = BTreeMap::new();
        if text.len() > MOST_CONFIG_BYTES {
            return Err(InvalidPodIdentity::TooLarge);
        }
        if text.trim().is_empty() {
            return Ok(Self { identities, agent });
        }
        let file: AssociationsFile = serde_json::from_str(text).map_err(InvalidPodIdentity::Json)?;
        let listed = file.identities.unwrap_or_default();
        if listed.len() > MOST_IDENTITIES {
            return Err(InvalidPodIdentity::TooMany { found: listed.len() });
        }
        for (index, identity) in listed.into_iter().enumerate() {
            let Identity {
                namespace,
                service_account,
            } = identity;
            if !is_label(&namespace) {
                let text = shortened(&namespace);
                return Err(InvalidPodIdentity::Namespace { index, text });
            }
            if !is_subdomain(&service_account) {
                let text = shortened(&service_account);
                return Err(InvalidPodIdentity::ServiceAccount { index, text });
            }
            identities.entry(namespace).or_default().insert(service_account);
        }
        Ok(Self { identities, agent })
    }

    /// True if pods of this service account get their credentials from the agent.
    pub fn lists(&self, namespace: &str, service_account: &str) -> bool {
        let listed = self.identities.get(namespace);
        listed.is_some_and(|accounts| accounts.contains(service_account))
    }

    /// The service accounts of a namespace whose pods get their credentials from the agent, by name.
    pub fn listed_in(&self, namespace: &str) -> impl Iterator<Item = &str> {
        self.identities.get(namespace).into_iter().flatten().map(|name| &**name)
    }

    /// The number of service accounts.
    pub fn len(&self) -> usize {
        self.identities.values().map(BTreeSet::len).sum()
    }

    /// True if no service account is listed.
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PodIdentity, String> {
        PodIdentity::parse(text, PodIdentityAgent::default()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_file_of_the_eks_webhook_is_read() {
        let text = r#"{"identities": [{"namespace": "shop", "serviceAccount": "orders"}, {"namespace": "shop", "serviceAccount": "a.b"}]}"#;
        let config = parse(text).unwrap();
        assert_eq!(config.len(), 2);
        assert!(config.lists("shop", "orders") && config.lists("shop", "a.b"));
        assert!(!config.lists("shop", "carts") && !config.lists("orders", "shop"));
        for nobody in ["", " \n", "{}", r#"{"identities": []}"#, r#"{"identities": null}"#] {
            assert!(parse(nobody).unwrap().is_empty(), "{nobody:?}");
        }
    }

    #[test]
    fn a_file_that_is_wrong_says_where() {
        let identity = |namespace: &str, account: &str| {
            format!(
                r#"{{"identities": [{{"namespace": "a", "serviceAccount": "b"}}, {{"namespace": "{namespace}", "serviceAccount": "{account}"}}]}}"#
            )
        };
        for (text, part) in [
            ("bad json".to_owned(), "it is not a JSON object like"),
            (r#"{"identites": []}"#.to_owned(), "it is not a JSON object like"),
            (
                r#"[{"namespace": "a", "serviceAccount": "b"}]"#.to_owned(),
                "it is not a JSON object like",
            ),
            (
                r#"{"identities": [{"namespace": "a"}]}"#.to_owned(),
                "it is not a JSON object like",
            ),
            (identity("*", "b"), "identities[1].namespace is \"*\""),
            (identity("", "b"), "identities[1].namespace is \"\""),
            (identity("a", "B"), "identities[1].serviceAccount is \"B\""),
            (identity(&"a".repeat(64), "b"), "identities[1].namespace"),
            (identity("a", &"b".repeat(254)), "identities[1].serviceAccount"),
            (" ".repeat(MOST_CONFIG_BYTES + 1), "more than 1048576 bytes"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let entry = r#"{"namespace":"a","serviceAccount":"b"}"#;
        let many = |count: usize| format!(r#"{{"identities":[{}]}}"#, vec![entry; count].join(","));
        assert!(parse(&many(MOST_IDENTITIES)).is_ok());
        assert!(
            parse(&many(MOST_IDENTITIES + 1))
                .unwrap_err()
                .contains("identities has 10001 entries")
        );
    }

    #[test]
    fn a_token_of_a_day_has_a_lifetime_that_the_eks_webhook_could_have_drawn() {
        let written =
            |granted, present| written_expiration(TokenExpiration::from_seconds(granted).unwrap(), present).seconds();
        assert_eq!(written(86_400, None), 79_200);
        assert_eq!(written(86_400, Some(82_345)), 82_345);
        assert_eq!(written(86_400, Some(86_400)), 86_400);
        assert_eq!(written(86_400, Some(86_401)), 79_200);
        assert_eq!(written(86_400, Some(3600)), 79_200);
        assert_eq!(written(10_000, None), 10_000);
        assert_eq!(written(10_000, Some(82_345)), 10_000);
    }

    #[test]
    fn the_token_of_a_windows_container_has_a_path_of_windows() {
        let agent = PodIdentityAgent::default();
        let file = "/var/run/secrets/pods.eks.amazonaws.com/serviceaccount/eks-pod-identity-token";
        assert_eq!(agent.token_file(false), file);
        assert_eq!(agent.token_file(true), format!("C:{}", file.replace('/', "\\")));
    }
}

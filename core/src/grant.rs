//! A container's grant, and the record of it that stays on the pod.

use crate::bounds::MOST_RECORD_BYTES;
use crate::config_file::ConfigFile;
use crate::{Audience, Pairs, PolicyName, Region, RoleArn, Spiffe, TokenClaims, TokenExpiration, TokenSource};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, sync::Arc};

/// The grant of one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: RoleArn,
    /// The token's audience.
    pub audience: Audience,
    /// The signer of the token.
    pub source: TokenSource,
    /// The token's lifetime; nothing of a SPIFFE provider's token, which has the lifetime that the provider gives it.
    pub expiration: TokenExpiration,
    /// The identity that the token is of, where a SPIFFE provider signs it.
    pub spiffe: Spiffe,
    /// The claims of the token, where our issuer signs it. It is no part of the fingerprint: the issuer reads the policy
    /// anew for each token.
    pub claims: Option<TokenClaims>,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    pub region: Option<Region>,
    /// True if `AWS_STS_REGIONAL_ENDPOINTS` is `regional`.
    pub sts_regional_endpoints: bool,
    /// True if `AWS_EC2_METADATA_DISABLED` is `true`.
    pub disables_instance_metadata: bool,
    /// `AWS_ROLE_SESSION_NAME`.
    pub session_name: Option<SessionName>,
    /// The config file that brings the credentials and says all the above to the SDK; `None` where variables do.
    pub config_file: Option<ConfigFile>,
    /// The policy that granted it; `None` where none is required and none selects the pod.
    pub policy: Option<PolicyName>,
}

/// A role session name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionName {
    /// The pod's name, which nobody knows before the API server generated it: the downward API fills it in.
    PodName,
    /// This text, which fits STS's `[\w+=,.@-]{2,64}`.
    Text(Box<str>),
}

/// A container and its grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerGrant {
    /// The container's index in the request.
    pub container: usize,
    /// Its grant. Containers that get the same for the same reason share both.
    pub grant: Arc<Grant>,
    /// The reason, in one sentence.
    pub reason: Arc<str>,
}

/// The record of the webhook's edits to a pod, as the annotation `tokenscope.io/grant` keeps it: compact JSON.
///
/// It tells a later review which edits are our own, and the operator what the pod runs with and what the decision read. It holds
/// no secret. On a pod without the mark of a review it proves nothing: whoever may create a pod can write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord<'a> {
    /// One for each distinct policy, role and set of variables.
    #[serde(borrow)]
    pub grants: Vec<RecordedGrant<'a>>,
    /// The [`Fingerprint`](crate::Fingerprint) of the decision, of the version that wrote it.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// True if the webhook added a sidecar.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sidecar: bool,
    /// The hash of the arguments of the init container that writes config files ([`crate::hash_of_texts`]), if the webhook added one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub config_writer: Option<Cow<'a, str>>,
    /// The pod's labels at admission. Labels of a running pod belong to whoever may patch it, so whatever decides later reads
    /// these. `None` in records of versions before 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Pairs<Cow<'a, str>>>,
    /// The pod's annotations at admission, as far as decisions read them; for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Pairs<Cow<'a, str>>>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it")]
fn is_false(value: &bool) -> bool {
    !value
}

/// Containers that got the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGrant<'a> {
    /// The policy's `Display`; absent where none was required.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Cow<'a, str>>,
    /// The role.
    #[serde(borrow)]
    pub role: Cow<'a, str>,
    /// The containers' names.
    #[serde(borrow)]
    pub containers: Vec<Cow<'a, str>>,
    /// The environment variables that the webhook added, in order.
    #[serde(borrow)]
    pub env: Vec<Cow<'a, str>>,
}

impl<'a> GrantRecord<'a> {
    /// Reads the annotation; anything that is not ours is nothing.
    pub fn read(annotation: &'a str) -> Option<Self> {
        if annotation.len() > MOST_RECORD_BYTES {
            return None;
        }
        serde_json::from_str(annotation).ok()
    }

    /// The containers and the role of each.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.grants
            .iter()
            .flat_map(|grant| grant.containers.iter().map(|container| (&**container, &*grant.role)))
    }
}

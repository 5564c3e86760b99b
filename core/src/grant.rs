//! A container's grant, and the record of it that stays on the pod.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bounds::{MOST_RECORD_BYTES, MOST_RECORDED_VARIABLES};
use crate::config_file::{ConfigFile, FileHop};
use crate::delivery::{SessionDuration, SessionPolicy};
use crate::outbound::{OutboundSource, OutboundToken};
use crate::{
    Audience, Pairs, PolicyName, Region, RoleArn, SessionName, Spiffe, TokenClaims, TokenExpiration, TokenSource,
};

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
    /// The sessions that the sidecar takes for the container, which then sees no token; `None` where its SDK takes the role itself.
    pub endpoint: Option<GrantedEndpoint>,
    /// The tokens for third parties that come with it.
    pub outbound: Arc<[OutboundToken]>,
    /// The policy that granted it; `None` where none is required and none selects the pod.
    pub policy: Option<PolicyName>,
}

/// The sessions that a sidecar takes for a container, beside what the [`Grant`] says of the first role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedEndpoint {
    /// The regions of STS in the order in which they are asked. At least one.
    pub regions: Vec<Region>,
    /// The roles that are taken after the first one, each with the credentials of the one before.
    pub chain: Vec<FileHop>,
    /// The length of the first session; `None`: an hour.
    pub duration: Option<SessionDuration>,
    /// The policies that narrow the session of the last role.
    pub policy: SessionPolicy,
    /// True if the sidecar gives the container's tokens too, by audience.
    pub gives_tokens: bool,
}

impl Grant {
    /// The tokens that a sidecar gives the container by audience, each with its longest lifetime: where the policy says so, that of its
    /// role and those for third parties, as far as tokenscope's own issuer signs them. The first is that of the role; no audience is there twice.
    pub fn given_tokens(&self) -> Vec<(&Audience, TokenExpiration)> {
        let mut given: Vec<(&Audience, TokenExpiration)> = Vec::new();
        let gives = self.endpoint.as_ref().is_some_and(|endpoint| endpoint.gives_tokens);
        if !gives || self.source != TokenSource::Issuer {
            return given;
        }
        given.push((&self.audience, self.expiration));
        let issued = self.outbound.iter();
        for token in issued.filter(|token| token.source == OutboundSource::Issuer) {
            match given.iter_mut().find(|(audience, _)| **audience == token.audience) {
                // The issuer gives the shortest, too.
                Some((_, expiration)) => *expiration = token.expiration.min(*expiration),
                None => given.push((&token.audience, token.expiration)),
            }
        }
        given
    }

    /// The audiences of its tokens that tokenscope's own issuer signs, and whether each is that of a third party.
    pub(crate) fn issued_audiences(&self) -> impl Iterator<Item = (&Audience, bool)> {
        let is_issued = self.source == TokenSource::Issuer;
        let own = is_issued.then_some((&self.audience, false));
        let outbound = self.outbound.iter();
        let outbound = outbound.filter(|token| token.source == OutboundSource::Issuer);
        own.into_iter().chain(outbound.map(|token| (&token.audience, true)))
    }
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
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sidecar: bool,
    /// The hash of the arguments of the init container that writes config files ([`crate::hash_of_texts`]), if the webhook added one.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub config_writer: Option<Cow<'a, str>>,
    /// The hash of what the sidecar is told to serve ([`crate::hash_of_texts`] of the value of
    /// [`ENDPOINT_VARIABLE`](crate::credentials_endpoint::ENDPOINT_VARIABLE)), if it serves something. `None` in records of versions that did
    /// not keep it, too.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<Cow<'a, str>>,
    /// The additions of the webhook for EKS Pod Identity.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub association: Option<RecordedAssociation<'a>>,
    /// The pod's labels at admission. Labels of a running pod belong to whoever may patch it, so whatever decides later reads
    /// these. `None` in records of versions before 0.2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Pairs<Cow<'a, str>>>,
    /// The pod's annotations at admission, as far as decisions read them; for the same reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotations: Option<Pairs<Cow<'a, str>>>,
    /// The annotations of the pod's service account at admission, as far as decisions read them
    /// ([`OF_SERVICE_ACCOUNTS`](crate::annotations::OF_SERVICE_ACCOUNTS)): whoever may patch the service account must not choose
    /// for pods that run already. `None` in records of versions that did not keep them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account_annotations: Option<Pairs<Cow<'a, str>>>,
}

/// The additions of the webhook to a pod whose role an association of EKS Pod Identity decides, beside variables and mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedAssociation<'a> {
    /// The name of the token's volume; `None` where the pod brought one of that name, which stays its own.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<Cow<'a, str>>,
}

/// Containers that got the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedGrant<'a> {
    /// The policy's `Display`; absent where none was required.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<Cow<'a, str>>,
    /// The role; [`ASSOCIATED_ROLE`](crate::pod_identity::ASSOCIATED_ROLE) where an association of EKS Pod Identity decides it.
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
        let record: Self = serde_json::from_str(annotation).ok()?;
        let is_possible = |grant: &RecordedGrant<'_>| grant.env.len() <= MOST_RECORDED_VARIABLES;
        record.grants.iter().all(is_possible).then_some(record)
    }

    /// The containers and the role of each.
    pub fn roles(&self) -> impl Iterator<Item = (&str, &str)> {
        self.grants
            .iter()
            .flat_map(|grant| grant.containers.iter().map(|container| (&**container, &*grant.role)))
    }
}

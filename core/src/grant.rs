//! What a container gets, and the record of it that stays on the pod.

use crate::bounds::MOST_RECORD_BYTES;
use crate::{
    Audience, Hint, Pairs, PolicyName, Region, RoleArn, Spiffe, SpiffeId, TokenClaims, TokenExpiration, TokenSource,
    TrustDomain,
};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// What one container gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The role.
    pub role: RoleArn,
    /// The token's audience.
    pub audience: Audience,
    /// Who signs the token.
    pub source: TokenSource,
    /// The token's lifetime; nothing of a SPIFFE provider's token, which has the lifetime that the provider gives it.
    pub expiration: TokenExpiration,
    /// Which identity the token is of, where a SPIFFE provider signs it.
    pub spiffe: Spiffe,
    /// What the token must say, where our issuer signs it. It is no part of the fingerprint: the issuer reads the policy anew
    /// for each token.
    pub claims: Option<TokenClaims>,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION`.
    pub region: Option<Region>,
    /// Whether `AWS_STS_REGIONAL_ENDPOINTS` is `regional`.
    pub sts_regional_endpoints: bool,
    /// Whether `AWS_EC2_METADATA_DISABLED` is `true`.
    pub disables_instance_metadata: bool,
    /// `AWS_ROLE_SESSION_NAME`.
    pub session_name: Option<SessionName>,
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
    /// What it gets.
    pub grant: Grant,
    /// Why: one sentence.
    pub reason: Box<str>,
}

/// What the webhook did to a pod, as the annotation `tokenscope.io/grant` keeps it: compact JSON.
///
/// It tells a later review which edits are our own, and the operator what the pod runs with and what the decision read. It holds
/// no secret. On a pod without the mark of a review it proves nothing: whoever may create a pod can write it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord<'a> {
    /// One for each distinct policy, role and set of variables.
    #[serde(borrow)]
    pub grants: Vec<RecordedGrant<'a>>,
    /// The [`fingerprint`] of the decision.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
    /// Whether the webhook added a sidecar.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sidecar: bool,
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
}

/// A short text that changes whenever a decision would change the pod: 16 hexadecimal digits.
///
/// It only tells one decision from another; it protects nothing.
pub fn fingerprint<'a>(service_account: &str, grants: impl IntoIterator<Item = (&'a str, &'a Grant)>) -> String {
    let mut hash = Hash::default();
    hash.write(service_account);
    for (container, grant) in grants {
        hash.write(container);
        hash.write(grant.role.as_str());
        hash.write(grant.audience.as_str());
        hash.write(grant.source.as_str());
        match grant.source {
            TokenSource::Spiffe => {
                let Spiffe {
                    id,
                    hint,
                    trust_domain,
                    x509_svid,
                    jwt_bundle,
                } = &grant.spiffe;
                hash.write(id.as_ref().map_or("", SpiffeId::as_str));
                hash.write(hint.as_ref().map_or("", Hint::as_str));
                hash.write(trust_domain.as_ref().map_or("", TrustDomain::as_str));
                hash.write(if *x509_svid { "X.509-SVID" } else { "" });
                hash.write(if *jwt_bundle { "JWT bundle" } else { "" });
            }
            TokenSource::ServiceAccount | TokenSource::Issuer => {
                hash.write(&grant.expiration.seconds().to_string());
            }
        }
        hash.write(grant.region.as_ref().map_or("", Region::as_str));
        hash.write(if grant.sts_regional_endpoints { "regional" } else { "" });
        hash.write(match &grant.session_name {
            None => "",
            Some(SessionName::PodName) => "${pod.name}",
            Some(SessionName::Text(text)) => text,
        });
    }
    hash.to_string()
}

impl Audience {
    /// What tells the volume of its token from others': 16 hexadecimal digits.
    pub fn short_hash(&self) -> String {
        let mut hash = Hash::default();
        hash.write(self.as_str());
        hash.to_string()
    }
}

/// After Fowler-Noll-Vo 1a, eight bytes at a time: the same on every machine and in every version, which the standard
/// library's hasher is not. 72 ns for one container, where the crate `fnv` takes 128 (docs/adr/0008).
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hash {
    fn write(&mut self, text: &str) {
        let (words, rest) = text.as_bytes().as_chunks();
        // The 0xff separates texts: it is in no UTF-8.
        let mut last = [0xff; 8];
        last[..rest.len()].copy_from_slice(rest);
        for word in words.iter().chain([&last]) {
            // A product says nothing downwards, so its upper bits come down.
            self.0 = (self.0.rotate_left(29) ^ u64::from_le_bytes(*word)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

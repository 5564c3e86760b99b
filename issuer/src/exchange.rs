//! One exchange: a verified caller, the record of its pod, the decision, the signature.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokenscope_core::{Algorithm, Audience, ClusterName, PolicyName, Settings};
use tokenscope_platform::freshness::Freshness;

use crate::buckets::Buckets;
use crate::claims::{self, InvalidLifetime, Issuance, MOST_TOKEN_BYTES};
use crate::cluster_index::ClusterIndex;
use crate::cluster_keys::KnownCluster;
use crate::decision::{ExchangeContext, NotGranted, token_grant};
use crate::issuer_url::IssuerUrl;
use crate::keys::{KeyError, SigningKey, algorithm_name};
use crate::oauth::{OAuthError, OAuthErrorCode};
use crate::signers::CurrentSigners;
use crate::subject_token::{Caller, InvalidSubjectToken, SubjectToken};

/// A pod's object may reach the watch a little after its token was made.
const WATCH_LAG: Duration = Duration::from_secs(60);
/// How long the API server itself takes a token of a pod that should be gone (kube-apiserver, validation of tokens bound to pods).
const AFTER_DELETION: Duration = Duration::from_secs(60);

/// What exchanges need.
pub struct Exchange {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// The longest lifetime of a token, in seconds.
    pub most_lifetime: u32,
    /// The installation's settings. Without an issuer in them nothing is granted.
    pub settings: Settings,
    /// What tells this cluster's subjects from those of others that have the same issuer.
    pub cluster_name: Option<ClusterName>,
    /// What the watches have told.
    pub index: Arc<ClusterIndex>,
    /// How old their last words are.
    pub freshness: Freshness,
    /// The keys that sign.
    pub signers: CurrentSigners,
    /// How often each pod may have a token.
    pub pods: Buckets,
    /// How often the pods of each namespace may together.
    pub namespaces: Buckets,
}

/// A token, and what the audit line says of it. No `Debug`: the token is a credential.
pub struct Issued {
    /// The token.
    pub token: String,
    /// Its lifetime in seconds.
    pub expires_in: i64,
    /// Its `jti`.
    pub id: String,
    /// Its subject.
    pub subject: Box<str>,
    /// The policy that grants it.
    pub policy: PolicyName,
}

/// A token that was decided on and has no signature yet. No `Debug`: with one it is a credential.
pub struct UnsignedToken {
    payload: String,
    signer: Arc<SigningKey>,
    algorithm: Algorithm,
    expires_in: i64,
    id: String,
    subject: Box<str>,
    policy: PolicyName,
}

/// Why there is no token. `Display` is the sentence that the caller reads.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The subject token proves nothing.
    #[error(transparent)]
    Subject(#[from] InvalidSubjectToken),
    /// The watches are silent.
    #[error("what is known of the cluster is out of date: try again later")]
    Stale,
    /// The pod has not been seen yet.
    #[error("pod {0}/{1} is not known yet: try again")]
    PodNotYet(Box<str>, Box<str>),
    /// The pod is not there, or has no record of a grant.
    #[error("there is no pod {0}/{1} with this UID that admission granted something")]
    NoPod(Box<str>, Box<str>),
    /// The pod is over.
    #[error("pod {0}/{1} has ended")]
    PodEnded(Box<str>, Box<str>),
    /// The namespace has more than is kept of one.
    #[error("{0}")]
    OverShare(String),
    /// The pod has had too many tokens.
    #[error("this pod has asked for too many tokens: try again later")]
    TooMany,
    /// The pods of its namespace have had too many.
    #[error("the pods of namespace {0} have asked for too many tokens: try again later")]
    TooManyOfNamespace(Box<str>),
    /// The decision.
    #[error(transparent)]
    NotGranted(#[from] NotGranted),
    /// The token would end too soon.
    #[error(transparent)]
    Lifetime(#[from] InvalidLifetime),
    /// Nothing signs with the algorithm that the policy wants.
    #[error("there is no key for {0} yet: try again later")]
    NoKey(&'static str),
    /// The token is longer than STS takes.
    #[error(
        "the token would have {0} bytes, and AWS takes {MOST_TOKEN_BYTES}: the policy should give fewer or shorter tags"
    )]
    TooLong(usize),
    /// A fault of ours.
    #[error("the token can't be signed")]
    Sign(#[source] KeyError),
}

impl ExchangeError {
    /// What the answer says.
    pub fn answer(&self) -> OAuthError {
        let code = match self {
            Self::Subject(_)
            | Self::NoPod(..)
            | Self::PodEnded(..)
            | Self::Lifetime(InvalidLifetime::SubjectEnds(_)) => OAuthErrorCode::InvalidGrant,
            Self::Stale
            | Self::PodNotYet(..)
            | Self::TooMany
            | Self::TooManyOfNamespace(_)
            | Self::NoKey(_)
            | Self::NotGranted(NotGranted::NoPolicyUid(_)) => OAuthErrorCode::TemporarilyUnavailable,
            Self::NotGranted(NotGranted::Audience { .. }) => OAuthErrorCode::InvalidTarget,
            Self::Lifetime(InvalidLifetime::Requested(_)) => OAuthErrorCode::InvalidRequest,
            Self::OverShare(_) | Self::NotGranted(_) | Self::TooLong(_) => OAuthErrorCode::UnauthorizedClient,
            Self::Sign(_) => OAuthErrorCode::ServerError,
        };
        OAuthError::new(code, self.to_string())
    }
}

impl Exchange {
    /// Checks the signature of a subject token.
    pub fn verify(subject: SubjectToken, cluster: &KnownCluster) -> Result<Caller, ExchangeError> {
        let key = subject.key(&cluster.keys)?;
        Ok(subject.verify(key)?)
    }

    /// Counts a verified caller in. What the pod itself may not does not count for its namespace.
    pub fn admit(&self, caller: &Caller, now: Instant) -> Result<(), ExchangeError> {
        if !self.pods.take(&caller.pod_uid, now) {
            return Err(ExchangeError::TooMany);
        }
        if !self.namespaces.take(&caller.namespace, now) {
            return Err(ExchangeError::TooManyOfNamespace(caller.namespace.clone()));
        }
        Ok(())
    }

    /// Decides about a token for `audience` for a verified caller, and says what is to be signed if a policy grants its pod one.
    pub fn decide(
        &self,
        caller: &Caller,
        audience: &Audience,
        expires_in: Option<u32>,
        now: Timestamp,
    ) -> Result<UnsignedToken, ExchangeError> {
        if self.freshness.is_stale() {
            return Err(ExchangeError::Stale);
        }
        let pod = self.pod(caller, now)?;
        let context = self.context(caller)?;
        let cluster_name = self.cluster_name.as_ref();
        let grant = token_grant(&pod, &context, audience, &self.settings, cluster_name, now)?;
        let seconds = now.as_second();
        let left = caller.expires_at.saturating_sub(seconds);
        let lifetime = claims::lifetime(grant.lifetime, expires_in, self.most_lifetime, left)?;
        let id = new_id().map_err(ExchangeError::Sign)?;
        let issuance = Issuance {
            issuer: &self.issuer,
            id: &id,
            issued_at: seconds,
            lifetime,
        };
        let signers = self.signers.load();
        let signer = signers
            .as_ref()
            .and_then(|signers| signers.shared_signer(grant.algorithm));
        let signer = signer.ok_or_else(|| ExchangeError::NoKey(algorithm_name(grant.algorithm)))?;
        Ok(UnsignedToken {
            payload: claims::payload(&grant, issuance),
            signer: signer.clone(),
            algorithm: grant.algorithm,
            expires_in: lifetime,
            id,
            subject: grant.subject,
            policy: grant.policy.name,
        })
    }

    /// The record of the caller's pod, while it is the same pod and not over.
    fn pod(&self, caller: &Caller, now: Timestamp) -> Result<Arc<crate::pods::AdmittedPod>, ExchangeError> {
        let names = || (caller.namespace.clone(), caller.pod.clone());
        let found = self.index.pod(&caller.namespace, &caller.pod);
        let found = found.filter(|pod| pod.uid == caller.pod_uid && pod.service_account == caller.service_account);
        let Some(pod) = found else {
            let (namespace, name) = names();
            let age = now.as_second().saturating_sub(caller.issued_at);
            return Err(if self.index.pods_exceed_share(&namespace) {
                ExchangeError::OverShare(format!("namespace {namespace} has more pods than are kept of one"))
            } else if age < WATCH_LAG.as_secs() as i64 || !self.index.knows_all_pods() {
                ExchangeError::PodNotYet(namespace, name)
            } else {
                ExchangeError::NoPod(namespace, name)
            });
        };
        let gone = pod
            .ends
            .is_some_and(|ends| now > ends.saturating_add(AFTER_DELETION).unwrap_or(ends));
        if pod.finished || gone {
            let (namespace, name) = names();
            return Err(ExchangeError::PodEnded(namespace, name));
        }
        Ok(pod)
    }

    fn context(&self, caller: &Caller) -> Result<ExchangeContext, ExchangeError> {
        // A namespace of which no watch has told yet has no pods either.
        let labels = self.index.labels(&caller.namespace).ok_or(ExchangeError::Stale)?;
        if !self.index.knows_all_service_accounts() {
            return Err(ExchangeError::Stale);
        }
        if let Some(exceeded) = self.index.share_exceeded(&caller.namespace, &labels) {
            return Err(ExchangeError::OverShare(exceeded.to_string()));
        }
        Ok(ExchangeContext {
            namespace: caller.namespace.clone(),
            pod_name: caller.pod.clone(),
            labels,
            annotations: self.index.annotations(&caller.namespace, &caller.service_account),
            policies: self.index.policies().ok_or(ExchangeError::Stale)?,
        })
    }
}

impl UnsignedToken {
    /// Whether to sign takes so long that no thread should do it that serves connections: a quarter of a millisecond with RSA, a third
    /// of that on P-384, and less than a tenth on P-256.
    pub fn is_slow(&self) -> bool {
        self.algorithm == Algorithm::RS256
    }

    /// Signs it.
    pub fn sign(self) -> Result<Issued, ExchangeError> {
        let token = self.signer.token(&self.payload).map_err(ExchangeError::Sign)?;
        if token.len() > MOST_TOKEN_BYTES {
            return Err(ExchangeError::TooLong(token.len()));
        }
        Ok(Issued {
            token,
            expires_in: self.expires_in,
            id: self.id,
            subject: self.subject,
            policy: self.policy,
        })
    }
}

/// 128 random bits.
fn new_id() -> Result<String, KeyError> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| KeyError::Crypto)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

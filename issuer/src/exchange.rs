//! One exchange: a verified caller, the record of its pod, the decision, the signature.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use tokenscope_core::{Algorithm, Audience, ClusterName, PolicyName, Settings};
use tokenscope_index::{Exceeded, KeptAnnotations};
use tokenscope_platform::freshness::Freshness;

use crate::buckets::Buckets;
use crate::claims::{self, Issuance, MOST_TOKEN_BYTES};
use crate::cluster_index::ClusterIndex;
use crate::cluster_keys::KnownCluster;
use crate::decision::{ExchangeContext, NotGranted, token_grant};
use crate::exchange_error::ExchangeError;
use crate::grant::TokenGrant;
use crate::issuer_url::IssuerUrl;
use crate::keys::{KeyError, SigningKey, algorithm_name};
use crate::pods::AdmittedPod;
use crate::signers::CurrentSigners;
use crate::subject_token::{Caller, SubjectToken};

/// A pod's object may reach the watch a little after its token was made.
const WATCH_LAG: Duration = Duration::from_secs(60);
/// The time that the API server itself takes a token of a pod that should be gone (kube-apiserver, validation of tokens bound to pods).
const AFTER_DELETION: Duration = Duration::from_secs(60);

/// The bytes of the policies about a pod, counted once for the pod and once for each of its containers, up to which a decision is made on
/// the thread that serves the connection. Patterns that are half stars cost about 23 nanoseconds a byte, so that is three milliseconds;
/// usual ones cost a tenth of it.
const MOST_BYTES_DECIDED_AT_ONCE: usize = 128 << 10;

/// The state that exchanges share.
pub struct Exchange {
    /// The issuer.
    pub issuer: IssuerUrl,
    /// The longest lifetime of a token, in seconds.
    pub most_lifetime: u32,
    /// The installation's settings. Without an issuer in them nothing is granted.
    pub settings: Settings,
    /// The cluster's name, by which its subjects differ from those of other clusters with the same issuer.
    pub cluster_name: Option<ClusterName>,
    /// The cluster as the watches have told of it.
    pub index: Arc<ClusterIndex>,
    /// The age of each watch's last word.
    pub freshness: Freshness,
    /// The keys that sign.
    pub signers: CurrentSigners,
    /// The algorithms that there is a key of, or will be one soon, beside those of the keys that were read. None where the keys come
    /// from a file.
    pub algorithms: Vec<Algorithm>,
    /// The tokens that each pod may have in a time.
    pub pods: Buckets,
    /// The tokens that all pods of a namespace may have in a time.
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

impl Exchange {
    /// Checks the signature of a subject token.
    pub fn verify(subject: SubjectToken, cluster: &KnownCluster) -> Result<Caller, ExchangeError> {
        let key = subject.key(&cluster.keys)?;
        Ok(subject.verify(key)?)
    }

    /// Counts a verified caller in. What the pod itself may not does not count for its namespace.
    pub fn admit(&self, caller: &Caller, now: Instant) -> Result<(), ExchangeError> {
        if self.pods.take(&caller.pod_uid, now).is_none() {
            return Err(ExchangeError::TooMany);
        }
        if self.namespaces.take(&caller.namespace, now).is_none() {
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
        let context = self.context(caller, &pod)?;
        let cluster_name = self.cluster_name.as_ref();
        let grant = token_grant(&pod, &context, audience, &self.settings, cluster_name, now)?;
        let signer = self.signer(&grant)?;
        let seconds = now.as_second();
        let left = caller.expires_at.saturating_sub(seconds);
        let lifetime = claims::lifetime(grant.lifetime, expires_in, self.most_lifetime, left);
        let lifetime = lifetime.map_err(|why| ExchangeError::Lifetime {
            policy: grant.policy.name.clone(),
            why,
        })?;
        let id = new_id().map_err(ExchangeError::Sign)?;
        let issuance = Issuance {
            issuer: &self.issuer,
            id: &id,
            issued_at: seconds,
            lifetime,
        };
        Ok(UnsignedToken {
            payload: claims::payload(&grant, issuance),
            signer,
            algorithm: grant.algorithm,
            expires_in: lifetime,
            id,
            subject: grant.subject,
            policy: grant.policy.name,
        })
    }

    /// True if to decide about a caller may take so long that no thread should do it that serves connections: each container may have a
    /// role of its own, and each role is compared with all patterns of the policies.
    pub fn is_slow_to_decide(&self, caller: &Caller) -> bool {
        let pod = self.index.pod(&caller.namespace, &caller.pod);
        let containers = pod.map_or(0, |pod| pod.facts().containers.len());
        let bytes = self.index.policy_bytes(&caller.namespace);
        bytes.saturating_mul(containers + 1) > MOST_BYTES_DECIDED_AT_ONCE
    }

    /// The record of the caller's pod, while it is the same pod and not over.
    fn pod(&self, caller: &Caller, now: Timestamp) -> Result<Arc<AdmittedPod>, ExchangeError> {
        let names = || (caller.namespace.clone(), caller.pod.clone());
        let found = self.index.pod(&caller.namespace, &caller.pod);
        let found = found.filter(|pod| pod.uid == caller.pod_uid && pod.service_account == caller.service_account);
        let Some(pod) = found else {
            let (namespace, name) = names();
            let age = now.as_second().saturating_sub(caller.issued_at);
            return Err(match self.index.pods_exceed(&namespace) {
                Some(Exceeded::Share(_)) => {
                    ExchangeError::OverShare(format!("namespace {namespace} has more pods than are kept of one"))
                }
                Some(Exceeded::Room(bytes)) => ExchangeError::NoRoom(namespace, name, bytes >> 20),
                None if age < WATCH_LAG.as_secs() as i64 || !self.index.knows_all_pods() => {
                    ExchangeError::PodNotYet(namespace, name)
                }
                None => ExchangeError::NoPod(namespace, name),
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

    /// The key that signs a token. An algorithm that the installation doesn't have is the policy's mistake, which no waiting cures.
    fn signer(&self, grant: &TokenGrant) -> Result<Arc<SigningKey>, ExchangeError> {
        let wanted = grant.algorithm;
        let not_yet = || ExchangeError::NoKey {
            policy: grant.policy.name.clone(),
            algorithm: algorithm_name(wanted),
        };
        let signers = self.signers.load();
        let signers = signers.as_ref().ok_or_else(not_yet)?;
        if let Some(signer) = signers.shared_signer(wanted) {
            return Ok(signer.clone());
        }
        let ring = signers.ring();
        let is_offered = |algorithm: &Algorithm| {
            self.algorithms.contains(algorithm)
                || ring.signing(*algorithm).is_some()
                || ring.published(*algorithm).is_some()
        };
        if is_offered(&wanted) {
            return Err(not_yet());
        }
        let offered = Algorithm::ALL.into_iter().filter(is_offered);
        let names: Vec<_> = offered.map(algorithm_name).collect();
        Err(ExchangeError::NotGranted(NotGranted::Algorithm {
            policy: grant.policy.name.clone(),
            algorithm: algorithm_name(wanted),
            signed_with: names.join(", "),
        }))
    }

    /// The facts around the pod. The labels of its namespace are the present ones, since a policy selects namespaces by those.
    fn context(&self, caller: &Caller, pod: &AdmittedPod) -> Result<ExchangeContext, ExchangeError> {
        // A namespace of which no watch has told yet has no pods either.
        let labels = self.index.labels(&caller.namespace).ok_or(ExchangeError::Stale)?;
        if let Some(exceeded) = self.index.share_exceeded(&caller.namespace, &labels) {
            return Err(if exceeded.is_of_all_namespaces() {
                ExchangeError::NoRoomForPolicies(exceeded)
            } else {
                ExchangeError::OverShare(exceeded.to_string())
            });
        }
        let annotations = match pod.service_account_annotations() {
            Some(_) => None,
            None => self.present_annotations(caller)?,
        };
        Ok(ExchangeContext {
            namespace: caller.namespace.clone(),
            pod_name: caller.pod.clone(),
            labels,
            annotations,
            policies: self.index.policies().ok_or(ExchangeError::Stale)?,
        })
    }

    /// The annotations that the caller's service account has now: for pods whose record does not have those of admission.
    fn present_annotations(&self, caller: &Caller) -> Result<Option<KeptAnnotations>, ExchangeError> {
        if !self.index.knows_all_service_accounts() {
            return Err(ExchangeError::Stale);
        }
        let (namespace, name) = (&caller.namespace, &caller.service_account);
        let kept = self.index.annotations(namespace, name);
        if kept.is_none() && self.index.leaves_service_accounts_out(namespace) {
            return Err(ExchangeError::ServiceAccountNotKept(namespace.clone(), name.clone()));
        }
        Ok(kept)
    }
}

impl UnsignedToken {
    /// True if a signature takes too long for a thread that serves connections: a quarter of a millisecond with RSA, a third
    /// of that on P-384, and less than a tenth on P-256.
    pub fn is_slow(&self) -> bool {
        self.algorithm == Algorithm::RS256
    }

    /// The policy that grants it.
    pub fn policy(&self) -> &PolicyName {
        &self.policy
    }

    /// Signs it.
    pub fn sign(self) -> Result<Issued, ExchangeError> {
        let token = self.signer.token(&self.payload).map_err(ExchangeError::Sign)?;
        if token.len() > MOST_TOKEN_BYTES {
            return Err(ExchangeError::TooLong {
                policy: self.policy,
                bytes: token.len(),
            });
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

//! From the Secrets to the state of the certificates, and from a step to the Secrets as they should be.

use super::{
    plan::{
        Bundle, CertificateState, CertificateStep, Constraint, IssueReason, RotationSettings, ServingSecretState,
        ServingState, Trust,
    },
    x509::{IssuedPair, NotMade, SigningAuthority, create_authority, signed_by},
};
use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokenscope_platform::certificate::{Certificate, CertificatePair};

/// Annotation of either Secret: any new value asks for a new certificate.
pub(crate) const ROTATE: &str = "tokenscope.io/rotate";
/// Annotation of either Secret: the last value of [`ROTATE`] that was obeyed.
pub(crate) const ROTATED: &str = "tokenscope.io/rotated";
/// Annotation of the authority's Secret: any new value asks for a new authority and that no other be trusted from then on.
pub(crate) const DISTRUST: &str = "tokenscope.io/distrust";
/// Annotation of the authority's Secret: the last value of [`DISTRUST`] that was obeyed.
pub(crate) const DISTRUSTED: &str = "tokenscope.io/distrusted";
/// Annotation of the authority's Secret, during a rotation: since when the API servers have been known to trust it.
pub(crate) const TRUSTED_SINCE: &str = "tokenscope.io/trusted-since";

const BUNDLE: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// How many authorities a bundle has at most: a webhook configuration is sent to every API server whole.
const MOST_TRUSTED: usize = 4;

/// The names of the Secrets, and the hosts of the serving certificates.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The Secret of the certificate authority.
    pub(crate) authority_secret: String,
    /// Those of the serving certificates: the webhook's first.
    pub(crate) serving: Vec<ServingNames>,
}

/// One serving certificate.
#[derive(Clone, Debug)]
pub(crate) struct ServingNames {
    /// Its Secret.
    pub(crate) secret: String,
    /// The DNS names and IP addresses that it is for.
    pub(crate) hosts: Vec<String>,
}

impl Names {
    /// All that the authority may sign for.
    fn hosts(&self) -> Vec<String> {
        let all = self.serving.iter().flat_map(|names| names.hosts.iter().cloned());
        all.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// The Secrets as they are in the cluster. It has no `Debug`: keys are in it.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// The certificate authority.
    pub(crate) authority: Option<Secret>,
    /// The serving certificates, in the order of their names.
    pub(crate) serving: Vec<Option<Secret>>,
}

/// The trust bundles of a webhook configuration, one a webhook; `None` where there is no configuration.
pub(crate) type TrustBundles = Option<Vec<Vec<u8>>>;

/// A Secret to be created, or to be replaced if it carries a resource version.
pub(crate) enum Write {
    /// The authority's.
    Authority(Secret),
    /// That of the serving certificate of this place in the names.
    Serving(usize, Secret),
}

impl Secrets {
    /// The state of the certificates.
    pub(crate) fn state(&self, bundles: &TrustBundles, names: &Names, now: Timestamp) -> CertificateState {
        let authority = self.signing_authority(now);
        let (trusted, readable) = Certificate::all_in(data(self.authority.as_ref(), BUNDLE));
        let others = authority.as_ref().map_or(0, |authority| {
            trusted.iter().filter(|certificate| !authority.is(certificate)).count()
        });
        let has_authority = authority
            .as_ref()
            .is_ok_and(|authority| trusted.iter().any(|certificate| authority.is(certificate)));
        let sound = readable && has_authority && trusted.iter().all(|certificate| certificate.validity.covers(now));
        CertificateState {
            trust: match (bundles, &authority) {
                (None, _) => Trust::NoConfiguration,
                (Some(bundles), Ok(authority)) if trusted_by_all(authority, bundles) => Trust::Confirmed,
                _ => Trust::NotYet,
            },
            serving: (names.serving.iter().enumerate())
                .map(|(at, names)| ServingSecretState {
                    certificate: serving(self.served(at), authority.as_ref().ok(), &trusted, names, now),
                    requested: requested(self.served(at), ROTATE, ROTATED),
                    bundle_is_copied: data(self.authority.as_ref(), BUNDLE) == data(self.served(at), BUNDLE),
                })
                .collect(),
            constraint: authority
                .as_ref()
                .map_or(Constraint::Exact, |authority| authority.constraint(&names.hosts())),
            authority: authority.map(|authority| authority.validity()),
            authority_requested: requested(self.authority.as_ref(), ROTATE, ROTATED),
            distrust_requested: requested(self.authority.as_ref(), DISTRUST, DISTRUSTED),
            bundle: if sound {
                Bundle::Sound { others }
            } else {
                Bundle::Damaged
            },
            trusted_since: annotation(self.authority.as_ref(), TRUSTED_SINCE).and_then(|at| at.parse().ok()),
        }
    }

    /// The bundle that webhook clients are to trust: PEM. None as long as there is no authority that could sign.
    pub(crate) fn bundle(&self, now: Timestamp) -> Option<Vec<u8>> {
        let authority = self.signing_authority(now).ok()?;
        let (trusted, _) = Certificate::all_in(data(self.authority.as_ref(), BUNDLE));
        let is_in = trusted.iter().any(|certificate| authority.is(certificate));
        is_in.then(|| data(self.authority.as_ref(), BUNDLE).to_vec())
    }

    /// The times when the authority and the first of the serving certificates end, as far as they can be used.
    pub(crate) fn ends(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let authority = self.signing_authority(now).ok();
        let serving = self
            .serving
            .iter()
            .flat_map(|secret| read_serving(secret.as_ref(), now));
        (
            authority.map(|authority| authority.validity().not_after),
            serving.map(|serving| serving.validity.not_after).min(),
        )
    }

    /// The write that a step consists of; none for [`CertificateStep::Wait`].
    pub(crate) fn perform(
        &self,
        step: CertificateStep,
        bundles: &TrustBundles,
        names: &Names,
        settings: &RotationSettings,
        now: Timestamp,
    ) -> Result<Option<Write>, NotMade> {
        let mut authority = present(self.authority.as_ref(), &names.authority_secret);
        match step {
            CertificateStep::Wait(_) => return Ok(None),
            CertificateStep::CreateAuthority(reason) => {
                let pair = create_authority(&names.hosts(), settings.authority_validity(now))?;
                let known = match reason {
                    IssueReason::Distrusted => Vec::new(),
                    _ => self.known_authorities(bundles, now),
                };
                replace_authority(&mut authority, pair, &known);
            }
            CertificateStep::RepairBundle => {
                let own = String::from_utf8_lossy(data(self.authority.as_ref(), CERTIFICATE)).into_owned();
                let (known, _) = Certificate::all_in(data(self.authority.as_ref(), BUNDLE));
                set(&mut authority, BUNDLE, bundle(&own, &valid(known, now)));
            }
            CertificateStep::NoteTrust => {
                annotations(&mut authority).insert(TRUSTED_SINCE.into(), now.to_string());
            }
            CertificateStep::DropOthers => {
                let own = data(self.authority.as_ref(), CERTIFICATE).to_vec();
                set(&mut authority, BUNDLE, own);
                annotations(&mut authority).remove(TRUSTED_SINCE);
            }
            CertificateStep::SignServing(at, _) => return self.sign_serving(at, names, settings, now),
            CertificateStep::CopyBundle(at) => return Ok(self.copy_bundle(at, names)),
        }
        Ok(Some(Write::Authority(authority)))
    }

    /// A new serving certificate. `next_step` asks for it only where the authority can sign; if that ended since, there is no
    /// write, and the next round heals it.
    fn sign_serving(
        &self,
        at: usize,
        names: &Names,
        settings: &RotationSettings,
        now: Timestamp,
    ) -> Result<Option<Write>, NotMade> {
        let (Ok(signer), Some(names)) = (self.signing_authority(now), names.serving.get(at)) else {
            return Ok(None);
        };
        let pair = signer.sign(&names.hosts, settings.serving_validity(now, signer.validity()))?;
        let mut serving = present(self.served(at), &names.secret);
        set(&mut serving, CERTIFICATE, pair.certificate);
        set(&mut serving, KEY, pair.key);
        set(&mut serving, BUNDLE, data(self.authority.as_ref(), BUNDLE).to_vec());
        obey(&mut serving, ROTATE, ROTATED);
        Ok(Some(Write::Serving(at, serving)))
    }

    /// The authority's bundle beside a serving certificate.
    fn copy_bundle(&self, at: usize, names: &Names) -> Option<Write> {
        let mut serving = present(self.served(at), &names.serving.get(at)?.secret);
        set(&mut serving, BUNDLE, data(self.authority.as_ref(), BUNDLE).to_vec());
        Some(Write::Serving(at, serving))
    }

    fn signing_authority(&self, now: Timestamp) -> Result<SigningAuthority, IssueReason> {
        let secret = self.authority.as_ref();
        if data(secret, CERTIFICATE).is_empty() && data(secret, KEY).is_empty() {
            return Err(IssueReason::Missing);
        }
        SigningAuthority::read(data(secret, CERTIFICATE), data(secret, KEY), now)
    }

    fn served(&self, at: usize) -> Option<&Secret> {
        self.serving.get(at)?.as_ref()
    }

    /// Puts a Secret to its place.
    pub(crate) fn put_serving(&mut self, at: usize, secret: Option<Secret>) {
        if self.serving.len() <= at {
            self.serving.resize(at + 1, None);
        }
        if let Some(place) = self.serving.get_mut(at) {
            *place = secret;
        }
    }

    /// Whatever may have signed the serving certificate that webhooks show at the moment.
    fn known_authorities(&self, bundles: &TrustBundles, now: Timestamp) -> Vec<Certificate> {
        let own = [CERTIFICATE, BUNDLE].map(|key| data(self.authority.as_ref(), key));
        let served = self.serving.iter().map(|secret| data(secret.as_ref(), BUNDLE));
        let in_secrets = own.into_iter().chain(served);
        let in_configuration = bundles.iter().flatten().map(Vec::as_slice);
        let known = in_secrets
            .chain(in_configuration)
            .flat_map(|pem| Certificate::all_in(pem).0);
        valid(known.collect(), now)
    }
}

fn serving(
    secret: Option<&Secret>,
    authority: Option<&SigningAuthority>,
    trusted: &[Certificate],
    names: &ServingNames,
    now: Timestamp,
) -> Result<ServingState, IssueReason> {
    let serving = read_serving(secret, now)?;
    let by_authority = authority.is_some_and(|authority| authority.signed(&serving, now));
    if !by_authority && !trusted.iter().any(|other| signed_by(other, &serving, now)) {
        return Err(IssueReason::NotTrusted);
    }
    Ok(ServingState {
        validity: serving.validity,
        by_authority,
        names_fit: serving.names() == names.hosts.iter().cloned().collect::<BTreeSet<_>>(),
    })
}

fn trusted_by_all(authority: &SigningAuthority, bundles: &[Vec<u8>]) -> bool {
    bundles.iter().all(|bundle| {
        let (certificates, readable) = Certificate::all_in(bundle);
        readable && certificates.iter().any(|certificate| authority.is(certificate))
    })
}

fn read_serving(secret: Option<&Secret>, now: Timestamp) -> Result<Arc<Certificate>, IssueReason> {
    if data(secret, CERTIFICATE).is_empty() && data(secret, KEY).is_empty() {
        return Err(IssueReason::Missing);
    }
    let pair = CertificatePair::parse(data(secret, CERTIFICATE), data(secret, KEY), now)?;
    Ok(pair.certificate().clone())
}

fn valid(certificates: Vec<Certificate>, now: Timestamp) -> Vec<Certificate> {
    let mut valid: Vec<Certificate> = Vec::new();
    for certificate in certificates {
        if certificate.validity.covers(now) && !valid.contains(&certificate) {
            valid.push(certificate);
        }
    }
    valid
}

/// The authority first, then others.
fn bundle(authority: &str, others: &[Certificate]) -> String {
    let (own, _) = Certificate::all_in(authority.as_bytes());
    let mut pem = String::new();
    for certificate in own
        .iter()
        .chain(others.iter().filter(|other| !own.contains(other)))
        .take(MOST_TRUSTED)
    {
        pem.push_str(&certificate.pem());
    }
    pem
}

/// True if the annotation `wish` has a value that `done` doesn't repeat.
fn requested(secret: Option<&Secret>, wish: &str, done: &str) -> bool {
    let wanted = annotation(secret, wish).filter(|value| !value.is_empty());
    wanted.is_some() && wanted != annotation(secret, done)
}

/// Makes this pair the authority, beside those that are known.
fn replace_authority(authority: &mut Secret, pair: IssuedPair, known: &[Certificate]) {
    set(authority, BUNDLE, bundle(&pair.certificate, known));
    set(authority, CERTIFICATE, pair.certificate);
    set(authority, KEY, pair.key);
    annotations(authority).remove(TRUSTED_SINCE);
    obey(authority, ROTATE, ROTATED);
    obey(authority, DISTRUST, DISTRUSTED);
}

fn obey(secret: &mut Secret, wish: &str, done: &str) {
    let annotations = annotations(secret);
    if let Some(wanted) = annotations.get(wish).cloned() {
        annotations.insert(done.into(), wanted);
    }
}

fn present(secret: Option<&Secret>, name: &str) -> Secret {
    secret.cloned().unwrap_or_else(|| Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(BTreeMap::from([
                ("app.kubernetes.io/part-of".into(), "tokenscope".into()),
                ("app.kubernetes.io/managed-by".into(), "tokenscope-operator".into()),
            ])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".into()),
        ..Secret::default()
    })
}

fn data<'a>(secret: Option<&'a Secret>, key: &str) -> &'a [u8] {
    secret
        .and_then(|secret| secret.data.as_ref()?.get(key))
        .map_or(&[], |value| &value.0)
}

fn set(secret: &mut Secret, key: &str, value: impl Into<Vec<u8>>) {
    let data = secret.data.get_or_insert_default();
    data.insert(key.into(), ByteString(value.into()));
}

fn annotation<'a>(secret: Option<&'a Secret>, key: &str) -> Option<&'a str> {
    secret?.metadata.annotations.as_ref()?.get(key).map(String::as_str)
}

fn annotations(secret: &mut Secret) -> &mut BTreeMap<String, String> {
    secret.metadata.annotations.get_or_insert_default()
}

//! The two Secrets as a process knows them: what they say now, the distrusted certificates, and the authority that was there before.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokenscope_platform::certificate::Certificate;

use super::distrust::{DISTRUSTED_CERTIFICATES, DistrustList};
use super::names::{BUNDLE, CERTIFICATE, CROSS, KEY, Names, Trusting};
use super::plan::IssueReason;
use super::secret::{annotation, annotations, data, present};
use super::x509::{SigningAuthority, valid};
use crate::versions;

/// The time for which an authority is remembered that was deleted or replaced by a distrusted one. Whoever leads writes it again within
/// seconds; later, nobody knows what was done meanwhile.
const REMEMBERED: SignedDuration = SignedDuration::from_mins(10);

/// An authority's Secret as it was before. It has no `Debug`: a key is in it.
#[derive(Clone)]
pub(crate) struct FormerAuthority {
    secret: Secret,
    /// The time at which it was seen to be gone.
    gone: Timestamp,
}

impl FormerAuthority {
    fn is_recent(&self, now: Timestamp) -> bool {
        self.gone.duration_until(now).abs() <= REMEMBERED
    }
}

/// The two Secrets as they are in the cluster. It has no `Debug`: keys are in it.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    /// The certificate authority.
    pub(crate) authority: Option<Secret>,
    /// The serving certificate.
    pub(crate) serving: Option<Secret>,
    /// The certificate authority as it was before somebody deleted it or put a distrusted one in its place.
    pub(crate) former: Option<FormerAuthority>,
    /// The distrusted certificates that this process has read of.
    pub(crate) distrusted: DistrustList,
}

/// The trust bundles of a webhook configuration, one a webhook; `None` where there is no configuration.
pub(crate) type TrustBundles = Option<Vec<Vec<u8>>>;

impl Secrets {
    /// The authority, if it can sign and is not distrusted.
    pub(super) fn signing_authority(&self, now: Timestamp) -> Result<SigningAuthority, IssueReason> {
        let secret = self.authority.as_ref();
        if data(secret, CERTIFICATE).is_empty() && data(secret, KEY).is_empty() {
            return Err(IssueReason::Missing);
        }
        let authority = SigningAuthority::read(data(secret, CERTIFICATE), data(secret, KEY), now)?;
        if self.distrusted(now).has(authority.certificate(), now) {
            return Err(IssueReason::CameBack);
        }
        Ok(authority)
    }

    /// The certificates by which older authorities vouch for the present one, as far as they are valid.
    pub(super) fn crosses(&self, now: Timestamp) -> Vec<Certificate> {
        let (crosses, _) = Certificate::all_in(data(self.authority.as_ref(), CROSS));
        self.without_distrusted(valid(crosses, now), now)
    }

    /// Takes what a watch brought of the authority.
    pub(crate) fn take_authority(&mut self, found: Option<Secret>, now: Timestamp) {
        let before = self.authority.clone();
        versions::keep_newer(&mut self.authority, found);
        self.learn();
        let is_sound = self.signing_authority(now).is_ok();
        let is_lost = self.authority.is_none() || matches!(self.signing_authority(now), Err(IssueReason::CameBack));
        if is_sound {
            self.former = None;
        } else if let (Some(secret), true) = (before, is_lost)
            && self.authority.as_ref() != Some(&secret)
            && self.can_sign(&secret, now)
        {
            self.former = Some(FormerAuthority { secret, gone: now });
        }
    }

    /// Takes what a watch brought of the serving certificate.
    pub(crate) fn take_serving(&mut self, found: Option<Secret>) {
        versions::keep_newer(&mut self.serving, found);
        self.learn();
    }

    /// Remembers what the Secrets say that is distrusted.
    pub(crate) fn learn(&mut self) {
        for secret in [&self.authority, &self.serving] {
            self.distrusted.learn(&noted(secret.as_ref()));
        }
    }

    /// Forgets the authority before where the watch of its Secret told nothing for a while: nobody knows what was done meanwhile.
    pub(crate) fn forget_former(&mut self) {
        self.former = None;
    }

    /// Forgets the authority before once it is too long ago, its key with it.
    pub(crate) fn forget_old(&mut self, now: Timestamp) {
        self.former.take_if(|former| !former.is_recent(now));
    }

    /// The distrusted certificates, by this process's memory and by both Secrets.
    pub(crate) fn distrusted(&self, now: Timestamp) -> DistrustList {
        let mut list = self.distrusted.clone();
        for secret in [&self.authority, &self.serving] {
            list.learn(&noted(secret.as_ref()));
        }
        list.at(now)
    }

    /// True if both Secrets say all that is distrusted.
    pub(crate) fn distrust_is_noted(&self, now: Timestamp) -> bool {
        let list = self.distrusted(now);
        [&self.authority, &self.serving]
            .into_iter()
            .all(|secret| !noted(secret.as_ref()).lacks(&list))
    }

    /// True if the authority's Secret says all that a list has.
    pub(super) fn authority_notes(&self, list: &DistrustList) -> bool {
        !noted(self.authority.as_ref()).lacks(list)
    }

    /// Those of these certificates that are not distrusted.
    pub(crate) fn without_distrusted(&self, certificates: Vec<Certificate>, now: Timestamp) -> Vec<Certificate> {
        let list = self.distrusted(now);
        let mut certificates = certificates;
        certificates.retain(|certificate| !list.has(certificate, now));
        certificates
    }

    /// The distrusted certificates once nothing that is known now is trusted any more.
    pub(crate) fn all_distrusted(&self, bundles: &TrustBundles, now: Timestamp) -> DistrustList {
        let former = self.former.as_ref().map(|former| &former.secret);
        let secrets = [self.authority.as_ref(), self.serving.as_ref(), former];
        let own = secrets
            .into_iter()
            .flat_map(|secret| [CERTIFICATE, BUNDLE, CROSS].map(|key| data(secret, key)));
        let in_configuration = bundles.iter().flatten().map(Vec::as_slice);
        let known = own.chain(in_configuration).flat_map(|pem| Certificate::all_in(pem).0);
        let authorities = valid(known.filter(|certificate| certificate.is_authority).collect(), now);
        let mut list = self.distrusted(now);
        list.add(&authorities);
        list
    }

    /// The authority that was deleted, or replaced by a distrusted one, to be written again: pods go on trusting it, and nobody else
    /// could vouch for a new one.
    pub(crate) fn restorable(&self, names: &Names, now: Timestamp) -> Option<Secret> {
        let former = self.former.as_ref().filter(|former| former.is_recent(now))?;
        if names.trusting != Trusting::Pods || !self.can_sign(&former.secret, now) {
            return None;
        }
        let mut restored = former.secret.clone();
        restored.metadata = ObjectMeta {
            annotations: restored.metadata.annotations.take(),
            ..present(self.authority.as_ref(), &names.authority_secret).metadata
        };
        Some(restored)
    }

    fn can_sign(&self, secret: &Secret, now: Timestamp) -> bool {
        let (certificate, key) = (data(Some(secret), CERTIFICATE), data(Some(secret), KEY));
        SigningAuthority::read(certificate, key, now)
            .is_ok_and(|authority| !self.distrusted(now).has(authority.certificate(), now))
    }
}

/// Has a Secret say what is distrusted.
pub(super) fn note(secret: &mut Secret, list: &DistrustList) {
    if !list.is_empty() {
        annotations(secret).insert(DISTRUSTED_CERTIFICATES.into(), list.text());
    }
}

fn noted(secret: Option<&Secret>) -> DistrustList {
    DistrustList::read(annotation(secret, DISTRUSTED_CERTIFICATES))
}

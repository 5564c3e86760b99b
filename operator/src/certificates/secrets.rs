//! From the two Secrets to the state of the certificates, and from a step to the Secrets as they should be.

use std::collections::BTreeSet;
use std::iter;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokenscope_platform::certificate::{Certificate, CertificatePair};

use super::creation::Creation;
use super::memory::{Secrets, TrustBundles, note};
use super::names::{BUNDLE, CERTIFICATE, DISTRUST, DISTRUSTED, KEY, Names, ROTATE, ROTATED, TRUSTED_SINCE};
use super::plan::{
    Bundle, CertificateState, CertificateStep, Constraint, IssueReason, RotationSettings, ServingState, Trust,
};
use super::secret::{Write, annotation, annotations, data, obey, present, requested, set};
use super::x509::{NotMade, SigningAuthority, bundle, signed_by, valid};

impl Secrets {
    /// The Secrets that exist.
    pub(crate) fn state(&self, bundles: &TrustBundles, names: &Names, now: Timestamp) -> CertificateState {
        let authority = self.signing_authority(now);
        let (in_bundle, readable) = Certificate::all_in(data(self.authority.as_ref(), BUNDLE));
        let listed = in_bundle.len();
        let trusted = self.without_distrusted(in_bundle, now);
        let others = authority.as_ref().map_or(0, |authority| {
            trusted.iter().filter(|certificate| !authority.is(certificate)).count()
        });
        let has_authority = authority
            .as_ref()
            .is_ok_and(|authority| trusted.iter().any(|certificate| authority.is(certificate)));
        let sound = readable
            && has_authority
            && trusted.len() == listed
            && trusted.iter().all(|certificate| certificate.validity.covers(now));
        CertificateState {
            trust: match (bundles, &authority) {
                (None, _) => Trust::NoConfiguration,
                (Some(bundles), Ok(authority)) if trusted_by_all(authority, bundles) => Trust::Confirmed,
                _ => Trust::NotYet,
            },
            serving: self.serving(authority.as_ref().ok(), &trusted, names, now),
            constraint: authority
                .as_ref()
                .map_or(Constraint::Exact, |authority| authority.constraint(&names.hosts)),
            authority: authority.map(|authority| authority.validity()),
            authority_requested: requested(self.authority.as_ref(), ROTATE, ROTATED),
            distrust_requested: requested(self.authority.as_ref(), DISTRUST, DISTRUSTED),
            bundle: if sound {
                Bundle::Sound { others }
            } else {
                Bundle::Damaged
            },
            chain_is_whole: self.leads_to_older(now),
            distrust_is_noted: self.distrust_is_noted(now),
            serving_requested: requested(self.serving.as_ref(), ROTATE, ROTATED),
            bundle_is_copied: data(self.authority.as_ref(), BUNDLE) == data(self.serving.as_ref(), BUNDLE),
            trusted_since: annotation(self.authority.as_ref(), TRUSTED_SINCE).and_then(|at| at.parse().ok()),
        }
    }

    /// The authorities that webhook clients are to trust, as PEM. None as long as there is no authority that could sign.
    pub(crate) fn bundle(&self, now: Timestamp) -> Option<Vec<u8>> {
        let authority = self.signing_authority(now).ok()?;
        let stored = data(self.authority.as_ref(), BUNDLE);
        let (listed, _) = Certificate::all_in(stored);
        let trusted = self.without_distrusted(listed.clone(), now);
        if !trusted.iter().any(|certificate| authority.is(certificate)) {
            return None;
        }
        if trusted == listed {
            return Some(stored.to_vec());
        }
        Some(trusted.iter().map(Certificate::pem).collect::<String>().into())
    }

    /// The times at which the authority and the serving certificate end, as far as they can be used.
    pub(crate) fn ends(&self, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let authority = self.signing_authority(now).ok();
        let serving = read_serving(self.serving.as_ref(), now).ok();
        (
            authority.map(|authority| authority.validity().not_after),
            serving.map(|serving| serving.validity.not_after),
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
        let mut serving = present(self.serving.as_ref(), &names.serving_secret);
        let distrusted = match step {
            CertificateStep::CreateAuthority(IssueReason::Distrusted) => self.all_distrusted(bundles, now),
            _ => self.distrusted(now),
        };
        note(&mut authority, &distrusted);
        note(&mut serving, &distrusted);
        let write = match step {
            CertificateStep::Wait(_) => return Ok(None),
            CertificateStep::CreateAuthority(reason) => {
                let create = Creation {
                    names,
                    settings,
                    distrusted: &distrusted,
                    now,
                };
                self.replaced_authority(reason, authority, &self.known_authorities(bundles, now), create)?
            }
            CertificateStep::RepairBundle => {
                let own = String::from_utf8_lossy(data(self.authority.as_ref(), CERTIFICATE)).into_owned();
                let (known, _) = Certificate::all_in(data(self.authority.as_ref(), BUNDLE));
                let known = self.without_distrusted(valid(known, now), now);
                set(&mut authority, BUNDLE, bundle(&own, &known));
                Write::Authority(authority)
            }
            CertificateStep::NoteTrust => {
                annotations(&mut authority).insert(TRUSTED_SINCE.into(), now.to_string());
                Write::Authority(authority)
            }
            CertificateStep::DropOthers => {
                let own = data(self.authority.as_ref(), CERTIFICATE).to_vec();
                set(&mut authority, BUNDLE, own);
                annotations(&mut authority).remove(TRUSTED_SINCE);
                Write::Authority(authority)
            }
            CertificateStep::SignServing(_) => {
                let Some(serving) = self.sign(serving, names, settings, now)? else {
                    return Ok(None);
                };
                Write::Serving(serving)
            }
            CertificateStep::NoteDistrust if self.authority_notes(&distrusted) => Write::Serving(serving),
            CertificateStep::NoteDistrust => Write::Authority(authority),
            CertificateStep::CopyBundle => {
                set(&mut serving, BUNDLE, data(self.authority.as_ref(), BUNDLE).to_vec());
                Write::Serving(serving)
            }
        };
        Ok(Some(write))
    }

    /// The serving Secret with a new certificate, and those that lead from it to older authorities. `next_step` asks for it only
    /// where the authority can sign; if it ended since, the next round heals it.
    fn sign(
        &self,
        mut serving: Secret,
        names: &Names,
        settings: &RotationSettings,
        now: Timestamp,
    ) -> Result<Option<Secret>, NotMade> {
        let Ok(signer) = self.signing_authority(now) else {
            return Ok(None);
        };
        let pair = signer.sign(&names.hosts, settings.serving_validity(now, signer.validity()))?;
        let crosses = self.crosses(now);
        let chain = iter::once(pair.certificate).chain(crosses.iter().map(Certificate::pem));
        set(&mut serving, CERTIFICATE, chain.collect::<String>());
        set(&mut serving, KEY, pair.key);
        set(&mut serving, BUNDLE, data(self.authority.as_ref(), BUNDLE).to_vec());
        obey(&mut serving, ROTATE, ROTATED);
        Ok(Some(serving))
    }

    /// True if the serving certificate comes with all of them.
    fn leads_to_older(&self, now: Timestamp) -> bool {
        let (served, _) = Certificate::all_in(data(self.serving.as_ref(), CERTIFICATE));
        self.crosses(now).iter().all(|cross| served.contains(cross))
    }

    fn serving(
        &self,
        authority: Option<&SigningAuthority>,
        trusted: &[Certificate],
        names: &Names,
        now: Timestamp,
    ) -> Result<ServingState, IssueReason> {
        let serving = read_serving(self.serving.as_ref(), now)?;
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

    /// Whatever may have signed the serving certificate that webhooks show at the moment, and is not distrusted.
    fn known_authorities(&self, bundles: &TrustBundles, now: Timestamp) -> Vec<Certificate> {
        let own = [
            (&self.authority, CERTIFICATE),
            (&self.authority, BUNDLE),
            (&self.serving, BUNDLE),
        ];
        let in_secrets = own.into_iter().map(|(secret, key)| data(secret.as_ref(), key));
        let in_configuration = bundles.iter().flatten().map(Vec::as_slice);
        let known = in_secrets
            .chain(in_configuration)
            .flat_map(|pem| Certificate::all_in(pem).0);
        self.without_distrusted(valid(known.collect(), now), now)
    }
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

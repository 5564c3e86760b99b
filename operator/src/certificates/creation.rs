//! A new certificate authority, in the Secret of the one before.

use std::iter;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use tokenscope_platform::certificate::Certificate;

use super::distrust::DistrustList;
use super::memory::{Secrets, note};
use super::names::{
    BUNDLE, CERTIFICATE, CROSS, DISTRUST, DISTRUSTED, KEY, MOST_CROSSES, Names, ROTATE, ROTATED, TRUSTED_SINCE,
    Trusting,
};
use super::plan::{IssueReason, RotationSettings};
use super::secret::{Write, annotations, obey, set};
use super::x509::{NewAuthority, NotMade, bundle, create_authority};

/// The settings that a new authority is made with.
#[derive(Clone, Copy)]
pub(super) struct Creation<'a> {
    pub(super) names: &'a Names,
    pub(super) settings: &'a RotationSettings,
    pub(super) distrusted: &'a DistrustList,
    pub(super) now: Timestamp,
}

impl Secrets {
    /// The authority's Secret with a new authority, or as it was before it was deleted or replaced by a distrusted one.
    pub(super) fn replaced_authority(
        &self,
        reason: IssueReason,
        mut authority: Secret,
        known: &[Certificate],
        create: Creation<'_>,
    ) -> Result<Write, NotMade> {
        let Creation {
            names, distrusted, now, ..
        } = create;
        if let (IssueReason::Missing | IssueReason::CameBack, Some(mut former)) = (reason, self.restorable(names, now))
        {
            note(&mut former, distrusted);
            return Ok(Write::RestoredAuthority(former));
        }
        let new = self.create_authority(reason, create)?;
        let known = if reason == IssueReason::Distrusted { &[] } else { known };
        replace_authority(&mut authority, new, known, &self.crosses(now));
        Ok(Write::Authority(authority))
    }

    fn create_authority(&self, reason: IssueReason, create: Creation<'_>) -> Result<NewAuthority, NotMade> {
        let Creation {
            names,
            settings,
            distrusted,
            now,
        } = create;
        let mut validity = settings.authority_validity(now);
        if let Some(youngest) = distrusted.youngest(now) {
            // What is older than a distrusted one is distrusted itself.
            validity.not_before = validity.not_before.max(youngest);
        }
        match names.trusting {
            Trusting::ApiServers => create_authority("tokenscope webhook CA", &names.hosts, validity, 0, None),
            Trusting::Pods => {
                // Whoever has a leaked key must not vouch for anybody any more.
                let former = self
                    .signing_authority(now)
                    .ok()
                    .filter(|_| reason != IssueReason::Distrusted);
                let name = "tokenscope issuer CA";
                create_authority(name, &names.hosts, validity, MOST_CROSSES, former.as_ref())
            }
        }
    }
}

/// Makes this the authority, beside those that are known. Where the one before vouches for it, so do those that vouched for that
/// one by `crosses`.
fn replace_authority(authority: &mut Secret, new: NewAuthority, known: &[Certificate], crosses: &[Certificate]) {
    let NewAuthority { pair, cross } = new;
    if let Some(cross) = cross {
        let older = crosses.iter().map(Certificate::pem);
        let all = iter::once(cross).chain(older).take(MOST_CROSSES.into());
        set(authority, CROSS, all.collect::<String>());
    } else if let Some(data) = &mut authority.data {
        data.remove(CROSS);
    }
    set(authority, BUNDLE, bundle(&pair.certificate, known));
    set(authority, CERTIFICATE, pair.certificate);
    set(authority, KEY, pair.key);
    annotations(authority).remove(TRUSTED_SINCE);
    obey(authority, ROTATE, ROTATED);
    obey(authority, DISTRUST, DISTRUSTED);
}

//! The certificates of distrusted authorities, in a form that outlives the Secrets that they were in.
//!
//! The list stands in an annotation of both Secrets of an authority and of the webhook configuration, so that a backup of one of
//! them brings no distrusted authority back, and in the memory of every replica.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;
use tokenscope_platform::certificate::{Certificate, Validity};
use tokio::sync::watch;

use super::names::Trusting;

/// Annotation of both Secrets of an authority: the certificates that are distrusted, see [`DistrustList`].
pub(crate) const DISTRUSTED_CERTIFICATES: &str = "tokenscope.io/distrusted-certificates";

/// The most certificates of a list. Where there are more, the oldest go: see [`DistrustList::has`].
const MOST: usize = 64;
/// The longest text that is read: an entry has some hundred bytes.
const MOST_BYTES: usize = 16 << 10;

/// The SHA-256 hash of a certificate's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct CertificateDigest([u8; 32]);

impl CertificateDigest {
    fn of(certificate: &Certificate) -> Self {
        let mut bytes = [0; 32];
        for (byte, hashed) in bytes.iter_mut().zip(digest(&SHA256, certificate.der()).as_ref()) {
            *byte = *hashed;
        }
        Self(bytes)
    }
}

impl fmt::Display for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CertificateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// No fingerprint.
#[derive(Debug)]
struct NoFingerprint;

impl FromStr for CertificateDigest {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NoFingerprint);
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            let digits = text.get(at..at + 2).ok_or(NoFingerprint)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NoFingerprint)?;
        }
        Ok(Self(bytes))
    }
}

/// Distrusted certificates by their fingerprints, each with the time in which it is valid: after it, it is forgotten.
///
/// As text: `<SHA-256 in hexadecimal>=<begin>/<end>`, separated by commas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DistrustList(BTreeMap<CertificateDigest, Validity>);

impl DistrustList {
    /// Reads an annotation. What can't be read of it is left out.
    pub(crate) fn read(text: Option<&str>) -> Self {
        let text = text.filter(|text| text.len() <= MOST_BYTES).unwrap_or_default();
        let mut list = Self(text.split(',').filter_map(entry).collect());
        list.bound();
        list
    }

    /// The list in the form that an annotation has.
    pub(crate) fn text(&self) -> String {
        let entries = self.0.iter().map(|(fingerprint, validity)| {
            let Validity { not_before, not_after } = validity;
            format!("{fingerprint}={not_before}/{not_after}")
        });
        entries.collect::<Vec<_>>().join(",")
    }

    /// Takes certificates in.
    pub(crate) fn add<'a>(&mut self, certificates: impl IntoIterator<Item = &'a Certificate>) {
        for certificate in certificates {
            self.0.insert(CertificateDigest::of(certificate), certificate.validity);
        }
        self.bound();
    }

    /// Takes in what another list has.
    pub(crate) fn learn(&mut self, other: &Self) {
        self.0.extend(&other.0);
        self.bound();
    }

    /// The list without what has ended by itself.
    pub(crate) fn at(mut self, now: Timestamp) -> Self {
        self.0.retain(|_, validity| now <= validity.not_after);
        self
    }

    /// True if another list has what this one lacks.
    pub(crate) fn lacks(&self, other: &Self) -> bool {
        other.0.keys().any(|fingerprint| !self.0.contains_key(fingerprint))
    }

    /// True if there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// True if a certificate of an authority is distrusted: it is in the list, or older than one that is. Whoever distrusts an authority
    /// distrusts those before it, and their certificates may not have been at hand then.
    pub(crate) fn has(&self, certificate: &Certificate, now: Timestamp) -> bool {
        let is_older = || {
            self.youngest(now)
                .is_some_and(|begin| certificate.validity.not_before < begin)
        };
        self.0.contains_key(&CertificateDigest::of(certificate)) || is_older()
    }

    /// The beginning of the youngest of them. No authority that is made from now on may be older.
    pub(crate) fn youngest(&self, now: Timestamp) -> Option<Timestamp> {
        let begun = self.0.values().filter(|validity| validity.covers(now));
        begun.map(|validity| validity.not_before).max()
    }

    fn bound(&mut self) {
        while self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, validity)| validity.not_before);
            let Some(oldest) = oldest.map(|(fingerprint, _)| *fingerprint) else {
                return;
            };
            self.0.remove(&oldest);
        }
    }
}

fn entry(text: &str) -> Option<(CertificateDigest, Validity)> {
    let (fingerprint, validity) = text.trim().split_once('=')?;
    let (not_before, not_after) = validity.split_once('/')?;
    let validity = Validity {
        not_before: not_before.parse().ok()?,
        not_after: not_after.parse().ok()?,
    };
    Some((fingerprint.parse().ok()?, validity))
}

/// The distrusted certificates of each authority that any task of this process has read of. A clone is the same ledger.
#[derive(Clone, Debug)]
pub(crate) struct DistrustLedger(Arc<watch::Sender<Lists>>);

#[derive(Clone, Debug, Default)]
struct Lists {
    api_servers: DistrustList,
    pods: DistrustList,
}

impl Lists {
    fn of(&mut self, trusting: Trusting) -> &mut DistrustList {
        match trusting {
            Trusting::ApiServers => &mut self.api_servers,
            Trusting::Pods => &mut self.pods,
        }
    }
}

impl Default for DistrustLedger {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Lists::default())))
    }
}

impl DistrustLedger {
    /// The distrusted certificates of an authority.
    pub(crate) fn list(&self, trusting: Trusting) -> DistrustList {
        self.0.borrow().clone().of(trusting).clone()
    }

    /// Takes in what a list has, and says so to whoever waits.
    pub(crate) fn learn(&self, trusting: Trusting, found: &DistrustList) {
        self.0.send_if_modified(|lists| {
            let list = lists.of(trusting);
            let lacks = list.lacks(found);
            if lacks {
                list.learn(found);
            }
            lacks
        });
    }

    /// For who waits until there is more.
    pub(crate) fn changes(&self) -> DistrustChanges {
        DistrustChanges(self.0.subscribe())
    }
}

/// Tells of each change of a ledger.
#[derive(Debug)]
pub(crate) struct DistrustChanges(watch::Receiver<Lists>);

impl DistrustChanges {
    /// Waits for one.
    pub(crate) async fn next(&mut self) {
        // It fails only when the ledger is gone, which is when the process ends.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

//! Certificates as the operator writes them and the webhook shows them: one reading of X.509 and PEM for both.
//!
//! [`CertificatePair::parse`] decides whether a certificate and its key can be used now. The operator asks it before it keeps a
//! Secret, and [`CertificateWatcher`] before a listener shows one, so they cannot disagree.

mod pair;
mod serving;
mod watcher;
mod x509;

pub use pair::{CertificatePair, UnusablePair};
pub use serving::ServingCertificate;
pub use watcher::{CertificateWatcher, keep};
pub use x509::{Certificate, UnreadableCertificate, Validity};

//! The names of the Secrets, of their entries, and of the parties that trust their certificates.

/// Annotation of either Secret: any new value asks for a new certificate.
pub(crate) const ROTATE: &str = "tokenscope.io/rotate";
/// Annotation of either Secret: the last value of [`ROTATE`] that was obeyed.
pub(crate) const ROTATED: &str = "tokenscope.io/rotated";
/// Annotation of the authority's Secret: any new value asks for a new authority and that no other be trusted from then on.
pub(crate) const DISTRUST: &str = "tokenscope.io/distrust";
/// Annotation of the authority's Secret: the last value of [`DISTRUST`] that was obeyed. What is distrusted since stands in
/// [`DISTRUSTED_CERTIFICATES`](super::distrust::DISTRUSTED_CERTIFICATES).
pub(crate) const DISTRUSTED: &str = "tokenscope.io/distrusted";
/// Annotation of the authority's Secret, during a rotation: since when the API servers have been known to trust it.
pub(crate) const TRUSTED_SINCE: &str = "tokenscope.io/trusted-since";

pub(super) const BUNDLE: &str = "ca.crt";
pub(super) const CERTIFICATE: &str = "tls.crt";
pub(super) const KEY: &str = "tls.key";
/// In the authority's Secret: the certificates by which older authorities vouch for younger ones, the youngest first.
pub(super) const CROSS: &str = "cross.crt";

/// The most older authorities that lead to the present one: each adds half a kilobyte to every handshake.
pub(super) const MOST_CROSSES: u8 = 3;

/// The clients that trust the authority, which decide the steps to a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trusting {
    /// API servers, which are told of a new authority.
    ApiServers,
    /// Pods, which were told at admission and trust no other as long as they run: the authority before vouches for a new one.
    Pods,
}

impl Trusting {
    /// The names of the authority and of its serving certificate in metrics.
    pub(crate) fn labels(self) -> (&'static str, &'static str) {
        match self {
            Self::ApiServers => ("ca", "serving"),
            Self::Pods => ("issuer_ca", "issuer_serving"),
        }
    }
}

/// The names of the Secrets and of the serving certificate.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    /// The clients that trust the authority.
    pub(crate) trusting: Trusting,
    /// The Secret of the certificate authority.
    pub(crate) authority_secret: String,
    /// The Secret of the serving certificate.
    pub(crate) serving_secret: String,
    /// The DNS names and IP addresses that the serving certificate is for.
    pub(crate) hosts: Vec<String>,
}

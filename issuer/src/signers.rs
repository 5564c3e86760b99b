//! The keys as requests need them: which one signs, and the two documents that are published.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use aws_lc_rs::digest::{SHA256, digest};
use axum::body::Bytes;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokenscope_core::{Algorithm, ContextKeys};

use crate::issuer_url::IssuerUrl;
use crate::keys::{KeyError, PublicJwk, SigningKey};
use crate::rotation::KeyRing;
use crate::{claims, discovery};

/// A document that is served, and its entity tag.
#[derive(Clone, Debug)]
pub struct ServedDocument {
    /// Its text.
    pub text: Bytes,
    /// Its tag with quotation marks (RFC 9110 §8.8.3).
    pub tag: Box<str>,
}

/// The keys at one moment.
#[derive(Debug)]
pub struct Signers {
    ring: KeyRing,
    /// True if the keys sign. They are published in any case.
    sign: bool,
    issuer: Box<str>,
    /// The discovery document of an issuer whose tokens have no context.
    pub discovery: ServedDocument,
    /// The key set.
    pub keys: ServedDocument,
    /// The discovery document that was last asked for with context keys.
    with_context: ArcSwapOption<DiscoveryWithContext>,
}

#[derive(Debug)]
struct DiscoveryWithContext {
    /// At most ten.
    context_keys: Vec<Box<str>>,
    document: ServedDocument,
}

/// The keys of now; none before they were read for the first time.
pub type CurrentSigners = Arc<ArcSwapOption<Signers>>;

impl Signers {
    /// Writes the documents of a ring.
    pub fn new(ring: KeyRing, issuer: &IssuerUrl) -> Self {
        let published: Vec<_> = ring.keys().iter().map(|key| key.key().public()).cloned().collect();
        Self::publishing(&published, ring, issuer)
    }

    /// The same with a certificate of each key.
    pub fn certified(ring: KeyRing, issuer: &IssuerUrl) -> Result<Self, KeyError> {
        let published: Vec<_> = ring
            .keys()
            .iter()
            .map(|key| key.key().certified())
            .collect::<Result<_, _>>()?;
        Ok(Self::publishing(&published, ring, issuer))
    }

    fn publishing(published: &[PublicJwk], ring: KeyRing, issuer: &IssuerUrl) -> Self {
        let published: Vec<_> = published.iter().collect();
        let (discovery, keys) = discovery::documents(issuer.as_str(), &published, &claims::supported(&[]));
        Self {
            ring,
            sign: true,
            issuer: issuer.as_str().into(),
            discovery: ServedDocument::new(discovery),
            keys: ServedDocument::new(keys),
            with_context: ArcSwapOption::empty(),
        }
    }

    /// The same documents, and nothing signs.
    pub fn silenced(&self) -> Self {
        Self {
            ring: self.ring.clone(),
            sign: false,
            issuer: self.issuer.clone(),
            discovery: self.discovery.clone(),
            keys: self.keys.clone(),
            with_context: ArcSwapOption::empty(),
        }
    }

    /// The discovery document while policies have these context keys, whose claims it lists. It is written once, and anew where the
    /// context keys are others than at the last call; other keys of the issuer are another `Signers`.
    pub fn discovery_with(&self, context: &ContextKeys) -> ServedDocument {
        if context.keys().next().is_none() {
            return self.discovery.clone();
        }
        if let Some(kept) = self.with_context.load().as_ref()
            && context.keys().eq(kept.context_keys.iter().map(|key| &**key))
        {
            return kept.document.clone();
        }
        let claims: Vec<_> = context.claims().collect();
        let algorithms = self.ring.keys().iter().map(|key| key.key().public().algorithm());
        let text = discovery::document(&self.issuer, algorithms, &claims::supported(&claims));
        let document = ServedDocument::new(text);
        self.with_context.store(Some(Arc::new(DiscoveryWithContext {
            context_keys: context.keys().map(Into::into).collect(),
            document: document.clone(),
        })));
        document
    }

    /// The keys.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// The key that signs with an algorithm.
    pub fn signer(&self, algorithm: Algorithm) -> Option<&SigningKey> {
        self.shared_signer(algorithm).map(|key| &**key)
    }

    /// The same, to be kept.
    pub fn shared_signer(&self, algorithm: Algorithm) -> Option<&Arc<SigningKey>> {
        let (key, _) = self.ring.signing(algorithm).filter(|_| self.sign)?;
        Some(key.key())
    }
}

impl ServedDocument {
    fn new(text: String) -> Self {
        let digest = digest(&SHA256, text.as_bytes());
        Self {
            tag: format!("\"{}\"", URL_SAFE_NO_PAD.encode(digest)).into(),
            text: text.into(),
        }
    }
}

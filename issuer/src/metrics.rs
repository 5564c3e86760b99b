//! The metrics of the issuer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokenscope_platform::events::EventOutcome;
use tokenscope_platform::metrics::{
    OutcomeLabel, Registry, SECONDS_50_MICROS_TO_100_MILLIS, encode_gauges, encode_size,
};

use crate::cluster_index::ClusterIndex;

/// The outcome of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeOutcome {
    /// A token was issued.
    Issued,
    /// The request has another form than it should.
    InvalidRequest,
    /// The subject token proves nothing.
    InvalidSubject,
    /// The pod is not known or over.
    NoPod,
    /// A policy refuses, or none grants the audience.
    NotGranted,
    /// The grant breaks a rule of AWS.
    InvalidClaims,
    /// Something that is needed is not there yet.
    Unavailable,
    /// The source or the pod has asked too often.
    Limited,
    /// There was too much to do.
    Shed,
    /// It took too long.
    Late,
    /// A fault of ours.
    Failed,
}

impl ExchangeOutcome {
    const ALL: [(Self, &'static str); 11] = [
        (Self::Issued, "issued"),
        (Self::InvalidRequest, "invalid_request"),
        (Self::InvalidSubject, "invalid_subject"),
        (Self::NoPod, "no_pod"),
        (Self::NotGranted, "not_granted"),
        (Self::InvalidClaims, "invalid_claims"),
        (Self::Unavailable, "unavailable"),
        (Self::Limited, "limited"),
        (Self::Shed, "shed"),
        (Self::Late, "late"),
        (Self::Failed, "failed"),
    ];

    /// The word in metrics and audit lines.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(outcome, _)| *outcome == self);
        found.map_or("", |(_, word)| word)
    }
}

/// The counters. A clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct IssuerMetrics {
    exchanges: [Counter; ExchangeOutcome::ALL.len()],
    duration: Histogram,
    events: Family<OutcomeLabel, Counter>,
    /// Refused exchanges without a line in the audit log.
    pub audit_suppressed: Counter,
    /// Published keys.
    pub keys: Gauge,
    /// Alarms about the keys.
    pub key_alarms: Gauge,
    /// Keys that are due to sign, and are held back until they can be read at the issuer's URL.
    pub keys_held_back: Gauge,
    /// Keys that were put back: they had been taken out of their Secret without `revoke-key`, or lost with it.
    pub keys_restored: Counter,
    /// The time of the last read or write of the keys, in seconds since the Unix epoch.
    pub keys_read: Gauge,
    /// The expiry of the serving certificate, in seconds since the Unix epoch; 0 while there is none.
    pub certificate_expires: Gauge,
}

impl IssuerMetrics {
    /// Counters that start at zero and are seen in `registry`.
    pub fn new(registry: &Registry) -> Self {
        let exchanges = Family::<OutcomeLabel, Counter>::default();
        registry.register(
            "issuer_exchanges",
            "Token exchanges by their outcome",
            exchanges.clone(),
        );
        let this = Self {
            exchanges: ExchangeOutcome::ALL
                .map(|(_, outcome)| exchanges.get_or_create_owned(&OutcomeLabel { outcome })),
            duration: Histogram::new(SECONDS_50_MICROS_TO_100_MILLIS),
            events: Family::default(),
            audit_suppressed: Counter::default(),
            keys: Gauge::default(),
            key_alarms: Gauge::default(),
            keys_held_back: Gauge::default(),
            keys_restored: Counter::default(),
            keys_read: Gauge::default(),
            certificate_expires: Gauge::default(),
        };
        registry.register(
            "issuer_exchange_duration_seconds",
            "How long exchanges took, from the request's headers to the whole answer",
            this.duration.clone(),
        );
        registry.register(
            "issuer_events",
            "Events about refused exchanges by what became of them",
            this.events.clone(),
        );
        registry.register(
            "issuer_audit_suppressed",
            "Refused exchanges that have no line in the audit log, since their source had too many",
            this.audit_suppressed.clone(),
        );
        this.register_keys(registry);
        registry.register(
            "issuer_certificate_expiry_seconds",
            "When the serving certificate expires, in seconds since the Unix epoch; 0 while there is none",
            this.certificate_expires.clone(),
        );
        this
    }

    fn register_keys(&self, registry: &Registry) {
        registry.register("issuer_keys", "Published keys", self.keys.clone());
        registry.register(
            "issuer_key_alarms",
            "Problems with the keys that somebody should look at; the log names them",
            self.key_alarms.clone(),
        );
        registry.register(
            "issuer_keys_held_back",
            "Keys that are due to sign and are held back until they can be read at the issuer's URL; the leader counts",
            self.keys_held_back.clone(),
        );
        registry.register(
            "issuer_keys_restored",
            "Keys that were put back after they had been taken out of their Secret without revoke-key, or lost with it",
            self.keys_restored.clone(),
        );
        registry.register(
            "issuer_keys_read_seconds",
            "When the keys were last read, in seconds since the Unix epoch",
            self.keys_read.clone(),
        );
    }

    /// Shows how much is known, whenever somebody looks.
    pub fn show_sizes(registry: &Registry, index: &Arc<ClusterIndex>) {
        registry.register_collector(IndexSizes(index.clone()));
    }

    /// An Event about a refused exchange.
    pub fn event(&self, outcome: EventOutcome) {
        let outcome = match outcome {
            EventOutcome::Written => "written",
            EventOutcome::Known => "known",
            EventOutcome::Failed => "failed",
            EventOutcome::Dropped => "dropped",
            EventOutcome::NoObject => "gone",
        };
        self.events.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// An exchange came to its end.
    pub fn exchanged(&self, outcome: ExchangeOutcome, took: Duration) {
        if let Some(counter) = self.exchanges.get(outcome as usize) {
            counter.inc();
        }
        self.duration.observe(took.as_secs_f64());
    }
}

#[derive(Debug)]
struct IndexSizes(Arc<ClusterIndex>);

impl Collector for IndexSizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metric = (
            "tokenscope_issuer_index_size",
            "How many objects of each kind are known",
        );
        let sizes = self.0.sizes();
        let sizes = sizes.map(|(kind, size)| (kind, i64::try_from(size).unwrap_or(i64::MAX)));
        encode_gauges(&mut encoder, metric, "kind", sizes)?;
        let metric = (
            "tokenscope_issuer_namespaces_over_share",
            "How many namespaces have more pods, service accounts, policies or labels than are kept",
        );
        encode_size(&mut encoder, metric, self.0.namespaces_over_share())
    }
}

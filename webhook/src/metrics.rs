//! The metrics of the webhook. Nothing here allocates or looks anything up while a review runs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use tokenscope_platform::metrics::{
    OutcomeLabel, Registry, SECONDS_50_MICROS_TO_100_MILLIS, encode_gauges, encode_size,
};

use crate::budget::ByteBudget;
use crate::cache::Cache;

/// The outcome of a review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewOutcome {
    /// The pod got credentials.
    Granted,
    /// The pod was kept out.
    Denied,
    /// The pod was admitted without credentials, and whoever created it was warned.
    Warned,
    /// The pod was admitted without credentials, and only the audit log and this count say so.
    Audited,
    /// The pod asked for nothing.
    Untouched,
    /// There was no verdict: the failure policy decided.
    Failed,
    /// There were too many reviews at a time: the failure policy decided.
    Shed,
}

impl ReviewOutcome {
    const ALL: [Self; 7] = [
        Self::Granted,
        Self::Denied,
        Self::Warned,
        Self::Audited,
        Self::Untouched,
        Self::Failed,
        Self::Shed,
    ];

    /// The word in metrics and audit annotations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::Denied => "denied",
            Self::Warned => "warned",
            Self::Audited => "audited",
            Self::Untouched => "untouched",
            Self::Failed => "failed",
            Self::Shed => "shed",
        }
    }
}

/// The result of asking the API server for something that no watch had told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is there.
    Found,
    /// It is not there.
    Missing,
    /// There was no answer, or not in time.
    Failed,
    /// It was not asked for, since too much had been asked for already.
    Limited,
}

/// The reason why a review was turned away unread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Bodies and answers held all the memory that they may.
    Bytes,
    /// Its body arrived slowly, and another one needed the memory.
    Slow,
    /// Too many large reviews waited, or too many slow ones of one namespace.
    Queue,
}

/// The outcome for a pod that brought the mark of a finished review.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StripMark {
    /// The mark was removed.
    Removed,
    /// There was no mark.
    Absent,
    /// There was no answer: the pod is kept out.
    Failed,
    /// There was too much at a time: the pod is kept out.
    Shed,
}

/// The counters. A clone counts into the same ones.
#[derive(Clone, Debug)]
pub struct WebhookMetrics {
    registry: Registry,
    reviews: [Counter; ReviewOutcome::ALL.len()],
    shed: [Counter; 3],
    strip_mark: [Counter; 4],
    duration: Histogram,
    lookups: [Counter; 4],
    /// The time when the serving certificate expires, in seconds since the Unix epoch.
    pub certificate_expires: Gauge,
    /// Events that were dropped because too many waited.
    pub events_dropped: Counter,
    /// Events that the API server did not take.
    pub events_failed: Counter,
    /// Events that were not written because the owner is of no known kind, or does not exist.
    pub events_without_owner: Counter,
    /// Tokens of locked audiences that pods brought and no policy granted them, whatever the lock's mode.
    pub ungranted_tokens: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CauseLabel {
    cause: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl WebhookMetrics {
    /// Counters that start at zero and are seen in `registry`.
    pub fn new(registry: &Registry) -> Self {
        let this = Self {
            registry: registry.clone(),
            reviews: reviews(registry),
            shed: shed(registry),
            strip_mark: strip_mark(registry),
            duration: Histogram::new(SECONDS_50_MICROS_TO_100_MILLIS),
            lookups: lookups(registry),
            certificate_expires: Gauge::default(),
            events_dropped: Counter::default(),
            events_failed: Counter::default(),
            events_without_owner: Counter::default(),
            ungranted_tokens: Counter::default(),
        };
        this.register_single(registry);
        this
    }

    /// Registers what has no labels.
    fn register_single(&self, registry: &Registry) {
        registry.register(
            "webhook_ungranted_tokens",
            "Tokens of locked audiences that reviewed pods brought themselves and no policy granted them",
            self.ungranted_tokens.clone(),
        );
        registry.register(
            "webhook_review_duration_seconds",
            "How long reviews took, from the whole request to the whole answer",
            self.duration.clone(),
        );
        registry.register(
            "webhook_certificate_expiry_seconds",
            "When the serving certificate expires, in seconds since the Unix epoch; 0 while there is none",
            self.certificate_expires.clone(),
        );
        registry.register(
            "webhook_events_dropped",
            "Events about refusals that were not written because too many waited",
            self.events_dropped.clone(),
        );
        registry.register(
            "webhook_events_failed",
            "Events about refusals that the API server did not take",
            self.events_failed.clone(),
        );
        registry.register(
            "webhook_events_without_owner",
            "Events about refusals that were not written because the pod's owner is of no built-in kind, or does not exist",
            self.events_without_owner.clone(),
        );
    }

    /// Shows how much the cache holds, whenever somebody looks.
    pub fn show_sizes(&self, registry: &Registry, cache: &Arc<Cache>) {
        registry.register_collector(Sizes(cache.clone()));
    }

    /// A review came to its end.
    pub fn reviewed(&self, outcome: ReviewOutcome, took: Duration) {
        self.reviews[outcome as usize].inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// Shows how many bytes the bodies and answers of each path hold, whenever somebody looks.
    pub(crate) fn show_bytes(&self, budgets: [(&'static str, Arc<ByteBudget>); 2]) {
        self.registry.register_collector(Bytes(budgets));
    }

    /// A review was turned away unread.
    pub fn shed(&self, cause: Shed) {
        self.reviews[ReviewOutcome::Shed as usize].inc();
        self.shed[cause as usize].inc();
    }

    /// A pod that brought the mark came to its end.
    pub fn stripped(&self, outcome: StripMark) {
        self.strip_mark[outcome as usize].inc();
    }

    /// The API server was asked for something.
    pub fn looked_up(&self, result: Lookup) {
        self.lookups[result as usize].inc();
    }
}

fn reviews(registry: &Registry) -> [Counter; ReviewOutcome::ALL.len()] {
    let family = Family::<OutcomeLabel, Counter>::default();
    registry.register("webhook_reviews", "Reviews by what became of the pod", family.clone());
    ReviewOutcome::ALL.map(|outcome| {
        let outcome = outcome.as_str();
        family.get_or_create_owned(&OutcomeLabel { outcome })
    })
}

/// In the order of [`Shed`].
fn shed(registry: &Registry) -> [Counter; 3] {
    let family = Family::<CauseLabel, Counter>::default();
    registry.register(
        "webhook_shed",
        "Reviews that were turned away unread, by what there was too much of",
        family.clone(),
    );
    ["bytes", "slow", "queue"].map(|cause| family.get_or_create_owned(&CauseLabel { cause }))
}

/// In the order of [`StripMark`].
fn strip_mark(registry: &Registry) -> [Counter; 4] {
    let family = Family::<OutcomeLabel, Counter>::default();
    registry.register(
        "webhook_strip_mark",
        "Pods that brought the mark of a finished review, by what became of it",
        family.clone(),
    );
    ["removed", "absent", "failed", "shed"].map(|outcome| family.get_or_create_owned(&OutcomeLabel { outcome }))
}

/// In the order of [`Lookup`].
fn lookups(registry: &Registry) -> [Counter; 4] {
    let family = Family::<ResultLabel, Counter>::default();
    registry.register(
        "webhook_live_lookups",
        "Service accounts and namespaces that had to be asked for because no watch had told of them yet",
        family.clone(),
    );
    ["found", "missing", "failed", "limited"].map(|result| family.get_or_create_owned(&ResultLabel { result }))
}

#[derive(Debug)]
struct Sizes(Arc<Cache>);

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metric = (
            "tokenscope_webhook_cache_size",
            "How many objects of each kind are known",
        );
        let sizes = self.0.sizes();
        let sizes = sizes.map(|(kind, size)| (kind, i64::try_from(size).unwrap_or(i64::MAX)));
        encode_gauges(&mut encoder, metric, "kind", sizes)?;
        let metric = (
            "tokenscope_namespaces_over_share",
            "How many namespaces have more service accounts, policies or labels than are kept of one",
        );
        encode_size(&mut encoder, metric, self.0.namespaces_over_share())
    }
}

#[derive(Debug)]
struct Bytes([(&'static str, Arc<ByteBudget>); 2]);

impl Collector for Bytes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut descriptor = encoder.encode_descriptor(
            "tokenscope_webhook_bytes_in_flight",
            "How many bytes the bodies and answers of reviews hold",
            None,
            MetricType::Gauge,
        )?;
        for (path, budget) in &self.0 {
            for (share, bytes) in ["small", "large"].into_iter().zip(budget.in_use()) {
                let bytes = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
                bytes.encode(descriptor.encode_family(&[("path", *path), ("share", share)])?)?;
            }
        }
        Ok(())
    }
}

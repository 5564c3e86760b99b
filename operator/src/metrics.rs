//! What the operator counts. No label has more values than are written here.

use crate::certificates::Step;
use jiff::Timestamp;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};
use tokenscope_platform::metrics::Registry;

/// The metrics; counting takes no lock.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    /// Writes of the webhook configuration's caBundle.
    pub(crate) bundle_writes: Counter,
    /// Whether the webhook configuration is there.
    pub(crate) webhook_configuration: Gauge,
    certificate_ends: Family<Which, Gauge>,
    certificate_steps: Family<StepLabel, Counter>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Which {
    certificate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

impl Metrics {
    /// All of them, registered.
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "operator_ca_bundle_writes",
            "Writes of the webhook configuration's caBundle",
            metrics.bundle_writes.clone(),
        );
        registry.register(
            "operator_webhook_configuration",
            "1 if the webhook configuration is there, 0 if nothing tells the API server to call the webhook",
            metrics.webhook_configuration.clone(),
        );
        registry.register(
            "operator_certificate_end_timestamp_seconds",
            "When the certificate ends, in seconds since the Unix epoch; 0 if there is none",
            metrics.certificate_ends.clone(),
        );
        registry.register(
            "operator_certificate_steps",
            "Steps in the life of the certificates",
            metrics.certificate_steps.clone(),
        );
        metrics
    }

    /// When the two certificates end.
    pub(crate) fn certificate_ends(&self, authority: Option<Timestamp>, serving: Option<Timestamp>) {
        for (certificate, end) in [("ca", authority), ("serving", serving)] {
            let seconds = end.map_or(0, Timestamp::as_second);
            self.certificate_ends.get_or_create(&Which { certificate }).set(seconds);
        }
    }

    /// A step that was taken.
    pub(crate) fn certificate_step(&self, step: Step) {
        let step = match step {
            Step::CreateAuthority(_) => "create_ca",
            Step::RepairBundle => "repair_bundle",
            Step::SignServing(_) => "sign_serving",
            Step::NoteTrust => "note_trust",
            Step::DropOthers => "drop_old_ca",
            Step::CopyBundle => "copy_bundle",
            Step::Wait(_) => return,
        };
        self.certificate_steps.get_or_create(&StepLabel { step }).inc();
    }
}

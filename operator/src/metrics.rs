//! The metrics of the operator. No label has more values than are written here.

use jiff::Timestamp;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokenscope_platform::events::EventOutcome;
use tokenscope_platform::metrics::{OutcomeLabel, Registry};

/// The metrics; counting takes no lock.
#[derive(Debug, Default)]
pub(crate) struct OperatorMetrics {
    /// Writes of the webhook configuration's caBundle.
    pub(crate) bundle_writes: Counter,
    /// 1 if the webhook configuration is there, else 0.
    pub(crate) webhook_configuration: Gauge,
    /// 1 if this process writes, else 0.
    pub(crate) leader: Gauge,
    /// Seconds that a look at what changed took.
    pub(crate) passes: Passes,
    certificate_ends: Family<Which, Gauge>,
    certificate_steps: Family<StepLabel, Counter>,
    pods: Family<StateLabel, Gauge>,
    policies: Family<ReadyLabel, Gauge>,
    status_writes: Family<OutcomeLabel, Counter>,
    evictions: Family<OutcomeLabel, Counter>,
    events: Family<OutcomeLabel, Counter>,
    ungranted_token_pods: Gauge,
    locked_token_csi_drivers: Gauge,
    namespaces_over_share: Gauge,
    other_issuer_ca_pods: Gauge,
}

/// A histogram whose buckets fit a cluster of any size.
#[derive(Clone, Debug)]
pub(crate) struct Passes(Histogram);

impl Default for Passes {
    fn default() -> Self {
        Self(Histogram::new([
            0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0,
        ]))
    }
}

impl Passes {
    /// Counts one of so many seconds.
    pub(crate) fn observe(&self, seconds: f64) {
        self.0.observe(seconds);
    }
}

/// The outcome of a write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum WriteOutcome {
    /// It was written.
    Written,
    /// There was nothing to write to any more.
    Gone,
    /// It will be tried again.
    Failed,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReadyLabel {
    ready: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Which {
    certificate: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

impl OperatorMetrics {
    /// All of them, registered.
    pub(crate) fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        metrics.register_certificates(registry);
        metrics.register_policies(registry);
        metrics
    }

    fn register_certificates(&self, registry: &Registry) {
        registry.register(
            "operator_ca_bundle_writes",
            "Writes of the webhook configuration's caBundle",
            self.bundle_writes.clone(),
        );
        registry.register(
            "operator_webhook_configuration",
            "1 if the webhook configuration is there, 0 if nothing tells the API server to call the webhook",
            self.webhook_configuration.clone(),
        );
        registry.register(
            "operator_certificate_end_timestamp_seconds",
            "When the certificate (ca and serving of the webhook, issuer_ca and issuer_serving) ends, in seconds since the Unix epoch; 0 if there is none",
            self.certificate_ends.clone(),
        );
        registry.register(
            "operator_certificate_steps",
            "Steps in the life of the certificates",
            self.certificate_steps.clone(),
        );
        registry.register(
            "operator_leader",
            "1 if this process holds the Lease and writes",
            self.leader.clone(),
        );
    }

    fn register_policies(&self, registry: &Registry) {
        registry.register(
            "operator_pass_seconds",
            "How long a look at what changed took, in seconds",
            self.passes.0.clone(),
        );
        registry.register(
            "operator_pods",
            "Running pods that a policy or an annotation gives a role (matched), that have it (injected), that were created without it although they were meant to have it (missed), and that a restart would change (outdated)",
            self.pods.clone(),
        );
        registry.register(
            "operator_policies",
            "Policies by their condition Ready",
            self.policies.clone(),
        );
        registry.register(
            "operator_status_writes",
            "Writes of a policy's status",
            self.status_writes.clone(),
        );
        registry.register(
            "operator_evictions",
            "Evictions of missed pods, and of pods whose policy is no longer in force",
            self.evictions.clone(),
        );
        registry.register(
            "pods_with_ungranted_locked_token",
            "Running pods that hold a service account token of a locked audience which no policy grants them",
            self.ungranted_token_pods.clone(),
        );
        registry.register(
            "csi_drivers_with_locked_tokens",
            "CSI drivers that get service account tokens of a locked audience",
            self.locked_token_csi_drivers.clone(),
        );
        registry.register(
            "operator_namespaces_over_share",
            "Namespaces whose pods, service accounts and policies are larger together than what is kept of one namespace, so that nothing in them is judged",
            self.namespaces_over_share.clone(),
        );
        registry.register(
            "operator_pods_with_other_issuer_ca",
            "Running pods whose sidecars know another certificate authority of tokenscope's issuer than the present one, since they were admitted before it",
            self.other_issuer_ca_pods.clone(),
        );
        registry.register("operator_events", "Events about missed pods", self.events.clone());
    }

    /// The number of pods in each state.
    pub(crate) fn pods(&self, by_state: impl IntoIterator<Item = (&'static str, i64)>) {
        for (state, pods) in by_state {
            self.pods.get_or_create(&StateLabel { state }).set(pods);
        }
    }

    /// Sets the numbers of policies that are ready and that are not.
    pub(crate) fn policies(&self, ready: usize, not_ready: usize) {
        for (ready, policies) in [("true", ready), ("false", not_ready)] {
            self.policies.get_or_create(&ReadyLabel { ready }).set(gauge(policies));
        }
    }

    /// Sets the numbers of pods and CSI drivers that hold tokens of locked audiences that no policy grants.
    pub(crate) fn lock(&self, pods: usize, csi_drivers: usize) {
        self.ungranted_token_pods.set(gauge(pods));
        self.locked_token_csi_drivers.set(gauge(csi_drivers));
    }

    /// Sets the number of namespaces that take more than their share.
    pub(crate) fn namespaces_over_share(&self, namespaces: usize) {
        self.namespaces_over_share.set(gauge(namespaces));
    }

    /// Sets the number of pods that know another authority of the issuer than the present one.
    pub(crate) fn pods_with_other_issuer_ca(&self, pods: usize) {
        self.other_issuer_ca_pods.set(gauge(pods));
    }

    /// A write of a status.
    pub(crate) fn status_write(&self, outcome: WriteOutcome) {
        self.status_writes.get_or_create(&outcome.label()).inc();
    }

    /// An eviction.
    pub(crate) fn eviction(&self, outcome: WriteOutcome) {
        self.evictions.get_or_create(&outcome.label()).inc();
    }

    /// An Event.
    pub(crate) fn event(&self, outcome: EventOutcome) {
        let outcome = match outcome {
            EventOutcome::Written => "written",
            EventOutcome::Known => "known",
            EventOutcome::Failed => "failed",
            EventOutcome::Dropped => "delayed",
            EventOutcome::NoObject => "gone",
        };
        self.events.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Sets the time when a certificate ends; `None` if there is none that can be used.
    pub(crate) fn certificate_ends(&self, certificate: &'static str, end: Option<Timestamp>) {
        let seconds = end.map_or(0, Timestamp::as_second);
        self.certificate_ends.get_or_create(&Which { certificate }).set(seconds);
    }

    /// A step that was taken.
    pub(crate) fn certificate_step(&self, step: &'static str) {
        self.certificate_steps.get_or_create(&StepLabel { step }).inc();
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl WriteOutcome {
    fn label(self) -> OutcomeLabel {
        let outcome = match self {
            Self::Written => "written",
            Self::Gone => "gone",
            Self::Failed => "failed",
        };
        OutcomeLabel { outcome }
    }
}

//! Drives objects to the declared state: policy status, drift, certificates.
//!
//! All replicas watch and compute, so that each could take over at once; the one that holds the Lease writes.

mod args;
mod ca_bundle;
mod certificates;
mod configuration_patch;
mod drift;
mod events;
mod eviction;
mod history;
mod index;
mod indexer;
mod issuer;
mod issuer_context;
mod issuer_trust;
mod leader;
mod metrics;
mod pods;
mod probe;
mod spiffe_ids;
mod status;
mod versions;
mod watches;

use std::sync::Arc;
use std::time::Duration;

pub use args::{CertificatesProvider, OperatorArguments};
use ca_bundle::CaBundleController;
use certificates::{Certificates, DistrustLedger, Names, RotationSettings, TrustBundles, Trusting};
use events::EventSender;
use index::{Index, IndexEvent, Installation, SharedIndex};
use indexer::Indexer;
use issuer_context::IssuerContext;
use issuer_trust::{AuthoritySource, IssuerTrust};
use jiff::SignedDuration;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use leader::Leader;
use metrics::OperatorMetrics;
use pods::{Evictions, PodController};
use probe::Probe;
use spiffe_ids::SpiffeIds;
use status::StatusWriter;
use tokenscope_core::Settings;
use tokenscope_index::audiences::{self, ApiAudience, ApiIssuer};
use tokenscope_index::eks_pod_identity::PodIdentityError;
use tokenscope_platform::health::{Gate, Heartbeat};
use tokenscope_platform::lease::Elector;
use tokenscope_platform::{Process, client};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Under which name the API server notes what this process writes (`metadata.managedFields`). It is that of 0.1, so that an
/// upgrade leaves no second owner behind.
const FIELD_MANAGER: &str = "tokenscope-operator";

/// A loop that has not come round for so long hangs: each waits for a minute at most, and for every request ten seconds.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// The reason why the operator can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for the API server.
    #[error("the API server can't be reached")]
    Client(#[from] client::Error),
    /// The lock would take every pod its token.
    #[error("the lock can't be set up")]
    Lock(#[from] ApiAudience),
    /// Nobody knows whose pods get their credentials from the agent of EKS Pod Identity.
    #[error("EKS Pod Identity can't be set up")]
    PodIdentity(#[from] PodIdentityError),
    /// The issuer would take every pod's own token.
    #[error("the issuer can't be used")]
    Issuer(#[from] ApiIssuer),
}

/// The operator's body: starts everything and waits for the stop.
pub async fn run(args: OperatorArguments, process: Process) -> Result<(), Error> {
    let mut settings = Settings {
        pod_identity: args.pod_identity.load()?,
        ..args.settings()
    };
    let config = client::configuration(&args.common).await?;
    audiences::check_locked(&config.auth_info, &settings.lock).await?;
    audiences::check_issuer(&config.auth_info, args.issuer_url.as_deref()).await?;
    settings.api_audiences = audiences::of_api_server(&config.auth_info).await;
    let client = client::connect(config, &process.freshness)?;
    let metrics = Arc::new(OperatorMetrics::register(&process.registry));
    let (certificates_gate, policies_gate) = (process.gates.gate("certificates"), process.gates.gate("policies"));

    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.common.namespace);
    let elector = Elector::new(leases, &args.lease, &args.common.pod_name, args.lease_duration);
    let leader = Leader::new(process.hold_lease(elector));

    let (events, writer) = events::queue(client.clone(), leader.clone(), &args.common.pod_name, metrics.clone());
    let common = Common {
        args: &args,
        process: &process,
        client,
        leader,
        events,
        metrics,
    };
    let trusted = common.keep_certificates(certificates_gate);
    common.keep_policies(settings, trusted, policies_gate);
    process.spawn("events", writer.run(process.stop.clone()));

    process.stop.cancelled().await;
    Ok(())
}

/// The authorities that others trust.
struct Trusted {
    /// The bundles in the webhook configuration.
    bundles: watch::Receiver<Option<TrustBundles>>,
    /// The authorities of the issuer that new pods are told, where this process makes its certificates.
    issuer: Option<watch::Receiver<Option<Vec<u8>>>>,
}

/// The channels between the tasks that keep authorities.
struct AuthorityChannels {
    /// The distrusted certificates.
    ledger: DistrustLedger,
    /// The bundles in the webhook configuration.
    bundles: watch::Receiver<Option<TrustBundles>>,
    /// The bundle for those who trust the authority.
    wanted_bundle: watch::Sender<Option<Vec<u8>>>,
}

/// The state that most tasks share.
struct Common<'a> {
    args: &'a OperatorArguments,
    process: &'a Process,
    client: Client,
    leader: Leader,
    events: EventSender,
    metrics: Arc<OperatorMetrics>,
}

impl Common<'_> {
    /// Starts what keeps the certificates and the caBundle.
    fn keep_certificates(&self, gate: Gate) -> Trusted {
        let (args, stop) = (self.args, &self.process.stop);
        let (wanted_bundle, wanted) = watch::channel(None);
        let (found, bundles) = watch::channel(None);
        let ledger = DistrustLedger::default();
        let makes_certificates = args.certificates_provider == CertificatesProvider::Operator;
        let controller = CaBundleController {
            client: self.client.clone(),
            name: args.webhook_configuration.clone(),
            leader: self.leader.clone(),
            wanted,
            found,
            ledger: ledger.clone(),
            events: self.events.clone(),
            gate: (!makes_certificates).then(|| gate.clone()),
            metrics: self.metrics.clone(),
        };
        self.process
            .spawn("webhook configuration", controller.run(stop.clone()));
        if makes_certificates {
            let (names, settings) = (args.certificate_names(), args.certificate_settings());
            let told = AuthorityChannels {
                ledger: ledger.clone(),
                bundles: bundles.clone(),
                wanted_bundle,
            };
            let certificates = self.certificates(names, settings, told, Some(gate));
            self.process.spawn("certificates", certificates.run(stop.clone()));
        }
        let issuer = args.issuer_certificate_names().filter(|_| makes_certificates);
        let issuer = issuer.map(|names| self.keep_issuer_certificates(names, ledger, bundles.clone()));
        Trusted { bundles, issuer }
    }

    /// Starts what keeps the issuer's certificates; gives what new pods are told. Nobody can tell a pod anything later.
    fn keep_issuer_certificates(
        &self,
        names: Names,
        ledger: DistrustLedger,
        bundles: watch::Receiver<Option<TrustBundles>>,
    ) -> watch::Receiver<Option<Vec<u8>>> {
        let (wanted_bundle, told) = watch::channel(None);
        let telling = AuthorityChannels {
            ledger,
            bundles,
            wanted_bundle,
        };
        let settings = self.args.issuer_certificate_settings();
        // Ready without them: where an upgrade turns the issuer on, the leader of before makes none, and goes only once this one is ready.
        let certificates = self.certificates(names, settings, telling, None);
        let running = certificates.run(self.process.stop.clone());
        self.process.spawn("issuer certificates", running);
        told
    }

    /// The controller of an authority and a serving certificate.
    fn certificates(
        &self,
        names: Names,
        settings: RotationSettings,
        told: AuthorityChannels,
        gate: Option<Gate>,
    ) -> Certificates {
        let task = match names.trusting {
            Trusting::ApiServers => "certificates",
            Trusting::Pods => "issuer certificates",
        };
        Certificates {
            client: self.client.clone(),
            namespace: self.args.common.namespace.clone(),
            names,
            settings,
            leader: self.leader.clone(),
            ledger: told.ledger,
            bundles: told.bundles,
            wanted_bundle: told.wanted_bundle,
            gate,
            heartbeat: self.process.gates.heartbeat(task, HEARTBEAT),
            metrics: self.metrics.clone(),
        }
    }

    /// Starts the watches, the index of what they bring, and those who do what follows for policies and pods.
    fn keep_policies(&self, settings: Settings, trusted: Trusted, gate: Gate) {
        let index = self.index(settings);
        let (wants_lists, lists_are_wanted) = watch::channel(false);
        let received = self.watch_cluster(&lists_are_wanted, index.needs_csi_drivers());

        let index = SharedIndex::new(index);
        self.write_status(&index);
        self.write_issuer_context(&index);
        self.keep_issuer_trust(&index, trusted.issuer);
        self.control_pods(&index, trusted.bundles);
        let indexer = Indexer {
            index,
            wants_lists,
            resync: self.args.resync.max(Duration::from_secs(1)),
            gate,
            heartbeat: self.heartbeat("policies"),
            metrics: self.metrics.clone(),
        };
        self.process.spawn("policies", indexer.run(received, self.stop()));
    }

    /// The index of a cluster of which nothing is known yet.
    fn index(&self, settings: Settings) -> Index {
        let args = self.args;
        let installation = Installation {
            settings,
            own_namespace: args.common.namespace.as_str().into(),
            evicts_expired: args.evict_expired,
            review_margin: SignedDuration::try_from(args.review_margin).unwrap_or(SignedDuration::MAX),
            spiffe_issuer: args.spiffe_issuer.clone(),
            cluster_name: args.cluster_name.clone(),
        };
        Index::new(installation, SpiffeIds::of_class(args.spiffe_class_name.clone()))
    }

    /// Starts all that brings changes to the index.
    fn watch_cluster(
        &self,
        lists_are_wanted: &watch::Receiver<bool>,
        needs_csi_drivers: bool,
    ) -> mpsc::Receiver<IndexEvent> {
        let (args, process, client) = (self.args, self.process, &self.client);
        let (sender, received) = watches::spawn(client, process, lists_are_wanted, needs_csi_drivers);
        if args.watch_cluster_spiffe_ids {
            let watch = watches::spiffe_ids::run(client.clone(), sender.clone(), self.stop());
            process.spawn("the watch of ClusterSPIFFEIDs", watch);
        }
        let issuer = watches::issuer::run(client.clone(), args.issuer.clone(), args.resync, sender, self.stop());
        process.spawn("issuer", issuer);
        received
    }

    fn write_status(&self, index: &SharedIndex) {
        let writer = StatusWriter {
            client: self.client.clone(),
            leader: self.leader.clone(),
            index: index.clone(),
            events: self.events.clone(),
            heartbeat: self.heartbeat("status"),
            metrics: self.metrics.clone(),
        };
        self.process.spawn("status", writer.run(self.stop()));
    }

    fn write_issuer_context(&self, index: &SharedIndex) {
        let Some(issuer) = self.args.issuer_url.clone() else {
            return;
        };
        let context = IssuerContext {
            client: self.client.clone(),
            namespace: self.args.common.namespace.clone(),
            issuer,
            leader: self.leader.clone(),
            index: index.clone(),
            heartbeat: self.heartbeat("issuer context"),
        };
        self.process.spawn("issuer context", context.run(self.stop()));
    }

    fn keep_issuer_trust(&self, index: &SharedIndex, made: Option<watch::Receiver<Option<Vec<u8>>>>) {
        let file = || self.args.issuer_ca_file.clone().map(AuthoritySource::File);
        let Some(told) = made.map(AuthoritySource::Here).or_else(file) else {
            return;
        };
        let trust = IssuerTrust {
            told,
            index: index.clone(),
            heartbeat: self.heartbeat("issuer trust"),
            metrics: self.metrics.clone(),
        };
        self.process.spawn("issuer trust", trust.run(self.stop()));
    }

    fn control_pods(&self, index: &SharedIndex, bundles: watch::Receiver<Option<TrustBundles>>) {
        let args = self.args;
        let pods = PodController {
            client: self.client.clone(),
            leader: self.leader.clone(),
            index: index.clone(),
            events: self.events.clone(),
            evictions: Evictions {
                missed: args.evict_missed,
                expired: args.evict_expired,
            },
            probe: Probe {
                address: args.webhook_address(),
                client_certificate: args.webhook_client_certificate(),
                bundles,
            },
            heartbeat: self.heartbeat("pods"),
            metrics: self.metrics.clone(),
        };
        self.process.spawn("pods", pods.run(self.stop()));
    }

    fn heartbeat(&self, task: &'static str) -> Heartbeat {
        self.process.gates.heartbeat(task, HEARTBEAT)
    }

    fn stop(&self) -> CancellationToken {
        self.process.stop.clone()
    }
}

//! Drives objects to the declared state: policy status, drift, certificates.
//!
//! All replicas watch and compute, so that each could take over at once; the one that holds the Lease writes.

mod args;
mod certificates;
mod csi_drivers;
mod drift;
mod events;
mod eviction;
mod identities;
mod issuer;
mod leader;
mod metrics;
mod missed;
mod policy;
mod probe;
mod watching;
mod webhook_configuration;
mod world;

pub use args::{Args, CertificatesProvider};

use certificates::Certificates;
use identities::Identities;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use leader::Leader;
use metrics::Metrics;
use policy::{Evictions, Reconciler};
use probe::Probe;
use std::{sync::Arc, time::Duration};
use tokenscope_platform::{
    Process,
    audiences::{self, ApiAudience},
    client,
    lease::Elector,
};
use tokio::sync::watch;
use webhook_configuration::Keeper;
use world::World;

/// A loop that has not come round for so long hangs: each waits for a minute at most, and for every request ten seconds.
const HEARTBEAT: Duration = Duration::from_secs(300);

/// Why the operator can't run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No client for the API server.
    #[error("the API server can't be reached")]
    Client(#[from] client::Error),
    /// The lock would take every pod its token.
    #[error("the lock can't be set up")]
    Lock(#[from] ApiAudience),
}

/// The operator's body: starts everything and waits for the stop.
pub async fn run(args: Args, process: Process) -> Result<(), Error> {
    let settings = args.settings.settings();
    let config = client::configuration(&args.common).await?;
    audiences::check_locked(&config.auth_info, &settings.lock).await?;
    let client = client::connect(config, &process.freshness)?;
    let metrics = Arc::new(Metrics::register(&process.registry));
    let (certificates_gate, policies_gate) = (process.gates.gate("certificates"), process.gates.gate("policies"));

    let leases: Api<Lease> = Api::namespaced(client.clone(), &args.common.namespace);
    let elector = Elector::new(leases, &args.lease, &args.common.pod_name, args.lease_duration);
    let leader = Leader::new(process.hold_lease(elector));

    let (reporter, writer) = events::queue(client.clone(), leader.clone(), &args.common.pod_name, metrics.clone());
    let (wanted_bundle, wanted) = watch::channel(None);
    let (found, bundles) = watch::channel(None);
    let makes_certificates = args.certificates_provider == CertificatesProvider::Operator;
    let keeper = Keeper {
        client: client.clone(),
        name: args.webhook_configuration.clone(),
        leader: leader.clone(),
        wanted,
        found,
        reporter: reporter.clone(),
        gate: (!makes_certificates).then(|| certificates_gate.clone()),
        metrics: metrics.clone(),
    };
    process.spawn("webhook configuration", keeper.run(process.stop.clone()));
    if makes_certificates {
        let certificates = Certificates {
            client: client.clone(),
            namespace: args.common.namespace.clone(),
            names: args.certificate_names(),
            settings: args.certificate_settings(),
            leader: leader.clone(),
            bundles: bundles.clone(),
            wanted_bundle,
            gate: certificates_gate,
            heartbeat: process.gates.heartbeat("certificates", HEARTBEAT),
            metrics: metrics.clone(),
        };
        process.spawn("certificates", certificates.run(process.stop.clone()));
    }

    let world = World::new(
        settings,
        &args.common.namespace,
        args.spiffe_issuer.clone(),
        Identities::of_class(args.spiffe_class_name.clone()),
    )
    .evicting_expired(args.evict_expired);
    let (lists_anew, anew) = watch::channel(());
    let (changes, received) = policy::watch(&client, &process, &anew, world.needs_csi_drivers());
    let reconciler = Reconciler {
        client: client.clone(),
        leader,
        world,
        reporter,
        evictions: Evictions {
            missed: args.evict_missed,
            expired: args.evict_expired,
        },
        probe: Probe {
            address: args.webhook_address(),
            client_certificate: args.webhook_client_certificate(),
            bundles,
        },
        lists_anew,
        resync: args.resync.max(Duration::from_secs(1)),
        gate: policies_gate,
        heartbeat: process.gates.heartbeat("policies", HEARTBEAT),
        metrics,
    };
    let stop = process.stop.clone();
    if args.watch_cluster_spiffe_ids {
        process.spawn(
            "the watch of ClusterSPIFFEIDs",
            identities::run(client.clone(), changes.clone(), stop.clone()),
        );
    }
    process.spawn(
        "issuer",
        issuer::run(client, args.issuer, args.resync, changes, stop.clone()),
    );
    process.spawn("events", writer.run(stop.clone()));
    process.spawn("policies", reconciler.run(received, stop));

    process.stop.cancelled().await;
    Ok(())
}

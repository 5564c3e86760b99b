//! The certificate authority and the webhook's serving certificate, kept alive in two Secrets.

mod creation;
mod distrust;
mod memory;
mod names;
mod plan;
mod secret;
mod secrets;
mod x509;

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

pub(crate) use distrust::{DISTRUSTED_CERTIFICATES, DistrustLedger, DistrustList};
use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::runtime::watcher;
use kube::{Api, Client};
pub(crate) use memory::{Secrets, TrustBundles};
pub(crate) use names::{Names, Trusting};
use plan::next_step;
pub(crate) use plan::{CertificateStep, RotationSettings};
use secret::Write;
use tokenscope_platform::health::{Gate, Heartbeat};
use tokenscope_platform::{telemetry, watch};
use tokio::sync;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::FIELD_MANAGER;
use crate::leader::Leader;
use crate::metrics::OperatorMetrics;

/// The pause after a write that failed.
const RETRY: Duration = Duration::from_secs(5);

/// The longest time for which the authority's Secret may be unreadable. After it, where the Secret is gone, what was read before counts for
/// nothing.
const BLIND: Duration = Duration::from_secs(60);

/// The most steps in a row: more than any healing needs, and an end where somebody undoes each.
const STEPS: usize = 16;

/// The loop that takes step after step.
pub(crate) struct Certificates {
    /// For the two Secrets.
    pub(crate) client: Client,
    /// Their namespace.
    pub(crate) namespace: String,
    /// Their names.
    pub(crate) names: Names,
    /// The lifetimes.
    pub(crate) settings: RotationSettings,
    /// The leadership: the one process that has it writes.
    pub(crate) leader: Leader,
    /// The distrusted certificates that any task of this process has read of.
    pub(crate) ledger: DistrustLedger,
    /// The bundles that the API servers are told to trust; none before the first look. Nothing is done before, since the configuration says
    /// also what is distrusted.
    pub(crate) bundles: sync::watch::Receiver<Option<TrustBundles>>,
    /// The bundle that they should be told; none as long as there is nothing.
    pub(crate) wanted_bundle: sync::watch::Sender<Option<Vec<u8>>>,
    /// Open once there is an authority and a certificate by it, where the process is not ready before.
    pub(crate) gate: Option<Gate>,
    /// That the loop lives.
    pub(crate) heartbeat: Heartbeat,
    /// The metrics.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

/// The Secrets as far as they were read: neither counts as missing before it was looked for.
#[derive(Default)]
struct SeenSecrets {
    authority: bool,
    serving: bool,
    /// Since when the authority's Secret can't be watched.
    unreadable: Option<Instant>,
    secrets: Secrets,
}

impl SeenSecrets {
    fn take_authority(&mut self, found: Option<Secret>) {
        self.authority = true;
        self.secrets.take_authority(found, Timestamp::now());
        if self.unreadable.take().is_some_and(|since| since.elapsed() > BLIND) {
            self.secrets.forget_former();
        }
    }
}

impl Certificates {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut authority = pin!(watch::object(api.clone(), &self.names.authority_secret));
        let mut serving = pin!(watch::object(api.clone(), &self.names.serving_secret));
        let mut seen = SeenSecrets::default();
        let mut changes = self.ledger.changes();
        let mut pause = RETRY;
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(found) = authority.next() => match found {
                    Ok(found) => seen.take_authority(found),
                    Err(error) => {
                        seen.unreadable.get_or_insert_with(Instant::now);
                        unreadable(&self.names.authority_secret, &error);
                    }
                },
                Some(found) = serving.next() => match found {
                    Ok(found) => {
                        seen.serving = true;
                        seen.secrets.take_serving(found);
                    }
                    Err(error) => unreadable(&self.names.serving_secret, &error),
                },
                // It fails only when its sender has ended, which is when the process does.
                Ok(()) = self.bundles.changed() => {}
                () = changes.next() => {}
                () = self.leader.change() => {}
                () = tokio::time::sleep(pause) => {}
            }
            self.heartbeat.touch();
            if seen.authority && seen.serving {
                pause = self.settle(&api, &mut seen.secrets).await;
            }
        }
    }

    /// Takes steps until there is none, and answers how long there will be none.
    async fn settle(&mut self, api: &Api<Secret>, secrets: &mut Secrets) -> Duration {
        for _ in 0..STEPS {
            let now = Timestamp::now();
            let bundles = self.bundles();
            self.share_distrust(secrets, now);
            secrets.forget_old(now);
            let state = secrets.state(bundles.as_ref().unwrap_or(&None), &self.names, now);
            self.publish(secrets, now);
            if state.authority.is_ok()
                && state.serving.is_ok()
                && let Some(gate) = &self.gate
            {
                gate.open();
            }
            // Nobody knows whom to wait for before the configuration was looked for.
            let (Some(bundles), true) = (bundles, self.leader.is_leader()) else {
                return RETRY;
            };
            let step = next_step(&state, now, &self.settings);
            if let CertificateStep::Wait(until) = step {
                return Duration::try_from(now.duration_until(until)).unwrap_or(RETRY);
            }
            let write = match secrets.perform(step, &bundles, &self.names, &self.settings, now) {
                Ok(Some(write)) => write,
                Ok(None) => return RETRY,
                Err(error) => {
                    tracing::error!(?step, error = telemetry::chain(&error), "a certificate step failed");
                    return RETRY;
                }
            };
            let is_restored = matches!(write, Write::RestoredAuthority(_));
            let (place, secret) = match write {
                Write::Authority(secret) | Write::RestoredAuthority(secret) => (&mut secrets.authority, secret),
                Write::Serving(secret) => (&mut secrets.serving, secret),
            };
            match put(api, &secret).await {
                Ok(written) => {
                    *place = Some(written);
                    secrets.learn();
                    if is_restored {
                        self.tell_of_restored();
                        continue;
                    }
                    if let Some(label) = step.label() {
                        self.metrics.certificate_step(label);
                    }
                    log(step);
                }
                // The watch brings what it is now.
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => return RETRY,
                Err(error) => {
                    tracing::warn!(?step, error = telemetry::chain(&error), "a Secret could not be written");
                    return RETRY;
                }
            }
        }
        RETRY
    }

    fn tell_of_restored(&self) {
        self.metrics.certificate_step("restore_ca");
        tracing::warn!(
            secret = self.names.authority_secret,
            "the certificate authority was deleted or replaced by one that is distrusted, and was written again as it was, since pods trust no other: to replace a leaked one, annotate its Secret with tokenscope.io/distrust"
        );
    }

    /// The authorities that API servers are told to trust. Pods are told at admission, so there is no configuration to wait for.
    fn bundles(&mut self) -> Option<TrustBundles> {
        let bundles = self.bundles.borrow_and_update().clone()?;
        match self.names.trusting {
            Trusting::ApiServers => Some(bundles),
            Trusting::Pods => Some(None),
        }
    }

    /// Takes in what other tasks have read of distrust, and tells them what is known here.
    fn share_distrust(&self, secrets: &mut Secrets, now: Timestamp) {
        let trusting = self.names.trusting;
        secrets.distrusted.learn(&self.ledger.list(trusting));
        self.ledger.learn(trusting, &secrets.distrusted(now));
    }

    fn publish(&self, secrets: &Secrets, now: Timestamp) {
        let (authority, serving) = secrets.ends(now);
        let (authority_label, serving_label) = self.names.trusting.labels();
        self.metrics.certificate_ends(authority_label, authority);
        self.metrics.certificate_ends(serving_label, serving);
        let bundle = secrets.bundle(now);
        self.wanted_bundle.send_if_modified(|wanted| {
            // What was right before is better than nothing while the authority is healed.
            let changes = bundle.is_some() && *wanted != bundle;
            if changes {
                *wanted = bundle;
            }
            changes
        });
    }
}

/// Compares and swaps: a Secret with a resource version replaces only that version, one without only nothing.
async fn put(api: &Api<Secret>, secret: &Secret) -> Result<Secret, kube::Error> {
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match (&secret.metadata.resource_version, &secret.metadata.name) {
        (Some(_), Some(name)) => api.replace(name, &params, secret).await,
        _ => api.create(&params, secret).await,
    }
}

fn unreadable(secret: &str, error: &watcher::Error) {
    tracing::warn!(secret, error = telemetry::chain(error), "a Secret can't be watched");
}

fn log(step: CertificateStep) {
    match step {
        CertificateStep::CreateAuthority(reason) => tracing::info!(%reason, "made a new certificate authority"),
        CertificateStep::RepairBundle => tracing::warn!("repaired the trust bundle of the certificate authority"),
        CertificateStep::SignServing(reason) => tracing::info!(%reason, "made a new serving certificate"),
        CertificateStep::NoteTrust => {
            tracing::info!("the API server's configuration trusts the new certificate authority");
        }
        CertificateStep::DropOthers => tracing::info!("older certificate authorities are no longer trusted"),
        CertificateStep::CopyBundle => tracing::info!("copied the trust bundle to the serving Secret"),
        CertificateStep::NoteDistrust => tracing::info!("noted which certificate authorities are distrusted"),
        CertificateStep::Wait(_) => {}
    }
}

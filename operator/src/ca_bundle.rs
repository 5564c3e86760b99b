//! The caBundle of the webhook configuration, kept as the certificates want it, and beside it what is distrusted.
//!
//! The configuration is not in a namespace, so no backup of the Secrets brings back an older one. It names what is distrusted in the
//! same write that takes a distrusted authority out of the caBundle. No authority that it names gets back in, even where a replica has not
//! heard of the distrust yet.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry;
use tokio::sync::watch;
use tokio::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

use crate::certificates::{DistrustLedger, TrustBundles, Trusting};
use crate::configuration_patch::{AUTHORITIES, bundles, noted, patch, without_distrusted};
use crate::events::{EventReason, EventSender, Notice};
use crate::leader::Leader;
use crate::metrics::OperatorMetrics;
use crate::{FIELD_MANAGER, versions};

/// The time between two looks at everything without an event, and after a write that failed.
const POLL: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);

/// The longest time that the configuration may be missing before people are told: an installation makes it last.
const GRACE: Duration = Duration::from_secs(10);

/// The loop that keeps it right.
pub(crate) struct CaBundleController {
    /// For the configuration.
    pub(crate) client: Client,
    /// Its name.
    pub(crate) name: String,
    /// The leadership: the one process that has it writes.
    pub(crate) leader: Leader,
    /// The bundle that it should have; none as long as nobody knows.
    pub(crate) wanted: watch::Receiver<Option<Vec<u8>>>,
    /// The bundles that it has.
    pub(crate) found: watch::Sender<Option<TrustBundles>>,
    /// The distrusted certificates that any task of this process has read of.
    pub(crate) ledger: DistrustLedger,
    /// Takes an Event about a missing configuration.
    pub(crate) events: EventSender,
    /// Open while every entry has a caBundle; only where somebody else writes it.
    pub(crate) gate: Option<Gate>,
    /// The metrics.
    pub(crate) metrics: Arc<OperatorMetrics>,
}

impl CaBundleController {
    /// Runs until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let api: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        let mut objects = pin!(tokenscope_platform::watch::object(api.clone(), &self.name));
        // Outside: not looked for yet. Inside: it isn't there.
        let mut known: Option<Option<MutatingWebhookConfiguration>> = None;
        let mut changes = self.ledger.changes();
        let mut pause = POLL;
        let mut missing = MissingConfiguration::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(found) = objects.next() => match found {
                    Ok(found) => {
                        versions::keep_newer(known.get_or_insert(None), found);
                    }
                    Err(error) => {
                        tracing::warn!(name = self.name, error = telemetry::chain(&error), "the webhook configuration can't be watched");
                    }
                },
                Ok(()) = self.wanted.changed() => {}
                () = changes.next() => {}
                () = self.leader.change() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if let Some(configuration) = &mut known {
                self.learn(configuration.as_ref());
                pause = self.settle(&api, configuration).await;
                self.publish(configuration.as_ref());
                let is_missing = configuration.is_none() && self.leader.is_leader();
                if missing.is_to_be_told(is_missing, Instant::now()) {
                    self.tell_that_it_is_missing();
                }
                if is_missing {
                    pause = pause.min(GRACE);
                }
            }
        }
    }

    /// Writes the bundle if it is different, and answers when to look again.
    async fn settle(
        &mut self,
        api: &Api<MutatingWebhookConfiguration>,
        known: &mut Option<MutatingWebhookConfiguration>,
    ) -> Duration {
        let wanted = self.wanted.borrow_and_update().clone();
        let Some(configuration) = &known else {
            return POLL;
        };
        let now = Timestamp::now();
        let distrusted = AUTHORITIES.map(|(key, trusting)| (key, self.ledger.list(trusting).at(now)));
        let wanted = wanted.and_then(|wanted| without_distrusted(wanted, &self.ledger.list(Trusting::ApiServers), now));
        let Some(patch) = patch(configuration, wanted.as_deref(), &distrusted) else {
            return POLL;
        };
        if !self.leader.is_leader() {
            return POLL;
        }
        // A patch, since the chart's own fields belong to whoever installs it: helm and we never write the same one.
        match api
            .patch(
                &self.name,
                &PatchParams::apply(FIELD_MANAGER),
                &Patch::<()>::Json(patch),
            )
            .await
        {
            Ok(written) => {
                *known = Some(written);
                self.metrics.bundle_writes.inc();
                tracing::info!(
                    name = self.name,
                    "updated the caBundle and the distrusted certificates in the webhook configuration"
                );
                POLL
            }
            // Somebody else changed or removed it in the meantime: the watch brings what it is now.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_invalid() || status.is_conflict() => {
                RETRY
            }
            Err(error) => {
                tracing::warn!(
                    name = self.name,
                    error = telemetry::chain(&error),
                    "the caBundle could not be written"
                );
                RETRY
            }
        }
    }

    /// Takes in what the configuration says that is distrusted.
    fn learn(&self, configuration: Option<&MutatingWebhookConfiguration>) {
        for (key, trusting) in AUTHORITIES {
            self.ledger.learn(trusting, &noted(configuration, key));
        }
    }

    fn tell_that_it_is_missing(&self) {
        tracing::error!(
            name = self.name,
            "the webhook configuration is missing: no pod is reviewed"
        );
        self.events.send(Notice {
            // Each time anew, since the object has no identity any more.
            name: Some(format!("{}.missing.{}", self.name, Timestamp::now().as_second())),
            about: ObjectReference {
                api_version: Some("admissionregistration.k8s.io/v1".into()),
                kind: Some("MutatingWebhookConfiguration".into()),
                name: Some(self.name.clone()),
                ..ObjectReference::default()
            },
            verified_as: None,
            reason: EventReason::WebhookConfigurationMissing.as_str(),
            message:
                "it is missing, so no pod is reviewed: pods that ask are refused, others start without credentials; \
                      run `helm upgrade --install` again"
                    .into(),
        });
    }

    fn publish(&self, configuration: Option<&MutatingWebhookConfiguration>) {
        self.metrics
            .webhook_configuration
            .set(i64::from(configuration.is_some()));
        let bundles = configuration.map(bundles);
        if let Some(gate) = &self.gate {
            match lacks_bundle(bundles.as_deref()) {
                Some(reason) => gate.close(reason),
                None => gate.open(),
            }
        }
        self.found.send_if_modified(|found| {
            let changes = found.as_ref() != Some(&bundles);
            if changes {
                *found = Some(bundles);
            }
            changes
        });
    }
}

/// Since when the configuration is missing, and whether that was told.
#[derive(Default)]
struct MissingConfiguration {
    since: Option<Instant>,
    told: bool,
}

impl MissingConfiguration {
    fn is_to_be_told(&mut self, is_missing: bool, now: Instant) -> bool {
        if !is_missing {
            *self = Self::default();
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let first = !self.told && now >= since + GRACE;
        self.told |= first;
        first
    }
}

/// The reason why API servers could not trust the webhook, though nobody here writes the caBundle.
fn lacks_bundle(bundles: Option<&[Vec<u8>]>) -> Option<&'static str> {
    match bundles {
        None => Some("the webhook configuration is missing"),
        Some(bundles) if bundles.iter().any(Vec::is_empty) => {
            Some("an entry of the webhook configuration has no caBundle, which cert-manager's CA injector writes")
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_somebody_else_writes_the_bundle_it_is_said_which_is_missing() {
        assert!(lacks_bundle(None).unwrap().contains("configuration is missing"));
        let right = || b"right".to_vec();
        assert!(
            lacks_bundle(Some(&[right(), Vec::new()]))
                .unwrap()
                .contains("no caBundle")
        );
        assert_eq!(lacks_bundle(Some(&[right()])), None);
    }

    #[test]
    fn a_missing_configuration_is_told_once_after_a_while_and_again_when_it_went_again() {
        let (mut missing, began) = (MissingConfiguration::default(), Instant::now());
        assert!(!missing.is_to_be_told(true, began));
        assert!(!missing.is_to_be_told(true, began + GRACE / 2));
        assert!(missing.is_to_be_told(true, began + GRACE));
        assert!(!missing.is_to_be_told(true, began + GRACE * 2));
        assert!(!missing.is_to_be_told(false, began + GRACE * 3));
        assert!(!missing.is_to_be_told(true, began + GRACE * 4));
        assert!(missing.is_to_be_told(true, began + GRACE * 5));
    }
}

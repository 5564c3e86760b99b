//! The caBundle of the webhook configuration, kept as the certificates want it.

use crate::{
    FIELD_MANAGER,
    certificates::TrustBundles,
    events::{EventReason, EventSender, Notice},
    leader::Leader,
    metrics::OperatorMetrics,
    versions,
};
use futures::StreamExt as _;
use jiff::Timestamp;
use json_patch::jsonptr::PointerBuf;
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::ObjectReference},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;
use std::{convert::Infallible, pin::pin, sync::Arc};
use tokenscope_platform::{health::Gate, telemetry};
use tokio::{
    sync::watch,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How often everything is looked at without an event, and after a write that failed.
const POLL: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(1);

/// How long the configuration may be missing before people are told: an installation makes it last.
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
                () = self.leader.change() => {}
                () = tokio::time::sleep(pause) => {}
            }
            if let Some(configuration) = &mut known {
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
        let (Some(wanted), Some(configuration)) = (wanted, &known) else {
            return POLL;
        };
        let Some(patch) = bundle_patch(configuration, &wanted) else {
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
                tracing::info!(name = self.name, "wrote the caBundle of the webhook configuration");
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

/// Why API servers could not trust the webhook, though nobody here writes the caBundle.
fn lacks_bundle(bundles: Option<&[Vec<u8>]>) -> Option<&'static str> {
    match bundles {
        None => Some("the webhook configuration is missing"),
        Some(bundles) if bundles.iter().any(Vec::is_empty) => {
            Some("an entry of the webhook configuration has no caBundle, which cert-manager's CA injector writes")
        }
        Some(_) => None,
    }
}

/// The caBundle of each webhook, empty where there is none.
fn bundles(configuration: &MutatingWebhookConfiguration) -> Vec<Vec<u8>> {
    let webhooks = configuration.webhooks.iter().flatten();
    webhooks
        .map(|webhook| {
            webhook
                .client_config
                .ca_bundle
                .as_ref()
                .map_or_else(Vec::new, |bundle| bundle.0.clone())
        })
        .collect()
}

/// The patch that gives every webhook this bundle; none if all have it. It holds for the version that was looked at only.
fn bundle_patch(configuration: &MutatingWebhookConfiguration, bundle: &[u8]) -> Option<json_patch::Patch> {
    let mut operations = vec![json_patch::PatchOperation::Test(json_patch::TestOperation {
        path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
        value: json!(configuration.metadata.resource_version),
    })];
    for (index, found) in bundles(configuration).iter().enumerate() {
        if found != bundle {
            operations.push(json_patch::PatchOperation::Add(json_patch::AddOperation {
                path: PointerBuf::from_tokens(["webhooks", &index.to_string(), "clientConfig", "caBundle"]),
                value: json!(ByteString(bundle.to_vec())),
            }));
        }
    }
    (operations.len() > 1).then_some(json_patch::Patch(operations))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(bundles: &[Option<&str>]) -> MutatingWebhookConfiguration {
        let webhooks: Vec<_> = bundles
            .iter()
            .enumerate()
            .map(|(index, bundle)| {
                let bundle = bundle.map(|text| ByteString(text.into()));
                json!({
                    "name": format!("w{index}.tokenscope.io"), "admissionReviewVersions": ["v1"], "sideEffects": "None",
                    "clientConfig": {"service": {"name": "s", "namespace": "n"}, "caBundle": bundle},
                })
            })
            .collect();
        let object = json!({"metadata": {"name": "tokenscope", "resourceVersion": "7"}, "webhooks": webhooks});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_what_differs_is_patched_and_only_the_version_that_was_looked_at() {
        let patch = bundle_patch(&configuration(&[Some("right"), None, Some("wrong")]), b"right").unwrap();

        let bundle = json!(ByteString(b"right".to_vec()));
        let expected = json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "add", "path": "/webhooks/1/clientConfig/caBundle", "value": bundle},
            {"op": "add", "path": "/webhooks/2/clientConfig/caBundle", "value": bundle},
        ]);
        assert_eq!(serde_json::to_value(patch).unwrap(), expected);
    }

    #[test]
    fn where_somebody_else_writes_the_bundle_it_is_said_which_is_missing() {
        assert!(lacks_bundle(None).unwrap().contains("configuration is missing"));
        let some = bundles(&configuration(&[Some("right"), None]));
        assert!(lacks_bundle(Some(&some)).unwrap().contains("no caBundle"));
        assert_eq!(lacks_bundle(Some(&bundles(&configuration(&[Some("right")])))), None);
    }

    #[test]
    fn nothing_is_written_where_nothing_differs() {
        assert_eq!(
            bundle_patch(&configuration(&[Some("right"), Some("right")]), b"right"),
            None
        );
        assert_eq!(bundle_patch(&configuration(&[]), b"right"), None);
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

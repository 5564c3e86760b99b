//! Warning Events: about refused exchanges, on the pods that asked; about keys that were put back, on their Secret.
//!
//! Authors of pods see no answer of the issuer. Only a pod that proved itself, that the watch knows by that UID and that kept within its
//! limits gets an Event. Each namespace has its own bound, and the same about the same pod is written once in five minutes.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokenscope_core::Audience;
use tokenscope_index::EventReason;
use tokenscope_platform::events::{self, EventLimits, EventSender, EventSource, EventWriter, Notice};

use crate::cluster_index::ClusterIndex;
use crate::metrics::{ExchangeOutcome, IssuerMetrics};
use crate::subject_token::Caller;

/// Takes refusals without ever waiting. A clone feeds the same queue.
#[derive(Clone, Debug)]
pub struct ExchangeRefusalEvents(EventSender);

/// Both ends of the queue.
pub fn events(
    client: Client,
    instance: &str,
    clock: fn() -> Timestamp,
    metrics: IssuerMetrics,
) -> (ExchangeRefusalEvents, EventWriter) {
    let source = EventSource {
        client,
        component: "tokenscope-issuer",
        instance: instance.to_owned(),
        // An exchange has one issuer.
        is_leader: Box::new(|| true),
        clock,
        count: Arc::new(move |outcome| metrics.event(outcome)),
    };
    let (sender, writer) = events::queue(source, EventLimits::OF_REFUSALS);
    (ExchangeRefusalEvents(sender), writer)
}

/// Tells of keys that were put back, by the same queue.
#[derive(Clone, Debug)]
pub struct KeyEvents(EventSender);

impl KeyEvents {
    /// Has an Event written on the Secret of the keys: these were taken out of it by hand, and were put back.
    pub fn restored(&self, namespace: Option<&str>, secret: &str, kids: &[Box<str>]) {
        self.0.send(Notice {
            name: None,
            about: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: Some(secret.to_owned()),
                namespace: namespace.map(str::to_owned),
                ..ObjectReference::default()
            },
            verified_as: None,
            reason: EventReason::KeyRestored.as_str(),
            message: format!(
                "signing keys that are in use were taken out of this Secret by hand, or an older Secret was written over it, and were put \
                 back: {}. To remove a key for good: tokenscope-issuer revoke-key KID",
                kids.join(", ")
            ),
        });
    }
}

impl ExchangeRefusalEvents {
    /// For Events about keys.
    pub fn of_keys(&self) -> KeyEvents {
        KeyEvents(self.0.clone())
    }

    /// Has an Event written on the caller's pod, if that is there and somebody who may change it or a policy could act on it. It is also
    /// written where the pod has ended: nothing of it waits for a token any more, so its token may have been stolen. Of a pod that was
    /// deleted, or is not known yet, the audit line and the metric tell.
    pub fn report(
        &self,
        outcome: ExchangeOutcome,
        caller: &Caller,
        audience: Option<&Audience>,
        index: &ClusterIndex,
        reason: &str,
    ) {
        let is_told = matches!(
            outcome,
            ExchangeOutcome::NotGranted | ExchangeOutcome::InvalidClaims | ExchangeOutcome::NoPod
        );
        if !is_told {
            return;
        }
        let pod = index.pod(&caller.namespace, &caller.pod);
        if pod.is_none_or(|pod| pod.uid != caller.pod_uid) {
            return;
        }
        let audience = audience.map_or("", Audience::as_str);
        self.0.send(Notice {
            name: None,
            about: ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Pod".to_owned()),
                name: Some(caller.pod.to_string()),
                uid: Some(caller.pod_uid.to_string()),
                namespace: Some(caller.namespace.to_string()),
                ..ObjectReference::default()
            },
            // The watch knows it.
            verified_as: None,
            reason: EventReason::TokenRefused.as_str(),
            message: format!("tokenscope's issuer gave no token for the audience {audience}: {reason}"),
        });
    }
}

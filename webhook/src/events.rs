//! Warning Events about refusals, on the objects that create the pods: whoever asked a Deployment for pods never sees
//! the answer to a review.
//!
//! A review says who owns the pod, and anybody may have written that. So an Event is about an owner that exists with that UID,
//! in the pod's own namespace, and each namespace has its own bound, of every peer that sends reviews another.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use tokenscope_index::EventReason;
use tokenscope_platform::events::{self, EventLimits, EventOutcome, EventSender, EventSource, EventWriter, Notice};

use crate::metrics::WebhookMetrics;
use crate::owner;
use crate::review::ReportedRefusal;

/// Takes refusals without ever waiting. A clone feeds the same queue.
#[derive(Clone, Debug)]
pub struct RefusalEvents {
    sender: EventSender,
    metrics: WebhookMetrics,
}

/// Both ends of the queue.
pub fn events(
    client: Client,
    instance: &str,
    clock: fn() -> Timestamp,
    metrics: WebhookMetrics,
) -> (RefusalEvents, EventWriter) {
    let counted = metrics.clone();
    let source = EventSource {
        client,
        component: "tokenscope-webhook",
        instance: instance.to_owned(),
        // A review has one webhook.
        is_leader: Box::new(|| true),
        clock,
        count: Arc::new(move |outcome| match outcome {
            EventOutcome::Written | EventOutcome::Known => {}
            EventOutcome::Failed => drop(counted.events_failed.inc()),
            EventOutcome::Dropped => drop(counted.events_dropped.inc()),
            EventOutcome::NoObject => drop(counted.events_without_owner.inc()),
        }),
    };
    let (sender, writer) = events::queue(source, EventLimits::OF_REFUSALS);
    (RefusalEvents { sender, metrics }, writer)
}

impl RefusalEvents {
    /// Has an Event written about a review of this peer, unless the owner is of no built-in kind or too many of its namespace wait.
    pub fn report(&self, peer: IpAddr, refusal: ReportedRefusal) {
        let Some(resource) = owner::resource(&refusal.owner) else {
            self.metrics.events_without_owner.inc();
            return;
        };
        let owner = refusal.owner;
        let notice = Notice {
            name: None,
            about: ObjectReference {
                api_version: Some(owner.api_version.into()),
                kind: Some(owner.kind.into()),
                name: Some(owner.name.into()),
                uid: Some(owner.uid.into()),
                namespace: Some(refusal.namespace.into()),
                ..ObjectReference::default()
            },
            verified_as: Some(resource),
            reason: EventReason::CredentialsRefused.as_str(),
            message: refusal.message,
        };
        self.sender.send_for(peer, notice);
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokenscope_core::pod::OwnerReference;
    use tokenscope_platform::events::MOST_MESSAGE_BYTES;
    use tokenscope_platform::metrics::Registry;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn ends() -> (RefusalEvents, EventWriter) {
        let api_server = tower::service_fn(|_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
        });
        let client = Client::new(api_server, "default");
        events(
            client,
            "webhook-0",
            || Timestamp::UNIX_EPOCH,
            WebhookMetrics::new(&Registry::new()),
        )
    }

    fn refusal(kind: &str, name: &str) -> ReportedRefusal {
        ReportedRefusal {
            namespace: "shop".into(),
            owner: OwnerReference {
                api_version: "apps/v1".into(),
                kind: kind.into(),
                name: name.into(),
                uid: "u-1".into(),
                controller: Some(true),
            },
            message: "ä".repeat(600),
        }
    }

    #[tokio::test]
    async fn a_long_message_is_cut_where_a_character_ends() {
        let (events, writer) = ends();
        events.report(PEER, refusal("ReplicaSet", "orders-1"));
        assert_eq!(writer.next_notice().unwrap().message.len(), MOST_MESSAGE_BYTES);
    }

    #[tokio::test]
    async fn owners_that_can_not_exist_are_counted_and_never_asked_for() {
        let (events, writer) = ends();
        let long = "a".repeat(254);
        for (kind, name) in [
            ("Rollout", "orders-1"),
            ("ReplicaSet", "../pods"),
            ("ReplicaSet", &*long),
            ("ReplicaSet", ""),
        ] {
            events.report(PEER, refusal(kind, name));
        }
        let mut long_uid = refusal("ReplicaSet", "orders-1");
        long_uid.owner.uid = "u".repeat(1 << 20).into();
        events.report(PEER, long_uid);
        assert!(writer.next_notice().is_none());
        assert_eq!(events.metrics.events_without_owner.get(), 5);
    }

    #[tokio::test]
    async fn more_than_a_namespace_may_have_waiting_are_dropped_and_counted() {
        let (events, _writer) = ends();
        for number in 0..EventLimits::OF_REFUSALS.waiting_of_a_namespace + 3 {
            let mut refusal = refusal("ReplicaSet", "orders-1");
            refusal.owner.uid = number.to_string().into();
            events.report(PEER, refusal);
        }
        assert_eq!(events.metrics.events_dropped.get(), 3);
    }
}

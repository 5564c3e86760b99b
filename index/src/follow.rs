//! A watch from its start to the end of the process, with a gate that opens with its first whole list.

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;

use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokenscope_platform::Process;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry::chain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::watch::{RelistTimer, events};

/// Watches for ever, and gives `apply` all that is told. It answers whether a new list is wanted, since what was left out may
/// fit by now. The gate of `kind` opens with the first whole list.
pub fn follow<K>(
    api: Api<K>,
    kind: &'static str,
    process: &Process,
    apply: impl FnMut(Event<K>) -> bool + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let gate = process.gates.gate(kind);
    let timer = RelistTimer::default();
    process.spawn(kind, apply_all(api, kind, gate, process.stop.clone(), timer, apply));
}

async fn apply_all<K>(
    api: Api<K>,
    kind: &'static str,
    gate: Gate,
    stop: CancellationToken,
    timer: RelistTimer,
    mut apply: impl FnMut(Event<K>) -> bool,
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (wants_list, list_is_wanted) = watch::channel(false);
    let mut events = pin!(events(api, kind, list_is_wanted, timer));
    let mut synced = false;
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        match event {
            Ok(event) => {
                let whole = matches!(event, Event::InitDone);
                wants_list.send_replace(apply(event));
                if whole {
                    synced = true;
                    gate.open();
                }
            }
            Err(error) if synced => tracing::warn!(kind, error = chain(&error), "a watch was interrupted"),
            Err(error) => gate.close(chain(&error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ServiceAccount;
    use kube::Client;
    use kube::client::Body;
    use kube::core::PartialObjectMeta;
    use serde_json::json;
    use tokenscope_platform::health::Gates;

    use super::*;
    use crate::{KeptAnnotations, Room, Share, Shares, Store};

    type Accounts = Mutex<Store<KeptAnnotations>>;

    type ListAnswer = (u16, serde_json::Value);

    /// An API server that answers queries for lists so, and tells nothing more.
    fn api_server(answers: fn(&str) -> ListAnswer) -> Client {
        let service = tower::service_fn(move |request: http::Request<Body>| async move {
            let query = request.uri().query().unwrap_or_default().to_owned();
            if query.contains("watch=true") && !query.contains("sendInitialEvents=true") {
                return std::future::pending().await;
            }
            let (status, body) = answers(&query);
            // A text stands for itself, such as the lines of a watch.
            let body = body.as_str().map_or_else(|| body.to_string(), ToOwned::to_owned);
            let body = Body::from(format!("{body}\n").into_bytes());
            Ok::<_, Infallible>(http::Response::builder().status(status).body(body).unwrap())
        });
        Client::new(service, "default")
    }

    fn accounts(objects: usize) -> Arc<Accounts> {
        let share = Share {
            objects,
            bytes: 1 << 20,
        };
        let shares = Shares::new(share, Room::new(usize::MAX));
        Arc::new(Mutex::new(Store::new("service accounts", shares)))
    }

    /// Watches service accounts until `ends` says so after an event.
    async fn watched(client: Client, accounts: &Arc<Accounts>, mut ends: impl FnMut(bool) -> bool) -> Gates {
        let (gates, stop) = (Gates::default(), CancellationToken::new());
        let gate = gates.gate("serviceaccounts");
        let (told, ended) = (accounts.clone(), stop.clone());
        let timer = RelistTimer::new(Duration::from_millis(10), Duration::from_secs(1));
        let watching = apply_all(Api::all(client), "serviceaccounts", gate, stop, timer, move |event| {
            let whole = matches!(event, Event::InitDone);
            let mut told = told.lock().unwrap();
            told.apply(event, |account: PartialObjectMeta<ServiceAccount>| {
                let annotations = KeptAnnotations::of(&account.metadata);
                let bytes = annotations.bytes();
                Some((annotations, bytes))
            });
            let wants_list = told.wants_list();
            drop(told);
            if ends(whole) {
                ended.cancel();
            }
            wants_list
        });
        tokio::time::timeout(Duration::from_secs(60), watching)
            .await
            .unwrap()
            .unwrap();
        gates
    }

    async fn first_list(answers: fn(&str) -> ListAnswer) -> (Arc<Accounts>, Gates) {
        let accounts = accounts(100);
        let gates = watched(api_server(answers), &accounts, |whole| whole).await;
        (accounts, gates)
    }

    fn metadata(kind: &str, metadata: &serde_json::Value) -> serde_json::Value {
        let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata});
        json!({"type": kind, "object": object})
    }

    fn told(kind: &str, name: &str) -> String {
        metadata(
            kind,
            &json!({"name": name, "namespace": "shop", "resourceVersion": "7"}),
        )
        .to_string()
    }

    fn end_of_list() -> String {
        let end = json!({"resourceVersion": "7", "annotations": {"k8s.io/initial-events-end": "true"}});
        metadata("BOOKMARK", &end).to_string()
    }

    #[tokio::test]
    async fn a_streamed_list_is_asked_for_and_its_end_opens_the_gate() {
        let (accounts, gates) = first_list(|query| {
            assert!(query.contains("sendInitialEvents=true"), "{query}");
            (
                200,
                serde_json::Value::String(format!("{}\n{}", told("ADDED", "orders"), end_of_list())),
            )
        })
        .await;
        assert!(accounts.lock().unwrap().value("shop", "orders").is_some());
        assert_eq!(gates.waiting(), None);
    }

    #[tokio::test]
    async fn where_lists_can_not_be_streamed_they_are_read_in_pages() {
        let (accounts, gates) = first_list(|query| {
            if query.contains("sendInitialEvents=true") {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422, "reason": "Invalid",
                    "message": "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled"});
                return (422, status);
            }
            assert!(query.contains("limit="), "{query}");
            let account = metadata("ADDED", &json!({"name": "orders", "namespace": "shop"}))["object"].clone();
            let list = json!({"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1",
                "metadata": {"resourceVersion": "7"}, "items": [account]});
            (200, list)
        })
        .await;
        assert!(accounts.lock().unwrap().value("shop", "orders").is_some());
        assert_eq!(gates.waiting(), None);
    }

    #[tokio::test]
    async fn a_namespace_that_shrinks_below_its_share_is_listed_anew_and_whole() {
        static LISTS: AtomicUsize = AtomicUsize::new(0);
        // The first list has one service account too many; then one is deleted, and the second list has all that are left.
        let client = api_server(|_| {
            let again = LISTS.fetch_add(1, Ordering::Relaxed) > 0;
            let left = usize::from(again)..5;
            let mut lines: Vec<_> = left.map(|n| told("ADDED", &format!("account-{n}"))).collect();
            lines.push(end_of_list());
            if !again {
                lines.push(told("DELETED", "account-0"));
            }
            (200, serde_json::Value::String(lines.join("\n")))
        });
        let accounts = accounts(4);
        let seen = accounts.clone();
        watched(client, &accounts, |whole| {
            let seen = seen.lock().unwrap();
            let over = seen.exceeded("shop");
            if whole && LISTS.load(Ordering::Relaxed) == 1 {
                assert!(over.is_some() && seen.all_exceeded().count() == 1);
            }
            whole && over.is_none()
        })
        .await;
        let accounts = accounts.lock().unwrap();
        assert_eq!(accounts.all_exceeded().count(), 0);
        assert!((1..5).all(|n| accounts.value("shop", &format!("account-{n}")).is_some()));
        assert!(accounts.value("shop", "account-0").is_none());
    }
}

//! The watches behind the cache, and the new lists that it asks for.

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokenscope_platform::Process;
use tokenscope_platform::health::Gate;
use tokenscope_platform::telemetry::chain;
use tokenscope_platform::watch::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// How soon a new list is made for a namespace that was over its share: as soon as somebody who has just deleted something
/// looks again.
const LEAST_PAUSE: Duration = Duration::from_secs(10);
/// How seldom, where one list after another is asked for: somebody may keep a namespace at the edge of its share, and a list is
/// of all namespaces.
const MOST_PAUSE: Duration = Duration::from_secs(600);

/// Watches for ever, and calls `take_in` with all that is told. It says whether a new list is wanted, since what was left out
/// may fit by now.
pub(crate) fn follow<K>(
    api: Api<K>,
    what: &'static str,
    process: &Process,
    take_in: impl FnMut(Event<K>) -> bool + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let gate = process.gates.gate(what);
    let relist = Relist::new(LEAST_PAUSE, MOST_PAUSE);
    process.spawn(what, watching(api, what, gate, process.stop.clone(), relist, take_in));
}

async fn watching<K>(
    api: Api<K>,
    what: &'static str,
    gate: Gate,
    stop: CancellationToken,
    mut relist: Relist,
    mut take_in: impl FnMut(Event<K>) -> bool,
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut told = pin!(watch(api.clone(), what));
    let mut synced = false;
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = relist.due() => {
                tracing::info!(what, "listing anew, since what was left out may fit now");
                told.set(watch(api.clone(), what));
                relist.begins(Instant::now());
                continue;
            }
            next = told.next() => next,
        };
        match next {
            None => return Ok(()),
            Some(Ok(event)) => {
                let whole = matches!(event, Event::InitDone);
                relist.wanted(take_in(event), Instant::now());
                if whole {
                    synced = true;
                    gate.open();
                }
            }
            Some(Err(error)) if synced => tracing::warn!(what, error = chain(&error), "a watch was interrupted"),
            Some(Err(error)) => gate.close(chain(&error)),
        }
    }
}

/// When the next list is made that was asked for. The pause before it doubles from the least to the most, and is the least
/// again after a rest.
struct Relist {
    least: Duration,
    most: Duration,
    pause: Duration,
    at: Option<Instant>,
    last: Option<Instant>,
}

impl Relist {
    fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            pause: least,
            at: None,
            last: None,
        }
    }

    fn wanted(&mut self, wanted: bool, now: Instant) {
        if !wanted {
            self.at = None;
        } else if self.at.is_none() {
            if self.last.is_none_or(|last| now - last > self.most) {
                self.pause = self.least;
            }
            self.at = Some(now + self.pause);
        }
    }

    async fn due(&self) {
        match self.at {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    fn begins(&mut self, now: Instant) {
        self.at = None;
        self.last = Some(now);
        self.pause = (self.pause * 2).min(self.most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::{Bounds, Cache, Share};
    use kube::Client;
    use kube::client::Body;
    use serde_json::json;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokenscope_platform::health::Gates;

    type Answer = (u16, serde_json::Value);

    /// An API server that answers queries for lists so, and tells nothing more.
    fn api_server(answers: fn(&str) -> Answer) -> Client {
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

    /// Watches service accounts until `ends` says so after an event.
    async fn watched(client: Client, cache: &Arc<Cache>, mut ends: impl FnMut(bool) -> bool) -> Gates {
        let (gates, stop) = (Gates::default(), CancellationToken::new());
        let gate = gates.gate("serviceaccounts");
        let (told, ended) = (cache.clone(), stop.clone());
        let relist = Relist::new(Duration::from_millis(10), Duration::from_secs(1));
        let watching = watching(Api::all(client), "serviceaccounts", gate, stop, relist, move |event| {
            let whole = matches!(event, Event::InitDone);
            let wants_list = told.service_account(event);
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

    async fn first_list(answers: fn(&str) -> Answer) -> (Arc<Cache>, Gates) {
        let cache = Arc::new(Cache::default());
        let gates = watched(api_server(answers), &cache, |whole| whole).await;
        (cache, gates)
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
        let (cache, gates) = first_list(|query| {
            assert!(query.contains("sendInitialEvents=true"), "{query}");
            (
                200,
                serde_json::Value::String(format!("{}\n{}", told("ADDED", "orders"), end_of_list())),
            )
        })
        .await;
        assert!(cache.annotations("shop", "orders").is_some());
        assert_eq!(gates.waiting(), None);
    }

    #[tokio::test]
    async fn where_lists_can_not_be_streamed_they_are_read_in_pages() {
        let (cache, gates) = first_list(|query| {
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
        assert!(cache.annotations("shop", "orders").is_some());
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
        let bounds = Bounds {
            service_accounts: Share {
                objects: 4,
                bytes: usize::MAX,
            },
            ..Bounds::default()
        };
        let cache = Arc::new(Cache::new(&bounds));
        let seen = cache.clone();
        watched(client, &cache, |whole| {
            let over = seen.service_accounts_over_share("shop");
            if whole && LISTS.load(Ordering::Relaxed) == 1 {
                assert!(over.is_some() && seen.namespaces_over_share() == 1);
            }
            whole && over.is_none()
        })
        .await;
        assert_eq!(cache.namespaces_over_share(), 0);
        assert!((1..5).all(|n| cache.annotations("shop", &format!("account-{n}")).is_some()));
        assert!(cache.annotations("shop", "account-0").is_none());
    }

    #[test]
    fn a_namespace_that_stays_over_its_share_makes_new_lists_rarer_and_rarer() {
        let began = Instant::now();
        let (mut relist, mut now, mut lists) = (Relist::new(LEAST_PAUSE, MOST_PAUSE), began, Vec::new());
        while now - began < Duration::from_secs(7200) {
            relist.wanted(true, now);
            now = relist.at.unwrap();
            relist.begins(now);
            lists.push((now - began).as_secs());
        }
        assert_eq!(lists[..4], [10, 30, 70, 150]);
        assert!(lists.len() <= 18, "{lists:?}");

        now += MOST_PAUSE + Duration::from_secs(1);
        relist.wanted(true, now);
        assert_eq!(relist.at, Some(now + LEAST_PAUSE), "after a rest the first comes soon");
    }
}

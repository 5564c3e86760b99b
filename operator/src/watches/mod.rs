//! The watches that bring the index its events.

pub(crate) mod issuer;
pub(crate) mod spiffe_ids;

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;

use futures::StreamExt as _;
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokenscope_crds::read;
use tokenscope_index::watch::{RelistTimer, events};
use tokenscope_platform::{Process, telemetry};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::index::IndexEvent;

/// The most events that wait; beyond, watches wait.
pub(crate) const QUEUE: usize = 1024;

/// Follows everything that the index is made of; gives both ends of the queue that it comes by. While `wants_lists` is true,
/// watches of what namespaces hold begin again with a list.
pub(crate) fn spawn(
    client: &Client,
    process: &Process,
    wants_lists: &watch::Receiver<bool>,
    with_csi_drivers: bool,
) -> (mpsc::Sender<IndexEvent>, mpsc::Receiver<IndexEvent>) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    let [namespaced, cluster] = read::resources();
    let (to, stop, again) = (|| sender.clone(), || process.stop.clone(), || wants_lists.clone());
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of namespaces",
        follow(api, "namespaces", to(), IndexEvent::Namespace, never(), stop()),
    );
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of service accounts",
        follow(
            api,
            "serviceaccounts",
            to(),
            IndexEvent::ServiceAccount,
            again(),
            stop(),
        ),
    );
    let api = Api::all_with(client.clone(), &namespaced);
    process.spawn(
        "the watch of policies",
        follow(api, "tokenscopepolicies", to(), IndexEvent::Policy, again(), stop()),
    );
    let api = Api::all_with(client.clone(), &cluster);
    let of_cluster = IndexEvent::ClusterPolicy;
    process.spawn(
        "the watch of cluster policies",
        follow(api, "clustertokenscopepolicies", to(), of_cluster, never(), stop()),
    );
    let api = Api::all_with(client.clone(), &read::boundaries());
    process.spawn(
        "the watch of boundaries",
        follow(api, "tokenscopeboundaries", to(), IndexEvent::Boundary, never(), stop()),
    );
    if with_csi_drivers {
        let api = Api::<CSIDriver>::all(client.clone());
        process.spawn(
            "the watch of CSI drivers",
            follow(api, "csidrivers", to(), IndexEvent::CsiDriver, never(), stop()),
        );
    }
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of pods",
        follow(api, "pods", to(), IndexEvent::Pod, again(), stop()),
    );
    (sender, receiver)
}

/// The signal of a watch that never wants a new list.
fn never() -> watch::Receiver<bool> {
    watch::channel(false).1
}

/// Sends every event of a watch on, until `stop` or until nobody takes them any more.
async fn follow<K, T>(
    api: Api<K>,
    kind: &'static str,
    sender: mpsc::Sender<T>,
    wrap: impl Fn(Event<K>) -> T,
    wants_list: watch::Receiver<bool>,
    stop: CancellationToken,
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut events = pin!(events(api, kind, wants_list, RelistTimer::default()));
    while let Some(Some(event)) = stop.run_until_cancelled(events.next()).await {
        match event {
            Ok(event) => {
                if sender.send(wrap(event)).await.is_err() {
                    break;
                }
            }
            Err(error) => tracing::warn!(kind, error = telemetry::chain(&error), "a watch was interrupted"),
        }
    }
    Ok(())
}

//! The watches behind the index.

use std::convert::Infallible;
use std::fmt::Debug;
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokenscope_crds::read;
use tokenscope_index::watch::{RelistTimer, events};
use tokenscope_platform::Process;
use tokenscope_platform::telemetry::chain;
use tokio::sync::watch;

use crate::cluster_index::ClusterIndex;

/// Starts the watches; a gate for each opens with its first whole list.
pub fn spawn(index: &Arc<ClusterIndex>, client: &Client, process: &Process) {
    let (known, api) = (index.clone(), Api::all(client.clone()));
    follow(api, "pods", process, move |event| known.apply_pod(event));
    let (known, api) = (index.clone(), Api::all(client.clone()));
    follow(api, "namespaces", process, move |event| known.apply_namespace(event));
    let (known, api) = (index.clone(), Api::all(client.clone()));
    follow(api, "serviceaccounts", process, move |event| {
        known.apply_service_account(event)
    });
    let names = ["tokenscopepolicies", "clustertokenscopepolicies"];
    for (cluster, (resource, name)) in [false, true].into_iter().zip(read::resources().into_iter().zip(names)) {
        let known = index.clone();
        let api = Api::all_with(client.clone(), &resource);
        follow(api, name, process, move |event| known.apply_policy(cluster, event));
    }
    let (known, api) = (index.clone(), Api::all_with(client.clone(), &read::boundaries()));
    follow(api, "tokenscopeboundaries", process, move |event| {
        known.apply_boundary(event)
    });
}

/// Watches for ever, and gives `apply` all that is told. It answers whether a new list is wanted, since what was left out may fit
/// by now.
fn follow<K>(
    api: Api<K>,
    kind: &'static str,
    process: &Process,
    mut apply: impl FnMut(Event<K>) -> bool + Send + 'static,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let gate = process.gates.gate(kind);
    let stop = process.stop.clone();
    process.spawn(kind, async move {
        let (wants_list, list_is_wanted) = watch::channel(false);
        let mut events = pin!(events(api, kind, list_is_wanted, RelistTimer::default()));
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
        Ok::<_, Infallible>(())
    });
}

//! The watches behind the index.

use std::sync::Arc;

use kube::{Api, Client};
use tokenscope_crds::read;
use tokenscope_index::follow;
use tokenscope_platform::Process;

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

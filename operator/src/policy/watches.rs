//! The watches that the world is made of.

use super::QUEUE;
use crate::{watching::follow, world::Change};
use k8s_openapi::api::storage::v1::CSIDriver;
use kube::{Api, Client};
use tokenscope_crds::read;
use tokenscope_platform::Process;
use tokio::sync::{mpsc, watch};

/// Follows everything that the world is made of; gives both ends of the queue that it comes by. After a word of `anew`, watches
/// of what namespaces hold begin again with a list.
pub(crate) fn watch(
    client: &Client,
    process: &Process,
    anew: &watch::Receiver<()>,
    with_csi_drivers: bool,
) -> (mpsc::Sender<Change>, mpsc::Receiver<Change>) {
    let (changes, received) = mpsc::channel(QUEUE);
    let [namespaced, cluster] = read::resources();
    let (to, stop) = (|| changes.clone(), || process.stop.clone());
    let (once, again) = (|| None, || Some(anew.clone()));
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of namespaces",
        follow(api, "namespaces", to(), Change::Namespace, once(), stop()),
    );
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of service accounts",
        follow(api, "serviceaccounts", to(), Change::ServiceAccount, again(), stop()),
    );
    let api = Api::all_with(client.clone(), &namespaced);
    process.spawn(
        "the watch of policies",
        follow(api, "tokenscopepolicies", to(), Change::Policy, again(), stop()),
    );
    let api = Api::all_with(client.clone(), &cluster);
    process.spawn(
        "the watch of cluster policies",
        follow(
            api,
            "clustertokenscopepolicies",
            to(),
            Change::ClusterPolicy,
            once(),
            stop(),
        ),
    );
    if with_csi_drivers {
        let api = Api::<CSIDriver>::all(client.clone());
        process.spawn(
            "the watch of CSI drivers",
            follow(api, "csidrivers", to(), Change::CsiDriver, once(), stop()),
        );
    }
    let api = Api::all(client.clone());
    process.spawn(
        "the watch of pods",
        follow(api, "pods", to(), Change::Pod, again(), stop()),
    );
    (changes, received)
}

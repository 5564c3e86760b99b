//! The watch of ClusterSPIFFEIDs.

use std::convert::Infallible;

use kube::core::{ApiResource, GroupVersionKind};
use kube::{Api, Client};
use tokenscope_platform::telemetry;
use tokio::sync::mpsc;
use tokio::time::Duration;
use tokio_util::sync::CancellationToken;

use super::{follow, never};
use crate::index::IndexEvent;

/// The group and version of spire-controller-manager's definitions.
const API_VERSION: &str = "spire.spiffe.io/v1alpha1";
const PLURAL: &str = "clusterspiffeids";

/// The time between two looks for the definitions, which may come and go.
const LOOK: Duration = Duration::from_secs(10);

/// Watches ClusterSPIFFEIDs while the cluster has their definition.
pub(crate) async fn run(
    client: Client,
    events: mpsc::Sender<IndexEvent>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk("spire.spiffe.io", "v1alpha1", "ClusterSPIFFEID"));
    PLURAL.clone_into(&mut resource.plural);
    let mut watch: Option<CancellationToken> = None;
    loop {
        match is_defined(&client).await {
            Ok(true) if watch.is_none() => {
                tracing::info!("the cluster has ClusterSPIFFEIDs, so pods that match none are told of");
                let stop = stop.child_token();
                let api = Api::all_with(client.clone(), &resource);
                let event = |event| IndexEvent::SpiffeId(Some(event));
                tokio::spawn(follow(api, PLURAL, events.clone(), event, never(), stop.clone()));
                watch = Some(stop);
            }
            Ok(false) => {
                if let Some(watch) = watch.take() {
                    watch.cancel();
                    // Once the other end is gone, the process stops.
                    let _ = events.send(IndexEvent::SpiffeId(None)).await;
                }
            }
            Ok(true) => {}
            Err(error) => tracing::warn!(
                error = telemetry::chain(&error),
                "whether the cluster has ClusterSPIFFEIDs is not known"
            ),
        }
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return Ok(());
        }
    }
}

async fn is_defined(client: &Client) -> Result<bool, kube::Error> {
    match client.list_api_group_resources(API_VERSION).await {
        Ok(list) => Ok(list.resources.iter().any(|resource| resource.name == PLURAL)),
        // Plain text and no Status: nobody knows the group.
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
        Err(error) => Err(error),
    }
}

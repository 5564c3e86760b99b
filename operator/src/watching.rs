//! What all watches need: lists that stream where the API server can, and the order of versions.

use futures::StreamExt as _;
use kube::{
    Api, Resource, ResourceExt as _,
    runtime::watcher::{self, Event, watcher},
};
use serde::de::DeserializeOwned;
use std::{convert::Infallible, fmt::Debug, pin::pin};
use tokenscope_platform::telemetry;
use tokio::{sync::mpsc, time::Duration};
use tokio_util::sync::CancellationToken;

/// Between two tries of a watch that fails: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(10));

/// Sends every event of a watch on, until `stop` or until nobody takes them any more. After an interruption the watch goes
/// on where it was, or begins again with [`Event::Init`].
pub(crate) async fn follow<K, T>(
    api: Api<K>,
    what: &'static str,
    changes: mpsc::Sender<T>,
    change: impl Fn(Event<K>) -> T,
    stop: CancellationToken,
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut config = watcher::Config::default().streaming_lists();
    let mut pause = PAUSES.0;
    loop {
        let mut events = pin!(watcher(api.clone(), config.clone()));
        loop {
            let error = match stop.run_until_cancelled(events.next()).await {
                None | Some(None) => return Ok(()),
                Some(Some(Ok(event))) => {
                    pause = PAUSES.0;
                    if changes.send(change(event)).await.is_err() {
                        return Ok(());
                    }
                    continue;
                }
                Some(Some(Err(error))) => error,
            };
            if config.initial_list_strategy == watcher::InitialListStrategy::StreamingList && can_not_stream(&error) {
                tracing::info!(what, "the API server can't stream lists, so they are read in pages");
                config = watcher::Config::default().page_size(200);
                break;
            }
            tracing::warn!(what, error = telemetry::chain(&error), "a watch was interrupted");
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Ok(());
            }
            pause = (pause * 2).min(PAUSES.1);
        }
    }
}

/// Whether the API server does not know `sendInitialEvents`, or has it switched off.
fn can_not_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

/// Takes what a watch brought, unless it is older than what is known already, such as the answer to an own write.
pub(crate) fn keep_newer<K: Resource>(known: &mut Option<K>, found: Option<K>) {
    if let (Some(known), Some(found)) = (&known, &found)
        && known.uid() == found.uid()
        && is_older(found.resource_version().as_deref(), known.resource_version().as_deref())
    {
        return;
    }
    *known = found;
}

/// Whether a resource version comes before another of the same object.
///
/// They are comparable as numbers (KEP-5504); where one is none, nothing is older.
pub(crate) fn is_older(version: Option<&str>, other: Option<&str>) -> bool {
    let number = |version: Option<&str>| version?.parse::<u64>().ok();
    match (number(version), number(other)) {
        (Some(version), Some(other)) => version < other,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Secret;
    use kube::core::ObjectMeta;

    fn secret(uid: &str, version: &str) -> Secret {
        Secret {
            metadata: ObjectMeta {
                uid: Some(uid.into()),
                resource_version: Some(version.into()),
                ..ObjectMeta::default()
            },
            ..Secret::default()
        }
    }

    #[test]
    fn what_is_older_than_an_own_write_is_not_believed() {
        let mut known = Some(secret("a", "10"));
        keep_newer(&mut known, Some(secret("a", "9")));
        assert_eq!(known, Some(secret("a", "10")));
        keep_newer(&mut known, Some(secret("a", "11")));
        assert_eq!(known, Some(secret("a", "11")));
        keep_newer(&mut known, Some(secret("b", "2")));
        assert_eq!(known, Some(secret("b", "2")), "another object of the same name");
        keep_newer(&mut known, None);
        assert_eq!(known, None);
    }
}

//! What all watches need: somebody who takes what they tell, and the order of versions.

use futures::StreamExt as _;
use kube::{Api, Resource, ResourceExt as _, runtime::watcher::Event};
use serde::de::DeserializeOwned;
use std::{convert::Infallible, fmt::Debug};
use tokenscope_platform::telemetry;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

/// Sends every event of a watch on, until `stop` or until nobody takes them any more. After an interruption the watch goes
/// on where it was, or begins again with [`Event::Init`]; after a word of `anew` it begins again.
pub(crate) async fn follow<K, T>(
    api: Api<K>,
    what: &'static str,
    changes: mpsc::Sender<T>,
    change: impl Fn(Event<K>) -> T,
    mut anew: Option<watch::Receiver<()>>,
    stop: CancellationToken,
) -> Result<(), Infallible>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let begin = || tokenscope_platform::watch::watch(api.clone(), what).boxed();
    let mut told = begin();
    loop {
        let told_now = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = next_word(&mut anew) => {
                told = begin();
                continue;
            }
            told_now = told.next() => told_now,
        };
        let event = match told_now {
            None => return Ok(()),
            Some(Ok(event)) => event,
            Some(Err(error)) => {
                tracing::warn!(what, error = telemetry::chain(&error), "a watch was interrupted");
                continue;
            }
        };
        if changes.send(change(event)).await.is_err() {
            return Ok(());
        }
    }
}

/// Waits for the next word, for ever if there is nobody to give one.
async fn next_word(anew: &mut Option<watch::Receiver<()>>) {
    let word = match anew {
        Some(anew) => anew.changed().await.is_ok(),
        None => false,
    };
    if !word {
        std::future::pending::<()>().await;
    }
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

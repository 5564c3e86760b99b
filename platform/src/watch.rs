//! Watches that don't end: lists that stream where the API server can, and pauses after failures.
//!
//! kube's `WatchStreamExt` has the pauses, but not the change from streamed lists to pages while the watch runs.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

/// Everything that a watch tells, its failures included, without end. After a failure it goes on where it was, or begins
/// again with [`Event::Init`]; each further failure in a row makes the pause before the next try longer, up to 6.4 s.
///
/// Lists are asked for as streams, which neither side ever has whole in memory (KEP-3157), and in pages where the API server
/// can't stream. `what` names the watch in the log.
pub fn watch<K>(api: Api<K>, what: &'static str) -> impl Stream<Item = Result<Event<K>, watcher::Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watching = Watching {
        events: watcher(api.clone(), Config::default().streaming_lists()).boxed(),
        streams: true,
        failures: 0,
    };
    stream::unfold((api, watching), move |(api, mut watching)| async move {
        if watching.failures > 0 {
            tokio::time::sleep(Duration::from_millis(100 << watching.failures.min(6))).await;
        }
        let mut told = watching.events.next().await?;
        if let Err(error) = &told
            && watching.streams
            && can_not_stream(error)
        {
            tracing::info!(what, "the API server can't stream lists, so they are read in pages");
            watching.streams = false;
            // A smaller page takes less memory and more time; at 50,000 objects 200 costs 2 MB and 2 s more than streaming.
            watching.events = watcher(api.clone(), Config::default().page_size(200)).boxed();
            told = watching.events.next().await?;
        }
        watching.failures = if told.is_ok() { 0 } else { watching.failures + 1 };
        Some((told, (api, watching)))
    })
}

struct Watching<K> {
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    streams: bool,
    /// How many have come in a row.
    failures: u32,
}

/// Whether the API server does not know `sendInitialEvents`, or has it switched off.
fn can_not_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

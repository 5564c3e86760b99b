//! Watches that don't end: lists that stream where the API server can, and pauses after failures.
//!
//! The pauses are kube's `StreamBackoff` over [`Pauses`]. kube's own `DefaultBackoff` does not serve: after an outage its pause
//! is up to 30 s and stays so for two minutes, and as long a webhook would decide by policies of before; here it is 6.4 s at
//! most and short again after the first event.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Config, Event, watch_object, watcher};
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
    };
    let events = stream::unfold((api, watching), move |(api, mut watching)| async move {
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
        Some((told, (api, watching)))
    });
    events.backoff(Pauses::default())
}

/// One object, as often as it changes; none where there is no object of this name. Failures are told too, with the same pauses.
pub fn object<K>(api: Api<K>, name: &str) -> impl Stream<Item = Result<Option<K>, watcher::Error>> + Send + use<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    watch_object(api, name).backoff(Pauses::default())
}

struct Watching<K> {
    events: BoxStream<'static, Result<Event<K>, watcher::Error>>,
    streams: bool,
}

/// The pauses after failures in a row: 0.2 s, then twice as long each time, 6.4 s at most.
#[derive(Debug, Default)]
struct Pauses {
    failures: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1).min(6);
        Some(Duration::from_millis(100 << self.failures))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// True if the API server does not know `sendInitialEvents`, or has it switched off.
fn can_not_stream(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if matches!(status.code, 400 | 422))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_bound_and_begin_anew_after_an_event() {
        let mut pauses = Pauses::default();
        let millis: Vec<_> = pauses.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [200, 400, 800, 1600, 3200, 6400, 6400]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(Duration::from_millis(200)));
    }
}

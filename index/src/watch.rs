//! One kind of object, watched for ever, and listed anew where that was asked for.

use std::fmt::Debug;

use futures::stream::{self, BoxStream, Stream, StreamExt as _};
use kube::runtime::watcher::{Error, Event};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

pub use crate::relist::RelistTimer;

/// Everything that a watch tells, its failures included, without end. After a failure it goes on where it was, or begins
/// again with [`Event::Init`]; it also begins again, at the timer's pace, as long as `wants_list` is true, since what was left
/// out may fit by now. `kind` names the watch in the log.
pub fn events<K>(
    api: Api<K>,
    kind: &'static str,
    wants_list: Receiver<bool>,
    timer: RelistTimer,
) -> impl Stream<Item = Result<Event<K>, Error>> + Send
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let watched = Watched {
        events: tokenscope_platform::watch::watch(api.clone(), kind).boxed(),
        api,
        kind,
        wants_list,
        timer,
    };
    stream::unfold(watched, |mut watched| async move {
        let event = watched.next().await?;
        Some((event, watched))
    })
}

struct Watched<K: 'static> {
    api: Api<K>,
    kind: &'static str,
    events: BoxStream<'static, Result<Event<K>, Error>>,
    wants_list: Receiver<bool>,
    timer: RelistTimer,
}

impl<K> Watched<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    async fn next(&mut self) -> Option<Result<Event<K>, Error>> {
        loop {
            let wanted = *self.wants_list.borrow_and_update();
            self.timer.note(wanted, Instant::now());
            tokio::select! {
                event = self.events.next() => return event,
                () = self.timer.due() => {
                    tracing::info!(kind = self.kind, "listing anew, since what was left out may fit now");
                    self.events = tokenscope_platform::watch::watch(self.api.clone(), self.kind).boxed();
                    self.timer.begin(Instant::now());
                }
                () = changed(&mut self.wants_list) => {}
            }
        }
    }
}

/// Waits until a list is wanted or is no longer; for ever once nobody can want one.
async fn changed(wants_list: &mut Receiver<bool>) {
    if wants_list.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

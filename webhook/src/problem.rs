//! What the API server said, in words for people: the client's own texts show whole Status objects.

use kube::core::Status;
use kube::runtime::watcher;

/// Why a request failed.
pub(crate) fn of_request(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => of_status(status),
        other => other.to_string(),
    }
}

/// Why a watch failed.
pub(crate) fn of_watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => of_request(error),
        watcher::Error::WatchError(status) => of_status(status),
        watcher::Error::NoResourceVersion => error.to_string(),
    }
}

fn of_status(status: &Status) -> String {
    if status.message.is_empty() {
        return format!("{} ({})", status.reason, status.code);
    }
    status.message.clone()
}

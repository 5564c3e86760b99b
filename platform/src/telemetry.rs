//! Logs: one event a line to standard error, as JSON for machines or as text for people.

use std::error::Error as StdError;
use std::io::IsTerminal;

use kube::core::Status;
use kube::runtime::watcher;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How an event is written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Text, coloured where standard error is a terminal.
    Text,
}

/// Why logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not in `tracing`'s syntax.
    #[error("the log filter can't be read")]
    Filter(#[source] ParseError),
    /// Something else in the process already takes the log events.
    #[error("logs were already started")]
    Taken(#[source] Box<dyn StdError + Send + Sync>),
}

/// Starts logs for the whole process, panics included; `level` is a `tracing` filter such as `info` or `info,kube=debug`.
pub fn start(level: &str, format: Format) -> Result<(), Error> {
    // kube logs each failed request as an error of its own; whoever made the request logs it too, and knows if it matters.
    let filter = if level.contains("kube_client") {
        level.to_owned()
    } else {
        format!("{level},kube_client::client::builder=off")
    };
    let filter = EnvFilter::try_new(filter).map_err(Error::Filter)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        Format::Json => logs.json().flatten_event(true).with_span_list(false).try_init(),
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
    }
    .map_err(Error::Taken)?;
    // Else a panic is the one thing in the log that isn't JSON.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    Ok(())
}

/// An error and its causes in one line, without repeating a cause that an outer text already includes; what an API server
/// said in its own words, where kube's errors show a whole Status object.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = String::new();
    let mut rest = Some(error);
    while let Some(error) = rest {
        let words = api_server_words(error);
        // What its causes say beside those words is the same in a worse way.
        rest = error.source().filter(|_| words.is_none());
        let inner = words.unwrap_or_else(|| error.to_string());
        if text.is_empty() {
            text = inner;
        } else if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
    }
    text
}

/// What an API server answered, if that is what the error is about.
fn api_server_words(error: &(dyn StdError + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<watcher::Error>() {
        return match error {
            watcher::Error::InitialListFailed(error)
            | watcher::Error::WatchStartFailed(error)
            | watcher::Error::WatchFailed(error) => Some(chain(error)),
            watcher::Error::WatchError(status) => Some(status_words(status)),
            watcher::Error::NoResourceVersion => None,
        };
    }
    match error.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) => Some(status_words(status)),
        _ => None,
    }
}

fn status_words(status: &Status) -> String {
    if status.message.is_empty() {
        return format!("{} ({})", status.reason, status.code);
    }
    status.message.clone()
}

/// The text itself if [`start`] will take it, so that a bad filter is a usage error.
pub(crate) fn checked_filter(text: &str) -> Result<String, ParseError> {
    EnvFilter::try_new(text).map(|_| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Self>>,
    }

    #[test]
    fn a_chain_says_each_cause_once() {
        let inner = Layer {
            text: "connection refused",
            source: None,
        };
        let middle = Layer {
            text: "request failed: connection refused",
            source: Some(Box::new(inner)),
        };
        let outer = Layer {
            text: "the lease can't be renewed",
            source: Some(Box::new(middle)),
        };
        assert_eq!(
            chain(&outer),
            "the lease can't be renewed: request failed: connection refused"
        );
    }
    #[test]
    fn what_an_api_server_said_is_told_in_its_words_only() {
        let forbidden = || Status::failure("secrets is forbidden: no rule allows it", "Forbidden").with_code(403);
        let words = "secrets is forbidden: no rule allows it";
        assert_eq!(chain(&kube::Error::Api(forbidden().boxed())), words);
        assert_eq!(chain(&watcher::Error::WatchError(forbidden().boxed())), words);
        let wrapped = watcher::Error::InitialListFailed(kube::Error::Api(forbidden().boxed()));
        assert_eq!(chain(&wrapped), words);
        let silent = Status::failure("", "Gone").with_code(410);
        assert_eq!(chain(&watcher::Error::WatchError(silent.boxed())), "Gone (410)");
    }
}

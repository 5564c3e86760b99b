//! Logs: one event a line to standard error, as JSON for machines or as text for people.

use std::error::Error as StdError;
use std::io::IsTerminal;

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

/// An error and its causes in one line, without repeating a cause that an outer text already includes.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text.push_str(": ");
            text.push_str(&inner);
        }
        cause = error.source();
    }
    text
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
}

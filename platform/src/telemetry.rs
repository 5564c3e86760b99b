//! Logs: one event a line to standard error, as JSON for machines or as text for people.

use std::error::Error as StdError;
use std::io::{self, IsTerminal as _, Write};

use kube::core::Status;
use kube::runtime::watcher;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::text::up_to;

/// The longest line of the log: what others said may be part of one, and nobody reads more.
const MOST_LINE_BYTES: usize = 4 << 10;

/// The format of events in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// Text, coloured where standard error is a terminal.
    Text,
}

/// The reason why logs could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter is not in `tracing`'s syntax.
    #[error("the log filter can't be read")]
    Filter(#[source] ParseError),
    /// Something else in the process already takes the log events.
    #[error("logs were already started")]
    Taken(#[source] Box<dyn StdError + Send + Sync>),
}

/// The target of lines that say who got what and who did not. They are a record and no log of a level.
const AUDIT: &str = "audit";

/// Starts logs for the whole process, panics included; `level` is a `tracing` filter such as `info` or `info,kube=debug`. Lines with
/// the target `audit` are written at every level, unless the filter itself says something of that target.
pub fn start(level: &str, format: Format) -> Result<(), Error> {
    let filter = filter(level).map_err(Error::Filter)?;
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Bounded {
            output: std::io::stderr(),
            format,
        });
    match format {
        Format::Json => logs.json().flatten_event(true).with_span_list(false).try_init(),
        Format::Text => logs.with_ansi(std::io::stderr().is_terminal()).try_init(),
    }
    .map_err(Error::Taken)?;
    // Else a panic is the one thing in the log that isn't JSON.
    std::panic::set_hook(Box::new(|panic| tracing::error!(%panic, "panicked")));
    Ok(())
}

/// The filter of a level, with what holds where it doesn't say otherwise.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    let mut filter = level.to_owned();
    // kube logs each failed request as an error of its own; whoever made the request logs it too, and knows if it matters. And it warns
    // of an answer that it can't read with the whole answer, in which tokens and keys can be.
    if !level.contains("kube_client") {
        filter.push_str(",kube_client::client=error,kube_client::client::builder=off");
    }
    let target = |directive: &str| directive.split(['=', '[']).next().unwrap_or_default().trim() == AUDIT;
    if !level.split(',').any(target) {
        filter.push_str(",audit=info");
    }
    EnvFilter::try_new(filter)
}

/// Writes lines of at most [`MOST_LINE_BYTES`]. Each call writes one whole line, as the formatter does.
struct Bounded<W> {
    output: W,
    format: Format,
}

impl<W: Write> Write for Bounded<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if line.len() <= MOST_LINE_BYTES {
            self.output.write_all(line)?;
        } else {
            let shorter = match self.format {
                Format::Json => shorter_json(line),
                Format::Text => shorter_text(line),
            };
            self.output.write_all(shorter.as_bytes())?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The same object with its texts cut, as far as it must be.
fn shorter_json(line: &[u8]) -> String {
    if let Ok(mut fields) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(line) {
        for most in [2048, 256, 32] {
            for value in fields.values_mut() {
                if let serde_json::Value::String(text) = value
                    && text.len() > most
                {
                    *text = cut(text, most);
                }
            }
            if let Ok(line) = serde_json::to_string(&fields)
                && line.len() < MOST_LINE_BYTES
            {
                return line + "\n";
            }
        }
    }
    let message = format!("a line of {} bytes is too long for the log", line.len());
    format!("{{\"level\":\"WARN\",\"message\":\"{message}\"}}\n")
}

fn shorter_text(line: &[u8]) -> String {
    cut(&String::from_utf8_lossy(line), MOST_LINE_BYTES - 8) + "\n"
}

/// The start of a text, and a sign that it goes on.
fn cut(text: &str, most: usize) -> String {
    format!("{}…", up_to(text, most))
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

/// The answer of an API server, if the error is about one.
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

    fn logged(format: Format, log: impl FnOnce()) -> String {
        logged_at("info", format, log)
    }

    fn logged_at(level: &str, format: Format, log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct LogBuffer(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

        impl Write for LogBuffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let mut written = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                written.write(bytes)
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let output = LogBuffer::default();
        let written = output.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter(level).unwrap())
            .with_writer(move || Bounded {
                output: written.clone(),
                format,
            });
        match format {
            Format::Json => tracing::subscriber::with_default(logs.json().flatten_event(true).finish(), log),
            Format::Text => tracing::subscriber::with_default(logs.with_ansi(false).finish(), log),
        }
        String::from_utf8(output.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_of_the_audit_are_written_at_every_level_unless_the_filter_names_them() {
        let lines = |level: &str| {
            let log = || {
                tracing::info!(target: "audit", "who got what");
                tracing::info!(target: "other", "news");
            };
            let logged = logged_at(level, Format::Text, log);
            (logged.contains("who got what"), logged.contains("news"))
        };
        for level in ["warn", "error", "off", "kube=debug", "auditing=debug"] {
            assert_eq!(lines(level), (true, false), "{level}");
        }
        assert_eq!(lines("info"), (true, true));
        for level in ["info,audit=off", "audit=warn,info"] {
            assert_eq!(lines(level), (false, true), "{level}");
        }
    }

    #[test]
    fn a_line_of_the_log_is_bounded_and_stays_what_it_is() {
        let long = "ä\"\n".repeat(1 << 20);
        for (field, message) in [
            (long.as_str(), "short"),
            ("short", long.as_str()),
            (&long[..8000], &long[..8000]),
        ] {
            let line = logged(Format::Json, || tracing::warn!(field, pods = 7, "{message}"));
            assert!(line.len() <= MOST_LINE_BYTES && line.lines().count() == 1, "{line}");
            let line: serde_json::Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&line["level"], &line["pods"]), (&"WARN".into(), &7.into()));
            assert!(line["field"].as_str().unwrap().len() >= 5);

            let text = logged(Format::Text, || tracing::warn!(field, "{message}"));
            assert!(text.len() <= MOST_LINE_BYTES && text.ends_with("…\n"), "{text}");
        }
        let short = logged(Format::Json, || tracing::info!("as it is"));
        assert!(short.contains("as it is") && !short.contains('…'));
    }
}

//! Logs: one JSON object a line, to standard error.
//!
//! tracing with a subscriber for JSON would add 243 kB to the program (docs/adr/0010).

use std::fmt::Write as _;
use std::io::Write as _;

use jiff::Timestamp;

/// The importance of an event, the greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For [`Log::level`]: nothing is written.
    Off,
    /// Somebody must do something.
    Error,
    /// Something failed that is tried again.
    Warn,
    /// Something happened that happens once or rarely.
    Info,
    /// Each step.
    Debug,
}

/// The log of events that matter enough.
#[derive(Clone, Copy, Debug)]
pub struct Log {
    /// The least important level that is written.
    pub level: Level,
}

impl Log {
    /// Writes an event. Its fields are of this process or of the agent's answers, and never a token.
    pub fn event(self, now: Timestamp, level: Level, message: &str, fields: &[(&str, &str)]) {
        if level > self.level {
            return;
        }
        let mut line = format!(r#"{{"timestamp":"{now:.6}","level":"{}","message":"#, name(level));
        line.push_str(&quoted(message));
        for (name, value) in fields {
            let _ = write!(line, r#","{name}":{}"#, quoted(value)); // a String takes everything
        }
        line.push_str("}\n");
        // Who has closed standard error wants no logs.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}

fn name(level: Level) -> &'static str {
    match level {
        Level::Off => "OFF",
        Level::Error => "ERROR",
        Level::Warn => "WARN",
        Level::Info => "INFO",
        Level::Debug => "DEBUG",
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// As the flag has it.
pub(crate) fn level(text: &str) -> Option<Level> {
    Some(match text {
        "off" => Level::Off,
        "error" => Level::Error,
        "warn" => Level::Warn,
        "info" => Level::Info,
        "debug" => Level::Debug,
        _ => return None,
    })
}

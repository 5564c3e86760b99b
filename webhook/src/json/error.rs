//! The reason why a text can't be read.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use serde::de;
use tokenscope_core::text::up_to;

/// The reason why a text can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Error {
    pub(super) what: Cow<'static, str>,
    pub(super) at: usize,
}

impl Error {
    pub(super) fn new(what: impl Into<Cow<'static, str>>) -> Self {
        Self {
            what: what.into(),
            at: 0,
        }
    }
}

impl de::Error for Error {
    /// serde writes a value of a wrong type into its message, and that value may be the whole of the text.
    fn custom<T: fmt::Display>(what: T) -> Self {
        let mut message = Message(String::new());
        // It fails only where the message is full.
        let _ = write!(message, "{what}");
        Self::new(message.0)
    }
}

/// A message of which the start is kept.
struct Message(String);

impl Message {
    const MOST_BYTES: usize = 256;
}

impl fmt::Write for Message {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = Self::MOST_BYTES - self.0.len();
        if text.len() <= room {
            self.0.push_str(text);
            return Ok(());
        }
        self.0.push_str(up_to(text, room));
        Err(fmt::Error)
    }
}

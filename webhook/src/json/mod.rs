//! JSON that is read once, borrowed where it is wanted and passed over where it is not.
//!
//! Of a review the most is never looked at: managed fields, probes, resources. A reader that checks the grammar of all of
//! that spends more time on it than on everything else together, so this one only looks for its end, 64 bytes at a time.
//! What is read is checked like everywhere; of what is passed over only brackets are counted and strings are closed. The
//! API server writes nothing but JSON. Anybody else who sends such a text gets a patch for a pod that no API server has.
//!
//! `webhook/tests/json.rs` compares it with serde_json on texts that nobody thought of: of what is read both accept the same texts,
//! with the same values.
//!
//! serde_json spent a third of a review's time on that grammar, and finding the end takes a tenth of it (commit 81eb2a8). A
//! whole recorded review of three containers is read in 6.2 µs, by serde_json in 10.9 µs (docs/adr/0003).

mod deserializer;
mod error;
mod raw;
mod reader;
mod scan;
mod strings;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use raw::Raw;
pub use strings::push_string;

use reader::Reader;
use serde::Deserialize;

/// Reads a value of which `text` consists. Strings without escapes are borrowed from it.
///
/// It understands what [`tokenscope_core::pod`] is made of: structs, maps with texts for keys, lists, options, texts, numbers and
/// booleans, and [`Raw`] and `IgnoredAny` for all else. Enums are refused.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    let mut reader = Reader::new(text);
    let read = T::deserialize(&mut reader).and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Error::new("more text follows the value")),
    });
    read.map_err(|error| Error { at: reader.at, ..error })
}

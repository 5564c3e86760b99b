//! JSON that is read once, borrowed where it is wanted and passed over where it is not.
//!
//! Most of a review is never needed: managed fields, probes, resources. Checking the grammar of these parts takes longer than all
//! other work, so this reader only looks for their end, 64 bytes at a time. Values that are read are checked in full. In parts
//! that are passed over, only brackets are counted and strings are closed. So a text that is no JSON may be taken. This harms
//! nobody: the API server sends only JSON, and the patch for any other sender's text is applied to no pod.
//!
//! `webhook/tests/json.rs` compares it with serde_json on random texts: of what is read both accept the same texts,
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

use std::marker::PhantomData;

pub use error::Error;
pub use raw::Raw;
use reader::Reader;
use serde::Deserialize;
use serde::de::DeserializeSeed;
pub use strings::push_string;

/// Reads a value of which `text` consists. Strings without escapes are borrowed from it.
///
/// It understands what [`tokenscope_core::pod`] is made of: structs, maps with texts for keys, lists, options, texts, numbers and
/// booleans, and [`Raw`] and `IgnoredAny` for all else. Enums are refused.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    from_str_with(text, PhantomData::<T>)
}

/// The same for a reader that knows more than the text says.
pub(crate) fn from_str_with<'a, S: DeserializeSeed<'a>>(text: &'a str, seed: S) -> Result<S::Value, Error> {
    let mut reader = Reader::new(text);
    let read = seed.deserialize(&mut reader).and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Error::new("more text follows the value")),
    });
    read.map_err(|error| Error { at: reader.at, ..error })
}

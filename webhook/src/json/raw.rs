//! A value as it is written.

use std::fmt;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

/// The JSON of a value, borrowed from the text that [`from_str`](super::from_str) reads. Its grammar was not checked.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a>(pub &'a str);

/// The name by which the reader knows that a raw value is wanted.
pub(super) const NAME: &str = "tokenscope::json::Raw";

impl<'de: 'a, 'a> Deserialize<'de> for Raw<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Raw<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Raw(text))
            }
        }
        deserializer.deserialize_newtype_struct(NAME, Read)
    }
}

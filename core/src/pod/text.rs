//! Texts that are borrowed from the bytes that they were read from.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer};

use crate::text::beyond;

/// A text that is borrowed from the bytes unless it has escapes in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text<'a>(pub(super) Cow<'a, str>);

impl AsRef<str> for Text<'_> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }

            fn visit_string<E: Error>(self, text: String) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text)))
            }
        }
        deserializer.deserialize_str(Read)
    }
}

impl<'de> Text<'de> {
    /// The same text as it is kept. Of one that has more than `most` bytes only the start is kept, which is still longer than
    /// `most`, so that it is known for too long.
    pub(super) fn keep<S: Deserialize<'de>, E: Error>(self, most: usize) -> Result<S, E> {
        let end = beyond(&self.0, most).len();
        match self.0 {
            Cow::Borrowed(text) => S::deserialize(BorrowedStrDeserializer::new(&text[..end])),
            Cow::Owned(mut text) => {
                text.truncate(end);
                S::deserialize(StringDeserializer::new(text))
            }
        }
    }
}

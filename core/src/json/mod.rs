//! JSON that is read once, borrowed where it is wanted and passed over where it is not.
//!
//! Of a review the most is never looked at: managed fields, probes, resources. A reader that checks the grammar of all of
//! that spends more time on it than on everything else together, so this one only looks for its end, 64 bytes at a time.
//! What is read is checked like everywhere; of what is passed over only brackets are counted and strings are closed. The
//! API server writes nothing but JSON, and whoever else sends such a text deceives nobody but himself: the patch that he
//! gets is for a pod that no API server has.
//!
//! serde_json spent a third of a review's time on that grammar, and finding the end takes a tenth of it (commit 81eb2a8). A
//! whole recorded review of three containers is read in 6.2 µs, by serde_json in 10.9 µs (docs/adr/0003).

mod error;
mod raw;
mod scan;
#[cfg(test)]
mod tests;

pub use error::Error;
pub use raw::Raw;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::borrow::Cow;
use std::fmt::Write as _;

/// Reads a value of which `text` consists. Strings without escapes are borrowed from it.
///
/// It understands what [`crate::pod`] is made of: structs, maps with texts for keys, lists, options, texts, numbers and
/// booleans, and [`Raw`] and `IgnoredAny` for all else. Enums are refused.
pub fn from_str<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, Error> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let read = T::deserialize(&mut reader).and_then(|value| match reader.peek() {
        None => Ok(value),
        Some(_) => Err(Error::new("more text follows the value")),
    });
    read.map_err(|error| Error { at: reader.at, ..error })
}

/// Appends `text` to JSON as a string.
pub fn push_string(json: &mut String, text: &str) {
    json.push('"');
    let mut from = 0;
    loop {
        let at = scan::end_of_plain(text.as_bytes(), from);
        // A special byte is a whole character, so both cuts are between characters.
        json.push_str(&text[from..at]);
        match text.as_bytes().get(at) {
            None => break,
            Some(b'"') => json.push_str("\\\""),
            Some(b'\\') => json.push_str("\\\\"),
            Some(control) => {
                // Writing into a String can't fail.
                let _ = write!(json, "\\u{control:04x}");
            }
        }
        from = at + 1;
    }
    json.push('"');
}

/// Deeper than this nothing is read, so that no text can exhaust the stack. What is passed over may be as deep as it likes.
const DEEPEST: u8 = 128;

struct Reader<'a> {
    text: &'a str,
    /// Where the next byte is read.
    at: usize,
    depth: u8,
}

impl<'a> Reader<'a> {
    /// The next byte that is no white space; it is not consumed.
    #[inline]
    fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    fn expect(&mut self, expected: u8, what: &'static str) -> Result<(), Error> {
        if self.peek() != Some(expected) {
            return Err(self.unexpected(what));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    fn of_another_type(&self, expected: &dyn de::Expected) -> Error {
        let found = match self.text.as_bytes().get(self.at) {
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "a list",
            Some(b'n') => "null",
            Some(b't' | b'f') => "a boolean",
            Some(b'-' | b'0'..=b'9') => "a number",
            _ => return self.unexpected("a value"),
        };
        Error::new(format!("expected {expected}, found {found}"))
    }

    #[cold]
    fn unexpected(&self, wanted: &str) -> Error {
        match self.text[self.at..].chars().next() {
            Some(found) => Error::new(format!("expected {wanted}, found {found:?}")),
            None => Error::new(format!("expected {wanted}, but the text ends")),
        }
    }

    /// Consumes a string, which begins here.
    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let from = self.at + 1;
        self.at = scan::end_of_plain(self.text.as_bytes(), from);
        let plain = &self.text[from..self.at];
        if self.text.as_bytes().get(self.at) == Some(&b'"') {
            self.at += 1;
            return Ok(Cow::Borrowed(plain));
        }
        self.with_escapes(plain).map(Cow::Owned)
    }

    /// Consumes the rest of a string, which is an escape, or an error.
    fn with_escapes(&mut self, plain: &str) -> Result<String, Error> {
        let mut string = plain.to_owned();
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(string);
                }
                Some(b'\\') => string.push(self.escape()?),
                Some(_) => return Err(Error::new("a control character in a string")),
                None => return Err(Error::new("the text ends in a string")),
            }
            let from = self.at;
            self.at = scan::end_of_plain(self.text.as_bytes(), from);
            string.push_str(&self.text[from..self.at]);
        }
    }

    /// Consumes an escape, which begins here.
    fn escape(&mut self) -> Result<char, Error> {
        let escaped = self.text.as_bytes().get(self.at + 1);
        let from = self.at;
        self.at += 2;
        Ok(match escaped {
            Some(character @ (b'"' | b'\\' | b'/')) => char::from(*character),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let unit = self.hexadecimal()?;
                let code = match unit {
                    0xd800..0xdc00 if self.text.as_bytes()[self.at..].starts_with(b"\\u") => {
                        self.at += 2;
                        let low = Some(self.hexadecimal()?).filter(|low| (0xdc00..0xe000).contains(low));
                        0x10000 + ((unit - 0xd800) << 10) + (low.ok_or_else(half)? - 0xdc00)
                    }
                    unit => unit,
                };
                char::from_u32(code).ok_or_else(half)?
            }
            _ => {
                self.at = from;
                return Err(Error::new("an escape that JSON does not know"));
            }
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, Error> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let code = digits.and_then(|digits| {
            digits
                .iter()
                .try_fold(0, |code, digit| Some(code << 4 | char::from(*digit).to_digit(16)?))
        });
        let code = code.ok_or_else(|| Error::new("\\u without four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }

    /// Consumes a number, which begins here (RFC 8259 section 6).
    fn number(&mut self) -> Result<&'a str, Error> {
        let from = self.at;
        let next = |reader: &Self| reader.text.as_bytes().get(reader.at).copied();
        let skip_digits = |reader: &mut Self| {
            let from = reader.at;
            while next(reader).is_some_and(|byte| byte.is_ascii_digit()) {
                reader.at += 1;
            }
            match reader.at - from {
                0 => Err(reader.unexpected("a digit")),
                digits => Ok(digits),
            }
        };
        if next(self) == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = next(self) == Some(b'0');
        if skip_digits(self)? > 1 && leading_zero {
            return Err(Error::new("a number that begins with 0"));
        }
        if next(self) == Some(b'.') {
            self.at += 1;
            skip_digits(self)?;
        }
        if matches!(next(self), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(next(self), Some(b'+' | b'-')) {
                self.at += 1;
            }
            skip_digits(self)?;
        }
        Ok(&self.text[from..self.at])
    }

    fn literal<T>(&mut self, literal: &'static str, value: T) -> Result<T, Error> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.unexpected("a value"));
        }
        self.at += literal.len();
        Ok(value)
    }

    /// Consumes a value that nobody wants.
    fn skip(&mut self) -> Result<(), Error> {
        let end = match self.peek() {
            Some(b'{' | b'[') => scan::end_of_nested(self.text.as_bytes(), self.at),
            Some(b'"') => scan::end_of_string(self.text.as_bytes(), self.at),
            Some(b'n') => return self.literal("null", ()),
            Some(b't') => return self.literal("true", ()),
            Some(b'f') => return self.literal("false", ()),
            Some(b'-' | b'0'..=b'9') => return self.number().map(drop),
            _ => return Err(self.unexpected("a value")),
        };
        self.at = end.ok_or_else(|| Error::new("the text ends in the value"))?;
        Ok(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        if self.depth == DEEPEST {
            return Err(Error::new("nested too deeply"));
        }
        self.depth += 1;
        self.at += 1;
        let value = read(self)?;
        self.depth -= 1;
        Ok(value)
    }
}

#[cold]
fn half() -> Error {
    Error::new("half a surrogate pair")
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.peek() {
            Some(b'"') => self.deserialize_str(visitor),
            Some(b'{') => self.deserialize_map(visitor),
            Some(b'[') => self.deserialize_seq(visitor),
            Some(b'n') => self.literal("null", ()).and_then(|()| visitor.visit_unit()),
            Some(b't') => self.literal("true", true).and_then(|value| visitor.visit_bool(value)),
            Some(b'f') => self.literal("false", false).and_then(|value| visitor.visit_bool(value)),
            Some(b'-' | b'0'..=b'9') => {
                let number = self.number()?;
                if let Ok(number) = number.parse() {
                    return visitor.visit_u64(number);
                }
                // An integer has no -0, and a float has.
                if let Some(number) = number.parse().ok().filter(|number| *number != 0) {
                    return visitor.visit_i64(number);
                }
                match number.parse() {
                    Ok(number) if f64::is_finite(number) => visitor.visit_f64(number),
                    _ => Err(Error::new("a number out of range")),
                }
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() != Some(b'"') {
            return Err(self.of_another_type(&visitor));
        }
        match self.string()? {
            Cow::Borrowed(string) => visitor.visit_borrowed_str(string),
            Cow::Owned(string) => visitor.visit_string(string),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() != Some(b'{') {
            return Err(self.of_another_type(&visitor));
        }
        self.deeper(|reader| {
            let mut members = Items::of(reader);
            let value = visitor.visit_map(&mut members)?;
            // A visitor may stop before the end.
            if !members.ended && members.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
                return Err(Error::new("a member too many"));
            }
            Ok(value)
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() != Some(b'[') {
            return Err(self.of_another_type(&visitor));
        }
        self.deeper(|reader| {
            let mut items = Items::of(reader);
            let value = visitor.visit_seq(&mut items)?;
            if !items.ended && items.next_element::<IgnoredAny>()?.is_some() {
                return Err(Error::new("an item too many"));
            }
            Ok(value)
        })
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.peek() == Some(b'n') {
            self.literal("null", ())?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name == raw::NAME {
            self.peek();
            let from = self.at;
            self.skip()?;
            return visitor.visit_borrowed_str(&self.text[from..self.at]);
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.skip()?;
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf
        unit unit_struct tuple tuple_struct enum identifier
    }
}

/// The inside of an object or a list.
struct Items<'a, 'b> {
    reader: &'b mut Reader<'a>,
    first: bool,
    ended: bool,
}

impl<'a, 'b> Items<'a, 'b> {
    fn of(reader: &'b mut Reader<'a>) -> Self {
        Self {
            reader,
            first: true,
            ended: false,
        }
    }

    /// Whether another one follows; then it begins here.
    #[inline]
    fn goes_on(&mut self, close: u8, expected: &'static str) -> Result<bool, Error> {
        let first = std::mem::replace(&mut self.first, false);
        match self.reader.peek() {
            _ if self.ended => return Ok(false),
            Some(byte) if byte == close => {
                self.reader.at += 1;
                self.ended = true;
                return Ok(false);
            }
            _ if first => {}
            Some(b',') => self.reader.at += 1,
            _ => return Err(self.reader.unexpected(expected)),
        }
        Ok(true)
    }
}

impl<'a> MapAccess<'a> for Items<'a, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.goes_on(b'}', "',' or '}'")? {
            return Ok(None);
        }
        if self.reader.peek() != Some(b'"') {
            return Err(self.reader.unexpected("a member's name"));
        }
        let name = self.reader.string()?;
        self.reader.expect(b':', "':'")?;
        match name {
            Cow::Borrowed(name) => seed.deserialize(BorrowedStrDeserializer::new(name)),
            Cow::Owned(name) => seed.deserialize(name.into_deserializer()),
        }
        .map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(&mut *self.reader)
    }
}

impl<'a> SeqAccess<'a> for Items<'a, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'a>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if !self.goes_on(b']', "',' or ']'")? {
            return Ok(None);
        }
        seed.deserialize(&mut *self.reader).map(Some)
    }
}

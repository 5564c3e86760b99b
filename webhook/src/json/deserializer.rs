//! The reader as a deserializer of serde.

use std::borrow::Cow;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::error::Error;
use super::raw;
use super::reader::Reader;

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

    /// True if another one follows; then it begins here.
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

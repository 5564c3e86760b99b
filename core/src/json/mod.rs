//! JSON that is read once, borrowed where it is wanted and passed over where it is not.
//!
//! Of a review the most is never looked at: managed fields, probes, resources. A reader that checks the grammar of all of
//! that spends more time on it than on everything else together, so this one only looks for its end, 64 bytes at a time.
//! What is read is checked like everywhere; of what is passed over only brackets are counted and strings are closed. The
//! API server writes nothing but JSON, and whoever else sends such a text deceives nobody but himself: the patch that he
//! gets is for a pod that no API server has.

mod scan;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use std::borrow::Cow;
use std::fmt::{self, Write as _};

/// Reads a value of which `text` consists. Strings without escapes are borrowed from it.
///
/// It understands what [`crate::pod`] is made of: structs, maps with texts for keys, lists, options, texts, numbers and
/// booleans, and `IgnoredAny` for all else. Enums are refused.
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

/// Why a text can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Error {
    what: Cow<'static, str>,
    at: usize,
}

impl Error {
    fn new(what: impl Into<Cow<'static, str>>) -> Self {
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
        let end = (0..=room).rev().find(|&at| text.is_char_boundary(at));
        self.0.push_str(&text[..end.unwrap_or_default()]);
        Err(fmt::Error)
    }
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

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::{Pod, Text};
    use proptest::prelude::*;
    use serde_json::Value;

    fn message<'a, T: Deserialize<'a> + fmt::Debug>(text: &'a str) -> String {
        from_str::<T>(text).unwrap_err().to_string()
    }

    #[test]
    fn an_error_says_what_is_wrong_and_where() {
        for (text, expected) in [
            ("", "expected a value, but the text ends at byte 0"),
            ("{", "expected a member's name, but the text ends at byte 1"),
            (r#"{"a":1,}"#, "expected a member's name, found '}' at byte 7"),
            (r#"{"a" 1}"#, "expected ':', found '1' at byte 5"),
            (r#"{"a":1 "b":2}"#, "expected ',' or '}', found '\"' at byte 7"),
            ("[1 2]", "expected ',' or ']', found '2' at byte 3"),
            ("[1,]", "expected a value, found ']' at byte 3"),
            ("[ä]", "expected a value, found 'ä' at byte 1"),
            ("[01]", "a number that begins with 0 at byte 3"),
            ("[-]", "expected a digit, found ']' at byte 2"),
            ("1e999", "a number out of range at byte 5"),
            ("nul", "expected a value, found 'n' at byte 0"),
            (r#""a"#, "the text ends in a string at byte 2"),
            ("\"\t\"", "a control character in a string at byte 1"),
            (r#""\x""#, "an escape that JSON does not know at byte 1"),
            (r#""\u12g4""#, "\\u without four hexadecimal digits at byte 3"),
            (r#""\ud800""#, "half a surrogate pair at byte 7"),
            (r#""\ud800\u0041""#, "half a surrogate pair at byte 13"),
            ("1 2", "more text follows the value at byte 2"),
        ] {
            assert_eq!(message::<Value>(text), expected, "{text}");
        }
        assert_eq!(
            message::<Pod<Text<'_>>>(r#"{"spec":{"containers":[{"image":"x"}]}}"#),
            "missing field `name` at byte 36"
        );
        assert_eq!(
            message::<Pod<Text<'_>>>(r#"{"spec":{"containers":{}}}"#),
            "expected a sequence, found an object at byte 22"
        );
        assert_eq!(
            message::<IgnoredAny>(r#"{"a":["}"]"#),
            "the text ends in the value at byte 0"
        );
        assert_eq!(message::<(u8, u8)>("[1,2,3]"), "an item too many at byte 6");
    }

    #[test]
    fn no_depth_exhausts_the_stack() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        assert!(from_str::<Value>(&deep(128)).is_ok());
        assert_eq!(message::<Value>(&deep(129)), "nested too deeply at byte 128");
        assert!(from_str::<IgnoredAny>(&deep(1_000_000)).is_ok());
    }

    /// Texts that have everything in them that could be taken for something else.
    fn any_text() -> impl Strategy<Value = String> {
        proptest::string::string_regex(r#"[a-c{}\[\]":,\\ \n\u{1}/äß€😀]{0,40}"#).unwrap()
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            any::<i64>().prop_map(Value::from),
            (-99..99).prop_map(|n| Value::from(f64::from(n) / 8.0))
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            any_text().prop_map(Value::from)
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any_text(), inner, 0..6).prop_map(|members| members.into_iter().collect()),
            ]
        })
    }

    /// What serde_json makes of it: floats there may differ in the last digit.
    fn rounded(value: Value) -> Value {
        match value {
            Value::Number(number) if number.is_f64() => (number.as_f64().unwrap() as f32).to_string().into(),
            Value::Array(items) => items.into_iter().map(rounded).collect(),
            Value::Object(members) => members.into_iter().map(|(key, value)| (key, rounded(value))).collect(),
            value => value,
        }
    }

    /// The whole of a text that was damaged in one place.
    fn damaged(text: &str, at: prop::sample::Index, by: Option<char>) -> String {
        let mut characters: Vec<char> = text.chars().collect();
        let at = at.index(characters.len());
        match by {
            Some(by) => characters[at] = by,
            None => drop(characters.remove(at)),
        }
        characters.into_iter().collect()
    }

    fn any_damage() -> impl Strategy<Value = Option<char>> {
        prop::option::of(prop::sample::select(
            "{}[]\",:\\ 0-.eu\n\u{1}nä".chars().collect::<Vec<_>>(),
        ))
    }

    /// A pod whose members are what they should be, or mostly.
    fn any_pod() -> impl Strategy<Value = String> {
        let list = |item: BoxedStrategy<Value>| prop::collection::vec(item, 0..4).prop_map(Value::from).boxed();
        let object = |members: Vec<(&'static str, BoxedStrategy<Value>)>| {
            let members: Vec<_> = members
                .into_iter()
                .map(|(key, value)| prop::option::weighted(0.97, value).prop_map(move |value| (key, value)))
                .collect();
            (members, prop::collection::btree_map("[x-z]{1,3}", any_value(), 0..3))
                .prop_map(|(known, unknown)| {
                    let known = known
                        .into_iter()
                        .filter_map(|(key, value)| Some((key.to_owned(), value?)));
                    known.chain(unknown).collect::<Value>()
                })
                .boxed()
        };
        let text = || any_text().prop_map(Value::from).boxed();
        let texts = || {
            prop::collection::btree_map(any_text(), text(), 0..4)
                .prop_map(|pairs| pairs.into_iter().collect())
                .boxed()
        };
        let variable = object(vec![
            ("name", text()),
            ("value", text()),
            (
                "valueFrom",
                object(vec![("fieldRef", object(vec![("fieldPath", text())]))]),
            ),
        ]);
        let mount = object(vec![
            ("name", text()),
            ("mountPath", text()),
            ("readOnly", any::<bool>().prop_map(Value::from).boxed()),
        ]);
        let container = object(vec![
            ("name", text()),
            ("env", list(variable)),
            ("envFrom", list(any_value().boxed())),
            ("volumeMounts", list(mount)),
        ]);
        let token = object(vec![
            ("audience", text()),
            ("expirationSeconds", any::<i64>().prop_map(Value::from).boxed()),
            ("path", text()),
        ]);
        let projected = object(vec![("sources", list(object(vec![("serviceAccountToken", token)])))]);
        let metadata = object(vec![
            ("name", text()),
            ("labels", texts()),
            ("annotations", texts()),
            ("managedFields", any_value().boxed()),
        ]);
        let volume = object(vec![("name", text()), ("projected", projected)]);
        let spec = object(vec![
            ("containers", list(container.clone())),
            ("initContainers", list(container)),
            ("volumes", list(volume)),
            ("nodeSelector", texts()),
        ]);
        let pod = object(vec![
            ("metadata", metadata),
            ("spec", spec),
            ("status", any_value().boxed()),
        ]);
        (pod, any::<bool>()).prop_map(|(pod, pretty)| if pretty { format!("{pod:#}") } else { pod.to_string() })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        #[test]
        fn what_is_written_as_a_string_is_read_as_that_string(text in prop_oneof![any_text(), any::<String>()]) {
            let mut json = String::new();
            push_string(&mut json, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn whole_values_are_what_serde_json_reads(value in any_value()) {
            for text in [value.to_string(), format!(" {value:#}\n")] {
                prop_assert_eq!(rounded(from_str(&text).unwrap()), rounded(value.clone()));
            }
        }

        #[test]
        fn damaged_texts_are_refused_where_serde_json_refuses_them(value in any_value(), at: prop::sample::Index, by in any_damage()) {
            let text = damaged(&value.to_string(), at, by);
            let expected: Option<Value> = serde_json::from_str(&text).ok();
            prop_assert_eq!(from_str::<Value>(&text).ok().map(rounded), expected.map(rounded), "{}", text);
        }

        #[test]
        fn pods_are_what_serde_json_reads(text in any_pod()) {
            let expected = serde_json::from_str::<Pod<Text<'_>>>(&text).map_err(drop);
            let found = from_str::<Pod<Text<'_>>>(&text).map_err(drop);
            prop_assert_eq!(format!("{:?}", found), format!("{:?}", expected), "{}", text);
        }

        #[test]
        fn a_damaged_pod_that_serde_json_reads_is_the_same_here(text in any_pod(), at: prop::sample::Index, by in any_damage()) {
            let text = damaged(&text, at, by);
            let found = from_str::<Pod<Text<'_>>>(&text);
            if let Ok(expected) = serde_json::from_str::<Pod<Text<'_>>>(&text) {
                prop_assert_eq!(format!("{:?}", found.unwrap()), format!("{:?}", expected), "{}", text);
            }
        }

        #[test]
        fn what_is_passed_over_ends_where_it_ends(before in 0..70_usize, value in any_value(), pretty: bool) {
            let value = if pretty { format!("{value:#}") } else { value.to_string() };
            let text = format!("{}[{value},{value} , 7]", " ".repeat(before));
            prop_assert_eq!(from_str::<(IgnoredAny, IgnoredAny, u8)>(&text).unwrap().2, 7);
        }

        #[test]
        fn half_a_value_is_an_error_wherever_it_is_cut(value in any_value(), at: prop::sample::Index) {
            let text = format!("[{value}]");
            let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let text = &text[..ends[at.index(ends.len())]];
            prop_assert!(from_str::<IgnoredAny>(text).is_err());
            prop_assert!(from_str::<Value>(text).is_err());
        }
    }
}

//! JSON in which a name can stand once in an object.
//!
//! RFC 7519 §4 lets a reader refuse a repeated claim name or take the last one. Two readers that differ there see two
//! tokens in one text, so it is refused here. What AWS does is not documented: not yet seen by AWS.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Reads an object. Its depth is bounded by `serde_json` (128 levels).
pub(crate) fn object(text: &[u8]) -> Result<Map<String, Value>, serde_json::Error> {
    match serde_json::from_slice(text)? {
        StrictValue(Value::Object(object)) => Ok(object),
        StrictValue(_) => Err(serde_json::Error::custom("not an object")),
    }
}

struct StrictValue(Value);

impl<'de> Deserialize<'de> for StrictValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated names")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(StrictValue(value)) = access.next_element()? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some((name, StrictValue(value))) = access.next_entry::<String, StrictValue>()? {
            if object.contains_key(&name) {
                return Err(A::Error::custom("a name stands twice in an object"));
            }
            object.insert(name, value);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_value_is_read_as_it_stands() {
        let value = json!({"a": [null, true, -1, 18_446_744_073_709_551_615_u64, 1.5, "x\"\u{1F600}"], "b": {"a": {}}});
        assert_eq!(Value::Object(object(value.to_string().as_bytes()).unwrap()), value);
        assert!(object(b"[]").is_err() && object(b"{} {}").is_err() && object(b"").is_err());
    }

    #[test]
    fn a_name_that_stands_twice_is_refused_at_every_depth_and_in_every_spelling() {
        for text in [
            r#"{"sub": "a", "sub": "a"}"#,
            r#"{"a": [{"b": {"c": 1, "d": 2, "c": 3}}]}"#,
            r#"{"sub": "a", "\u0073ub": "b"}"#,
        ] {
            assert!(object(text.as_bytes()).is_err(), "{text}");
        }
        assert!(object(br#"{"sub": "a", "Sub": "b", "x": {"sub": "c"}}"#).is_ok());
    }
}

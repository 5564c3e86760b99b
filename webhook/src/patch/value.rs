//! The values that can be written into a patch.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::json::push_string;

/// Something that is written as JSON.
pub trait Json {
    /// Appends its JSON to `text`.
    fn write(&self, text: &mut String);
}

impl Json for str {
    fn write(&self, text: &mut String) {
        push_string(text, self);
    }
}

impl Json for Cow<'_, str> {
    fn write(&self, text: &mut String) {
        push_string(text, self);
    }
}

impl<T: Json + ?Sized> Json for &T {
    fn write(&self, text: &mut String) {
        (**self).write(text);
    }
}

/// A list.
#[derive(Clone, Copy, Debug)]
pub struct JsonList<'a, T>(pub &'a [T]);

impl<T: Json> Json for JsonList<'_, T> {
    fn write(&self, text: &mut String) {
        text.push('[');
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            value.write(text);
        }
        text.push(']');
    }
}

/// An object.
#[derive(Clone, Copy, Debug)]
pub struct JsonObject<'a, T>(pub &'a [(&'a str, T)]);

impl<T: Json> Json for JsonObject<'_, T> {
    fn write(&self, text: &mut String) {
        text.push('{');
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            push_string(text, name);
            text.push(':');
            value.write(text);
        }
        text.push('}');
    }
}

/// Appends a number.
pub(crate) fn push_number(text: &mut String, number: usize) {
    // The index of a container, mostly.
    if let Some(digit) = u32::try_from(number)
        .ok()
        .and_then(|number| char::from_digit(number, 10))
    {
        return text.push(digit);
    }
    // Writing into a String can't fail.
    let _ = write!(text, "{number}");
}

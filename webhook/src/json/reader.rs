//! The reader of a text: white space, literals, numbers, and the end of what nobody wants.

use serde::de;

use super::error::Error;
use super::scan;

/// Nothing is read that is nested more deeply, so that no text can exhaust the stack. It is the bound of serde_json. What is passed
/// over has no bound.
const DEEPEST: u8 = 127;

/// A text, and how far it is read.
pub(super) struct Reader<'a> {
    pub(super) text: &'a str,
    /// The place of the next byte.
    pub(super) at: usize,
    depth: u8,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// The next byte that is no white space; it is not consumed.
    #[inline]
    pub(super) fn peek(&mut self) -> Option<u8> {
        loop {
            match *self.text.as_bytes().get(self.at)? {
                b' ' | b'\n' | b'\r' | b'\t' => self.at += 1,
                byte => return Some(byte),
            }
        }
    }

    #[inline]
    pub(super) fn expect(&mut self, expected: u8, what: &'static str) -> Result<(), Error> {
        if self.peek() != Some(expected) {
            return Err(self.unexpected(what));
        }
        self.at += 1;
        Ok(())
    }

    #[cold]
    pub(super) fn of_another_type(&self, expected: &dyn de::Expected) -> Error {
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
    pub(super) fn unexpected(&self, wanted: &str) -> Error {
        match self.text[self.at..].chars().next() {
            Some(found) => Error::new(format!("expected {wanted}, found {found:?}")),
            None => Error::new(format!("expected {wanted}, but the text ends")),
        }
    }

    /// Consumes a number, which begins here (RFC 8259 section 6).
    pub(super) fn number(&mut self) -> Result<&'a str, Error> {
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

    pub(super) fn literal<T>(&mut self, literal: &'static str, value: T) -> Result<T, Error> {
        if !self.text.as_bytes()[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.unexpected("a value"));
        }
        self.at += literal.len();
        Ok(value)
    }

    /// Consumes a value that nobody wants.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
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

    pub(super) fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
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

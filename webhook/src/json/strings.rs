//! Strings, as they are read and as they are written.

use std::borrow::Cow;
use std::fmt::Write as _;

use super::error::Error;
use super::reader::Reader;
use super::scan;

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

impl<'a> Reader<'a> {
    /// Consumes a string, which begins here.
    pub(super) fn string(&mut self) -> Result<Cow<'a, str>, Error> {
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
}

#[cold]
fn half() -> Error {
    Error::new("half a surrogate pair")
}

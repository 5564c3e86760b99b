//! JSON Pointers (RFC 6901).

use super::value::push_number;

/// A place in a document. It is a chain of borrowed parts, so that one costs no memory of its own.
#[derive(Clone, Copy, Debug)]
pub struct Pointer<'a>(Option<Tail<'a>>);

/// The last part, and what stands before it.
#[derive(Clone, Copy, Debug)]
struct Tail<'a> {
    before: &'a Pointer<'a>,
    token: ReferenceToken<'a>,
}

#[derive(Clone, Copy, Debug)]
enum ReferenceToken<'a> {
    Member(&'a str),
    Index(usize),
    End,
}

impl<'a> Pointer<'a> {
    /// The whole document.
    pub const ROOT: Self = Self(None);

    /// A member of the object here.
    pub fn member(&'a self, name: &'a str) -> Self {
        self.then(ReferenceToken::Member(name))
    }

    /// An item of the list here.
    pub fn index(&'a self, index: usize) -> Self {
        self.then(ReferenceToken::Index(index))
    }

    /// Behind the last item of the list here.
    pub fn end(&'a self) -> Self {
        self.then(ReferenceToken::End)
    }

    fn then(&'a self, token: ReferenceToken<'a>) -> Self {
        Self(Some(Tail { before: self, token }))
    }

    /// Appends it to `text`, which is inside of a JSON string. The names that the webhook uses need no escapes of JSON.
    pub(super) fn write(&self, text: &mut String) {
        let Self(Some(Tail { before, token })) = self else {
            return;
        };
        before.write(text);
        text.push('/');
        match token {
            ReferenceToken::Member(name) => push_escaped(text, name),
            ReferenceToken::Index(index) => push_number(text, *index),
            ReferenceToken::End => text.push('-'),
        }
    }
}

/// A reference token: `~` and `/` have escapes (RFC 6901, section 3).
fn push_escaped(text: &mut String, name: &str) {
    let mut rest = name;
    let is_special = |byte: u8| matches!(byte, b'~' | b'/');
    while let Some(at) = rest.bytes().position(is_special) {
        let (plain, special) = rest.split_at(at);
        text.push_str(plain);
        text.push_str(if special.starts_with('~') { "~0" } else { "~1" });
        rest = &special[1..];
    }
    text.push_str(rest);
}

//! The body of a request of the query protocol: `application/x-www-form-urlencoded`.
//!
//! Escaping is a few lines, so this crate has no URL library. No figure was measured.

use std::fmt::Write as _;

const VERSION: &str = "2011-06-15";

/// A body that grows member by member.
pub(crate) struct Form(String);

impl Form {
    pub(crate) fn of(action: &str) -> Self {
        Self(format!("Action={action}&Version={VERSION}"))
    }

    /// A member. `name` is one of ours, which needs no escapes.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        self.0.push('&');
        self.0.push_str(name);
        self.0.push('=');
        escape(&mut self.0, value);
    }

    pub(crate) fn add_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.add(name, value);
        }
    }

    pub(crate) fn add_number(&mut self, name: &str, value: Option<u32>) {
        if let Some(value) = value {
            self.add(name, &value.to_string());
        }
    }

    /// `<name>.member.N`, counted from 1.
    pub(crate) fn add_list<'a>(&mut self, name: &str, field: &str, values: impl IntoIterator<Item = &'a str>) {
        for (index, value) in values.into_iter().enumerate() {
            self.add(&format!("{name}.member.{}{field}", index + 1), value);
        }
    }

    pub(crate) fn add_tags(&mut self, tags: &[(&str, &str)]) {
        for (index, (key, value)) in tags.iter().enumerate() {
            self.add(&format!("Tags.member.{}.Key", index + 1), key);
            self.add(&format!("Tags.member.{}.Value", index + 1), value);
        }
    }

    pub(crate) fn into_body(self) -> String {
        self.0
    }
}

/// Everything but the unreserved characters of RFC 3986.
fn escape(to: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            to.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(to, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_escaped_and_lists_counted_from_one() {
        let mut form = Form::of("AssumeRole");
        form.add("A", "a b&c=d/é~");
        form.add_list("L", ".arn", ["x", "y"]);
        form.add_tags(&[("k", "v")]);
        form.add_number("N", Some(900));
        form.add_some("S", None);
        assert_eq!(
            form.into_body(),
            "Action=AssumeRole&Version=2011-06-15&A=a%20b%26c%3Dd%2F%C3%A9~&L.member.1.arn=x&L.member.2.arn=y\
             &Tags.member.1.Key=k&Tags.member.1.Value=v&N=900"
        );
    }
}

//! The operations of a patch, as far as the webhook needs them.

use super::{Json, Pointer};

/// An operation of RFC 6902, section 4.
#[derive(Clone, Copy)]
pub enum Operation<'a> {
    /// Sets a member, or inserts an item before the one at the path.
    Add {
        /// Where.
        path: Pointer<'a>,
        /// The value.
        value: &'a dyn Json,
    },
    /// Puts another value in the place of one.
    Replace {
        /// Where.
        path: Pointer<'a>,
        /// The new value.
        value: &'a dyn Json,
    },
    /// Takes a value away.
    Remove {
        /// Where.
        path: Pointer<'a>,
    },
    /// Takes a value away and adds it elsewhere.
    Move {
        /// The place of the value.
        from: Pointer<'a>,
        /// The new place of the value.
        path: Pointer<'a>,
    },
}

impl Operation<'_> {
    /// Appends its JSON to `text`.
    pub fn write(&self, text: &mut String) {
        let (name, path) = match self {
            Self::Add { path, .. } => ("add", path),
            Self::Replace { path, .. } => ("replace", path),
            Self::Remove { path } => ("remove", path),
            Self::Move { path, .. } => ("move", path),
        };
        begin(text, name, *path);
        match self {
            Self::Add { value, .. } | Self::Replace { value, .. } => {
                text.push_str(VALUE);
                value.write(text);
                text.push('}');
            }
            Self::Move { from, .. } => {
                text.push_str("\",\"from\":\"");
                from.write(text);
                text.push_str("\"}");
            }
            Self::Remove { .. } => text.push_str("\"}"),
        }
    }
}

/// The text between an operation's place and its value.
pub(super) const VALUE: &str = "\",\"value\":";

/// Appends an operation's name and place, whose string is left open.
pub(super) fn begin(text: &mut String, name: &str, path: Pointer<'_>) {
    text.push_str("{\"op\":\"");
    text.push_str(name);
    text.push_str("\",\"path\":\"");
    path.write(text);
}

//! A JSON Patch (RFC 6902), written straight to its text.
//!
//! The crate json-patch, with which the tests apply patches, holds each value as a document of serde_json first. Here a patch is one
//! text from the beginning (docs/adr/0016). The difference was not measured by itself.

mod operation;
mod pointer;
mod value;

use std::ops::Range;

pub use operation::Operation;
pub use pointer::Pointer;
pub(crate) use value::push_number;
pub use value::{Json, JsonList, JsonObject};

/// A patch under construction.
#[derive(Debug, Default)]
pub struct Patch {
    text: String,
}

impl Patch {
    /// A patch that has room for so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
        }
    }

    /// Appends an operation.
    pub fn push(&mut self, operation: &Operation<'_>) {
        self.text.push(if self.text.is_empty() { '[' } else { ',' });
        operation.write(&mut self.text);
    }

    /// Appends the addition of each of these at the same place. Most of a patch are the variables of a container, whose place is written
    /// once and then copied.
    pub fn add_each<'v>(&mut self, path: Pointer<'_>, values: impl Iterator<Item = &'v dyn Json>) {
        let mut head: Option<Range<usize>> = None;
        for value in values {
            self.text.push(if self.text.is_empty() { '[' } else { ',' });
            if let Some(head) = head.clone() {
                self.text.extend_from_within(head);
            } else {
                let from = self.text.len();
                operation::begin(&mut self.text, "add", path);
                self.text.push_str(operation::VALUE);
                head = Some(from..self.text.len());
            }
            value.write(&mut self.text);
            self.text.push('}');
        }
    }

    /// The text; `None` where there is nothing to do, which needs no patch at all.
    pub fn finish(mut self) -> Option<String> {
        if self.text.is_empty() {
            return None;
        }
        self.text.push(']');
        Some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn operations_are_those_of_rfc_6902() {
        let root = Pointer::ROOT;
        let map = root.member("a~b/c");
        let list = root.member("list");
        let mut patch = Patch::default();
        patch.push(&Operation::Add {
            path: list.end(),
            value: &"x\"",
        });
        patch.push(&Operation::Add {
            path: map,
            value: &JsonObject(&[("one", "1"), ("two", "2")]),
        });
        patch.push(&Operation::Replace {
            path: list.index(12),
            value: &JsonList(&["y", "z"]),
        });
        patch.push(&Operation::Remove {
            path: map.member("one"),
        });
        patch.push(&Operation::Move {
            from: list.index(3),
            path: list.index(0),
        });
        assert_eq!(
            serde_json::from_str::<Value>(&patch.finish().unwrap()).unwrap(),
            json!([
                {"op": "add", "path": "/list/-", "value": "x\""},
                {"op": "add", "path": "/a~0b~1c", "value": {"one": "1", "two": "2"}},
                {"op": "replace", "path": "/list/12", "value": ["y", "z"]},
                {"op": "remove", "path": "/a~0b~1c/one"},
                {"op": "move", "from": "/list/3", "path": "/list/0"},
            ])
        );
    }

    #[test]
    fn additions_at_one_place_are_those_that_are_written_one_by_one() {
        let list = Pointer::ROOT.member("a/b");
        let end = list.end();
        let (mut together, mut single) = (Patch::default(), Patch::default());
        together.add_each(end, ["x", "y", "z"].iter().map(|value| value as &dyn Json));
        for value in ["x", "y", "z"] {
            single.push(&Operation::Add {
                path: end,
                value: &value,
            });
        }
        assert_eq!(together.finish(), single.finish());
    }

    #[test]
    fn no_operations_are_no_patch() {
        assert_eq!(Patch::with_capacity(8).finish(), None);
    }
}

//! The places where two pods differ.

use std::fmt::Write as _;

use serde_json::Value;

/// The places where two pods differ, each place in a line.
pub(super) fn differences(expected: &Value, got: &Value) -> String {
    const MOST: usize = 12;
    let mut lines = Vec::new();
    compare(expected, got, &mut String::new(), &mut lines);
    let more = lines.len().saturating_sub(MOST);
    lines.truncate(MOST);
    if more > 0 {
        lines.push(format!("and {more} more"));
    }
    lines.join("\n")
}

fn compare(expected: &Value, got: &Value, path: &mut String, lines: &mut Vec<String>) {
    let length = path.len();
    match (expected, got) {
        (Value::Object(one), Value::Object(other)) => {
            let keys = one.keys().chain(other.keys().filter(|key| !one.contains_key(*key)));
            for key in keys {
                let _ = write!(path, "/{key}");
                compare(&expected[key], &got[key], path, lines);
                path.truncate(length);
            }
        }
        (Value::Array(one), Value::Array(other)) => {
            for index in 0..one.len().max(other.len()) {
                let _ = write!(path, "/{index}");
                let item = |items: &[Value]| items.get(index).cloned().unwrap_or_default();
                compare(&item(one), &item(other), path, lines);
                path.truncate(length);
            }
        }
        _ if expected == got => {}
        _ => lines.push(format!("{path}: expected {}, got {}", shown(expected), shown(got))),
    }
}

fn shown(value: &Value) -> String {
    if value.is_null() {
        "nothing".to_owned()
    } else {
        value.to_string()
    }
}

//! The reference of the API as a document, from the same schema that the API server gets.

use std::fmt::Write as _;

use serde_json::Value;

use crate::conditions::Reason;
use crate::yaml::{CannotWriteYaml, values};

/// docs/reference.md: every field of both kinds with its type, default and meaning, and every condition's reasons.
pub(crate) fn reference() -> Result<String, CannotWriteYaml> {
    let [namespaced, cluster, boundary] = values()?;
    let mut text = String::from(
        "<!-- Generated from the types in crds/src by `cargo xtask crds`. Changes here are lost. -->\n\n# Reference\n\n\
         `kubectl explain tsp.spec` says the same.\n",
    );
    kind(&mut text, &namespaced, |_| true);
    text.push_str("\n`ClusterTokenScopePolicy` (short name `ctsp`) has the same fields, and:\n\n");
    let own = |path: &str| path.starts_with("spec.namespaceSelector");
    fields(&mut text, &cluster, &own);
    kind(&mut text, &boundary, |_| true);
    conditions(&mut text);
    Ok(text)
}

fn kind(text: &mut String, definition: &Value, wanted: fn(&str) -> bool) {
    let names = &definition["spec"]["names"];
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    // Writing into a String can't fail, here and below.
    let _ = write!(
        text,
        "\n## {} (short name `{}`)\n\n",
        word(&names["kind"]),
        word(&names["shortNames"][0])
    );
    fields(text, definition, &wanted);
}

fn fields(text: &mut String, definition: &Value, wanted: &dyn Fn(&str) -> bool) {
    text.push_str("| field | type | default | meaning |\n|---|---|---|---|\n");
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    for part in ["spec", "status"] {
        if schema["properties"][part].is_null() {
            continue;
        }
        walk(text, part, &schema["properties"][part], wanted);
    }
}

fn walk(text: &mut String, path: &str, schema: &Value, wanted: &dyn Fn(&str) -> bool) {
    let of = |key: &str| schema[key].as_str().unwrap_or_default();
    let items = &schema["items"];
    if wanted(path) {
        let kind = match (of("type"), items["type"].as_str()) {
            ("array", Some(item)) => format!("list of {item}s"),
            ("object", _) if schema["additionalProperties"].is_object() => "map".to_owned(),
            (kind, _) => kind.to_owned(),
        };
        let words = schema["enum"].as_array().map(|words| {
            let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
            words.join(", ")
        });
        let default = match &schema["default"] {
            Value::Null => String::new(),
            default => format!("`{default}`"),
        };
        let _ = writeln!(
            text,
            "| `{path}` | {} | {default} | {} |",
            words.unwrap_or(kind),
            of("description").replace('|', "\\|")
        );
    }
    let suffix = if items.is_object() { "[]" } else { "" };
    let inner = if items.is_object() { items } else { schema };
    for (name, property) in inner["properties"].as_object().into_iter().flatten() {
        walk(text, &format!("{path}{suffix}.{name}"), property, wanted);
    }
}

fn conditions(text: &mut String) {
    text.push_str("\n## Conditions\n\nThere are no other reasons.\n\n| condition | status | reason | meaning |\n|---|---|---|---|\n");
    for reason in Reason::ALL {
        let status = if reason.is_true() { "True" } else { "False" };
        let _ = writeln!(
            text,
            "| {} | {status} | {} | {} |",
            reason.condition_type(),
            reason.as_str(),
            reason.meaning()
        );
    }
}

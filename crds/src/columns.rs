//! The columns that `kubectl get` prints of policies and boundaries.

use serde_json::{Value, json};

/// The columns of policies of either kind, as a definition has them.
///
/// `CustomResource` would take them as attributes of each kind, and so twice.
pub(crate) fn of_policies() -> Value {
    let wide = |mut column: Value| {
        column["priority"] = json!(1);
        column
    };
    json!([
        column(
            "Roles",
            "string",
            ".status.roles",
            "the role of a matching pod that names none, or else the first that it may ask for and how many more"
        ),
        wide(column(
            "Default",
            "string",
            ".spec.roles.default",
            "the role of a matching pod that names none"
        )),
        column("Source", "string", ".spec.token.source", "who signs the token"),
        column(
            "Matched",
            "integer",
            ".status.matchedPods",
            "running pods that the policy selects"
        ),
        column(
            "Missed",
            "integer",
            ".status.missedPods",
            "matched pods that run without what the policy grants"
        ),
        wide(column(
            "Active",
            "string",
            ".status.conditions[?(@.type==\"Active\")].status",
            "whether the policy is in force now"
        )),
        column(
            "Ready",
            "string",
            ".status.conditions[?(@.type==\"Ready\")].status",
            "whether there is nothing for a person to do"
        ),
        age(),
    ])
}

/// The columns of boundaries.
pub(crate) fn of_boundaries() -> Value {
    json!([
        column("Roles", "string", ".spec.roles", "the roles that policies may allow"),
        column(
            "Sources",
            "string",
            ".spec.sources",
            "who may sign tokens; none: anybody"
        ),
        column(
            "Seconds",
            "integer",
            ".spec.maxExpirationSeconds",
            "the longest lifetime of tokens"
        ),
        age(),
    ])
}

fn column(name: &str, kind: &str, path: &str, description: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path, "description": description})
}

fn age() -> Value {
    json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"})
}

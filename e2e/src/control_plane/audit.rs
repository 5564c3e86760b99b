//! The audit log: what was asked of the API server, and what RBAC refused.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

use super::ControlPlane;

impl ControlPlane {
    /// The events of the audit log that `wanted` picks, oldest first. One a request, at its end.
    pub fn audit_events(&self, wanted: impl Fn(&Value) -> bool) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.folder.join("logs/audit.log")).context("no audit log was asked for")?;
        // The last line may be half written.
        let events = text.lines().filter_map(|line| serde_json::from_str(line).ok());
        Ok(events.filter(|event| wanted(event)).collect())
    }

    /// The requests that RBAC has refused so far, as `user verb resource`, each once. Those of the node are left out: they
    /// are refused until the authorizer has seen the pod.
    pub fn forbidden(&self) -> Result<Vec<String>> {
        let refused = self.audit_events(|event| {
            event["annotations"]["authorization.k8s.io/decision"] == "forbid"
                && !event["user"]["username"]
                    .as_str()
                    .unwrap_or_default()
                    .starts_with("system:node:")
        })?;
        let mut lines: Vec<String> = refused.iter().map(request_line).collect();
        lines.sort();
        lines.dedup();
        Ok(lines)
    }
}

/// A request of the audit log in one line: `user verb resource`, as RBAC sees it.
fn request_line(event: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &event["objectRef"];
    let what = if object.is_null() {
        text(&event["requestURI"])
    } else {
        let parts = [
            text(&object["apiGroup"]),
            text(&object["resource"]),
            text(&object["subresource"]),
        ];
        let resource = parts
            .iter()
            .filter(|part| !part.is_empty())
            .cloned()
            .collect::<Vec<_>>()
            .join("/");
        [resource, text(&object["namespace"]), text(&object["name"])]
            .join(" ")
            .trim_end()
            .to_owned()
    };
    format!("{} {} {what}", text(&event["user"]["username"]), text(&event["verb"]))
}

//! Pods as JSON.

use serde_json::{Map, Value, json};

pub(super) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(super) fn items_mut<'a>(container: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    container
        .get_mut(list)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

pub(super) fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    items(&pod["spec"]["initContainers"]).chain(items(&pod["spec"]["containers"]))
}

pub(super) fn containers_mut(pod: &mut Value) -> impl Iterator<Item = &mut Value> {
    let lists = pod.get_mut("spec").and_then(Value::as_object_mut).into_iter().flatten();
    let lists = lists.filter(|(key, _)| *key == "initContainers" || *key == "containers");
    lists.filter_map(|(_, list)| list.as_array_mut()).flatten()
}

pub(super) fn variable<'a>(container: &'a Value, name: &str) -> Option<&'a Value> {
    items(&container["env"]).find(|variable| variable["name"] == name)
}

pub(super) fn push(container: &mut Value, list: &str, item: Value) {
    match container.get_mut(list).and_then(Value::as_array_mut) {
        Some(items) => items.push(item),
        None => container[list] = json!([item]),
    }
}

/// Puts members back that are gone.
pub(super) fn put_back(from: &Value, into: &mut Value) {
    let (Some(from), Some(into)) = (from.as_object(), into.as_object_mut()) else {
        return;
    };
    for (key, value) in from {
        match into.get_mut(key) {
            Some(present) => put_back(value, present),
            None => {
                into.insert(key.clone(), value.clone());
            }
        }
    }
}

/// The API server writes every mount with its path, also where that is empty.
pub(super) fn complete_mounts(pod: &mut Value) {
    for container in containers_mut(pod) {
        for mount in items_mut(container, "volumeMounts").filter_map(Value::as_object_mut) {
            mount.entry("mountPath").or_insert_with(|| json!(""));
        }
    }
}

/// Our own labels and annotations are left out, unless the pod brought them.
pub(super) fn without_our_metadata(mut pod: Value, admitted: &Value) -> Value {
    for map in ["labels", "annotations"] {
        if let Some(entries) = pod["metadata"][map].as_object_mut() {
            let brought = &admitted["metadata"][map];
            entries.retain(|key, _| !key.starts_with("tokenscope.io/") || brought.get(key).is_some());
        }
    }
    normalised(pod)
}

/// Without what is there or not without meaning anything: nulls, empty resources, annotations and lists.
pub(super) fn normalised(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| (key, normalised(value)));
            let meaningless = |key: &str, value: &Value| match key {
                "resources" | "annotations" | "labels" | "creationTimestamp" => {
                    value.as_object().is_some_and(Map::is_empty)
                }
                "env" | "volumeMounts" | "volumes" | "initContainers" => value.as_array().is_some_and(Vec::is_empty),
                _ => false,
            };
            Value::Object(
                members
                    .filter(|(key, value)| !value.is_null() && !meaningless(key, value))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(normalised).collect()),
        other => other,
    }
}
